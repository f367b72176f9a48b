/* hpke.c - see hpke.h; section numbers are those of RFC 9180.
 *
 * Opening a context costs two X25519 operations and a few HMACs and happens once per epoch; sealing happens
 * per message. So the AES key is expanded once, into a cipher context that lives as long as the HPKE context,
 * and a seal only sets the nonce. Every key and nonce here is at most one SHA-256 block of output, so that
 * HKDF-Expand is a single HMAC (RFC 5869 section 2.3). */
#include "crypto/hpke.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/auto.h"
#include "crypto/hpke_internal.h"

enum {
	SECRET_BYTES = 32, /* Nsecret and Nh: SHA-256 */
	NONCE_BYTES = 12,
	KEM_X25519 = 0x0020,
	KDF_SHA256 = 0x0001,
	MODE_BASE = 0x00,
	LABELED_BYTES = 64, /* more than a labeled input has besides its value */
};

struct hpke_context {
	EVP_CIPHER_CTX *cipher; /* keyed */
	uint8_t base_nonce[NONCE_BYTES];
	uint64_t sequence; /* of the next seal */
};

AUTO_DEFINE(EVP_PKEY_free, EVP_PKEY *)
AUTO_DEFINE(EVP_PKEY_CTX_free, EVP_PKEY_CTX *)
AUTO_DEFINE(EVP_CIPHER_free, EVP_CIPHER *)
AUTO_DEFINE(EVP_CIPHER_CTX_free, EVP_CIPHER_CTX *)

/* Leaves nothing in OpenSSL's error queue: TLS on the same thread looks there. */
static int openssl_failed(struct err *e, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());
	err_set(e, ERR_FATAL, "hpke: %s: %s", what, reason ? reason : "no reason given");
	ERR_clear_error();
	return -1;
}

static int refuse(struct err *e, const char *what)
{
	ERR_clear_error();
	return err_set(e, ERR_REJECT, "hpke: %s", what);
}

/* --- key derivation: section 4 --- */

/* "HPKE" or "KEM" with the identifiers of the algorithms, section 5.1 and 4.1. */
struct suite {
	uint8_t id[10];
	size_t n;
};

static const struct suite kem_suite = {{'K', 'E', 'M', KEM_X25519 >> 8, KEM_X25519 & 0xff}, 5};

static struct suite hpke_suite(enum hpke_aead aead)
{
	return (struct suite){
		{'H', 'P', 'K', 'E', KEM_X25519 >> 8, KEM_X25519 & 0xff, KDF_SHA256 >> 8, KDF_SHA256 & 0xff,
			(uint8_t)(aead >> 8), (uint8_t)aead},
		10,
	};
}

static int hmac(struct str key, struct str data, uint8_t ret[SECRET_BYTES], struct err *e)
{
	unsigned n;
	if (!HMAC(EVP_sha256(), key.p, (int)key.n, (const unsigned char *)data.p, data.n, ret, &n))
		return openssl_failed(e, "HMAC");
	return 0;
}

/* "HPKE-v1" || suite_id || label || value */
static void add_labeled(struct buf *out, const struct suite *suite, const char *label, struct str value)
{
	buf_add_str(out, STR("HPKE-v1"));
	buf_add(out, suite->id, suite->n);
	buf_add_str(out, str_of(label));
	buf_add_str(out, value);
}

static int labeled_extract(struct str salt, const struct suite *suite, const char *label, struct str ikm,
	uint8_t ret[SECRET_BYTES], struct err *e)
{
	AUTO(buf_wipe_auto) struct buf input;
	buf_init(&input, LABELED_BYTES + ikm.n);
	add_labeled(&input, suite, label, ikm);
	if (buf_check(&input, e) < 0)
		return -1;
	return hmac(salt, buf_str(&input), ret, e);
}

static int labeled_expand(const uint8_t prk[SECRET_BYTES], const struct suite *suite, const char *label,
	struct str info, uint8_t *ret, size_t n, struct err *e)
{
	require(n <= SECRET_BYTES);
	AUTO(buf_wipe_auto) struct buf input;
	buf_init(&input, LABELED_BYTES + info.n);
	buf_add_u16(&input, (uint16_t)n);
	add_labeled(&input, suite, label, info);
	buf_add_u8(&input, 1); /* the counter of HKDF's first block */
	uint8_t block[SECRET_BYTES];
	if (buf_check(&input, e) < 0 || hmac(str_mem(prk, SECRET_BYTES), buf_str(&input), block, e) < 0)
		return -1;
	memcpy(ret, block, n);
	OPENSSL_cleanse(block, sizeof(block));
	return 0;
}

