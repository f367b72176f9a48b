/* enroll.h - the token with which a device fetches its first certificate: "sealpost-enroll:" and base64url
 * (RFC 4648 section 5) of a JSON object.
 *
 *	{"v":1,"url":"https://HOST:8000","pin":64 hex digits,"name":"client_001","send":"https://HOST:8001","secret":…}
 *
 * It carries where to go, how to know that this is the right place (SHA-256 of the root's public key), and a
 * secret of 256 random bits. The main server keeps the secret's hash only: a secret that cannot be guessed
 * needs no slow hash.
 *
 * Threads:  none of its own. Errors: ERR_REJECT for a text that is no such token; it is not quoted.
 * Security: whoever has the token can get the certificate: wipe it (buf_wipe), log none of it but the id. */
#ifndef CRYPTO_ENROLL_H
#define CRYPTO_ENROLL_H

#include "base/buf.h"
#include "base/err.h"

enum {
	ENROLL_PIN_BYTES = 32,
	ENROLL_HASH_BYTES = 32,
	ENROLL_ID_BYTES = 8, /* the first of the hash: names a token in lists, and is no secret */
	ENROLL_SECRET_CHARS = 43,
	ENROLL_URL_BYTES = 512,
	ENROLL_NAME_BYTES = 65,
	ENROLL_TOKEN_BYTES = 4096,
};

struct enroll_token {
	char url[ENROLL_URL_BYTES];  /* of the main server */
	char send[ENROLL_URL_BYTES]; /* where messages go; empty: not known */
	char name[ENROLL_NAME_BYTES];
	uint8_t pin[ENROLL_PIN_BYTES];
	char secret[ENROLL_SECRET_CHARS + 1];
};

/* A fresh secret: base64url of 32 random bytes. */
MUST_CHECK int enroll_secret_new(char ret[ENROLL_SECRET_CHARS + 1], struct err *e);

/* False for what cannot be a secret. */
MUST_CHECK bool enroll_secret_hash(struct str secret, uint8_t ret[ENROLL_HASH_BYTES]);

MUST_CHECK int enroll_token_write(const struct enroll_token *token, struct buf *out, struct err *e);
MUST_CHECK int enroll_token_read(struct str text, struct enroll_token *ret, struct err *e);

#endif
