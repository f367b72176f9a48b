/* context_test.c - whole handshakes between a server of ours and clients of every kind, over a BIO pair in
 * one thread: what is let in, what is refused with which alert, and what a reload changes. */
#include "tls/context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <sys/stat.h>

#include "base/must_test.h"
#include "tls/craft_cert.h"

enum { DAY_MS = 24 * 60 * 60 * 1000, PIPE_BYTES = 64 * 1024 };

static const char client_uri[] = "spiffe://example.test/client/example.com/client_001";

/* Real time: tls_client_context judges the server's certificate by the system's clock. */
static struct wall now;
static struct craft_authority root, issuing, stranger_root, stranger_issuing;
static char directory[] = "/tmp/sealpost-context-XXXXXX";
static char cert_file[64], key_file[64], ca_file[64];

static void write_server_files(const char *name)
{
	struct err e;
	struct craft_spec spec;
	char uri[128];
	snprintf(uri, sizeof(uri), "spiffe://example.test/server/example.com/%s", name);
	craft_leaf(&spec, &issuing, uri, name, now);
	spec.usages[0] = NID_server_auth;
	spec.alternative_names[1] = (struct craft_string){GEN_DNS, STR("localhost")};
	AUTO(X509_free_auto) X509 *cert = NULL;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	must(craft_cert(&spec, &cert, &key, &e), &e);
	must(craft_write_cert(cert_file, "w", cert, &e), &e);
	must(craft_write_cert(cert_file, "a", issuing.cert, &e), &e);
	must(craft_write_key(key_file, key, &e), &e);
}

static int setup(void **state)
{
	struct err e;
	now = clock_wall(&clock_system);
	if (!mkdtemp(directory) || craft_authorities(now, &root, &issuing, &e) < 0 ||
		craft_authorities(now, &stranger_root, &stranger_issuing, &e) < 0)
		return -1;
	snprintf(cert_file, sizeof(cert_file), "%s/server.pem", directory);
	snprintf(key_file, sizeof(key_file), "%s/server.key", directory);
	snprintf(ca_file, sizeof(ca_file), "%s/ca.pem", directory);
	if (craft_write_cert(ca_file, "w", root.cert, &e) < 0 ||
		craft_write_cert(ca_file, "a", issuing.cert, &e) < 0)
		return -1;
	write_server_files("first");
	return 0;
}

static int teardown(void **state)
{
	craft_authority_clear(&root);
	craft_authority_clear(&issuing);
	craft_authority_clear(&stranger_root);
	craft_authority_clear(&stranger_issuing);
	unlink(cert_file);
	unlink(key_file);
	unlink(ca_file);
	return rmdir(directory);
}

static struct tls_server_options server_options(void)
{
	return (struct tls_server_options){.cert_file = cert_file,
		.key_file = key_file,
		.ca_file = ca_file,
		.trust_domain = "example.test",
		.client_cert = true,
		.http2 = true,
		.clock = &clock_system};
}

static struct tls_server *server_with(const struct tls_server_options *o)
{
	struct tls_server *server;
	struct err e;
	must(tls_server_new(o, &server, &e), &e);
	return server;
}

/* A client of OpenSSL's own making, as lax as can be, so that the server alone decides. */
static SSL_CTX *lax_client(X509 *cert, EVP_PKEY *key, X509 *chain)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	assert_non_null(ctx);
	SSL_CTX_set_security_level(ctx, 0);
	if (cert) {
		assert_int_equal(SSL_CTX_use_certificate(ctx, cert), 1);
		assert_int_equal(SSL_CTX_use_PrivateKey(ctx, key), 1);
		assert_int_equal(SSL_CTX_add1_chain_cert(ctx, chain), 1);
	}
	return ctx;
}

static SSL_CTX *client_of(const struct craft_spec *spec)
{
	AUTO(X509_free_auto) X509 *cert = NULL;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	struct err e;
	must(craft_cert(spec, &cert, &key, &e), &e);
	return lax_client(cert, key, spec->issuer->cert);
}

