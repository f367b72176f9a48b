/* certs_only.h - certificates as EST hands them out (RFC 7030 section 4.1.3): a degenerate PKCS #7 message
 * with certificates and nothing signed, in base64; and the pin by which a root is known before it is trusted.
 *
 * Threads: none of its own. Errors: ERR_REJECT for what was read, ERR_FATAL for OpenSSL. */
#ifndef TLS_CERTS_ONLY_H
#define TLS_CERTS_ONLY_H

#include "base/buf.h"
#include "tls/openssl.h"

/* Base64 in lines of 64 characters: some readers want lines, none minds them (RFC 8951 section 3.1). */
MUST_CHECK int base64_encode(struct str bytes, struct buf *out, struct err *e);

/* White space anywhere is skipped. Into an empty buffer. */
MUST_CHECK int base64_decode(struct str text, struct buf *out, struct err *e);

MUST_CHECK int certs_only_encode(STACK_OF(X509) * certs, struct buf *out, struct err *e);

/* At least one certificate. Free with x509_stack_free. */
MUST_CHECK int certs_only_decode(struct str text, STACK_OF(X509) * *ret, struct err *e);

/* SHA-256 of the SubjectPublicKeyInfo: of a root, what a device is told before it ever connects. It stays when
 * the root's certificate is made anew with the same key. */
enum { X509_PIN_BYTES = 32 };
MUST_CHECK int x509_pin(X509 *cert, uint8_t ret[X509_PIN_BYTES], struct err *e);

#endif
