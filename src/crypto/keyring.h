/* keyring.h - the main server's sealing keys and index key, on disk.
 *
 * A directory (0700) with one file per key, 0600, replaced atomically (write, fsync, rename, fsync of the
 * directory):
 *   sealing-<key id>.key   X25519 private key: proxies get the newest to seal with, all of them open
 *   index.key              32 bytes for the blind index
 * A key id is the first 8 bytes of SHA-256 over the public key. File format: doc/protocol.md.
 *
 * Errors:    ERR_FATAL, with the file's name, for a key file that is damaged, misnamed or open to others, for
 *            a directory without keys, and for one whose index key is gone while sealing keys are there (a
 *            new one would not find the old rows). ERR_NOT_FOUND when the directory does not exist.
 * Threads:   immutable after load, any thread may read; a reload makes a new one.
 * Security:  private keys are wiped on free and appear in no error or log. Only the main server has them: a
 *            proxy gets struct sealing_public. */
#ifndef CRYPTO_KEYRING_H
#define CRYPTO_KEYRING_H

#include "base/clock.h"
#include "base/err.h"
#include "crypto/hpke.h"
#include "message/sealed.h"

struct sealing_public {
	uint8_t key_id[ENVELOPE_KEY_ID_BYTES];
	uint8_t public_key[HPKE_KEY_BYTES];
};

struct keyring;

/* Makes the directory and what is missing in it: a sealing key, an index key. Safe to repeat. */
MUST_CHECK int keyring_init(const char *dir, const struct clock *clock, struct err *e);
MUST_CHECK int keyring_load(const char *dir, struct keyring **ret, struct err *e);
void keyring_free(struct keyring *k);

/* Adds a new sealing key, which becomes the active one at the next load; the old ones still open. */
MUST_CHECK int keyring_rotate(
	const char *dir, const struct clock *clock, uint8_t ret_key_id[ENVELOPE_KEY_ID_BYTES], struct err *e);

void keyring_active(const struct keyring *k, struct sealing_public *ret);

/* All keys, newest first; *ret_active_index names the one to seal with. */
size_t keyring_list(const struct keyring *k, struct sealing_public *ret, size_t room);

/* NULL for an unknown key id. */
const uint8_t *keyring_private(const struct keyring *k, const uint8_t key_id[ENVELOPE_KEY_ID_BYTES]);

/* Blind index of a phone number: HMAC-SHA-256 under the index key over the E.164 form. Finds rows by number
 * without storing it; a bare hash could be reversed by trying all numbers. */
enum { BLIND_INDEX_BYTES = 32 };
MUST_CHECK int keyring_blind_index(
	const struct keyring *k, struct str e164, uint8_t ret[BLIND_INDEX_BYTES], struct err *e);

#endif
