/* reply.c - what handlers call: looking into a request, and answering it. An answer is kept in the request
 * until its turn comes; the protocol turns it into bytes. */
#include <ctype.h>
#include <stdio.h>

#include "http/request.h"
#include "http/router.h"

struct str http_header(const struct http_request *r, struct str name)
{
	for (unsigned i = 0; i < r->header_count; i++)
		if (str_eq_nocase(r->headers[i].name, name))
			return r->headers[i].value;
	return (struct str){NULL, 0};
}

bool http_header_once(const struct http_request *r, struct str name, struct str *ret)
{
	struct str found = {NULL, 0};
	unsigned count = 0;
	for (unsigned i = 0; i < r->header_count; i++) {
		if (!str_eq_nocase(r->headers[i].name, name))
			continue;
		if (count++)
			return false;
		found = r->headers[i].value;
	}
	*ret = found;
	return true;
}

struct str http_query(struct http_request *r, struct str name)
{
	struct str rest = r->query, pair;
	while (rest.n) {
		if (!str_cut(&rest, '&', &pair)) {
			pair = rest;
			rest.n = 0;
		}
		struct str key = pair, value = {pair.p + pair.n, 0};
		struct str before;
		if (str_cut(&key, '=', &before)) {
			value = key;
			key = before;
		}
		if (str_eq(percent_decode(key, r->arena), name))
			return percent_decode(value, r->arena);
	}
	return (struct str){NULL, 0};
}

unsigned http_loop_index(const struct http_request *r)
{
	return container_of(r, const struct request, http)->conn->shard->index;
}

/* For the two NULs and the alignment of what http_set_header copies. */
enum { HEADER_ROOM_BYTES = 64 };

static bool is_name(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '-')
			return false;
	return s.n > 0;
}

static bool is_value(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return false;
	return true;
}

void http_set_header(struct http_request *r, const char *name, struct str value)
{
	struct request *q = request_of(r);
	struct answer *a = &q->answer;
	require(a->header_count < ANSWER_HEADERS && is_name(str_of(name)));
	if (!is_value(value))
		return;
	/* A handler that has used its arena up can still answer. */
	q->arena.ceiling_bytes += strlen(name) + value.n + HEADER_ROOM_BYTES;
	struct http_header header = {arena_copy(&q->arena, str_of(name)), arena_copy(&q->arena, value)};
	if (header.name.p && header.value.p)
		a->headers[a->header_count++] = header;
	else
		q->failed = true;
}

/* The connection may be gone: then nobody waits for the answer. */
static void answered(struct request *r)
{
	struct conn *c = r->conn;
	request_answered(r);
	if (c->state != CONN_OPEN) {
		request_release(r);
		return;
	}
	if (c->protocol->answered)
		c->protocol->answered(c, r);
	conn_mark_dirty(c);
}

/* Out of memory: what can be said without any. */
static void give_up(struct answer *a)
{
	a->status = http_problem_status(PROBLEM_UNAVAILABLE);
	a->content_type = NULL;
	a->header_count = 0;
	a->text = (struct str){NULL, 0};
	buf_wipe(&a->body);
	buf_reset(&a->body);
}

static void answer(struct request *r, int status, const char *content_type, bool close)
{
	require(r->state == REQUEST_HANDLING);
	r->answer.status = status;
	r->answer.content_type = content_type;
	r->answer.close |= close;
	if (r->failed || r->answer.body.failed)
		give_up(&r->answer);
	if (!r->answer.text.p)
		r->answer.text = buf_str(&r->answer.body);
	answered(r);
}

void http_reply(struct http_request *r, int status, const char *content_type, struct str body)
{
	struct request *q = request_of(r);
	buf_add_str(&q->answer.body, body);
	answer(q, status, content_type, false);
}

void http_reply_close(struct http_request *r, int status, const char *content_type, struct str body)
{
	struct request *q = request_of(r);
	buf_add_str(&q->answer.body, body);
	answer(q, status, content_type, true);
}

void http_reply_buf(struct http_request *r, int status, const char *content_type, struct buf *body)
{
	struct request *q = request_of(r);
	buf_wipe(&q->answer.body);
	q->answer.body = *body;
	buf_init(body, body->ceiling_bytes);
	answer(q, status, content_type, false);
}

void http_reply_lasting(struct http_request *r, int status, const char *content_type, struct str body)
{
	struct request *q = request_of(r);
	q->answer.text = body;
	answer(q, status, content_type, false);
}

void http_reply_problem(
	struct http_request *r, enum http_problem problem, const struct http_problem_options *o)
{
	static const struct http_problem_options none;
	struct request *q = request_of(r);
	o = o ? o : &none;
	unsigned retry_after_s = o->retry_after_s ? o->retry_after_s : http_problem_retry_after_s(problem);
	if (retry_after_s) {
		char seconds[16];
		snprintf(seconds, sizeof(seconds), "%u", retry_after_s);
		http_set_header(r, "Retry-After", str_of(seconds));
	}
	http_problem_write(&q->answer.body, problem, o, r->request_id);
	answer(q, http_problem_status(problem), "application/problem+json", o->close);
}
