/* message.c - see message.h.
 *
 * This is the hot path of ingest: one pass over the text with json_reader, no allocation except for strings
 * with escapes and for the names inside metadata. Broken syntax ends the pass and is then the only problem
 * reported; whatever else is wrong is collected, so that a client can mend all of it at once. */
#include "message/message.h"

#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "message/json_reader.h"

enum {
	PAYLOAD_VERSION = 1,
	NUMBER_BYTES_MIN = 3, /* "+", a digit from 1 to 9, at least one more */
	NUMBER_BYTES_MAX = 16,
	/* Enough for the longest metadata: a member has at least five bytes and costs at most 64. */
	METADATA_ARENA_BYTES = 16 * MESSAGE_METADATA_BYTES,
};

enum rule {
	RULE_KEPT,
	RULE_REQUIRED,
	RULE_WRONG_TYPE_DOCUMENT,
	RULE_WRONG_TYPE_STRING,
	RULE_WRONG_TYPE_OBJECT,
	RULE_UNKNOWN_MEMBER,
	RULE_DUPLICATE_MEMBER,
	RULE_NOT_E164,
	RULE_BODY_EMPTY,
	RULE_BODY_TOO_LONG,
	RULE_BODY_NUL,
	RULE_METADATA_TOO_LONG,
	RULE_METADATA_DUPLICATE,
};

static const struct {
	const char *code, *detail;
} rules[] = {
	[RULE_REQUIRED] = {"required", "this member is missing"},
	[RULE_WRONG_TYPE_DOCUMENT] = {"wrong_type", "a message is a JSON object"},
	[RULE_WRONG_TYPE_STRING] = {"wrong_type", "must be a string"},
	[RULE_WRONG_TYPE_OBJECT] = {"wrong_type", "must be an object"},
	[RULE_UNKNOWN_MEMBER] = {"unknown_member", "a message has no such member"},
	[RULE_DUPLICATE_MEMBER] = {"duplicate_member", "this member is there twice"},
	[RULE_NOT_E164] = {"not_e164", "must be a plus sign, a digit from 1 to 9 and 1 to 14 more digits"},
	[RULE_BODY_EMPTY] = {"empty", "must have at least one character"},
	[RULE_BODY_TOO_LONG] = {"too_long", "must have at most 1000 Unicode code points"},
	[RULE_BODY_NUL] = {"nul", "must not contain U+0000"},
	[RULE_METADATA_TOO_LONG] = {"too_long", "must be at most 4096 bytes of JSON"},
	[RULE_METADATA_DUPLICATE] = {"duplicate_member", "an object in here has two members of one name"},
};

_Static_assert(
	MESSAGE_BODY_CODE_POINTS == 1000 && MESSAGE_METADATA_BYTES == 4096, "the details above say so");

/* --- the single rules --- */

bool message_number_valid(struct str s)
{
	if (s.n < NUMBER_BYTES_MIN || s.n > NUMBER_BYTES_MAX || s.p[0] != '+' || s.p[1] == '0')
		return false;
	for (size_t i = 1; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return true;
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
	       c == '_' || c == '-';
}

/* Nothing but letters, digits and "._-", short: such a name may be shown, and needs no escape in a pointer.
 */
static bool is_plain(struct str s)
{
	if (s.n == 0 || s.n > CLIENT_NAME_BYTES)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!is_name_char(s.p[i]))
			return false;
	return true;
}

bool message_name_valid(struct str s)
{
	return is_plain(s) && s.p[0] != '.' && s.p[0] != '_' && s.p[0] != '-';
}

static enum rule body_rule(size_t code_points, bool has_nul)
{
	if (code_points == 0)
		return RULE_BODY_EMPTY;
	if (code_points > MESSAGE_BODY_CODE_POINTS)
		return RULE_BODY_TOO_LONG;
	return has_nul ? RULE_BODY_NUL : RULE_KEPT;
}

/* --- problems --- */

