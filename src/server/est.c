/* est.c - enrolment over secure transport (RFC 7030, as RFC 8951 clarifies it): how a device gets its first
 * certificate with a token, and the next ones with the one before.
 *
 * Of a request only the key counts. Who the certificate is for comes from the token or from the certificate
 * shown; subject and extensions of the request are not looked at, except that a renewal must not ask for
 * another name.
 *
 * A token is consumed for the key that came with it, durably, before anything is signed: two requests at once,
 * or a crash at any point, never make two certificates of one use. A use is in the journal too before anything is
 * signed, so that no backup makes the token good again. The same token with the same key again, while
 * the token lasts, gets the certificate that was made, or has its signing made up for: so an answer that got
 * lost costs nothing, and needs no new token. */
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "crypto/enroll.h"
#include "server/internal.h"
#include "tls/certs_only.h"

enum {
	CSR_BYTES = 64 * 1024,
	SPKI_BYTES = 16 * 1024,
	CREDENTIALS_BYTES = 1024,
	NAMES_MAX = 16,
	PAGE = 500,
	MS_PER_DAY = 24 * 60 * 60 * 1000,
};

#define CERTIFIED                                                                                            \
	(ROLE_BIT(ROLE_CLIENT) | ROLE_BIT(ROLE_PROXY) | ROLE_BIT(ROLE_WORKER) | ROLE_BIT(ROLE_SERVER) |      \
		ROLE_BIT(ROLE_MONITOR) | ROLE_BIT(ROLE_ADMIN))
#define ANYONE (ROLE_BIT(ROLE_NONE) | CERTIFIED)

static const char certs_only_type[] = "application/pkcs7-mime; smime-type=certs-only";

/* --- answers --- */

