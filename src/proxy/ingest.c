/* ingest.c - POST /api/v1/messages: one message from a client to the disk.
 *
 * Everything up to queue_put happens on the connection's I/O loop; the answer is given on the same loop by
 * ingest_committed, after the commit. What one request needs lives in its arena, which the HTTP server wipes.
 */
#include "base/json.h"
#include "base/metrics.h"
#include "proxy/internal.h"

/* One accepted message on its way to disk. */
struct ingest {
	struct queue_put put;
	struct sealed sealed;
	struct proxy *proxy;
	struct http_request *request;
	struct mono validated_at;
};

static void answer_accepted(
	struct ingest *in, const struct uuid *id, struct wall queued_at, uint64_t position)
{
	struct http_request *r = in->request;
	struct buf *out = &in->proxy->shards[http_loop_index(r)].answer;
	char location[] = "/api/v1/messages/00000000-0000-7000-8000-000000000000";
	char *id_text = location + sizeof(location) - UUID_TEXT_BYTES;
	uuid_format(id, id_text);
	buf_reset(out);
	struct json_out w = json_out_to(out);
	json_open_object(&w, NULL);
	json_put_str(&w, "message_id", str_of(id_text));
	json_put_str(&w, "status", str_of(message_state_name(MESSAGE_QUEUED)));
	json_put_str(&w, "client_id", in->sealed.client_id);
	json_put_str(&w, "domain", in->sealed.domain);
	json_put_time(&w, "queued_at", queued_at);
	json_put_int(&w, "position", (int64_t)position);
	json_close_object(&w);
	http_set_header(r, "Location", str_of(location));
	http_reply(r, 202, "application/json", buf_str(out));
}

/* The commit that holds the message is on disk, or there is none: only now may the client hear of it. */
static void ingest_committed(struct group_op *op)
{
	struct ingest *in = container_of(op, struct ingest, put.op);
	struct http_request *r = in->request;
	if (op->result != QUEUE_STORED)
		proxy_give_rate_back(in->proxy, r, 1);
	if (op->result == QUEUE_REPLAYED) {
		http_set_header(r, "Idempotency-Replayed", STR("true"));
		answer_accepted(in, &in->put.first_id, in->put.first_accepted_at, in->put.first_position);
	} else if (op->result == QUEUE_MISMATCH) {
		proxy_refuse(r, PROBLEM_IDEMPOTENCY_MISMATCH, NULL);
	} else if (op->result == QUEUE_KEYS_FULL) {
		proxy_refuse_key(r, 1);
	} else if (op->result < 0) {
		series_add(metric_series1(METRIC_REJECTED, http_problem_code(PROBLEM_UNAVAILABLE)), 1);
		proxy_reply_failed(r, &op->err);
	} else {
		metric_add(METRIC_ACCEPTED, 1);
		if (in->proxy->upstream)
			upstream_register(in->proxy->upstream, &in->sealed, 1);
		metric_observe(METRIC_ACCEPT_SECONDS,
			(uint64_t)(clock_mono(in->proxy->clock).ns - in->validated_at.ns));
		answer_accepted(in, &in->sealed.id, in->sealed.accepted_at, in->put.position);
	}
}

/* Seals the message under its facts; the envelope moves to the request's arena. */
static int seal_message(
	struct proxy_shard *shard, struct ingest *in, const struct message *message, struct err *e)
{
	buf_reset(&shard->envelope);
	if (sealer_seal(shard->sealer, &in->sealed, message, &shard->envelope, e) < 0)
		return -1;
	in->sealed.envelope = arena_copy(in->request->arena, buf_str(&shard->envelope));
	return in->sealed.envelope.p ? 0 : err_oom(e);
}

static struct ingest *ingest_new(struct proxy *p, struct http_request *r)
{
	struct ingest *in = arena_alloc(r->arena, sizeof(*in));
	if (!in)
		return NULL;
	in->proxy = p;
	in->request = r;
	in->put.messages = &in->sealed;
	in->put.count = 1;
	in->put.op.reply = loop_inbox(r->loop);
	in->put.op.complete = ingest_committed;
	in->sealed = (struct sealed){
		.accepted_at = clock_wall(p->clock),
		.client_id = str_of(r->peer->name),
		.domain = str_of(r->peer->domain),
		.traceparent = proxy_traceparent(r),
	};
	return in;
}

/* Takes a validated message to the queue; answers at once when it cannot. */
static void ingest_submit(struct ingest *in, struct proxy_shard *shard, const struct message *message)
{
	struct http_request *r = in->request;
	struct err e = ERR_INIT;
	if (uuid_next(&in->proxy->ids, &in->sealed.id, &e) < 0 || seal_message(shard, in, message, &e) < 0) {
		proxy_give_rate_back(in->proxy, r, 1);
		http_reply_err(r, &e);
		return;
	}
	in->validated_at = clock_mono(in->proxy->clock);
	if (queue_put(in->proxy->queue, &in->put, loop_outbox(r->loop)) == GROUP_FULL) {
		proxy_give_rate_back(in->proxy, r, 1);
		proxy_refuse(r, PROBLEM_UNAVAILABLE,
			&(struct http_problem_options){
				.detail = "more messages arrive than the disk can take", .retry_after_s = 1});
	}
}

void proxy_post_message(struct http_request *r)
{
	struct proxy *p = r->context;
	if (!proxy_can_accept(p, r) || !proxy_is_plain(r))
		return;
	if (!proxy_content_type_is(r, STR("application/json"))) {
		proxy_refuse(r, PROBLEM_UNSUPPORTED_MEDIA_TYPE,
			&(struct http_problem_options){.detail = "send application/json in UTF-8"});
		return;
	}
	struct proxy_shard *shard = proxy_shard_of(p, r);
	struct ingest *in = shard ? ingest_new(p, r) : NULL;
	if (!in) {
		proxy_refuse(r, PROBLEM_UNAVAILABLE, &(struct http_problem_options){.detail = "starting up"});
		return;
	}
	struct message message;
	struct err e = ERR_INIT;
	int rc = message_parse(r->body, r->arena, &message, &shard->problems, &e);
	if (rc == MESSAGE_INVALID)
		proxy_refuse_invalid(r, &shard->problems);
	else if (rc < 0)
		http_reply_err(r, &e);
	else if (proxy_take_key(r, &in->put) && proxy_take_rate(p, r, 1))
		ingest_submit(in, shard, &message);
}