static void add_problem(
	struct message_problems *problems, struct str member, const char *code, const char *detail)
{
	if (problems->count == MESSAGE_PROBLEMS)
		return;
	struct message_problem *problem = &problems->items[problems->count++];
	problem->code = code;
	if (is_plain(member))
		snprintf(problem->pointer, sizeof(problem->pointer), "/%.*s", STR_ARG(member));
	else
		problem->pointer[0] = 0;
	snprintf(problem->detail, sizeof(problem->detail), "%s", detail);
}

static void break_rule(struct message_problems *problems, struct str member, enum rule rule)
{
	if (rule != RULE_KEPT)
		add_problem(problems, member, rules[rule].code, rules[rule].detail);
}

static void add_reader_problem(
	struct message_problems *problems, struct str member, const struct json_reader *r)
{
	char detail[sizeof(problems->items[0].detail)];
	reader_describe(r, detail, sizeof(detail));
	add_problem(problems, member, reader_error_code(r->error), detail);
}

/* --- parsing --- */

struct parse {
	struct json_reader reader;
	struct arena *arena;
	struct message *message;
	struct message_problems *problems;
	struct str member; /* being read; empty between members */
	unsigned seen;     /* bit per row of `fields` */
};

static void refuse_value(struct parse *p, enum rule rule)
{
	struct str source;
	if (reader_skip(&p->reader, &source))
		break_rule(p->problems, p->member, rule);
}

static void read_sender_number(struct parse *p)
{
	struct reader_string s;
	if (reader_peek(&p->reader) != READER_STRING)
		refuse_value(p, RULE_WRONG_TYPE_STRING);
	else if (reader_string(&p->reader, &s)) {
		p->message->sender_number = s.text;
		break_rule(p->problems, p->member, message_number_valid(s.text) ? RULE_KEPT : RULE_NOT_E164);
	}
}

static void read_message_body(struct parse *p)
{
	struct reader_string s;
	if (reader_peek(&p->reader) != READER_STRING)
		refuse_value(p, RULE_WRONG_TYPE_STRING);
	else if (reader_string(&p->reader, &s)) {
		p->message->body = s.text;
		break_rule(p->problems, p->member, body_rule(s.code_points, s.has_nul));
	}
}

/* Reads `source`, which should be one object and nothing around it. False: the reader's error says why. */
static bool check_metadata(struct json_reader *r, struct str source, struct arena *arena, enum rule *ret_rule)
{
	struct str object;
	bool unique;
	reader_init(r, source, MESSAGE_METADATA_DEPTH, arena);
	enum reader_kind kind = reader_peek(r);
	if (!reader_skip_unique(r, &object, &unique) || !reader_finish(r))
		return false;
	if (kind != READER_OBJECT || object.n != source.n)
		*ret_rule = RULE_WRONG_TYPE_OBJECT;
	else
		*ret_rule = unique ? RULE_KEPT : RULE_METADATA_DUPLICATE;
	return true;
}

/* The outer reader finds where the object ends, so that its length is known before names are gathered. */
static void read_metadata(struct parse *p)
{
	if (reader_peek(&p->reader) != READER_OBJECT) {
		refuse_value(p, RULE_WRONG_TYPE_OBJECT);
		return;
	}
	struct str source;
	if (!reader_skip(&p->reader, &source))
		return;
	enum rule rule = RULE_METADATA_TOO_LONG;
	struct json_reader inner;
	if (source.n <= MESSAGE_METADATA_BYTES && !check_metadata(&inner, source, p->arena, &rule)) {
		p->reader.error = inner.error; /* only memory can still be wrong */
		return;
	}
	p->message->metadata = source;
	break_rule(p->problems, p->member, rule);
}

static const struct field {
	struct str name;
	bool required;
	void (*read)(struct parse *p);
} fields[] = {
	{{"sender_number", 13}, true, read_sender_number},
	{{"message_body", 12}, true, read_message_body},
	{{"metadata", 8}, false, read_metadata},
};

static void read_member(struct parse *p)
{
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		if (!str_eq(p->member, fields[i].name))
			continue;
		if (p->seen & 1u << i)
			refuse_value(p, RULE_DUPLICATE_MEMBER);
		else
			fields[i].read(p);
		p->seen |= 1u << i;
		return;
	}
	refuse_value(p, RULE_UNKNOWN_MEMBER);
}

