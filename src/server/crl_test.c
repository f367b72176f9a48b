/* crl_test.c - when the revocation list is signed anew and what is on it, over weeks of a fake clock. */
#include "server/crl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/must_test.h"
#include "base/scratch_test.h"
#include "store/driver.h"
#include "tls/openssl.h"

enum { DAY_MS = 24 * 60 * 60 * 1000, LIFETIME_DAYS = 30, LIST_BYTES = 1024 * 1024 };

static const struct wall start = {1795348200000}; /* 2026-11-22T11:50:00Z */

static struct clock_fake fake_clock;
static struct ca *ca;
static struct store *store;
static struct crl *crl;

/* The signer is a fork of this process here: it starts before the store's thread, which must not
 * read a clock that is moved. */
static int setup(void **state)
{
	struct err e = ERR_INIT;
	if (scratch_enter(state) < 0)
		return -1;
	clock_fake_init(&fake_clock, start);
	const struct ca_options options = {.dir = "ca",
		.trust_domain = "example.test",
		.clock = &fake_clock.clock,
		.max_days = LIFETIME_DAYS,
		.root_key_type = "ec:P-256"};
	const struct store_options store_options = {
		.driver = &store_driver_memory, .clock = &clock_system, .write_limit = 16, .group_max = 4};
	must(ca_init(&options, &e), &e);
	must(ca_open(&options, &ca, &e), &e);
	must(store_open(&store_options, &store, &e), &e);
	must(crl_open(store, ca, &fake_clock.clock, &crl, &e), &e);
	return 0;
}

static int teardown(void **state)
{
	crl_free(crl);
	store_close(store);
	ca_close(ca);
	return scratch_leave(state);
}

static void restart(void)
{
	struct err e = ERR_INIT;
	crl_free(crl);
	must(crl_open(store, ca, &fake_clock.clock, &crl, &e), &e);
}

/* A certificate that is registered and revoked; only its row matters here. */
static void issue_and_revoke(uint8_t serial)
{
	struct err e = ERR_INIT;
	struct store_cert_put put = {.cert = {.serial = {serial},
					     .serial_bytes = 1,
					     .role = STR("client"),
					     .name = STR("client_001"),
					     .domain = STR("example.com"),
					     .not_before = clock_wall(&fake_clock.clock),
					     .issued_at = clock_wall(&fake_clock.clock),
					     .der = STR("certificate")},
		.create_client = true};
	put.cert.not_after.ms = put.cert.not_before.ms + LIFETIME_DAYS * (int64_t)DAY_MS;
	memcpy(put.cert.issuer_key_id, ca_issuing_key_id(ca), sizeof(put.cert.issuer_key_id));
	must(store_wait(store, STORE_CERT, &put.op, &e), &e);
	struct store_revoke op = {.serial = {serial}, .serial_bytes = 1, .at = clock_wall(&fake_clock.clock)};
	must(store_wait(store, STORE_REVOKE, &op.op, &e), &e);
}

/* Number and entries of the list that is published. */
static void published(long *ret_number, int *ret_entries)
{
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf der;
	buf_init(&der, LIST_BYTES);
	must(crl_copy(crl, CRL_DER, &der, NULL, &e), &e);
	const unsigned char *at = (const unsigned char *)der.p;
	AUTO(X509_CRL_free_auto) X509_CRL *list = d2i_X509_CRL(NULL, &at, (long)der.n);
	assert_non_null(list);
	AUTO(ASN1_INTEGER_free_auto)
	ASN1_INTEGER *number = X509_CRL_get_ext_d2i(list, NID_crl_number, NULL, NULL);
	assert_non_null(number);
	*ret_number = ASN1_INTEGER_get(number);
	STACK_OF(X509_REVOKED) *entries = X509_CRL_get_REVOKED(list);
	*ret_entries = entries ? sk_X509_REVOKED_num(entries) : 0;
}

static void assert_entries(int expected)
{
	long number;
	int entries;
	published(&number, &entries);
	assert_int_equal(entries, expected);
}

static bool signed_anew_by(void (*step)(void))
{
	long before, after;
	int entries;
	published(&before, &entries);
	step();
	published(&after, &entries);
	assert_true(after >= before);
	return after > before;
}

static void refresh(void)
{
	struct err e = ERR_INIT;
	must(crl_refresh(crl, &e), &e);
}

static void sign(void)
{
	struct err e = ERR_INIT;
	must(crl_sign(crl, &e), &e);
}

static void signs_daily_and_when_asked(void **state)
{
	assert_false(signed_anew_by(refresh));
	assert_true(signed_anew_by(sign));
	clock_fake_advance_ms(&fake_clock, DAY_MS - 1000);
	assert_false(signed_anew_by(refresh));
	clock_fake_advance_ms(&fake_clock, 1000);
	assert_true(signed_anew_by(refresh));
}

static void a_list_from_the_future_is_replaced(void **state)
{
	clock_fake_advance_ms(&fake_clock, -DAY_MS);
	assert_true(signed_anew_by(refresh));
}

static void a_restart_keeps_a_list_that_is_complete(void **state)
{
	clock_fake_advance_ms(&fake_clock, 1000);
	assert_false(signed_anew_by(restart));
	issue_and_revoke(1);
	assert_true(signed_anew_by(restart));
	assert_entries(1);
	clock_fake_advance_ms(&fake_clock, DAY_MS);
	assert_true(signed_anew_by(restart));
}

static void entries_stay_until_a_week_after_their_end(void **state)
{
	issue_and_revoke(1);
	clock_fake_advance_ms(&fake_clock, (LIFETIME_DAYS + 7) * (int64_t)DAY_MS);
	issue_and_revoke(2);
	sign();
	assert_entries(2);
	clock_fake_advance_ms(&fake_clock, 1000);
	sign();
	assert_entries(1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(signs_daily_and_when_asked),
		TEST(a_list_from_the_future_is_replaced),
		TEST(a_restart_keeps_a_list_that_is_complete),
		TEST(entries_stay_until_a_week_after_their_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
