/* schedule_test.c - lanes that do not fit into their window, over a driver that is two sorted arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "queue/schedule.h"

enum { WINDOW = 4, PART = 3, STORED = 1024 };

struct driver {
	struct schedule_entry stored[LANES][STORED]; /* in order */
	unsigned count[LANES];
	unsigned loads;
	bool broken;
};

static int order(const void *a, const void *b)
{
	const struct schedule_entry *x = a, *y = b;
	if (x->due_ms != y->due_ms)
		return x->due_ms < y->due_ms ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

static void store(struct driver *d, struct schedule_entry entry)
{
	unsigned *count = &d->count[entry.lane];
	assert_in_range(*count, 0, STORED - 1);
	d->stored[entry.lane][(*count)++] = entry;
	qsort(d->stored[entry.lane], *count, sizeof(entry), order);
}

static void erase(struct driver *d, struct schedule_entry entry)
{
	struct schedule_entry *stored = d->stored[entry.lane];
	unsigned kept = 0;
	for (unsigned i = 0; i < d->count[entry.lane]; i++)
		if (stored[i].key != entry.key)
			stored[kept++] = stored[i];
	d->count[entry.lane] = kept;
}

static int load(void *source, struct schedule *s, enum schedule_lane lane, const struct schedule_entry *after,
	unsigned max, struct err *e)
{
	struct driver *d = source;
	unsigned given = 0;
	(void)max;
	d->loads++;
	for (unsigned i = 0; i < d->count[lane]; i++) {
		if (order(&d->stored[lane][i], after) <= 0)
			continue;
		if (given == PART)
			return SCHEDULE_MORE;
		if (schedule_offer(s, &d->stored[lane][i], e) < 0)
			return -1;
		given++;
	}
	return d->broken ? err_set(e, ERR_RETRY, "broken") : SCHEDULE_ALL;
}

struct bed {
	struct driver driver;
	struct schedule *schedule;
	struct schedule_batch *batch;
};

static int set_up(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));
	assert_non_null(b);
	assert_int_equal(
		schedule_new(load, &b->driver, WINDOW, &(struct schedule_counts){0}, &b->schedule, NULL), 0);
	assert_int_equal(schedule_batch_new(b->schedule, 0, STR("w"), &b->batch, NULL), 0);
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bed *b = *state;
	schedule_batch_unref(b->batch);
	schedule_free(b->schedule);
	free(b);
	return 0;
}

static void accept(struct bed *b, uint64_t key)
{
	store(&b->driver, (struct schedule_entry){.key = key});
	schedule_accept(b->schedule, key, 0);
}

/* The key of the next due message, leased until 1000; 0 for none. */
static uint64_t take(struct bed *b, int64_t now_ms)
{
	struct schedule_entry entry;
	int rc = schedule_next(b->schedule, (struct wall){now_ms}, &entry, NULL);
	assert_true(rc >= 0);
	if (rc == 0)
		return 0;
	assert_int_equal(schedule_lease(b->schedule, b->batch, &entry, (struct mono){1000}, NULL), 0);
	return entry.key;
}

static void retry(struct bed *b, uint64_t key, int64_t due_ms)
{
	struct schedule_lease *lease = schedule_find(b->schedule, key, 0);
	assert_non_null(lease);
	erase(&b->driver, lease->entry);
	store(&b->driver, (struct schedule_entry){due_ms, key, lease->entry.attempts + 1, LANE_RETRY});
	assert_int_equal(schedule_retry(b->schedule, lease, (struct wall){due_ms}, NULL), 0);
}

static void test_more_than_the_window(void **state)
{
	struct bed *b = *state;
	for (uint64_t key = 1; key <= 30; key++)
		accept(b, key);
	for (uint64_t key = 1; key <= 30; key++)
		assert_int_equal(take(b, 0), key);
	assert_int_equal(take(b, 0), 0);
	assert_in_range(b->driver.loads, 30 / PART - 2, 30);
	accept(b, 31);
	assert_int_equal(take(b, 0), 31);
}

static void test_late_keys_around_the_horizon(void **state)
{
	struct bed *b = *state;
	for (uint64_t key = 10; key <= 200; key += 10)
		accept(b, key);
	assert_int_equal(take(b, 0), 10);
	accept(b, 5);  /* before everything */
	accept(b, 25); /* within the window */
	accept(b, 55); /* behind the horizon */
	static const uint64_t expected[] = {5, 20, 25, 30, 40, 50, 55, 60};
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(take(b, 0), expected[i]);
}

static void test_abort_reads_the_lanes_again(void **state)
{
	struct bed *b = *state;
	for (uint64_t key = 1; key <= 10; key++)
		accept(b, key);
	assert_int_equal(take(b, 0), 1);
	schedule_commit(b->schedule);
	assert_int_equal(take(b, 0), 2);
	assert_int_equal(take(b, 0), 3);
	assert_int_equal(schedule_leased(b->schedule), 3);
	schedule_abort(b->schedule);
	assert_int_equal(schedule_leased(b->schedule), 1);
	for (uint64_t key = 2; key <= 10; key++)
		assert_int_equal(take(b, 0), key);
	assert_int_equal(take(b, 0), 0);
	assert_int_equal(schedule_counts(b->schedule)->waiting, 10);
	assert_int_equal(schedule_counts(b->schedule)->floor_key, 10);
}

