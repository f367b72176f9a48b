/* context.c - see context.h.
 *
 * A server holds one SSL_CTX at a time; a reload builds a new one and swaps it, and connections keep the one
 * they started with alive by OpenSSL's own reference counts. So what the verify callback needs hangs on the
 * SSL_CTX (its policy) and on the SSL (its verdict), never on struct tls_server.
 *
 * Choices, measured with OpenSSL 3.0 on x86-64 with AES instructions (CPU of the server's side of a mutual
 * handshake with P-256 certificates, 850 us, of which our profile is 6):
 * - AES-128-GCM first: its SHA-256 key schedule costs 2 to 4 % less than the SHA-384 of AES-256. The server's
 * order counts, unless the client puts ChaCha20 first, which says that it has no AES instructions.
 * - X25519 before P-256: 9 % less.
 * - Buffers are released when idle: a resting connection holds 25 KiB in OpenSSL. */
#include "tls/context.h"

#include <openssl/err.h>
#include <pthread.h>
#include <unistd.h>

/* A leaf, its issuer and a root with RSA-4096 take 6 KB. */
enum { CLIENT_CHAIN_BYTES_MAX = 16 * 1024 };

static const char ciphersuites[] =
	"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char groups[] = "X25519:P-256:P-384";

/* Key policy and SHA-2; the PKCS #1 ones are for signatures within certificates only (RFC 8446
 * section 4.2.3). */
static const char signature_algorithms[] =
	"ECDSA+SHA256:ed25519:ECDSA+SHA384:RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512";

/* ALPN protocol names, each behind its length (RFC 7301 section 3.1), in the order that we prefer. */
static const unsigned char alpn_http2[] = "\x02h2\x08http/1.1";
static const unsigned char alpn_http1[] = "\x08http/1.1";

/* What the callbacks of one SSL_CTX need to know; owned by it. */
struct listener {
	struct verify_policy policy;
	char *trust_domain;
	bool http2;
};

struct tls_server {
	struct tls_server_options options; /* strings are ours */
	pthread_mutex_t lock;              /* guards what follows */
	SSL_CTX *ctx;
	struct wall not_after;
};

/* --- what hangs on OpenSSL's objects --- */

static pthread_once_t indexes_once = PTHREAD_ONCE_INIT;
static int listener_index, verdict_index, key_updates_index;

static void listener_free(struct listener *l)
{
	if (!l)
		return;
	free(l->trust_domain);
	free(l);
}

static void listener_release(
	void *ctx, void *listener, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
	listener_free(listener);
}

static void verdict_release(void *ssl, void *verdict, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
	free(verdict);
}

static void indexes_make(void)
{
	listener_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, listener_release);
	verdict_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, verdict_release);
	key_updates_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	ensure(listener_index >= 0 && verdict_index >= 0 && key_updates_index >= 0);
}

/* --- callbacks --- */

/* In place of X509_verify_cert. */
static int verify_client(X509_STORE_CTX *ctx, void *arg)
{
	const struct listener *listener = arg;
	SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct verify_result *verdict = SSL_get_ex_data(ssl, verdict_index);
	if (!verdict) {
		verdict = calloc(1, sizeof(*verdict));
		if (!verdict || !SSL_set_ex_data(ssl, verdict_index, verdict)) {
			free(verdict);
			X509_STORE_CTX_set_error(ctx, X509_V_ERR_OUT_OF_MEM);
			return 0;
		}
	}
	return verify_context(ctx, &listener->policy, verdict, NULL);
}

