#include "message/uuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct wall start = {1790000000000};

static struct uuid next(struct uuid_source *source)
{
	struct err e = ERR_INIT;
	struct uuid id;
	assert_int_equal(uuid_next(source, &id, &e), 0);
	assert_true(uuid_valid(&id));
	return id;
}

static void test_layout(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct uuid_source source;
	char text[UUID_TEXT_BYTES];
	clock_fake_init(&clock, (struct wall){0x0192a3b4c5d6});
	uuid_source_init(&source, &clock.clock, ((uint64_t)0x0192a3b4c5d6 << 16) + 0xabcc);
	struct uuid id = next(&source);
	uuid_format(&id, text);
	assert_memory_equal(text, "0192a3b4-c5d6-7abc-", 19);
	assert_int_equal(id.b[8] >> 2, 0x20 | 0xd); /* variant, then the last four bits of the counter */
	assert_int_equal(uuid_order_key(&id), ((uint64_t)0x0192a3b4c5d6 << 16) + 0xabcd);
	assert_int_equal(uuid_time(&id).ms, 0x0192a3b4c5d6);
}

/* RFC 9562 appendix A.6: 017F22E2-79B0-7CC3-98C4-DC0C0C07398F. */
static void test_rfc_example(void **state)
{
	(void)state;
	struct uuid id;
	char text[UUID_TEXT_BYTES];
	assert_true(uuid_parse(STR("017F22E2-79B0-7CC3-98C4-DC0C0C07398F"), &id));
	assert_int_equal(uuid_time(&id).ms, 0x017f22e279b0);
	assert_int_equal(uuid_order_key(&id), ((uint64_t)0x017f22e279b0 << 16) + 0xcc36);
	uuid_format(&id, text);
	assert_string_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");

	/* The same without its random bits, which the key has not. */
	struct uuid lowest = uuid_of_order_key(uuid_order_key(&id));
	uuid_format(&lowest, text);
	assert_string_equal(text, "017f22e2-79b0-7cc3-9800-000000000000");
	assert_int_equal(uuid_order_key(&lowest), uuid_order_key(&id));
}

static void test_text_round_trip(void **state)
{
	(void)state;
	struct uuid_source source;
	uuid_source_init(&source, &clock_system, 0);
	for (int i = 0; i < 1000; i++) {
		struct uuid id = next(&source), back;
		char text[UUID_TEXT_BYTES];
		uuid_format(&id, text);
		assert_true(uuid_parse(str_of(text), &back));
		assert_true(uuid_eq(&id, &back));
	}
}

static void test_bad_text(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"",
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398",
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398ff",
		"017f22e279b07cc398c4dc0c0c07398f",
		"{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
		"017f22e2-79b0-4cc3-98c4-dc0c0c07398f", /* version 4 */
		"017f22e2-79b0-8cc3-98c4-dc0c0c07398f",
		"017f22e2-79b0-7cc3-78c4-dc0c0c07398f", /* other variants */
		"017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
		"017f22e2-79b0-7cc3-98c4 dc0c0c07398f",
		"017f22e27-9b0-7cc3-98c4-dc0c0c07398f",
		" 17f22e2-79b0-7cc3-98c4-dc0c0c07398f",
		"+17f22e2-79b0-7cc3-98c4-dc0c0c07398f",
		"00000000-0000-0000-0000-000000000000",
	};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct uuid id = {{1, 2, 3}}, before = id;
		assert_false(uuid_parse(str_of(texts[i]), &id));
		assert_true(uuid_eq(&id, &before));
	}
}

/* Keys grow by one while the clock stands still or goes back, and jump when it has moved on. */
static void test_clock(void **state)
{
	(void)state;
	static const struct {
		int64_t step_ms;
		int64_t time_ms; /* of the id, relative to the start */
		uint64_t counter;
	} cases[] = {
		{0, 0, 0},
		{0, 0, 1},
		{5, 5, 0},
		{0, 5, 1},
		{-1000, 5, 2},
		{994, 5, 3},
		{7, 6, 0},
		{-7000000, 6, 1},
	};
	struct clock_fake clock;
	struct uuid_source source;
	clock_fake_init(&clock, start);
	uuid_source_init(&source, &clock.clock, 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		clock.now.ms += cases[i].step_ms;
		struct uuid id = next(&source);
		assert_int_equal(uuid_time(&id).ms, start.ms + cases[i].time_ms);
		assert_int_equal(uuid_order_key(&id) & 0xffff, cases[i].counter);
	}
}

static void test_before_1970(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct uuid_source source;
	clock_fake_init(&clock, (struct wall){-5});
	uuid_source_init(&source, &clock.clock, 0);
	struct uuid id = next(&source);
	assert_int_equal(uuid_order_key(&id), 1);
}

/* The 65537th id of a millisecond carries into the next one. */
static void test_counter_overflow(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct uuid_source source;
	clock_fake_init(&clock, start);
	uuid_source_init(&source, &clock.clock, 0);
	uint64_t last = uuid_order_key(&(struct uuid){{0}});
	for (int i = 0; i < 65536 + 3; i++) {
		struct uuid id = next(&source);
		uint64_t key = uuid_order_key(&id);
		assert_true(key > last);
		last = key;
	}
	assert_int_equal(last >> 16, start.ms + 1);
	assert_int_equal(last & 0xffff, 2);
	clock_fake_advance_ms(&clock, 1);
	struct uuid id = next(&source);
	assert_int_equal(uuid_order_key(&id), last + 1);
}