/* Certificates as PKCS #7. The encoding is named for readers of RFC 7030; RFC 8951 has them ignore it. */
static void answer_certs(struct job *j, STACK_OF(X509) * certs)
{
	struct err e = ERR_INIT;
	if (certs_only_encode(certs, &j->body, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	http_set_header(j->request, "Content-Transfer-Encoding", STR("base64"));
	j->content_type = certs_only_type;
}

static void answer_der(struct job *j, struct str der)
{
	const unsigned char *at = (const unsigned char *)der.p;
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = sk_X509_new_null();
	X509 *cert = d2i_X509(NULL, &at, (long)der.n);
	struct err e = ERR_INIT;
	if (certs && cert && sk_X509_push(certs, cert)) {
		answer_certs(j, certs);
		return;
	}
	X509_free(cert);
	err_openssl(&e, ERR_FATAL, "read a certificate");
	job_fail(j, &e);
}

static void refuse(struct job *j, enum http_problem problem, const char *detail)
{
	struct err e = ERR_INIT;
	err_set(&e, ERR_REJECT, "%s", detail);
	job_fail(j, &e);
	j->has_problem = true;
	j->problem = problem;
	if (http_problem_status(problem) == 401)
		http_set_header(
			j->request, "WWW-Authenticate", STR("Basic realm=\"sealpost\", charset=\"UTF-8\""));
}

/* --- the request --- */

/* The key to certify, after the request's signature was checked; false when the job has failed. */
static bool take_csr(struct job *j, struct buf *ret_csr, struct buf *ret_spki)
{
	struct str type = http_header(j->request, STR("content-type")), media;
	struct err e = ERR_INIT;
	if (!str_cut(&type, ';', &media))
		media = type;
	if (media.n && !str_eq_nocase(str_trim(media), STR("application/pkcs10"))) {
		refuse(j, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "application/pkcs10 is expected");
		return false;
	}
	bool pem = str_starts(str_trim(j->request->body), STR("-----BEGIN"));
	if (pem)
		buf_add_str(ret_csr, j->request->body);
	else if (base64_decode(j->request->body, ret_csr, &e) < 0) {
		job_invalid(j, "", "not_base64", "a PKCS #10 request in base64 is expected");
		return false;
	}
	if (ca_csr_public_key(buf_str(ret_csr), ret_spki, &e) >= 0)
		return true;
	job_invalid(j, "", "not_acceptable", arena_strdup(j->request->arena, str_of(e.text)));
	return false;
}

/* --- enrolling with a token --- */

/* A request on its way to a certificate. */
struct enrolment {
	struct job *job;
	struct store_token token;
	struct store_token_key key;
	struct buf spki;
	char id[2 * STORE_TOKEN_ID_BYTES + 1];
};

/* Why a token is not accepted: word for metric and audit trail, and what the device's owner reads. */
static const struct {
	const char *word, *detail;
} token_faults[STORE_TOKEN_OUTCOMES] = {
	[STORE_TOKEN_USED_UP] = {"used", "this enrolment token was used already"},
	[STORE_TOKEN_EXPIRED] = {"expired", "this enrolment token has expired"},
	[STORE_TOKEN_REVOKED] = {"revoked", "this enrolment token was revoked"},
};

static void count_enrolment(const char *result)
{
	series_add(metric_series1(METRIC_ENROLLMENTS, result), 1);
}

/* In the audit trail and in the log: somebody may be trying. */
static void note_refusal(struct enrolment *n, const char *reason)
{
	struct server *s = server_of(n->job->request);
	struct server_actor actor = {"device", n->job->request->peer_address};
	char detail[96];
	struct err e = ERR_INIT;
	count_enrolment(reason);
	attempts_refused(s->attempts, actor.origin);
	log_event(LOG_WARN, "enroll.refused", LF_STR("reason", reason), LF_VIEW("name", n->token.name),
		LF_STR("token", n->id), LF_STR("address", actor.origin));
	snprintf(detail, sizeof(detail), "{\"reason\":\"%s\",\"token\":\"%s\"}", reason, n->id);
	if (server_audit(s, &actor, "client.enroll", n->token.name, "refused", str_of(detail), &e) < 0)
		log_event(LOG_ERROR, "enroll.not_audited", LF_ERR(&e));
}

static void refuse_token(struct enrolment *n, const char *word, const char *detail)
{
	char text[ERR_TEXT_BYTES];
	note_refusal(n, word);
	if (n->token.name.n)
		snprintf(text, sizeof(text), "%s; for another one: sealpost client token %.*s", detail,
			STR_ARG(n->token.name));
	else
		snprintf(text, sizeof(text), "%s", detail);
	refuse(n->job, PROBLEM_TOKEN_REFUSED, text);
}

/* The password of HTTP Basic (RFC 7617); false when there is none. The user's name is not looked at: the
 * token says whose it is. */
static bool take_secret(struct job *j, struct buf *ret)
{
	struct str header = http_header(j->request, STR("authorization"));
	struct err e = ERR_INIT;
	if (header.n < 6 || !str_eq_nocase(str_mem(header.p, 6), STR("basic ")))
		return false;
	AUTO(buf_wipe_auto) struct buf pair;
	buf_init(&pair, CREDENTIALS_BYTES);
	if (base64_decode(str_mem(header.p + 6, header.n - 6), &pair, &e) < 0)
		return false;
	struct str password = buf_str(&pair), user;
	if (!str_cut(&password, ':', &user))
		return false;
	buf_add_str(ret, password);
	return !ret->failed;
}

/* Finds the token of this secret; the comparison takes as long wherever it differs. False when the job has
 * failed. */
static bool find_token(struct enrolment *n, struct str secret)
{
	struct server *s = server_of(n->job->request);
	uint8_t hash[ENROLL_HASH_BYTES];
	struct store_token *tokens;
	unsigned count = 0;
	struct err e = ERR_INIT;
	bool whole = enroll_secret_hash(secret, hash);
	struct store_token_query query = {.id = hash, .max = 1};
	if (whole && store_read_tokens(s->store, &query, &n->job->arena, &tokens, &count, &e) < 0) {
		job_fail(n->job, &e);
		return false;
	}
	if (!count || !bytes_eq_consttime(tokens[0].hash, hash, sizeof(hash))) {
		refuse_token(n, "wrong", "this enrolment token is not known here");
		return false;
	}
	n->token = tokens[0];
	memcpy(n->key.id, hash, sizeof(n->key.id));
	hex_encode(n->key.id, sizeof(n->key.id), n->id);
	return true;
}

static bool looks_like_address(struct str s)
{
	return memchr(s.p, ':', s.n) || (s.n && s.p[s.n - 1] >= '0' && s.p[s.n - 1] <= '9');
}

/* Splits the token's names into the order's; what is left over past NAMES_MAX was refused when it was made. */
static void add_names(struct server_order *order, struct str names, struct str *dns, struct str *addresses)
{
	struct str rest = names, name;
	while (rest.n && order->dns_count + order->address_count < NAMES_MAX) {
		if (!str_cut(&rest, ',', &name)) {
			name = rest;
			rest.n = 0;
		}
		name = str_trim(name);
		if (name.n && looks_like_address(name))
			addresses[order->address_count++] = name;
		else if (name.n)
			dns[order->dns_count++] = name;
	}
	order->dns_names = dns;
	order->addresses = addresses;
}

/* A client that is suspended or gone gets nothing, and its token stays as it is. */
static bool check_client(struct enrolment *n, enum role role)
{
	struct server *s = server_of(n->job->request);
	struct store_client client;
	struct err e = ERR_INIT;
	if (role != ROLE_CLIENT)
		return true;
	if (store_read_client(s->store, n->token.name, &n->job->arena, &client, &e) < 0) {
		job_fail(n->job, &e);
		return false;
	}
	if (client.status == CLIENT_ACTIVE)
		return true;
	note_refusal(n, "refused");
	refuse(n->job, PROBLEM_FORBIDDEN,
		client.status == CLIENT_REMOVED ? "the client was removed" : "the client is suspended");
	return false;
}

/* The certificate that this key got before. */
static void repeat(struct enrolment *n, const struct store_cert_id *id)
{
	struct server *s = server_of(n->job->request);
	struct store_cert_query query = {.serial = id->serial,
		.serial_bytes = id->serial_bytes,
		.issuer_key_id = id->issuer_key_id,
		.max = 1};
	struct store_cert *cert;
	unsigned count;
	struct err e = ERR_INIT;
	if (store_read_certs(s->store, &query, &n->job->arena, &cert, &count, &e) < 0)
		job_fail(n->job, &e);
	else if (!count || cert->revoked_at.ms)
		refuse_token(n, "used", "the certificate that this enrolment token gave was revoked");
	else {
		count_enrolment("repeated");
		answer_der(n->job, cert->der);
	}
}

/* ERR_CONFLICT: the same key was here at the same time, and has its certificate. */
static int sign(struct enrolment *n, enum role role, struct err *e)
{
	struct server *s = server_of(n->job->request);
	struct str dns[NAMES_MAX], addresses[NAMES_MAX];
	char name[40];
	snprintf(name, sizeof(name), "token %s", n->id);
	struct server_actor actor = {name, n->job->request->peer_address};
	struct server_order order = {.role = role,
		.name = n->token.name,
		.domain = n->token.domain,
		.days = n->token.days,
		.public_key_der = buf_str(&n->spki),
		.token = &n->key};
	struct ca_issued issued;
	add_names(&order, n->token.names, dns, addresses);
	if (server_issue(s, &actor, &order, &issued, e) < 0)
		return -1;
	count_enrolment("issued");
	answer_der(n->job, buf_str(&issued.der));
	ca_issued_clear(&issued);
	return 0;
}

static int use_token(struct enrolment *n, struct store_token_use *use, struct err *e)
{
	use->key = n->key;
	return store_wait(server_of(n->job->request)->store, STORE_TOKEN_USE, &use->op, e);
}

/* Consumes, then signs. */
static void consume(struct enrolment *n, enum role role)
{
	struct store_token_use use;
	struct err e = ERR_INIT;
	int outcome = use_token(n, &use, &e);
	if (outcome < 0) {
		job_fail(n->job, &e);
		return;
	}
	if (outcome > STORE_TOKEN_AGAIN) {
		refuse_token(n, token_faults[outcome].word, token_faults[outcome].detail);
		return;
	}
	if (outcome == STORE_TOKEN_AGAIN && use.cert.serial_bytes) {
		repeat(n, &use.cert);
		return;
	}
	if (outcome == STORE_TOKEN_CONSUMED)
		server_note_tokens(server_of(n->job->request), &(struct store_token_query){.id = n->key.id});
	else
		log_event(LOG_WARN, "enroll.resumed", LF_VIEW("name", n->token.name), LF_STR("token", n->id));
	if (sign(n, role, &e) >= 0)
		return;
	struct err first = e;
	if (e.kind == ERR_CONFLICT && use_token(n, &use, &e) == STORE_TOKEN_AGAIN && use.cert.serial_bytes)
		repeat(n, &use.cert);
	else
		job_fail(n->job, &first);
}

static void enroll(struct enrolment *n, struct str secret)
{
	AUTO(buf_auto) struct buf csr;
	enum role role;
	buf_init(&csr, CSR_BYTES);
	if (!find_token(n, secret) || !take_csr(n->job, &csr, &n->spki))
		return;
	if (!role_parse(n->token.role, &role)) {
		struct err e = ERR_INIT;
		err_set(&e, ERR_FATAL, "a stored token has an unknown role");
		job_fail(n->job, &e);
		return;
	}
	if (!check_client(n, role))
		return;
	if (EVP_Q_digest(NULL, "SHA256", NULL, n->spki.p, n->spki.n, n->key.key_hash, NULL) != 1) {
		struct err e = ERR_INIT;
		err_openssl(&e, ERR_FATAL, "SHA-256");
		job_fail(n->job, &e);
		return;
	}
	consume(n, role);
}

static void run_enroll(struct job *j)
{
	struct server *s = server_of(j->request);
	AUTO(buf_wipe_auto) struct buf secret;
	struct enrolment n = {.job = j};
	buf_init(&secret, CREDENTIALS_BYTES);
	buf_init(&n.spki, SPKI_BYTES);
	if (!attempts_allowed(s->attempts, j->request->peer_address, s->enroll_refusals)) {
		count_enrolment("held_off");
		refuse(j, PROBLEM_TOO_MANY_REQUESTS,
			"too many refused enrolments from this address; try later");
	} else if (!take_secret(j, &secret)) {
		refuse(j, PROBLEM_AUTHENTICATION_REQUIRED,
			"the enrolment token's secret is expected as the password of HTTP Basic");
	} else {
		enroll(&n, buf_str(&secret));
	}
	buf_clear(&n.spki);
}

/* --- renewing with a certificate --- */

static void count_renewal(const char *result)
{
	series_add(metric_series1(METRIC_RENEWALS, result), 1);
}

static void refuse_renewal(struct job *j, const struct store_cert *cert, const char *reason)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	char detail[160];
	struct err e = ERR_INIT;
	count_renewal("refused");
	log_event(LOG_WARN, "renew.refused", LF_STR("reason", reason), LF_VIEW("name", cert->name),
		LF_STR("address", actor.origin));
	snprintf(detail, sizeof(detail), "{\"reason\":\"%s\"}", reason);
	if (server_audit(s, &actor, "certificate.renew", cert->name, "refused", str_of(detail), &e) < 0)
		log_event(LOG_ERROR, "renew.not_audited", LF_ERR(&e));
	refuse(j, PROBLEM_FORBIDDEN, reason);
}

/* The row of the certificate that was shown. */
static int find_shown(struct job *j, struct store_cert *ret, struct err *e)
{
	const struct identity *peer = j->request->peer;
	struct store_cert_query query = {.serial = peer->serial,
		.serial_bytes = peer->serial_bytes,
		.issuer_key_id = peer->issuer_key_id,
		.max = 1};
	struct store_cert *rows;
	unsigned count;
	if (store_read_certs(server_of(j->request)->store, &query, &j->arena, &rows, &count, e) < 0)
		return -1;
	if (!count)
		return err_set(e, ERR_FORBIDDEN, "this certificate is not registered here");
	*ret = rows[0];
	return 0;
}

static bool renews(const struct store_cert *newer, const struct store_cert *older)
{
	return newer->renews.serial_bytes == older->serial_bytes &&
	       memcmp(newer->renews.serial, older->serial, older->serial_bytes) == 0 &&
	       memcmp(newer->renews.issuer_key_id, older->issuer_key_id, STORE_KEY_ID_BYTES) == 0;
}

/* Whether nothing newer of this name and role is in anybody's hands. What renews this very certificate and was
 * never seen does not count: the answer that carried it may have been lost. */
static int is_newest(struct job *j, const struct store_cert *cert, bool *ret, struct err *e)
{
	struct store_cert_query query = {.name = cert->name, .role = cert->role, .max = PAGE};
	struct store_cert *rows = NULL;
	unsigned count = PAGE;
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, JOB_ARENA_BYTES);
	*ret = true;
	while (count == PAGE) {
		arena_reset(&arena);
		if (store_read_certs(server_of(j->request)->store, &query, &arena, &rows, &count, e) < 0)
			return -1;
		for (unsigned i = 0; i < count; i++) {
			query.after_change = rows[i].change;
			if (rows[i].issued_at.ms > cert->issued_at.ms &&
				!(renews(&rows[i], cert) && !rows[i].seen_at.ms))
				*ret = false;
		}
	}
	return 0;
}