static struct craft_spec client_spec(void)
{
	struct craft_spec spec;
	craft_leaf(&spec, &issuing, client_uri, "client_001", now);
	return spec;
}

/* --- a connection --- */

struct connection {
	SSL *server, *client;
	bool done;                  /* both ends think so, and the server has seen the client's Finished */
	const char *failure, *rule; /* by tls_failure */
	int client_alert;           /* that the client got, 0: none */
};

static void connection_init(struct connection *c, struct tls_server *server, SSL_CTX *client)
{
	BIO *left = NULL, *right = NULL;
	*c = (struct connection){.server = tls_server_accept(server), .client = SSL_new(client)};
	assert_true(c->server && c->client && BIO_new_bio_pair(&left, PIPE_BYTES, &right, PIPE_BYTES));
	SSL_set_bio(c->server, left, left);
	SSL_set_bio(c->client, right, right);
	SSL_set_connect_state(c->client);
}

static void connection_clear(struct connection *c)
{
	SSL_free(c->server);
	SSL_free(c->client);
	ERR_clear_error();
}

/* One side's turn: 1 done, 0 waits for the other, -1 failed. */
static int turn(SSL *ssl)
{
	int n = SSL_do_handshake(ssl);
	return n == 1 ? 1 : SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ ? 0 : -1;
}

static void note_client_alert(struct connection *c)
{
	unsigned long code = ERR_peek_error();
	if (ERR_GET_REASON(code) > SSL_AD_REASON_OFFSET)
		c->client_alert = ERR_GET_REASON(code) - SSL_AD_REASON_OFFSET;
	ERR_clear_error();
}

static void handshake(struct connection *c)
{
	int client = 0, server = 0;
	while (client >= 0 && server == 0) {
		ERR_clear_error();
		client = turn(c->client);
		if (client < 0)
			note_client_alert(c);
		ERR_clear_error();
		server = turn(c->server);
		if (server < 0)
			c->failure = tls_failure(c->server, &c->rule);
	}
	c->done = client == 1 && server == 1;
	/* What the server sent last reaches a client that waits, or a TLS 1.3 client with its first read. */
	char byte;
	if (client >= 0 && SSL_read(c->client, &byte, 1) <= 0)
		note_client_alert(c);
}

static void expect_refused(
	const char *what, struct tls_server *server, SSL_CTX *client, const char *failure, int alert)
{
	struct connection c;
	connection_init(&c, server, client);
	handshake(&c);
	if (c.done || !c.failure || strcmp(c.failure, failure) != 0 || c.client_alert != alert)
		fail_msg("%s: done %d, failure %s (%s), alert %d; not %s, alert %d", what, c.done, c.failure,
			c.rule, c.client_alert, failure, alert);
	assert_non_null(c.rule);
	assert_int_equal(tls_peer(c.server)->role, ROLE_NONE);
	connection_clear(&c);
}

/* --- tests --- */