/* No protocol in common ends the handshake (RFC 7301 section 3.2). */
static int select_protocol(SSL *ssl, const unsigned char **ret, unsigned char *ret_bytes,
	const unsigned char *offered, unsigned offered_bytes, void *arg)
{
	const struct listener *listener = arg;
	const unsigned char *ours = listener->http2 ? alpn_http2 : alpn_http1;
	unsigned ours_bytes = (listener->http2 ? sizeof(alpn_http2) : sizeof(alpn_http1)) - 1;
	unsigned char *selected;
	if (SSL_select_next_proto(&selected, ret_bytes, ours, ours_bytes, offered, offered_bytes) !=
		OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*ret = selected;
	return SSL_TLSEXT_ERR_OK;
}

/* Counts the peer's KeyUpdate messages in the pointer itself. */
static void count_key_update(
	int write_p, int version, int content_type, const void *bytes, size_t n, SSL *ssl, void *arg)
{
	bool is_update = !write_p && content_type == SSL3_RT_HANDSHAKE && n &&
			 *(const unsigned char *)bytes == SSL3_MT_KEY_UPDATE;
	if (is_update)
		SSL_set_ex_data(ssl, key_updates_index, (void *)((uintptr_t)tls_key_updates(ssl) + 1));
}

/* --- building contexts --- */

/* For OpenSSL's macros, which take constant text without saying so. */
static char *unconst(const char *s)
{
	return (char *)(uintptr_t)s;
}

static int ctx_new(const SSL_METHOD *method, SSL_CTX **ret, struct err *e)
{
	AUTO(SSL_CTX_free_auto) SSL_CTX *ctx = SSL_CTX_new(method);
	if (!ctx || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
		!SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) ||
		!SSL_CTX_set_ciphersuites(ctx, ciphersuites) ||
		!SSL_CTX_set1_groups_list(ctx, unconst(groups)) ||
		!SSL_CTX_set1_sigalgs_list(ctx, unconst(signature_algorithms)))
		return err_openssl(e, ERR_FATAL, "TLS context");
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_read_ahead(ctx, 1);
	*ret = TAKE(ctx);
	return 0;
}

/* The certificate that is shown, with its chain and key; *ret_not_after: the first end among them. */
static int use_certificate(
	SSL_CTX *ctx, const char *cert_file, const char *key_file, struct wall *ret_not_after, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *chain = NULL;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (x509_read_file(cert_file, &chain, e) < 0 || key_read_file(key_file, &key, e) < 0)
		return -1;
	struct wall not_after = {INT64_MAX};
	for (int i = 0; i < sk_X509_num(chain); i++) {
		struct wall end;
		if (!wall_of_asn1(X509_get0_notAfter(sk_X509_value(chain, i)), &end))
			return err_set(e, ERR_FATAL, "'%s': certificate without a readable end", cert_file);
		not_after = end.ms < not_after.ms ? end : not_after;
	}
	AUTO(X509_free_auto) X509 *leaf = sk_X509_shift(chain);
	if (!SSL_CTX_use_cert_and_key(ctx, leaf, key, chain, 1)) {
		err_openssl(e, ERR_FATAL, "certificate and key cannot be used together");
		return err_context(e, "'%s', '%s'", cert_file, key_file);
	}
	*ret_not_after = not_after;
	return 0;
}

/* `announce` tells clients which issuers' certificates to choose from. */
static int trust(SSL_CTX *ctx, const char *ca_file, bool announce, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *authorities = NULL;
	if (x509_read_file(ca_file, &authorities, e) < 0)
		return -1;
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	for (int i = 0; i < sk_X509_num(authorities); i++) {
		X509 *authority = sk_X509_value(authorities, i);
		if (!X509_STORE_add_cert(store, authority) ||
			(announce && !SSL_CTX_add_client_CA(ctx, authority))) {
			err_openssl(e, ERR_FATAL, "trust");
			return err_context(e, "'%s'", ca_file);
		}
	}
	return 0;
}

/* Issuing CAs that were learned, for clients that show their leaf alone. They must prove themselves under a trust anchor;
 * one that is signed by itself would be such an anchor, and is left out. */
static int add_issuers(SSL_CTX *ctx, const char *issuers_file, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *issuers = NULL;
	if (access(issuers_file, F_OK) < 0)
		return 0;
	if (x509_read_file(issuers_file, &issuers, e) < 0)
		return -1;
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	for (int i = 0; i < sk_X509_num(issuers); i++) {
		X509 *issuer = sk_X509_value(issuers, i);
		if (X509_self_signed(issuer, 0) == 0 && !X509_STORE_add_cert(store, issuer)) {
			err_openssl(e, ERR_FATAL, "add an issuing CA");
			return err_context(e, "'%s'", issuers_file);
		}
	}
	return 0;
}

static int listener_new(const struct tls_server_options *o, struct listener **ret, struct err *e)
{
	struct listener *l = calloc(1, sizeof(*l));
	if (!l || (o->trust_domain && !(l->trust_domain = strdup(o->trust_domain)))) {
		free(l);
		return err_oom(e);
	}
	l->http2 = o->http2;
	l->policy = (struct verify_policy){.trust_domain = l->trust_domain,
		.roles = o->roles,
		.grace_ms = o->grace_ms,
		.purpose = X509_PURPOSE_SSL_CLIENT,
		.registry = o->registry,
		.clock = o->clock,
		.each = o->each,
		.arg = o->arg};
	*ret = l;
	return 0;
}

