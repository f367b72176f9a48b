/* h2.c - HTTP/2 on a connection (RFC 9113). libnghttp2 does framing, header compression, flow control and the
 * checks of RFC 9113 section 8; this file turns its callbacks into requests and answers into its frames.
 *
 * A stream's request is answered as soon as it is refused. What still comes of its body is thrown away for a
 * while; only then is the stream reset without an error (section 8.1): many clients, curl 7.88 among them,
 * lose an answer whose stream is reset right behind it.
 *
 * Bounds beside those of HTTP/1.1: concurrent streams; and requests that exist, which also counts those whose
 * stream the peer has reset while a handler works on them. Past that nothing is read, so opening and
 * resetting streams in a row gains a peer nothing; nghttp2 ends the connection of one that keeps at it, or
 * that floods us with frames that ask for an acknowledgment. */
#include <ctype.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>

#include "http/conn.h"
#include "http/request.h"

enum {
	STREAM_WINDOW_BYTES = 256 * 1024,
	CONNECTION_WINDOW_BYTES = 1024 * 1024,
	UNSENT_MAX = 256 * 1024,
	OUTPUT_BYTES = 64 * 1024, /* put together for one write */
	RESETS_BURST = 200,       /* streams that a peer may reset at once, */
	RESETS_PER_SECOND = 33,   /* and in the long run */
	ACKS_MAX = 128,           /* of SETTINGS and PING, waiting to be sent */
	CONTINUATIONS_MAX = 8,
};

static struct conn *conn_of(void *user_data)
{
	return user_data;
}

static struct request *request_of_stream(struct conn *c, int32_t stream_id)
{
	return nghttp2_session_get_stream_user_data(c->h2.session, stream_id);
}

static bool wants_output(const struct conn *c)
{
	return nghttp2_session_want_write(c->h2.session);
}

static bool h2_wants_input(const struct conn *c)
{
	return c->h2.count < 2 * c->shard->limits.streams && conn_unsent(c) < UNSENT_MAX &&
	       nghttp2_session_want_read(c->h2.session);
}

/* What the peer owes us on the connection as a whole. Pings do not keep it from being idle. */
static void watch(struct conn *c)
{
	if (c->h2.head_stream)
		conn_expect(c, DEADLINE_HEAD);
	else if (!c->h2.count)
		conn_expect(c, DEADLINE_IDLE);
	else
		conn_expect_nothing(c);
}

static void out_of_memory(struct conn *c)
{
	stats_reject(c->shard->server->stats, REJECT_MEMORY);
	conn_break(c);
}

static void reset_stream(struct conn *c, struct request *r, uint32_t code)
{
	if (nghttp2_submit_rst_stream(c->h2.session, NGHTTP2_FLAG_NONE, r->stream_id, code) < 0)
		out_of_memory(c);
	conn_mark_dirty(c);
}

static void forget(struct conn *c, struct request *r)
{
	link_remove(&r->link);
	c->h2.count--;
	request_release(r);
}

/* --- taking requests --- */

static void dispatch(struct request *r)
{
	deadline_clear(&r->deadline);
	request_dispatch(r);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
	struct conn *c = conn_of(user_data);
	c->h2.head_stream = frame->hd.stream_id;
	if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	struct request *r = request_begin(c);
	if (!r)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	link_append(&c->h2.requests, &r->link);
	c->h2.count++;
	r->stream_id = frame->hd.stream_id;
	r->header_room = c->shard->limits.header_count;
	struct http_header *headers = arena_alloc(&r->arena, r->header_room * sizeof(*headers));
	r->http.headers = r->h2_headers = headers;
	if (!headers || nghttp2_session_set_stream_user_data(session, r->stream_id, r) < 0)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	return 0;
}

