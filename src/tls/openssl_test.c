/* openssl_test.c - certificates as PEM: what is read, what is skipped, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/scratch_test.h"
#include "tls/craft_cert.h"
#include "tls/openssl.h"

static struct craft_authority root, issuing;

static int set_up(void **state)
{
	struct err e = ERR_INIT;
	return craft_authorities(clock_wall(&clock_system), &root, &issuing, &e);
}

static int tear_down(void **state)
{
	craft_authority_clear(&root);
	craft_authority_clear(&issuing);
	return 0;
}

/* Two certificates with a text between them, then `tail`. */
static void write_two(struct buf *pem, struct str tail)
{
	struct err e = ERR_INIT;
	assert_int_equal(x509_write_pem(issuing.cert, pem, &e), 0);
	buf_add_str(pem, STR("some text between\n"));
	assert_int_equal(x509_write_pem(root.cert, pem, &e), 0);
	buf_add_str(pem, tail);
	assert_false(pem->failed);
}

/* From memory and from a file, which must be of one mind. */
static int read_both(struct str pem, int count)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *from_memory = NULL, *from_file = NULL;
	struct err e = ERR_INIT;
	assert_int_equal(file_replace("certs.pem", 0644, pem, &e), 0);
	int in_memory = x509_read_pem(pem, &from_memory, &e);
	if (in_memory < 0)
		assert_int_equal(e.kind, ERR_REJECT);
	int in_file = x509_read_file("certs.pem", &from_file, &e);
	if (in_file < 0)
		assert_int_equal(e.kind, ERR_FATAL);
	assert_int_equal(in_memory, in_file);
	assert_int_equal(ERR_peek_error(), 0);
	if (in_memory == 0) {
		assert_int_equal(sk_X509_num(from_memory), count);
		assert_int_equal(sk_X509_num(from_file), count);
		assert_int_equal(X509_cmp(sk_X509_value(from_file, 0), issuing.cert), 0);
		assert_int_equal(X509_cmp(sk_X509_value(from_memory, count - 1), root.cert), 0);
	}
	return in_memory;
}

static void test_what_is_read(void **state)
{
	static const struct {
		const char *tail;
		int rc;
	} cases[] = {
		{"", 0},
		{"and a text at the end\n", 0},
		{"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", -1},
		{"-----BEGIN CERTIFICATE-----\nMIIB\n", -1},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(buf_auto) struct buf pem;
		buf_init(&pem, 1 << 16);
		write_two(&pem, str_of(cases[i].tail));
		assert_int_equal(read_both(buf_str(&pem), 2), cases[i].rc);
	}
}

static void test_nothing_to_read(void **state)
{
	assert_int_equal(read_both(STR(""), 0), -1);
	assert_int_equal(read_both(STR("nothing here"), 0), -1);
}

/* A file is ours, and no bundle of ours is that large; a text may be any list of roots. */
static void test_how_many(void **state)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = NULL, *none = NULL;
	AUTO(buf_auto) struct buf pem;
	struct err e = ERR_INIT;
	buf_init(&pem, 1 << 20);
	for (int i = 0; i < 65; i++)
		assert_int_equal(x509_write_pem(root.cert, &pem, &e), 0);
	assert_int_equal(x509_read_pem(buf_str(&pem), &certs, &e), 0);
	assert_int_equal(sk_X509_num(certs), 65);
	assert_int_equal(file_replace("certs.pem", 0644, buf_str(&pem), &e), 0);
	assert_int_equal(x509_read_file("certs.pem", &none, &e), -1);
	assert_non_null(strstr(e.text, "more than 64"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_read, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_nothing_to_read, scratch_enter, scratch_leave),
		cmocka_unit_test_setup_teardown(test_how_many, scratch_enter, scratch_leave),
	};
	return cmocka_run_group_tests_name("openssl", tests, set_up, tear_down);
}
