/* batch.c - POST /api/v1/messages/batch: many messages in one request, each judged by itself, one commit for
 * all.
 *
 * The ids of the accepted messages are one run (uuid.h): a replay by Idempotency-Key needs only the first id,
 * because the same payload is split and judged the same way again. */
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/json.h"
#include "base/metrics.h"
#include "message/batch.h"
#include "proxy/internal.h"

enum {
	ITEM_BYTES = 64 * 1024,
	SEALING_BYTES = 128, /* an envelope besides its text: header, tag, rounding in the arena */
	BATCH_ARENA_BYTES = 64 * 1024 * 1024,
	/* One problem of one field, and what stands around the problems of one item. */
	FIELD_ANSWER_BYTES = sizeof(struct message_problem) + 96,
	ITEM_ANSWER_BYTES = MESSAGE_PROBLEMS * FIELD_ANSWER_BYTES + 512,
	/* What was accepted is on disk by then: the answer always fits. */
	ANSWER_BYTES = BATCH_ITEMS * ITEM_ANSWER_BYTES + 1024,
};

_Static_assert(ITEM_BYTES == 65536, "judge_item says so");

/* One item: accepted, or refused with a problem as JSON. */
struct item {
	struct message message; /* points into the request */
	struct str problem;     /* .n == 0: accepted */
};

/* Lives in its own arena, which ends with the answer. */
struct batch {
	struct queue_put put;
	struct arena arena;
	struct proxy *proxy;
	struct http_request *request;
	struct message_batch split;
	struct item *items;
	struct sealed *accepted;
	unsigned accepted_count;
	struct mono validated_at;
};

static void batch_free(struct batch *b)
{
	if (!b)
		return;
	struct arena arena = b->arena; /* the batch lies in it */
	arena_clear(&arena);
}
AUTO_DEFINE(batch_free, struct batch *)

static struct batch *batch_new(struct proxy *p, struct http_request *r)
{
	struct arena arena;
	arena_init(&arena, BATCH_ARENA_BYTES);
	struct batch *b = arena_alloc(&arena, sizeof(*b));
	if (!b)
		return NULL;
	b->proxy = p;
	b->request = r;
	b->accepted_count = 0;
	b->arena = arena;
	return b;
}

/* --- judging --- */

/* Keeps the problem of one item as JSON. */
static int keep_problem(struct batch *b, struct item *item, enum http_problem problem,
	const struct message_problems *problems, struct err *e)
{
	struct http_field_problem fields[MESSAGE_PROBLEMS];
	AUTO(buf_auto) struct buf text;
	buf_init(&text, ITEM_BYTES);
	for (unsigned i = 0; i < problems->count; i++)
		fields[i] = (struct http_field_problem){
			problems->items[i].pointer, problems->items[i].code, problems->items[i].detail};
	struct http_problem_options o = {.fields = fields, .field_count = problems->count};
	http_problem_write(&text, problem, &o, b->request->request_id);
	item->problem = arena_copy(&b->arena, buf_str(&text));
	series_add(metric_series1(METRIC_REJECTED, http_problem_code(problem)), 1);
	return text.failed || !item->problem.p ? err_oom(e) : 0;
}

static int judge_item(
	struct batch *b, struct str text, struct item *item, struct message_problems *scratch, struct err *e)
{
	item->problem = (struct str){NULL, 0};
	scratch->count = 0;
	if (text.n > ITEM_BYTES) {
		scratch->count = 1;
		scratch->items[0] = (struct message_problem){.pointer = "",
			.code = "too_long",
			.detail = "a message has at most 65536 bytes of JSON"};
		return keep_problem(b, item, PROBLEM_PAYLOAD_TOO_LARGE, scratch, e);
	}
	int rc = message_parse(text, &b->arena, &item->message, scratch, e);
	if (rc == MESSAGE_INVALID)
		return keep_problem(b, item, PROBLEM_VALIDATION_ERROR, scratch, e);
	if (rc >= 0)
		b->accepted_count++;
	return rc;
}

