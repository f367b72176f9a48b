/* pkcs12.h - certificate, key and issuers in one file that a password protects (RFC 7292), for programs and people that
 * want a single file.
 *
 * Key and certificates are encrypted by AES-256 under PBKDF2 with HMAC-SHA-256, which OpenSSL, browsers, Java and
 * Windows read.
 *
 * Errors: ERR_FATAL; ERR_REJECT for a password that is not UTF-8. Security: wipe the result's key and password at the
 * caller's. */
#ifndef CLI_PKCS12_H
#define CLI_PKCS12_H

#include "base/buf.h"

struct pkcs12_contents {
	const char *name;             /* what programs show the key as */
	struct str key_pem;           /* not encrypted */
	struct str chain_pem, ca_pem; /* the leaf and its issuer; who else is trusted, doubles are left out */
};

/* `password` ends with a zero byte that its length does not count. */
MUST_CHECK int pkcs12_make(
	const struct pkcs12_contents *contents, struct str password, struct buf *ret_der, struct err *e);

#endif
