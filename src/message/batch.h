/* batch.h - splits a batch into the texts of its messages; message_parse then judges each by itself.
 *
 * Two forms: a JSON array of messages, or one message a line (NDJSON; LF or CRLF, blank lines passed over,
 * the last line may lack its end). What is wrong within an item is left to message_parse, except in an array
 * what hides where the item ends: broken syntax, too deep nesting.
 *
 * Ownership: items are views into the text.
 * Threads:   none of its own.
 * Security:  problems never quote what was sent. */
#ifndef MESSAGE_BATCH_H
#define MESSAGE_BATCH_H

#include "base/str.h"
#include "message/message.h"

enum { BATCH_ITEMS = 1000 };

enum batch_form { BATCH_ARRAY, BATCH_LINES };

struct message_batch {
	unsigned count; /* 1 .. BATCH_ITEMS */
	struct str items[BATCH_ITEMS];
};

/* 0 and *ret, or MESSAGE_INVALID and *ret_problem about the batch as a whole; *ret is then undefined. */
MUST_CHECK int message_batch_split(struct str text, enum batch_form form, struct message_batch *ret,
	struct message_problem *ret_problem);

#endif