/* A request may name nobody, or whom the certificate names (RFC 7030 section 4.2.2). */
static bool same_subject(struct str csr, struct str der)
{
	const unsigned char *at = (const unsigned char *)csr.p, *cert_at = (const unsigned char *)der.p;
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new_mem_buf(csr.p, (int)csr.n);
	AUTO(X509_free_auto) X509 *cert = d2i_X509(NULL, &cert_at, (long)der.n);
	AUTO(X509_REQ_free_auto)
	X509_REQ *req = str_starts(str_trim(csr), STR("-----BEGIN"))
				? (bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL)
				: d2i_X509_REQ(NULL, &at, (long)csr.n);
	bool same = cert && req &&
		    (X509_NAME_entry_count(X509_REQ_get_subject_name(req)) == 0 ||
			    X509_NAME_cmp(X509_REQ_get_subject_name(req), X509_get_subject_name(cert)) == 0);
	ERR_clear_error();
	return same;
}

/* As long as the one before, as far as that is still allowed. */
static int64_t days_of(const struct server *s, const struct store_cert *cert)
{
	int64_t days = (cert->not_after.ms - cert->not_before.ms + MS_PER_DAY / 2) / MS_PER_DAY;
	return days < 1 ? 1 : days > s->cert_days_max ? s->cert_days_max : days;
}

