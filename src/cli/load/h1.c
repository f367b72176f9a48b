/* h1.c - see h1.h. The parser takes from a contiguous view; what it cannot use yet is carried over to the
 * next read, which in practice never happens: an answer arrives in one TLS record. */
#include "cli/load/h1.h"

#include "cli/load/connection.h"

enum { CARRY_BYTES = 2 * H1_HEAD_BYTES + SCRATCH_BYTES };

static bool is_informational(int status)
{
	return status < 200;
}

static void advance(struct str *s, size_t n)
{
	*s = (struct str){s->p + n, s->n - n};
}

/* A line without its CRLF; false when it is not complete yet. */
static bool take_line(struct str *in, struct str *ret)
{
	const char *end = in->n ? memchr(in->p, '\n', in->n) : NULL;
	if (!end)
		return false;
	*ret = str_mem(in->p, (size_t)(end - in->p));
	advance(in, ret->n + 1);
	if (ret->n && ret->p[ret->n - 1] == '\r')
		ret->n--;
	return true;
}

static bool read_status_line(struct h1_parser *p, struct str line)
{
	uint64_t status;
	if (line.n < 12 || !str_starts(line, STR("HTTP/1.1 ")) ||
		!str_to_u64(str_mem(line.p + 9, 3), &status) || status < 100)
		return false;
	p->status = (int)status;
	return true;
}

struct framing {
	bool has_length, chunked;
	uint64_t length;
};

static bool read_field(struct h1_parser *p, struct str line, struct framing *f)
{
	struct str name;
	if (!str_cut(&line, ':', &name))
		return false;
	struct str value = str_trim(line);
	if (str_eq_nocase(name, STR("content-length"))) {
		if (f->has_length || !str_to_u64(value, &f->length))
			return false;
		f->has_length = true;
	} else if (str_eq_nocase(name, STR("transfer-encoding"))) {
		f->chunked = str_eq_nocase(value, STR("chunked"));
		return f->chunked;
	} else if (str_eq_nocase(name, STR("connection"))) {
		p->close = str_eq_nocase(value, STR("close"));
	}
	return true;
}

static bool has_no_body(int status)
{
	return is_informational(status) || status == 204 || status == 304;
}

/* Decides how the body is framed (RFC 9112 section 6.3). */
static enum h1_step enter_body(struct h1_parser *p, const struct framing *f)
{
	if (has_no_body(p->status) || (f->has_length && f->length == 0 && !f->chunked))
		return is_informational(p->status) ? H1_MORE : H1_DONE;
	if (f->has_length == f->chunked)
		return H1_BAD;
	p->at = f->chunked ? H1_AT_CHUNK : H1_AT_BODY;
	p->left = f->length;
	return H1_MORE;
}

/* Reads line by line; a head that is not complete is read again from its start when there is more. */
static enum h1_step read_head(struct h1_parser *p, struct str *in)
{
	struct framing framing = {0};
	struct str rest = *in, line;
	bool first = true;
	p->close = false;
	while (take_line(&rest, &line)) {
		if (!line.n && !first) {
			*in = rest;
			return enter_body(p, &framing);
		}
		if (first ? !read_status_line(p, line) : !read_field(p, line, &framing))
			return H1_BAD;
		first = false;
	}
	return in->n > H1_HEAD_BYTES ? H1_BAD : H1_MORE;
}

/* At most `left` bytes of body. */
static enum h1_step take_piece(struct h1_parser *p, struct str *in, struct str *ret_piece)
{
	if (!in->n)
		return H1_MORE;
	*ret_piece = str_mem(in->p, in->n < p->left ? in->n : (size_t)p->left);
	advance(in, ret_piece->n);
	p->left -= ret_piece->n;
	return H1_BODY;
}

/* Hexadecimal size, extensions ignored. */
static enum h1_step read_chunk_size(struct h1_parser *p, struct str *in)
{
	struct str line, size;
	if (!take_line(in, &line))
		return in->n > H1_HEAD_BYTES ? H1_BAD : H1_MORE;
	size = line;
	if (!str_cut(&line, ';', &size))
		size = line;
	size = str_trim(size);
	if (size.n == 0 || size.n > 8)
		return H1_BAD;
	p->left = 0;
	for (size_t i = 0; i < size.n; i++) {
		char c = size.p[i];
		int digit = c >= '0' && c <= '9'                 ? c - '0'
			    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
								 : -1;
		if (digit < 0)
			return H1_BAD;
		p->left = p->left << 4 | (unsigned)digit;
	}
	p->at = p->left ? H1_AT_CHUNK_DATA : H1_AT_TRAILER;
	return H1_MORE;
}