/* Pseudo-headers by name; the authority is what Host is in HTTP/1.1, the scheme tells us nothing. */
static bool take_pseudo(struct request *r, struct str name, struct str value)
{
	if (str_eq(name, STR(":method")))
		r->http.method = value;
	else if (str_eq(name, STR(":path")))
		r->http.target = value;
	else
		return !str_eq(name, STR(":authority"));
	return true;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name_bytes,
	size_t name_n, const uint8_t *value_bytes, size_t value_n, uint8_t flags, void *user_data)
{
	struct conn *c = conn_of(user_data);
	struct request *r = request_of_stream(c, frame->hd.stream_id);
	/* Trailers are dropped. */
	if (!r || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	r->head_bytes += name_n + value_n;
	bool too_many = r->http.header_count == r->header_room;
	if (too_many || r->head_bytes > c->shard->limits.head_bytes) {
		if (!r->refusal.set)
			request_refuse_head(r, too_many ? H1_RULE_HEADERS : H1_RULE_HEAD, false);
		return 0;
	}
	struct str name = arena_copy(&r->arena, str_mem(name_bytes, name_n));
	struct str value = arena_copy(&r->arena, str_mem(value_bytes, value_n));
	if (!name.p || !value.p)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	if (name.p[0] == ':' && take_pseudo(r, name, value))
		return 0;
	if (name.p[0] == ':')
		name = STR("host");
	r->h2_headers[r->http.header_count++] = (struct http_header){name, value};
	return 0;
}

/* Left alone, nghttp2 would drop the header and go on (RFC 9113 section 8.2.1 calls the request malformed).
 */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
	size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *user_data)
{
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void check_target(struct conn *c, struct request *r)
{
	if (r->refusal.set)
		return;
	if (r->http.target.n > c->shard->limits.target_bytes) {
		request_refuse_head(r, H1_RULE_TARGET, false);
	} else if (!h1_target(r->http.method, r->http.target, &r->http.path, &r->http.query)) {
		stats_reject(c->shard->server->stats, REJECT_MALFORMED);
		request_refuse(r, PROBLEM_MALFORMED_REQUEST, "the request target is not a path", false);
	}
}

/* :authority, and Host where there is one too, name the same host (RFC 9113 section 8.3.1). */
static void check_authority(struct conn *c, struct request *r)
{
	struct str first = http_header(&r->http, STR("host"));
	bool sane = true;
	for (unsigned i = 0; i < r->http.header_count; i++) {
		const struct http_header *h = &r->http.headers[i];
		if (str_eq_nocase(h->name, STR("host")))
			sane &= h1_host(h->value) && str_eq_nocase(h->value, first);
	}
	if (sane || r->refusal.set)
		return;
	stats_reject(c->shard->server->stats, REJECT_MALFORMED);
	request_refuse(r, PROBLEM_MALFORMED_REQUEST, ":authority and Host do not name one host", false);
}

static void check_length(struct conn *c, struct request *r)
{
	/* nghttp2 has seen to it that this is a number and that the body keeps to it. */
	uint64_t length;
	if (r->refusal.set || !str_to_u64(http_header(&r->http, STR("content-length")), &length))
		return;
	if (length > request_body_ceiling(r))
		request_refuse_body(r, false);
}

static void send_continue(struct conn *c, struct request *r)
{
	static const uint8_t name[] = ":status", value[] = "100";
	const nghttp2_nv status = {(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, sizeof(name) - 1,
		sizeof(value) - 1, 0};
	if (nghttp2_submit_headers(c->h2.session, NGHTTP2_FLAG_NONE, r->stream_id, NULL, &status, 1, NULL) <
		0)
		out_of_memory(c);
}

static void head_complete(struct conn *c, struct request *r, bool end)
{
	r->http.received_at = shard_now(c->shard);
	check_target(c, r);
	check_authority(c, r);
	request_head_done(r);
	check_length(c, r);
	if (end || r->refusal.set) {
		dispatch(r);
		return;
	}
	deadline_set(&c->shard->deadlines, &r->deadline, DEADLINE_BODY, conn_deadline_at(c, DEADLINE_BODY));
	if (str_eq_nocase(http_header(&r->http, STR("expect")), STR("100-continue")))
		send_continue(c, r);
}

/* The next header block gets a deadline of its own. */
static void head_over(struct conn *c)
{
	c->h2.head_stream = 0;
	conn_expect_nothing(c);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
	struct conn *c = conn_of(user_data);
	if (frame->hd.type == NGHTTP2_HEADERS)
		head_over(c);
	struct request *r = request_of_stream(c, frame->hd.stream_id);
	if (!r || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
		return 0;
	bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		head_complete(c, r, end);
	} else if (end) {
		if (r->state == REQUEST_RECEIVING)
			dispatch(r);
	}
	return 0;
}

static void throw_away(struct conn *c, struct request *r, size_t n)
{
	bool was_enough = r->received_bytes > LINGER_BYTES;
	r->received_bytes += n;
	if (!was_enough && r->received_bytes > LINGER_BYTES)
		reset_stream(c, r, NGHTTP2_NO_ERROR);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *bytes, size_t n,
	void *user_data)
{
	struct conn *c = conn_of(user_data);
	struct request *r = request_of_stream(c, stream_id);
	if (!r)
		return 0;
	if (r->state != REQUEST_RECEIVING) {
		throw_away(c, r, n);
		return 0;
	}
	if (n > request_body_ceiling(r) - r->received_bytes) {
		request_refuse_body(r, false);
		dispatch(r);
		return 0;
	}
	if (!request_add_body(r, str_mem(bytes, n)))
		dispatch(r);
	return 0;
}

/* GOAWAY; false when out of memory. */
static bool leave(struct conn *c)
{
	c->h2.no_more = true;
	return nghttp2_submit_goaway(c->h2.session, NGHTTP2_FLAG_NONE,
		       nghttp2_session_get_last_proc_stream_id(c->h2.session), NGHTTP2_NO_ERROR, NULL,
		       0) == 0;
}

/* An answer that ends the connection is out, or lost: GOAWAY comes behind it, since some clients give up at once
 * what they are still reading. */
static void leave_if_asked(struct conn *c, const struct request *r)
{
	if (r->answer.close && !c->h2.no_more && !leave(c))
		out_of_memory(c);
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t code, void *user_data)
{
	struct conn *c = conn_of(user_data);
	struct request *r = request_of_stream(c, stream_id);
	/* A malformed header block ends like this, not with its frame. */
	if (stream_id == c->h2.head_stream)
		head_over(c);
	if (!r)
		return 0;
	leave_if_asked(c, r);
	/* A handler's request lives until it answers; then nobody is there any more. */
	if (r->state == REQUEST_HANDLING)
		r->stream_closed = true;
	else
		forget(c, r);
	return 0;
}

/* --- giving answers --- */

static nghttp2_nv nv(struct str name, struct str value)
{
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n, 0};
}

/* Names are lower case in HTTP/2 (RFC 9113 section 8.2.1). */
static struct str lower_copy(struct arena *arena, struct str s)
{
	char *out = arena_alloc(arena, s.n);
	for (size_t i = 0; out && i < s.n; i++)
		out[i] = (char)tolower((unsigned char)s.p[i]); /* it is ASCII */
	return (struct str){out, out ? s.n : 0};
}

static ssize_t read_body(nghttp2_session *session, int32_t stream_id, uint8_t *to, size_t room,
	uint32_t *flags, nghttp2_data_source *source, void *user_data)
{
	struct request *r = source->ptr;
	struct answer *a = &r->answer;
	size_t left = a->text.n - a->sent, n = left < room ? left : room;
	memcpy(to, a->text.p + a->sent, n);
	a->sent += n;
	if (n == left)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

/* False when out of memory. */
static bool submit(struct conn *c, struct request *r)
{
	struct answer *a = &r->answer;
	nghttp2_nv headers[ANSWER_HEADERS + 5];
	char length[24], status[8];
	size_t n = 0;
	snprintf(status, sizeof(status), "%d", a->status);
	headers[n++] = nv(STR(":status"), str_of(status));
	headers[n++] = nv(STR("date"), (struct str){shard_date(c->shard), DATE_BYTES});
	headers[n++] = nv(STR("x-request-id"), str_of(r->http.request_id));
	for (unsigned i = 0; i < a->header_count; i++) {
		struct str name = lower_copy(&r->arena, a->headers[i].name);
		if (!name.p)
			return false;
		headers[n++] = nv(name, a->headers[i].value);
	}
	if (answer_has_body(a)) {
		snprintf(length, sizeof(length), "%zu", a->text.n);
		headers[n++] = nv(STR("content-length"), str_of(length));
		if (a->content_type)
			headers[n++] = nv(STR("content-type"), str_of(a->content_type));
	}
	bool with_body = answer_has_body(a) && !r->head_only && a->text.n;
	const nghttp2_data_provider body = {.source.ptr = r, .read_callback = read_body};
	return nghttp2_submit_response(c->h2.session, r->stream_id, headers, n, with_body ? &body : NULL) ==
	       0;
}

static void h2_answered(struct conn *c, struct request *r)
{
	if (r->stream_closed) {
		forget(c, r);
		watch(c);
		return;
	}
	if (!submit(c, r))
		out_of_memory(c);
	deadline_set(&c->shard->deadlines, &r->deadline, DEADLINE_WRITE, conn_deadline_at(c, DEADLINE_WRITE));
}

/* What nghttp2 tells the peer when it breaks the rules; we ourselves only send NO_ERROR and CANCEL. */
static const struct {
	uint32_t code;
	enum reject reason;
} complaints[] = {
	{NGHTTP2_PROTOCOL_ERROR, REJECT_MALFORMED}, {NGHTTP2_FLOW_CONTROL_ERROR, REJECT_MALFORMED},
	{NGHTTP2_STREAM_CLOSED, REJECT_MALFORMED}, {NGHTTP2_FRAME_SIZE_ERROR, REJECT_MALFORMED},
	{NGHTTP2_COMPRESSION_ERROR, REJECT_MALFORMED}, {NGHTTP2_REFUSED_STREAM, REJECT_STREAMS},
	{NGHTTP2_ENHANCE_YOUR_CALM, REJECT_FLOOD},
	{NGHTTP2_INTERNAL_ERROR, REJECT_FLOOD}, /* what it says to one that resets too many streams */
};

static void count_complaint(struct conn *c, const nghttp2_frame *frame)
{
	uint32_t code = NGHTTP2_NO_ERROR;
	if (frame->hd.type == NGHTTP2_GOAWAY)
		code = frame->goaway.error_code;
	else if (frame->hd.type == NGHTTP2_RST_STREAM)
		code = frame->rst_stream.error_code;
	for (size_t i = 0; i < ARRAY_LEN(complaints); i++)
		if (complaints[i].code == code)
			stats_reject(c->shard->server->stats, complaints[i].reason);
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
	struct conn *c = conn_of(user_data);
	count_complaint(c, frame);
	bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
		    frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	struct request *r = ends ? request_of_stream(c, frame->hd.stream_id) : NULL;
	if (!r)
		return 0;
	request_sent(r, shard_now(c->shard));
	leave_if_asked(c, r);
	deadline_set(
		&c->shard->deadlines, &r->deadline, DEADLINE_LINGER, conn_deadline_at(c, DEADLINE_LINGER));
	return 0;
}

static void h2_request_late(struct conn *c, struct request *r)
{
	conn_count_timeout(c, r->deadline.class);
	reset_stream(c, r, r->deadline.class == DEADLINE_LINGER ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
}

/* Frames for one write; false when nghttp2 failed. */
static bool gather(struct conn *c, struct buf *out)
{
	buf_reset(out);
	while (out->n < OUTPUT_BYTES) {
		const uint8_t *bytes;
		ssize_t n = nghttp2_session_mem_send(c->h2.session, &bytes);
		if (n <= 0)
			return n == 0;
		buf_add(out, bytes, (size_t)n);
	}
	return true;
}

static bool is_handling(const struct conn *c)
{
	for (struct link *l = c->h2.requests.next; l != &c->h2.requests; l = l->next)
		if (container_of(l, struct request, link)->state == REQUEST_HANDLING)
			return true;
	return false;
}

/* Nothing can be said any more. Of a peer that has sent its last byte no window will ever open for what still waits. */
static bool is_over(const struct conn *c)
{
	if (wants_output(c))
		return false;
	return !nghttp2_session_want_read(c->h2.session) || (c->input_ended && !is_handling(c));
}

static void h2_output(struct conn *c)
{
	struct buf *out = &c->shard->answers;
	if (conn_unsent(c) >= UNSENT_MAX)
		return;
	do {
		if (!gather(c, out) || out->failed) {
			out_of_memory(c);
			return;
		}
		if (out->n)
			conn_send(c, buf_str(out));
	} while (out->n >= OUTPUT_BYTES && conn_unsent(c) < UNSENT_MAX && !c->broken);
	watch(c);
	if (is_over(c))
		conn_finish(c);
}

/* --- the connection --- */

static const struct {
	int code;
	enum reject reason;
} input_errors[] = {
	{NGHTTP2_ERR_FLOODED, REJECT_FLOOD},
	{NGHTTP2_ERR_TOO_MANY_CONTINUATIONS, REJECT_FLOOD},
	{NGHTTP2_ERR_BAD_CLIENT_MAGIC, REJECT_MALFORMED},
};

static void input_failed(struct conn *c, ssize_t code)
{
	enum reject reason = REJECT_MEMORY;
	for (size_t i = 0; i < ARRAY_LEN(input_errors); i++)
		if (input_errors[i].code == code)
			reason = input_errors[i].reason;
	stats_reject(c->shard->server->stats, reason);
	conn_break(c);
}

static size_t h2_input(struct conn *c, struct str bytes)
{
	ssize_t n = nghttp2_session_mem_recv(c->h2.session, (const uint8_t *)bytes.p, bytes.n);
	if (n < 0) {
		input_failed(c, n);
	} else {
		watch(c);
		if (wants_output(c) || !nghttp2_session_want_read(c->h2.session))
			conn_mark_dirty(c);
	}
	return bytes.n;
}

static void h2_end_of_input(struct conn *c)
{
	/* What has begun and cannot become complete. */
	for (struct link *l = c->h2.requests.next; l != &c->h2.requests; l = l->next) {
		struct request *r = container_of(l, struct request, link);
		if (r->state == REQUEST_RECEIVING)
			reset_stream(c, r, NGHTTP2_CANCEL);
	}
	if (!c->h2.count)
		conn_leave(c);
	else if (is_over(c))
		conn_finish(c);
}

static void h2_drain(struct conn *c)
{
	if (!c->h2.no_more && !leave(c)) {
		out_of_memory(c);
		return;
	}
	h2_output(c);
	if (!c->h2.count)
		conn_leave(c);
}

static void h2_closed(struct conn *c)
{
	struct h2 *h = &c->h2;
	nghttp2_session_del(h->session);
	h->session = NULL;
	while (!link_alone(&h->requests)) {
		struct request *r = container_of(h->requests.next, struct request, link);
		link_remove(&r->link);
		deadline_clear(&r->deadline);
		if (r->state != REQUEST_HANDLING)
			request_release(r);
	}
}

static void set_callbacks(nghttp2_session_callbacks *cb)
{
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
}

static void set_options(nghttp2_option *option)
{
	nghttp2_option_set_stream_reset_rate_limit(option, RESETS_BURST, RESETS_PER_SECOND);
	nghttp2_option_set_max_outbound_ack(option, ACKS_MAX);
	nghttp2_option_set_max_continuations(option, CONTINUATIONS_MAX);
}

static int new_session(struct conn *c)
{
	nghttp2_session_callbacks *cb = NULL;
	nghttp2_option *option = NULL;
	int code = nghttp2_session_callbacks_new(&cb);
	if (!code)
		code = nghttp2_option_new(&option);
	if (!code) {
		set_callbacks(cb);
		set_options(option);
		code = nghttp2_session_server_new2(&c->h2.session, cb, c, option);
	}
	nghttp2_session_callbacks_del(cb);
	nghttp2_option_del(option);
	return code;
}

static int submit_settings(struct conn *c)
{
	const struct http_limits *l = &c->shard->limits;
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, l->streams},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)l->head_bytes},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};
	int code = nghttp2_submit_settings(c->h2.session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
	if (!code)
		code = nghttp2_session_set_local_window_size(
			c->h2.session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES);
	return code;
}

static int h2_open(struct conn *c)
{
	c->h2 = (struct h2){.session = NULL};
	link_init(&c->h2.requests);
	if (new_session(c) || submit_settings(c)) {
		nghttp2_session_del(c->h2.session);
		return -1;
	}
	watch(c);
	conn_mark_dirty(c);
	return 0;
}

const struct protocol protocol_h2 = {
	.open = h2_open,
	.input = h2_input,
	.wants_input = h2_wants_input,
	.end_of_input = h2_end_of_input,
	.answered = h2_answered,
	.request_late = h2_request_late,
	.output = h2_output,
	.drain = h2_drain,
	.closed = h2_closed,
};
