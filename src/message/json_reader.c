/* json_reader.c - see json_reader.h.
 *
 * Strings are most of a message, so they are scanned eight bytes at a time for what ends or interrupts them;
 * a second look is taken only at those that hold an escape or a byte outside ASCII. jansson is the yardstick:
 * a unit test and a fuzz target hold the verdicts of the two against each other. */
#include "message/json_reader.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "message/name_set.h"

static bool fail(struct json_reader *r, enum reader_error error, const char *at, const char *text)
{
	if (r->error == READER_OK) {
		r->error = error;
		r->error_at = at;
		r->error_text = text;
	}
	return false;
}

/* Whether a character starts here; it may be cut off by the end of the text. */
static bool utf8_starts(const char *p, const char *end)
{
	for (size_t n = 1; n <= 4 && n <= (size_t)(end - p); n++)
		if (utf8_valid(str_mem(p, n), NULL))
			return true;
	return false;
}

/* What is wrong at a byte that does not belong to UTF-8 is just that. */
static bool fail_at(struct json_reader *r, enum reader_error error, const char *at, const char *text)
{
	if (at < r->end && !utf8_starts(at, r->end))
		return fail(r, READER_INVALID_UTF8, at, "not UTF-8");
	return fail(r, error, at, text);
}

static bool fail_syntax(struct json_reader *r, const char *at, const char *text)
{
	return fail_at(r, READER_MALFORMED, at, text);
}

void reader_init(struct json_reader *r, struct str text, unsigned depth_limit, struct arena *arena)
{
	*r = (struct json_reader){
		.start = text.p,
		.p = text.p,
		.end = text.p + text.n,
		.arena = arena,
		.depth_limit = depth_limit,
	};
}

static void skip_space(struct json_reader *r)
{
	while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t'))
		r->p++;
}

static bool at(const struct json_reader *r, char c)
{
	return r->p < r->end && *r->p == c;
}

static bool at_digit(const struct json_reader *r)
{
	return r->p < r->end && *r->p >= '0' && *r->p <= '9';
}

enum reader_kind reader_peek(struct json_reader *r)
{
	if (r->error)
		return READER_NOTHING;
	skip_space(r);
	if (r->p < r->end) {
		switch (*r->p) {
		case '{':
			return READER_OBJECT;
		case '[':
			return READER_ARRAY;
		case '"':
			return READER_STRING;
		case 't':
		case 'f':
		case 'n':
			return READER_LITERAL;
		case '-':
		case '0' ... '9':
			return READER_NUMBER;
		}
	}
	fail_syntax(r, r->p, "expected a value");
	return READER_NOTHING;
}

bool reader_enter(struct json_reader *r)
{
	require(at(r, '{') || at(r, '['));
	if (r->depth == r->depth_limit)
		return fail(r, READER_TOO_DEEP, r->p, "nested too deeply");
	r->depth++;
	r->p++;
	r->first = true;
	return true;
}

/* Goes to the next element of the container, or past its end. */
static bool next_element(struct json_reader *r, char close, const char *expected)
{
	if (r->error)
		return false;
	skip_space(r);
	if (at(r, close)) {
		r->p++;
		r->depth--;
		r->first = false;
		return false;
	}
	if (!r->first) {
		if (!at(r, ','))
			return fail_syntax(r, r->p, expected);
		r->p++;
	}
	r->first = false;
	return true;
}

bool reader_next_item(struct json_reader *r)
{
	return next_element(r, ']', "expected a comma or the end of the array");
}

/* A string as it stands in the text, between the quotes. */
struct raw_string {
	struct str source;
	size_t code_points; /* of the source; not meant when `escaped` */
	bool escaped, has_nul;
};

static const uint64_t each_byte = 0x0101010101010101;
static const uint64_t each_high_bit = 0x8080808080808080;

/* High bit set somewhere if a byte of the word is zero; never set for bytes of 0x80 and above. */
static uint64_t zero_bytes(uint64_t word)
{
	return (word - each_byte) & ~word & each_high_bit;
}

