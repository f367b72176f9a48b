/* certs_only_test.c - certificates come out of PKCS #7 as they went in; what is none is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tls/certs_only.h"
#include "tls/craft_cert.h"

static struct craft_authority root, issuing;

static int set_up(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	return craft_authorities(clock_wall(&clock_system), &root, &issuing, &e);
}

static int tear_down(void **state)
{
	(void)state;
	craft_authority_clear(&root);
	craft_authority_clear(&issuing);
	return 0;
}

static void comes_out_as_it_went_in(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf text;
	buf_init(&text, 1 << 16);
	STACK_OF(X509) *certs = sk_X509_new_null();
	sk_X509_push(certs, root.cert);
	sk_X509_push(certs, issuing.cert);
	assert_int_equal(certs_only_encode(certs, &text, &e), 0);
	sk_X509_free(certs);
	assert_int_equal(text.p[64], '\n');

	/* Readers may fold lines their own way. */
	buf_add_str(&text, STR(" \r\n\t"));
	AUTO(x509_stack_free_auto) STACK_OF(X509) *got = NULL;
	assert_int_equal(certs_only_decode(buf_str(&text), &got, &e), 0);
	assert_int_equal(sk_X509_num(got), 2);
	bool has_root = false;
	for (int i = 0; i < 2; i++)
		has_root |= X509_cmp(sk_X509_value(got, i), root.cert) == 0;
	assert_true(has_root);
}

static void other_texts_are_refused(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"",
		"=",
		"====",
		"A",
		"AAA",
		"AAAA",
		"not base64!",
		"MAA=",
		"MIIB",
		"<html></html>",
		/* signed data without certificates */
		"MCMGCSqGSIb3DQEHAqAWMBQCAQExADALBgkqhkiG9w0BBwExAA==",
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		STACK_OF(X509) *got = NULL;
		struct err e = ERR_INIT;
		assert_int_equal(certs_only_decode(str_of(cases[i]), &got, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
		assert_null(got);
		assert_int_equal(ERR_peek_error(), 0);
	}
}

static void pins_tell_roots_apart(void **state)
{
	(void)state;
	uint8_t pins[3][X509_PIN_BYTES];
	struct err e = ERR_INIT;
	assert_int_equal(x509_pin(root.cert, pins[0], &e), 0);
	assert_int_equal(x509_pin(issuing.cert, pins[1], &e), 0);
	assert_int_equal(x509_pin(root.cert, pins[2], &e), 0);
	assert_memory_equal(pins[0], pins[2], X509_PIN_BYTES);
	assert_memory_not_equal(pins[0], pins[1], X509_PIN_BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_out_as_it_went_in),
		cmocka_unit_test(other_texts_are_refused),
		cmocka_unit_test(pins_tell_roots_apart),
	};
	return cmocka_run_group_tests_name("certs only", tests, set_up, tear_down);
}
