/* batch.c - see batch.h. All items are found before any is judged, so that a batch that is broken at its end
 * is refused before anything of it was accepted. */
#include "message/batch.h"

#include <stdio.h>

#include "message/json_reader.h"

static int refuse(struct message_problem *ret, const char *code, const char *detail)
{
	ret->pointer[0] = 0;
	ret->code = code;
	snprintf(ret->detail, sizeof(ret->detail), "%s", detail);
	return MESSAGE_INVALID;
}

static int refuse_reader(struct message_problem *ret, const struct json_reader *r)
{
	char detail[sizeof(ret->detail)];
	reader_describe(r, detail, sizeof(detail));
	return refuse(ret, reader_error_code(r->error), detail);
}

static int refuse_size(struct message_problem *ret, unsigned count)
{
	if (count == 0)
		return refuse(ret, "empty", "a batch has at least one message");
	return refuse(ret, "too_many", "a batch has at most 1000 messages");
}

_Static_assert(BATCH_ITEMS == 1000, "the detail above says so");

static int split_array(struct str text, struct message_batch *ret, struct message_problem *ret_problem)
{
	struct json_reader r;
	reader_init(&r, text, MESSAGE_METADATA_DEPTH + 2, NULL);
	r.text_unchecked = true;
	if (reader_peek(&r) != READER_ARRAY || !reader_enter(&r))
		return r.error ? refuse_reader(ret_problem, &r)
			       : refuse(ret_problem, "wrong_type", "a batch is a JSON array of messages");
	struct str item;
	while (reader_next_item(&r)) {
		if (!reader_skip(&r, &item))
			break;
		if (ret->count == BATCH_ITEMS)
			return refuse_size(ret_problem, BATCH_ITEMS + 1);
		ret->items[ret->count++] = item;
	}
	return reader_finish(&r) ? 0 : refuse_reader(ret_problem, &r);
}

/* The text up to the next LF or the end, without a CR before it. */
static struct str next_line(struct str *text)
{
	struct str line;
	if (!str_cut(text, '\n', &line)) {
		line = *text;
		text->n = 0;
	}
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	return str_trim(line);
}

static int split_lines(struct str text, struct message_batch *ret, struct message_problem *ret_problem)
{
	while (text.n) {
		struct str line = next_line(&text);
		if (line.n == 0)
			continue;
		if (ret->count == BATCH_ITEMS)
			return refuse_size(ret_problem, BATCH_ITEMS + 1);
		ret->items[ret->count++] = line;
	}
	return 0;
}

int message_batch_split(
	struct str text, enum batch_form form, struct message_batch *ret, struct message_problem *ret_problem)
{
	ret->count = 0;
	int r = form == BATCH_ARRAY ? split_array(text, ret, ret_problem)
				    : split_lines(text, ret, ret_problem);
	if (r == 0 && ret->count == 0)
		return refuse_size(ret_problem, 0);
	return r;
}
