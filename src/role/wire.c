/* wire.c - see wire.h. */
#include "role/wire.h"

#include <openssl/evp.h>

#include "message/message.h"

/* --- reading members --- */

static int wrong(struct err *e, const char *key)
{
	return err_set(e, ERR_REJECT, "member '%s' is missing or wrong", key);
}

static struct str text_of(const json_t *in, const char *key)
{
	const json_t *value = json_object_get(in, key);
	return json_is_string(value) ? str_mem(json_string_value(value), json_string_length(value))
				     : (struct str){NULL, 0};
}

static int take_name(const json_t *in, const char *key, struct arena *arena, struct str *ret, struct err *e)
{
	struct str text = text_of(in, key);
	if (!text.p || !message_name_valid(text))
		return wrong(e, key);
	*ret = arena_copy(arena, text);
	return ret->p ? 0 : err_oom(e);
}

static int take_time(const json_t *in, const char *key, struct wall *ret, struct err *e)
{
	struct str text = text_of(in, key);
	return text.p && wall_parse(text, ret) ? 0 : wrong(e, key);
}

static int take_integer(const json_t *in, const char *key, int64_t max, int64_t *ret, struct err *e)
{
	const json_t *value = json_object_get(in, key);
	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > max)
		return wrong(e, key);
	*ret = json_integer_value(value);
	return 0;
}

static int take_hex(const json_t *in, const char *key, void *out, size_t n, struct err *e)
{
	struct str text = text_of(in, key);
	return text.p && hex_decode(text, out, n) ? 0 : wrong(e, key);
}

/* Base64 with padding (RFC 4648 section 4). */
static int take_base64(
	const json_t *in, const char *key, size_t max, struct arena *arena, struct str *ret, struct err *e)
{
	struct str text = text_of(in, key);
	if (!text.p || !text.n || text.n % 4 || text.n / 4 * 3 > max + 2)
		return wrong(e, key);
	unsigned char *bytes = arena_alloc(arena, text.n / 4 * 3);
	if (!bytes)
		return err_oom(e);
	int n = EVP_DecodeBlock(bytes, (const unsigned char *)text.p, (int)text.n);
	if (n < 0)
		return wrong(e, key);
	/* The decoder counts padding as zero bytes. */
	size_t padding = (text.p[text.n - 1] == '=') + (size_t)(text.p[text.n - 2] == '=');
	*ret = str_mem(bytes, (size_t)n - padding);
	return 0;
}

/* --- sealed messages --- */

void wire_put_sealed(struct json_out *w, const struct sealed *s, unsigned attempt_count)
{
	char id[UUID_TEXT_BYTES];
	UNFILLED unsigned char base64[(SEALED_MAX_BYTES + 2) / 3 * 4 + 1];
	uuid_format(&s->id, id);
	require(s->envelope.n <= SEALED_MAX_BYTES);
	int n = EVP_EncodeBlock(base64, (const unsigned char *)s->envelope.p, (int)s->envelope.n);
	json_open_object(w, NULL);
	json_put_str(w, "message_id", str_of(id));
	json_put_str(w, "client_id", s->client_id);
	json_put_str(w, "domain", s->domain);
	json_put_time(w, "queued_at", s->accepted_at);
	json_put_int(w, "attempt_count", attempt_count);
	if (s->traceparent.n)
		json_put_str(w, "traceparent", s->traceparent);
	json_put_str(w, "envelope", str_mem(base64, (size_t)n));
	json_close_object(w);
}

int wire_take_sealed(
	const json_t *in, struct arena *arena, struct sealed *ret, unsigned *ret_attempt_count, struct err *e)
{
	struct sealed s = {.traceparent = {"", 0}};
	int64_t attempts = 0;
	struct str id = text_of(in, "message_id"), trace = text_of(in, "traceparent");
	if (!id.p || !uuid_parse(id, &s.id))
		return wrong(e, "message_id");
	if (take_name(in, "client_id", arena, &s.client_id, e) < 0 ||
		take_name(in, "domain", arena, &s.domain, e) < 0 ||
		take_time(in, "queued_at", &s.accepted_at, e) < 0 ||
		take_integer(in, "attempt_count", UINT32_MAX, &attempts, e) < 0 ||
		take_base64(in, "envelope", SEALED_MAX_BYTES, arena, &s.envelope, e) < 0)
		return -1;
	if (trace.n > 64)
		return wrong(e, "traceparent");
	if (trace.n) {
		s.traceparent = arena_copy(arena, trace);
		if (!s.traceparent.p)
			return err_oom(e);
	}
	*ret = s;
	*ret_attempt_count = (unsigned)attempts;
	return 0;
}

/* --- registry rows --- */

