/* request.c - see request.h. A request object keeps its first arena block and small buffers when it goes back
 * to the pool, so that in the steady state a request allocates nothing. */
#include "http/request.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	KEPT_BODY_BYTES = 16 * 1024,      /* a larger buffer is not kept in the pool */
	ARENA_EXTRA_BYTES = 256 * 1024,   /* for handlers, besides what grows with the request */
	ANSWER_CEILING_BYTES = 256 << 20, /* answers are ours; this only stops a runaway */
};

static struct request *take_pooled(struct shard *s)
{
	struct request *r = s->pool;
	if (r) {
		s->pool = r->next;
		s->pooled--;
	}
	return r;
}

static struct request *new_request(void)
{
	struct request *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	arena_init(&r->arena, 0);
	buf_init(&r->body, 0);
	buf_init(&r->answer.body, ANSWER_CEILING_BYTES);
	return r;
}

static void on_deadline(struct deadline *d)
{
	struct request *r = container_of(d, struct request, deadline);
	r->conn->protocol->request_late(r->conn, r);
}

/* What a handler may allocate grows with what it has to take apart. */
static size_t arena_ceiling(const struct shard *s, size_t body_ceiling)
{
	return ARENA_EXTRA_BYTES + 4 * (s->limits.head_bytes + body_ceiling) +
	       s->limits.header_count * sizeof(struct http_header);
}

struct request *request_begin(struct conn *c)
{
	struct shard *s = c->shard;
	struct request *r = take_pooled(s);
	if (!r)
		r = new_request();
	if (!r)
		return NULL;
	r->arena.ceiling_bytes = arena_ceiling(s, 0);
	r->conn = c;
	r->next = NULL;
	r->state = REQUEST_RECEIVING;
	r->route_index = router_route_count(s->server->router);
	r->http.peer = c->peer;
	r->http.peer_local = c->local;
	r->http.arena = &r->arena;
	r->http.loop = s->loop;
	r->http.context = s->server->options.context;
	r->http.received_at = shard_now(s);
	memcpy(r->http.peer_address, c->address, sizeof(c->address));
	deadline_init(&r->deadline, on_deadline);
	conn_ref(c);
	return r;
}

static void free_request(struct request *r)
{
	arena_clear(&r->arena);
	buf_wipe(&r->body);
	buf_wipe(&r->answer.body);
	free(r);
}

void request_pool_clear(struct shard *s)
{
	for (struct request *r; (r = take_pooled(s));)
		free_request(r);
}

static void recycle_buf(struct buf *b)
{
	if (b->room > KEPT_BODY_BYTES)
		buf_wipe(b);
	else if (b->n)
		explicit_bzero(b->p, b->n);
	buf_reset(b);
}

static struct room_bounds body_bounds(const struct shard *s)
{
	return (struct room_bounds){s->limits.body_bytes, s->server->io_count};
}

static bool take_room(struct request *r, size_t bytes)
{
	struct shard *s = r->conn->shard;
	return room_take(&s->server->bodies, &s->bodies, body_bounds(s), bytes, r->body.n + r->room_bytes);
}

static void give_room_back(struct shard *s, size_t bytes)
{
	room_give_back(&s->server->bodies, &s->bodies, body_bounds(s), bytes);
}

/* Nobody looks at a body that was answered; the stream or the queue may keep the request for a while. */
static void drop_body(struct request *r)
{
	r->conn->body_bytes -= r->body.n;
	give_room_back(r->conn->shard, r->body.n + r->room_bytes);
	r->room_bytes = 0;
	recycle_buf(&r->body);
}

/* Memory of answers; the text of somebody else's needs none. */
static void count_answer(struct request *r, size_t change)
{
	r->conn->answer_bytes += change;
	r->conn->shard->answer_bytes += change;
}

/* As new_request left it, but for the memory. */
static void recycle(struct request *r)
{
	arena_reset(&r->arena);
	recycle_buf(&r->answer.body);
	*r = (struct request){.arena = r->arena, .body = r->body, .answer.body = r->answer.body};
	r->answer.body.ceiling_bytes = ANSWER_CEILING_BYTES;
}

void request_release(struct request *r)
{
	struct conn *c = r->conn;
	struct shard *s = c->shard;
	drop_body(r);
	if (r->state == REQUEST_ANSWERED)
		count_answer(r, -r->answer.body.n);
	deadline_clear(&r->deadline);
	if (s->pooled < REQUEST_POOL) {
		recycle(r);
		r->next = s->pool;
		s->pool = r;
		s->pooled++;
	} else {
		free_request(r);
	}
	conn_unref(c);
}

/* --- the head --- */

void request_refuse(struct request *r, enum http_problem problem, const char *detail, bool close)
{
	r->refusal.close |= close;
	if (r->refusal.set)
		return;
	r->refusal.set = true;
	r->refusal.problem = problem;
	r->refusal.detail = detail;
}

