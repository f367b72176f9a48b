#include "crypto/seal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/scratch_test.h"

AUTO_DEFINE(sealer_free, struct sealer *)
AUTO_DEFINE(opener_free, struct opener *)
AUTO_DEFINE(keyring_free, struct keyring *)

static const struct message message = {
	.sender_number = {"+4915112345678", 14},
	.body = {"Gr\xc3\xbc\xc3\x9f.", 7},
	.metadata = {"{\"a\":1}", 7},
};

static const int64_t hour_ms = 3600000;

/* A key directory, a clock, and both sides. */
struct fixture {
	const char *dir;
	struct clock_fake clock;
	struct keyring *keyring;
	struct sealer *sealer;
	struct opener *opener;
	struct uuid_source ids;
};

static void use_active_key(struct fixture *f)
{
	struct sealing_public active;
	keyring_active(f->keyring, &active);
	sealer_set_key(f->sealer, &active);
}

static int set_up(void **state)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;
	struct err e = ERR_INIT;
	*f = (struct fixture){.dir = "keys"};
	assert_int_equal(scratch_enter(state), 0);
	clock_fake_init(&f->clock, (struct wall){1790000000000});
	uuid_source_init(&f->ids, &f->clock.clock, 0);
	assert_int_equal(keyring_init(f->dir, &f->clock.clock, &e), 0);
	assert_int_equal(keyring_load(f->dir, &f->keyring, &e), 0);
	assert_int_equal(sealer_new(&f->clock.clock, &f->sealer, &e), 0);
	assert_int_equal(opener_new(f->keyring, &f->opener, &e), 0);
	use_active_key(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	opener_free(f->opener);
	sealer_free(f->sealer);
	keyring_free(f->keyring);
	return scratch_leave(state);
}

/* A sealed message with storage of its own. */
struct letter {
	struct sealed facts;
	char envelope[SEALED_MAX_BYTES];
};

static void seal(struct fixture *f, struct letter *ret)
{
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf out;
	buf_init(&out, SEALED_MAX_BYTES);
	ret->facts = (struct sealed){
		.accepted_at = clock_wall(&f->clock.clock),
		.client_id = STR("till-7"),
		.domain = STR("shop"),
	};
	assert_int_equal(uuid_next(&f->ids, &ret->facts.id, &e), 0);
	assert_int_equal(sealer_seal(f->sealer, &ret->facts, &message, &out, &e), 0);
	memcpy(ret->envelope, out.p, out.n);
	ret->facts.envelope = str_mem(ret->envelope, out.n);
}

static void assert_opens(struct fixture *f, const struct letter *letter)
{
	struct err e = ERR_INIT;
	struct message got;
	AUTO(buf_wipe_auto) struct buf plaintext;
	buf_init(&plaintext, MESSAGE_PAYLOAD_BYTES);
	assert_int_equal(opener_open(f->opener, &letter->facts, &plaintext, &got, &e), 0);
	assert_true(str_eq(got.sender_number, message.sender_number));
	assert_true(str_eq(got.body, message.body));
	assert_true(str_eq(got.metadata, message.metadata));
}

static void assert_refused(struct fixture *f, const struct letter *letter)
{
	struct err e = ERR_INIT;
	struct message got;
	AUTO(buf_wipe_auto) struct buf plaintext;
	buf_init(&plaintext, MESSAGE_PAYLOAD_BYTES);
	assert_int_equal(opener_open(f->opener, &letter->facts, &plaintext, &got, &e), -1);
	assert_int_equal(e.kind, ERR_REJECT);
}

static struct envelope envelope_of(const struct letter *letter)
{
	struct err e = ERR_INIT;
	struct envelope env;
	assert_int_equal(envelope_decode(letter->facts.envelope, &env, &e), 0);
	return env;
}

static bool same_enc(const struct letter *a, const struct letter *b)
{
	struct envelope x = envelope_of(a), y = envelope_of(b);
	return memcmp(x.enc, y.enc, sizeof(x.enc)) == 0;
}

