/* openssl.h - OpenSSL's objects in our habits: cleanup by scope, errors as struct err.
 * Threads: none of its own; OpenSSL's error queue is per thread. */
#ifndef TLS_OPENSSL_H
#define TLS_OPENSSL_H

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

/* Appends "what: oldest reason: …: newest reason" and empties OpenSSL's error queue. Returns -1. */
int err_openssl(struct err *e, enum err_kind kind, const char *what);

/* RFC 8446 section 6, also for the alerts of TLS 1.3 that OpenSSL 3.0 has no words for. */
const char *tls_alert_name(int alert);

/* False when the text is not a time. */
MUST_CHECK bool wall_of_asn1(const ASN1_TIME *t, struct wall *ret);

/* The certificates of a PEM file, in its order, at least one; others than certificates are skipped.
 * ERR_FATAL with the path. Free with x509_stack_free. */
MUST_CHECK int x509_read_file(const char *path, STACK_OF(X509) * *ret, struct err *e);

/* The same from memory, however many. ERR_REJECT. */
MUST_CHECK int x509_read_pem(struct str pem, STACK_OF(X509) * *ret, struct err *e);

/* Appends the certificate as PEM. */
MUST_CHECK int x509_write_pem(X509 *cert, struct buf *out, struct err *e);

/* The private key of a PEM file that only its owner may read (a file of root's: also its group), not
 * encrypted. ERR_FATAL with the path. */
MUST_CHECK int key_read_file(const char *path, EVP_PKEY **ret, struct err *e);

/* Opens a regular file for reading; a `secret` one must have such a mode. */
MUST_CHECK int bio_open_file(const char *path, bool secret, BIO **ret, struct err *e);

/* Contents of a string type, not copied. */
static inline struct str str_of_asn1(const ASN1_STRING *s)
{
	return str_mem(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

/* What was written into a memory BIO, not copied. */
struct str str_of_bio(BIO *bio);

static inline void x509_stack_free(STACK_OF(X509) * chain)
{
	sk_X509_pop_free(chain, X509_free);
}

static inline void openssl_free_auto(void *pp)
{
	OPENSSL_free(*(void **)pp);
}

AUTO_DEFINE(ASN1_BIT_STRING_free, ASN1_BIT_STRING *)
AUTO_DEFINE(ASN1_INTEGER_free, ASN1_INTEGER *)
AUTO_DEFINE(ASN1_OCTET_STRING_free, ASN1_OCTET_STRING *)
AUTO_DEFINE(ASN1_TIME_free, ASN1_TIME *)
AUTO_DEFINE(AUTHORITY_INFO_ACCESS_free, AUTHORITY_INFO_ACCESS *)
AUTO_DEFINE(AUTHORITY_KEYID_free, AUTHORITY_KEYID *)
AUTO_DEFINE(BASIC_CONSTRAINTS_free, BASIC_CONSTRAINTS *)
AUTO_DEFINE(BIO_free_all, BIO *)
AUTO_DEFINE(BN_free, BIGNUM *)
AUTO_DEFINE(CRL_DIST_POINTS_free, CRL_DIST_POINTS *)
AUTO_DEFINE(EVP_PKEY_free, EVP_PKEY *)
AUTO_DEFINE(EVP_PKEY_CTX_free, EVP_PKEY_CTX *)
AUTO_DEFINE(EXTENDED_KEY_USAGE_free, EXTENDED_KEY_USAGE *)
AUTO_DEFINE(GENERAL_NAMES_free, GENERAL_NAMES *)
AUTO_DEFINE(SSL_free, SSL *)
AUTO_DEFINE(SSL_CTX_free, SSL_CTX *)
AUTO_DEFINE(X509_free, X509 *)
AUTO_DEFINE(X509_CRL_free, X509_CRL *)
AUTO_DEFINE(X509_NAME_free, X509_NAME *)
AUTO_DEFINE(X509_REQ_free, X509_REQ *)
AUTO_DEFINE(X509_STORE_free, X509_STORE *)
AUTO_DEFINE(X509_STORE_CTX_free, X509_STORE_CTX *)
AUTO_DEFINE(x509_stack_free, STACK_OF(X509) *)

#endif
