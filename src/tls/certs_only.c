/* certs_only.c - see certs_only.h. */
#include "tls/certs_only.h"

#include <openssl/pkcs7.h>

enum { TEXT_BYTES = 1 << 20 };

AUTO_DEFINE(PKCS7_free, PKCS7 *)
AUTO_DEFINE(EVP_ENCODE_CTX_free, EVP_ENCODE_CTX *)

/* --- base64 --- */

int base64_encode(struct str bytes, struct buf *out, struct err *e)
{
	AUTO(EVP_ENCODE_CTX_free_auto) EVP_ENCODE_CTX *ctx = EVP_ENCODE_CTX_new();
	int n = 0, last = 0;
	char *text = buf_reserve(out, bytes.n / 48 * 65 + 67); /* 48 bytes make a line */
	if (!ctx || !text)
		return buf_check(out, e) < 0 ? -1 : err_oom(e);
	EVP_EncodeInit(ctx);
	if (!EVP_EncodeUpdate(ctx, (unsigned char *)text, &n, (const unsigned char *)bytes.p, (int)bytes.n))
		return err_openssl(e, ERR_FATAL, "base64");
	EVP_EncodeFinal(ctx, (unsigned char *)text + n, &last);
	buf_commit(out, (size_t)n + (size_t)last);
	return 0;
}

/* Appends the text without its white space. */
static void add_dense(struct str text, struct buf *out)
{
	for (size_t i = 0; i < text.n; i++)
		if (!is_blank(text.p[i]))
			buf_add_char(out, text.p[i]);
}

int base64_decode(struct str text, struct buf *out, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf dense;
	buf_init(&dense, text.n + 1);
	add_dense(text, &dense);
	char *bytes = buf_reserve(out, dense.n / 4 * 3 + 1);
	if (buf_check(&dense, e) < 0 || !bytes)
		return buf_check(out, e) < 0 ? -1 : err_oom(e);
	int n = dense.n && dense.n % 4 == 0 && dense.n < TEXT_BYTES
			? EVP_DecodeBlock(
				  (unsigned char *)bytes, (const unsigned char *)dense.p, (int)dense.n)
			: -1;
	if (n < 0)
		return err_set(e, ERR_REJECT, "this is not base64");
	size_t padding = dense.p[dense.n - 1] != '=' ? 0 : dense.p[dense.n - 2] == '=' ? 2 : 1;
	buf_commit(out, (size_t)n - padding);
	return 0;
}

/* --- PKCS #7 --- */

static int message_of(STACK_OF(X509) * certs, PKCS7 **ret, struct err *e)
{
	AUTO(PKCS7_free_auto) PKCS7 *message = PKCS7_new();
	if (!message || !PKCS7_set_type(message, NID_pkcs7_signed) ||
		!PKCS7_content_new(message, NID_pkcs7_data) || !PKCS7_set_detached(message, 1))
		return err_openssl(e, ERR_FATAL, "PKCS #7");
	for (int i = 0; i < sk_X509_num(certs); i++)
		if (!PKCS7_add_certificate(message, sk_X509_value(certs, i)))
			return err_openssl(e, ERR_FATAL, "PKCS #7");
	*ret = TAKE(message);
	return 0;
}

int certs_only_encode(STACK_OF(X509) * certs, struct buf *out, struct err *e)
{
	AUTO(PKCS7_free_auto) PKCS7 *message = NULL;
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	if (message_of(certs, &message, e) < 0)
		return -1;
	int n = i2d_PKCS7(message, &der);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "PKCS #7");
	return base64_encode(str_mem(der, (size_t)n), out, e);
}

int certs_only_decode(struct str text, STACK_OF(X509) * *ret, struct err *e)
{
	AUTO(buf_auto) struct buf der;
	buf_init(&der, TEXT_BYTES);
	if (base64_decode(text, &der, e) < 0)
		return -1;
	const unsigned char *at = (const unsigned char *)der.p;
	AUTO(PKCS7_free_auto) PKCS7 *message = d2i_PKCS7(NULL, &at, (long)der.n);
	if (!message || !PKCS7_type_is_signed(message) || !message->d.sign ||
		sk_X509_num(message->d.sign->cert) < 1) {
		ERR_clear_error();
		return err_set(e, ERR_REJECT, "this is not a PKCS #7 message with certificates");
	}
	*ret = X509_chain_up_ref(message->d.sign->cert);
	return *ret ? 0 : err_oom(e);
}

/* --- pins --- */

int x509_pin(X509 *cert, uint8_t ret[X509_PIN_BYTES], struct err *e)
{
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
	if (n < 0 || EVP_Q_digest(NULL, "SHA256", NULL, der, (size_t)n, ret, NULL) != 1)
		return err_openssl(e, ERR_FATAL, "pin of a certificate");
	return 0;
}
