/* self_usage.h - CPU and memory of this process, as metrics: which of its threads do the work.
 * Threads: any, one at a time. */
#ifndef CLI_SELF_USAGE_H
#define CLI_SELF_USAGE_H

/* Sets the gauges from /proc/self; what cannot be read stays as it was. */
void self_usage_collect(void);

#endif