/* --- the KEM: section 4.1 --- */

static int private_key_of(const uint8_t raw[HPKE_KEY_BYTES], EVP_PKEY **ret, struct err *e)
{
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, raw, HPKE_KEY_BYTES);
	if (!key)
		return openssl_failed(e, "X25519 private key");
	*ret = key;
	return 0;
}

static int public_of(const EVP_PKEY *key, uint8_t ret[HPKE_KEY_BYTES], struct err *e)
{
	size_t n = HPKE_KEY_BYTES;
	if (!EVP_PKEY_get_raw_public_key(key, ret, &n))
		return openssl_failed(e, "X25519 public key");
	return 0;
}

/* Section 7.1.4 wants an all-zero result refused. OpenSSL's portable X25519 does so itself, but not each of
 * its implementations for special hardware. */
static int diffie_hellman(
	EVP_PKEY *own, const uint8_t peer_raw[HPKE_KEY_BYTES], uint8_t ret[SECRET_BYTES], struct err *e)
{
	static const uint8_t zero[SECRET_BYTES];
	AUTO(EVP_PKEY_free_auto)
	EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, peer_raw, HPKE_KEY_BYTES);
	AUTO(EVP_PKEY_CTX_free_auto) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
	if (!peer || !ctx || EVP_PKEY_derive_init(ctx) <= 0)
		return openssl_failed(e, "X25519");
	size_t n = SECRET_BYTES;
	if (EVP_PKEY_derive_set_peer(ctx, peer) <= 0 || EVP_PKEY_derive(ctx, ret, &n) <= 0 ||
		bytes_eq_consttime(ret, zero, sizeof(zero)))
		return refuse(e, "a public key of small order");
	return 0;
}

/* ExtractAndExpand(DH(own, peer), enc || receiver's public key) */
static int kem_secret(EVP_PKEY *own, const uint8_t peer[HPKE_KEY_BYTES], const uint8_t enc[HPKE_ENC_BYTES],
	const uint8_t receiver_public[HPKE_KEY_BYTES], uint8_t ret[SECRET_BYTES], struct err *e)
{
	uint8_t context[HPKE_ENC_BYTES + HPKE_KEY_BYTES], dh[SECRET_BYTES], prk[SECRET_BYTES];
	memcpy(context, enc, HPKE_ENC_BYTES);
	memcpy(context + HPKE_ENC_BYTES, receiver_public, HPKE_KEY_BYTES);
	int r = diffie_hellman(own, peer, dh, e);
	if (r == 0)
		r = labeled_extract(STR(""), &kem_suite, "eae_prk", str_mem(dh, sizeof(dh)), prk, e);
	if (r == 0)
		r = labeled_expand(prk, &kem_suite, "shared_secret", str_mem(context, sizeof(context)), ret,
			SECRET_BYTES, e);
	OPENSSL_cleanse(dh, sizeof(dh));
	OPENSSL_cleanse(prk, sizeof(prk));
	return r;
}

/* --- contexts: section 5.1 --- */

struct key_schedule {
	uint8_t key[SECRET_BYTES];
	uint8_t base_nonce[NONCE_BYTES];
};

struct aead {
	enum hpke_aead id;
	const char *name;
	size_t key_bytes;
};

static const struct aead aeads[] = {
	[HPKE_AES_128_GCM] = {HPKE_AES_128_GCM, "AES-128-GCM", 16},
	[HPKE_AES_256_GCM] = {HPKE_AES_256_GCM, "AES-256-GCM", 32},
};

/* KeySchedule with mode base: psk and psk_id are empty. */
static int schedule_keys(const struct aead *aead, const uint8_t shared_secret[SECRET_BYTES], struct str info,
	struct key_schedule *ret, struct err *e)
{
	struct suite suite = hpke_suite(aead->id);
	struct str none = STR("");
	uint8_t context_bytes[1 + 2 * SECRET_BYTES] = {MODE_BASE}, secret[SECRET_BYTES];
	struct str context = str_mem(context_bytes, sizeof(context_bytes));
	int r = labeled_extract(none, &suite, "psk_id_hash", none, context_bytes + 1, e);
	if (r == 0)
		r = labeled_extract(none, &suite, "info_hash", info, context_bytes + 1 + SECRET_BYTES, e);
	if (r == 0)
		r = labeled_extract(str_mem(shared_secret, SECRET_BYTES), &suite, "secret", none, secret, e);
	if (r == 0)
		r = labeled_expand(secret, &suite, "key", context, ret->key, aead->key_bytes, e);
	if (r == 0)
		r = labeled_expand(secret, &suite, "base_nonce", context, ret->base_nonce, NONCE_BYTES, e);
	OPENSSL_cleanse(secret, sizeof(secret));
	return r;
}