static void test_accepts(void **state)
{
	struct tls_server_options o = server_options();
	struct tls_server *server = server_with(&o);
	struct craft_spec spec = client_spec();
	SSL_CTX *client = client_of(&spec);
	struct connection c;
	connection_init(&c, server, client);
	handshake(&c);
	assert_true(c.done);
	assert_string_equal(tls_peer(c.server)->name, "client_001");
	assert_int_equal(tls_peer(c.server)->role, ROLE_CLIENT);
	assert_int_equal(SSL_version(c.server), TLS1_3_VERSION);
	assert_string_equal(SSL_get_cipher_name(c.server), "TLS_AES_128_GCM_SHA256");

	/* The connection outlives the server object. */
	char byte = 0;
	tls_server_free(server);
	assert_int_equal(SSL_write(c.server, "x", 1), 1);
	assert_int_equal(SSL_read(c.client, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	connection_clear(&c);
	SSL_CTX_free(client);
}

static void test_accepts_nobody(void **state)
{
	for (int client_cert = 0; client_cert < 2; client_cert++) {
		struct tls_server_options o = server_options();
		o.client_cert = client_cert;
		struct tls_server *server = server_with(&o);
		SSL_CTX *client = lax_client(NULL, NULL, NULL);
		struct connection c;
		connection_init(&c, server, client);
		handshake(&c);
		assert_true(c.done);
		assert_int_equal(tls_peer(c.server)->role, ROLE_NONE);
		connection_clear(&c);
		SSL_CTX_free(client);
		tls_server_free(server);
	}
}

static void test_refuses_flaws(void **state)
{
	static const struct {
		const char *flaw, *failure;
		int alert;
	} cases[] = {
		{"expired", "expired", SSL_AD_CERTIFICATE_EXPIRED},
		{"not_yet_valid", "not_yet_valid", SSL_AD_BAD_CERTIFICATE},
		{"damaged_signature", "chain", SSL_AD_BAD_CERTIFICATE},
		{"usages_missing", "purpose", SSL_AD_UNSUPPORTED_CERTIFICATE},
		{"usages_other", "purpose", SSL_AD_UNSUPPORTED_CERTIFICATE},
		{"leaf_is_ca", "profile", SSL_AD_BAD_CERTIFICATE},
		{"version_1_bare", "profile", SSL_AD_BAD_CERTIFICATE},
		{"serial_zero", "profile", SSL_AD_BAD_CERTIFICATE},
		{"sha1_signature", "profile", SSL_AD_BAD_CERTIFICATE},
		{"rsa_1024", "profile", SSL_AD_BAD_CERTIFICATE},
		{"duplicate_extension", "chain", SSL_AD_BAD_CERTIFICATE},
		{"critical_extension", "profile", SSL_AD_BAD_CERTIFICATE},
		{"cn_nul", "profile", SSL_AD_BAD_CERTIFICATE},
		{"cn_mismatch", "profile", SSL_AD_BAD_CERTIFICATE},
		{"san_two_uris", "profile", SSL_AD_BAD_CERTIFICATE},
		{"uri_trust_domain", "profile", SSL_AD_BAD_CERTIFICATE},
	};
	struct tls_server_options o = server_options();
	struct tls_server *server = server_with(&o);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct craft_spec spec = client_spec();
		craft_flaw(cases[i].flaw)->apply(&spec);
		SSL_CTX *client = client_of(&spec);
		expect_refused(cases[i].flaw, server, client, cases[i].failure, cases[i].alert);
		SSL_CTX_free(client);
	}
	tls_server_free(server);
}

static void test_refuses_strangers(void **state)
{
	struct tls_server_options o = server_options();
	struct tls_server *server = server_with(&o);
	struct craft_spec spec = client_spec();
	spec.issuer = &stranger_issuing;
	SSL_CTX *client = client_of(&spec);
	expect_refused("another CA", server, client, "unknown_ca", SSL_AD_UNKNOWN_CA);
	SSL_CTX_free(client);

	AUTO(X509_free_auto) X509 *self_signed = NULL;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	struct err e;
	spec.issuer = NULL;
	must(craft_cert(&spec, &self_signed, &key, &e), &e);
	client = lax_client(self_signed, key, self_signed);
	expect_refused("self-signed", server, client, "unknown_ca", SSL_AD_UNKNOWN_CA);
	SSL_CTX_free(client);
	tls_server_free(server);
}

/* What a proxy learned of issuing CAs helps a leaf that comes alone, and makes nobody a trust anchor. */
static void test_learned_issuers(void **state)
{
	char issuers_file[64], root_only[64];
	struct err e;
	snprintf(issuers_file, sizeof(issuers_file), "%s/issuers.pem", directory);
	snprintf(root_only, sizeof(root_only), "%s/root.pem", directory);
	must(craft_write_cert(root_only, "w", root.cert, &e), &e);
	struct tls_server_options o = server_options();
	o.ca_file = root_only;
	o.issuers_file = issuers_file;
	struct tls_server *server = server_with(&o); /* the file is not there yet */
	struct craft_spec spec = client_spec(), strangers = client_spec();
	strangers.issuer = &stranger_issuing;
	AUTO(X509_free_auto) X509 *leaf = NULL;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	must(craft_cert(&spec, &leaf, &key, &e), &e);
	SSL_CTX *alone = lax_client(leaf, key, root.cert), *stranger = client_of(&strangers);
	expect_refused("issuer not known", server, alone, "unknown_ca", SSL_AD_UNKNOWN_CA);

	must(craft_write_cert(issuers_file, "w", stranger_root.cert, &e), &e);
	must(craft_write_cert(issuers_file, "a", stranger_issuing.cert, &e), &e);
	must(craft_write_cert(issuers_file, "a", issuing.cert, &e), &e);
	must(tls_server_reload(server, &e), &e);
	struct connection c;
	connection_init(&c, server, alone);
	handshake(&c);
	assert_true(c.done);
	assert_string_equal(tls_peer(c.server)->name, "client_001");
	connection_clear(&c);
	expect_refused("a learned root", server, stranger, "unknown_ca", SSL_AD_UNKNOWN_CA);
	SSL_CTX_free(alone);
	SSL_CTX_free(stranger);
	tls_server_free(server);
	unlink(issuers_file);
	unlink(root_only);
}

static void test_refuses_role(void **state)
{
	struct tls_server_options o = server_options();
	o.roles = ROLE_BIT(ROLE_PROXY) | ROLE_BIT(ROLE_WORKER);
	struct tls_server *server = server_with(&o);
	struct craft_spec spec = client_spec();
	SSL_CTX *client = client_of(&spec);
	expect_refused("role", server, client, "role", SSL_AD_UNSUPPORTED_CERTIFICATE);
	SSL_CTX_free(client);
	tls_server_free(server);
}

static void test_asks_the_registry(void **state)
{
	struct registry *registry;
	struct err e;
	must(registry_new(&registry, &e), &e);
	struct tls_server_options o = server_options();
	o.registry = registry;
	struct tls_server *server = server_with(&o);
	struct craft_spec spec = client_spec();
	spec.serial = STR("serial-number-01");
	SSL_CTX *client = client_of(&spec);
	expect_refused("no row", server, client, "unregistered", SSL_AD_CERTIFICATE_UNKNOWN);

	static const struct {
		enum registry_status status;
		const char *failure;
		int alert;
	} cases[] = {
		{REGISTRY_REVOKED, "revoked", SSL_AD_CERTIFICATE_REVOKED},
		{REGISTRY_SUSPENDED, "suspended", SSL_AD_CERTIFICATE_REVOKED},
		{REGISTRY_ACTIVE, NULL, 0},
	};
	struct registry_row row = {.serial_bytes = 16,
		.role = ROLE_CLIENT,
		.name = STR("client_001"),
		.domain = STR("example.com")};
	memcpy(row.serial, spec.serial.p, spec.serial.n);
	AUTO(ASN1_OCTET_STRING_free_auto)
	ASN1_OCTET_STRING *key_id = X509_get_ext_d2i(issuing.cert, NID_subject_key_identifier, NULL, NULL);
	memcpy(row.issuer_key_id, ASN1_STRING_get0_data(key_id), sizeof(row.issuer_key_id));
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		row.status = cases[i].status;
		must(registry_apply(registry, &row, 1, &e), &e);
		if (cases[i].failure)
			expect_refused("row", server, client, cases[i].failure, cases[i].alert);
	}
	struct connection c;
	connection_init(&c, server, client);
	handshake(&c);
	assert_true(c.done);
	connection_clear(&c);
	SSL_CTX_free(client);
	tls_server_free(server);
	registry_free(registry);
}