/* Whether one of the eight bytes is a quote, a backslash or below 0x20. */
static bool has_special(uint64_t word)
{
	uint64_t control = (word - each_byte * 0x20) & ~word & each_high_bit;
	return (control | zero_bytes(word ^ each_byte * '"') | zero_bytes(word ^ each_byte * '\\')) != 0;
}

/* Moves r->p to the next quote, backslash, control character or the end; gathers the high bits passed over.
 */
static void skip_plain(struct json_reader *r, uint64_t *high_bits)
{
	uint64_t word;
	while ((size_t)(r->end - r->p) >= sizeof(word)) {
		memcpy(&word, r->p, sizeof(word));
		if (has_special(word))
			break;
		*high_bits |= word & each_high_bit;
		r->p += sizeof(word);
	}
	for (; r->p < r->end; r->p++) {
		unsigned char c = (unsigned char)*r->p;
		if (c < 0x20 || c == '"' || c == '\\')
			return;
		*high_bits |= c & 0x80;
	}
}

static int hex_value(char c)
{
	unsigned digit = (unsigned)c - '0', letter = ((unsigned)c | 0x20) - 'a';
	if (digit < 10)
		return (int)digit;
	return letter < 6 ? (int)letter + 10 : -1;
}

/* The UTF-16 code unit of "\uXXXX" at p, or -1 when that is not what stands there. */
static int32_t escaped_unit(const char *p, const char *end)
{
	if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
		return -1;
	int32_t unit = 0;
	for (int i = 2; i < 6; i++) {
		int digit = hex_value(p[i]);
		if (digit < 0)
			return -1;
		unit = unit << 4 | digit;
	}
	return unit;
}

static bool is_high_surrogate(int32_t unit)
{
	return unit >= 0xd800 && unit <= 0xdbff;
}

static bool is_low_surrogate(int32_t unit)
{
	return unit >= 0xdc00 && unit <= 0xdfff;
}

/* Checks and passes one escape. */
static bool skip_escape(struct json_reader *r, bool *has_nul)
{
	static const char single[] = "\"\\/bfnrt";
	if (r->end - r->p >= 2 && memchr(single, r->p[1], sizeof(single) - 1)) {
		r->p += 2;
		return true;
	}
	int32_t unit = escaped_unit(r->p, r->end);
	if (unit < 0)
		return fail_syntax(r, r->p, "unknown escape in a string");
	*has_nul |= unit == 0;
	bool pair = is_high_surrogate(unit) && is_low_surrogate(escaped_unit(r->p + 6, r->end));
	if (!pair && (is_high_surrogate(unit) || is_low_surrogate(unit)) && !r->text_unchecked)
		return fail(r, READER_LONE_SURROGATE, r->p, "half of a surrogate pair in a string");
	r->p += pair ? 12 : 6;
	return true;
}

/* r->p is at the opening quote, and after the closing one when true. */
static bool scan_string(struct json_reader *r, struct raw_string *ret)
{
	const char *open = r->p++;
	uint64_t high_bits = 0;
	*ret = (struct raw_string){0};
	for (;;) {
		skip_plain(r, &high_bits);
		if (r->p == r->end)
			return fail_syntax(r, r->p, "the text ends within a string");
		if (*r->p == '"')
			break;
		if (*r->p != '\\')
			return fail_syntax(r, r->p, "a control character in a string");
		ret->escaped = true;
		if (!skip_escape(r, &ret->has_nul))
			return false;
	}
	ret->source = str_mem(open + 1, (size_t)(r->p++ - open - 1));
	ret->code_points = ret->source.n;
	if (high_bits && !r->text_unchecked && !utf8_valid(ret->source, &ret->code_points))
		return fail(r, READER_INVALID_UTF8, open, "a string that is not UTF-8");
	return true;
}