static void test_floor(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct uuid_source source;
	struct err e = ERR_INIT;
	struct uuid id;
	uint64_t ahead = (uint64_t)(start.ms + 86400000) << 16 | 77;
	clock_fake_init(&clock, start);
	uuid_source_init(&source, &clock.clock, ahead);
	id = next(&source);
	assert_int_equal(uuid_order_key(&id), ahead + 1);

	uuid_source_init(&source, &clock.clock, INT64_MAX - 1);
	id = next(&source);
	assert_int_equal(uuid_order_key(&id), INT64_MAX);
	assert_int_equal(uuid_next(&source, &id, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
}

/* A run: keys without a gap, over the end of a millisecond's counter too, and the next id comes after them.
 */
static void test_runs(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct uuid_source source;
	struct err e = ERR_INIT;
	struct uuid first;
	uint64_t floor = ((uint64_t)start.ms << 16) + 0xfff0;
	clock_fake_init(&clock, start);
	uuid_source_init(&source, &clock.clock, floor);
	assert_int_equal(uuid_next_run(&source, 100, &first, &e), 0);
	for (unsigned i = 0; i < 100; i++) {
		struct uuid id = uuid_in_run(&first, i);
		assert_true(uuid_valid(&id));
		assert_int_equal(uuid_order_key(&id), floor + 1 + i);
		assert_memory_equal(id.b + 9, first.b + 9, 7);
	}
	struct uuid after = next(&source);
	assert_int_equal(uuid_order_key(&after), floor + 101);
}

enum { THREADS = 8, IDS_PER_THREAD = 10000 };

struct generator {
	struct uuid_source *source;
	struct uuid ids[IDS_PER_THREAD];
	bool failed;
};

static void *generate(void *arg)
{
	struct generator *g = arg;
	for (int i = 0; i < IDS_PER_THREAD; i++)
		g->failed |= uuid_next(g->source, &g->ids[i], NULL) < 0;
	return NULL;
}

static int compare_keys(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

/* Eight threads on one generator: each sees its own ids grow, and no key comes twice. */
static void test_threads(void **state)
{
	(void)state;
	static struct generator generators[THREADS];
	static uint64_t keys[THREADS * IDS_PER_THREAD];
	struct uuid_source source;
	pthread_t threads[THREADS];
	uuid_source_init(&source, &clock_system, 0);
	for (int t = 0; t < THREADS; t++) {
		generators[t].source = &source;
		assert_int_equal(pthread_create(&threads[t], NULL, generate, &generators[t]), 0);
	}
	size_t n = 0;
	for (int t = 0; t < THREADS; t++) {
		assert_int_equal(pthread_join(threads[t], NULL), 0);
		assert_false(generators[t].failed);
		for (int i = 0; i < IDS_PER_THREAD; i++) {
			keys[n] = uuid_order_key(&generators[t].ids[i]);
			if (i > 0)
				assert_true(keys[n] > keys[n - 1]);
			n++;
		}
	}
	qsort(keys, n, sizeof(keys[0]), compare_keys);
	for (size_t i = 1; i < n; i++)
		assert_true(keys[i] > keys[i - 1]);
}

/* The 58 random bits: two sources on the same clock, so that the keys are equal. */
static void test_random_bits_differ(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct uuid_source a, b;
	uint8_t ones[8] = {0}, zeros[8] = {0};
	clock_fake_init(&clock, start);
	uuid_source_init(&a, &clock.clock, 0);
	uuid_source_init(&b, &clock.clock, 0);
	for (int i = 0; i < 200; i++) {
		struct uuid x = next(&a), y = next(&b);
		assert_int_equal(uuid_order_key(&x), uuid_order_key(&y));
		assert_false(uuid_eq(&x, &y));
		for (int k = 0; k < 8; k++) {
			ones[k] |= x.b[8 + k];
			zeros[k] |= (uint8_t)~x.b[8 + k];
		}
	}
	/* each random bit has been 1 and has been 0 */
	assert_int_equal(ones[0] & zeros[0] & 0x03, 0x03);
	for (int k = 1; k < 8; k++)
		assert_int_equal(ones[k] & zeros[k], 0xff);
}

/* A child draws other random bits than its parent, though it inherits the parent's pool. */
static void test_fork(void **state)
{
	(void)state;
	struct clock_fake clock;
	struct uuid_source source;
	int pipe_fds[2];
	clock_fake_init(&clock, start);
	uuid_source_init(&source, &clock.clock, 0);
	next(&source); /* fills this thread's pool */
	assert_int_equal(pipe(pipe_fds), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct uuid id;
		bool ok = uuid_next(&source, &id, NULL) == 0 &&
			  write(pipe_fds[1], &id, sizeof(id)) == sizeof(id);
		_exit(ok ? 0 : 1);
	}
	struct uuid ours = next(&source), theirs;
	assert_int_equal(read(pipe_fds[0], &theirs, sizeof(theirs)), sizeof(theirs));
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(uuid_order_key(&ours), uuid_order_key(&theirs));
	assert_false(uuid_eq(&ours, &theirs));
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_rfc_example),
		cmocka_unit_test(test_text_round_trip),
		cmocka_unit_test(test_bad_text),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_before_1970),
		cmocka_unit_test(test_counter_overflow),
		cmocka_unit_test(test_floor),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_random_bits_differ),
		cmocka_unit_test(test_fork),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
