/* h2.c - HTTP/2 (RFC 9113) as a client, by libnghttp2. Requests are submitted to the session; `fill` takes
 * the frames it wants to send. Bodies are read from the one prepared request at the moment a frame is made.
 */
#include "cli/load/connection.h"

enum { WINDOW_BYTES = 1 << 24 };

static struct exchange *exchange_of(nghttp2_session *session, int32_t stream)
{
	return nghttp2_session_get_stream_user_data(session, stream);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
	const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
	struct exchange *x = exchange_of(session, frame->hd.stream_id);
	uint64_t status;
	if (x && str_eq(str_mem(name, name_n), STR(":status")) &&
		str_to_u64(str_mem(value, value_n), &status))
		x->status = (int)(status % 1000);
	return 0;
}

static int on_data(
	nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t n, void *user)
{
	struct exchange *x = exchange_of(session, stream);
	struct err e = ERR_INIT;
	if (x && exchange_body(user, x, str_mem(bytes, n), &e) < 0)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	return 0;
}

/* A stream that ends with an error was not answered: so does the connection, to keep the count simple. */
static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *user)
{
	struct exchange *x = exchange_of(session, stream);
	if (error != NGHTTP2_NO_ERROR || !x || !x->status)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	exchange_answered(user, x);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct connection *c = user;
	if (frame->hd.type == NGHTTP2_GOAWAY)
		c->finish = true;
	return 0;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room, uint32_t *flags,
	nghttp2_data_source *source, void *user)
{
	struct connection *c = user;
	struct exchange *x = source->ptr;
	struct str body = request_body(c->connector->request);
	size_t n = body.n - x->sent_bytes < room ? body.n - x->sent_bytes : room;
	memcpy(out, body.p + x->sent_bytes, n);
	x->sent_bytes += n;
	if (x->sent_bytes == body.n)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static int set_up(struct connection *c)
{
	static const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES},
	};
	int rc = nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
	if (!rc)
		rc = nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES);
	return rc;
}

static int open_h2(struct connection *c, struct err *e)
{
	nghttp2_session_callbacks *callbacks;
	if (nghttp2_session_callbacks_new(&callbacks))
		return err_oom(e);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	int rc = nghttp2_session_client_new(&c->h2, callbacks, c);
	nghttp2_session_callbacks_del(callbacks);
	if (rc || set_up(c))
		return err_oom(e);
	return 0;
}

static nghttp2_nv field(struct str name, struct str value)
{
	/* nghttp2 takes non-const pointers that it only reads. */
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n,
		NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static int send_h2(struct connection *c, struct exchange *x, struct err *e)
{
	const struct request *r = c->connector->request;
	const nghttp2_nv fields[] = {
		field(STR(":method"), str_of(r->method)),
		field(STR(":scheme"), STR("https")),
		field(STR(":authority"), str_of(r->authority)),
		field(STR(":path"), str_of(r->path)),
		field(STR("content-type"), str_of(r->content_type)),
	};
	nghttp2_data_provider body = {.source.ptr = x, .read_callback = read_body};
	x->sent_bytes = 0;
	int32_t stream = nghttp2_submit_request(c->h2, NULL, fields, ARRAY_LEN(fields), &body, x);
	if (stream < 0)
		return err_set(e, ERR_RETRY, "HTTP/2: %s", nghttp2_strerror(stream));
	return 0;
}

static int received_h2(struct connection *c, struct str bytes, struct err *e)
{
	ssize_t n = nghttp2_session_mem_recv(c->h2, (const uint8_t *)bytes.p, bytes.n);
	if (n < 0)
		return err_set(e, ERR_REJECT, "HTTP/2: %s", nghttp2_strerror((int)n));
	return 0;
}

static int fill_h2(struct connection *c, struct err *e)
{
	const uint8_t *frames;
	ssize_t n;
	while ((n = nghttp2_session_mem_send(c->h2, &frames)) > 0)
		buf_add(&c->out, frames, (size_t)n);
	if (n < 0)
		return err_set(e, ERR_REJECT, "HTTP/2: %s", nghttp2_strerror((int)n));
	return buf_check(&c->out, e);
}

static void close_h2(struct connection *c)
{
	nghttp2_session_del(c->h2);
	c->h2 = NULL;
}

const struct protocol load_protocol_h2 = {
	.name = "HTTP/2",
	.alpn = {"\x02h2", 3},
	.open = open_h2,
	.send = send_h2,
	.received = received_h2,
	.fill = fill_h2,
	.close = close_h2,
};
