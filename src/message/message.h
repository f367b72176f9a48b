/* message.h - what a client sends: sender number, text, metadata; validated as the HTTP contract says.
 *
 * Rules: sender_number ^\+[1-9][0-9]{1,14}$ (E.164); message_body 1..1000 Unicode code points of valid UTF-8
 * without U+0000, kept byte for byte; metadata an optional object of at most 4 KiB, kept. Unknown and
 * duplicate members, trailing text, wrong types are problems with a JSON pointer (RFC 6901).
 *
 * Metadata is kept as the source text of its object; two members of one name are refused there too.
 *
 * Ownership: a parsed message points into `json`, or into the arena where an escape had to be undone.
 *            An arena with room for four times the text and 64 KiB more does not run out.
 * Threads:   none of its own.
 * Security:  problems never quote what was sent. */
#ifndef MESSAGE_MESSAGE_H
#define MESSAGE_MESSAGE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum {
	MESSAGE_BODY_CODE_POINTS = 1000,
	MESSAGE_METADATA_BYTES = 4096,
	MESSAGE_METADATA_DEPTH = 32, /* of nested objects and arrays, the outermost counted */
	/* What message_encode makes, at most: version, then number, body and metadata with their lengths. */
	MESSAGE_PAYLOAD_BYTES = 1 + 1 + 16 + 2 + 4 * MESSAGE_BODY_CODE_POINTS + 2 + MESSAGE_METADATA_BYTES,
	MESSAGE_PROBLEMS = 16, /* reported at most */
	CLIENT_NAME_BYTES = 64,
	DOMAIN_NAME_BYTES = 64,
};

struct message {
	struct str sender_number;
	struct str body;
	struct str metadata; /* a JSON object as text, .n == 0 when absent */
};

/* One thing wrong with the input. */
struct message_problem {
	char pointer[96]; /* JSON pointer, "" for the document; an unknown member's name is shown only if it
			     is short and plain ([A-Za-z0-9_.-]{1,64}), else as its parent: no name that is
			     shown needs the escapes of RFC 6901 */
	const char *code; /* of a member: "required", "wrong_type", "not_e164", "empty", "too_long", "nul",
			     "unknown_member", "duplicate_member"; of the text: "malformed_json",
			     "trailing_data", "invalid_utf8", "lone_surrogate", "too_deep"; of a batch:
			     "empty", "too_many"; of one of its messages: "too_long" */
	char detail[160];
};

struct message_problems {
	unsigned count; /* 0 .. MESSAGE_PROBLEMS */
	struct message_problem items[MESSAGE_PROBLEMS];
};

/* 0 and *ret, or MESSAGE_INVALID with at least one problem, or <0 when memory runs out. A text that is not
 * JSON has that one problem; everything else that is wrong is reported together. */
enum { MESSAGE_INVALID = 1 };
MUST_CHECK int message_parse(struct str json, struct arena *arena, struct message *ret,
	struct message_problems *ret_problems, struct err *e);

/* The single rules, for other sources of the same data. */
MUST_CHECK bool message_number_valid(struct str s);
MUST_CHECK bool message_name_valid(struct str s); /* clients and domains: [A-Za-z0-9][A-Za-z0-9._-]{0,63} */

/* Payload codec: what is sealed. Binary, versioned; decode refuses anything message_parse would (the receiver
 * trusts no proxy) with ERR_REJECT. */
void message_encode(const struct message *m, struct buf *out);
MUST_CHECK int message_decode(struct str payload, struct message *ret, struct err *e);

#endif
