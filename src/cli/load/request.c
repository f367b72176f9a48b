/* request.c - see request.h. */
#include "cli/load/request.h"

#include "base/auto.h"

enum { REQUEST_BYTES = 4 << 20, NUMBER_DIGITS = 8 };

static const uint32_t number_end = 100000000;

/* {"sender_number":"+4915100000000","message_body":"xxx…"} */
static void add_message(struct buf *b, unsigned body_bytes, size_t *ret_number_at)
{
	static const char filler[] = "The quick brown fox jumps over the lazy dog. ";
	buf_add_str(b, STR("{\"sender_number\":\"+49151"));
	*ret_number_at = b->n;
	buf_add_str(b, STR("00000000\",\"message_body\":\""));
	for (unsigned left = body_bytes; left;) {
		unsigned n = left < sizeof(filler) - 1 ? left : (unsigned)sizeof(filler) - 1;
		buf_add(b, filler, n);
		left -= n;
	}
	buf_add_str(b, STR("\"}"));
}

static void add_messages(struct buf *b, const struct load_options *o, struct request *r)
{
	size_t at;
	add_message(b, o->body_bytes, &r->number_at);
	if (!o->batch)
		return;
	buf_add_char(b, '\n');
	r->message_bytes = b->n;
	for (unsigned i = 1; i < o->batch; i++) {
		add_message(b, o->body_bytes, &at);
		buf_add_char(b, '\n');
	}
}

static void add_head(struct request *r)
{
	buf_addf(&r->bytes, "%s %s HTTP/1.1\r\nHost: %s\r\n", r->method, r->path, r->authority);
}

int request_init_ingest(struct request *r, const struct load_options *o, uint32_t first_number, struct err *e)
{
	*r = (struct request){
		.method = "POST",
		.path = o->batch ? "/api/v1/messages/batch" : "/api/v1/messages",
		.content_type = o->batch ? "application/x-ndjson" : "application/json",
		.authority = o->authority,
		.messages = load_messages_per_request(o),
		.number = first_number % number_end,
	};
	AUTO(buf_auto) struct buf body;
	buf_init(&body, REQUEST_BYTES);
	buf_init(&r->bytes, REQUEST_BYTES);
	add_messages(&body, o, r);
	add_head(r);
	buf_addf(&r->bytes, "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n", r->content_type, body.n);
	r->body_at = r->bytes.n;
	r->number_at += r->body_at;
	buf_add_str(&r->bytes, buf_str(&body));
	if (buf_check(&body, e) < 0 || buf_check(&r->bytes, e) < 0) {
		request_clear(r);
		return err_context(e, "build the request");
	}
	return 0;
}

int request_init_get(struct request *r, const struct load_options *o, const char *path, struct err *e)
{
	*r = (struct request){.method = "GET", .path = path, .authority = o->authority};
	buf_init(&r->bytes, REQUEST_BYTES);
	add_head(r);
	buf_add_str(&r->bytes, STR("\r\n"));
	r->body_at = r->bytes.n;
	if (buf_check(&r->bytes, e) < 0) {
		request_clear(r);
		return err_context(e, "build the request");
	}
	return 0;
}

void request_clear(struct request *r)
{
	buf_clear(&r->bytes);
}

void request_vary(struct request *r)
{
	for (unsigned i = 0; i < r->messages; i++) {
		char *digits = r->bytes.p + r->number_at + i * r->message_bytes;
		uint32_t v = r->number = (r->number + 1) % number_end;
		for (int d = NUMBER_DIGITS - 1; d >= 0; d--, v /= 10)
			digits[d] = (char)('0' + v % 10);
	}
}