/* Sooner than the horizon, later, and at the same moment. */
static void test_retries_in_order_of_due_time(void **state)
{
	struct bed *b = *state;
	for (uint64_t key = 1; key <= 12; key++)
		accept(b, key);
	for (uint64_t key = 1; key <= 12; key++)
		assert_int_equal(take(b, 0), key);
	for (uint64_t key = 1; key <= 12; key++)
		retry(b, key, 100 + (int64_t)(key * 5 % 12) / 2 * 10);
	schedule_commit(b->schedule);
	assert_int_equal(take(b, 99), 0);
	int64_t now_ms;
	assert_int_equal(schedule_oldest_due(b->schedule, (struct wall){0}, &now_ms, NULL), 0);
	assert_int_equal(now_ms, 100);
	int64_t previous_ms = 0;
	for (unsigned i = 0; i < 12; i++) {
		uint64_t key = take(b, 200);
		int64_t due_ms = schedule_find(b->schedule, key, 0)->entry.due_ms;
		assert_true(due_ms >= previous_ms);
		previous_ms = due_ms;
	}
	assert_int_equal(take(b, 200), 0);
	assert_int_equal(schedule_counts(b->schedule)->retrying, 12);
}

static void test_expired_ones_are_found_once(void **state)
{
	struct bed *b = *state;
	for (uint64_t key = 1; key <= 20; key++)
		accept(b, key);
	for (uint64_t key = 1; key <= 20; key++)
		assert_int_equal(take(b, 0), key);
	for (uint64_t key = 2; key <= 20; key += 2)
		assert_int_equal(schedule_renew(b->schedule, schedule_find(b->schedule, key, 0),
					 (struct mono){5000}, NULL),
			0);
	unsigned cursor = 0, count = 0;
	assert_null(schedule_expired(b->schedule, (struct mono){999}, &cursor));
	for (struct schedule_lease *lease;
		(lease = schedule_expired(b->schedule, (struct mono){1000}, &cursor)); count++) {
		assert_int_equal(lease->entry.key % 2, 1);
		assert_int_equal(schedule_release(b->schedule, lease, NULL), 0);
	}
	assert_int_equal(count, 10);
	assert_int_equal(schedule_earliest(b->schedule).ns, 5000);
	assert_int_equal(b->batch->held, 10);
	schedule_abort(b->schedule);
	assert_int_equal(schedule_leased(b->schedule), 0);
	assert_int_equal(schedule_earliest(b->schedule).ns, INT64_MAX);
}

/* An abort brings back leases that had run out: they are found again. */
static void test_expiry_is_undone(void **state)
{
	struct bed *b = *state;
	accept(b, 1);
	assert_int_equal(take(b, 0), 1);
	schedule_commit(b->schedule);
	for (unsigned round = 0; round < 2; round++) {
		unsigned cursor = 0;
		struct schedule_lease *lease = schedule_expired(b->schedule, (struct mono){1000}, &cursor);
		assert_non_null(lease);
		assert_int_equal(schedule_release(b->schedule, lease, NULL), 0);
		assert_null(schedule_expired(b->schedule, (struct mono){1000}, &cursor));
		schedule_abort(b->schedule);
	}
	assert_int_equal(schedule_leased(b->schedule), 1);
}

static void test_tokens_are_not_used_twice(void **state)
{
	struct bed *b = *state;
	struct schedule_batch *other;
	assert_int_equal(schedule_batch_new(b->schedule, 0, STR("w"), &other, NULL), 0);
	assert_int_not_equal(other->token, b->batch->token);
	assert_in_range(other->token, 1, INT64_MAX);
	schedule_batch_unref(other);
	accept(b, 1);
	assert_int_equal(take(b, 0), 1);
	assert_non_null(schedule_find(b->schedule, 1, b->batch->token));
	assert_null(schedule_find(b->schedule, 1, b->batch->token + 1));
	assert_null(schedule_find(b->schedule, 2, 0));
}

static void test_broken_load_is_told(void **state)
{
	struct bed *b = *state;
	struct schedule_entry entry;
	struct err e = ERR_INIT;
	struct mono next;
	accept(b, 1);
	schedule_abort(b->schedule);
	b->driver.broken = true;
	assert_int_equal(schedule_next(b->schedule, (struct wall){0}, &entry, &e), -1);
	assert_int_equal(e.kind, ERR_RETRY);
	assert_false(schedule_attention(b->schedule, (struct wall){0}, (struct mono){0}, &next));
	assert_in_range(next.ns, 1, INT64_MAX - 1);
	b->driver.broken = false;
	assert_int_equal(take(b, 0), 1);
}

/* --- clients at random --- */