static void test_refuses_tls_1_2(void **state)
{
	struct tls_server_options o = server_options();
	struct tls_server *server = server_with(&o);
	SSL_CTX *client = lax_client(NULL, NULL, NULL);
	SSL_CTX_set_max_proto_version(client, TLS1_2_VERSION);
	expect_refused("TLS 1.2", server, client, "protocol", SSL_AD_PROTOCOL_VERSION);
	SSL_CTX_free(client);
	tls_server_free(server);
}

static void test_protocols(void **state)
{
	static const struct {
		bool http2;
		const char *offered, *selected;
	} cases[] = {
		{true, "\x08http/1.1\x02h2", "h2"},
		{true, "\x08http/1.1", "http/1.1"},
		{true, "\003foo\010http/1.1", "http/1.1"},
		{false, "\x02h2\x08http/1.1", "http/1.1"},
		{true, "", ""},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tls_server_options o = server_options();
		o.http2 = cases[i].http2;
		struct tls_server *server = server_with(&o);
		SSL_CTX *client = lax_client(NULL, NULL, NULL);
		SSL_CTX_set_alpn_protos(
			client, (const unsigned char *)cases[i].offered, (unsigned)strlen(cases[i].offered));
		struct connection c;
		connection_init(&c, server, client);
		handshake(&c);
		assert_true(c.done);
		const unsigned char *selected;
		unsigned n;
		SSL_get0_alpn_selected(c.server, &selected, &n);
		assert_true(str_eq(str_mem(selected, n), str_of(cases[i].selected)));
		connection_clear(&c);
		SSL_CTX_set_alpn_protos(client,
			(const unsigned char *)"\x03"
					       "foo",
			4);
		expect_refused(
			"no protocol in common", server, client, "protocol", SSL_AD_NO_APPLICATION_PROTOCOL);
		SSL_CTX_free(client);
		tls_server_free(server);
	}
}

