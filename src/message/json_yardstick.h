/* json_yardstick.h - for the unit test and the fuzz target only: what jansson says of a text, and whether
 * json_reader says the same. Not part of the program. */
#ifndef MESSAGE_JSON_YARDSTICK_H
#define MESSAGE_JSON_YARDSTICK_H

#include "base/arena.h"
#include "base/json.h"
#include "message/json_reader.h"

/* Less than jansson's own limit of 2048, so that jansson still decides where the reader gives up. */
enum { YARDSTICK_DEPTH = 1000 };

enum verdict { VERDICT_VALID, VERDICT_INVALID, VERDICT_NONE };

/* jansson refuses three kinds of valid text for reasons of its own: numbers that do not fit its types, a NUL
 * in a name, and great depth. It has no say about those. And it takes a NUL between tokens for the end of the
 * text, while no JSON text holds a raw one. */
static inline enum verdict jansson_verdict(struct str text)
{
	if (text.n && memchr(text.p, 0, text.n))
		return VERDICT_INVALID;
	json_error_t error;
	json_t *root =
		json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	if (root) {
		json_decref(root);
		return VERDICT_VALID;
	}
	switch (json_error_code(&error)) {
	case json_error_numeric_overflow:
	case json_error_null_byte_in_key:
	case json_error_stack_overflow:
		return VERDICT_NONE;
	default:
		return VERDICT_INVALID;
	}
}

static inline enum verdict reader_verdict(struct str text, struct arena *arena)
{
	struct json_reader r;
	struct str source;
	bool unique;
	reader_init(&r, text, YARDSTICK_DEPTH, arena);
	if (reader_skip_unique(&r, &source, &unique) && reader_finish(&r))
		return unique ? VERDICT_VALID : VERDICT_INVALID;
	return r.error == READER_TOO_DEEP ? VERDICT_NONE : VERDICT_INVALID;
}

static inline bool verdicts_agree(struct str text, struct arena *arena)
{
	enum verdict a = jansson_verdict(text), b = reader_verdict(text, arena);
	return a == b || a == VERDICT_NONE || b == VERDICT_NONE;
}

#endif