enum { STEPS = 6000, CLIENTS = 7 };

struct walk {
	struct bed *bed;
	uint64_t random, next_key;
	int64_t now_ms;
	struct schedule_entry held[STORED];
	unsigned held_count;
};

static unsigned pick(struct walk *w, unsigned below)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (unsigned)(w->random % below);
}

static bool is_held(const struct walk *w, uint64_t key)
{
	for (unsigned i = 0; i < w->held_count; i++)
		if (w->held[i].key == key)
			return true;
	return false;
}

static unsigned count_due(const struct walk *w)
{
	const struct driver *d = &w->bed->driver;
	unsigned count = 0;
	for (unsigned lane = 0; lane < LANES; lane++)
		for (unsigned i = 0; i < d->count[lane]; i++)
			count +=
				d->stored[lane][i].due_ms <= w->now_ms && !is_held(w, d->stored[lane][i].key);
	return count;
}

/* Some by the thousand from one client, some late. */
static void walk_accept(struct walk *w)
{
	struct driver *d = &w->bed->driver;
	unsigned client = pick(w, 3) ? 0 : pick(w, CLIENTS);
	for (unsigned n = 1 + pick(w, 8); n && d->count[LANE_FRESH] + d->count[LANE_RETRY] < STORED - 1;
		n--) {
		uint64_t key = pick(w, 10) ? w->next_key : w->next_key - 5;
		w->next_key += 10;
		store(d, (struct schedule_entry){.key = key, .client = client});
		schedule_accept(w->bed->schedule, key, client);
	}
}

static void walk_take(struct walk *w)
{
	for (unsigned n = 1 + pick(w, 6); n; n--) {
		unsigned due = count_due(w);
		uint64_t key = take(w->bed, w->now_ms);
		assert_int_equal(key != 0, due != 0);
		if (!key)
			return;
		assert_false(is_held(w, key));
		w->held[w->held_count++] = schedule_find(w->bed->schedule, key, 0)->entry;
	}
}

static void walk_end(struct walk *w)
{
	if (!w->held_count)
		return;
	unsigned place = pick(w, w->held_count);
	struct schedule_entry entry = w->held[place];
	struct schedule_lease *lease = schedule_find(w->bed->schedule, entry.key, 0);
	w->held[place] = w->held[--w->held_count];
	switch (pick(w, 4)) {
	case 0:
		assert_int_equal(schedule_release(w->bed->schedule, lease, NULL), 0);
		break;
	case 1:
		erase(&w->bed->driver, entry);
		entry = (struct schedule_entry){
			w->now_ms + pick(w, 40), entry.key, entry.attempts + 1, LANE_RETRY, entry.client};
		store(&w->bed->driver, entry);
		assert_int_equal(
			schedule_retry(w->bed->schedule, lease, (struct wall){entry.due_ms}, NULL), 0);
		break;
	default:
		erase(&w->bed->driver, entry);
		assert_int_equal(schedule_done(w->bed->schedule, lease, NULL), 0);
		break;
	}
}

/* Nothing waits that would not be handed out, nothing is handed out twice. */
static void test_clients_at_random(void **state)
{
	struct bed *b = *state;
	static struct walk walk;
	walk = (struct walk){.bed = b, .random = 88172645463325252, .next_key = 10};
	for (unsigned i = 0; i < STEPS; i++) {
		static void (*const steps[])(struct walk *) = {
			walk_accept, walk_take, walk_take, walk_end, walk_end, walk_end};
		steps[pick(&walk, ARRAY_LEN(steps))](&walk);
		walk.now_ms += pick(&walk, 3);
		schedule_commit(b->schedule);
		if (pick(&walk, 4) == 0)
			schedule_look_ahead(b->schedule);
		if (pick(&walk, 50) == 0)
			schedule_abort(b->schedule);
	}
	walk.now_ms += 1000;
	unsigned left = count_due(&walk);
	for (; left; left--)
		assert_int_not_equal(take(b, walk.now_ms), 0);
	assert_int_equal(take(b, walk.now_ms), 0);
}

static void accept_from(struct bed *b, uint64_t key, uint32_t client)
{
	store(&b->driver, (struct schedule_entry){.key = key, .client = client});
	schedule_accept(b->schedule, key, client);
}

static void test_clients_take_turns(void **state)
{
	struct bed *b = *state;
	assert_int_equal(take(b, 0), 0);
	for (uint64_t key = 1; key <= 20; key++)
		accept_from(b, key, 1);
	accept_from(b, 100, 2);
	accept_from(b, 101, 3);
	accept_from(b, 102, 2);
	static const uint64_t expected[] = {1, 100, 101, 2, 102, 3, 4, 5, 6, 7, 8};
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(take(b, 0), expected[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_more_than_the_window, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_late_keys_around_the_horizon, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_abort_reads_the_lanes_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_retries_in_order_of_due_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_expired_ones_are_found_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_expiry_is_undone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tokens_are_not_used_twice, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_broken_load_is_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clients_take_turns, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clients_at_random, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
