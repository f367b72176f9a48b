/* est.c - see est.h. */
#include "cli/est.h"

#include <openssl/pem.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/https.h"
#include "tls/certs_only.h"

enum { REQUEST_BYTES = 64 * 1024, PATH_BYTES = 64 };

/* --- requests --- */

static int csr_make(EVP_PKEY *key, const X509_NAME *subject, X509_REQ **ret, struct err *e)
{
	AUTO(X509_REQ_free_auto) X509_REQ *req = X509_REQ_new();
	/* Ed25519 brings its own digest. */
	const EVP_MD *digest = EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();
	if (!req || !X509_REQ_set_version(req, X509_REQ_VERSION_1) || !X509_REQ_set_pubkey(req, key) ||
		!X509_REQ_set_subject_name(req, subject) || !X509_REQ_sign(req, key, digest))
		return err_openssl(e, ERR_FATAL, "certificate request");
	*ret = TAKE(req);
	return 0;
}

static int csr_base64(EVP_PKEY *key, const X509_NAME *subject, struct buf *out, struct err *e)
{
	AUTO(X509_REQ_free_auto) X509_REQ *req = NULL;
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	if (csr_make(key, subject, &req, e) < 0)
		return -1;
	int n = i2d_X509_REQ(req, &der);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "certificate request");
	return base64_encode(str_mem(der, (size_t)n), out, e);
}

/* --- one exchange --- */

/* The server's words for a person: control characters would reach the terminal. */
static void clean(char *text)
{
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';
}

/* What a status other than 200 means; the detail of the problem, if it is one, says more. */
static int answer_error(const char *url, int status, struct str body, struct err *e)
{
	static const struct {
		int status;
		enum err_kind kind;
	} kinds[] = {{401, ERR_FORBIDDEN}, {403, ERR_FORBIDDEN}, {404, ERR_NOT_FOUND}, {429, ERR_RETRY},
		{500, ERR_RETRY}, {502, ERR_RETRY}, {503, ERR_RETRY}, {504, ERR_RETRY}};
	enum err_kind kind = ERR_REJECT;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].status == status)
			kind = kinds[i].kind;
	AUTO(json_auto) json_t *problem = NULL;
	struct err none = ERR_INIT;
	if (json_read(body, &problem, &none) < 0)
		return err_set(e, kind, "%s answered with status %d", url, status);
	const char *detail = json_string_value(json_object_get(problem, "detail"));
	const char *title = json_string_value(json_object_get(problem, "title"));
	err_set(e, kind, "%s refused: %s (%d)", url,
		detail  ? detail
		: title ? title
			: "no reason given",
		status);
	clean(e->text);
	return -1;
}

static struct curl_slist *set_request(CURL *curl, const struct est_peer *peer, struct str csr)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Accept: application/pkcs7-mime");
	if (csr.n) {
		struct curl_slist *more = curl_slist_append(headers, "Content-Type: application/pkcs10");
		headers = more ? more : headers;
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)csr.n);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, csr.p);
	}
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	if (peer->secret) {
		curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(curl, CURLOPT_USERNAME, peer->user);
		curl_easy_setopt(curl, CURLOPT_PASSWORD, peer->secret);
	}
	return headers;
}

static void set_trust(CURL *curl, const struct est_peer *peer)
{
	struct curl_blob anchors = {(void *)(uintptr_t)peer->anchors.p, peer->anchors.n, CURL_BLOB_COPY};
	curl_easy_setopt(curl, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, peer->anchors.n ? 1L : 0L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, peer->anchors.n ? 2L : 0L);
	if (peer->anchors.n)
		curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &anchors);
}

static int exchange(
	const struct est_peer *peer, const char *operation, struct str csr, struct buf *answer, struct err *e)
{
	struct https_options https = {
		.url = peer->url, .cert = peer->cert, .key = peer->key, .timeout_ms = peer->timeout_ms};
	struct https_failure failure;
	CURL *curl = NULL;
	char path[PATH_BYTES];
	long status = 0;
	snprintf(path, sizeof(path), "/.well-known/est/%s", operation);
	if (https_handle(&https, path, answer, &failure, &curl, e) < 0)
		return -1;
	set_trust(curl, peer);
	struct curl_slist *headers = set_request(curl, peer, csr);
	CURLcode code = headers ? curl_easy_perform(curl) : CURLE_OUT_OF_MEMORY;
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(curl);
	curl_slist_free_all(headers);
	if (code != CURLE_OK)
		return https_error(code, &failure, peer->url, e);
	return status == 200 ? 0 : answer_error(peer->url, (int)status, buf_str(answer), e);
}

