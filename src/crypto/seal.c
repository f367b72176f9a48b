/* seal.c - see seal.h.
 *
 * The sealing side keeps one HPKE context and two scratch buffers, so that a message costs no allocation. The
 * opening side keeps the contexts it has used last. There are as many in use as proxies have threads, and enc
 * is random, so looking through the table is a comparison of one word each: nothing beside a decryption. A
 * context is only remembered once something has opened with it: forged envelopes cannot push out good ones.
 */
#include "crypto/seal.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"

enum {
	EPOCH_MS = 3600 * 1000,
	ADDITIONAL_DATA_BYTES = 256, /* more than sealed_additional_data makes */
	OPENER_CONTEXTS = 64,
};

_Static_assert((int)HPKE_ENC_BYTES == (int)ENVELOPE_ENC_BYTES, "one suite");
_Static_assert((int)HPKE_TAG_BYTES == (int)ENVELOPE_TAG_BYTES, "one suite");

/* Binds ciphertexts to their purpose; part of the format. */
static const struct str info = {"sealpost message v1", 19};

/* --- sealing --- */

struct sealer {
	const struct clock *clock;
	struct sealing_public key;
	bool has_key;
	struct hpke_context *context; /* of the present epoch, NULL before the first message */
	uint8_t enc[HPKE_ENC_BYTES];
	struct mono epoch_end;
	struct buf payload, additional_data; /* scratch */
};

AUTO_DEFINE(sealer_free, struct sealer *)

/* The payload's scratch gets all its room at once: growing would leave copies of plaintext behind. */
int sealer_new(const struct clock *clock, struct sealer **ret, struct err *e)
{
	AUTO(sealer_free_auto) struct sealer *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	s->clock = clock;
	buf_init(&s->payload, MESSAGE_PAYLOAD_BYTES);
	buf_init(&s->additional_data, ADDITIONAL_DATA_BYTES);
	if (!buf_reserve(&s->payload, MESSAGE_PAYLOAD_BYTES))
		return err_oom(e);
	*ret = TAKE(s);
	return 0;
}

void sealer_free(struct sealer *s)
{
	if (!s)
		return;
	hpke_free(s->context);
	buf_wipe(&s->payload);
	buf_clear(&s->additional_data);
	free(s);
}

static void end_epoch(struct sealer *s)
{
	hpke_free(s->context);
	s->context = NULL;
}

void sealer_set_key(struct sealer *s, const struct sealing_public *key)
{
	if (s->has_key && memcmp(&s->key, key, sizeof(*key)) == 0)
		return;
	end_epoch(s);
	s->key = *key;
	s->has_key = true;
}

static int begin_epoch(struct sealer *s, struct mono now, struct err *e)
{
	end_epoch(s);
	if (hpke_sender_new(s->key.public_key, info, s->enc, &s->context, e) < 0)
		return -1;
	s->epoch_end = mono_add_ms(now, EPOCH_MS);
	return 0;
}

static bool epoch_over(const struct sealer *s, struct mono now)
{
	return !s->context || mono_reached(now, s->epoch_end) ||
	       hpke_sequence(s->context) == HPKE_SEQUENCE_LIMIT;
}

/* Header, ciphertext and tag; the header needs the sequence number that the seal is going to use. */
static int seal_payload(struct sealer *s, struct buf *out, struct err *e)
{
	struct envelope header = {.sequence = hpke_sequence(s->context)};
	memcpy(header.key_id, s->key.key_id, sizeof(header.key_id));
	memcpy(header.enc, s->enc, sizeof(header.enc));
	envelope_encode(&header, out);
	uint64_t sequence;
	return hpke_seal(s->context, buf_str(&s->additional_data), buf_str(&s->payload), out, &sequence, e);
}

int sealer_seal(struct sealer *s, const struct sealed *facts, const struct message *message, struct buf *out,
	struct err *e)
{
	if (!s->has_key)
		return err_set(e, ERR_RETRY, "no sealing key is known yet");
	struct mono now = clock_mono(s->clock);
	if (epoch_over(s, now) && begin_epoch(s, now, e) < 0)
		return -1;
	buf_reset(&s->payload);
	buf_reset(&s->additional_data);
	message_encode(message, &s->payload);
	sealed_additional_data(facts, &s->additional_data);
	if (buf_check(&s->payload, e) < 0 || buf_check(&s->additional_data, e) < 0)
		return -1;
	size_t before = out->n;
	int r = seal_payload(s, out, e);
	if (r < 0)
		out->n = before;
	OPENSSL_cleanse(s->payload.p, s->payload.n);
	return r;
}

