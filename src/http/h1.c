/* h1.c - HTTP/1.1 on a connection (RFC 9112). Requests of one connection are handled side by side and
 * answered in order: a client that pipelines lets its messages share a commit. At most PIPELINE_MAX of them
 * exist; then reading stops until answers have left.
 *
 * A malformed request is answered with 400 after those before it, and is the last thing that was read. */
#include <stdio.h>

#include "http/conn.h"
#include "http/request.h"

enum {
	PIPELINE_MAX = 32,
	UNSENT_MAX =
		64 *
		1024, /* answers that the peer does not take stop reading, and turning more of them into bytes */
};

static int h1_open(struct conn *c)
{
	c->h1 = (struct h1){.count = 0};
	conn_expect(c, DEADLINE_IDLE);
	return 0;
}

static bool h1_wants_input(const struct conn *c)
{
	/* A body that has begun is read to its end, also when nothing more is read after it. */
	if (c->h1.incoming)
		return true;
	return !c->h1.no_more && c->h1.count < PIPELINE_MAX &&
	       conn_unsent(c) + c->answer_bytes < UNSENT_MAX &&
	       c->body_bytes <= c->shard->server->conn_bytes / 2;
}

/* --- the queue of requests --- */

static void push(struct h1 *h, struct request *r)
{
	r->next = NULL;
	if (h->last)
		h->last->next = r;
	else
		h->first = r;
	h->last = r;
	h->count++;
}

static struct request *pop(struct h1 *h)
{
	struct request *r = h->first;
	h->first = r->next;
	if (!h->first)
		h->last = NULL;
	h->count--;
	return r;
}

/* --- taking requests --- */

static struct h1_limits limits_of(const struct conn *c)
{
	const struct http_limits *l = &c->shard->limits;
	return (struct h1_limits){l->head_bytes, l->target_bytes, l->header_count};
}

/* What the peer owes us next, and until when: nothing while we do not read. */
static void watch(struct conn *c)
{
	bool reading = h1_wants_input(c);
	if (reading && c->h1.incoming)
		conn_expect(c, DEADLINE_BODY);
	else if (reading && c->h1.scan.scanned)
		conn_expect(c, DEADLINE_HEAD);
	else if (reading && !c->h1.count)
		conn_expect(c, DEADLINE_IDLE);
	else
		conn_expect_nothing(c);
}

static void dispatch(struct conn *c, struct request *r)
{
	c->h1.incoming = NULL;
	conn_expect_nothing(c);
	request_dispatch(r);
}

/* Answers now, whatever of the body has come, and reads no more. */
static void refuse_now(struct conn *c, struct request *r)
{
	r->refusal.close = true;
	c->h1.no_more = true;
	dispatch(c, r);
}

static void out_of_memory(struct conn *c)
{
	stats_reject(c->shard->server->stats, REJECT_MEMORY);
	conn_break(c);
}

static void refuse_malformed(struct conn *c, struct request *r, const char *rule)
{
	stats_reject(c->shard->server->stats, REJECT_MALFORMED);
	request_refuse(r, PROBLEM_MALFORMED_REQUEST, rule, true);
	refuse_now(c, r);
}

static void refuse_head(struct conn *c, struct request *r, enum h1_verdict v, const char *rule)
{
	if (v == H1_TOO_LARGE) {
		request_refuse_head(r, rule, true);
		refuse_now(c, r);
	} else {
		refuse_malformed(c, r, rule);
	}
}

/* A request whose head could not even be delimited. */
static void refuse_unread(struct conn *c, enum h1_verdict v, const char *rule)
{
	struct request *r = request_begin(c);
	if (!r) {
		out_of_memory(c);
		return;
	}
	push(&c->h1, r);
	refuse_head(c, r, v, rule);
}

static void begin_body(struct conn *c, struct request *r, const struct h1_head *head)
{
	struct h1 *h = &c->h1;
	bool has_body = head->chunked || head->content_length;
	if (!has_body) {
		dispatch(c, r);
		return;
	}
	if (head->content_length > request_body_ceiling(r))
		request_refuse_body(r, true);
	/* Who waits for 100 Continue is better off with the refusal itself. */
	if (r->refusal.set && (r->refusal.close || head->expect_continue)) {
		refuse_now(c, r);
		return;
	}
	h->incoming = r;
	h->chunked = head->chunked;
	h->body_left = head->content_length;
	h->chunks = (struct h1_chunked){.left = 0};
	r->continue_due = head->expect_continue;
	if (r->continue_due)
		conn_mark_dirty(c);
}

