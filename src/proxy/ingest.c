/* ingest.c - POST /api/v1/messages: one message from a client to the disk.
 *
 * Everything up to queue_put happens on the connection's I/O loop; the answer is given on the same loop by
 * ingest_committed, after the commit. What one request needs lives in its arena, which the HTTP server wipes.
 */
#include <openssl/evp.h>
#include <stdio.h>

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

static void refuse(struct http_request *r, enum http_problem problem, const struct http_problem_options *o)
{
	series_add(metric_series1(METRIC_REJECTED, http_problem_code(problem)), 1);
	http_reply_problem(r, problem, o);
}

bool proxy_can_accept(struct proxy *p, struct http_request *r)
{
	if (unlikely(atomic_load_explicit(&p->disk_free_bytes, memory_order_relaxed) <
		     atomic_load_explicit(&p->disk_free_min_bytes, memory_order_relaxed))) {
		refuse(r, PROBLEM_UNAVAILABLE,
			&(struct http_problem_options){
				.detail = "the disk is nearly full", .retry_after_s = 5});
		return false;
	}
	return true;
}

bool proxy_content_type_is(const struct http_request *r, struct str media_type)
{
	struct str rest = http_header(r, STR("content-type")), type;
	if (!rest.p)
		return false;
	bool has_parameters = str_cut(&rest, ';', &type);
	if (!has_parameters)
		type = rest;
	if (!str_eq_nocase(str_trim(type), media_type))
		return false;
	while (has_parameters) {
		struct str parameter, name;
		has_parameters = str_cut(&rest, ';', &parameter);
		if (!has_parameters)
			parameter = rest;
		struct str value = str_trim(parameter);
		if (!str_cut(&value, '=', &name) || !str_eq_nocase(str_trim(name), STR("charset")))
			continue;
		if (!str_eq_nocase(value, STR("utf-8")) && !str_eq_nocase(value, STR("\"utf-8\"")))
			return false;
	}
	return true;
}

/* W3C Trace Context: version 00, lower-case hex; anything else is dropped, as the specification asks. */
static struct str take_traceparent(const struct http_request *r)
{
	static const char shape[] = "hh-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
	struct str value = http_header(r, STR("traceparent"));
	if (value.n != sizeof(shape) - 1)
		return (struct str){"", 0};
	for (size_t i = 0; i < value.n; i++) {
		char c = value.p[i];
		bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
		if (shape[i] == '-' ? c != '-' : !hex)
			return (struct str){"", 0};
	}
	return value;
}

static void refuse_invalid(struct http_request *r, const struct message_problems *problems)
{
	struct http_field_problem fields[MESSAGE_PROBLEMS];
	for (unsigned i = 0; i < problems->count; i++)
		fields[i] = (struct http_field_problem){
			problems->items[i].pointer, problems->items[i].code, problems->items[i].detail};
	refuse(r, PROBLEM_VALIDATION_ERROR,
		&(struct http_problem_options){.detail = "the message was not accepted; see errors",
			.fields = fields,
			.field_count = problems->count});
}

/* Idempotency-Key: 1 to 255 visible ASCII characters. False when it was refused; sets put->has_key. */
static bool take_idempotency_key(struct http_request *r, struct queue_put *put)
{
	struct str key = http_header(r, STR("idempotency-key"));
	put->has_key = key.p != NULL;
	if (!put->has_key)
		return true;
	bool sane = key.n >= 1 && key.n <= 255;
	for (size_t i = 0; sane && i < key.n; i++)
		sane = key.p[i] > ' ' && key.p[i] < 0x7f;
	if (!sane) {
		refuse(r, PROBLEM_VALIDATION_ERROR,
			&(struct http_problem_options){
				.detail = "Idempotency-Key takes 1 to 255 visible ASCII characters"});
		return false;
	}
	/* Names cannot hold a NUL, so client and key cannot run into each other. */
	char scoped[IDENTITY_NAME_BYTES + 256];
	size_t name = strlen(r->peer->name);
	memcpy(scoped, r->peer->name, name + 1);
	memcpy(scoped + name + 1, key.p, key.n);
	return EVP_Q_digest(NULL, "SHA256", NULL, scoped, name + 1 + key.n, put->key_hash, NULL) == 1 &&
	       EVP_Q_digest(NULL, "SHA256", NULL, r->body.p, r->body.n, put->payload_hash, NULL) == 1;
}

static void answer_accepted(
	struct ingest *in, const struct uuid *id, struct wall queued_at, uint64_t position)
{
	struct http_request *r = in->request;
	struct buf *out = &in->proxy->shards[http_loop_index(r)].answer;
	char id_text[UUID_TEXT_BYTES], location[64];
	uuid_format(id, id_text);
	snprintf(location, sizeof(location), "/api/v1/messages/%s", id_text);
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
	if (op->result == QUEUE_REPLAYED) {
		http_set_header(r, "Idempotency-Replayed", STR("true"));
		answer_accepted(in, &in->put.first_id, in->put.first_accepted_at, in->put.first_position);
	} else if (op->result == QUEUE_MISMATCH) {
		refuse(r, PROBLEM_IDEMPOTENCY_MISMATCH, NULL);
	} else if (op->result < 0) {
		series_add(metric_series1(METRIC_REJECTED, http_problem_code(PROBLEM_UNAVAILABLE)), 1);
		http_reply_err(r, &op->err);
	} else {
		metric_add(METRIC_ACCEPTED, 1);
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
		.traceparent = take_traceparent(r),
	};
	return in;
}

/* Takes a validated message to the queue; answers at once when it cannot. */
static void ingest_submit(struct ingest *in, struct proxy_shard *shard, const struct message *message)
{
	struct http_request *r = in->request;
	struct err e = ERR_INIT;
	if (uuid_next(&in->proxy->ids, &in->sealed.id, &e) < 0 || seal_message(shard, in, message, &e) < 0) {
		http_reply_err(r, &e);
		return;
	}
	in->validated_at = clock_mono(in->proxy->clock);
	if (queue_put(in->proxy->queue, &in->put) == GROUP_FULL)
		refuse(r, PROBLEM_UNAVAILABLE,
			&(struct http_problem_options){
				.detail = "more messages arrive than the disk can take", .retry_after_s = 1});
}

void proxy_post_message(struct http_request *r)
{
	struct proxy *p = r->context;
	if (!proxy_can_accept(p, r))
		return;
	if (!proxy_content_type_is(r, STR("application/json"))) {
		refuse(r, PROBLEM_UNSUPPORTED_MEDIA_TYPE,
			&(struct http_problem_options){.detail = "send application/json in UTF-8"});
		return;
	}
	struct proxy_shard *shard = proxy_shard_of(p, r);
	struct ingest *in = shard ? ingest_new(p, r) : NULL;
	if (!in) {
		refuse(r, PROBLEM_UNAVAILABLE, &(struct http_problem_options){.detail = "starting up"});
		return;
	}
	struct message message;
	struct err e = ERR_INIT;
	int rc = message_parse(r->body, r->arena, &message, &shard->problems, &e);
	if (rc == MESSAGE_INVALID)
		refuse_invalid(r, &shard->problems);
	else if (rc < 0)
		http_reply_err(r, &e);
	else if (take_idempotency_key(r, &in->put))
		ingest_submit(in, shard, &message);
}