static int count_session(SSL *ssl, SSL_SESSION *session)
{
	(*(unsigned *)SSL_get_app_data(ssl))++;
	return 0;
}

/* Resumption would skip the verdict: no tickets, and a session that the client kept is not taken up. */
static void test_no_resumption(void **state)
{
	struct tls_server_options o = server_options();
	struct tls_server *server = server_with(&o);
	struct craft_spec spec = client_spec();
	SSL_CTX *client = client_of(&spec);
	SSL_CTX_set_session_cache_mode(client, SSL_SESS_CACHE_CLIENT);
	SSL_CTX_sess_set_new_cb(client, count_session);
	unsigned sessions = 0;
	struct connection c;
	connection_init(&c, server, client);
	SSL_set_app_data(c.client, &sessions);
	handshake(&c);
	assert_true(c.done);
	assert_int_equal(sessions, 0);
	connection_clear(&c);
	SSL_CTX_free(client);
	tls_server_free(server);
}

static void test_reset_and_peer_alert(void **state)
{
	struct tls_server_options o = server_options();
	struct tls_server *server = server_with(&o);
	SSL_CTX *client = lax_client(NULL, NULL, NULL);
	struct connection c;
	connection_init(&c, server, client);
	assert_int_equal(turn(c.client), 0);
	BIO_shutdown_wr(SSL_get_wbio(c.client));
	assert_int_equal(turn(c.server), -1);
	assert_string_equal(tls_failure(c.server, &c.rule), "reset");
	connection_clear(&c);

	SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL); /* and trusts nobody */
	connection_init(&c, server, client);
	handshake(&c);
	assert_false(c.done);
	assert_string_equal(c.failure, "peer_alert");
	connection_clear(&c);

	connection_init(&c, server, client);
	BIO_write(SSL_get_wbio(c.client), "GET / HTTP/1.1\r\n\r\n", 18);
	assert_int_equal(turn(c.server), -1);
	assert_string_equal(tls_failure(c.server, &c.rule), "protocol");
	connection_clear(&c);
	SSL_CTX_free(client);
	tls_server_free(server);
}

