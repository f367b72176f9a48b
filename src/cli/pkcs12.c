/* pkcs12.c - see pkcs12.h. */
#include "cli/pkcs12.h"

#include <openssl/pem.h>
#include <openssl/pkcs12.h>

#include "tls/openssl.h"

AUTO_DEFINE(PKCS12_free, PKCS12 *)

/* What OWASP asks of PBKDF2 with HMAC-SHA-256. */
enum { ITERATIONS = 600000 };

static bool contains(STACK_OF(X509) * certs, const X509 *cert)
{
	for (int i = 0; i < sk_X509_num(certs); i++)
		if (X509_cmp(sk_X509_value(certs, i), cert) == 0)
			return true;
	return false;
}

/* Adds those that are not there yet. */
static int add_certs(struct str pem, STACK_OF(X509) * certs, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *more = NULL;
	if (x509_read_pem(pem, &more, e) < 0)
		return -1;
	for (X509 *cert; (cert = sk_X509_shift(more)) != NULL;)
		if (contains(certs, cert) || !sk_X509_push(certs, cert))
			X509_free(cert);
	return 0;
}

static int read_key(struct str pem, EVP_PKEY **ret, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *in = BIO_new_mem_buf(pem.p, (int)pem.n);
	*ret = in ? PEM_read_bio_PrivateKey(in, NULL, NULL, NULL) : NULL;
	return *ret ? 0 : err_openssl(e, ERR_FATAL, "read the private key");
}

static int add_der(PKCS12 *made, struct buf *out, struct err *e)
{
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	int n = i2d_PKCS12(made, &der);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "write PKCS #12");
	buf_add(out, der, (size_t)n);
	return buf_check(out, e);
}

int pkcs12_make(
	const struct pkcs12_contents *contents, struct str password, struct buf *ret_der, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = sk_X509_new_null();
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (!utf8_valid(password, NULL))
		return err_set(e, ERR_REJECT, "the password must be valid UTF-8");
	if (!certs)
		return err_oom(e);
	if (add_certs(contents->chain_pem, certs, e) < 0 || add_certs(contents->ca_pem, certs, e) < 0 ||
		read_key(contents->key_pem, &key, e) < 0)
		return -1;
	AUTO(X509_free_auto) X509 *leaf = sk_X509_shift(certs);
	AUTO(PKCS12_free_auto)
	PKCS12 *made =
		PKCS12_create(password.p, contents->name, key, leaf, certs, 0, 0, ITERATIONS, ITERATIONS, 0);
	return made ? add_der(made, ret_der, e) : err_openssl(e, ERR_FATAL, "make PKCS #12");
}
