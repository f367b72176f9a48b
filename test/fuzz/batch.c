/* batch - splitting a batch. The first byte picks the form: even is an array, odd is one message a line.
 *
 * Holds: items lie within the text, in order and apart; those of an array are what jansson counts in it; a
 * line has no line end in it; message_parse takes whatever an item is. */
#include <stdint.h>

#include "base/auto.h"
#include "message/batch.h"
#include "message/json_yardstick.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_items(struct str text, enum batch_form form, const struct message_batch *batch)
{
	const char *at = text.p;
	require(batch->count > 0 && batch->count <= BATCH_ITEMS);
	for (unsigned i = 0; i < batch->count; i++) {
		struct str item = batch->items[i];
		require(item.n > 0 && item.p >= at && item.p + item.n <= text.p + text.n);
		require(form == BATCH_ARRAY || !memchr(item.p, '\n', item.n));
		at = item.p + item.n;
	}
}

/* Items may have duplicate names or bad text, which jansson would refuse for the whole array. */
static void check_count(struct str text, const struct message_batch *batch)
{
	json_t *root = json_loadb(text.p, text.n, JSON_ALLOW_NUL, NULL);
	if (!root)
		return;
	require(json_is_array(root) && json_array_size(root) == batch->count);
	json_decref(root);
}

static void parse_items(const struct message_batch *batch)
{
	static struct message_problems problems;
	for (unsigned i = 0; i < batch->count; i++) {
		AUTO(arena_auto) struct arena arena;
		struct message m;
		arena_init(&arena, 4 * batch->items[i].n + 65536);
		int r = message_parse(batch->items[i], &arena, &m, &problems, NULL);
		require(r == 0 || r == MESSAGE_INVALID);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct message_batch batch;
	struct message_problem problem;
	if (size == 0)
		return 0;
	enum batch_form form = data[0] % 2 ? BATCH_LINES : BATCH_ARRAY;
	struct str text = str_mem(data + 1, size - 1);
	int r = message_batch_split(text, form, &batch, &problem);
	require(r == 0 || r == MESSAGE_INVALID);
	if (r == MESSAGE_INVALID) {
		require(problem.code && problem.detail[0]);
		return 0;
	}
	check_items(text, form, &batch);
	if (form == BATCH_ARRAY)
		check_count(text, &batch);
	parse_items(&batch);
	return 0;
}
