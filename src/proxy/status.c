/* status.c - GET /api/v1/messages/{id}: what became of a message, for the client that sent it.
 *
 * The queue is asked first, then the main server: a message leaves the queue only after the store has it, so
 * that it is always found in one of the two. What belongs to another client is not there (404). */
#include <stdio.h>

#include "base/json.h"
#include "base/log.h"
#include "proxy/internal.h"

enum { RETRY_AFTER_S = 2 };

/* Lives in the request's arena. */
struct question {
	struct queue_find find;
	struct lookup lookup;
	struct proxy *proxy;
	struct http_request *request;
};

struct answer {
	enum message_state state;
	struct str domain, error_text;
	struct wall accepted_at, due_at, delivered_at;
	unsigned attempt_count;
};

static void reply_not_found(struct http_request *r)
{
	http_reply_problem(r, PROBLEM_NOT_FOUND,
		&(struct http_problem_options){.detail = "no message of yours has this id"});
}

static void put_time(struct json_out *w, const char *key, struct wall t)
{
	if (t.ms)
		json_put_time(w, key, t);
	else
		json_put_null(w, key);
}

static void reply_state(struct question *q, const struct answer *a)
{
	struct http_request *r = q->request;
	struct buf *out = &q->proxy->shards[http_loop_index(r)].answer;
	char id[UUID_TEXT_BYTES];
	uuid_format(&q->find.id, id);
	buf_reset(out);
	struct json_out w = json_out_to(out);
	json_open_object(&w, NULL);
	json_put_str(&w, "message_id", str_of(id));
	json_put_str(&w, "status", str_of(message_state_name(a->state)));
	json_put_str(&w, "client_id", str_of(r->peer->name));
	json_put_str(&w, "domain", a->domain);
	json_put_time(&w, "queued_at", a->accepted_at);
	put_time(&w, "next_attempt_at", a->state == MESSAGE_QUEUED ? a->due_at : (struct wall){0});
	put_time(&w, "delivered_at", a->delivered_at);
	json_put_int(&w, "attempt_count", a->attempt_count);
	if (a->error_text.n)
		json_put_str(&w, "error_message", a->error_text);
	json_close_object(&w);
	http_set_header(r, "Cache-Control", STR("no-store"));
	http_reply(r, 200, "application/json", buf_str(out));
}

/* What neither the spool nor the main server knows may still be in the queue. */
static void reply_unknown(struct question *q)
{
	struct queue_glance glance;
	queue_glance(q->proxy->queue, &glance);
	if (glance.spooling)
		http_reply_problem(q->request, PROBLEM_UNAVAILABLE,
			&(struct http_problem_options){
				.detail = "the queue is away", .retry_after_s = RETRY_AFTER_S});
	else
		reply_not_found(q->request);
}

/* Whatever the main server holds against the question: the error names the server, and is not about the client. */
static void reply_unanswered(struct question *q)
{
	log_event(LOG_DEBUG, "ingest.status_unknown", LF_STR("request_id", q->request->request_id),
		LF_ERR(&q->lookup.err));
	http_reply_problem(q->request, PROBLEM_UNAVAILABLE,
		&(struct http_problem_options){
			.detail = "the main server cannot be asked now", .retry_after_s = RETRY_AFTER_S});
}

static void stored_answer(struct lookup *l)
{
	struct question *q = container_of(l, struct question, lookup);
	if (l->result >= 0)
		reply_state(q, &(struct answer){.state = l->state,
				       .domain = str_of(l->domain),
				       .error_text = str_of(l->error_text),
				       .accepted_at = l->accepted_at,
				       .delivered_at = l->delivered_at,
				       .attempt_count = l->attempt_count});
	else if (l->err.kind == ERR_NOT_FOUND)
		reply_unknown(q);
	else
		reply_unanswered(q);
}

static void ask_main_server(struct question *q)
{
	struct http_request *r = q->request;
	if (!q->proxy->lookup) {
		reply_unknown(q);
		return;
	}
	q->lookup = (struct lookup){.done = stored_answer, .loop = r->loop, .id = q->find.id};
	snprintf(q->lookup.client_id, sizeof(q->lookup.client_id), "%s", r->peer->name);
	q->proxy->lookup(q->proxy->lookup_arg, &q->lookup);
}

static void queue_answer(struct group_op *op)
{
	struct question *q = container_of(op, struct question, find.op);
	const struct queue_entry *entry = &q->find.entry;
	if (op->result < 0 && op->err.kind == ERR_NOT_FOUND)
		ask_main_server(q);
	else if (op->result < 0)
		proxy_reply_failed(q->request, &op->err);
	else if (!str_eq(entry->client_id, str_of(q->request->peer->name)))
		reply_not_found(q->request);
	else
		reply_state(q, &(struct answer){.state = entry->state,
				       .domain = entry->domain,
				       .error_text = entry->last_reason,
				       .accepted_at = entry->accepted_at,
				       .due_at = entry->due_at,
				       .attempt_count = entry->attempt_count});
}

void proxy_get_message(struct http_request *r)
{
	struct proxy *p = r->context;
	struct question *q = arena_zalloc(r->arena, sizeof(*q));
	if (!q) {
		http_reply_problem(r, PROBLEM_UNAVAILABLE, NULL);
		return;
	}
	q->proxy = p;
	q->request = r;
	q->find.arena = r->arena;
	q->find.op.reply = loop_inbox(r->loop);
	q->find.op.complete = queue_answer;
	if (uuid_parse(r->params[0], &q->find.id))
		queue_submit(p->queue, QUEUE_FIND, &q->find.op);
	else
		reply_not_found(r);
}
