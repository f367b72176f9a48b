/* key.h - private keys: making them, and keeping them in files.
 *
 * A key file is PKCS#8 in PEM, 0600; with a passphrase it is encrypted (PBES2, RFC 8018: scrypt,
 * AES-256-CBC).
 *
 * Errors:   ERR_REJECT unknown key type, ERR_NOT_FOUND no such file, ERR_FATAL unreadable or wrong
 * passphrase. Threads:  none of its own. Security: keys and passphrases are wiped by whoever holds them:
 * EVP_PKEY_free, buf_wipe. */
#ifndef CA_KEY_H
#define CA_KEY_H

#include "base/buf.h"
#include "tls/openssl.h"

/* One of the types of ca_generate_key. */
MUST_CHECK int key_generate(struct str type, EVP_PKEY **ret, struct err *e);

/* From the first line of a file that only its owner may read. While it is being changed, its second line may hold the
 * one before, which goes to *ret_older; NULL: not wanted. */
MUST_CHECK int passphrase_read(const char *path, struct buf *ret, struct buf *ret_older, struct err *e);

/* An empty passphrase: not encrypted. */
MUST_CHECK int key_save(const char *path, EVP_PKEY *key, struct str passphrase, struct err *e);
MUST_CHECK int key_load(const char *path, struct str passphrase, EVP_PKEY **ret, struct err *e);

/* The same in memory; a key that cannot be read is ERR_REJECT here. */
MUST_CHECK int key_write_pem(EVP_PKEY *key, struct str passphrase, struct buf *out, struct err *e);
MUST_CHECK int key_read_pem(struct str pem, struct str passphrase, EVP_PKEY **ret, struct err *e);

#endif
