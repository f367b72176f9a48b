/* sealed.c - see sealed.h; byte layouts in doc/protocol.md.
 *
 * Both decoders are strict: known version, every length bounded, names and times in range, nothing left over.
 * What they let through encodes to the same bytes again. */
#include "message/sealed.h"

#include "message/message.h"

enum {
	SEALED_VERSION = 1,
	TRACEPARENT_BYTES = 55,
};

/* 9999-12-31T23:59:59.999Z, the last moment that RFC 3339 can write. */
static const int64_t last_wall_ms = 253402300799999;

void envelope_encode(const struct envelope *env, struct buf *out)
{
	buf_add_u8(out, ENVELOPE_VERSION);
	buf_add(out, env->key_id, sizeof(env->key_id));
	buf_add(out, env->enc, sizeof(env->enc));
	buf_add_u64(out, env->sequence);
	buf_add_str(out, env->ciphertext);
}

int envelope_decode(struct str bytes, struct envelope *ret, struct err *e)
{
	if (bytes.n < ENVELOPE_HEADER_BYTES + ENVELOPE_TAG_BYTES)
		return err_set(e, ERR_REJECT, "envelope: too short");
	if (bytes.n > SEALED_MAX_BYTES)
		return err_set(e, ERR_REJECT, "envelope: too long");
	struct cursor c = cursor_of(bytes);
	uint8_t version = cursor_u8(&c);
	if (version != ENVELOPE_VERSION)
		return err_set(e, ERR_REJECT, "envelope: unknown version %u", version);
	cursor_copy(&c, ret->key_id, sizeof(ret->key_id));
	cursor_copy(&c, ret->enc, sizeof(ret->enc));
	ret->sequence = cursor_u64(&c);
	ret->ciphertext = cursor_bytes(&c, c.n);
	return 0;
}

static bool all_zero_digits(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != '0')
			return false;
	return true;
}

bool traceparent_valid(struct str s)
{
	if (s.n != TRACEPARENT_BYTES || !str_starts(s, STR("00-")))
		return false;
	for (size_t i = 3; i < s.n; i++) {
		char c = s.p[i];
		bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
		if (i == 35 || i == 52 ? c != '-' : !hex)
			return false;
	}
	return !all_zero_digits(str_mem(s.p + 3, 32)) && !all_zero_digits(str_mem(s.p + 36, 16));
}

static void add_short(struct buf *out, struct str s)
{
	require(s.n <= UINT8_MAX);
	buf_add_u8(out, (uint8_t)s.n);
	buf_add_str(out, s);
}

static struct str cursor_short(struct cursor *c)
{
	size_t n = cursor_u8(c);
	return cursor_bytes(c, n);
}

void sealed_encode(const struct sealed *s, struct buf *out)
{
	require(s->envelope.n <= UINT16_MAX);
	buf_add_u8(out, SEALED_VERSION);
	buf_add(out, s->id.b, sizeof(s->id.b));
	buf_add_u64(out, (uint64_t)s->accepted_at.ms);
	add_short(out, s->client_id);
	add_short(out, s->domain);
	add_short(out, s->traceparent);
	buf_add_u16(out, (uint16_t)s->envelope.n);
	buf_add_str(out, s->envelope);
}

static int check_facts(const struct sealed *s, struct err *e)
{
	if (!uuid_valid(&s->id))
		return err_set(e, ERR_REJECT, "sealed message: the id is no UUIDv7");
	if (s->accepted_at.ms < 0 || s->accepted_at.ms > last_wall_ms)
		return err_set(e, ERR_REJECT, "sealed message: accepted-at is out of range");
	if (!message_name_valid(s->client_id))
		return err_set(e, ERR_REJECT, "sealed message: bad client id");
	if (!message_name_valid(s->domain))
		return err_set(e, ERR_REJECT, "sealed message: bad domain");
	if (s->traceparent.n && !traceparent_valid(s->traceparent))
		return err_set(e, ERR_REJECT, "sealed message: bad traceparent");
	struct envelope env;
	return envelope_decode(s->envelope, &env, e);
}

int sealed_decode(struct str bytes, struct sealed *ret, struct err *e)
{
	if (bytes.n > SEALED_MAX_BYTES)
		return err_set(e, ERR_REJECT, "sealed message: too long");
	struct cursor c = cursor_of(bytes);
	uint8_t version = cursor_u8(&c);
	if (version != SEALED_VERSION)
		return err_set(e, ERR_REJECT, "sealed message: unknown version %u", version);
	struct sealed s = {0};
	cursor_copy(&c, s.id.b, sizeof(s.id.b));
	s.accepted_at.ms = (int64_t)cursor_u64(&c);
	s.client_id = cursor_short(&c);
	s.domain = cursor_short(&c);
	s.traceparent = cursor_short(&c);
	size_t envelope_bytes = cursor_u16(&c);
	s.envelope = cursor_bytes(&c, envelope_bytes);
	if (!cursor_done(&c))
		return err_set(e, ERR_REJECT, "sealed message: cut short or followed by something");
	if (check_facts(&s, e) < 0)
		return -1;
	*ret = s;
	return 0;
}

struct str sealed_client(struct str beginning)
{
	struct cursor c = cursor_of(beginning);
	uint8_t version = cursor_u8(&c);
	(void)cursor_bytes(&c, sizeof(((struct sealed *)NULL)->id.b) + sizeof(uint64_t));
	struct str client_id = cursor_short(&c);
	return version == SEALED_VERSION && !c.failed ? client_id : STR("");
}

void sealed_additional_data(const struct sealed *s, struct buf *out)
{
	buf_add_u8(out, SEALED_VERSION);
	buf_add(out, s->id.b, sizeof(s->id.b));
	buf_add_u64(out, (uint64_t)s->accepted_at.ms);
	add_short(out, s->client_id);
	add_short(out, s->domain);
}