static const char *const status_names[] = {
	[REGISTRY_ACTIVE] = "active",
	[REGISTRY_REVOKED] = "revoked",
	[REGISTRY_SUSPENDED] = "suspended",
};

void wire_put_row(struct json_out *w, const struct registry_row *row)
{
	char serial[2 * IDENTITY_SERIAL_BYTES + 1], issuer[2 * IDENTITY_KEY_ID_BYTES + 1];
	hex_encode(row->serial, row->serial_bytes, serial);
	hex_encode(row->issuer_key_id, sizeof(row->issuer_key_id), issuer);
	json_open_object(w, NULL);
	json_put_str(w, "serial", str_of(serial));
	json_put_str(w, "issuer_key_id", str_of(issuer));
	json_put_str(w, "status", str_of(status_names[row->status]));
	json_put_str(w, "role", str_of(role_name(row->role)));
	json_put_str(w, "name", row->name);
	json_put_str(w, "domain", row->domain);
	json_put_time(w, "not_after", row->not_after);
	json_put_int(w, "change", row->change);
	json_close_object(w);
}

static int take_status(const json_t *in, enum registry_status *ret, struct err *e)
{
	struct str text = text_of(in, "status");
	for (unsigned i = 0; i < ARRAY_LEN(status_names); i++)
		if (text.p && str_eq(text, str_of(status_names[i]))) {
			*ret = i;
			return 0;
		}
	return wrong(e, "status");
}

void wire_put_seen(struct json_out *w, const struct registry_seen *seen)
{
	char serial[2 * IDENTITY_SERIAL_BYTES + 1], issuer[2 * IDENTITY_KEY_ID_BYTES + 1];
	hex_encode(seen->serial, seen->serial_bytes, serial);
	hex_encode(seen->issuer_key_id, sizeof(seen->issuer_key_id), issuer);
	json_open_object(w, NULL);
	json_put_str(w, "serial", str_of(serial));
	json_put_str(w, "issuer_key_id", str_of(issuer));
	json_put_time(w, "at", seen->at);
	json_close_object(w);
}

int wire_take_seen(const json_t *in, struct registry_seen *ret, struct err *e)
{
	struct registry_seen seen = {0};
	struct str serial = text_of(in, "serial");
	seen.serial_bytes = (unsigned)(serial.n / 2);
	if (!serial.n || seen.serial_bytes > sizeof(seen.serial))
		return wrong(e, "serial");
	if (take_hex(in, "serial", seen.serial, seen.serial_bytes, e) < 0 ||
		take_hex(in, "issuer_key_id", seen.issuer_key_id, sizeof(seen.issuer_key_id), e) < 0 ||
		take_time(in, "at", &seen.at, e) < 0)
		return -1;
	*ret = seen;
	return 0;
}

int wire_take_row(const json_t *in, struct arena *arena, struct registry_row *ret, struct err *e)
{
	struct registry_row row = {0};
	struct str role = text_of(in, "role"), serial = text_of(in, "serial");
	row.serial_bytes = (unsigned)(serial.n / 2);
	if (!serial.n || row.serial_bytes > sizeof(row.serial))
		return wrong(e, "serial");
	if (!role.p || !role_parse(role, &row.role))
		return wrong(e, "role");
	if (take_hex(in, "serial", row.serial, row.serial_bytes, e) < 0 ||
		take_hex(in, "issuer_key_id", row.issuer_key_id, sizeof(row.issuer_key_id), e) < 0 ||
		take_status(in, &row.status, e) < 0 || take_name(in, "name", arena, &row.name, e) < 0 ||
		take_name(in, "domain", arena, &row.domain, e) < 0 ||
		take_time(in, "not_after", &row.not_after, e) < 0 ||
		take_integer(in, "change", INT64_MAX, &row.change, e) < 0)
		return -1;
	*ret = row;
	return 0;
}

/* --- sealing keys --- */

void wire_put_key(struct json_out *w, const char *name, const struct sealing_public *key)
{
	char id[2 * ENVELOPE_KEY_ID_BYTES + 1], bytes[2 * HPKE_KEY_BYTES + 1];
	hex_encode(key->key_id, sizeof(key->key_id), id);
	hex_encode(key->public_key, sizeof(key->public_key), bytes);
	json_open_object(w, name);
	json_put_str(w, "key_id", str_of(id));
	json_put_str(w, "public_key", str_of(bytes));
	json_close_object(w);
}

int wire_take_key(const json_t *in, struct sealing_public *ret, struct err *e)
{
	struct sealing_public key;
	if (take_hex(in, "key_id", key.key_id, sizeof(key.key_id), e) < 0 ||
		take_hex(in, "public_key", key.public_key, sizeof(key.public_key), e) < 0)
		return -1;
	*ret = key;
	return 0;
}
