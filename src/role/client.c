/* client.c - see client.h. Our own verdict (tls/verify.h) checks chain, profile and role during the handshake;
 * libcurl then holds the host name against the certificate.
 *
 * A transfer runs on a multi handle, for that one can be woken up: a cancelled call ends at once. The handle
 * keeps one connection, so that after a reload the old one goes when the new one is put to rest. */
#include "role/client.h"

#include <curl/curl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "tls/openssl.h"
#include "tls/verify.h"

enum { ANSWER_BYTES = 32 * 1024 * 1024, POLL_MS = 1000 };

struct client {
	CURL *curl;
	CURLM *multi;
	struct curl_slist *headers;
	char *url, *trust_domain;
	struct verify_policy policy;
	struct buf answer;
	bool alerted;                 /* the peer has told why it ends the connection, or that it does */
	atomic_bool cancelled, stale; /* stale: files have changed since the connection was made */
	char refused[96];             /* why the peer's certificate was refused */
	char why[CURL_ERROR_SIZE];    /* what libcurl says of a failed call */
};

static int judge_peer(X509_STORE_CTX *ctx, void *arg)
{
	struct client *c = arg;
	struct verify_result result;
	struct err e = ERR_INIT;
	if (verify_context(ctx, &c->policy, &result, &e))
		return 1;
	const char *rule = result.outcome == VERIFY_ROLE ? "it is not a main server's" : result.rule;
	snprintf(c->refused, sizeof(c->refused), "%s (%s)", verify_outcome_name(result.outcome),
		rule ? rule : "");
	return 0;
}

/* Close notify is an alert, too: who says goodbye has not died. */
static void note_alert(const SSL *ssl, int where, int alert)
{
	struct client *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	(void)alert;
	if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT)
		c->alerted = true;
}

static CURLcode use_own_verdict(CURL *curl, void *ssl_ctx, void *arg)
{
	(void)curl;
	SSL_CTX_set_cert_verify_callback(ssl_ctx, judge_peer, arg);
	SSL_CTX_set_app_data(ssl_ctx, arg);
	SSL_CTX_set_info_callback(ssl_ctx, note_alert);
	return CURLE_OK;
}

static size_t take_bytes(char *bytes, size_t size, size_t n, void *arg)
{
	struct client *c = arg;
	buf_add(&c->answer, bytes, size * n);
	return c->answer.failed ? 0 : size * n;
}

/* None may be left out: a libcurl on another TLS library, for one, refuses the function that gives our own
 * verdict, and would then trust any certificate of our CA. */
static int set_options(struct client *c, const struct client_options *o, struct err *e)
{
	const CURLcode codes[] = {
		curl_easy_setopt(c->curl, CURLOPT_SSLCERT, o->cert_file),
		curl_easy_setopt(c->curl, CURLOPT_SSLKEY, o->key_file),
		curl_easy_setopt(c->curl, CURLOPT_CAINFO, o->ca_file),
		curl_easy_setopt(c->curl, CURLOPT_CAPATH, NULL),
		curl_easy_setopt(c->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3),
		curl_easy_setopt(c->curl, CURLOPT_SSL_CTX_FUNCTION, use_own_verdict),
		curl_easy_setopt(c->curl, CURLOPT_SSL_CTX_DATA, c),
		curl_easy_setopt(c->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1),
		curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "https"),
		curl_easy_setopt(c->curl, CURLOPT_PROXY, ""),
		curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L),
		curl_easy_setopt(c->curl, CURLOPT_TCP_KEEPALIVE, 1L),
		curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)o->connect_ms),
		curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers),
		curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take_bytes),
		curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c),
		curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->why),
		curl_easy_setopt(c->curl, CURLOPT_CA_CACHE_TIMEOUT, 0L),
	};
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (codes[i] != CURLE_OK)
			return err_set(e, codes[i] == CURLE_OUT_OF_MEMORY ? ERR_RETRY : ERR_FATAL,
				"libcurl refuses option %zu: %s", i, curl_easy_strerror(codes[i]));
	return 0;
}

int client_check_files(const struct client_options *o, struct wall *ret_not_after, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *chain = NULL, *anchors = NULL;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (x509_read_file(o->cert_file, &chain, e) < 0 || key_read_file(o->key_file, &key, e) < 0 ||
		x509_read_file(o->ca_file, &anchors, e) < 0)
		return -1;
	const X509 *own = sk_X509_value(chain, 0);
	if (X509_check_private_key(own, key) != 1) {
		ERR_clear_error();
		return err_set(e, ERR_FATAL, "'%s' is not the key of '%s'", o->key_file, o->cert_file);
	}
	if (!wall_of_asn1(X509_get0_notAfter(own), ret_not_after))
		return err_set(e, ERR_FATAL, "'%s': certificate without a readable end", o->cert_file);
	return 0;
}