static void read_members(struct parse *p)
{
	struct str name;
	while (reader_next_member(&p->reader, &name)) {
		p->member = name;
		read_member(p);
		if (p->reader.error)
			return; /* within this member */
		p->member = STR("");
	}
	for (size_t i = 0; !p->reader.error && i < ARRAY_LEN(fields); i++)
		if (fields[i].required && !(p->seen & 1u << i))
			break_rule(p->problems, fields[i].name, RULE_REQUIRED);
}

int message_parse(struct str json, struct arena *arena, struct message *ret,
	struct message_problems *ret_problems, struct err *e)
{
	struct message message = {0};
	struct parse p = {.arena = arena, .message = &message, .problems = ret_problems};
	ret_problems->count = 0;
	reader_init(&p.reader, json, MESSAGE_METADATA_DEPTH + 1, arena);
	if (reader_peek(&p.reader) != READER_OBJECT)
		refuse_value(&p, RULE_WRONG_TYPE_DOCUMENT);
	else if (reader_enter(&p.reader))
		read_members(&p);
	if (!reader_finish(&p.reader)) {
		if (p.reader.error == READER_NO_MEMORY)
			return err_oom(e);
		ret_problems->count = 0;
		add_reader_problem(ret_problems, p.member, &p.reader);
	}
	if (ret_problems->count)
		return MESSAGE_INVALID;
	*ret = message;
	return 0;
}

/* --- payload codec: doc/protocol.md --- */

void message_encode(const struct message *m, struct buf *out)
{
	require(m->sender_number.n <= UINT8_MAX && m->body.n <= UINT16_MAX && m->metadata.n <= UINT16_MAX);
	buf_add_u8(out, PAYLOAD_VERSION);
	buf_add_u8(out, (uint8_t)m->sender_number.n);
	buf_add_str(out, m->sender_number);
	buf_add_u16(out, (uint16_t)m->body.n);
	buf_add_str(out, m->body);
	buf_add_u16(out, (uint16_t)m->metadata.n);
	buf_add_str(out, m->metadata);
}

static int decode_body(struct str body, struct err *e)
{
	size_t code_points;
	if (!utf8_valid(body, &code_points))
		return err_set(e, ERR_REJECT, "payload: the body is not UTF-8");
	bool has_nul = body.n && memchr(body.p, 0, body.n);
	if (body_rule(code_points, has_nul) != RULE_KEPT)
		return err_set(e, ERR_REJECT, "payload: bad body");
	return 0;
}

static int decode_metadata(struct str metadata, struct err *e)
{
	if (!metadata.n)
		return 0;
	if (metadata.n > MESSAGE_METADATA_BYTES)
		return err_set(e, ERR_REJECT, "payload: metadata too long");
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, METADATA_ARENA_BYTES);
	struct json_reader r;
	enum rule rule;
	if (!check_metadata(&r, metadata, &arena, &rule))
		return r.error == READER_NO_MEMORY ? err_oom(e)
						   : err_set(e, ERR_REJECT, "payload: bad metadata");
	if (rule != RULE_KEPT)
		return err_set(e, ERR_REJECT, "payload: bad metadata");
	return 0;
}

int message_decode(struct str payload, struct message *ret, struct err *e)
{
	struct cursor c = cursor_of(payload);
	uint8_t version = cursor_u8(&c);
	if (version != PAYLOAD_VERSION)
		return err_set(e, ERR_REJECT, "payload: unknown version %u", version);
	struct message m;
	size_t number_bytes = cursor_u8(&c);
	m.sender_number = cursor_bytes(&c, number_bytes);
	size_t body_bytes = cursor_u16(&c);
	m.body = cursor_bytes(&c, body_bytes);
	size_t metadata_bytes = cursor_u16(&c);
	m.metadata = cursor_bytes(&c, metadata_bytes);
	if (!cursor_done(&c))
		return err_set(e, ERR_REJECT, "payload: cut short or followed by something");
	if (!message_number_valid(m.sender_number))
		return err_set(e, ERR_REJECT, "payload: bad sender number");
	if (decode_body(m.body, e) < 0 || decode_metadata(m.metadata, e) < 0)
		return -1;
	*ret = m;
	return 0;
}