void request_refuse_head(struct request *r, const char *what, bool close)
{
	stats_reject(r->conn->shard->server->stats, REJECT_HEAD_TOO_LARGE);
	request_refuse(r, PROBLEM_HEADERS_TOO_LARGE, what, close);
}

void request_refuse_body(struct request *r, bool close)
{
	size_t ceiling = request_body_ceiling(r);
	const char *detail = ceiling ? arena_printf(&r->arena, "a body has at most %zu bytes here", ceiling)
				     : "no body is taken here";
	stats_reject(r->conn->shard->server->stats, REJECT_BODY_TOO_LARGE);
	request_refuse(r, PROBLEM_PAYLOAD_TOO_LARGE, detail, close);
}

static bool id_is_sane(struct str id)
{
	if (!id.n || id.n >= sizeof(((struct http_request *)NULL)->request_id))
		return false;
	for (size_t i = 0; i < id.n; i++) {
		char c = id.p[i], lower = (char)(c | 0x20);
		if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '_' &&
			c != '-')
			return false;
	}
	return true;
}

/* Random per shard, then counted: unique, and cheaper than random numbers for each request. */
static void make_id(struct shard *s, char *out)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = sizeof(s->id_prefix) - 1;
	memcpy(out, s->id_prefix, n);
	out[n++] = '-';
	for (int shift = 60; shift >= 0; shift -= 4)
		out[n++] = hex[s->id_next >> shift & 15];
	out[n] = 0;
	s->id_next++;
}

static void identify(struct request *r)
{
	struct str id = http_header(&r->http, STR("x-request-id"));
	if (id_is_sane(id)) {
		memcpy(r->http.request_id, id.p, id.n);
		r->http.request_id[id.n] = 0;
	} else {
		make_id(r->conn->shard, r->http.request_id);
	}
}

static const struct refusal peer_refusals[] = {
	[CONN_GOOD] = {.set = false},
	[CONN_LATE] = {.set = false},
	[CONN_OVER_LIMIT] = {"too many open connections with this certificate", PROBLEM_TOO_MANY_REQUESTS,
		true, true},
	[CONN_EXPIRED] = {"the certificate has expired", PROBLEM_AUTHENTICATION_REQUIRED, true, true},
	[CONN_REVOKED] = {NULL, PROBLEM_CERTIFICATE_REVOKED, true, true},
	[CONN_SUSPENDED] = {"the certificate is suspended", PROBLEM_FORBIDDEN, true, false},
	[CONN_UNKNOWN] = {"the certificate is not registered", PROBLEM_FORBIDDEN, true, true},
};

static const struct refusal route_refusals[] = {
	[ROUTER_FOUND] = {.set = false},
	[ROUTER_NOT_FOUND] = {NULL, PROBLEM_NOT_FOUND, true, false},
	[ROUTER_METHOD] = {NULL, PROBLEM_METHOD_NOT_ALLOWED, true, false},
	[ROUTER_UNAUTHENTICATED] = {NULL, PROBLEM_AUTHENTICATION_REQUIRED, true, false},
	[ROUTER_FORBIDDEN] = {"the role in the certificate is another one than this route is for",
		PROBLEM_FORBIDDEN, true, false},
};

static void refuse_peer(struct request *r, enum conn_verdict verdict)
{
	const struct refusal *refusal = &peer_refusals[verdict];
	stats_reject(r->conn->shard->server->stats, REJECT_CERTIFICATE);
	request_refuse(r, refusal->problem, refusal->detail, refusal->close);
}

static bool check_peer(struct request *r, enum conn_verdict *ret)
{
	*ret = conn_check_peer(r->conn);
	if (!peer_refusals[*ret].set)
		return true;
	refuse_peer(r, *ret);
	return false;
}

static void take_route(struct request *r, const struct router_match *match)
{
	r->http.route = match->route;
	r->route_index = match->index;
	r->arena.ceiling_bytes = arena_ceiling(r->conn->shard, match->route->body_ceiling_bytes);
	for (unsigned i = 0; i < HTTP_PARAMS && match->params[i].p; i++) {
		r->http.params[i] = percent_decode(match->params[i], &r->arena);
		if (!r->http.params[i].p)
			request_refuse(r, PROBLEM_UNAVAILABLE, NULL, false);
		else if (memchr(r->http.params[i].p, 0, r->http.params[i].n))
			request_refuse(r, PROBLEM_MALFORMED_REQUEST, "NUL in the path", false);
	}
}

static void set_allow(struct request *r)
{
	const char *allow = router_allow(r->conn->shard->server->router, r->http.path, &r->arena);
	if (allow)
		http_set_header(&r->http, "Allow", str_of(allow));
	else
		r->failed = true;
}

static void find_route(struct request *r, enum conn_verdict verdict)
{
	const struct router *router = r->conn->shard->server->router;
	struct router_match match;
	enum router_outcome outcome = router_find(
		router, r->http.method, r->http.path, r->http.peer->role, r->http.peer_local, &match);
	if (outcome == ROUTER_FOUND) {
		if (verdict == CONN_LATE && !match.route->late)
			refuse_peer(r, CONN_EXPIRED);
		else
			take_route(r, &match);
		return;
	}
	const struct refusal *refusal = &route_refusals[outcome];
	request_refuse(r, refusal->problem, refusal->detail, refusal->close);
	if (outcome == ROUTER_METHOD)
		set_allow(r);
}

