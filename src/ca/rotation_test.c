/* rotation_test.c - changes of a CA while it works: another issuing CA and the end of an old one, the root's key away and
 * back, another passphrase, another URL; with a real signer process: this program started anew as "unit_… signer". */
#include "ca/ca.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/must_test.h"
#include "base/scratch_test.h"
#include "ca/files.h"
#include "ca/key.h"

enum { TEXT_BYTES_MAX = 1024 * 1024 };

static const char *const signer_argv[] = {"/proc/self/exe", "signer", NULL};
static const struct wall start = {1795348200000}; /* 2026-11-22T11:50:00Z */

static char top[] = "/tmp/sealpost-rotation-XXXXXX";
static struct clock_fake fake_clock;
static struct buf key_pem, key_spki;

static struct ca_options options(void)
{
	return (struct ca_options){.trust_domain = "example.test",
		.clock = &fake_clock.clock,
		.max_days = 825,
		.signer_argv = signer_argv};
}

static int setup(void **state)
{
	struct err e;
	clock_fake_init(&fake_clock, start);
	buf_init(&key_pem, TEXT_BYTES_MAX);
	buf_init(&key_spki, TEXT_BYTES_MAX);
	must(ca_generate_key(STR("ec:P-256"), &key_pem, &key_spki, &e), &e);
	return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
	buf_wipe(&key_pem);
	buf_clear(&key_spki);
	return rmdir(top);
}

static struct ca_request request(void)
{
	return (struct ca_request){.role = ROLE_CLIENT,
		.name = STR("client_001"),
		.domain = STR("example.com"),
		.days = 365,
		.public_key_der = buf_str(&key_spki)};
}

static X509 *cert_of(const struct ca_issued *issued)
{
	const unsigned char *at = (const unsigned char *)issued->der.p;
	return d2i_X509(NULL, &at, (long)issued->der.n);
}

static uint64_t number_of(X509_CRL *crl)
{
	uint64_t number = 0;
	AUTO(ASN1_INTEGER_free_auto)
	ASN1_INTEGER *value = X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
	assert_int_equal(ASN1_INTEGER_get_uint64(&number, value), 1);
	return number;
}

static void spoil_file(const char *dir, const char *name)
{
	AUTO(free_auto) char *path = path_join(dir, name);
	struct err e;
	must(file_replace(path, 0600, STR("spoiled\n"), &e), &e);
}

/* --- rotation, retirement, the root's key --- */

static void must_refuse(int result, enum err_kind kind, const struct err *e)
{
	assert_int_equal(result, -1);
	if (e->kind != kind)
		fail_msg("%s: %s", err_kind_name(e->kind), e->text);
}

/* A CA of its own for one test. */
static struct ca *another(char dir[64], struct ca_options *ret_options)
{
	struct err e;
	struct ca *made;
	snprintf(dir, 64, "%s/another", top);
	*ret_options = options();
	ret_options->dir = dir;
	ret_options->root_key_type = "ec:P-256";
	must(ca_init(ret_options, &e), &e);
	must(ca_open(ret_options, &made, &e), &e);
	return made;
}

static bool in_dir(const char *dir, const char *name)
{
	AUTO(free_auto) char *path = path_join(dir, name);
	return access(path, F_OK) == 0;
}

static unsigned certificates_in(struct str bundle)
{
	unsigned count = 0;
	for (const char *at = bundle.p;
		(at = memmem(at, (size_t)(bundle.p + bundle.n - at), "BEGIN", 5)) != NULL; at++)
		count++;
	return count;
}

static X509_CRL *crl_by(struct ca *made, const uint8_t *key_id)
{
	struct err e;
	AUTO(buf_auto) struct buf der;
	buf_init(&der, TEXT_BYTES_MAX);
	must(ca_crl(made, key_id, NULL, 0, 7, &der, &e), &e);
	const unsigned char *at = (const unsigned char *)der.p;
	X509_CRL *crl = d2i_X509_CRL(NULL, &at, (long)der.n);
	assert_non_null(crl);
	return crl;
}

/* New certificates come from the new one; the old one is trusted and signs its list, also after a restart, until it is
 * retired. */
