/* pair.h - a certificate and its private key on disk, replaced together.
 *
 * Two files cannot be replaced by one rename, but two links can: once a pair is replaced, both paths are
 * symbolic links through one other link, ".KEYFILE.live", and what is renamed is that one. So at every moment,
 * also after a crash, the two paths lead to a certificate and a key that belong together. A program that opens
 * one before and the other after sees two that do not match, and opens them again.
 *
 * Threads:  one process at a time for a pair. Blocks on disk.
 * Errors:   those of base/file.h.
 * Security: a key file keeps the mode and, where we may, the owner of the one before; a fresh one has 0600. */
#ifndef CLI_PAIR_H
#define CLI_PAIR_H

#include "base/err.h"
#include "base/str.h"

/* Where no pair is, or only half of one, it is written as two plain files, the key first. */
MUST_CHECK int pair_replace(
	const char *cert_path, const char *key_path, struct str cert_pem, struct str key_pem, struct err *e);

#endif