int client_new(const struct client_options *o, struct client **ret, struct err *e)
{
	struct client *c = calloc(1, sizeof(*c));
	if (!c)
		return err_oom(e);
	buf_init(&c->answer, ANSWER_BYTES);
	c->url = strdup(o->url);
	c->trust_domain = strdup(o->trust_domain);
	c->curl = curl_easy_init();
	c->multi = curl_multi_init();
	c->headers = curl_slist_append(NULL, "Content-Type: application/json");
	struct curl_slist *no_expect = c->headers ? curl_slist_append(c->headers, "Expect:") : NULL;
	if (!c->url || !c->trust_domain || !c->curl || !c->multi || !no_expect) {
		client_free(c);
		return err_oom(e);
	}
	c->policy = (struct verify_policy){
		.trust_domain = c->trust_domain,
		.roles = ROLE_BIT(ROLE_SERVER),
		.purpose = X509_PURPOSE_SSL_SERVER,
		.clock = o->clock,
	};
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, 1L);
	if (set_options(c, o, e) < 0) {
		client_free(c);
		return -1;
	}
	*ret = c;
	return 0;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	curl_easy_cleanup(c->curl);
	curl_multi_cleanup(c->multi);
	curl_slist_free_all(c->headers);
	buf_wipe(&c->answer);
	free(c->url);
	free(c->trust_domain);
	free(c);
}

/* --- one call --- */

/* What an answer's status means to the caller. */
static int status_to_err(const struct client *c, long status, struct err *e)
{
	AUTO(json_auto) json_t *problem = NULL;
	const char *detail = NULL;
	curl_off_t retry_after_s = 0;
	if (json_read(buf_str(&c->answer), &problem, NULL) == 0)
		detail = json_string_value(json_object_get(problem, "detail"));
	enum err_kind kind = status == 401 || status == 403   ? ERR_FORBIDDEN
			     : status == 404                  ? ERR_NOT_FOUND
			     : status == 429 || status >= 500 ? ERR_RETRY
			     : status < 400                   ? ERR_RETRY /* a redirection is not followed */
							      : ERR_REJECT;
	err_set(e, kind, "%s answered %ld%s%s", c->url, status, detail ? ": " : "", detail ? detail : "");
	if (e && kind == ERR_RETRY &&
		curl_easy_getinfo(c->curl, CURLINFO_RETRY_AFTER, &retry_after_s) == CURLE_OK &&
		__builtin_mul_overflow(retry_after_s, 1000, &e->retry_after_ms))
		e->retry_after_ms = INT64_MAX;
	return -1;
}

static void prepare(
	struct client *c, const char *method, const char *url, struct str body, int64_t timeout_ms)
{
	buf_reset(&c->answer);
	c->refused[0] = c->why[0] = 0;
	c->alerted = false;
	curl_easy_setopt(c->curl, CURLOPT_URL, url);
	curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	curl_easy_setopt(c->curl, CURLOPT_FRESH_CONNECT, (long)atomic_exchange(&c->stale, false));
	/* HTTPGET undoes what a POST before left behind. */
	curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
	if (body.n) {
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body.p);
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
	}
	curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
}

/* Until the transfer is done or cancelled. */
static CURLcode transfer(struct client *c)
{
	int running = 1, left;
	CURLMcode rc = curl_multi_add_handle(c->multi, c->curl);
	while (rc == CURLM_OK && running && !atomic_load(&c->cancelled)) {
		rc = curl_multi_perform(c->multi, &running);
		if (rc == CURLM_OK && running)
			rc = curl_multi_poll(c->multi, NULL, 0, POLL_MS, NULL);
	}
	const CURLMsg *done = curl_multi_info_read(c->multi, &left);
	CURLcode code = done                        ? done->data.result
			: rc == CURLM_OK            ? CURLE_ABORTED_BY_CALLBACK
			: rc == CURLM_OUT_OF_MEMORY ? CURLE_OUT_OF_MEMORY
						    : CURLE_FAILED_INIT;
	curl_multi_remove_handle(c->multi, c->curl);
	return code;
}

/* A timeout is none: that may be the network's. */
static bool broke_off(const struct client *c, CURLcode code, size_t body_bytes)
{
	curl_off_t sent = 0;
	return (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR) && !c->alerted &&
	       curl_easy_getinfo(c->curl, CURLINFO_SIZE_UPLOAD_T, &sent) == CURLE_OK &&
	       (size_t)sent == body_bytes;
}

/* In words; what our own verdict said comes before what libcurl makes of it. */
static int transfer_failed(const struct client *c, CURLcode code, struct err *e)
{
	if (code == CURLE_ABORTED_BY_CALLBACK)
		return err_set(e, ERR_RETRY, "%s: cancelled", c->url);
	if (c->refused[0])
		return err_set(e, ERR_RETRY, "%s: its certificate is refused: %s", c->url, c->refused);
	return err_set(e, ERR_RETRY, "%s: %s", c->url, c->why[0] ? c->why : curl_easy_strerror(code));
}

int client_call(struct client *c, const char *method, const char *path, struct str body, int64_t timeout_ms,
	json_t **ret, struct err *e)
{
	AUTO(free_auto) char *url = NULL;
	if (asprintf(&url, "%s%s", c->url, path) < 0) {
		url = NULL;
		return err_oom(e);
	}
	prepare(c, method, url, body, timeout_ms);
	CURLcode code = transfer(c);
	if (code != CURLE_OK) {
		transfer_failed(c, code, e);
		if (e)
			e->unanswered = broke_off(c, code, body.n);
		return -1;
	}
	long status = 0;
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || status > 299)
		return status_to_err(c, status, e);
	/* That says nothing of the request: it must not cost a message an attempt. */
	struct err why = ERR_INIT;
	if (json_read(buf_str(&c->answer), ret, &why) < 0)
		return err_set(e, ERR_RETRY, "%s: its answer makes no sense: %s", c->url, why.text);
	return 0;
}

void client_cancel(struct client *c)
{
	atomic_store(&c->cancelled, true);
	curl_multi_wakeup(c->multi);
}

void client_reload(struct client *c)
{
	atomic_store(&c->stale, true);
}
