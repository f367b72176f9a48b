/* attempts.h - how many refusals an address has had lately; past a number it is not listened to for a while.
 * All IPv6 addresses of a /64 count as one (base/address.h).
 *
 * Counts live in a table of fixed size, found by a keyed hash of the address: whatever addresses come, memory
 * stays the same. Two addresses may share a count, which then is the sum: an address may be held off early,
 * never late.
 *
 * Threads: any. */
#ifndef SERVER_ATTEMPTS_H
#define SERVER_ATTEMPTS_H

#include "base/clock.h"
#include "base/err.h"

struct attempts;

enum { ATTEMPTS_WINDOW_MS = 10 * 60 * 1000 };

MUST_CHECK int attempts_new(const struct clock *clock, struct attempts **ret, struct err *e);
void attempts_free(struct attempts *a);

/* Counts a refusal; the first one opens a window. */
void attempts_refused(struct attempts *a, const char *address);

/* Whether the address may try: it had fewer than `max` refusals in its window. */
MUST_CHECK bool attempts_allowed(struct attempts *a, const char *address, int64_t max);

#endif