/* `encrypt` is 1 for the sender, 0 for the receiver, as OpenSSL has it. */
static int context_new(const struct aead *aead, const struct key_schedule *keys, int encrypt,
	struct hpke_context **ret, struct err *e)
{
	AUTO(EVP_CIPHER_free_auto) EVP_CIPHER *algorithm = EVP_CIPHER_fetch(NULL, aead->name, NULL);
	AUTO(EVP_CIPHER_CTX_free_auto) EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	if (!algorithm || !cipher || !EVP_CipherInit_ex2(cipher, algorithm, keys->key, NULL, encrypt, NULL))
		return openssl_failed(e, aead->name);
	struct hpke_context *c = calloc(1, sizeof(*c));
	if (!c)
		return err_oom(e);
	c->cipher = TAKE(cipher);
	memcpy(c->base_nonce, keys->base_nonce, sizeof(c->base_nonce));
	*ret = c;
	return 0;
}

static int context_derive(const struct aead *aead, const uint8_t shared_secret[SECRET_BYTES], struct str info,
	int encrypt, struct hpke_context **ret, struct err *e)
{
	struct key_schedule keys;
	int r = schedule_keys(aead, shared_secret, info, &keys, e);
	if (r == 0)
		r = context_new(aead, &keys, encrypt, ret, e);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return r;
}

int hpke_sender_derive(enum hpke_aead aead, const uint8_t ephemeral_private[HPKE_KEY_BYTES],
	const uint8_t public_key[HPKE_KEY_BYTES], struct str info, uint8_t ret_enc[HPKE_ENC_BYTES],
	struct hpke_context **ret, struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *ephemeral = NULL;
	uint8_t enc[HPKE_ENC_BYTES], secret[SECRET_BYTES];
	if (private_key_of(ephemeral_private, &ephemeral, e) < 0 || public_of(ephemeral, enc, e) < 0 ||
		kem_secret(ephemeral, public_key, enc, public_key, secret, e) < 0)
		return -1;
	int r = context_derive(&aeads[aead], secret, info, 1, ret, e);
	OPENSSL_cleanse(secret, sizeof(secret));
	if (r == 0)
		memcpy(ret_enc, enc, sizeof(enc));
	return r;
}

int hpke_receiver_derive(enum hpke_aead aead, const uint8_t private_key[HPKE_KEY_BYTES],
	const uint8_t enc[HPKE_ENC_BYTES], struct str info, struct hpke_context **ret, struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *own = NULL;
	uint8_t own_public[HPKE_KEY_BYTES], secret[SECRET_BYTES];
	if (private_key_of(private_key, &own, e) < 0 || public_of(own, own_public, e) < 0 ||
		kem_secret(own, enc, enc, own_public, secret, e) < 0)
		return -1;
	int r = context_derive(&aeads[aead], secret, info, 0, ret, e);
	OPENSSL_cleanse(secret, sizeof(secret));
	return r;
}

int hpke_generate(uint8_t ret_private[HPKE_KEY_BYTES], uint8_t ret_public[HPKE_KEY_BYTES], struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
	size_t n = HPKE_KEY_BYTES;
	if (!key || !EVP_PKEY_get_raw_private_key(key, ret_private, &n))
		return openssl_failed(e, "X25519 key generation");
	return public_of(key, ret_public, e);
}

int hpke_public(const uint8_t private_key[HPKE_KEY_BYTES], uint8_t ret_public[HPKE_KEY_BYTES], struct err *e)
{
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	if (private_key_of(private_key, &key, e) < 0)
		return -1;
	return public_of(key, ret_public, e);
}

int hpke_sender_new(const uint8_t public_key[HPKE_KEY_BYTES], struct str info,
	uint8_t ret_enc[HPKE_ENC_BYTES], struct hpke_context **ret, struct err *e)
{
	uint8_t ephemeral_private[HPKE_KEY_BYTES], ephemeral_public[HPKE_KEY_BYTES];
	if (hpke_generate(ephemeral_private, ephemeral_public, e) < 0)
		return -1;
	int r = hpke_sender_derive(HPKE_AES_256_GCM, ephemeral_private, public_key, info, ret_enc, ret, e);
	OPENSSL_cleanse(ephemeral_private, sizeof(ephemeral_private));
	return r;
}