static void test_rotation(void **state)
{
	char dir[64];
	struct err e;
	struct ca_options o;
	struct ca *made = another(dir, &o);
	uint8_t old_id[IDENTITY_KEY_ID_BYTES];
	memcpy(old_id, ca_issuing_key_id(made), sizeof(old_id));
	must(ca_rotate(made, NULL, &e), &e);
	for (int again = 0; again < 2; again++) {
		const struct ca_issuer *issuers;
		struct ca_issued issued;
		struct ca_request r = request();
		assert_int_equal(ca_issuers(made, &issuers), 2);
		assert_memory_equal(issuers[1].key_id, old_id, sizeof(old_id));
		must(ca_issue(made, &r, &issued, &e), &e);
		assert_memory_equal(issued.identity.issuer_key_id, issuers[0].key_id, sizeof(old_id));
		assert_true(str_eq(issued.issuer_pem, issuers[0].pem));
		assert_int_equal(certificates_in(ca_bundle(made)), 3);
		AUTO(X509_CRL_free_auto) X509_CRL *old_list = crl_by(made, old_id);
		AUTO(X509_CRL_free_auto) X509_CRL *new_list = crl_by(made, issuers[0].key_id);
		assert_true(number_of(new_list) > number_of(old_list));
		ca_issued_clear(&issued);
		ca_close(made);
		must(ca_open(&o, &made, &e), &e);
	}
	must_refuse(ca_retire(made, ca_issuing_key_id(made), &e), ERR_CONFLICT, &e);
	must(ca_retire(made, old_id, &e), &e);
	must_refuse(ca_retire(made, old_id, &e), ERR_NOT_FOUND, &e);
	assert_null(ca_issuer_find(made, old_id));
	assert_int_equal(certificates_in(ca_bundle(made)), 2);
	AUTO(buf_auto) struct buf none;
	buf_init(&none, TEXT_BYTES_MAX);
	must_refuse(ca_crl(made, old_id, NULL, 0, 7, &none, &e), ERR_REJECT, &e);
	ca_close(made);
	scratch_remove_plain(dir);
}

/* A rotation that never comes to an end must not fill the disk or the bundle. */
static void test_rotations_are_bounded(void **state)
{
	char dir[64];
	struct err e;
	struct ca_options o;
	struct ca *made = another(dir, &o);
	int result = 0;
	for (unsigned i = 0; i < CA_ISSUERS_MAX && result == 0; i++)
		result = ca_rotate(made, NULL, &e);
	must_refuse(result, ERR_CONFLICT, &e);
	const struct ca_issuer *issuers;
	assert_in_range(ca_issuers(made, &issuers), 2, CA_ISSUERS_MAX);
	ca_close(made);
	scratch_remove_plain(dir);
}

/* What a crash can leave: a key whose certificate was not written, a new issuing CA that never became the current one, a
 * switch that was not tidied up. */
static void test_interrupted_rotations(void **state)
{
	char dir[64], name[CA_FILE_BYTES];
	struct err e;
	struct ca_options o;
	struct ca *made = another(dir, &o);
	const struct ca_files files = {.dir = dir};
	const struct ca_issuer *issuers;
	must(ca_rotate(made, NULL, &e), &e);
	(void)ca_issuers(made, &issuers);
	char current[CA_ID_BYTES];
	memcpy(current, issuers[0].id, sizeof(current));
	ca_close(made);

	files_name("issuing", "0123456789abcdef0123456789abcdef01234567", ".key", name);
	must(files_copy(&files, ca_issuing_key, name, 0600, &e), &e);
	files_name("issuing", current, ".key", name);
	must(files_copy(&files, ca_issuing_key, name, 0600, &e), &e);
	files_name("issuing", current, ".pem", name);
	must(files_copy(&files, ca_issuing_cert, name, 0644, &e), &e);
	spoil_file(dir, ca_issuing_key); /* the old one's is still there */

	must(ca_open(&o, &made, &e), &e); /* as it is */
	assert_int_equal(ca_issuers(made, &issuers), 2);
	ca_close(made);
	must(ca_init(&o, &e), &e); /* tidied up */
	assert_false(in_dir(dir, name));
	assert_false(in_dir(dir, "issuing-0123456789abcdef0123456789abcdef01234567.key"));
	must(ca_open(&o, &made, &e), &e);
	assert_int_equal(ca_issuers(made, &issuers), 2);
	assert_string_equal(issuers[0].id, current);
	ca_close(made);
	scratch_remove_plain(dir);
}

static void test_root_key_leaves_and_comes_back(void **state)
{
	static const struct str passphrase = STR("correct horse battery staple");
	char dir[64];
	struct err e;
	struct ca_options o;
	struct ca *made = another(dir, &o);
	AUTO(buf_wipe_auto) struct buf pem;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	buf_init(&pem, TEXT_BYTES_MAX);
	must_refuse(ca_export_root(made, STR("short"), &pem, &e), ERR_REJECT, &e);
	must(ca_export_root(made, passphrase, &pem, &e), &e);
	assert_true(str_starts(buf_str(&pem), STR("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")));
	must(key_read_pem(buf_str(&pem), passphrase, &key, &e), &e);

	const struct ca_root_key good = {buf_str(&pem), passphrase};
	const struct ca_root_key bad[] = {{{0}, passphrase}, {buf_str(&pem), STR("wrong")},
		{buf_str(&key_pem), STR("")}, {STR("nonsense"), passphrase}};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		must_refuse(ca_remove_root(made, &bad[i], &e), ERR_REJECT, &e);
		assert_true(ca_has_root_key(made));
	}
	must(ca_remove_root(made, &good, &e), &e);
	assert_false(ca_has_root_key(made));

	struct ca_issued issued;
	struct ca_request r = request();
	must(ca_issue(made, &r, &issued, &e), &e);
	ca_issued_clear(&issued);
	must(ca_init(&o, &e), &e);
	must_refuse(ca_rotate(made, NULL, &e), ERR_NOT_FOUND, &e);
	must_refuse(ca_rotate(made, &bad[1], &e), ERR_REJECT, &e);
	must_refuse(ca_rotate(made, &bad[2], &e), ERR_REJECT, &e);
	must(ca_rotate(made, &good, &e), &e);
	assert_false(ca_has_root_key(made));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		must_refuse(ca_import_root(made, &bad[i], &e), ERR_REJECT, &e);
	must(ca_import_root(made, &good, &e), &e);
	must(ca_rotate(made, NULL, &e), &e);
	ca_close(made);
	scratch_remove_plain(dir);
}

