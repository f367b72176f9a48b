/* reply.c - what handlers call: looking into a request, and answering it. An answer is kept in the request
 * until its turn comes; the protocol turns it into bytes. */
#include <ctype.h>

#include "http/request.h"
#include "http/router.h"

struct str http_header(const struct http_request *r, struct str name)
{
	for (unsigned i = 0; i < r->header_count; i++)
		if (str_eq_nocase(r->headers[i].name, name))
			return r->headers[i].value;
	return (struct str){NULL, 0};
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

void http_set_header(struct http_request *http, const char *name, struct str value)
{
	struct request *r = request_of(http);
	struct answer *a = &r->answer;
	require(a->header_count < ANSWER_HEADERS && is_name(str_of(name)));
	if (!is_value(value))
		return;
	struct http_header header = {arena_copy(&r->arena, str_of(name)), arena_copy(&r->arena, value)};
	if (header.name.p && header.value.p)
		a->headers[a->header_count++] = header;
	else
		r->failed = true;
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

static void answer(struct request *r, int status, const char *content_type, bool close)
{
	require(r->state == REQUEST_HANDLING);
	r->answer.status = status;
	r->answer.content_type = content_type;
	r->answer.close |= close;
	r->failed |= r->answer.body.failed;
	answered(r);
}

void http_reply(struct http_request *http, int status, const char *content_type, struct str body)
{
	struct request *r = request_of(http);
	buf_add_str(&r->answer.body, body);
	answer(r, status, content_type, false);
}

void http_reply_close(struct http_request *http, int status, const char *content_type, struct str body)
{
	struct request *r = request_of(http);
	buf_add_str(&r->answer.body, body);
	answer(r, status, content_type, true);
}

void http_reply_buf(struct http_request *http, int status, const char *content_type, struct buf *body)
{
	struct request *r = request_of(http);
	buf_wipe(&r->answer.body);
	r->answer.body = *body;
	buf_init(body, body->ceiling_bytes);
	answer(r, status, content_type, false);
}

void http_reply_problem(
	struct http_request *http, enum http_problem problem, const struct http_problem_options *o)
{
	static const struct http_problem_options none;
	struct request *r = request_of(http);
	o = o ? o : &none;
	unsigned retry_after_s = o->retry_after_s ? o->retry_after_s : http_problem_retry_after_s(problem);
	if (retry_after_s)
		http_set_header(http, "Retry-After", str_of(arena_printf(&r->arena, "%u", retry_after_s)));
	http_problem_write(&r->answer.body, problem, o, http->request_id);
	answer(r, http_problem_status(problem), "application/problem+json", o->close);
}