static void test_round_trip(void **state)
{
	struct fixture *f = *state;
	struct letter a, b;
	seal(f, &a);
	seal(f, &b);
	assert_true(same_enc(&a, &b));
	assert_int_equal(envelope_of(&a).sequence, 0);
	assert_int_equal(envelope_of(&b).sequence, 1);
	assert_opens(f, &b);
	assert_opens(f, &a);
	assert_opens(f, &a);
}

static void test_no_key_yet(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	AUTO(sealer_free_auto) struct sealer *s = NULL;
	AUTO(buf_auto) struct buf out;
	buf_init(&out, SEALED_MAX_BYTES);
	struct sealed facts = {.client_id = STR("a"), .domain = STR("b")};
	assert_int_equal(sealer_new(&f->clock.clock, &s, &e), 0);
	assert_int_equal(sealer_seal(s, &facts, &message, &out, &e), -1);
	assert_int_equal(e.kind, ERR_RETRY);
}

static void test_no_room_leaves_out_alone(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	struct sealed facts = {.client_id = STR("a"), .domain = STR("b")};
	for (size_t room = 1; room < ENVELOPE_HEADER_BYTES + 20; room += 7) {
		AUTO(buf_auto) struct buf out;
		buf_init(&out, room);
		buf_add_char(&out, 'x');
		assert_int_equal(sealer_seal(f->sealer, &facts, &message, &out, &e), -1);
		assert_true(str_eq(buf_str(&out), STR("x")));
	}
}

static void test_each_changed_byte_is_refused(void **state)
{
	struct fixture *f = *state;
	struct letter letter;
	seal(f, &letter);
	for (size_t i = 0; i < letter.facts.envelope.n; i++) {
		letter.envelope[i] ^= 1;
		assert_refused(f, &letter);
		letter.envelope[i] ^= 1;
	}
	size_t whole = letter.facts.envelope.n;
	for (size_t n = 0; n < whole; n++) {
		letter.facts.envelope.n = n;
		assert_refused(f, &letter);
	}
	letter.facts.envelope.n = whole;
	assert_opens(f, &letter);
}

