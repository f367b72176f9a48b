/* faulty.h - options of the driver that fails on demand: a wrapper around any other, for tests.
 *
 * Pass &plan as store_options.driver_arg; location goes to the wrapped driver. Calls that can fail are
 * counted, from 1; a call that is to fail returns before the wrapped driver sees it. */
#ifndef STORE_FAULTY_H
#define STORE_FAULTY_H

#include <stdatomic.h>

#include "store/driver.h"

struct faulty_plan {
	const struct store_driver *inner;
	void *inner_arg;
	_Atomic unsigned fail_from,
		fail_count;          /* calls fail_from … fail_from + fail_count - 1 fail; 0: none */
	_Atomic enum err_kind kind;  /* how: ERR_RETRY, ERR_FATAL */
	_Atomic unsigned call_count; /* result: so far */
};

#endif
