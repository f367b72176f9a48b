/* must_test.h - for tests: what has to work before anything can be asked. cmocka.h comes first. */
#ifndef BASE_MUST_TEST_H
#define BASE_MUST_TEST_H

#include "base/err.h"

static inline void must(int rc, const struct err *e)
{
	if (rc < 0)
		fail_msg("%s", e->text);
}

#endif