static enum h1_step read_chunk_end(struct h1_parser *p, struct str *in)
{
	if (in->n < 2)
		return H1_MORE;
	if (in->p[0] != '\r' || in->p[1] != '\n')
		return H1_BAD;
	advance(in, 2);
	p->at = H1_AT_CHUNK;
	return H1_MORE;
}

static enum h1_step read_trailer(struct h1_parser *p, struct str *in)
{
	struct str line;
	if (!take_line(in, &line))
		return in->n > H1_HEAD_BYTES ? H1_BAD : H1_MORE;
	if (line.n)
		return H1_MORE;
	p->at = H1_AT_HEAD;
	return H1_DONE;
}

static enum h1_step read_body(struct h1_parser *p, struct str *in, struct str *ret_piece)
{
	if (p->left)
		return take_piece(p, in, ret_piece);
	p->at = H1_AT_HEAD;
	return H1_DONE;
}

static enum h1_step read_chunk_data(struct h1_parser *p, struct str *in, struct str *ret_piece)
{
	if (p->left)
		return take_piece(p, in, ret_piece);
	p->at = H1_AT_CHUNK_END;
	return H1_MORE;
}

static enum h1_step step(struct h1_parser *p, struct str *in, struct str *ret_piece)
{
	switch (p->at) {
	case H1_AT_HEAD:
		return read_head(p, in);
	case H1_AT_BODY:
		return read_body(p, in, ret_piece);
	case H1_AT_CHUNK:
		return read_chunk_size(p, in);
	case H1_AT_CHUNK_DATA:
		return read_chunk_data(p, in, ret_piece);
	case H1_AT_CHUNK_END:
		return read_chunk_end(p, in);
	case H1_AT_TRAILER:
		return read_trailer(p, in);
	}
	return H1_BAD;
}

enum h1_step h1_next(struct h1_parser *p, struct str *in, struct str *ret_piece)
{
	for (;;) {
		size_t before = in->n;
		int at = p->at;
		enum h1_step s = step(p, in, ret_piece);
		if (s != H1_MORE || (in->n == before && (int)p->at == at))
			return s;
	}
}

static int protocol_error(struct err *e)
{
	return err_set(e, ERR_REJECT, "the server's answer is not HTTP/1.1 with a length");
}

static int open_h1(struct connection *c, struct err *e)
{
	c->h1.parser = (struct h1_parser){0};
	buf_init(&c->h1.carry, CARRY_BYTES);
	return 0;
}

static int send_h1(struct connection *c, struct exchange *x, struct err *e)
{
	*c->last = x;
	c->last = &x->next;
	buf_add_str(&c->out, buf_str(&c->connector->request->bytes));
	return buf_check(&c->out, e);
}

/* Answers come in the order of the requests. */
static int answer_oldest(struct connection *c, struct err *e)
{
	struct exchange *x = c->first;
	if (!x)
		return protocol_error(e);
	c->first = x->next;
	if (!c->first)
		c->last = &c->first;
	x->status = c->h1.parser.status;
	c->finish = c->finish || c->h1.parser.close;
	exchange_answered(c, x);
	return 0;
}

static int keep_piece(struct connection *c, struct str piece, struct err *e)
{
	if (!c->first)
		return protocol_error(e);
	c->first->status = c->h1.parser.status;
	return exchange_body(c, c->first, piece, e);
}

static int read_answers(struct connection *c, struct str *in, struct err *e)
{
	struct str piece = {NULL, 0};
	for (;;) {
		int rc = 0;
		switch (h1_next(&c->h1.parser, in, &piece)) {
		case H1_MORE:
			return 0;
		case H1_BODY:
			rc = keep_piece(c, piece, e);
			break;
		case H1_DONE:
			rc = answer_oldest(c, e);
			break;
		case H1_BAD:
			rc = protocol_error(e);
			break;
		}
		if (rc < 0)
			return rc;
	}
}

static int received_h1(struct connection *c, struct str bytes, struct err *e)
{
	struct buf *carry = &c->h1.carry;
	bool carried = carry->n > 0;
	if (carried)
		buf_add_str(carry, bytes);
	struct str in = carried ? buf_str(carry) : bytes;
	if (read_answers(c, &in, e) < 0)
		return -1;
	if (carried)
		buf_consume(carry, carry->n - in.n);
	else
		buf_add_str(carry, in);
	return buf_check(carry, e);
}

static void close_h1(struct connection *c)
{
	buf_clear(&c->h1.carry);
}

const struct protocol load_protocol_h1 = {
	.name = "HTTP/1.1",
	.alpn = {"\x08http/1.1", 9},
	.open = open_h1,
	.send = send_h1,
	.received = received_h1,
	.close = close_h1,
};