static int server_ctx_new(
	const struct tls_server_options *o, SSL_CTX **ret, struct wall *ret_not_after, struct err *e)
{
	AUTO(SSL_CTX_free_auto) SSL_CTX *ctx = NULL;
	if (ctx_new(TLS_server_method(), &ctx, e) < 0 ||
		use_certificate(ctx, o->cert_file, o->key_file, ret_not_after, e) < 0)
		return -1;
	struct listener *listener = NULL;
	if (listener_new(o, &listener, e) < 0)
		return -1;
	if (!SSL_CTX_set_ex_data(ctx, listener_index, listener)) {
		listener_free(listener);
		return err_oom(e);
	}
	SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_alpn_select_cb(ctx, select_protocol, listener);
	SSL_CTX_set_client_hello_cb(ctx, o->hello, o->arg);
	SSL_CTX_set_msg_callback(ctx, count_key_update);
	/* With it, one SSL_read goes on for as long as a peer sends records that hold no data. */
	SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
	if (!SSL_CTX_set_num_tickets(ctx, 0) || !SSL_CTX_set_max_early_data(ctx, 0))
		return err_openssl(e, ERR_FATAL, "TLS context");
	if (o->client_cert) {
		if (trust(ctx, o->ca_file, true, e) < 0 ||
			(o->issuers_file && add_issuers(ctx, o->issuers_file, e) < 0))
			return -1;
		SSL_CTX_set_max_cert_list(ctx, CLIENT_CHAIN_BYTES_MAX);
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
		SSL_CTX_set_cert_verify_callback(ctx, verify_client, listener);
	}
	*ret = TAKE(ctx);
	return 0;
}

int tls_client_context(
	const char *cert_file, const char *key_file, const char *ca_file, SSL_CTX **ret, struct err *e)
{
	AUTO(SSL_CTX_free_auto) SSL_CTX *ctx = NULL;
	struct wall not_after;
	if (ctx_new(TLS_client_method(), &ctx, e) < 0)
		return -1;
	if (ca_file ? trust(ctx, ca_file, false, e) < 0 : !SSL_CTX_set_default_verify_paths(ctx))
		return ca_file ? -1 : err_openssl(e, ERR_FATAL, "the system's authorities");
	if (cert_file && use_certificate(ctx, cert_file, key_file, &not_after, e) < 0)
		return -1;
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_X509_STRICT);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	*ret = TAKE(ctx);
	return 0;
}

/* --- server --- */

static bool copy_string(const char **s)
{
	*s = *s ? strdup(*s) : NULL;
	return *s;
}

/* Takes copies of the strings; false when out of memory, and then those that were copied can still be freed.
 */
static bool options_copy(struct tls_server_options *to, const struct tls_server_options *from)
{
	*to = *from;
	bool copied = copy_string(&to->cert_file);
	copied &= copy_string(&to->key_file);
	copied &= copy_string(&to->trust_domain) || !from->trust_domain;
	copied &= copy_string(&to->ca_file) || !from->ca_file;
	copied &= copy_string(&to->issuers_file) || !from->issuers_file;
	return copied;
}

/* --- rehearsal --- */

/* Takes turns until both sides are done or one has failed; true when both are done. */
static bool shake_hands(SSL *server, SSL *client)
{
	enum { TURNS = 8 };
	int server_done = 0, client_done = 0;
	for (unsigned i = 0; i < TURNS && !(server_done == 1 && client_done == 1); i++) {
		client_done = SSL_do_handshake(client);
		server_done = SSL_do_handshake(server);
	}
	ERR_clear_error();
	return server_done == 1 && client_done == 1;
}

static bool meet(SSL_CTX *server_ctx, SSL_CTX *client_ctx)
{
	AUTO(SSL_free_auto) SSL *server = SSL_new(server_ctx);
	AUTO(SSL_free_auto) SSL *client = SSL_new(client_ctx);
	BIO *server_end = NULL, *client_end = NULL;
	if (!server || !client || !BIO_new_bio_pair(&server_end, 0, &client_end, 0))
		return false;
	SSL_set_bio(server, server_end, server_end);
	SSL_set_bio(client, client_end, client_end);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
	return shake_hands(server, client);
}

/* Shakes hands with itself, first as a client without a certificate and then with one, which is ours and therefore
 * refused after it was looked at. What cannot work is found out at start; and OpenSSL has by then made what it makes at
 * first use. Where memory runs out while it does that, OpenSSL 3.0 goes without for as long as the process lives. */
