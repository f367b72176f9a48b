/* registry_test.c - rows come, change, go; and readers are never shown half an apply. */
#include "tls/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>

static struct registry_row row_of(uint32_t number, enum registry_status status)
{
	struct registry_row row = {.serial_bytes = 4,
		.serial = {(uint8_t)(number >> 24 | 1), (uint8_t)(number >> 16), (uint8_t)(number >> 8),
			(uint8_t)number},
		.issuer_key_id = {7},
		.status = status,
		.role = ROLE_CLIENT,
		.name = STR("client_001"),
		.domain = STR("example.com"),
		.not_after = {number},
		.change = number};
	return row;
}

static struct identity identity_for(uint32_t number)
{
	struct registry_row row = row_of(number, REGISTRY_ACTIVE);
	struct identity id = {
		.role = row.role, .name = "client_001", .domain = "example.com", .serial_bytes = 4};
	memcpy(id.serial, row.serial, sizeof(id.serial));
	memcpy(id.issuer_key_id, row.issuer_key_id, sizeof(id.issuer_key_id));
	return id;
}

static int setup(void **state)
{
	return registry_new((struct registry **)state, NULL);
}

static int teardown(void **state)
{
	registry_free(*state);
	return 0;
}

static enum registry_status status_of(struct registry *r, uint32_t number)
{
	struct identity id = identity_for(number);
	return registry_check(r, &id);
}

static void test_rows(void **state)
{
	struct registry *r = *state;
	assert_int_equal(status_of(r, 1), REGISTRY_UNKNOWN);
	struct registry_row rows[] = {
		row_of(1, REGISTRY_ACTIVE), row_of(2, REGISTRY_REVOKED), row_of(3, REGISTRY_SUSPENDED)};
	uint64_t generation = registry_generation(r);
	assert_int_equal(registry_apply(r, rows, 3, NULL), 0);
	assert_true(registry_generation(r) > generation);
	assert_int_equal(registry_change(r), 3);
	assert_int_equal(registry_count(r), 3);
	for (uint32_t i = 1; i <= 3; i++)
		assert_int_equal(status_of(r, i), rows[i - 1].status);
	assert_int_equal(status_of(r, 4), REGISTRY_UNKNOWN);

	rows[0] = row_of(1, REGISTRY_REVOKED);
	assert_int_equal(registry_apply(r, rows, 1, NULL), 0);
	assert_int_equal(status_of(r, 1), REGISTRY_REVOKED);
	assert_int_equal(registry_count(r), 3);
	assert_int_equal(registry_change(r), 3);
}

