/* seal.c - see seal.h.
 *
 * The sealing side keeps one HPKE context and two scratch buffers, so that a message costs no allocation. The
 * opening side keeps contexts it has used in a hash table that is also a list in order of use; a context is
 * only remembered once something has opened with it, so that forged envelopes cannot push out good ones. */
#include "crypto/seal.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/auto.h"

enum {
	EPOCH_MS = 3600 * 1000,
	ADDITIONAL_DATA_BYTES = 256, /* more than sealed_additional_data makes */
	OPENER_CONTEXTS = 64,
	OPENER_BUCKETS = 64,
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

struct context_key {
	uint8_t key_id[ENVELOPE_KEY_ID_BYTES];
	uint8_t enc[HPKE_ENC_BYTES];
};

struct cached {
	TAILQ_ENTRY(cached) by_use;
	LIST_ENTRY(cached) in_bucket;
	struct context_key key;
	struct hpke_context *context;
};

struct opener {
	const struct keyring *keyring;
	TAILQ_HEAD(cached_list, cached) used; /* most recently used first */
	LIST_HEAD(bucket, cached) buckets[OPENER_BUCKETS];
	size_t count;
	struct buf additional_data; /* scratch */
};

int opener_new(const struct keyring *keyring, struct opener **ret, struct err *e)
{
	struct opener *o = calloc(1, sizeof(*o));
	if (!o)
		return err_oom(e);
	o->keyring = keyring;
	TAILQ_INIT(&o->used);
	for (size_t i = 0; i < OPENER_BUCKETS; i++)
		LIST_INIT(&o->buckets[i]);
	buf_init(&o->additional_data, ADDITIONAL_DATA_BYTES);
	*ret = o;
	return 0;
}

static void cached_free(struct cached *c)
{
	if (!c)
		return;
	hpke_free(c->context);
	free(c);
}

AUTO_DEFINE(cached_free, struct cached *)

static void forget(struct opener *o, struct cached *c)
{
	TAILQ_REMOVE(&o->used, c, by_use);
	LIST_REMOVE(c, in_bucket);
	o->count--;
	cached_free(c);
}

static void forget_all(struct opener *o)
{
	while (!TAILQ_EMPTY(&o->used))
		forget(o, TAILQ_FIRST(&o->used));
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

/* An enc is a random point, so its first byte spreads well; a bucket that someone fills on purpose holds at
 * most OPENER_CONTEXTS. */
static struct bucket *bucket_of(struct opener *o, const struct context_key *key)
{
	return &o->buckets[key->enc[0] % OPENER_BUCKETS];
}

static struct cached *find(struct opener *o, const struct context_key *key)
{
	struct cached *c;
	LIST_FOREACH(c, bucket_of(o, key), in_bucket)
	if (memcmp(&c->key, key, sizeof(*key)) == 0)
		return c;
	return NULL;
}

static void remember(struct opener *o, struct cached *c)
{
	if (o->count == OPENER_CONTEXTS)
		forget(o, TAILQ_LAST(&o->used, cached_list));
	TAILQ_INSERT_HEAD(&o->used, c, by_use);
	LIST_INSERT_HEAD(bucket_of(o, &c->key), c, in_bucket);
	o->count++;
}

static void touch(struct opener *o, struct cached *c)
{
	TAILQ_REMOVE(&o->used, c, by_use);
	TAILQ_INSERT_HEAD(&o->used, c, by_use);
}

static int decapsulate(struct opener *o, const struct context_key *key, struct cached **ret, struct err *e)
{
	const uint8_t *private_key = keyring_private(o->keyring, key->key_id);
	if (!private_key)
		return err_set(e, ERR_REJECT, "envelope: unknown sealing key");
	AUTO(cached_free_auto) struct cached *c = calloc(1, sizeof(*c));
	if (!c)
		return err_oom(e);
	c->key = *key;
	if (hpke_receiver_new(private_key, key->enc, info, &c->context, e) < 0)
		return -1;
	*ret = TAKE(c);
	return 0;
}

/* Opens with the cached context, or with a fresh one that is cached when it served. */
static int open_envelope(struct opener *o, const struct envelope *env, struct buf *plaintext, struct err *e)
{
	struct context_key key;
	memcpy(key.key_id, env->key_id, sizeof(key.key_id));
	memcpy(key.enc, env->enc, sizeof(key.enc));
	struct str facts = buf_str(&o->additional_data);
	struct cached *known = find(o, &key);
	if (known) {
		touch(o, known);
		return hpke_open(known->context, env->sequence, facts, env->ciphertext, plaintext, e);
	}
	AUTO(cached_free_auto) struct cached *fresh = NULL;
	if (decapsulate(o, &key, &fresh, e) < 0 ||
		hpke_open(fresh->context, env->sequence, facts, env->ciphertext, plaintext, e) < 0)
		return -1;
	remember(o, TAKE(fresh));
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