int hpke_receiver_new(const uint8_t private_key[HPKE_KEY_BYTES], const uint8_t enc[HPKE_ENC_BYTES],
	struct str info, struct hpke_context **ret, struct err *e)
{
	return hpke_receiver_derive(HPKE_AES_256_GCM, private_key, enc, info, ret, e);
}

void hpke_free(struct hpke_context *c)
{
	if (!c)
		return;
	EVP_CIPHER_CTX_free(c->cipher); /* wipes the key */
	OPENSSL_cleanse(c, sizeof(*c));
	free(c);
}

uint64_t hpke_sequence(const struct hpke_context *c)
{
	return c->sequence;
}

void hpke_set_sequence(struct hpke_context *c, uint64_t sequence)
{
	c->sequence = sequence;
}

/* --- messages: section 5.2 --- */

/* ComputeNonce: base_nonce XOR the sequence number, big-endian at the end. */
static void nonce_of(const struct hpke_context *c, uint64_t sequence, uint8_t ret[NONCE_BYTES])
{
	memcpy(ret, c->base_nonce, NONCE_BYTES);
	for (int i = 0; i < 8; i++)
		ret[NONCE_BYTES - 1 - i] ^= (uint8_t)(sequence >> 8 * i);
}

/* Sets the nonce and feeds additional data and text; the context knows whether it encrypts. */
static bool run_cipher(const struct hpke_context *c, uint64_t sequence, struct str additional_data,
	struct str text, char *out)
{
	uint8_t nonce[NONCE_BYTES];
	nonce_of(c, sequence, nonce);
	int n;
	return EVP_CipherInit_ex2(c->cipher, NULL, NULL, nonce, -1, NULL) &&
	       EVP_CipherUpdate(c->cipher, NULL, &n, (const unsigned char *)additional_data.p,
		       (int)additional_data.n) &&
	       EVP_CipherUpdate(
		       c->cipher, (unsigned char *)out, &n, (const unsigned char *)text.p, (int)text.n);
}

int hpke_seal(struct hpke_context *c, struct str additional_data, struct str plaintext, struct buf *out,
	uint64_t *ret_sequence, struct err *e)
{
	if (c->sequence >= HPKE_SEQUENCE_LIMIT)
		return err_set(e, ERR_FATAL, "hpke: this context has sealed all the messages it may");
	if (additional_data.n > HPKE_TEXT_BYTES || plaintext.n > HPKE_TEXT_BYTES)
		return err_set(e, ERR_REJECT, "hpke: too long to seal");
	char *at = buf_reserve(out, plaintext.n + HPKE_TAG_BYTES);
	if (!at)
		return buf_check(out, e);
	int n;
	if (!run_cipher(c, c->sequence, additional_data, plaintext, at) ||
		!EVP_CipherFinal_ex(c->cipher, (unsigned char *)at + plaintext.n, &n) ||
		EVP_CIPHER_CTX_ctrl(c->cipher, EVP_CTRL_AEAD_GET_TAG, HPKE_TAG_BYTES, at + plaintext.n) <= 0)
		return openssl_failed(e, "seal");
	buf_commit(out, plaintext.n + HPKE_TAG_BYTES);
	*ret_sequence = c->sequence++;
	return 0;
}

int hpke_open(struct hpke_context *c, uint64_t sequence, struct str additional_data, struct str ciphertext,
	struct buf *out, struct err *e)
{
	if (sequence >= HPKE_SEQUENCE_LIMIT || additional_data.n > HPKE_TEXT_BYTES ||
		ciphertext.n > HPKE_TEXT_BYTES || ciphertext.n < HPKE_TAG_BYTES)
		return refuse(e, "does not open");
	struct str text = str_mem(ciphertext.p, ciphertext.n - HPKE_TAG_BYTES);
	uint8_t tag[HPKE_TAG_BYTES];
	memcpy(tag, ciphertext.p + text.n, sizeof(tag));
	char *at = buf_reserve(out, text.n);
	if (!at)
		return buf_check(out, e);
	int n;
	if (!run_cipher(c, sequence, additional_data, text, at) ||
		EVP_CIPHER_CTX_ctrl(c->cipher, EVP_CTRL_AEAD_SET_TAG, sizeof(tag), tag) <= 0 ||
		!EVP_CipherFinal_ex(c->cipher, (unsigned char *)at + text.n, &n)) {
		OPENSSL_cleanse(at, text.n); /* unauthenticated plaintext */
		return refuse(e, "does not open");
	}
	buf_commit(out, text.n);
	return 0;
}
