/* ca_test.c - the CA as its users see it, with a real signer process: this program started anew as
 * "unit_ca signer". What is issued is judged by our own verdict and, where it is installed, by the openssl
 * program. */
#include "ca/ca.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/file.h"
#include "base/must_test.h"
#include "base/scratch_test.h"
#include "ca/key.h"
#include "tls/openssl.h"
#include "tls/verify.h"

enum { DAY_MS = 24 * 60 * 60 * 1000, BACKDATE_MS = 5 * 60 * 1000, TEXT_BYTES_MAX = 16 * 1024 * 1024 };

static const char *const signer_argv[] = {"/proc/self/exe", "signer", NULL};
static const struct wall start = {1795348200000}; /* 2026-11-22T11:50:00Z */

static char top[] = "/tmp/sealpost-ca-XXXXXX";
static char ca_dir[64];
static struct clock_fake fake_clock;
static struct ca *ca;
static struct buf key_pem, key_spki;

static struct ca_options options(void)
{
	return (struct ca_options){.dir = ca_dir,
		.trust_domain = "example.test",
		.clock = &fake_clock.clock,
		.backdate_ms = BACKDATE_MS,
		.max_days = 825,
		.signer_argv = signer_argv,
		.root_key_type = "rsa:2048"};
}

static int setup(void **state)
{
	struct err e;
	struct ca_options o;
	clock_fake_init(&fake_clock, start);
	buf_init(&key_pem, TEXT_BYTES_MAX);
	buf_init(&key_spki, TEXT_BYTES_MAX);
	if (!mkdtemp(top))
		return -1;
	snprintf(ca_dir, sizeof(ca_dir), "%s/ca", top);
	o = options();
	must(ca_init(&o, &e), &e);
	must(ca_open(&o, &ca, &e), &e);
	must(ca_generate_key(STR("ec:P-256"), &key_pem, &key_spki, &e), &e);
	return 0;
}

