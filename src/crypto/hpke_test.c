/* The official vectors: RFC 9180 appendix A.1.1, and for AES-256-GCM, which the appendix leaves out, the file
 * it was made from (cfrg/draft-irtf-cfrg-hpke, test-vectors.json, mode 0, kem 32, kdf 1, aead 2). */
#include "crypto/hpke.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/err.h>

#include "base/auto.h"
#include "crypto/hpke_internal.h"

AUTO_DEFINE(hpke_free, struct hpke_context *)

#define INFO_HEX      "4f6465206f6e2061204772656369616e2055726e"
#define PLAINTEXT_HEX "4265617574792069732074727574682c20747275746820626561757479"

struct vector {
	enum hpke_aead aead;
	const char *ephemeral_private, *receiver_private, *receiver_public, *enc;
	struct {
		uint64_t sequence;
		const char *ciphertext;
	} seals[5];
};

static const struct vector vectors[] = {
	{
		.aead = HPKE_AES_128_GCM,
		.ephemeral_private = "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736",
		.receiver_private = "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
		.receiver_public = "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
		.enc = "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
		.seals =
			{
				{0, "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a9"
				    "6d8770ac83d07bea87e13c512a"},
				{1, "af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab25"
				    "1c03d0c22a56b8ca42c2063b84"},
				{4, "583bd32bc67a5994bb8ceaca813d369bca7b2a42408cddef5e22f880b631215a"
				    "09fc0012bc69fccaa251c0246d"},
				{255, "7175db9717964058640a3a11fb9007941a5d1757fda1a6935c805c21af32505b"
				      "f106deefec4a49ac38d71c9e0a"},
				{256, "957f9800542b0b8891badb026d79cc54597cb2d225b54c00c5238c25d05c30e3"
				      "fbeda97d2e0e1aba483a2df9f2"},
			},
	},
	{
		.aead = HPKE_AES_256_GCM,
		.ephemeral_private = "179d4b53b6365c45b600c4163b61d95cbc2f4d9e36f1695558dce265ab8bab11",
		.receiver_private = "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d",
		.receiver_public = "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c",
		.enc = "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256",
		.seals =
			{
				{0, "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be99319"
				    "80a41de125a925cdad859d5b7a"},
				{1, "2c43aff25343fdbff864506f0818b9d87df84ea01b1a2144d23b4d40c26bf655"
				    "fdf197fe40297a8aebeed5cc2d"},
			},
	},
};

static struct str unhex(const char *hex, uint8_t *out)
{
	size_t n = strlen(hex) / 2;
	assert_true(hex_decode(str_of(hex), out, n));
	return str_mem(out, n);
}

static struct str count_label(uint64_t sequence, char out[32])
{
	int n = snprintf(out, 32, "Count-%llu", (unsigned long long)sequence);
	return str_mem(out, (size_t)n);
}

static void check_seal(struct hpke_context *c, uint64_t sequence, const char *ciphertext_hex)
{
	struct err e = ERR_INIT;
	char label[32];
	uint8_t plaintext[64], ciphertext[64];
	AUTO(buf_auto) struct buf out;
	buf_init(&out, 1024);
	uint64_t used;
	hpke_set_sequence(c, sequence);
	assert_int_equal(hpke_sequence(c), sequence);
	assert_int_equal(
		hpke_seal(c, count_label(sequence, label), unhex(PLAINTEXT_HEX, plaintext), &out, &used, &e),
		0);
	assert_int_equal(used, sequence);
	assert_int_equal(hpke_sequence(c), sequence + 1);
	assert_true(str_eq(buf_str(&out), unhex(ciphertext_hex, ciphertext)));
}

static void check_open(struct hpke_context *c, uint64_t sequence, const char *ciphertext_hex)
{
	struct err e = ERR_INIT;
	char label[32];
	uint8_t plaintext[64], ciphertext[64];
	AUTO(buf_auto) struct buf out;
	buf_init(&out, 1024);
	assert_int_equal(hpke_open(c, sequence, count_label(sequence, label),
				 unhex(ciphertext_hex, ciphertext), &out, &e),
		0);
	assert_true(str_eq(buf_str(&out), unhex(PLAINTEXT_HEX, plaintext)));
}

static void test_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
		const struct vector *v = &vectors[i];
		struct err e = ERR_INIT;
		uint8_t ephemeral[32], receiver_private[32], receiver_public[32], info[64], enc[32], made[32];
		unhex(v->ephemeral_private, ephemeral);
		unhex(v->receiver_private, receiver_private);
		unhex(v->receiver_public, receiver_public);
		unhex(v->enc, enc);
		struct str info_str = unhex(INFO_HEX, info);
		assert_int_equal(hpke_public(receiver_private, made, &e), 0);
		assert_memory_equal(made, receiver_public, 32);

		AUTO(hpke_free_auto) struct hpke_context *sender = NULL, *receiver = NULL;
		assert_int_equal(
			hpke_sender_derive(v->aead, ephemeral, receiver_public, info_str, made, &sender, &e),
			0);
		assert_memory_equal(made, enc, 32);
		assert_int_equal(
			hpke_receiver_derive(v->aead, receiver_private, enc, info_str, &receiver, &e), 0);
		for (size_t k = 0; k < ARRAY_LEN(v->seals) && v->seals[k].ciphertext; k++) {
			check_seal(sender, v->seals[k].sequence, v->seals[k].ciphertext);
			check_open(receiver, v->seals[k].sequence, v->seals[k].ciphertext);
		}
	}
}

/* A fresh pair of contexts towards a fresh key. */
struct pair {
	struct hpke_context *sender, *receiver;
};