static void test_changed_facts_are_refused(void **state)
{
	struct fixture *f = *state;
	struct letter a, b, wrong;
	seal(f, &a);
	clock_fake_advance_ms(&f->clock, 5);
	seal(f, &b);

	wrong = a, wrong.facts.id = b.facts.id;
	assert_refused(f, &wrong);
	wrong = a, wrong.facts.accepted_at = b.facts.accepted_at;
	assert_refused(f, &wrong);
	wrong = a, wrong.facts.client_id = STR("till-8");
	assert_refused(f, &wrong);
	wrong = a, wrong.facts.domain = STR("shoq");
	assert_refused(f, &wrong);
	/* the same bytes, cut at another place */
	wrong = a, wrong.facts.client_id = STR("till-7s"), wrong.facts.domain = STR("hop");
	assert_refused(f, &wrong);
	/* two rows that swap their ciphertexts */
	wrong = a, wrong.facts.envelope = b.facts.envelope;
	assert_refused(f, &wrong);
	/* the trace context may be rewritten on the way */
	wrong = a, wrong.facts.traceparent = STR("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	assert_opens(f, &wrong);
	assert_opens(f, &b);
}

/* The letter's envelope with `change` applied, encoded again. */
static void reseal(struct letter *letter, const struct envelope *env)
{
	AUTO(buf_auto) struct buf out;
	buf_init(&out, SEALED_MAX_BYTES);
	envelope_encode(env, &out);
	assert_int_equal(out.n, letter->facts.envelope.n);
	memcpy(letter->envelope, out.p, out.n);
}

static void test_changed_header_is_refused(void **state)
{
	struct fixture *f = *state;
	struct letter a, b;
	seal(f, &a);
	clock_fake_advance_ms(&f->clock, hour_ms);
	seal(f, &b);
	assert_false(same_enc(&a, &b));
	AUTO(buf_auto) struct buf good;
	buf_init(&good, SEALED_MAX_BYTES);
	buf_add_str(&good, a.facts.envelope);
	struct envelope env;
	struct err e = ERR_INIT;

	assert_int_equal(envelope_decode(buf_str(&good), &env, &e), 0);
	memset(env.key_id, 0x55, sizeof(env.key_id));
	reseal(&a, &env);
	assert_refused(f, &a);

	static const uint64_t sequences[] = {1, 2, 255, (uint64_t)1 << 32, UINT64_MAX};
	for (size_t i = 0; i < ARRAY_LEN(sequences); i++) {
		assert_int_equal(envelope_decode(buf_str(&good), &env, &e), 0);
		env.sequence = sequences[i];
		reseal(&a, &env);
		assert_refused(f, &a);
	}

	assert_int_equal(envelope_decode(buf_str(&good), &env, &e), 0);
	struct envelope other = envelope_of(&b);
	memcpy(env.enc, other.enc, sizeof(env.enc));
	reseal(&a, &env);
	assert_refused(f, &a);

	memset(env.enc, 0, sizeof(env.enc)); /* of small order */
	reseal(&a, &env);
	assert_refused(f, &a);
}

static void test_epochs(void **state)
{
	struct fixture *f = *state;
	struct letter first, last, next;
	seal(f, &first);
	clock_fake_advance_ms(&f->clock, hour_ms - 1);
	seal(f, &last);
	assert_true(same_enc(&first, &last));
	clock_fake_advance_ms(&f->clock, 1);
	seal(f, &next);
	assert_false(same_enc(&first, &next));
	assert_int_equal(envelope_of(&next).sequence, 0);
	assert_opens(f, &first);
	assert_opens(f, &last);
	assert_opens(f, &next);
}

static void test_rotation(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	struct letter before, same, after;
	uint8_t key_id[ENVELOPE_KEY_ID_BYTES];
	seal(f, &before);
	use_active_key(f); /* the same key again: the epoch goes on */
	seal(f, &same);
	assert_true(same_enc(&before, &same));
	assert_opens(f, &before);

	struct keyring *old = f->keyring;
	assert_int_equal(keyring_rotate(f->dir, &f->clock.clock, key_id, &e), 0);
	assert_int_equal(keyring_load(f->dir, &f->keyring, &e), 0);
	use_active_key(f);
	seal(f, &after);
	assert_false(same_enc(&before, &after));
	struct envelope env = envelope_of(&after);
	assert_memory_equal(env.key_id, key_id, sizeof(key_id));
	assert_refused(f, &after); /* the opener has the old keyring */

	opener_set_keyring(f->opener, f->keyring);
	keyring_free(old);
	assert_opens(f, &after);
	assert_opens(f, &before);
}

/* More epochs than the opener keeps contexts for, opened twice over and in both directions. */
static void test_many_contexts(void **state)
{
	enum { LETTERS = 80 };
	struct fixture *f = *state;
	static struct letter letters[LETTERS];
	for (size_t i = 0; i < LETTERS; i++) {
		seal(f, &letters[i]);
		clock_fake_advance_ms(&f->clock, hour_ms);
	}
	for (size_t i = 0; i < LETTERS; i++)
		assert_opens(f, &letters[i]);
	for (size_t i = LETTERS; i-- > 0;)
		assert_opens(f, &letters[i]);
}

/* A proxy could seal what message_parse refuses; the opener does not pass it on. */
static void test_invalid_payload_is_refused(void **state)
{
	struct fixture *f = *state;
	struct err e = ERR_INIT;
	struct letter letter = {.facts = {.client_id = STR("a"), .domain = STR("b")}};
	static const struct message bad = {.sender_number = {"0151", 4}, .body = {"text", 4}};
	AUTO(buf_auto) struct buf out;
	buf_init(&out, SEALED_MAX_BYTES);
	assert_int_equal(uuid_next(&f->ids, &letter.facts.id, &e), 0);
	assert_int_equal(sealer_seal(f->sealer, &letter.facts, &bad, &out, &e), 0);
	letter.facts.envelope = buf_str(&out);
	assert_refused(f, &letter);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_key_yet, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_room_leaves_out_alone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_each_changed_byte_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_changed_facts_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_changed_header_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_epochs, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rotation, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many_contexts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_invalid_payload_is_refused, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
