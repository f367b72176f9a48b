/* https.c - see https.h. In TLS 1.3 a server judges the client's certificate after the client is done with
 * its handshake, so a refusal reaches libcurl as a failed read, whose error is the same as for a cable that
 * was cut. An info callback on OpenSSL's context sees the alert itself. */
#include "cli/https.h"

#include <openssl/ssl.h>
#include <string.h>

#include "base/auto.h"
#include "tls/context.h"
#include "tls/openssl.h"

static int failure_index(void)
{
	static int index = -1;
	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return index;
}

static void on_info(const SSL *ssl, int where, int value)
{
	struct https_failure *failure = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), failure_index());
	if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT && value >> 8 == SSL3_AL_FATAL)
		failure->alert = value & 0xff;
}

static CURLcode on_context(CURL *curl, void *context, void *failure)
{
	SSL_CTX_set_info_callback(context, on_info);
	return SSL_CTX_set_ex_data(context, failure_index(), failure) ? CURLE_OK : CURLE_OUT_OF_MEMORY;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *answer)
{
	struct err e;
	buf_add(answer, bytes, n);
	return buf_check(answer, &e) < 0 ? CURL_WRITEFUNC_ERROR : n;
}

int https_check(const struct https_options *o, struct err *e)
{
	SSL_CTX *context;
	if (tls_client_context(o->cert, o->key, o->ca, &context, e) < 0)
		return -1;
	SSL_CTX_free(context);
	return 0;
}

static int set_url(CURL *curl, const char *base, const char *path, struct err *e)
{
	AUTO(free_auto) char *url = NULL;
	size_t n = strlen(base);
	while (n && base[n - 1] == '/')
		n--;
	if (asprintf(&url, "%.*s%s", (int)n, base, path) < 0) {
		url = NULL;
		return err_oom(e);
	}
	return curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK ? 0 : err_oom(e);
}

static void set_options(
	CURL *curl, const struct https_options *o, struct buf *answer, struct https_failure *failure)
{
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, o->plain ? "http,https" : "https");
	curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_3);
	curl_easy_setopt(curl, CURLOPT_SSLCERT, o->cert);
	curl_easy_setopt(curl, CURLOPT_SSLKEY, o->key);
	curl_easy_setopt(curl, CURLOPT_CAINFO, o->ca);
	curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(curl, CURLOPT_SSL_CTX_FUNCTION, on_context);
	curl_easy_setopt(curl, CURLOPT_SSL_CTX_DATA, failure);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, failure->text);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, o->timeout_ms);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, o->timeout_ms);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "sealpost");
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
}

int https_handle(const struct https_options *o, const char *path, struct buf *answer,
	struct https_failure *failure, CURL **ret, struct err *e)
{
	CURL *curl = curl_easy_init();
	if (!curl)
		return err_oom(e);
	*failure = (struct https_failure){.alert = -1};
	set_options(curl, o, answer, failure);
	if (set_url(curl, o->url, path, e) < 0) {
		curl_easy_cleanup(curl);
		return -1;
	}
	*ret = curl;
	return 0;
}

static const struct {
	CURLcode code;
	enum err_kind kind;
} kinds[] = {
	{CURLE_COULDNT_RESOLVE_HOST, ERR_RETRY},
	{CURLE_COULDNT_CONNECT, ERR_RETRY},
	{CURLE_OPERATION_TIMEDOUT, ERR_RETRY},
	{CURLE_SEND_ERROR, ERR_RETRY},
	{CURLE_RECV_ERROR, ERR_RETRY},
	{CURLE_SSL_CONNECT_ERROR, ERR_RETRY}, /* without an alert: cut, as by a server that restarts */
	{CURLE_GOT_NOTHING, ERR_RETRY},
	{CURLE_PARTIAL_FILE, ERR_RETRY},
	{CURLE_OUT_OF_MEMORY, ERR_RETRY},
	{CURLE_PEER_FAILED_VERIFICATION, ERR_FORBIDDEN},
};

int https_error(CURLcode code, const struct https_failure *failure, const char *url, struct err *e)
{
	enum err_kind kind = ERR_REJECT;
	if (failure->alert >= 0)
		return err_set(e, ERR_FORBIDDEN, "%s refused the connection: TLS alert '%s'", url,
			tls_alert_name(failure->alert));
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].code == code)
			kind = kinds[i].kind;
	return err_set(e, kind, "%s: %s%s", url, *failure->text ? failure->text : curl_easy_strerror(code),
		code == CURLE_SSL_CONNECT_ERROR ? "; 'sealpost tls check' tells more" : "");
}

int https_get(
	const struct https_options *o, const char *path, int *ret_status, struct buf *answer, struct err *e)
{
	struct https_failure failure = {.alert = -1};
	CURL *curl = NULL;
	long status = 0;
	if (https_handle(o, path, answer, &failure, &curl, e) < 0)
		return -1;
	CURLcode code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(curl);
	if (code != CURLE_OK)
		return https_error(code, &failure, o->url, e);
	*ret_status = (int)status;
	return 0;
}
