/* root.h - the root's key away from the machine and back. Runs in the signer only.
 *
 * What leaves is PKCS #8, encrypted under a passphrase (scrypt, AES-256), never the plain key; nothing is removed
 * before somebody has shown a copy that opens.
 *
 * Errors: ERR_NOT_FOUND the key is not here; ERR_REJECT no passphrase, a wrong one, or another key than root.pem's.
 * Threads: one. */
#ifndef CA_ROOT_H
#define CA_ROOT_H

#include "ca/authority.h"

enum { ROOT_PASSPHRASE_BYTES_MIN = 8, ROOT_PASSPHRASE_BYTES_MAX = 1024 };

MUST_CHECK int root_export(
	const struct ca_files *f, struct str passphrase, struct buf *ret_pem, struct err *e);

/* Removes root.key, once `copy` proved to hold the same key. */
MUST_CHECK int root_remove(const struct ca_files *f, const struct authority_root_key *copy, struct err *e);

/* Puts the key back, encrypted as the others at rest. */
MUST_CHECK int root_import(const struct ca_files *f, const struct authority_root_key *copy, struct err *e);

#endif