static void begin_request(struct conn *c, struct str bytes, unsigned header_count)
{
	struct h1_limits limits = limits_of(c);
	struct request *r = request_begin(c);
	struct str copy = r ? arena_copy(&r->arena, bytes) : bytes;
	struct http_header *headers =
		r ? arena_alloc(&r->arena, (header_count + 1) * sizeof(*headers)) : NULL;
	if (!r || !copy.p || !headers) {
		if (r)
			request_release(r);
		out_of_memory(c);
		return;
	}
	push(&c->h1, r);
	struct h1_head head;
	const char *rule = NULL;
	enum h1_verdict v = h1_parse(copy, &limits, headers, &head, &rule);
	if (v != H1_DONE) {
		refuse_head(c, r, v, rule);
		return;
	}
	r->http.method = head.method;
	r->http.target = head.target;
	r->http.path = head.path;
	r->http.query = head.query;
	r->http.headers = headers;
	r->http.header_count = head.header_count;
	c->h1.no_more |= head.close;
	request_head_done(r);
	c->h1.no_more |= r->refusal.set && r->refusal.close;
	begin_body(c, r, &head);
}

/* False when more bytes are needed first. */
static bool take_head(struct conn *c, struct str *in)
{
	struct h1_scan *scan = &c->h1.scan;
	struct h1_limits limits = limits_of(c);
	struct str head;
	const char *rule = NULL;
	enum h1_verdict v = h1_scan(scan, *in, &limits, &head, &rule);
	if (v == H1_MORE)
		return false;
	conn_expect_nothing(c);
	if (v == H1_DONE) {
		unsigned header_count = h1_scan_headers(scan);
		*in = (struct str){in->p + scan->line_start, in->n - scan->line_start};
		*scan = (struct h1_scan){0};
		begin_request(c, head, header_count);
	} else {
		*scan = (struct h1_scan){0};
		refuse_unread(c, v, rule);
	}
	return true;
}

static void take_sized_body(struct conn *c, struct str *in)
{
	struct h1 *h = &c->h1;
	struct str piece = {in->p, h->body_left < in->n ? (size_t)h->body_left : in->n};
	*in = (struct str){in->p + piece.n, in->n - piece.n};
	h->body_left -= piece.n;
	if (!request_add_body(h->incoming, piece))
		refuse_now(c, h->incoming);
	else if (!h->body_left)
		dispatch(c, h->incoming);
}

static void take_chunked_body(struct conn *c, struct str *in)
{
	struct request *r = c->h1.incoming;
	struct h1_limits limits = limits_of(c);
	struct str piece;
	const char *rule = NULL;
	switch (h1_chunked(
		&c->h1.chunks, in, request_body_ceiling(r) - r->received_bytes, &limits, &piece, &rule)) {
	case H1_MORE:
		break;
	case H1_DATA:
		if (!request_add_body(r, piece))
			refuse_now(c, r);
		break;
	case H1_DONE:
		dispatch(c, r);
		break;
	case H1_MALFORMED:
		refuse_malformed(c, r, rule);
		break;
	case H1_TOO_LARGE:
		request_refuse_body(r, true);
		refuse_now(c, r);
		break;
	}
}

static void take_body(struct conn *c, struct str *in)
{
	c->h1.incoming->continue_due = false;
	if (c->h1.chunked)
		take_chunked_body(c, in);
	else
		take_sized_body(c, in);
}

static size_t h1_input(struct conn *c, struct str bytes)
{
	struct str in = bytes;
	bool enough = false;
	while (in.n && !enough && !c->broken && h1_wants_input(c)) {
		if (c->h1.incoming)
			take_body(c, &in);
		else
			enough = !take_head(c, &in);
	}
	watch(c);
	/* What follows the last request is not even kept. */
	return c->h1.no_more && !c->h1.incoming ? bytes.n : bytes.n - in.n;
}

static void h1_end_of_input(struct conn *c)
{
	struct h1 *h = &c->h1;
	h->no_more = true;
	h->scan = (struct h1_scan){0};
	conn_expect_nothing(c);
	if (h->incoming)
		conn_break(c);
	else if (!h->count)
		conn_leave(c);
}

