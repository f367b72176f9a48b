/* faulty.h - a driver that wraps another one and fails as told, for tests.
 *
 * queue_options.driver_arg (queue_driver_options.arg) points to a struct faulty, which stays the test's.
 * Calls of open, begin, commit, the operations and probe are counted. A failing begin, commit, probe or open
 * is not made; a failing operation is made first: its group has to undo it. Threads: as drivers; faulty_fail
 * from any. */
#ifndef QUEUE_FAULTY_H
#define QUEUE_FAULTY_H

#include <stdatomic.h>

#include "queue/driver.h"

struct faulty {
	const struct queue_driver *inner;
	void *inner_arg;
	enum err_kind kind;         /* of the failures: ERR_RETRY or ERR_FATAL */
	_Atomic(const char *) only; /* see faulty_fail */
	_Atomic unsigned calls, fail_at, fail_count;
	void *inner_state;
};

/* From now on the call number `at` (from 1; 0: none) and the count - 1 calls after it fail. `only`: counts
 * and fails calls of this function alone ("commit", "put", …), NULL: of all. */
void faulty_fail(struct faulty *f, const char *only, unsigned at, unsigned count);

#endif
