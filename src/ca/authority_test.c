/* authority_test.c - what the signer does, called in this process, so that sanitizers see all of it: making
 * and loading a CA, leaves and CRLs from bad facts, keys with and without a passphrase. */
#include "ca/authority.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <dirent.h>

#include "base/file.h"
#include "base/must_test.h"
#include "ca/key.h"

enum { DAY_MS = 24 * 60 * 60 * 1000, ROOM_BYTES = 64 * 1024 };

static const struct wall now = {1795348200000}; /* 2026-11-22T11:50:00Z */
static char directory[] = "/tmp/sealpost-authority-XXXXXX";
static char passphrase_file[64];

static struct authority_options options(void)
{
	return (struct authority_options){.files.dir = directory,
		.trust_domain = "example.test",
		.root_key_type = STR("ec:P-384"),
		.issuing_key_type = STR("ed25519"),
		.now = now};
}

static void remove_files(void)
{
	DIR *dir = opendir(directory);
	assert_non_null(dir);
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
		if (entry->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(dir), entry->d_name, 0), 0);
	closedir(dir);
}

static int setup(void **state)
{
	if (!mkdtemp(directory))
		return -1;
	snprintf(passphrase_file, sizeof(passphrase_file), "%s/passphrase", directory);
	return 0;
}

static int teardown(void **state)
{
	return rmdir(directory);
}

static int cleanup(void **state)
{
	remove_files();
	return 0;
}

static struct authority made(void)
{
	const struct authority_options o = options();
	struct authority a;
	struct err e;
	must(authority_init(&o, &e), &e);
	must(authority_load(&o, &a, &e), &e);
	return a;
}

static void spki_of(EVP_PKEY *key, struct buf *out)
{
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	int n = i2d_PUBKEY(key, &der);
	assert_true(n > 0);
	buf_add(out, der, (size_t)n);
}

static int issue_days(const struct authority *a, int64_t days, struct buf *der, struct err *e)
{
	AUTO(buf_auto) struct buf spki;
	buf_init(&spki, ROOM_BYTES);
	spki_of(a->issuing.key, &spki);
	const struct ca_request r = {.role = ROLE_PROXY,
		.name = STR("relay"),
		.domain = STR("example.com"),
		.public_key_der = buf_str(&spki)};
	const struct authority_options o = options();
	return authority_issue(a, &o, &r, (struct build_validity){now, {now.ms + days * DAY_MS}}, der, e);
}

/* Keys of other types than the default sign as well. */
static void test_issues(void **state)
{
	AUTO(buf_auto) struct buf der;
	struct err e;
	buf_init(&der, ROOM_BYTES);
	struct authority a = made();
	must(issue_days(&a, 30, &der, &e), &e);
	assert_true(der.n > 0);
	assert_int_equal(X509_get_signature_nid(a.root), NID_ecdsa_with_SHA384);
	assert_int_equal(X509_get_signature_nid(a.issuing.cert), NID_ecdsa_with_SHA384);
	authority_clear(&a);
}

/* Something that the profile refuses never leaves, even if it was signed. */
static void test_judges_what_it_signed(void **state)
{
	AUTO(buf_auto) struct buf der;
	struct err e;
	buf_init(&der, ROOM_BYTES);
	struct authority a = made();
	assert_int_equal(issue_days(&a, -1, &der, &e), -1);
	assert_non_null(strstr(e.text, "validity"));
	assert_int_equal(der.n, 0);
	authority_clear(&a);
}

static void test_authorities_names(void **state)
{
	char name[128];
	struct authority a = made();
	X509_NAME_get_text_by_NID(X509_get_subject_name(a.issuing.cert), NID_commonName, name, sizeof(name));
	assert_true(str_starts(str_of(name), STR("Sealpost Issuing CA ")));
	X509_NAME_get_text_by_NID(X509_get_subject_name(a.root), NID_organizationName, name, sizeof(name));
	assert_string_equal(name, "example.test");
	assert_int_equal(X509_get_pathlen(a.root), 1);
	assert_int_equal(X509_get_pathlen(a.issuing.cert), 0);
	authority_clear(&a);
}