static int teardown(void **state)
{
	ca_close(ca);
	buf_wipe(&key_pem);
	buf_clear(&key_spki);
	scratch_remove_plain(ca_dir);
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

static X509_STORE *store_of_bundle(void)
{
	X509_STORE *store = X509_STORE_new();
	BIO *bundle = BIO_new_mem_buf(ca_bundle(ca).p, (int)ca_bundle(ca).n);
	for (X509 *cert; (cert = PEM_read_bio_X509(bundle, NULL, NULL, NULL)) != NULL; X509_free(cert))
		X509_STORE_add_cert(store, cert);
	BIO_free(bundle);
	ERR_clear_error();
	return store;
}

static X509 *cert_of(const struct ca_issued *issued)
{
	const unsigned char *at = (const unsigned char *)issued->der.p;
	return d2i_X509(NULL, &at, (long)issued->der.n);
}

static enum verify_outcome verdict_on(const struct ca_issued *issued)
{
	AUTO(X509_free_auto) X509 *cert = cert_of(issued);
	AUTO(X509_STORE_free_auto) X509_STORE *store = store_of_bundle();
	const struct verify_policy policy = {
		.trust_domain = "example.test", .purpose = X509_PURPOSE_ANY, .clock = &fake_clock.clock};
	struct verify_result result;
	verify_certificate(cert, NULL, store, &policy, &result, NULL);
	return result.outcome;
}

/* --- issuing --- */

static void test_issues_what_is_accepted(void **state)
{
	static const struct {
		enum role role;
		const char *key;
	} cases[] = {
		{ROLE_CLIENT, "ec:P-256"},
		{ROLE_CLIENT, "ec:P-384"},
		{ROLE_CLIENT, "ed25519"},
		{ROLE_CLIENT, "rsa:2048"},
		{ROLE_PROXY, "ec:P-256"},
		{ROLE_WORKER, "ec:P-256"},
		{ROLE_SERVER, "ec:P-256"},
		{ROLE_MONITOR, "ec:P-256"},
		{ROLE_ADMIN, "ec:P-256"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e;
		struct ca_issued issued;
		AUTO(buf_wipe_auto) struct buf pem;
		AUTO(buf_auto) struct buf spki;
		buf_init(&pem, TEXT_BYTES_MAX);
		buf_init(&spki, TEXT_BYTES_MAX);
		must(ca_generate_key(str_of(cases[i].key), &pem, &spki, &e), &e);
		struct ca_request r = request();
		r.role = cases[i].role;
		r.public_key_der = buf_str(&spki);
		must(ca_issue(ca, &r, &issued, &e), &e);
		assert_int_equal(verdict_on(&issued), VERIFY_ACCEPTED);
		assert_int_equal(issued.identity.role, cases[i].role);
		assert_string_equal(issued.identity.name, "client_001");
		assert_string_equal(issued.identity.domain, "example.com");
		assert_memory_equal(
			issued.identity.issuer_key_id, ca_issuing_key_id(ca), IDENTITY_KEY_ID_BYTES);
		assert_true(str_starts(buf_str(&issued.pem), STR("-----BEGIN CERTIFICATE-----\n")));
		ca_issued_clear(&issued);
	}
}

static void test_validity(void **state)
{
	struct err e;
	struct ca_issued issued;
	struct ca_request r = request();
	must(ca_issue(ca, &r, &issued, &e), &e);
	assert_true(issued.identity.not_before.ms == start.ms - BACKDATE_MS);
	assert_true(issued.identity.not_after.ms == start.ms + 365 * (int64_t)DAY_MS);
	ca_issued_clear(&issued);

	/* Never longer than the issuing CA. */
	clock_fake_advance_ms(&fake_clock, 1800 * (int64_t)DAY_MS);
	must(ca_issue(ca, &r, &issued, &e), &e);
	assert_true(issued.identity.not_after.ms == ca_issuing_not_after(ca).ms);
	ca_issued_clear(&issued);
	clock_fake_advance_ms(&fake_clock, 26 * (int64_t)DAY_MS);
	assert_int_equal(ca_issue(ca, &r, &issued, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
	fake_clock.now = start;
	assert_true(ca_root_not_after(ca).ms == start.ms + 3650 * (int64_t)DAY_MS);
}

static void test_names_of_servers(void **state)
{
	const struct str dns[] = {STR("localhost"), STR("relay.example.com")};
	const struct str addresses[] = {STR("127.0.0.1"), STR("2001:db8::1")};
	struct err e;
	struct ca_issued issued;
	struct ca_request r = request();
	r.role = ROLE_SERVER;
	r.dns_names = dns;
	r.dns_count = ARRAY_LEN(dns);
	r.addresses = addresses;
	r.address_count = ARRAY_LEN(addresses);
	must(ca_issue(ca, &r, &issued, &e), &e);
	AUTO(X509_free_auto) X509 *cert = cert_of(&issued);
	assert_int_equal(X509_check_host(cert, "relay.example.com", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(cert, "other.example.com", 0, 0, NULL), 0);
	assert_int_equal(X509_check_ip_asc(cert, "127.0.0.1", 0), 1);
	assert_int_equal(X509_check_ip_asc(cert, "2001:db8::1", 0), 1);
	assert_int_equal(verdict_on(&issued), VERIFY_ACCEPTED);
	ca_issued_clear(&issued);
}

static void test_serials(void **state)
{
	enum { COUNT = 20 };
	static uint8_t serials[COUNT][IDENTITY_SERIAL_BYTES];
	for (size_t i = 0; i < COUNT; i++) {
		struct err e;
		struct ca_issued issued;
		struct ca_request r = request();
		must(ca_issue(ca, &r, &issued, &e), &e);
		assert_int_equal(issued.identity.serial_bytes, 16);
		assert_in_range(issued.identity.serial[0], 0x01, 0x7f);
		memcpy(serials[i], issued.identity.serial, IDENTITY_SERIAL_BYTES);
		for (size_t other = 0; other < i; other++)
			assert_memory_not_equal(serials[i], serials[other], IDENTITY_SERIAL_BYTES);
		ca_issued_clear(&issued);
	}
}

/* --- refusals --- */

static const struct str bad_dns[] = {STR("*.example.com")}, bad_address[] = {STR("127.0.0.256")},
			good_dns[] = {STR("localhost")};
static char long_name[300];

static void no_role(struct ca_request *r)
{
	r->role = ROLE_NONE;
}
static void wild_role(struct ca_request *r)
{
	r->role = 77;
}
static void empty_name(struct ca_request *r)
{
	r->name = STR("");
}
static void name_with_slash(struct ca_request *r)
{
	r->name = STR("a/b");
}
static void name_with_nul(struct ca_request *r)
{
	r->name = STR("a\0b");
}
static void name_too_long(struct ca_request *r)
{
	r->name = str_mem(long_name, 65);
}
static void name_far_too_long(struct ca_request *r)
{
	r->name = str_mem(long_name, sizeof(long_name));
}
static void bad_domain(struct ca_request *r)
{
	r->domain = STR(".example.com");
}
static void zero_days(struct ca_request *r)
{
	r->days = 0;
}
static void negative_days(struct ca_request *r)
{
	r->days = -1;
}
static void too_many_days(struct ca_request *r)
{
	r->days = 826;
}
static void client_with_dns(struct ca_request *r)
{
	r->dns_names = good_dns;
	r->dns_count = 1;
}
static void wildcard_dns(struct ca_request *r)
{
	r->role = ROLE_SERVER;
	r->dns_names = bad_dns;
	r->dns_count = 1;
}
static void malformed_address(struct ca_request *r)
{
	r->role = ROLE_SERVER;
	r->addresses = bad_address;
	r->address_count = 1;
}
static void no_key(struct ca_request *r)
{
	r->public_key_der = STR("");
}
static void cut_key(struct ca_request *r)
{
	r->public_key_der.n--;
}

static void test_refusals(void **state)
{
	static void (*const spoil[])(struct ca_request * r) = {no_role, wild_role, empty_name,
		name_with_slash, name_with_nul, name_too_long, name_far_too_long, bad_domain, zero_days,
		negative_days, too_many_days, client_with_dns, wildcard_dns, malformed_address, no_key,
		cut_key};
	memset(long_name, 'a', sizeof(long_name));
	int pid = ca_signer_pid(ca);
	for (size_t i = 0; i < ARRAY_LEN(spoil); i++) {
		struct err e;
		struct ca_issued issued;
		struct ca_request r = request();
		spoil[i](&r);
		assert_int_equal(ca_issue(ca, &r, &issued, &e), -1);
		if (e.kind != ERR_REJECT)
			fail_msg("case %zu: %s: %s", i, err_kind_name(e.kind), e.text);
	}
	assert_int_equal(ca_signer_pid(ca), pid);
}

static void spki_of(EVP_PKEY *key, struct buf *out)
{
	unsigned char *der = NULL;
	int n = i2d_PUBKEY(key, &der);
	assert_true(n > 0);
	buf_reset(out);
	buf_add(out, der, (size_t)n);
	OPENSSL_free(der);
}

static void test_weak_keys(void **state)
{
	EVP_PKEY *weak[] = {EVP_RSA_gen(1024), EVP_EC_gen("P-521"), EVP_EC_gen("secp256k1"),
		EVP_PKEY_Q_keygen(NULL, NULL, "X25519")};
	AUTO(buf_auto) struct buf spki;
	buf_init(&spki, TEXT_BYTES_MAX);
	for (size_t i = 0; i < ARRAY_LEN(weak); i++) {
		struct err e;
		struct ca_issued issued;
		struct ca_request r = request();
		spki_of(weak[i], &spki);
		r.public_key_der = buf_str(&spki);
		assert_int_equal(ca_issue(ca, &r, &issued, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
		EVP_PKEY_free(weak[i]);
	}
}

/* --- requests for certificates, keys --- */

static X509_REQ *csr_by(EVP_PKEY *key)
{
	X509_REQ *req = X509_REQ_new();
	assert_true(req && X509_REQ_set_pubkey(req, key));
	X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", MBSTRING_ASC,
		(const unsigned char *)"whoever", -1, -1, 0);
	assert_true(X509_REQ_sign(req, key, EVP_sha256()) > 0);
	return req;
}

static void test_csr(void **state)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = EVP_EC_gen("P-256");
	AUTO(X509_REQ_free_auto) X509_REQ *req = csr_by(key);
	AUTO(BIO_free_all_auto) BIO *pem = BIO_new(BIO_s_mem());
	AUTO(buf_auto) struct buf spki, expected;
	unsigned char *der = NULL;
	char *text;
	struct err e;
	buf_init(&spki, TEXT_BYTES_MAX);
	buf_init(&expected, TEXT_BYTES_MAX);
	spki_of(key, &expected);
	int n = i2d_X509_REQ(req, &der);
	must(ca_csr_public_key(str_mem(der, (size_t)n), &spki, &e), &e);
	assert_true(str_eq(buf_str(&spki), buf_str(&expected)));

	buf_reset(&spki);
	PEM_write_bio_X509_REQ(pem, req);
	long text_bytes = BIO_get_mem_data(pem, &text);
	must(ca_csr_public_key(str_mem(text, (size_t)text_bytes), &spki, &e), &e);
	assert_true(str_eq(buf_str(&spki), buf_str(&expected)));

	assert_int_equal(ca_csr_public_key(str_mem(der, (size_t)n - 1), &spki, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	assert_int_equal(ca_csr_public_key(STR("-----BEGIN NOTHING-----"), &spki, &e), -1);
	assert_int_equal(ca_csr_public_key(STR(""), &spki, &e), -1);
	der[n - 1] ^= 1;
	assert_int_equal(ca_csr_public_key(str_mem(der, (size_t)n), &spki, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	OPENSSL_free(der);
}

static void test_csr_with_weak_key(void **state)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = EVP_RSA_gen(1024);
	AUTO(X509_REQ_free_auto) X509_REQ *req = csr_by(key);
	AUTO(buf_auto) struct buf spki;
	unsigned char *der = NULL;
	struct err e;
	buf_init(&spki, TEXT_BYTES_MAX);
	int n = i2d_X509_REQ(req, &der);
	assert_int_equal(ca_csr_public_key(str_mem(der, (size_t)n), &spki, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	assert_int_equal(spki.n, 0);
	OPENSSL_free(der);
}

static void test_unknown_key_types(void **state)
{
	static const char *const types[] = {
		"", "rsa", "rsa:1024", "rsa:2048 ", "ec:P-521", "ec:p-256", "dsa:2048"};
	AUTO(buf_wipe_auto) struct buf pem, spki;
	buf_init(&pem, TEXT_BYTES_MAX);
	buf_init(&spki, TEXT_BYTES_MAX);
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct err e;
		assert_int_equal(ca_generate_key(str_of(types[i]), &pem, &spki, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
	}
}

/* --- CRL --- */

static X509_CRL *crl_with(const struct ca_revoked *entries, size_t count)
{
	AUTO(buf_auto) struct buf der;
	struct err e;
	buf_init(&der, TEXT_BYTES_MAX);
	must(ca_crl(ca, ca_issuing_key_id(ca), entries, count, 7, &der, &e), &e);
	const unsigned char *at = (const unsigned char *)der.p;
	X509_CRL *crl = d2i_X509_CRL(NULL, &at, (long)der.n);
	assert_non_null(crl);
	return crl;
}

static uint64_t number_of(X509_CRL *crl)
{
	uint64_t number = 0;
	AUTO(ASN1_INTEGER_free_auto)
	ASN1_INTEGER *value = X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
	assert_true(value && ASN1_INTEGER_get_uint64(&number, value));
	return number;
}

static struct ca_revoked revoked(uint32_t number, const char *reason)
{
	return (struct ca_revoked){
		.serial = {1, (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number},
		.serial_bytes = 4,
		.at = start,
		.reason = str_of(reason)};
}

static void test_crl(void **state)
{
	struct ca_revoked entries[] = {revoked(3, "keyCompromise"), revoked(1, ""), revoked(2, "superseded")};
	AUTO(X509_CRL_free_auto) X509_CRL *crl = crl_with(entries, ARRAY_LEN(entries));
	assert_int_equal(sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl)), 3);
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new_mem_buf(ca_issuing_pem(ca).p, (int)ca_issuing_pem(ca).n);
	AUTO(X509_free_auto) X509 *issuing = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	assert_int_equal(X509_CRL_verify(crl, X509_get0_pubkey(issuing)), 1);

	X509_REVOKED *entry;
	AUTO(BN_free_auto) BIGNUM *serial = BN_bin2bn(entries[0].serial, 4, NULL);
	AUTO(ASN1_INTEGER_free_auto) ASN1_INTEGER *wanted = BN_to_ASN1_INTEGER(serial, NULL);
	assert_int_equal(X509_CRL_get0_by_serial(crl, &entry, wanted), 1);
	int critical;
	ASN1_ENUMERATED *reason = X509_REVOKED_get_ext_d2i(entry, NID_crl_reason, &critical, NULL);
	assert_int_equal(ASN1_ENUMERATED_get(reason), CRL_REASON_KEY_COMPROMISE);
	ASN1_ENUMERATED_free(reason);
	AUTO(AUTHORITY_KEYID_free_auto)
	AUTHORITY_KEYID *aki = X509_CRL_get_ext_d2i(crl, NID_authority_key_identifier, NULL, NULL);
	assert_memory_equal(ASN1_STRING_get0_data(aki->keyid), ca_issuing_key_id(ca), IDENTITY_KEY_ID_BYTES);
	struct wall next;
	assert_true(wall_of_asn1(X509_CRL_get0_nextUpdate(crl), &next) &&
		    next.ms == start.ms + 7 * (int64_t)DAY_MS);
}

static void test_crl_refuses_its_certificates(void **state)
{
	struct err e;
	struct ca_issued issued;
	struct ca_request r = request();
	must(ca_issue(ca, &r, &issued, &e), &e);
	struct ca_revoked entry = {.serial_bytes = issued.identity.serial_bytes, .at = start};
	memcpy(entry.serial, issued.identity.serial, sizeof(entry.serial));
	for (size_t count = 0; count < 2; count++) {
		AUTO(X509_free_auto) X509 *cert = cert_of(&issued);
		AUTO(X509_STORE_free_auto) X509_STORE *store = store_of_bundle();
		AUTO(X509_CRL_free_auto) X509_CRL *crl = crl_with(&entry, count);
		const struct verify_policy policy = {.trust_domain = "example.test",
			.purpose = X509_PURPOSE_SSL_CLIENT,
			.crl = true,
			.clock = &fake_clock.clock};
		struct verify_result result;
		X509_STORE_add_crl(store, crl);
		verify_certificate(cert, NULL, store, &policy, &result, NULL);
		assert_int_equal(result.outcome, count ? VERIFY_REVOKED : VERIFY_ACCEPTED);
	}
	ca_issued_clear(&issued);
}

/* Larger than one frame of the protocol, both ways. */
static void test_large_crl(void **state)
{
	enum { COUNT = 20000 };
	static struct ca_revoked entries[COUNT];
	for (uint32_t i = 0; i < COUNT; i++)
		entries[i] = revoked(i, "unspecified");
	AUTO(X509_CRL_free_auto) X509_CRL *crl = crl_with(entries, COUNT);
	assert_int_equal(sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl)), COUNT);
}

static void test_crl_refusals(void **state)
{
	struct ca_revoked entries[] = {
		revoked(1, "keycompromise"), revoked(1, "removeFromCRL"), revoked(1, "")};
	AUTO(buf_auto) struct buf der;
	struct err e;
	buf_init(&der, TEXT_BYTES_MAX);
	entries[2].serial_bytes = 0;
	for (size_t i = 0; i < ARRAY_LEN(entries); i++) {
		assert_int_equal(ca_crl(ca, ca_issuing_key_id(ca), &entries[i], 1, 7, &der, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
	}
	assert_int_equal(ca_crl(ca, ca_issuing_key_id(ca), NULL, 0, 0, &der, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
}

/* Returns when it is dead: its socket is closed by then. It is left to ca.c to reap. */
static void kill_signer(void)
{
	siginfo_t info;
	int pid = ca_signer_pid(ca);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void test_crl_number_grows(void **state)
{
	struct ca_options o = options();
	uint64_t last = 0;
	for (int i = 0; i < 4; i++) {
		struct err e;
		AUTO(X509_CRL_free_auto) X509_CRL *crl = crl_with(NULL, 0);
		assert_true(number_of(crl) > last);
		last = number_of(crl);
		if (i == 1) {
			ca_close(ca);
			must(ca_open(&o, &ca, &e), &e);
		} else if (i == 2) {
			kill_signer();
		}
	}
}

/* --- the signer --- */

static void test_signer_is_replaced(void **state)
{
	struct err e;
	struct ca_issued issued;
	struct ca_request r = request();
	int pid = ca_signer_pid(ca);
	kill_signer();
	must(ca_issue(ca, &r, &issued, &e), &e);
	assert_int_not_equal(ca_signer_pid(ca), pid);
	ca_issued_clear(&issued);
}

struct asking {
	_Atomic pid_t thread;
	int result;
	struct ca_issued issued;
	struct err e;
};

static void *ask_for_one(void *arg)
{
	struct asking *asking = arg;
	struct ca_request r = request();
	atomic_store(&asking->thread, gettid());
	asking->result = ca_issue(ca, &r, &asking->issued, &asking->e);
	return NULL;
}

/* Whether the thread waits for the signer's answer (proc(5): the number of the call it is in comes first). */
static bool waits_for_answer(pid_t thread)
{
	char path[64], expected[32], line[32] = "";
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)thread);
	snprintf(expected, sizeof(expected), "%d ", SYS_recvfrom);
	AUTO(file_auto) FILE *file = fopen(path, "re");
	return file && fgets(line, sizeof(line), file) && str_starts(str_of(line), str_of(expected));
}

/* One that dies over a request is asked again, by way of its successor. */
static void test_signer_dies_over_a_request(void **state)
{
	struct asking asking = {0};
	pthread_t thread;
	int pid = ca_signer_pid(ca);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(pthread_create(&thread, NULL, ask_for_one, &asking), 0);
	while (!atomic_load(&asking.thread) || !waits_for_answer(atomic_load(&asking.thread)))
		sched_yield();
	assert_int_equal(kill(pid, SIGKILL), 0);
	pthread_join(thread, NULL);
	must(asking.result, &asking.e);
	assert_int_not_equal(ca_signer_pid(ca), pid);
	ca_issued_clear(&asking.issued);
}

static void test_signer_ignores_terminal_signals(void **state)
{
	struct err e;
	struct ca_issued issued;
	struct ca_request r = request();
	int pid = ca_signer_pid(ca);
	kill(pid, SIGINT);
	kill(pid, SIGTERM);
	kill(pid, SIGHUP);
	must(ca_issue(ca, &r, &issued, &e), &e);
	assert_int_equal(ca_signer_pid(ca), pid);
	ca_issued_clear(&issued);
}

/* The line of /proc/PID/status that starts with `field`. */
static void status_line(int pid, const char *field, char *out, size_t room)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	AUTO(file_auto) FILE *file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(out, (int)room, file))
		if (str_starts(str_of(out), str_of(field)))
			return;
	fail_msg("no %s in %s", field, path);
}

static void test_signer_is_locked_in(void **state)
{
	static const struct {
		const char *field, *line;
	} cases[] = {{"Name:", "Name:\tsealpost-signer\n"}, {"NoNewPrivs:", "NoNewPrivs:\t1\n"},
		{"Seccomp:", "Seccomp:\t2\n"}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char line[256];
		status_line(ca_signer_pid(ca), cases[i].field, line, sizeof(line));
		assert_string_equal(line, cases[i].line);
	}
}

/* Without signer_argv the signer is a fork; the rest is the same. */
static void test_forked_signer(void **state)
{
	struct err e;
	struct ca *forked;
	struct ca_issued issued;
	struct ca_options o = options();
	struct ca_request r = request();
	o.signer_argv = NULL;
	must(ca_open(&o, &forked, &e), &e);
	must(ca_issue(forked, &r, &issued, &e), &e);
	assert_int_equal(verdict_on(&issued), VERIFY_ACCEPTED);
	ca_issued_clear(&issued);
	ca_close(forked);
}

/* --- files --- */

static void test_init_repeats(void **state)
{
	struct err e;
	struct ca_options o = options();
	AUTO(buf_auto) struct buf before, after;
	AUTO(free_auto) char *path = path_join(ca_dir, "ca.pem");
	buf_init(&before, TEXT_BYTES_MAX);
	buf_init(&after, TEXT_BYTES_MAX);
	must(file_read(path, TEXT_BYTES_MAX, &before, &e), &e);
	must(ca_init(&o, &e), &e);
	must(file_read(path, TEXT_BYTES_MAX, &after, &e), &e);
	assert_true(str_eq(buf_str(&before), buf_str(&after)));
}

static void test_modes(void **state)
{
	static const struct {
		const char *name;
		mode_t mode;
	} cases[] = {{"root.key", 0600}, {"issuing.key", 0600}, {"crl-number", 0600}, {"root.pem", 0644},
		{"issuing.pem", 0644}, {"ca.pem", 0644}, {".", 0700}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		AUTO(free_auto) char *path = path_join(ca_dir, cases[i].name);
		struct stat st;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & ALLPERMS, cases[i].mode);
	}
}

/* Whatever a crash left undone, another init completes, and makes nothing anew that was there. */
static void test_init_goes_on(void **state)
{
	static const char *const lost[] = {"ca.pem", "crl-number", "issuing.pem", "issuing.key", "root.pem"};
	char dir[64];
	snprintf(dir, sizeof(dir), "%s/second", top);
	struct ca_options o = options();
	o.dir = dir;
	o.root_key_type = "ec:P-384";
	for (size_t count = 0; count <= ARRAY_LEN(lost); count++) {
		struct err e;
		struct ca *second;
		for (size_t i = 0; i < count; i++) {
			AUTO(free_auto) char *path = path_join(dir, lost[i]);
			unlink(path);
		}
		must(ca_init(&o, &e), &e);
		must(ca_open(&o, &second, &e), &e);
		ca_close(second);
	}
	scratch_remove_plain(dir);
}

static void spoil_file(const char *dir, const char *name)
{
	AUTO(free_auto) char *path = path_join(dir, name);
	struct err e;
	must(file_replace(path, 0600, STR("spoiled\n"), &e), &e);
}

static void test_damage_is_named(void **state)
{
	static const char *const names[] = {"root.pem", "issuing.pem", "issuing.key", "crl-number"};
	char dir[64];
	snprintf(dir, sizeof(dir), "%s/third", top);
	struct ca_options o = options();
	o.dir = dir;
	o.root_key_type = "ec:P-256";
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct err e;
		struct ca *third;
		must(ca_init(&o, &e), &e);
		spoil_file(dir, names[i]);
		assert_int_equal(ca_open(&o, &third, &e), -1);
		assert_int_equal(e.kind, ERR_FATAL);
		if (!strstr(e.text, names[i]))
			fail_msg("'%s' does not name %s", e.text, names[i]);
		scratch_remove_plain(dir);
	}
}

/* A key that belongs to another certificate, or to no signer of ours. */
static void test_wrong_key_is_found(void **state)
{
	char dir[64];
	struct err e;
	struct ca *fourth;
	snprintf(dir, sizeof(dir), "%s/fourth", top);
	struct ca_options o = options();
	o.dir = dir;
	o.root_key_type = "ec:P-256";
	must(ca_init(&o, &e), &e);
	AUTO(free_auto) char *path = path_join(dir, "issuing.key");
	must(file_replace(path, 0600, buf_str(&key_pem), &e), &e);
	assert_int_equal(ca_open(&o, &fourth, &e), -1);
	assert_non_null(strstr(e.text, "issuing.key is not the key of issuing.pem"));
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(ca_open(&o, &fourth, &e), -1);
	assert_non_null(strstr(e.text, "may be read by others"));
	scratch_remove_plain(dir);
}

static void make_plain_root_key(const char *dir)
{
	struct err e;
	AUTO(free_auto) char *path = path_join(dir, "root.key");
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	must(key_generate(STR("ec:P-256"), &key, &e), &e);
	must(dir_make(dir, 0700, &e), &e);
	must(key_save(path, key, STR(""), &e), &e);
}

/* Each derivation of a key from a passphrase costs a fifth of a second, so all about it is one test; and the
 * root's key is there before, unencrypted, which is fine. */
static void test_passphrase(void **state)
{
	char dir[64], file[96];
	struct err e;
	struct ca *fifth;
	AUTO(buf_auto) struct buf text;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *none = NULL;
	snprintf(dir, sizeof(dir), "%s/fifth", top);
	snprintf(file, sizeof(file), "%s/passphrase", top);
	AUTO(free_auto) char *key = path_join(dir, "issuing.key");
	struct ca_options o = options();
	o.dir = dir;
	o.key_passphrase_file = file;
	make_plain_root_key(dir);
	must(file_replace(file, 0600, STR("correct horse battery staple\n"), &e), &e);
	must(ca_init(&o, &e), &e); /* writes it, and reads it back for a trial certificate */

	buf_init(&text, TEXT_BYTES_MAX);
	must(file_read(key, TEXT_BYTES_MAX, &text, &e), &e);
	assert_true(str_starts(buf_str(&text), STR("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")));
	o.key_passphrase_file = NULL;
	assert_int_equal(ca_open(&o, &fifth, &e), -1);
	assert_non_null(strstr(e.text, key));
	assert_int_equal(key_load(key, STR("wrong"), &none, &e), -1);
	assert_non_null(strstr(e.text, "not encrypted by the passphrase"));
	unlink(file);
	scratch_remove_plain(dir);
}

/* --- others --- */

static void *issue_some(void *failures)
{
	enum { COUNT = 25 };
	for (int i = 0; i < COUNT; i++) {
		struct err e;
		struct ca_issued issued;
		struct ca_request r = request();
		if (ca_issue(ca, &r, &issued, &e) < 0) {
			(*(unsigned *)failures)++;
			continue;
		}
		ca_issued_clear(&issued);
	}
	return NULL;
}

static void test_threads(void **state)
{
	enum { THREADS = 4 };
	pthread_t threads[THREADS];
	unsigned failures[THREADS] = {0};
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, issue_some, &failures[i]), 0);
	for (size_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(failures[i], 0);
	}
}

/* 127: not installed. */
static int run_openssl(const char *const *argv)
{
	pid_t pid;
	int status;
	if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ) != 0)
		return 127;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WEXITSTATUS(status);
}

static void test_openssl_agrees(void **state)
{
	AUTO(free_auto) char *leaf = path_join(ca_dir, "leaf.pem");
	AUTO(free_auto) char *bundle = path_join(ca_dir, "ca.pem");
	char at[32];
	struct err e;
	struct ca_issued issued;
	struct ca_request r = request();
	must(ca_issue(ca, &r, &issued, &e), &e);
	must(file_replace(leaf, 0644, buf_str(&issued.pem), &e), &e);
	ca_issued_clear(&issued);
	snprintf(at, sizeof(at), "%lld", (long long)(start.ms / 1000));
	const char *argv[] = {"openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-attime", at,
		"-CAfile", bundle, leaf, NULL};
	int status = run_openssl(argv);
	if (status == 127)
		skip();
	assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], signer_argv[1]) == 0)
		ca_signer_main();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_issues_what_is_accepted),
		cmocka_unit_test(test_validity),
		cmocka_unit_test(test_names_of_servers),
		cmocka_unit_test(test_serials),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_weak_keys),
		cmocka_unit_test(test_csr),
		cmocka_unit_test(test_csr_with_weak_key),
		cmocka_unit_test(test_unknown_key_types),
		cmocka_unit_test(test_crl),
		cmocka_unit_test(test_crl_refuses_its_certificates),
		cmocka_unit_test(test_large_crl),
		cmocka_unit_test(test_crl_refusals),
		cmocka_unit_test(test_crl_number_grows),
		cmocka_unit_test(test_signer_is_replaced),
		cmocka_unit_test(test_signer_dies_over_a_request),
		cmocka_unit_test(test_signer_ignores_terminal_signals),
		cmocka_unit_test(test_signer_is_locked_in),
		cmocka_unit_test(test_forked_signer),
		cmocka_unit_test(test_init_repeats),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_init_goes_on),
		cmocka_unit_test(test_damage_is_named),
		cmocka_unit_test(test_wrong_key_is_found),
		cmocka_unit_test(test_passphrase),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_openssl_agrees),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