static int judge_items(struct batch *b, struct proxy_shard *shard, struct err *e)
{
	b->items = arena_alloc(&b->arena, b->split.count * sizeof(*b->items));
	if (!b->items)
		return err_oom(e);
	for (unsigned i = 0; i < b->split.count; i++)
		if (judge_item(b, b->split.items[i], &b->items[i], &shard->problems, e) < 0)
			return -1;
	return 0;
}

/* --- sealing --- */

static int seal_items(struct batch *b, struct proxy_shard *shard, struct err *e)
{
	struct http_request *r = b->request;
	struct uuid first;
	b->accepted = arena_alloc(&b->arena, b->accepted_count * sizeof(*b->accepted));
	if (!b->accepted)
		return err_oom(e);
	if (uuid_next_run(&b->proxy->ids, b->accepted_count, &first, e) < 0)
		return -1;
	struct sealed facts = {
		.accepted_at = clock_wall(b->proxy->clock),
		.client_id = str_of(r->peer->name),
		.domain = str_of(r->peer->domain),
		.traceparent = proxy_traceparent(r),
	};
	unsigned n = 0;
	for (unsigned i = 0; i < b->split.count; i++) {
		if (b->items[i].problem.n)
			continue;
		struct sealed *sealed = &b->accepted[n];
		*sealed = facts;
		sealed->id = uuid_in_run(&first, n++);
		buf_reset(&shard->envelope);
		if (sealer_seal(shard->sealer, sealed, &b->items[i].message, &shard->envelope, e) < 0)
			return -1;
		sealed->envelope = arena_copy(&b->arena, buf_str(&shard->envelope));
		if (!sealed->envelope.p)
			return err_oom(e);
	}
	return 0;
}

/* What the batch will take until its commit, at most: a message sealed is its text and the same overhead for each. */
static size_t room_of(const struct batch *b)
{
	return b->arena.used_bytes + b->request->body.n +
	       b->accepted_count * (sizeof(struct sealed) + SEALING_BYTES);
}

static bool take_room(struct batch *b)
{
	if (http_take_room(b->request, room_of(b)))
		return true;
	proxy_refuse_messages(b->request, b->accepted_count, PROBLEM_UNAVAILABLE,
		&(struct http_problem_options){.detail = "too many batches wait for the disk"});
	return false;
}

/* --- answering --- */

static void answer(struct batch *b, const struct uuid *first)
{
	AUTO(buf_auto) struct buf out;
	buf_init(&out, ANSWER_BYTES);
	struct json_out w = json_out_to(&out);
	unsigned rejected = b->split.count - b->accepted_count, n = 0;
	json_open_object(&w, NULL);
	json_put_int(&w, "accepted", b->accepted_count);
	json_put_int(&w, "rejected", rejected);
	json_open_array(&w, "results");
	for (unsigned i = 0; i < b->split.count; i++) {
		json_open_object(&w, NULL);
		json_put_int(&w, "index", i);
		if (b->items[i].problem.n) {
			json_put_str(&w, "status", STR("rejected"));
			json_put_raw(&w, "problem", b->items[i].problem);
		} else {
			char id[UUID_TEXT_BYTES];
			struct uuid uuid = uuid_in_run(first, n++);
			uuid_format(&uuid, id);
			json_put_str(&w, "status", str_of(message_state_name(MESSAGE_QUEUED)));
			json_put_str(&w, "message_id", str_of(id));
		}
		json_close_object(&w);
	}
	json_close_array(&w);
	json_close_object(&w);
	struct err e = ERR_INIT;
	if (buf_check(&out, &e) < 0)
		http_reply_err(b->request, &e);
	else
		http_reply_buf(b->request,
			!b->accepted_count ? 400
			: rejected         ? 207
					   : 202,
			"application/json", &out);
}