static const char *server_name(struct tls_server *server, SSL_CTX *client)
{
	static char name[64];
	struct connection c;
	connection_init(&c, server, client);
	handshake(&c);
	assert_true(c.done);
	AUTO(X509_free_auto) X509 *cert = SSL_get1_peer_certificate(c.client);
	X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, sizeof(name));
	connection_clear(&c);
	return name;
}

static void test_reload(void **state)
{
	struct tls_server_options o = server_options();
	struct tls_server *server = server_with(&o);
	SSL_CTX *client = lax_client(NULL, NULL, NULL);
	struct err e;
	assert_string_equal(server_name(server, client), "first");
	write_server_files("second");
	assert_string_equal(server_name(server, client), "first");
	must(tls_server_reload(server, &e), &e);
	assert_string_equal(server_name(server, client), "second");

	unlink(key_file);
	assert_int_equal(tls_server_reload(server, &e), -1);
	assert_non_null(strstr(e.text, key_file));
	assert_string_equal(server_name(server, client), "second");
	write_server_files("first");
	assert_true(tls_server_not_after(server).ms / 1000 == (now.ms + 30 * (int64_t)DAY_MS) / 1000);
	SSL_CTX_free(client);
	tls_server_free(server);
}

static void expect_no_server(const char *named)
{
	struct tls_server_options o = server_options();
	struct tls_server *server;
	struct err e;
	assert_int_equal(tls_server_new(&o, &server, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
	if (!strstr(e.text, named))
		fail_msg("'%s' does not name %s", e.text, named);
}

static void test_bad_files(void **state)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *other = NULL;
	struct err e;
	assert_int_equal(chmod(key_file, 0644), 0);
	expect_no_server(key_file);
	must(craft_key("ec:P-256", &other, &e), &e);
	assert_int_equal(chmod(key_file, 0600), 0);
	must(craft_write_key(key_file, other, &e), &e);
	expect_no_server(key_file);
	assert_int_equal(truncate(cert_file, 100), 0);
	expect_no_server(cert_file);
	assert_int_equal(truncate(cert_file, 0), 0);
	expect_no_server(cert_file);
	unlink(cert_file);
	expect_no_server(cert_file);
	write_server_files("first");
}

/* Our client against our server: trusts the root alone, checks the name it was told, sends its certificate.
 */
static void test_client_context(void **state)
{
	static const struct {
		bool stranger;
		const char *host;
		bool done;
	} cases[] = {{false, "localhost", true}, {false, "elsewhere", false}, {true, "localhost", false}};
	struct tls_server_options o = server_options();
	struct tls_server *server = server_with(&o);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char stranger_file[96];
		struct err e;
		SSL_CTX *client;
		snprintf(stranger_file, sizeof(stranger_file), "%s/stranger.pem", directory);
		must(craft_write_cert(stranger_file, "w", stranger_root.cert, &e), &e);
		must(tls_client_context(NULL, NULL, cases[i].stranger ? stranger_file : ca_file, &client, &e),
			&e);
		struct connection c;
		connection_init(&c, server, client);
		SSL_set1_host(c.client, cases[i].host);
		handshake(&c);
		assert_true(c.done == cases[i].done);
		connection_clear(&c);
		SSL_CTX_free(client);
		unlink(stranger_file);
	}
	tls_server_free(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts),
		cmocka_unit_test(test_accepts_nobody),
		cmocka_unit_test(test_refuses_flaws),
		cmocka_unit_test(test_refuses_strangers),
		cmocka_unit_test(test_learned_issuers),
		cmocka_unit_test(test_refuses_role),
		cmocka_unit_test(test_asks_the_registry),
		cmocka_unit_test(test_refuses_tls_1_2),
		cmocka_unit_test(test_protocols),
		cmocka_unit_test(test_no_resumption),
		cmocka_unit_test(test_reset_and_peer_alert),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_client_context),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
