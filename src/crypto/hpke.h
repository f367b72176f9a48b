/* hpke.h - Hybrid Public Key Encryption, RFC 9180, base mode, one ciphersuite:
 * DHKEM(X25519, HKDF-SHA256) 0x0020, HKDF-SHA256 0x0001, AES-256-GCM 0x0002; on OpenSSL primitives.
 *
 * A sender context is opened once (one X25519 operation) and seals many messages, each with its own sequence
 * number; the receiver opens any of them by that number, in any order.
 *
 * Limits:    a context refuses to seal past 2^32 messages.
 * Ownership: new/free; free wipes keys and takes NULL.
 * Threads:   one thread at a time per context.
 * Errors:    ERR_REJECT when something does not open (no reason is told apart), ERR_FATAL when OpenSSL fails.
 */
#ifndef CRYPTO_HPKE_H
#define CRYPTO_HPKE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum { HPKE_KEY_BYTES = 32, HPKE_ENC_BYTES = 32, HPKE_TAG_BYTES = 16 };

/* Of plaintext, ciphertext or additional data, at most; more is ERR_REJECT. */
enum { HPKE_TEXT_BYTES = 1 << 24 };

/* Messages that one context seals, at most. */
#define HPKE_SEQUENCE_LIMIT ((uint64_t)1 << 32)

struct hpke_context;

/* Fresh X25519 pair from the CSPRNG. */
MUST_CHECK int hpke_generate(
	uint8_t ret_private[HPKE_KEY_BYTES], uint8_t ret_public[HPKE_KEY_BYTES], struct err *e);

/* The public key that belongs to a private one. */
MUST_CHECK int hpke_public(
	const uint8_t private_key[HPKE_KEY_BYTES], uint8_t ret_public[HPKE_KEY_BYTES], struct err *e);

/* SetupBaseS, RFC 9180 section 5.1.1. ERR_REJECT for a public key of small order, which would leave no
 * secret. */
MUST_CHECK int hpke_sender_new(const uint8_t public_key[HPKE_KEY_BYTES], struct str info,
	uint8_t ret_enc[HPKE_ENC_BYTES], struct hpke_context **ret, struct err *e);

/* SetupBaseR. ERR_REJECT for an enc of small order. */
MUST_CHECK int hpke_receiver_new(const uint8_t private_key[HPKE_KEY_BYTES], const uint8_t enc[HPKE_ENC_BYTES],
	struct str info, struct hpke_context **ret, struct err *e);
void hpke_free(struct hpke_context *c);

/* The sequence number that the next hpke_seal will use. */
uint64_t hpke_sequence(const struct hpke_context *c);

/* Appends ciphertext and tag to *out and tells the sequence number used; on failure *out is as before. */
MUST_CHECK int hpke_seal(struct hpke_context *c, struct str additional_data, struct str plaintext,
	struct buf *out, uint64_t *ret_sequence, struct err *e);

/* Appends the plaintext to *out; on failure *out is as before. */
MUST_CHECK int hpke_open(struct hpke_context *c, uint64_t sequence, struct str additional_data,
	struct str ciphertext, struct buf *out, struct err *e);

#endif