/* --- opening --- */

AUTO_DEFINE(hpke_free, struct hpke_context *)

struct context_key {
	uint8_t enc[HPKE_ENC_BYTES]; /* first: this is where two keys differ */
	uint8_t key_id[ENVELOPE_KEY_ID_BYTES];
};

struct cached {
	struct context_key key;
	struct hpke_context *context;
	uint64_t used_at; /* the opener's count of uses then */
};

struct opener {
	const struct keyring *keyring;
	struct cached cached[OPENER_CONTEXTS];
	size_t count;
	uint64_t use_count;
	struct buf additional_data; /* scratch */
};

int opener_new(const struct keyring *keyring, struct opener **ret, struct err *e)
{
	struct opener *o = calloc(1, sizeof(*o));
	if (!o)
		return err_oom(e);
	o->keyring = keyring;
	buf_init(&o->additional_data, ADDITIONAL_DATA_BYTES);
	*ret = o;
	return 0;
}

static void forget_all(struct opener *o)
{
	while (o->count)
		hpke_free(o->cached[--o->count].context);
}

void opener_free(struct opener *o)
{
	if (!o)
		return;
	forget_all(o);
	buf_clear(&o->additional_data);
	free(o);
}

void opener_set_keyring(struct opener *o, const struct keyring *keyring)
{
	forget_all(o);
	o->keyring = keyring;
}

static struct hpke_context *find(struct opener *o, const struct context_key *key)
{
	for (struct cached *c = o->cached; c < o->cached + o->count; c++) {
		if (memcmp(&c->key, key, sizeof(*key)) == 0) {
			c->used_at = ++o->use_count;
			return c->context;
		}
	}
	return NULL;
}

/* A free place, or that of the context unused for longest. */
static struct cached *make_place(struct opener *o)
{
	if (o->count < OPENER_CONTEXTS)
		return &o->cached[o->count++];
	struct cached *oldest = o->cached;
	for (struct cached *c = o->cached; c < o->cached + o->count; c++)
		if (c->used_at < oldest->used_at)
			oldest = c;
	hpke_free(oldest->context);
	return oldest;
}

static void remember(struct opener *o, const struct context_key *key, struct hpke_context *context)
{
	*make_place(o) = (struct cached){.key = *key, .context = context, .used_at = ++o->use_count};
}

static int decapsulate(
	const struct opener *o, const struct context_key *key, struct hpke_context **ret, struct err *e)
{
	const uint8_t *private_key = keyring_private(o->keyring, key->key_id);
	if (!private_key)
		return err_set(e, ERR_REJECT, "envelope: unknown sealing key");
	return hpke_receiver_new(private_key, key->enc, info, ret, e);
}

/* Opens with the context that is cached, or with a fresh one that is cached once it has served. */
static int open_envelope(struct opener *o, const struct envelope *env, struct buf *plaintext, struct err *e)
{
	struct str facts = buf_str(&o->additional_data);
	struct context_key key;
	memcpy(key.enc, env->enc, sizeof(key.enc));
	memcpy(key.key_id, env->key_id, sizeof(key.key_id));
	struct hpke_context *known = find(o, &key);
	if (known)
		return hpke_open(known, env->sequence, facts, env->ciphertext, plaintext, e);
	AUTO(hpke_free_auto) struct hpke_context *fresh = NULL;
	if (decapsulate(o, &key, &fresh, e) < 0 ||
		hpke_open(fresh, env->sequence, facts, env->ciphertext, plaintext, e) < 0)
		return -1;
	remember(o, &key, TAKE(fresh));
	return 0;
}

int opener_open(struct opener *o, const struct sealed *sealed, struct buf *plaintext, struct message *ret,
	struct err *e)
{
	struct envelope env;
	if (envelope_decode(sealed->envelope, &env, e) < 0)
		return -1;
	buf_reset(&o->additional_data);
	sealed_additional_data(sealed, &o->additional_data);
	if (buf_check(&o->additional_data, e) < 0)
		return -1;
	buf_reset(plaintext);
	if (open_envelope(o, &env, plaintext, e) < 0)
		return -1;
	return message_decode(buf_str(plaintext), ret, e);
}