static void renew(struct job *j, const struct store_cert *old, struct str spki, bool late)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	struct server_names names;
	struct server_order order = {.name = old->name,
		.domain = old->domain,
		.days = days_of(s, old),
		.public_key_der = spki,
		.renews = server_cert_id(old),
		.while_good = true};
	struct ca_issued issued;
	struct err e = ERR_INIT;
	order.role = j->request->peer->role;
	if (server_keep_names(j, old->der, &names, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	server_order_names(&order, &names);
	if (server_issue(s, &actor, &order, &issued, &e) < 0) {
		if (e.kind == ERR_FORBIDDEN)
			refuse_renewal(j, old, "this certificate was revoked");
		else
			job_fail(j, &e);
		return;
	}
	count_renewal(late ? "late" : "issued");
	answer_der(j, buf_str(&issued.der));
	ca_issued_clear(&issued);
}

static void run_reenroll(struct job *j)
{
	AUTO(buf_auto) struct buf csr, spki;
	struct store_cert old = {.serial_bytes = 0};
	struct err e = ERR_INIT;
	bool newest = true;
	buf_init(&csr, CSR_BYTES);
	buf_init(&spki, SPKI_BYTES);
	if (!take_csr(j, &csr, &spki))
		return;
	bool late = j->request->peer->not_after.ms <= clock_wall(server_of(j->request)->clock).ms;
	if (find_shown(j, &old, &e) < 0 || (late && is_newest(j, &old, &newest, &e) < 0))
		job_fail(j, &e);
	else if (!newest)
		refuse_renewal(j, &old, "this certificate has expired, and is not the newest of its name");
	else if (!same_subject(buf_str(&csr), old.der))
		refuse_renewal(j, &old, "the request names another subject than the certificate");
	else
		renew(j, &old, buf_str(&spki), late);
}

/* --- what anyone may ask --- */

/* Every certificate that clients are to trust, and issuing ones that help them to show a whole chain. */
static void run_cacerts(struct job *j)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = NULL;
	struct err e = ERR_INIT;
	if (x509_read_pem(ca_bundle(server_of(j->request)->ca), &certs, &e) < 0)
		job_fail(j, &e);
	else
		answer_certs(j, certs);
}

/* Nothing is wanted in a request but its key (RFC 7030 section 4.5.2). */
static void get_csrattrs(struct http_request *r)
{
	http_reply(r, 204, NULL, (struct str){"", 0});
}

ADMIN_HANDLER(get_cacerts, run_cacerts)
ADMIN_HANDLER(post_enroll, run_enroll)
ADMIN_HANDLER(post_reenroll, run_reenroll)

const struct http_route est_routes[] = {
	{"GET", "/.well-known/est/cacerts", ANYONE, true, get_cacerts, "EST: the CA's certificates", 0},
	{"GET", "/.well-known/est/csrattrs", ANYONE, true, get_csrattrs, "EST: what a request has to hold",
		0},
	{"POST", "/.well-known/est/simpleenroll", ANYONE, true, post_enroll,
		"EST: the first certificate, with a token", CSR_BYTES},
	{"POST", "/.well-known/est/simplereenroll", CERTIFIED, false, post_reenroll,
		"EST: the next certificate, with the one before", CSR_BYTES, true},
	{0},
};
