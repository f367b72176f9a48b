/* hpke_internal.h - what hpke.c shares with its test: the other AEAD of RFC 9180 appendix A.1, ephemeral keys
 * that are given instead of drawn, and counters near their end. Nothing else may include this. */
#ifndef CRYPTO_HPKE_INTERNAL_H
#define CRYPTO_HPKE_INTERNAL_H

#include "crypto/hpke.h"

/* AEAD identifiers, RFC 9180 section 7.3. */
enum hpke_aead { HPKE_AES_128_GCM = 0x0001, HPKE_AES_256_GCM = 0x0002 };

MUST_CHECK int hpke_sender_derive(enum hpke_aead aead, const uint8_t ephemeral_private[HPKE_KEY_BYTES],
	const uint8_t public_key[HPKE_KEY_BYTES], struct str info, uint8_t ret_enc[HPKE_ENC_BYTES],
	struct hpke_context **ret, struct err *e);
MUST_CHECK int hpke_receiver_derive(enum hpke_aead aead, const uint8_t private_key[HPKE_KEY_BYTES],
	const uint8_t enc[HPKE_ENC_BYTES], struct str info, struct hpke_context **ret, struct err *e);

void hpke_set_sequence(struct hpke_context *c, uint64_t sequence);

#endif
