/* faulty.h - a driver that wraps another one and fails as told, for tests.
 *
 * queue_options.driver_arg (queue_driver_options.arg) points to a struct faulty, which stays the test's. Each
 * call of open, begin, commit, an operation or probe counts. A failing begin, commit, probe or open is not
 * made; a failing operation is made first: its group has to undo it. Threads: as drivers; a test that changes
 * the plan while a queue runs has to know that it is idle. */
#ifndef QUEUE_FAULTY_H
#define QUEUE_FAULTY_H

#include "queue/driver.h"

struct faulty {
	const struct queue_driver *inner;
	void *inner_arg;
	unsigned fail_at; /* this call and those after it fail, counted from 1; 0: none */
	unsigned fail_count;
	enum err_kind kind;
	unsigned calls; /* so far */
	void *inner_state;
};

#endif
