/* row_test.c - histories and entries, whole and damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "queue/row.h"

static void append(struct buf *history, const char *worker, const char *reason)
{
	struct queue_attempt attempt = {{1000}, str_of(worker), str_of(reason)};
	struct buf longer;
	buf_init(&longer, HISTORY_MAX_BYTES);
	history_append(buf_str(history), &attempt, &longer);
	assert_false(longer.failed);
	buf_clear(history);
	*history = longer;
}

static struct queue_entry entry_of(struct str history)
{
	struct row row = {
		.key = 0x123456789abc0007, .attempts = 3, .history = history, .record = STR("no record")};
	struct queue_entry entry;
	assert_false(row_entry(&row, false, &entry));
	return entry;
}

static void test_damaged_record_keeps_its_key(void **state)
{
	(void)state;
	struct queue_entry entry = entry_of(STR(""));
	assert_int_equal(uuid_order_key(&entry.id), 0x123456789abc0007);
	assert_true(uuid_valid(&entry.id));
	assert_int_equal(entry.accepted_at.ms, 0x123456789abc);
	assert_int_equal(entry.due_at.ms, entry.accepted_at.ms);
	assert_int_equal(entry.client_id.n, 0);
	assert_int_equal(entry.attempt_count, 3);
	assert_int_equal(entry.last_reason.n, 0);
}

/* Cut anywhere, a history is either shorter by whole attempts or dropped; it never reads past its end. */
static void test_damaged_history(void **state)
{
	(void)state;
	struct buf history;
	buf_init(&history, HISTORY_MAX_BYTES);
	append(&history, "w1", "first");
	size_t first_bytes = history.n;
	append(&history, "worker-two", "second");
	assert_true(str_eq(entry_of(buf_str(&history)).last_reason, STR("second")));
	for (size_t n = 0; n < history.n; n++) {
		struct str cut = {history.p, n}, reason = entry_of(cut).last_reason;
		assert_true(str_eq(reason, n == first_bytes ? STR("first") : STR("")));
		struct buf again;
		buf_init(&again, HISTORY_MAX_BYTES);
		buf_add_str(&again, cut);
		append(&again, "w3", "third");
		assert_true(str_eq(entry_of(buf_str(&again)).last_reason, STR("third")));
		buf_clear(&again);
	}
	buf_clear(&history);
}

static void test_history_stays_within_its_size(void **state)
{
	(void)state;
	static const char wide[HISTORY_REASON_BYTES + 50] = {[0 ... HISTORY_REASON_BYTES + 48] = 'x'};
	struct buf history;
	buf_init(&history, HISTORY_MAX_BYTES);
	for (unsigned i = 0; i < 2 * HISTORY_ATTEMPTS; i++)
		append(&history, wide, wide);
	assert_int_equal(history.n, HISTORY_MAX_BYTES);
	buf_clear(&history);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damaged_record_keeps_its_key),
		cmocka_unit_test(test_damaged_history),
		cmocka_unit_test(test_history_stays_within_its_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