void request_head_done(struct request *r)
{
	identify(r);
	r->head_only = str_eq(r->http.method, STR("HEAD"));
	enum conn_verdict verdict;
	if (!r->refusal.set && check_peer(r, &verdict))
		find_route(r, verdict);
	r->body.ceiling_bytes = request_body_ceiling(r);
}

/* --- the body --- */

size_t request_body_ceiling(const struct request *r)
{
	return r->refusal.set ? DISCARDED_BODY_BYTES : r->http.route->body_ceiling_bytes;
}

bool http_take_room(struct http_request *http, size_t bytes)
{
	struct request *r = request_of(http);
	if (!take_room(r, bytes)) {
		stats_reject(r->conn->shard->server->stats, REJECT_BODY_ROOM);
		return false;
	}
	r->room_bytes += bytes;
	return true;
}

/* Adds to the body where there is room for it. */
static bool keep_piece(struct request *r, struct str piece)
{
	struct conn *c = r->conn;
	if (c->body_bytes + piece.n > c->shard->server->conn_bytes || !take_room(r, piece.n))
		return false;
	buf_add_str(&r->body, piece);
	if (r->body.failed) {
		give_room_back(c->shard, piece.n);
		return false;
	}
	c->body_bytes += piece.n;
	return true;
}

bool request_add_body(struct request *r, struct str piece)
{
	r->received_bytes += piece.n;
	if (r->refusal.set || keep_piece(r, piece))
		return true;
	r->body.failed = true;
	stats_reject(r->conn->shard->server->stats, REJECT_BODY_ROOM);
	request_refuse(r, PROBLEM_UNAVAILABLE, "too many request bodies at once", false);
	return false;
}

/* --- the handler --- */

static void count_in_flight(struct shard *s, int change)
{
	unsigned now = atomic_load_explicit(&s->in_flight, memory_order_relaxed);
	atomic_store_explicit(&s->in_flight, now + (unsigned)change, memory_order_relaxed);
}

/* Each loop has its share of the limit, so that no counter is written by several threads. */
static bool is_place_free(const struct shard *s)
{
	unsigned loops = s->server->io_count;
	unsigned share = (s->limits.requests_in_flight + loops - 1) / loops;
	return atomic_load_explicit(&s->in_flight, memory_order_relaxed) < share;
}

/* A small request may have a large answer, so who does not read them gets no more. */
static bool is_answer_room(const struct conn *c)
{
	const struct shard *s = c->shard;
	return c->answer_bytes < s->server->conn_bytes &&
	       s->answer_bytes < s->limits.answer_bytes / s->server->io_count;
}

static void refuse_crowded(struct request *r, enum reject reason, const char *detail)
{
	stats_reject(r->conn->shard->server->stats, reason);
	request_refuse(r, PROBLEM_UNAVAILABLE, detail, false);
}

static void take_place(struct request *r)
{
	if (!is_place_free(r->conn->shard)) {
		refuse_crowded(r, REJECT_IN_FLIGHT, "too many requests are being answered");
	} else if (!is_answer_room(r->conn)) {
		refuse_crowded(r, REJECT_ANSWER_ROOM, "too many answers wait to be read");
	} else {
		count_in_flight(r->conn->shard, 1);
		r->counted = true;
	}
}

static void leave_place(struct request *r)
{
	if (r->counted)
		count_in_flight(r->conn->shard, -1);
	r->counted = false;
}

void http_wait(struct http_request *r)
{
	leave_place(request_of(r));
}

void request_answered(struct request *r)
{
	drop_body(r);
	r->state = REQUEST_ANSWERED;
	count_answer(r, r->answer.body.n);
	leave_place(r);
}

static void reply_refusal(struct request *r)
{
	if (!r->http.request_id[0])
		identify(r);
	http_reply_problem(&r->http, r->refusal.problem,
		&(struct http_problem_options){.detail = r->refusal.detail, .close = r->refusal.close});
}

void request_dispatch(struct request *r)
{
	r->state = REQUEST_HANDLING;
	if (!r->refusal.set)
		take_place(r);
	if (r->refusal.set) {
		reply_refusal(r);
	} else {
		r->http.body = buf_str(&r->body);
		r->http.route->handler(&r->http);
	}
}

void request_sent(const struct request *r, struct mono now)
{
	const struct http_server *server = r->conn->shard->server;
	int64_t duration_ns = now.ns - r->http.received_at.ns;
	stats_answered(
		server->stats, r->route_index, r->head_only && r->http.route, r->answer.status, duration_ns);
	if (server->options.answered)
		server->options.answered(&r->http, r->answer.status, r->answer.text.n, duration_ns);
}
