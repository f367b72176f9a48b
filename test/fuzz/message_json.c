/* message_json - the JSON reader against jansson, and a parsed message against itself.
 *
 * Holds: both accept the same texts; what message_parse accepts is a document that jansson reads with the
 * same number and body; it survives encoding and decoding; its metadata is an object for jansson too. Also:
 * whatever bytes come as a payload, message_decode only lets through what encodes to the same bytes again. */
#include <stdint.h>

#include "base/auto.h"
#include "message/json_yardstick.h"
#include "message/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_string(json_t *root, const char *name, struct str value)
{
	json_t *member = json_object_get(root, name);
	require(json_is_string(member));
	require(str_eq(value, str_mem(json_string_value(member), json_string_length(member))));
}

static void check_against_jansson(struct str text, const struct message *m)
{
	json_t *root = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
	if (!root) /* a number that does not fit its types, or a NUL in a name */
		return;
	check_string(root, "sender_number", m->sender_number);
	check_string(root, "message_body", m->body);
	require(json_is_object(json_object_get(root, "metadata")) == (m->metadata.n > 0));
	json_decref(root);
}

static void check_codec(const struct message *m)
{
	AUTO(buf_auto) struct buf payload;
	struct message back;
	buf_init(&payload, MESSAGE_PAYLOAD_BYTES);
	message_encode(m, &payload);
	require(message_decode(buf_str(&payload), &back, NULL) == 0);
	require(str_eq(back.sender_number, m->sender_number));
	require(str_eq(back.body, m->body));
	require(str_eq(back.metadata, m->metadata));
}

static void check_payload(struct str payload)
{
	struct message m;
	if (message_decode(payload, &m, NULL) < 0)
		return;
	AUTO(buf_auto) struct buf again;
	buf_init(&again, MESSAGE_PAYLOAD_BYTES);
	message_encode(&m, &again);
	require(str_eq(buf_str(&again), payload));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO(arena_auto) struct arena arena;
	struct str text = str_mem(data, size);
	struct message m;
	static struct message_problems problems;
	arena_init(&arena, 16 * size + 65536);
	require(verdicts_agree(text, &arena));
	arena_reset(&arena);
	int r = message_parse(text, &arena, &m, &problems, NULL);
	require(r == 0 || r == MESSAGE_INVALID);
	if (r == 0) {
		check_against_jansson(text, &m);
		check_codec(&m);
	} else {
		require(problems.count > 0);
	}
	check_payload(text);
	return 0;
}