/* All of the batch is on disk, or none of it. */
static void batch_committed(struct group_op *op)
{
	AUTO(batch_free_auto) struct batch *b = container_of(op, struct batch, put.op);
	struct http_request *r = b->request;
	if (op->result != QUEUE_STORED)
		proxy_give_rate_back(b->proxy, r, b->accepted_count);
	if (op->result == QUEUE_REPLAYED) {
		http_set_header(r, "Idempotency-Replayed", STR("true"));
		answer(b, &b->put.first_id);
	} else if (op->result == QUEUE_MISMATCH) {
		proxy_refuse_messages(r, b->accepted_count, PROBLEM_IDEMPOTENCY_MISMATCH, NULL);
	} else if (op->result == QUEUE_KEYS_FULL) {
		proxy_refuse_key(r, b->accepted_count);
	} else if (op->result < 0) {
		series_add(metric_series1(METRIC_REJECTED, http_problem_code(PROBLEM_UNAVAILABLE)),
			b->accepted_count);
		proxy_reply_failed(r, &op->err);
	} else {
		metric_add(METRIC_ACCEPTED, b->accepted_count);
		if (b->proxy->upstream)
			upstream_register(b->proxy->upstream, b->accepted, b->accepted_count);
		metric_observe(METRIC_ACCEPT_SECONDS,
			(uint64_t)(clock_mono(b->proxy->clock).ns - b->validated_at.ns));
		answer(b, &b->accepted[0].id);
	}
}

/* Hands the batch over to the queue; false when it was answered instead. */
static bool submit(struct batch *b, struct proxy_shard *shard)
{
	struct http_request *r = b->request;
	struct err e = ERR_INIT;
	if (!proxy_take_key(r, &b->put) || !take_room(b) || !proxy_take_rate(b->proxy, r, b->accepted_count))
		return false;
	if (seal_items(b, shard, &e) < 0) {
		proxy_give_rate_back(b->proxy, r, b->accepted_count);
		http_reply_err(r, &e);
		return false;
	}
	b->put.messages = b->accepted;
	b->put.count = b->accepted_count;
	b->put.op.reply = loop_inbox(r->loop);
	b->put.op.complete = batch_committed;
	b->validated_at = clock_mono(b->proxy->clock);
	if (queue_put(b->proxy->queue, &b->put, loop_outbox(r->loop)) != GROUP_FULL)
		return true;
	proxy_give_rate_back(b->proxy, r, b->accepted_count);
	proxy_refuse_messages(r, b->accepted_count, PROBLEM_UNAVAILABLE,
		&(struct http_problem_options){
			.detail = "more messages arrive than the disk can take", .retry_after_s = 1});
	return false;
}

/* Which form the body has; false when it was answered. */
static bool take_form(struct http_request *r, enum batch_form *ret)
{
	*ret = BATCH_LINES;
	if (proxy_content_type_is(r, STR("application/x-ndjson")))
		return true;
	*ret = BATCH_ARRAY;
	if (proxy_content_type_is(r, STR("application/json")))
		return true;
	proxy_refuse(r, PROBLEM_UNSUPPORTED_MEDIA_TYPE,
		&(struct http_problem_options){
			.detail =
				"send a JSON array as application/json, or one message a line as application/x-ndjson"});
	return false;
}

void proxy_post_batch(struct http_request *r)
{
	struct proxy *p = r->context;
	enum batch_form form;
	if (!proxy_can_accept(p, r) || !proxy_is_plain(r) || !take_form(r, &form))
		return;
	struct proxy_shard *shard = proxy_shard_of(p, r);
	AUTO(batch_free_auto) struct batch *b = shard ? batch_new(p, r) : NULL;
	if (!b) {
		proxy_refuse(r, PROBLEM_UNAVAILABLE, &(struct http_problem_options){.detail = "starting up"});
		return;
	}
	shard->problems.count = 1;
	if (message_batch_split(r->body, form, &b->split, &shard->problems.items[0]) == MESSAGE_INVALID) {
		proxy_refuse_invalid(r, &shard->problems);
		return;
	}
	struct err e = ERR_INIT;
	if (judge_items(b, shard, &e) < 0)
		http_reply_err(r, &e);
	else if (!b->accepted_count)
		answer(b, NULL);
	else if (submit(b, shard))
		(void)TAKE(b); /* batch_committed frees it */
}
