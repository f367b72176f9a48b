/* json.c - see json.h.
 *
 * Reading leaves the grammar to jansson and adds two things: nesting is measured before jansson recurses
 * into it, and its error texts, which repeat what stands near the error, are replaced by our own words.
 * Writing copies runs of bytes that need no escaping; only text that is not UTF-8 goes byte by byte. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Arrays and objects inside each other; what we read has three levels. */
enum { DEPTH_MAX = 32 };

void json_init(void)
{
	json_object_seed(0);
}

/* What follows the string whose opening quote is at p; `end` when it does not close. */
static const char *skip_string(const char *p, const char *end)
{
	const char *first = p + 1;
	for (const char *quote = first; (quote = memchr(quote, '"', (size_t)(end - quote))); quote++) {
		/* An odd number of backslashes in front makes it a quote inside the string. */
		const char *slashes = quote;
		while (slashes > first && slashes[-1] == '\\')
			slashes--;
		if ((quote - slashes) % 2 == 0)
			return quote + 1;
	}
	return end;
}

/* Where nesting passes DEPTH_MAX, else NULL. Needs no valid JSON: it only counts brackets outside strings. */
static const char *too_deep(struct str text)
{
	const char *end = text.p + text.n;
	unsigned depth = 0;
	for (const char *p = text.p; p < end;) {
		if (*p == '"') {
			p = skip_string(p, end);
			continue;
		}
		if (*p == '{' || *p == '[') {
			if (++depth > DEPTH_MAX)
				return p;
		} else if ((*p == '}' || *p == ']') && depth) {
			depth--;
		}
		p++;
	}
	return NULL;
}

static const char *reason(enum json_error_code code)
{
	switch (code) {
	case json_error_invalid_utf8:
		return "invalid UTF-8";
	case json_error_premature_end_of_input:
		return "ends too early";
	case json_error_end_of_input_expected:
		return "text after the end of the document";
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return "NUL character in a string";
	case json_error_duplicate_key:
		return "the same member twice in one object";
	case json_error_numeric_overflow:
		return "number out of range";
	default:
		return "not valid JSON";
	}
}

/* "line 1 column 17: …", both counted from one, for a byte inside the text. */
static int reject_at(struct str text, const char *at, const char *why, struct err *e)
{
	int line = 1;
	const char *start = text.p;
	for (const char *p = text.p; p < at; p++) {
		if (*p == '\n') {
			line++;
			start = p + 1;
		}
	}
	return err_set(e, ERR_REJECT, "line %d column %td: %s", line, at - start + 1, why);
}

int json_read(struct str text, json_t **ret, struct err *e)
{
	const char *deep = text.n ? too_deep(text) : NULL;
	if (deep)
		return reject_at(text, deep, "nested too deeply", e);
	/* jansson takes a NUL between tokens for the end of the text. */
	const char *nul = text.n ? memchr(text.p, 0, text.n) : NULL;
	if (nul)
		return reject_at(text, nul, "a NUL byte", e);
	json_error_t error;
	json_t *root = json_loadb(text.n ? text.p : "", text.n, JSON_REJECT_DUPLICATES, &error);
	if (!root) {
		enum json_error_code code = json_error_code(&error);
		if (code == json_error_out_of_memory)
			return err_oom(e);
		return err_set(
			e, ERR_REJECT, "line %d column %d: %s", error.line, error.column, reason(code));
	}
	*ret = root;
	return 0;
}

/* What a byte of valid UTF-8 needs inside a JSON string: 0 nothing, HEX as \u00XX, else the letter after the
 * backslash. Beyond RFC 8259 section 7, DEL and the C1 controls are escaped: answers end up on terminals,
 * which act on them. */
enum { HEX = 'u', MAYBE_C1 = 'C' };

static const char escapes[256] = {
	[0x00 ... 0x07] = HEX,
	['\b'] = 'b',
	['\t'] = 't',
	['\n'] = 'n',
	[0x0b] = HEX,
	['\f'] = 'f',
	['\r'] = 'r',
	[0x0e ... 0x1f] = HEX,
	['"'] = '"',
	['\\'] = '\\',
	[0x7f] = HEX,
	[0xc2] = MAYBE_C1, /* starts U+0080 to U+00BF, of which half are controls */
};

