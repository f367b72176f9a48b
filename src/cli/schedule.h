/* schedule.h - when a certificate is due for renewal, and when to try again.
 * Threads: any; plain values. Times are in milliseconds. */
#ifndef CLI_SCHEDULE_H
#define CLI_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

/* From two thirds of the lifetime on. */
struct wall renewal_due(struct wall not_before, struct wall not_after);

/* When a service starts to try: somewhere in the first tenth of what is then left, so that devices that were
 * enrolled together do not all come together. `random`: any number. */
struct wall renewal_start(struct wall not_before, struct wall not_after, uint64_t random);

enum { RENEWAL_RETRY_MIN_MS = 60 * 1000, RENEWAL_RETRY_MAX_MS = 60 * 60 * 1000 };

/* How long to wait after `failures` in a row: a minute, doubling up to an hour, and up to half as much again. */
int64_t renewal_retry_ms(unsigned failures, uint64_t random);

/* Whether so little is left that a person should look: half of the time for renewing is over. */
bool renewal_urgent(struct wall not_before, struct wall not_after, struct wall now);

#endif
