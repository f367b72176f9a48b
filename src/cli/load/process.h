/* process.h - what another process and its children have used, read from /proc and the kernel's CPU clocks.
 * Units: CPU in nanoseconds since each process began; resident memory in bytes. */
#ifndef CLI_LOAD_PROCESS_H
#define CLI_LOAD_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct process_usage {
	int64_t cpu_ns; /* all threads, of the process and its living descendants, and of reaped children */
	int64_t rss_bytes;      /* now, of the process itself */
	int64_t peak_rss_bytes; /* since it began */
};

/* ERR_NOT_FOUND when there is no such process. */
MUST_CHECK int process_usage(pid_t pid, struct process_usage *ret, struct err *e);

#endif
