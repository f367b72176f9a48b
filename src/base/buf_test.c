/* buf_test.c */
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/auto.h"

static void appends(void **state)
{
	AUTO(buf_auto) struct buf b;
	buf_init(&b, 1000);
	assert_int_equal(buf_str(&b).n, 0);
	buf_add(&b, NULL, 0);
	buf_add_str(&b, STR("one"));
	buf_add_char(&b, ' ');
	buf_addf(&b, "%d-%s", 2, "two");
	buf_addf(&b, "%s", "");
	assert_true(str_eq(buf_str(&b), STR("one 2-two")));
	assert_int_equal(buf_check(&b, NULL), 0);
	buf_consume(&b, 4);
	assert_true(str_eq(buf_str(&b), STR("2-two")));
	buf_consume(&b, 5);
	assert_int_equal(b.n, 0);
	buf_wipe(NULL);
	buf_clear(NULL);
}

static void grows_with_its_contents(void **state)
{
	AUTO(buf_wipe_auto) struct buf b;
	buf_init(&b, 100000);
	for (int i = 0; i < 10000; i++)
		buf_addf(&b, "%d,", i % 10);
	assert_int_equal(b.n, 20000);
	for (size_t i = 0; i < 20000; i += 2)
		assert_int_equal(b.p[i], '0' + (int)(i / 2 % 10));
	assert_true(b.room <= b.ceiling_bytes);
}

static void stops_at_the_ceiling(void **state)
{
	AUTO(buf_auto) struct buf b;
	struct err e = ERR_INIT;
	buf_init(&b, 5);
	buf_addf(&b, "%s", "abc");
	buf_addf(&b, "%s", "de"); /* full to the last byte */
	assert_int_equal(buf_check(&b, &e), 0);
	buf_add_char(&b, 'f');
	buf_add_str(&b, STR(""));
	buf_add_char(&b, 'g');
	assert_true(str_eq(buf_str(&b), STR("abcde")));
	assert_int_equal(buf_check(&b, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	assert_string_equal(e.text, "larger than 5 bytes");
	assert_null(buf_reserve(&b, 0));
	buf_reset(&b);
	buf_add_str(&b, STR("again"));
	assert_int_equal(buf_check(&b, NULL), 0);
}

/* An append that is too large for an empty buf is not mistaken for a lack of memory. */
static void says_why_it_failed(void **state)
{
	AUTO(buf_auto) struct buf b;
	struct err e = ERR_INIT;
	buf_init(&b, 10);
	buf_add_str(&b, STR("larger than ten"));
	assert_int_equal(buf_check(&b, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
}

static void formats_long_text(void **state)
{
	AUTO(buf_auto) struct buf b;
	buf_init(&b, 2000);
	for (int n = 250; n < 260; n++) {
		buf_reset(&b);
		buf_addf(&b, "%*d|", n, 7);
		assert_int_equal(b.n, n + 1);
		assert_int_equal(b.p[n - 1], '7');
		assert_int_equal(b.p[n], '|');
	}
	buf_addf(&b, "%*d", 3000, 7);
	assert_int_equal(buf_check(&b, NULL), -1);
}

static void reserves_and_commits(void **state)
{
	AUTO(buf_auto) struct buf b;
	buf_init(&b, 100);
	char *at = buf_reserve(&b, 10);
	assert_non_null(at);
	memset(at, 'a', 3);
	buf_commit(&b, 3);
	assert_true(str_eq(buf_str(&b), STR("aaa")));
	assert_null(buf_reserve(&b, 98));
}

static void writes_what_a_cursor_reads(void **state)
{
	AUTO(buf_auto) struct buf b;
	buf_init(&b, 100);
	buf_add_u8(&b, 0xfe);
	buf_add_u16(&b, 0xfedc);
	buf_add_u32(&b, 0xfedcba98);
	buf_add_u64(&b, 0xfedcba9876543210);
	buf_add_str(&b, STR("bytes"));
	assert_memory_equal(b.p, "\xfe\xfe\xdc\xfe\xdc\xba\x98\xfe\xdc\xba\x98\x76\x54\x32\x10", 15);

	struct cursor c = cursor_of(buf_str(&b));
	assert_int_equal(cursor_u8(&c), 0xfe);
	assert_int_equal(cursor_u16(&c), 0xfedc);
	assert_int_equal(cursor_u32(&c), 0xfedcba98);
	assert_true(cursor_u64(&c) == 0xfedcba9876543210);
	assert_false(cursor_done(&c));
	assert_true(str_eq(cursor_bytes(&c, 5), STR("bytes")));
	assert_true(cursor_done(&c));
	assert_int_equal(cursor_bytes(&c, 0).n, 0);
	assert_false(c.failed);
}

static void short_reads_stay_failed(void **state)
{
	struct cursor c = cursor_of(STR("\x01\x02\x03"));
	assert_int_equal(cursor_u16(&c), 0x0102);
	assert_int_equal(cursor_u16(&c), 0);
	assert_int_equal(cursor_u8(&c), 0);
	assert_null(cursor_bytes(&c, 1).p);
	char out[2] = {'x', 'x'};
	cursor_copy(&c, out, 2);
	assert_memory_equal(out, "\0\0", 2);
	assert_true(c.failed);
	assert_false(cursor_done(&c));
	c = cursor_of((struct str){NULL, 0});
	assert_true(cursor_done(&c));
	assert_true(cursor_u64(&c) == 0 && c.failed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appends),
		cmocka_unit_test(grows_with_its_contents),
		cmocka_unit_test(stops_at_the_ceiling),
		cmocka_unit_test(says_why_it_failed),
		cmocka_unit_test(formats_long_text),
		cmocka_unit_test(reserves_and_commits),
		cmocka_unit_test(writes_what_a_cursor_reads),
		cmocka_unit_test(short_reads_stay_failed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
