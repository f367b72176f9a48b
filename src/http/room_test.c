/* room_test.c - what fits, on one loop and on several. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/macros.h"
#include "http/room.h"

enum {
	LOOPS = 4,
	BYTES = 1600,
	SHARE = BYTES / 4 / LOOPS,
	COMMON = BYTES - SHARE * LOOPS,
	LESS = BYTES / 8,
	MORE = 8 * BYTES,
};

static const struct room_bounds bounds = {BYTES, LOOPS};

/* One step: loop `loop` takes `bytes` for somebody who has `own`, or gives them back (bytes < 0). */
struct step {
	unsigned loop;
	int bytes;
	size_t own;
	bool fits;
};

static void fits_and_does_not(void **state)
{
	static const struct {
		const char *what;
		struct step steps[8];
	} cases[] = {
		{"shares of their own",
			{{0, SHARE, 0, true}, {1, SHARE, 0, true}, {2, SHARE, 0, true}, {3, SHARE, 0, true}}},
		{"all that is common for one", {{0, SHARE + COMMON, 0, true}, {1, SHARE, 0, true},
						       {1, 1, SHARE, false}, {0, 1, 0, false}}},
		{"more than there is, alone", {{0, MORE, 0, true}, {0, BYTES, MORE, true}, {0, 1, 0, false},
						      {1, SHARE + 1, 0, false}, {0, -(MORE + BYTES), 0, true},
						      {1, SHARE + 1, 0, true}}},
		{"alone in pieces",
			{{2, SHARE, 0, true}, {2, COMMON, SHARE, true}, {2, BYTES, SHARE + COMMON, true}}},
		{"not alone on its loop",
			{{0, 1, 0, true}, {0, SHARE + COMMON, 0, false}, {0, SHARE + COMMON - 1, 0, true}}},
		{"others within their shares are no hindrance", {{0, SHARE, 0, true}, {1, BYTES, 0, true}}},
		{"others beyond theirs are", {{0, SHARE + 1, 0, true}, {1, BYTES, 0, false}, {0, -1, 0, true},
						     {1, BYTES, 0, true}}},
		{"given back in part", {{0, SHARE + COMMON, 0, true}, {0, -COMMON / 2, 0, true},
					       {1, SHARE + COMMON / 2, 0, true}, {2, SHARE + 1, 0, false}}},
	};
	(void)state;
	for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
		struct room room = {0};
		struct room_share shares[LOOPS] = {{0}};
		for (const struct step *s = cases[c].steps; s->bytes; s++) {
			struct room_share *share = &shares[s->loop];
			bool fits = true;
			if (s->bytes < 0)
				room_give_back(&room, share, bounds, (size_t)-s->bytes);
			else
				fits = room_take(&room, share, bounds, (size_t)s->bytes, s->own);
			if (fits != s->fits)
				fail_msg("%s, step %d", cases[c].what, (int)(s - cases[c].steps));
		}
		for (unsigned i = 0; i < LOOPS; i++)
			room_give_back(&room, &shares[i], bounds, shares[i].used);
		assert_int_equal(room.borrowed, 0);
	}
}

/* What was taken under other bounds is given back whole. */
static void bounds_may_change(void **state)
{
	static const struct room_bounds sizes[] = {{BYTES, LOOPS}, {LESS, LOOPS}, {MORE, LOOPS}};
	(void)state;
	for (size_t from = 0; from < ARRAY_LEN(sizes); from++)
		for (size_t to = 0; to < ARRAY_LEN(sizes); to++) {
			struct room room = {0};
			struct room_share share = {0};
			assert_true(room_take(&room, &share, sizes[from], BYTES, 0));
			assert_true(room_take(&room, &share, sizes[to], SHARE, BYTES));
			assert_int_equal(
				room_take(&room, &share, sizes[to], SHARE, 0), sizes[to].bytes > BYTES);
			room_give_back(&room, &share, sizes[to], share.used);
			assert_int_equal(room.borrowed, 0);
		}
}

enum { TURNS = 20000 };

struct worker {
	struct room *room;
	struct room_share share;
	_Atomic size_t *in_use;
	size_t most;
};

static void *take_and_give(void *arg)
{
	struct worker *w = arg;
	for (unsigned i = 0; i < TURNS; i++) {
		size_t bytes = 1 + i * 7919 % (BYTES / 2);
		/* Never alone, so that the bound holds. */
		if (!room_take(w->room, &w->share, bounds, bytes, SIZE_MAX))
			continue;
		size_t now = atomic_fetch_add(w->in_use, bytes) + bytes;
		if (now > w->most)
			w->most = now;
		atomic_fetch_sub(w->in_use, bytes);
		room_give_back(w->room, &w->share, bounds, bytes);
	}
	return NULL;
}

static void loops_never_have_more_together(void **state)
{
	struct room room = {0};
	_Atomic size_t in_use = 0;
	struct worker workers[LOOPS];
	pthread_t threads[LOOPS];
	(void)state;
	for (unsigned i = 0; i < LOOPS; i++) {
		workers[i] = (struct worker){.room = &room, .in_use = &in_use};
		assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &workers[i]), 0);
	}
	for (unsigned i = 0; i < LOOPS; i++) {
		pthread_join(threads[i], NULL);
		assert_in_range(workers[i].most, 1, BYTES);
	}
	assert_int_equal(room.borrowed, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fits_and_does_not),
		cmocka_unit_test(bounds_may_change),
		cmocka_unit_test(loops_never_have_more_together),
	};
	return cmocka_run_group_tests_name("http_room", tests, NULL, NULL);
}