static int rehearse(const struct tls_server_options *o, struct err *e)
{
	struct tls_server_options quiet = *o;
	quiet.hello = NULL;
	quiet.each = NULL;
	struct wall not_after;
	AUTO(SSL_CTX_free_auto) SSL_CTX *server = NULL;
	AUTO(SSL_CTX_free_auto) SSL_CTX *client = NULL;
	if (server_ctx_new(&quiet, &server, &not_after, e) < 0 ||
		ctx_new(TLS_client_method(), &client, e) < 0)
		return -1;
	if (!meet(server, client))
		return err_set(e, ERR_FATAL, "no TLS handshake is possible with '%s'", o->cert_file);
	if (!o->client_cert)
		return 0;
	if (use_certificate(client, o->cert_file, o->key_file, &not_after, e) < 0)
		return -1;
	(void)meet(server, client);
	return 0;
}

int tls_server_new(const struct tls_server_options *o, struct tls_server **ret, struct err *e)
{
	require(o->cert_file && o->key_file && o->clock && (o->ca_file || !o->client_cert));
	pthread_once(&indexes_once, indexes_make);
	struct tls_server *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	pthread_mutex_init(&s->lock, NULL);
	if (!options_copy(&s->options, o)) {
		tls_server_free(s);
		return err_oom(e);
	}
	if (rehearse(&s->options, e) < 0 || server_ctx_new(&s->options, &s->ctx, &s->not_after, e) < 0) {
		tls_server_free(s);
		return -1;
	}
	*ret = s;
	return 0;
}

void tls_server_free(struct tls_server *s)
{
	if (!s)
		return;
	SSL_CTX_free(s->ctx);
	free(unconst(s->options.cert_file));
	free(unconst(s->options.key_file));
	free(unconst(s->options.ca_file));
	free(unconst(s->options.issuers_file));
	free(unconst(s->options.trust_domain));
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int tls_server_reload(struct tls_server *s, struct err *e)
{
	SSL_CTX *ctx = NULL;
	struct wall not_after = {0};
	if (server_ctx_new(&s->options, &ctx, &not_after, e) < 0)
		return -1;
	pthread_mutex_lock(&s->lock);
	SSL_CTX *old = s->ctx;
	s->ctx = ctx;
	s->not_after = not_after;
	pthread_mutex_unlock(&s->lock);
	SSL_CTX_free(old);
	return 0;
}

SSL *tls_server_accept(struct tls_server *s)
{
	pthread_mutex_lock(&s->lock);
	SSL_CTX *ctx = s->ctx;
	SSL_CTX_up_ref(ctx);
	pthread_mutex_unlock(&s->lock);
	SSL *ssl = SSL_new(ctx);
	SSL_CTX_free(ctx);
	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
}

struct wall tls_server_not_after(const struct tls_server *const_s)
{
	struct tls_server *s = (struct tls_server *)(uintptr_t)const_s;
	pthread_mutex_lock(&s->lock);
	struct wall not_after = s->not_after;
	pthread_mutex_unlock(&s->lock);
	return not_after;
}

/* --- after the handshake --- */

const struct identity *tls_peer(const SSL *ssl)
{
	static const struct identity nobody = {.role = ROLE_NONE};
	const struct verify_result *verdict = SSL_get_ex_data(ssl, verdict_index);
	return verdict && verdict->outcome == VERIFY_ACCEPTED ? &verdict->identity : &nobody;
}

const struct verify_result *tls_verdict(const SSL *ssl)
{
	return SSL_get_ex_data(ssl, verdict_index);
}

uint64_t tls_key_updates(const SSL *ssl)
{
	return (uintptr_t)SSL_get_ex_data(ssl, key_updates_index);
}

/* A failure that is not about the client's certificate, by OpenSSL's first complaint (0: none, the socket).
 */
static const char *transport_failure(unsigned long code)
{
	bool of_ssl = ERR_GET_LIB(code) == ERR_LIB_SSL;
	if (code == 0 || ERR_SYSTEM_ERROR(code) ||
		(of_ssl && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING))
		return "reset";
	return of_ssl && ERR_GET_REASON(code) >= SSL_AD_REASON_OFFSET ? "peer_alert" : "protocol";
}

const char *tls_failure(const SSL *ssl, const char **ret_rule)
{
	const struct verify_result *verdict = SSL_get_ex_data(ssl, verdict_index);
	unsigned long code = ERR_peek_error();
	const char *reason = ERR_reason_error_string(code);
	ERR_clear_error();
	if (verdict && verdict->outcome != VERIFY_ACCEPTED) {
		*ret_rule = verdict->rule;
		return verify_outcome_name(verdict->outcome);
	}
	*ret_rule = reason ? reason : "connection closed";
	return transport_failure(code);
}