static void test_merge_keeps_what_is_revoked(void **state)
{
	struct registry *r = *state;
	struct registry_row rows[] = {
		row_of(1, REGISTRY_REVOKED), row_of(2, REGISTRY_SUSPENDED), row_of(3, REGISTRY_ACTIVE)};
	assert_int_equal(registry_merge(r, rows, 3, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		rows[i].status = REGISTRY_ACTIVE;
	rows[2].status = REGISTRY_REVOKED;
	assert_int_equal(registry_merge(r, rows, 3, NULL), 0);
	assert_int_equal(status_of(r, 1), REGISTRY_REVOKED);
	assert_int_equal(status_of(r, 2), REGISTRY_ACTIVE);
	assert_int_equal(status_of(r, 3), REGISTRY_REVOKED);
}

static void test_all_of_the_identity_counts(void **state)
{
	struct registry *r = *state;
	struct registry_row row = row_of(1, REGISTRY_ACTIVE);
	assert_int_equal(registry_apply(r, &row, 1, NULL), 0);
	struct identity good = identity_for(1), id;
	assert_int_equal(registry_check(r, &good), REGISTRY_ACTIVE);
	id = good, id.role = ROLE_ADMIN;
	assert_int_equal(registry_check(r, &id), REGISTRY_UNKNOWN);
	id = good, id.name[9] = '2';
	assert_int_equal(registry_check(r, &id), REGISTRY_UNKNOWN);
	id = good, id.domain[0] = 'E';
	assert_int_equal(registry_check(r, &id), REGISTRY_UNKNOWN);
	id = good, id.issuer_key_id[19] = 1;
	assert_int_equal(registry_check(r, &id), REGISTRY_UNKNOWN);
	id = good, id.serial_bytes = 3;
	assert_int_equal(registry_check(r, &id), REGISTRY_UNKNOWN);
}

static void test_bad_rows(void **state)
{
	struct registry *r = *state;
	struct registry_row rows[5];
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		rows[i] = row_of(1, REGISTRY_ACTIVE);
	rows[0].serial_bytes = 0;
	rows[1].serial_bytes = 21;
	rows[2].role = ROLE_NONE;
	rows[3].name = STR("no spaces");
	rows[4].status = REGISTRY_UNKNOWN;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct registry_row batch[] = {row_of(9, REGISTRY_ACTIVE), rows[i]};
		struct err e;
		assert_int_equal(registry_apply(r, batch, 2, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
		assert_int_equal(registry_count(r), 0);
	}
}

static void test_many_rows_and_prune(void **state)
{
	enum { ROWS = 5000 };
	struct registry *r = *state;
	static struct registry_row rows[ROWS];
	for (uint32_t i = 0; i < ROWS; i++)
		rows[i] = row_of(i << 1, i % 2 ? REGISTRY_REVOKED : REGISTRY_ACTIVE);
	for (size_t at = 0; at < ROWS; at += 500)
		assert_int_equal(registry_apply(r, rows + at, 500, NULL), 0);
	assert_int_equal(registry_count(r), ROWS);
	for (uint32_t i = 0; i < ROWS; i++)
		assert_int_equal(status_of(r, i << 1), rows[i].status);

	uint64_t generation = registry_generation(r);
	assert_int_equal(registry_prune(r, (struct wall){ROWS}, NULL), 0);
	assert_int_equal(registry_count(r), ROWS / 2);
	assert_true(registry_generation(r) > generation);
	assert_int_equal(status_of(r, ROWS - 2), REGISTRY_UNKNOWN);
	assert_int_equal(status_of(r, ROWS), REGISTRY_ACTIVE);
}

/* --- threads --- */

struct race {
	struct registry *registry;
	atomic_bool stop;
	atomic_uint torn; /* readers that saw a later row changed and an earlier one not */
};

/* The writer flips both rows in one apply; a reader that sees the first as new must find the second new too.
 */
static void *read_pairs(void *arg)
{
	struct race *race = arg;
	while (!atomic_load(&race->stop)) {
		uint64_t before = registry_generation(race->registry);
		enum registry_status first = status_of(race->registry, 1);
		enum registry_status second = status_of(race->registry, 2);
		if (registry_generation(race->registry) == before && first != second)
			atomic_fetch_add(&race->torn, 1);
	}
	return NULL;
}

static void test_readers_see_whole_applies(void **state)
{
	enum { READERS = 3, ROUNDS = 2000 };
	struct race race = {.registry = *state};
	struct registry_row rows[] = {row_of(1, REGISTRY_ACTIVE), row_of(2, REGISTRY_ACTIVE)};
	assert_int_equal(registry_apply(race.registry, rows, 2, NULL), 0);
	pthread_t readers[READERS];
	for (size_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_pairs, &race), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		rows[0].status = rows[1].status = round % 2 ? REGISTRY_ACTIVE : REGISTRY_REVOKED;
		assert_int_equal(registry_apply(race.registry, rows, 2, NULL), 0);
	}
	atomic_store(&race.stop, true);
	for (size_t i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	assert_int_equal(race.torn, 0);
}

/* Taken out once, in portions, and not lost when the row changes meanwhile. */
static void seen_is_taken_once(void **state)
{
	(void)state;
	struct registry *r;
	struct err e = ERR_INIT;
	assert_int_equal(registry_new(&r, &e), 0);
	struct registry_row rows[3];
	struct identity ids[3];
	for (unsigned i = 0; i < 3; i++) {
		rows[i] = (struct registry_row){.serial = {(uint8_t)(i + 1), 7},
			.serial_bytes = 2,
			.role = ROLE_CLIENT,
			.name = STR("alpha"),
			.domain = STR("north"),
			.change = i + 1};
		ids[i] = (struct identity){
			.serial = {(uint8_t)(i + 1), 7}, .serial_bytes = 2, .role = ROLE_CLIENT};
	}
	assert_int_equal(registry_apply(r, rows, 3, &e), 0);
	struct registry_seen seen[4];
	assert_int_equal(registry_take_seen(r, seen, 4), 0);
	uint64_t generation = registry_generation(r);
	registry_note_seen(r, &ids[1], (struct wall){500});
	registry_note_seen(r, &ids[1], (struct wall){600});
	ids[2].serial[0] = 99; /* unknown */
	registry_note_seen(r, &ids[2], (struct wall){600});
	assert_int_equal(registry_generation(r), generation);
	assert_int_equal(registry_apply(r, rows, 3, &e), 0);
	assert_int_equal(registry_take_seen(r, seen, 4), 1);
	assert_int_equal(seen[0].at.ms, 600);
	assert_int_equal(seen[0].serial_bytes, 2);
	assert_memory_equal(seen[0].serial, rows[1].serial, 2);
	assert_int_equal(registry_take_seen(r, seen, 4), 0);
	registry_note_seen(r, &ids[0], (struct wall){700});
	registry_note_seen(r, &ids[1], (struct wall){700});
	assert_int_equal(registry_take_seen(r, seen, 1), 1);
	assert_int_equal(registry_take_seen(r, seen, 1), 1);
	assert_int_equal(registry_take_seen(r, seen, 1), 0);
	registry_free(r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seen_is_taken_once),
		TEST(test_rows),
		TEST(test_merge_keeps_what_is_revoked),
		TEST(test_all_of_the_identity_counts),
		TEST(test_bad_rows),
		TEST(test_many_rows_and_prune),
		TEST(test_readers_see_whole_applies),
	};
#undef TEST
	return cmocka_run_group_tests(tests, NULL, NULL);
}