/* --- giving answers --- */

static void add_number(struct buf *out, size_t v)
{
	char digits[20];
	size_t at = sizeof(digits);
	do {
		digits[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	buf_add(out, digits + at, sizeof(digits) - at);
}

static void add_header(struct buf *out, struct str name, struct str value)
{
	buf_add_str(out, name);
	buf_add(out, ": ", 2);
	buf_add_str(out, value);
	buf_add(out, "\r\n", 2);
}

static void write_head(struct buf *out, const struct request *r, struct shard *s, bool close)
{
	const struct answer *a = &r->answer;
	buf_add_str(out, status_line(a->status));
	add_header(out, STR("Date"), (struct str){shard_date(s), DATE_BYTES});
	add_header(out, STR("X-Request-Id"), str_of(r->http.request_id));
	if (close)
		add_header(out, STR("Connection"), STR("close"));
	for (unsigned i = 0; i < a->header_count; i++)
		add_header(out, a->headers[i].name, a->headers[i].value);
	if (answer_has_body(a)) {
		if (a->content_type)
			add_header(out, STR("Content-Type"), str_of(a->content_type));
		buf_add_str(out, STR("Content-Length: "));
		add_number(out, a->text.n);
		buf_add(out, "\r\n", 2);
	}
	buf_add(out, "\r\n", 2);
}

/* As much of it as fits; true when that was all. What has to wait stays where it is. */
static bool write_answer(struct buf *out, struct request *r, struct shard *s, bool close)
{
	struct answer *a = &r->answer;
	if (!a->begun)
		write_head(out, r, s, close);
	a->begun = true;
	if (!answer_has_body(a) || r->head_only)
		return true;
	size_t left = a->text.n - a->sent, room = out->n < UNSENT_MAX ? UNSENT_MAX - out->n : 0;
	size_t n = left < room ? left : room;
	buf_add(out, a->text.p + a->sent, n);
	a->sent += n;
	return n == left;
}

static bool is_last(const struct conn *c, const struct request *r)
{
	return r->answer.close || (c->h1.no_more && !r->next);
}

/* Puts the answers that are due together; returns the first request that is not among them. */
static struct request *gather(struct conn *c, struct buf *out, bool *ret_last)
{
	struct request *r = c->h1.first;
	bool last = false;
	for (; r && r->state == REQUEST_ANSWERED && !last && out->n < UNSENT_MAX; r = r->next) {
		bool closes = is_last(c, r);
		if (!write_answer(out, r, c->shard, closes))
			break;
		last = closes;
	}
	if (r && r == c->h1.incoming && r->continue_due) {
		r->continue_due = false;
		buf_add_str(out, STR("HTTP/1.1 100 Continue\r\n\r\n"));
	}
	*ret_last = last;
	return r;
}

static void h1_output(struct conn *c)
{
	struct buf *out = &c->shard->answers;
	if (conn_unsent(c) >= UNSENT_MAX)
		return;
	buf_reset(out);
	bool last;
	struct request *rest = gather(c, out, &last);
	if (out->failed)
		out_of_memory(c);
	if (c->broken)
		return;
	if (!out->n) {
		watch(c);
		return;
	}
	conn_send(c, buf_str(out));
	struct mono now = shard_now(c->shard);
	while (c->h1.first != rest) {
		struct request *r = pop(&c->h1);
		request_sent(r, now);
		request_release(r);
	}
	if (last) {
		c->h1.no_more = true;
		conn_finish(c);
	} else {
		watch(c);
		if (rest && rest->state == REQUEST_ANSWERED)
			conn_mark_dirty(c);
	}
}

static void h1_drain(struct conn *c)
{
	c->h1.no_more = true;
	if (!c->h1.count)
		conn_leave(c);
}

static void h1_closed(struct conn *c)
{
	while (c->h1.first) {
		struct request *r = pop(&c->h1);
		/* One that a handler holds goes when it is answered. */
		if (r->state != REQUEST_HANDLING)
			request_release(r);
	}
	c->h1 = (struct h1){.no_more = true};
}

const struct protocol protocol_h1 = {
	.open = h1_open,
	.input = h1_input,
	.wants_input = h1_wants_input,
	.end_of_input = h1_end_of_input,
	.output = h1_output,
	.drain = h1_drain,
	.closed = h1_closed,
};