/* From no passphrase to one, to another by way of both, and back. */
static void test_rekey(void **state)
{
	char dir[64], file[96];
	struct err e;
	struct ca_options o;
	struct ca *made = another(dir, &o);
	must(ca_rotate(made, NULL, &e), &e);
	ca_close(made);
	snprintf(file, sizeof(file), "%s/passphrase", top);
	static const char *const steps[] = {"first\n", "second\nfirst\n"};
	o.key_passphrase_file = file;
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		AUTO(buf_auto) struct buf text;
		AUTO(free_auto) char *key = path_join(dir, "root.key");
		buf_init(&text, TEXT_BYTES_MAX);
		must(file_replace(file, 0600, str_of(steps[i]), &e), &e);
		must(ca_open(&o, &made, &e), &e);
		must(ca_rekey(made, &e), &e);
		ca_close(made);
		must(file_read(key, TEXT_BYTES_MAX, &text, &e), &e);
		assert_true(str_starts(buf_str(&text), STR("-----BEGIN ENCRYPTED")));
	}
	must(file_replace(file, 0600, STR("third\n"), &e), &e);
	must_refuse(ca_open(&o, &made, &e), ERR_FATAL, &e);
	unlink(file);
	scratch_remove_plain(dir);
}

/* --- where others find lists and issuers --- */

static void test_public_url(void **state)
{
	static const char *const bad[] = {"ca.example.com", "ftp://ca.example.com", "http://",
		"http://ca.example.com/", "http://ca example.com", "http://ca.example.com/?a",
		"https://ca.example.com/\"", "http://ca.example.com\n"};
	char dir[64], expected[128];
	struct err e;
	struct ca_options o;
	struct ca *made = another(dir, &o);
	struct ca_issued issued;
	struct ca_request r = request();
	must(ca_issue(made, &r, &issued, &e), &e);
	AUTO(X509_free_auto) X509 *silent = cert_of(&issued);
	assert_null(X509_get_ext_d2i(silent, NID_crl_distribution_points, NULL, NULL));
	ca_issued_clear(&issued);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		o.public_url = bad[i];
		must_refuse(ca_reload(made, &o, &e), ERR_REJECT, &e);
	}
	o.public_url = "http://ca.example.com:8002";
	must(ca_reload(made, &o, &e), &e);
	must(ca_issue(made, &r, &issued, &e), &e);
	AUTO(X509_free_auto) X509 *cert = cert_of(&issued);
	AUTO(CRL_DIST_POINTS_free_auto)
	CRL_DIST_POINTS *points = X509_get_ext_d2i(cert, NID_crl_distribution_points, NULL, NULL);
	AUTO(AUTHORITY_INFO_ACCESS_free_auto)
	AUTHORITY_INFO_ACCESS *access = X509_get_ext_d2i(cert, NID_info_access, NULL, NULL);
	assert_int_equal(sk_DIST_POINT_num(points), 1);
	assert_int_equal(sk_ACCESS_DESCRIPTION_num(access), 1);
	const struct ca_issuer *issuers;
	(void)ca_issuers(made, &issuers);
	const GENERAL_NAME *list =
		sk_GENERAL_NAME_value(sk_DIST_POINT_value(points, 0)->distpoint->name.fullname, 0);
	snprintf(expected, sizeof(expected), "http://ca.example.com:8002/ca/issuers/%s/crl.der",
		issuers[0].id);
	assert_true(str_eq(str_of_asn1(list->d.uniformResourceIdentifier), str_of(expected)));
	const GENERAL_NAME *issuer = sk_ACCESS_DESCRIPTION_value(access, 0)->location;
	snprintf(
		expected, sizeof(expected), "http://ca.example.com:8002/ca/issuers/%s/ca.der", issuers[0].id);
	assert_true(str_eq(str_of_asn1(issuer->d.uniformResourceIdentifier), str_of(expected)));
	ca_issued_clear(&issued);
	ca_close(made);
	scratch_remove_plain(dir);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], signer_argv[1]) == 0)
		ca_signer_main();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_rotations_are_bounded),
		cmocka_unit_test(test_interrupted_rotations),
		cmocka_unit_test(test_root_key_leaves_and_comes_back),
		cmocka_unit_test(test_rekey),
		cmocka_unit_test(test_public_url),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