static void pair_open(struct pair *p)
{
	struct err e = ERR_INIT;
	uint8_t private_key[32], public_key[32], enc[32];
	assert_int_equal(hpke_generate(private_key, public_key, &e), 0);
	assert_int_equal(hpke_sender_new(public_key, STR("info"), enc, &p->sender, &e), 0);
	assert_int_equal(hpke_receiver_new(private_key, enc, STR("info"), &p->receiver, &e), 0);
}

static void pair_close(struct pair *p)
{
	hpke_free(p->sender);
	hpke_free(p->receiver);
}

static void test_round_trip_in_any_order(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct pair p;
	pair_open(&p);
	static const struct str texts[] = {{"first", 5}, {"", 0}, {"third", 5}};
	struct buf sealed[3];
	for (uint64_t i = 0; i < 3; i++) {
		uint64_t sequence;
		buf_init(&sealed[i], 100);
		assert_int_equal(hpke_seal(p.sender, STR("facts"), texts[i], &sealed[i], &sequence, &e), 0);
		assert_int_equal(sequence, i);
		assert_int_equal(sealed[i].n, texts[i].n + HPKE_TAG_BYTES);
	}
	for (uint64_t i = 3; i-- > 0;) {
		AUTO(buf_auto) struct buf out;
		buf_init(&out, 100);
		assert_int_equal(hpke_open(p.receiver, i, STR("facts"), buf_str(&sealed[i]), &out, &e), 0);
		assert_true(str_eq(buf_str(&out), texts[i]));
		buf_clear(&sealed[i]);
	}
	pair_close(&p);
}

static void assert_refused(struct hpke_context *c, uint64_t sequence, struct str facts, struct str ciphertext)
{
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf out;
	buf_init(&out, 100);
	buf_add_str(&out, STR("before"));
	assert_int_equal(hpke_open(c, sequence, facts, ciphertext, &out, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	assert_true(str_eq(buf_str(&out), STR("before")));
	assert_int_equal(ERR_peek_error(), 0);
}

static void test_anything_changed_is_refused(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct pair p, other;
	pair_open(&p);
	pair_open(&other);
	AUTO(buf_auto) struct buf sealed;
	buf_init(&sealed, 100);
	uint64_t sequence;
	assert_int_equal(hpke_seal(p.sender, STR("facts"), STR("text"), &sealed, &sequence, &e), 0);
	struct str good = buf_str(&sealed);
	for (size_t i = 0; i < sealed.n; i++) {
		sealed.p[i] ^= 0x20;
		assert_refused(p.receiver, 0, STR("facts"), good);
		sealed.p[i] ^= 0x20;
		assert_refused(p.receiver, 0, STR("facts"), str_mem(good.p, i));
	}
	assert_refused(p.receiver, 0, STR("fact"), good);
	assert_refused(p.receiver, 0, STR(""), good);
	assert_refused(p.receiver, 1, STR("facts"), good);
	assert_refused(p.receiver, HPKE_SEQUENCE_LIMIT, STR("facts"), good);
	assert_refused(p.receiver, 0, STR("facts"), str_mem(good.p, HPKE_TEXT_BYTES + 1));
	assert_refused(other.receiver, 0, STR("facts"), good);
	/* and it still opens after all that */
	AUTO(buf_auto) struct buf out;
	buf_init(&out, 100);
	assert_int_equal(hpke_open(p.receiver, 0, STR("facts"), good, &out, &e), 0);
	pair_close(&p);
	pair_close(&other);
}

/* Points whose product with any clamped scalar is zero: RFC 7748 section 6.1. */
static void test_small_order_is_refused(void **state)
{
	(void)state;
	static const char *const points[] = {
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	};
	struct err e = ERR_INIT;
	uint8_t private_key[32], public_key[32], enc[32], point[32];
	assert_int_equal(hpke_generate(private_key, public_key, &e), 0);
	for (size_t i = 0; i < ARRAY_LEN(points); i++) {
		struct hpke_context *c = NULL;
		unhex(points[i], point);
		assert_int_equal(hpke_sender_new(point, STR("info"), enc, &c, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
		assert_int_equal(hpke_receiver_new(private_key, point, STR("info"), &c, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
		assert_null(c);
		assert_int_equal(ERR_peek_error(), 0);
	}
}

static void test_context_is_used_up(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct pair p;
	pair_open(&p);
	AUTO(buf_auto) struct buf out;
	buf_init(&out, 100);
	uint64_t sequence;
	hpke_set_sequence(p.sender, HPKE_SEQUENCE_LIMIT - 1);
	assert_int_equal(hpke_seal(p.sender, STR(""), STR("last"), &out, &sequence, &e), 0);
	assert_int_equal(hpke_seal(p.sender, STR(""), STR("one more"), &out, &sequence, &e), -1);
	assert_int_equal(e.kind, ERR_FATAL);
	assert_int_equal(out.n, 4 + HPKE_TAG_BYTES);
	pair_close(&p);
}

static void test_no_room(void **state)
{
	(void)state;
	struct err e = ERR_INIT;
	struct pair p;
	pair_open(&p);
	AUTO(buf_auto) struct buf out;
	buf_init(&out, 10);
	uint64_t sequence;
	assert_int_equal(hpke_seal(p.sender, STR(""), STR("text"), &out, &sequence, &e), -1);
	assert_int_equal(hpke_sequence(p.sender), 0);
	assert_int_equal(
		hpke_seal(p.sender, STR(""), str_mem("", HPKE_TEXT_BYTES + 1), &out, &sequence, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_round_trip_in_any_order),
		cmocka_unit_test(test_anything_changed_is_refused),
		cmocka_unit_test(test_small_order_is_refused),
		cmocka_unit_test(test_context_is_used_up),
		cmocka_unit_test(test_no_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
