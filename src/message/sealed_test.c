#include "message/sealed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "message/message.h"

#define TRACEPARENT "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

static const struct envelope envelope = {
	.key_id = {1, 2, 3, 4, 5, 6, 7, 8},
	.enc = {0xaa, 0xbb},
	.sequence = 0x0102030405060708,
	.ciphertext = {"ciphertext and the tag at its end", 33},
};

/* A record over an envelope encoded into `env`. */
static struct sealed record_of(struct buf *env)
{
	buf_init(env, SEALED_MAX_BYTES);
	envelope_encode(&envelope, env);
	struct sealed s = {
		.accepted_at = {1790000000123},
		.client_id = STR("till-7"),
		.domain = STR("shop"),
		.traceparent = STR(TRACEPARENT),
		.envelope = buf_str(env),
	};
	assert_true(uuid_parse(STR("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), &s.id));
	return s;
}

static void test_envelope_layout(void **state)
{
	(void)state;
	struct buf out;
	struct envelope back;
	struct err e = ERR_INIT;
	buf_init(&out, SEALED_MAX_BYTES);
	envelope_encode(&envelope, &out);
	assert_int_equal(out.n, 1 + 8 + 32 + 8 + 33);
	assert_memory_equal(out.p, "\x01\x01\x02\x03\x04\x05\x06\x07\x08\xaa\xbb\x00", 12);
	assert_memory_equal(out.p + 41,
		"\x01\x02\x03\x04\x05\x06\x07\x08"
		"cipher",
		14);
	assert_int_equal(envelope_decode(buf_str(&out), &back, &e), 0);
	assert_memory_equal(back.key_id, envelope.key_id, sizeof(back.key_id));
	assert_memory_equal(back.enc, envelope.enc, sizeof(back.enc));
	assert_int_equal(back.sequence, envelope.sequence);
	assert_true(str_eq(back.ciphertext, envelope.ciphertext));
	buf_clear(&out);
}

static void test_bad_envelopes(void **state)
{
	(void)state;
	static char bytes[SEALED_MAX_BYTES + 1] = {ENVELOPE_VERSION};
	struct envelope env;
	struct err e = ERR_INIT;
	static const struct {
		size_t n;
		int result;
	} lengths[] = {
		{0, -1},
		{1, -1},
		{ENVELOPE_HEADER_BYTES, -1},
		{ENVELOPE_HEADER_BYTES + ENVELOPE_TAG_BYTES - 1, -1},
		{ENVELOPE_HEADER_BYTES + ENVELOPE_TAG_BYTES, 0},
		{SEALED_MAX_BYTES, 0},
		{SEALED_MAX_BYTES + 1, -1},
	};
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		e = ERR_INIT;
		assert_int_equal(envelope_decode(str_mem(bytes, lengths[i].n), &env, &e), lengths[i].result);
		assert_int_equal(e.kind, lengths[i].result < 0 ? ERR_REJECT : ERR_NONE);
	}
	static const char versions[] = {0, 2, 127};
	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		bytes[0] = versions[i];
		assert_int_equal(envelope_decode(str_mem(bytes, 100), &env, &e), -1);
	}
}

static void test_record_layout(void **state)
{
	(void)state;
	struct buf env, out;
	struct err e = ERR_INIT;
	struct sealed s = record_of(&env), back;
	buf_init(&out, SEALED_MAX_BYTES);
	sealed_encode(&s, &out);
	assert_int_equal(out.n, 1 + 16 + 8 + 1 + 6 + 1 + 4 + 1 + 55 + 2 + env.n);
	assert_memory_equal(out.p, "\x01\x01\x7f\x22\xe2\x79\xb0\x7c\xc3", 9);
	assert_memory_equal(out.p + 17, "\x00\x00\x01\xa0\xc4\x50\x6c\x7b", 8);
	assert_memory_equal(out.p + 25,
		"\x06"
		"till-7"
		"\x04"
		"shop"
		"\x37"
		"00-0af",
		19);
	assert_int_equal(sealed_decode(buf_str(&out), &back, &e), 0);
	assert_true(uuid_eq(&back.id, &s.id));
	assert_int_equal(back.accepted_at.ms, s.accepted_at.ms);
	assert_true(str_eq(back.client_id, s.client_id));
	assert_true(str_eq(back.domain, s.domain));
	assert_true(str_eq(back.traceparent, s.traceparent));
	assert_true(str_eq(back.envelope, s.envelope));

	/* cut anywhere, or with something behind it */
	for (size_t n = 0; n < out.n; n++) {
		assert_int_equal(sealed_decode(str_mem(out.p, n), &back, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
	}
	buf_add_char(&out, 0);
	assert_int_equal(sealed_decode(buf_str(&out), &back, &e), -1);
	buf_clear(&out);
	buf_clear(&env);
}

static void test_no_traceparent(void **state)
{
	(void)state;
	struct buf env, out;
	struct err e = ERR_INIT;
	struct sealed s = record_of(&env), back;
	s.traceparent = STR("");
	buf_init(&out, SEALED_MAX_BYTES);
	sealed_encode(&s, &out);
	assert_int_equal(sealed_decode(buf_str(&out), &back, &e), 0);
	assert_int_equal(back.traceparent.n, 0);
	buf_clear(&out);
	buf_clear(&env);
}

/* What one wrong fact does to a record that is otherwise good. */
static void test_bad_facts(void **state)
{
	(void)state;
	static const char long_name[] = "a1234567890123456789012345678901234567890123456789012345678901234";
	struct buf env;
	struct sealed good = record_of(&env);
	struct sealed cases[] = {good, good, good, good, good, good, good, good, good, good, good, good};
	cases[0].id.b[6] = 0x40; /* version 4 */
	cases[1].id.b[8] = 0x00;
	cases[2].accepted_at.ms = -1;
	cases[3].accepted_at.ms = 253402300800000; /* the year 10000 */
	cases[4].client_id = STR("");
	cases[5].client_id = STR("-a");
	cases[6].client_id = STR("a/b");
	cases[7].domain = STR("a\0b");
	cases[8].domain = str_of(long_name);
	cases[9].traceparent = STR("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0");
	cases[10].envelope = STR("");
	cases[11].envelope.n = ENVELOPE_HEADER_BYTES;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf out;
		struct err e = ERR_INIT;
		struct sealed back;
		buf_init(&out, SEALED_MAX_BYTES);
		sealed_encode(&cases[i], &out);
		assert_int_equal(sealed_decode(buf_str(&out), &back, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
		buf_clear(&out);
	}
	buf_clear(&env);
}

static void test_versions_and_size(void **state)
{
	(void)state;
	static const char unknown[] = {0, 2, 127};
	static char large[SEALED_MAX_BYTES + 1] = {1};
	struct buf env, out;
	struct err e = ERR_INIT;
	struct sealed s = record_of(&env), back;
	buf_init(&out, SEALED_MAX_BYTES);
	sealed_encode(&s, &out);
	for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
		out.p[0] = unknown[i];
		assert_int_equal(sealed_decode(buf_str(&out), &back, &e), -1);
		assert_int_equal(e.kind, ERR_REJECT);
	}
	assert_int_equal(sealed_decode(str_mem(large, sizeof(large)), &back, &e), -1);
	buf_clear(&out);
	buf_clear(&env);
}

/* The largest message there can be fits what the header promises. */
static void test_largest_fits(void **state)
{
	(void)state;
	static char ciphertext[MESSAGE_PAYLOAD_BYTES + ENVELOPE_TAG_BYTES];
	char name[CLIENT_NAME_BYTES];
	struct buf env, out;
	struct err e = ERR_INIT;
	struct envelope largest = envelope;
	struct sealed s = record_of(&env), back;
	largest.ciphertext = str_mem(ciphertext, sizeof(ciphertext));
	buf_reset(&env);
	envelope_encode(&largest, &env);
	s.envelope = buf_str(&env);
	memset(name, 'n', sizeof(name));
	s.client_id = s.domain = str_mem(name, sizeof(name));
	buf_init(&out, SEALED_MAX_BYTES);
	sealed_encode(&s, &out);
	assert_int_equal(buf_check(&out, &e), 0);
	assert_true(out.n < 9216);
	assert_int_equal(sealed_decode(buf_str(&out), &back, &e), 0);
	buf_clear(&out);
	buf_clear(&env);
}

static void test_traceparent(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool valid;
	} cases[] = {
		{TRACEPARENT, true},
		{"", false},
		{"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
		{"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g", false},
		{"00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01", false},
		{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-", false},
		{"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
		{"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false},
		{"00-00000000000000000000000000000000-b7ad6b7169203331-01", false},
		{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(traceparent_valid(str_of(cases[i].text)), cases[i].valid);
}

/* Each fact that counts changes the additional data; none can flow into its neighbour. */
static void test_additional_data(void **state)
{
	(void)state;
	struct buf env, good;
	struct sealed base = record_of(&env);
	struct sealed cases[] = {base, base, base, base, base};
	cases[0].id.b[15] ^= 1;
	cases[1].accepted_at.ms++;
	cases[2].client_id = STR("till-8");
	cases[3].domain = STR("shoq");
	cases[4].client_id = STR("till-7s"), cases[4].domain = STR("hop");
	buf_init(&good, 1024);
	sealed_additional_data(&base, &good);
	assert_int_equal(good.n, 1 + 16 + 8 + 1 + 6 + 1 + 4);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf other;
		buf_init(&other, 1024);
		sealed_additional_data(&cases[i], &other);
		assert_false(str_eq(buf_str(&good), buf_str(&other)));
		buf_clear(&other);
	}
	buf_clear(&good);
	buf_clear(&env);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_envelope_layout),
		cmocka_unit_test(test_bad_envelopes),
		cmocka_unit_test(test_record_layout),
		cmocka_unit_test(test_no_traceparent),
		cmocka_unit_test(test_bad_facts),
		cmocka_unit_test(test_versions_and_size),
		cmocka_unit_test(test_largest_fits),
		cmocka_unit_test(test_traceparent),
		cmocka_unit_test(test_additional_data),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
