/* http1.c - HTTP/1.1 messages as they may come from a peer: the same bytes, read whole and in pieces, must
 * give the same verdict and the same request. The first byte of the input says how the rest is cut. */
#include <stdint.h>
#include <stdlib.h>

#include "base/buf.h"
#include "http/h1_parse.h"

enum { BODY_CEILING = 4096, MESSAGES_MAX = 16 };

static const struct h1_limits limits = {.head_bytes = 1024, .target_bytes = 256, .header_count = 16};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What became of a connection's bytes: everything that a handler would see, one after the other. */
struct transcript {
	struct buf text;
	enum h1_verdict verdict; /* H1_MORE: the input ended well, or in the middle */
	size_t taken;
	unsigned message_count;
};

struct reader {
	struct h1_scan scan;
	struct h1_head head;
	struct h1_chunked chunks;
	bool in_body;
	uint64_t body_left;
	size_t body_bytes;
};

static void note(struct transcript *t, struct str s)
{
	buf_addf(&t->text, "%zu:", s.n);
	buf_add_str(&t->text, s);
}

static enum h1_verdict read_head(struct reader *r, struct str window, struct transcript *t)
{
	struct http_header headers[17];
	struct str head;
	const char *rule = "";
	enum h1_verdict v = h1_scan(&r->scan, window, &limits, &head, &rule);
	if (v != H1_DONE)
		return v;
	require(h1_scan_headers(&r->scan) < ARRAY_LEN(headers));
	v = h1_parse(head, &limits, headers, &r->head, &rule);
	if (v != H1_DONE)
		return v;
	note(t, r->head.method);
	note(t, r->head.path);
	note(t, r->head.query);
	for (unsigned i = 0; i < r->head.header_count; i++) {
		note(t, headers[i].name);
		note(t, headers[i].value);
	}
	t->taken += r->scan.line_start;
	r->in_body = true;
	r->body_left = r->head.content_length;
	return r->body_left > BODY_CEILING ? H1_TOO_LARGE : H1_DONE;
}

static enum h1_verdict read_body(struct reader *r, struct str window, struct transcript *t)
{
	struct str in = window, piece;
	const char *rule = "";
	enum h1_verdict v;
	if (!r->head.chunked) {
		piece = (struct str){in.p, r->body_left < in.n ? (size_t)r->body_left : in.n};
		buf_add_str(&t->text, piece);
		t->taken += piece.n;
		r->body_left -= piece.n;
		return r->body_left ? H1_MORE : H1_DONE;
	}
	while ((v = h1_chunked(&r->chunks, &in, BODY_CEILING - r->body_bytes, &limits, &piece, &rule)) ==
		H1_DATA) {
		require(piece.n <= BODY_CEILING - r->body_bytes);
		r->body_bytes += piece.n;
		buf_add_str(&t->text, piece);
	}
	t->taken += window.n - in.n;
	return v;
}

/* As many messages as are complete in what has come so far. */
static enum h1_verdict read_messages(struct reader *r, struct str came, struct transcript *t)
{
	while (t->message_count < MESSAGES_MAX) {
		struct str window = {came.p + t->taken, came.n - t->taken};
		enum h1_verdict v = r->in_body ? H1_DONE : read_head(r, window, t);
		window = (struct str){came.p + t->taken, came.n - t->taken};
		if (v == H1_DONE)
			v = read_body(r, window, t);
		if (v != H1_DONE)
			return v;
		t->message_count++;
		*r = (struct reader){.in_body = false};
	}
	return H1_MORE;
}

static void read_in_steps(struct str text, size_t step, struct transcript *t)
{
	struct reader r = {.in_body = false};
	*t = (struct transcript){.verdict = H1_MORE};
	buf_init(&t->text, 1 << 24);
	for (size_t n = 0; n < text.n && t->verdict == H1_MORE;) {
		n = text.n - n < step ? text.n : n + step;
		/* Exactly as long as what came, so that reading past it is seen. */
		char *came = malloc(n);
		require(came);
		memcpy(came, text.p, n);
		t->verdict = read_messages(&r, (struct str){came, n}, t);
		free(came);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 1 << 14)
		return 0;
	struct str text = str_mem(data + 1, size - 1);
	size_t step = (size_t)data[0] % 64 + 1;
	struct transcript whole, pieces;
	read_in_steps(text, text.n, &whole);
	read_in_steps(text, step, &pieces);
	require(whole.verdict == pieces.verdict && whole.taken == pieces.taken);
	require(whole.message_count == pieces.message_count);
	require(str_eq(buf_str(&whole.text), buf_str(&pieces.text)));
	buf_clear(&whole.text);
	buf_clear(&pieces.text);
	return 0;
}