static void add_valid(struct buf *out, struct str s)
{
	size_t start = 0;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		char escape = escapes[c];
		if (!escape || (escape == MAYBE_C1 && (unsigned char)s.p[i + 1] >= 0xa0))
			continue;
		buf_add(out, s.p + start, i - start);
		if (escape == MAYBE_C1)
			c = (unsigned char)s.p[++i];
		if (escape == MAYBE_C1 || escape == HEX)
			buf_addf(out, "\\u%04x", c);
		else
			buf_add(out, (char[]){'\\', escape}, 2);
		start = i + 1;
	}
	if (start < s.n) /* an empty view may have no bytes to point at */
		buf_add(out, s.p + start, s.n - start);
}

/* Length of the UTF-8 sequence that s starts with, 0 when it is none. */
static size_t sequence_bytes(struct str s)
{
	for (size_t n = 1; n <= 4 && n <= s.n; n++)
		if (utf8_valid(str_mem(s.p, n), NULL))
			return n;
	return 0;
}

static void add_repaired(struct buf *out, struct str s)
{
	while (s.n) {
		size_t n = sequence_bytes(s);
		if (n)
			add_valid(out, str_mem(s.p, n));
		else
			buf_add_str(out, STR("\xef\xbf\xbd"));
		s = str_mem(s.p + (n ? n : 1), s.n - (n ? n : 1));
	}
}

static void add_string(struct buf *out, struct str s)
{
	buf_add_char(out, '"');
	if (utf8_valid(s, NULL))
		add_valid(out, s);
	else
		add_repaired(out, s);
	buf_add_char(out, '"');
}

/* The comma before a value, and its key. */
static void lead(struct json_out *w, const char *key)
{
	if (w->comma)
		buf_add_char(w->out, ',');
	w->comma = true;
	if (key) {
		buf_add_char(w->out, '"');
		buf_add_str(w->out, str_of(key));
		buf_add_str(w->out, STR("\":"));
	}
}

static void open_with(struct json_out *w, const char *key, char bracket)
{
	lead(w, key);
	buf_add_char(w->out, bracket);
	w->comma = false;
}

static void close_with(struct json_out *w, char bracket)
{
	buf_add_char(w->out, bracket);
	w->comma = true;
}

void json_open_object(struct json_out *w, const char *key)
{
	open_with(w, key, '{');
}

void json_close_object(struct json_out *w)
{
	close_with(w, '}');
}

void json_open_array(struct json_out *w, const char *key)
{
	open_with(w, key, '[');
}

void json_close_array(struct json_out *w)
{
	close_with(w, ']');
}

void json_put_str(struct json_out *w, const char *key, struct str value)
{
	lead(w, key);
	add_string(w->out, value);
}

void json_put_int(struct json_out *w, const char *key, int64_t value)
{
	lead(w, key);
	char digits[21]; /* room for every int64_t */
	int n = snprintf(digits, sizeof(digits), "%lld", (long long)value);
	buf_add(w->out, digits, (size_t)n);
}

void json_put_double(struct json_out *w, const char *key, double value)
{
	if (!isfinite(value)) {
		json_put_null(w, key);
		return;
	}
	lead(w, key);
	buf_addf(w->out, "%.15g", value);
}

void json_put_bool(struct json_out *w, const char *key, bool value)
{
	lead(w, key);
	buf_add_str(w->out, value ? STR("true") : STR("false"));
}

void json_put_null(struct json_out *w, const char *key)
{
	lead(w, key);
	buf_add_str(w->out, STR("null"));
}

void json_put_time(struct json_out *w, const char *key, struct wall t)
{
	char text[RFC3339_BYTES];
	wall_format(t, text);
	lead(w, key);
	buf_add_char(w->out, '"');
	buf_add(w->out, text, RFC3339_BYTES - 1);
	buf_add_char(w->out, '"');
}

void json_put_raw(struct json_out *w, const char *key, struct str json)
{
	lead(w, key);
	buf_add_str(w->out, json);
}
