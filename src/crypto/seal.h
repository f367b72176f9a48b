/* seal.h - sealing a message at the proxy, opening it at the main server.
 *
 * A sealer keeps one HPKE context per epoch (one hour or 2^32 messages, whichever is first) towards the
 * current sealing key; a new key starts a new epoch at once. An opener caches the contexts it has
 * decapsulated by (key id, enc), bounded, least recently used out.
 *
 * Threads:  one sealer per I/O thread, one opener per delivery thread; neither is shared.
 * Security: plaintext buffers passed in are the caller's to wipe. */
#ifndef CRYPTO_SEAL_H
#define CRYPTO_SEAL_H

#include "base/clock.h"
#include "crypto/keyring.h"
#include "message/message.h"
#include "message/sealed.h"

struct sealer;

MUST_CHECK int sealer_new(const struct clock *clock, struct sealer **ret, struct err *e);
void sealer_free(struct sealer *s);

/* The key to seal with from now on. */
void sealer_set_key(struct sealer *s, const struct sealing_public *key);

/* Seals `message` under the facts in `facts` (its .envelope is ignored) and appends the encoded envelope; on
 * failure *out is as before. ERR_RETRY when no key is known. */
MUST_CHECK int sealer_seal(struct sealer *s, const struct sealed *facts, const struct message *message,
	struct buf *out, struct err *e);

struct opener;

/* `keyring` must outlive the opener, or be replaced by opener_set_keyring. */
MUST_CHECK int opener_new(const struct keyring *keyring, struct opener **ret, struct err *e);
void opener_free(struct opener *o);
void opener_set_keyring(struct opener *o, const struct keyring *keyring);

/* Opens sealed->envelope. Replaces what is in *plaintext; *ret points into it, and the caller wipes it.
 * ERR_REJECT: forged, damaged, swapped, unknown key, or not a valid message. */
MUST_CHECK int opener_open(struct opener *o, const struct sealed *sealed, struct buf *plaintext,
	struct message *ret, struct err *e);

#endif
