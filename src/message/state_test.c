/* The moves themselves, and doc/states.md against them. */
#include "message/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/file.h"

static const struct {
	enum message_state from;
	enum message_event event;
	enum message_state to;
} moves[] = {
	{MESSAGE_QUEUED, EVENT_LEASE, MESSAGE_PROCESSING},
	{MESSAGE_PROCESSING, EVENT_STORED, MESSAGE_DELIVERED},
	{MESSAGE_PROCESSING, EVENT_RETRY, MESSAGE_QUEUED},
	{MESSAGE_PROCESSING, EVENT_REJECT, MESSAGE_FAILED},
	{MESSAGE_PROCESSING, EVENT_LEASE_EXPIRED, MESSAGE_QUEUED},
	{MESSAGE_FAILED, EVENT_REDRIVE, MESSAGE_QUEUED},
};

/* Every pair of state and event: those listed above move, all others do not. */
static void test_moves(void **state)
{
	(void)state;
	for (unsigned from = 0; from < MESSAGE_STATES; from++) {
		for (unsigned event = 0; event < MESSAGE_EVENTS; event++) {
			bool expected = false;
			enum message_state to = MESSAGE_QUEUED, got = MESSAGE_QUEUED;
			for (size_t i = 0; i < ARRAY_LEN(moves); i++) {
				if (moves[i].from == from && moves[i].event == event) {
					expected = true;
					to = moves[i].to;
				}
			}
			bool moved =
				message_state_next((enum message_state)from, (enum message_event)event, &got);
			assert_int_equal(moved, expected);
			assert_int_equal(got, to);
		}
	}
}

static void test_final_states_are_left_by_nothing(void **state)
{
	(void)state;
	static const bool final[MESSAGE_STATES] = {
#define STATE(id, name, is_final, help) [MESSAGE_##id] = is_final,
#define MOVE(from, event, to, help)
#include "message/states.def"
#undef STATE
#undef MOVE
	};
	for (size_t i = 0; i < ARRAY_LEN(moves); i++)
		assert_false(final[moves[i].from]);
}

static void test_names(void **state)
{
	(void)state;
	for (unsigned i = 0; i < MESSAGE_STATES; i++) {
		enum message_state got;
		assert_true(message_state_parse(str_of(message_state_name((enum message_state)i)), &got));
		assert_int_equal(got, i);
	}
	static const struct str unknown[] = {
		{"", 0}, {"Queued", 6}, {"queue", 5}, {"queued ", 7}, {"QUEUED", 6}};
	enum message_state got;
	for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
		assert_false(message_state_parse(unknown[i], &got));
	assert_string_equal(message_state_name(MESSAGE_STATES), "unknown");
}

static unsigned count_table_rows(struct str page)
{
	unsigned count = 0;
	struct str line;
	while (str_cut(&page, '\n', &line))
		count += str_starts(line, STR("| ")) && !str_starts(line, STR("| state |")) &&
			 !str_starts(line, STR("| from |"));
	return count;
}

static void assert_row(struct str page, const char *row)
{
	if (!memmem(page.p, page.n, row, strlen(row)))
		fail_msg("doc/states.md lacks the row: %s", row);
}

static void test_page(void **state)
{
	(void)state;
	static const char *const names[] = {
#define STATE(id, name, final, help) [MESSAGE_##id] = name,
#define MOVE(from, event, to, help)
#include "message/states.def"
#undef STATE
#undef MOVE
	};
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf page;
	AUTO(buf_auto) struct buf row;
	buf_init(&page, 65536);
	buf_init(&row, 1024);
	assert_int_equal(file_read(SOURCE_DIR "/doc/states.md", 65536, &page, &e), 0);
	unsigned rows = 0;
#define STATE(id, name, final, help)                                                                         \
	buf_reset(&row);                                                                                     \
	buf_addf(&row, "| %s | %s | %s |\n%c", name, final ? "yes" : "no", help, 0);                         \
	assert_row(buf_str(&page), row.p);                                                                   \
	rows++;
#define MOVE(from, event, to, help)                                                                          \
	buf_reset(&row);                                                                                     \
	buf_addf(&row, "| %s | " #event " | %s | %s |\n%c", names[MESSAGE_##from], names[MESSAGE_##to],      \
		help, 0);                                                                                    \
	assert_row(buf_str(&page), row.p);                                                                   \
	rows++;
#include "message/states.def"
#undef STATE
#undef MOVE
	assert_int_equal(count_table_rows(buf_str(&page)), rows);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_final_states_are_left_by_nothing),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_page),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
