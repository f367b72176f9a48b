/* json.h - jansson, used strictly, and a small writer for answers.
 *
 * Reading: duplicates, invalid UTF-8, NUL in strings, trailing text, numbers out of range and more than 32
 *          levels are refused, and so is a document that is neither an object nor an array. Errors say where
 *          ("line 1 column 17: …") and never quote the input.
 * Writing: straight into a buf, no tree: json_out keeps track of commas. What is written can be shown on a
 *          terminal: control characters are escaped, C1 and DEL too.
 * Threads: none of its own. Call json_init once at start (seeds jansson's hash). */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"

void json_init(void);

/* A whole document; ERR_REJECT with position on anything malformed. */
MUST_CHECK int json_read(struct str text, json_t **ret, struct err *e);

static inline void json_auto(json_t **j)
{
	json_decref(*j);
}

/* Writer. Keys are literals that need no escaping; values are escaped (RFC 8259); invalid UTF-8 in a value
 * becomes U+FFFD. Pass key NULL inside arrays and for the top value. */
struct json_out {
	struct buf *out;
	bool comma;
};

static inline struct json_out json_out_to(struct buf *out)
{
	return (struct json_out){out, false};
}

void json_open_object(struct json_out *w, const char *key);
void json_close_object(struct json_out *w);
void json_open_array(struct json_out *w, const char *key);
void json_close_array(struct json_out *w);
void json_put_str(struct json_out *w, const char *key, struct str value);
void json_put_int(struct json_out *w, const char *key, int64_t value);
void json_put_double(struct json_out *w, const char *key, double value); /* 15 digits; null unless finite */
void json_put_bool(struct json_out *w, const char *key, bool value);
void json_put_null(struct json_out *w, const char *key);
void json_put_time(struct json_out *w, const char *key, struct wall t);  /* RFC 3339 */
void json_put_raw(struct json_out *w, const char *key, struct str json); /* already JSON */

#endif