static size_t put_utf8(char *out, uint32_t c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* The character that a checked escape stands for; *p moves past it. */
static uint32_t decode_escape(const char **p, const char *end)
{
	static const char names[] = "bfnrt", values[] = "\b\f\n\r\t";
	char c = (*p)[1];
	if (c != 'u') {
		const char *name = memchr(names, c, sizeof(names) - 1);
		*p += 2;
		return (unsigned char)(name ? values[name - names] : c);
	}
	int32_t unit = escaped_unit(*p, end);
	*p += 6;
	if (!is_high_surrogate(unit))
		return (uint32_t)unit;
	int32_t low = escaped_unit(*p, end);
	*p += 6;
	return 0x10000 + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
}

/* Undoes the escapes of a checked string; never longer than the source. */
static bool unescape(struct json_reader *r, struct str source, struct str *ret)
{
	char *out = arena_alloc(r->arena, source.n);
	if (!out)
		return fail(r, READER_NO_MEMORY, r->p, "out of memory");
	const char *p = source.p, *end = source.p + source.n;
	size_t n = 0;
	while (p < end) {
		if (*p == '\\') {
			n += put_utf8(out + n, decode_escape(&p, end));
			continue;
		}
		const char *escape = memchr(p, '\\', (size_t)(end - p));
		size_t plain = (size_t)((escape ? escape : end) - p);
		memcpy(out + n, p, plain);
		n += plain;
		p += plain;
	}
	*ret = str_mem(out, n);
	return true;
}

/* Of text that is known to be UTF-8: every byte but the continuations starts a character. */
static size_t count_code_points(struct str text)
{
	size_t count = 0;
	for (size_t i = 0; i < text.n; i++)
		count += (text.p[i] & 0xc0) != 0x80;
	return count;
}

bool reader_string(struct json_reader *r, struct reader_string *ret)
{
	require(at(r, '"'));
	struct raw_string raw;
	if (!scan_string(r, &raw))
		return false;
	*ret = (struct reader_string){raw.source, raw.code_points, raw.has_nul};
	if (raw.escaped) {
		if (!unescape(r, raw.source, &ret->text))
			return false;
		ret->code_points = count_code_points(ret->text);
	}
	return true;
}

/* The next member's name as it stands in the text, and its colon. */
static bool next_raw_name(struct json_reader *r, struct raw_string *ret)
{
	if (!next_element(r, '}', "expected a comma or the end of the object"))
		return false;
	skip_space(r);
	if (!at(r, '"'))
		return fail_syntax(r, r->p, "expected a member name");
	if (!scan_string(r, ret))
		return false;
	skip_space(r);
	if (!at(r, ':'))
		return fail_syntax(r, r->p, "expected a colon");
	r->p++;
	return true;
}

bool reader_next_member(struct json_reader *r, struct str *ret_name)
{
	struct raw_string raw;
	if (!next_raw_name(r, &raw))
		return false;
	if (raw.escaped)
		return unescape(r, raw.source, ret_name);
	*ret_name = raw.source;
	return true;
}

static bool skip_digits(struct json_reader *r)
{
	if (!at_digit(r))
		return fail_syntax(r, r->p, "expected a digit");
	while (at_digit(r))
		r->p++;
	return true;
}

/* RFC 8259 section 6. */
static bool skip_number(struct json_reader *r)
{
	if (at(r, '-'))
		r->p++;
	if (at(r, '0'))
		r->p++;
	else if (!skip_digits(r))
		return false;
	if (at(r, '.')) {
		r->p++;
		if (!skip_digits(r))
			return false;
	}
	if (at(r, 'e') || at(r, 'E')) {
		r->p++;
		if (at(r, '+') || at(r, '-'))
			r->p++;
		return skip_digits(r);
	}
	return true;
}

static bool skip_literal(struct json_reader *r)
{
	static const struct str literals[] = {{"true", 4}, {"false", 5}, {"null", 4}};
	struct str rest = str_mem(r->p, (size_t)(r->end - r->p));
	for (size_t i = 0; i < ARRAY_LEN(literals); i++) {
		if (str_starts(rest, literals[i])) {
			r->p += literals[i].n;
			return true;
		}
	}
	return fail_syntax(r, r->p, "expected a value");
}

/* Which names were seen, over all objects of one value. */
struct uniqueness {
	struct name_set names;
	unsigned object_count;
	bool broken;
};

static bool skip_value(struct json_reader *r, struct uniqueness *u);

static bool note_name(
	struct json_reader *r, struct uniqueness *u, unsigned object, const struct raw_string *raw)
{
	struct str name = raw->source;
	if (raw->escaped && !unescape(r, raw->source, &name))
		return false;
	enum name_set_answer answer = name_set_add(&u->names, object, name);
	if (answer == NAME_NO_MEMORY)
		return fail(r, READER_NO_MEMORY, r->p, "out of memory");
	u->broken |= answer == NAME_PRESENT;
	return true;
}

static bool skip_object(struct json_reader *r, struct uniqueness *u)
{
	if (!reader_enter(r))
		return false;
	unsigned object = u ? u->object_count++ : 0;
	struct raw_string raw = {0};
	while (next_raw_name(r, &raw)) {
		if (u && !note_name(r, u, object, &raw))
			return false;
		if (!skip_value(r, u))
			return false;
	}
	return !r->error;
}

static bool skip_array(struct json_reader *r, struct uniqueness *u)
{
	if (!reader_enter(r))
		return false;
	while (reader_next_item(r))
		if (!skip_value(r, u))
			return false;
	return !r->error;
}

static bool skip_value(struct json_reader *r, struct uniqueness *u)
{
	struct raw_string raw;
	switch (reader_peek(r)) {
	case READER_OBJECT:
		return skip_object(r, u);
	case READER_ARRAY:
		return skip_array(r, u);
	case READER_STRING:
		return scan_string(r, &raw);
	case READER_NUMBER:
		return skip_number(r);
	case READER_LITERAL:
		return skip_literal(r);
	case READER_NOTHING:
		break;
	}
	return false;
}

static bool skip_with_source(struct json_reader *r, struct uniqueness *u, struct str *ret_source)
{
	if (reader_peek(r) == READER_NOTHING)
		return false;
	const char *start = r->p;
	if (!skip_value(r, u))
		return false;
	*ret_source = str_mem(start, (size_t)(r->p - start));
	return true;
}

bool reader_skip(struct json_reader *r, struct str *ret_source)
{
	return skip_with_source(r, NULL, ret_source);
}

bool reader_skip_unique(struct json_reader *r, struct str *ret_source, bool *ret_unique)
{
	struct uniqueness u = {0};
	name_set_init(&u.names, r->arena);
	if (!skip_with_source(r, &u, ret_source))
		return false;
	*ret_unique = !u.broken;
	return true;
}

bool reader_finish(struct json_reader *r)
{
	if (r->error)
		return false;
	skip_space(r);
	return r->p == r->end || fail_at(r, READER_TRAILING, r->p, "something follows the value");
}

const char *reader_error_code(enum reader_error error)
{
	static const char *const codes[] = {
		[READER_OK] = "ok",
		[READER_MALFORMED] = "malformed_json",
		[READER_INVALID_UTF8] = "invalid_utf8",
		[READER_LONE_SURROGATE] = "lone_surrogate",
		[READER_TOO_DEEP] = "too_deep",
		[READER_TRAILING] = "trailing_data",
		[READER_NO_MEMORY] = "no_memory",
	};
	return codes[error];
}

void reader_describe(const struct json_reader *r, char *out, size_t room)
{
	size_t line = 1, column = 1;
	for (const char *p = r->start; p < r->error_at; p++) {
		if (*p == '\n')
			line++, column = 1;
		else if ((*p & 0xc0) != 0x80)
			column++;
	}
	snprintf(out, room, "line %zu, column %zu: %s", line, column, r->error_text);
}