static void test_bad_options(void **state)
{
	struct authority_options o = options();
	struct err e;
	o.trust_domain = "not a name";
	assert_int_equal(authority_init(&o, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	o = options();
	o.root_key_type = STR("rsa:512");
	assert_int_equal(authority_init(&o, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	o = options();
	o.files.passphrase_file = "/nonexistent/passphrase";
	assert_int_equal(authority_init(&o, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
}

/* The root's key is not needed once the issuing CA is there. */
static void test_without_root_key(void **state)
{
	const struct authority_options o = options();
	struct err e;
	struct authority a = made();
	authority_clear(&a);
	AUTO(free_auto) char *path = path_join(directory, "root.key");
	assert_int_equal(unlink(path), 0);
	must(authority_init(&o, &e), &e);
	must(authority_load(&o, &a, &e), &e);
	authority_clear(&a);
}

static void test_crl_times(void **state)
{
	struct err e;
	struct authority a = made();
	AUTO(X509_CRL_free_auto) X509_CRL *crl = NULL;
	const struct build_revoked entry = {
		.serial = {5}, .serial_bytes = 1, .at = now, .reason = CRL_REASON_SUPERSEDED};
	must(build_crl(&a.issuing, &entry, 1, 9, now, (struct wall){now.ms + DAY_MS}, &crl, &e), &e);
	struct wall this, next;
	assert_true(wall_of_asn1(X509_CRL_get0_lastUpdate(crl), &this) && this.ms == now.ms);
	assert_true(wall_of_asn1(X509_CRL_get0_nextUpdate(crl), &next) && next.ms == now.ms + DAY_MS);
	assert_int_equal(X509_CRL_verify(crl, a.issuing.key), 1);
	authority_clear(&a);
}

static void test_reasons(void **state)
{
	static const struct {
		const char *name;
		int code;
	} cases[] = {{"", 0}, {"unspecified", 0}, {"keyCompromise", 1}, {"cACompromise", 2},
		{"affiliationChanged", 3}, {"superseded", 4}, {"cessationOfOperation", 5},
		{"certificateHold", 6}, {"removeFromCRL", -1}, {"privilegeWithdrawn", 9},
		{"aACompromise", 10}, {"KeyCompromise", -1}, {"key_compromise", -1}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int code = -1;
		assert_true(ca_reason_parse(str_of(cases[i].name), &code) == (cases[i].code >= 0));
		assert_int_equal(code, cases[i].code);
	}
}

/* --- keys --- */

static void test_key_file(void **state)
{
	struct err e;
	AUTO(free_auto) char *path = path_join(directory, "root.key");
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *again = NULL;
	must(key_generate(STR("ed25519"), &key, &e), &e);
	must(key_save(path, key, STR(""), &e), &e);
	must(key_load(path, STR(""), &again, &e), &e);
	assert_int_equal(EVP_PKEY_eq(key, again), 1);
}

static void test_passphrase_files(void **state)
{
	static const struct {
		const char *text, *passphrase; /* NULL: refused */
		mode_t mode;
	} cases[] = {
		{"secret\n", "secret", 0600},
		{"secret", "secret", 0400},
		{"secret\r\n", "secret", 0600},
		{"two words \nand a comment\n", "two words ", 0600},
		{"", NULL, 0600},
		{"\n", NULL, 0600},
		{"secret\n", NULL, 0644},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e;
		AUTO(buf_wipe_auto) struct buf passphrase;
		buf_init(&passphrase, ROOM_BYTES);
		must(file_replace(passphrase_file, cases[i].mode, str_of(cases[i].text), &e), &e);
		int result = passphrase_read(passphrase_file, &passphrase, NULL, &e);
		assert_int_equal(result, cases[i].passphrase ? 0 : -1);
		if (cases[i].passphrase)
			assert_true(str_eq(buf_str(&passphrase), str_of(cases[i].passphrase)));
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, cleanup)
	const struct CMUnitTest tests[] = {
		TEST(test_issues),
		TEST(test_judges_what_it_signed),
		TEST(test_authorities_names),
		TEST(test_bad_options),
		TEST(test_without_root_key),
		TEST(test_crl_times),
		TEST(test_reasons),
		TEST(test_key_file),
		TEST(test_passphrase_files),
	};
#undef TEST
	return cmocka_run_group_tests(tests, setup, teardown);
}
