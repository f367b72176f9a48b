/* json_reader.h - reads one JSON text (RFC 8259) once, from front to back, without building a tree.
 *
 *	reader_init(&r, text, depth_limit, arena);
 *	if (reader_peek(&r) == READER_OBJECT && reader_enter(&r))
 *		while (reader_next_member(&r, &name))
 *			… reader_string(&r, &s) or reader_enter … or reader_skip(&r, &source) …
 *	if (!reader_finish(&r))
 *		… r.error and reader_describe say what and where …
 *
 * Strict: exactly the grammar of RFC 8259, no byte order mark, well-formed UTF-8 (RFC 3629), escaped
 * surrogates only in pairs. Names that occur twice are valid in the grammar; reader_skip_unique tells.
 *
 * Errors:    sticky: after the first one every call returns false. False from reader_next_* is the end of the
 *            container or an error: look at r.error once, at the end.
 * Ownership: strings are views into the text, or into the arena where an escape had to be undone.
 * Threads:   one thread at a time per reader.
 * Security:  bounded recursion (depth_limit); descriptions never quote the text. */
#ifndef MESSAGE_JSON_READER_H
#define MESSAGE_JSON_READER_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/str.h"

enum reader_kind {
	READER_NOTHING, /* no value here: r.error says why */
	READER_OBJECT,
	READER_ARRAY,
	READER_STRING,
	READER_NUMBER,
	READER_LITERAL, /* true, false, null */
};

enum reader_error {
	READER_OK,
	READER_MALFORMED,
	READER_INVALID_UTF8,
	READER_LONE_SURROGATE,
	READER_TOO_DEEP,
	READER_TRAILING, /* something follows the value */
	READER_NO_MEMORY,
};

struct json_reader {
	const char *start, *p, *end;
	struct arena *arena;
	unsigned depth, depth_limit;
	bool first;          /* nothing of the current container has been read */
	bool text_unchecked; /* set after reader_init: pass over bad UTF-8 and lone surrogates, for a caller
				that only looks for where values end and has them read again */
	enum reader_error error;
	const char *error_at, *error_text;
};

/* `arena` may be NULL when only reader_skip, reader_next_item and reader_finish are used. */
void reader_init(struct json_reader *r, struct str text, unsigned depth_limit, struct arena *arena);

/* What the next value is; nothing is consumed but white space. */
MUST_CHECK enum reader_kind reader_peek(struct json_reader *r);

/* Goes into the object or array that reader_peek has just seen. */
MUST_CHECK bool reader_enter(struct json_reader *r);

/* True: the name, with its value next. False: the container has been left, or an error. */
MUST_CHECK bool reader_next_member(struct json_reader *r, struct str *ret_name);
MUST_CHECK bool reader_next_item(struct json_reader *r);

struct reader_string {
	struct str text; /* escapes undone */
	size_t code_points;
	bool has_nul; /* U+0000, which only an escape can bring in */
};

/* Reads the string that reader_peek has just seen. */
MUST_CHECK bool reader_string(struct json_reader *r, struct reader_string *ret);

/* Reads and checks any value; its source text without surrounding white space. */
MUST_CHECK bool reader_skip(struct json_reader *r, struct str *ret_source);

/* The same, and tells whether no object in the value has two members of one name. */
MUST_CHECK bool reader_skip_unique(struct json_reader *r, struct str *ret_source, bool *ret_unique);

/* The whole text was one valid value. */
MUST_CHECK bool reader_finish(struct json_reader *r);

/* "malformed_json", "invalid_utf8", … as problems name them. */
const char *reader_error_code(enum reader_error error);

/* "line 1, column 17: expected a colon" for r.error. Columns count characters from 1. */
void reader_describe(const struct json_reader *r, char *out, size_t room);

#endif