int est_cacerts(const struct est_peer *peer, STACK_OF(X509) * *ret, struct err *e)
{
	AUTO(buf_auto) struct buf answer;
	buf_init(&answer, HTTPS_ANSWER_BYTES);
	if (exchange(peer, "cacerts", (struct str){"", 0}, &answer, e) < 0)
		return -1;
	return certs_only_decode(buf_str(&answer), ret, e) < 0 ? err_context(e, "%s", peer->url) : 0;
}

int est_enroll(const struct est_peer *peer, const char *path, EVP_PKEY *key, const X509_NAME *subject,
	X509 **ret, struct err *e)
{
	AUTO(buf_auto) struct buf csr, answer;
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = NULL;
	require(peer->anchors.n);
	buf_init(&csr, REQUEST_BYTES);
	buf_init(&answer, HTTPS_ANSWER_BYTES);
	if (csr_base64(key, subject, &csr, e) < 0 || exchange(peer, path, buf_str(&csr), &answer, e) < 0)
		return -1;
	if (certs_only_decode(buf_str(&answer), &certs, e) < 0)
		return err_context(e, "%s", peer->url);
	for (int i = 0; i < sk_X509_num(certs); i++)
		if (EVP_PKEY_eq(X509_get0_pubkey(sk_X509_value(certs, i)), key) == 1) {
			*ret = sk_X509_value(certs, i);
			return X509_up_ref(*ret) ? 0 : err_oom(e);
		}
	return err_set(e, ERR_REJECT, "%s answered with a certificate for another key", peer->url);
}

/* --- whom to trust --- */

static bool is_root(X509 *cert)
{
	return X509_self_signed(cert, 1) == 1;
}

static bool is_among(X509 *cert, STACK_OF(X509) * all)
{
	for (int i = 0; i < sk_X509_num(all); i++)
		if (X509_cmp(cert, sk_X509_value(all, i)) == 0)
			return true;
	return false;
}

static bool is_vouched_for(X509 *cert, STACK_OF(X509) * roots)
{
	bool held = false;
	for (int i = 0; i < sk_X509_num(roots) && !held; i++) {
		X509 *root = sk_X509_value(roots, i);
		held = is_root(root) && X509_check_issued(root, cert) == X509_V_OK &&
		       X509_verify(cert, X509_get0_pubkey(root)) == 1;
	}
	ERR_clear_error();
	return held;
}

int est_trusted(STACK_OF(X509) * from, STACK_OF(X509) * roots, struct buf *ret_pem, struct err *e)
{
	bool any = false;
	for (int i = 0; i < sk_X509_num(from); i++) {
		X509 *cert = sk_X509_value(from, i);
		if (!is_root(cert) || !is_among(cert, roots))
			continue;
		any = true;
		if (x509_write_pem(cert, ret_pem, e) < 0)
			return -1;
	}
	if (!any)
		return err_set(
			e, ERR_FORBIDDEN, "the server's authority is not the one that is trusted here");
	for (int i = 0; i < sk_X509_num(from); i++) {
		X509 *cert = sk_X509_value(from, i);
		if (!is_root(cert) && is_vouched_for(cert, roots) && x509_write_pem(cert, ret_pem, e) < 0)
			return -1;
	}
	return 0;
}

static X509 *issuer_of(X509 *leaf, STACK_OF(X509) * authorities)
{
	for (int i = 0; i < sk_X509_num(authorities); i++) {
		X509 *cert = sk_X509_value(authorities, i);
		if (!is_root(cert) && X509_check_issued(cert, leaf) == X509_V_OK &&
			X509_verify(leaf, X509_get0_pubkey(cert)) == 1)
			return cert;
	}
	ERR_clear_error();
	return NULL;
}

int est_chain(X509 *leaf, STACK_OF(X509) * authorities, struct buf *ret_pem, struct err *e)
{
	X509 *issuer = issuer_of(leaf, authorities);
	if (!issuer || !is_vouched_for(issuer, authorities))
		return err_set(e, ERR_FORBIDDEN,
			"the certificate in the answer is not by the authority that is trusted here");
	return x509_write_pem(leaf, ret_pem, e) < 0 ? -1 : x509_write_pem(issuer, ret_pem, e);
}

int est_key_read(struct str pem, EVP_PKEY **ret, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	*ret = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
	return *ret ? 0 : err_openssl(e, ERR_REJECT, "private key");
}
