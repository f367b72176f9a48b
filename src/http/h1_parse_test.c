/* Every case is read whole, then cut in two at every byte, then byte by byte: the verdict and all that was
 * read must be the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "http/h1_parse.h"

static const struct h1_limits limits = {.head_bytes = 256, .target_bytes = 64, .header_count = 4};

enum { ROOM = 16, BODY_CEILING = 20 };

/* One message, read from a window that grows. */
struct reader {
	struct h1_scan scan;
	struct h1_head head;
	struct http_header headers[ROOM];
	struct h1_chunked chunks;
	bool in_body;
	size_t taken;
	uint64_t body_left;
	struct buf body;
	const char *rule;
};

static enum h1_verdict read_head(struct reader *r, struct str window)
{
	struct str head;
	enum h1_verdict v = h1_scan(&r->scan, window, &limits, &head, &r->rule);
	if (v != H1_DONE)
		return v;
	assert_true(h1_scan_headers(&r->scan) <= limits.header_count);
	r->taken = r->scan.line_start;
	v = h1_parse(head, &limits, r->headers, &r->head, &r->rule);
	r->in_body = v == H1_DONE;
	r->body_left = r->head.content_length;
	return v;
}

static enum h1_verdict read_sized(struct reader *r, struct str window)
{
	if (r->body_left > BODY_CEILING)
		return H1_TOO_LARGE;
	size_t n = window.n - r->taken < r->body_left ? window.n - r->taken : (size_t)r->body_left;
	buf_add(&r->body, window.p + r->taken, n);
	r->taken += n;
	r->body_left -= n;
	return r->body_left ? H1_MORE : H1_DONE;
}

static enum h1_verdict read_chunked(struct reader *r, struct str window)
{
	for (;;) {
		struct str in = {window.p + r->taken, window.n - r->taken}, data;
		enum h1_verdict v =
			h1_chunked(&r->chunks, &in, BODY_CEILING - r->body.n, &limits, &data, &r->rule);
		r->taken = window.n - in.n;
		if (v != H1_DATA)
			return v;
		buf_add_str(&r->body, data);
	}
}

static enum h1_verdict read_on(struct reader *r, struct str window)
{
	if (!r->in_body) {
		enum h1_verdict v = read_head(r, window);
		if (v != H1_DONE)
			return v;
	}
	return r->head.chunked ? read_chunked(r, window) : read_sized(r, window);
}

/* Reads the text in pieces: up to `cut`, then in steps. Returns as soon as there is a verdict. */
static enum h1_verdict read_cut(struct str text, size_t cut, size_t step, struct reader *r)
{
	*r = (struct reader){.rule = NULL};
	buf_init(&r->body, 4096);
	enum h1_verdict v = H1_MORE;
	for (size_t n = cut; v == H1_MORE; n += step) {
		n = n < text.n ? n : text.n;
		v = read_on(r, (struct str){text.p, n});
		if (n == text.n)
			break;
	}
	return v;
}

static void assert_same(const struct reader *a, const struct reader *b)
{
	assert_int_equal(a->taken, b->taken);
	assert_true(a->rule == b->rule);
	assert_true(str_eq(buf_str(&a->body), buf_str(&b->body)));
	assert_int_equal(a->head.header_count, b->head.header_count);
	assert_true(str_eq(a->head.path, b->head.path) && str_eq(a->head.query, b->head.query));
}

static void check(struct str text, enum h1_verdict want, struct reader *whole)
{
	enum h1_verdict got = read_cut(text, text.n, 1, whole);
	if (got != want)
		fail_msg("verdict %d (%s) instead of %d for: %.*s", got, whole->rule ? whole->rule : "", want,
			STR_ARG(text));
	for (size_t cut = 0; cut < text.n; cut++) {
		struct reader again;
		assert_int_equal(read_cut(text, cut, text.n, &again), want);
		assert_same(whole, &again);
		buf_clear(&again.body);
	}
	struct reader bytes;
	assert_int_equal(read_cut(text, 0, 1, &bytes), want);
	assert_same(whole, &bytes);
	buf_clear(&bytes.body);
}

#define GET(headers)        STR("GET / HTTP/1.1\r\nHost: a\r\n" headers "\r\n")
#define POST(headers, body) STR("POST / HTTP/1.1\r\nHost: a\r\n" headers "\r\n" body)
#define CHUNKED(body)       POST("Transfer-Encoding: chunked\r\n", body)
#define LINE(line)          STR(line "\r\nHost: a\r\n\r\n")

static const struct {
	struct str text;
	const char *path, *query, *body;
	bool close;
} good[] = {
	{GET(""), "/", "", ""},
	{LINE("GET /a/b?c=d&e HTTP/1.1"), "/a/b", "c=d&e", ""},
	{LINE("GET /a%2Fb?c%3d HTTP/1.1"), "/a%2Fb", "c%3d", ""},
	{LINE("GET /? HTTP/1.1"), "/", "", ""},
	{LINE("OPTIONS * HTTP/1.1"), "*", "", ""},
	{LINE("GET /a?b?c HTTP/1.1"), "/a", "b?c", ""},
	{LINE("GET http://example.com/a?b HTTP/1.1"), "/a", "b", ""},
	{LINE("GET HTTPS://example.com:8001 HTTP/1.1"), "/", "", ""},
	{LINE("GET http://[::1]:80?x HTTP/1.1"), "/", "x", ""},
	{LINE("M-SEARCH / HTTP/1.1"), "/", "", ""},
	{LINE("GET / HTTP/1.9"), "/", "", ""},
	{STR("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), "/", "", ""},
	{STR("GET / HTTP/1.0\r\n\r\n"), "/", "", "", true},
	{STR("GET / HTTP/1.1\r\nHost:\r\n\r\n"), "/", "", ""},
	{STR("GET / HTTP/1.1\r\nhOST:example.com:443\r\n\r\n"), "/", "", ""},
	{STR("GET / HTTP/1.1\r\nHost: [fe80::1]:\r\n\r\n"), "/", "", ""},
	{GET("X: \t obs\xff"
	     "text \t\r\n"),
		"/", "", ""},
	{GET("X:\r\n"), "/", "", ""},
	{GET("Connection: keep-alive\r\n"), "/", "", ""},
	{GET("Connection: Keep-Alive, CLOSE\r\n"), "/", "", "", true},
	{POST("Content-Length: 0\r\n", ""), "/", "", ""},
	{POST("Content-Length: 3\r\n", "abc"), "/", "", "abc"},
	{POST("Content-Length: 0000003\r\n", "abcGET"), "/", "", "abc"},
	{CHUNKED("0\r\n\r\n"), "/", "", ""},
	{CHUNKED("3\r\nabc\r\n0\r\n\r\n"), "/", "", "abc"},
	{CHUNKED("3\r\nabc\r\n00A\r\n0123456789\r\n000\r\n\r\n"), "/", "", "abc0123456789"},
	{CHUNKED("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), "/", "", "01234567890123456789"},
	{CHUNKED("3;x=\"y\"\r\nabc\r\n0;last\r\n\r\n"), "/", "", "abc"},
	{CHUNKED("3 ;x\r\nabc\r\n0\r\n\r\n"), "/", "", "abc"},
	{CHUNKED("3\r\nabc\r\n0\r\nA: b\r\nC:\r\n\r\n"), "/", "", "abc"},
	{POST("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"), "/", "", ""},
};

static void good_requests(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct reader r;
		check(good[i].text, H1_DONE, &r);
		assert_true(str_eq(r.head.path, str_of(good[i].path)));
		assert_true(str_eq(r.head.query, str_of(good[i].query)));
		assert_true(str_eq(buf_str(&r.body), str_of(good[i].body)));
		assert_int_equal(r.head.close, good[i].close);
		buf_clear(&r.body);
	}
}

static const struct str bad[] = {
	/* request line */
	LINE("GET  / HTTP/1.1"),
	LINE(" GET / HTTP/1.1"),
	LINE("GET / HTTP/1.1 "),
	LINE("GET /"),
	LINE("GET"),
	LINE("G(T / HTTP/1.1"),
	LINE("GET\t/ HTTP/1.1"),
	LINE("GET / http/1.1"),
	LINE("GET / HTTP/1.10"),
	LINE("GET / HTTP/2.0"),
	LINE("GET / HTTP/1."),
	LINE("GET /a b HTTP/1.1"),
	LINE("GET a HTTP/1.1"),
	LINE("GET * HTTP/1.1"),
	LINE("OPTIONS ** HTTP/1.1"),
	LINE("OPTIONS *?a HTTP/1.1"),
	LINE("CONNECT a:443 HTTP/1.1"),
	LINE("GET /#a HTTP/1.1"),
	LINE("GET /%4 HTTP/1.1"),
	LINE("GET /%zz HTTP/1.1"),
	LINE("GET /?% HTTP/1.1"),
	LINE("GET /\xc3\xa4 HTTP/1.1"),
	LINE("GET /\x7f HTTP/1.1"),
	LINE("GET /\" HTTP/1.1"),
	LINE("GET http:///a HTTP/1.1"),
	LINE("GET http://u@a/ HTTP/1.1"),
	LINE("GET http://a:b/ HTTP/1.1"),
	LINE("GET http://[::1 HTTP/1.1"),
	LINE("GET ftp://a/ HTTP/1.1"),
	STR("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
	STR("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
	STR("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
	STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
	/* line ends */
	STR("GET / HTTP/1.1\nHost: a\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a\r\n\n"),
	STR("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
	GET("X: a\rb\r\n"),
	GET("X: a\r\r\n"),
	/* headers */
	STR("GET / HTTP/1.1\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nX: a\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
	STR("GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a:1x\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: [a\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: []\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"),
	GET("Host: a\r\n"),
	GET("Host: b\r\n"),
	GET("X\r\n"),
	GET(": a\r\n"),
	GET("X : a\r\n"),
	GET("X\t: a\r\n"),
	GET(" folded\r\n"),
	GET("X: a\r\n b\r\n"),
	GET("X: a\r\n\tb\r\n"),
	GET("X(: a\r\n"),
	GET("X\xff: a\r\n"),
	GET("X: a\x01\r\n"),
	GET("X: \x7f\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"),
	/* framing */
	POST("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"),
	POST("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"),
	POST("Content-Length: 3, 3\r\n", "abc"),
	POST("Content-Length: +3\r\n", "abc"),
	POST("Content-Length: -3\r\n", "abc"),
	POST("Content-Length: 3 3\r\n", "abc"),
	POST("Content-Length: 0x3\r\n", "abc"),
	POST("Content-Length: 3a\r\n", "abc"),
	POST("Content-Length:\r\n", "abc"),
	POST("Content-Length: 18446744073709551616\r\n", "abc"),
	POST("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
	POST("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
	POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
	POST("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
	POST("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
	POST("Transfer-Encoding: identity\r\n", ""),
	POST("Transfer-Encoding: chunked;a\r\n", "0\r\n\r\n"),
	POST("Transfer-Encoding: \x0b"
	     "chunked\r\n",
		"0\r\n\r\n"),
	POST("Transfer-Encoding:\r\n", "0\r\n\r\n"),
	STR("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
	/* chunks */
	CHUNKED("\r\n\r\n"),
	CHUNKED("x\r\n\r\n"),
	CHUNKED("0x3\r\nabc\r\n0\r\n\r\n"),
	CHUNKED("-3\r\nabc\r\n0\r\n\r\n"),
	CHUNKED("+3\r\nabc\r\n0\r\n\r\n"),
	CHUNKED(" 3\r\nabc\r\n0\r\n\r\n"),
	CHUNKED("3 \r\nabc\r\n0\r\n\r\n"),
	CHUNKED("3\nabc\r\n0\r\n\r\n"),
	CHUNKED("3\r\nabcd\r\n0\r\n\r\n"),
	CHUNKED("3\r\nabc\n0\r\n\r\n"),
	CHUNKED("3\r\nabc\r0\r\n\r\n"),
	CHUNKED("3\r\nab\r\n0\r\n\r\n"),
	CHUNKED("3\rx"),
	CHUNKED("3 x\r\nabc\r\n0\r\n\r\n"),
	CHUNKED("3;a\x01\r\nabc\r\n0\r\n\r\n"),
	CHUNKED("3;a\nabc\r\n0\r\n\r\n"),
	CHUNKED("00000000000000003\r\nabc\r\n0\r\n\r\n"),
	CHUNKED("10000000000000003\r\nabc\r\n0\r\n\r\n"),
	CHUNKED("0\r\nA\r\n\r\n"),
	CHUNKED("0\r\nA : b\r\n\r\n"),
	CHUNKED("0\r\n A: b\r\n\r\n"),
	CHUNKED("0\r\nA: b\n\r\n"),
	CHUNKED("0\r\nA: b\x01\r\n\r\n"),
	CHUNKED("0\r\n\n"),
	CHUNKED("0\r\n\rx"),
};

static void bad_requests(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct reader r;
		check(bad[i], H1_MALFORMED, &r);
		assert_non_null(r.rule);
		buf_clear(&r.body);
	}
}

#define TEN   "0123456789"
#define FIFTY TEN TEN TEN TEN TEN

static const struct str large[] = {
	LINE("GET /" FIFTY TEN "01234 HTTP/1.1"),
	GET("A: b\r\nC: d\r\nE: f\r\nG: h\r\n"),
	GET("A: " FIFTY FIFTY FIFTY FIFTY FIFTY "\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a\r\n" FIFTY FIFTY FIFTY FIFTY FIFTY),
	STR(FIFTY FIFTY FIFTY FIFTY FIFTY TEN),
	POST("Content-Length: 21\r\n", ""),
	CHUNKED("15\r\n"),
	CHUNKED("7fffffffffffffff\r\n"),
	CHUNKED("ffffffffffffffff\r\n"),
	CHUNKED("a\r\n" TEN "\r\nb\r\n"),
	CHUNKED("1;" FIFTY FIFTY FIFTY FIFTY FIFTY TEN),
	CHUNKED("0\r\nA: " FIFTY FIFTY FIFTY FIFTY FIFTY TEN),
	CHUNKED("0\r\nA: b\r\nC: d\r\nE: f\r\nG: h\r\nI: j\r\n\r\n"),
};

static void large_requests(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(large); i++) {
		struct reader r;
		check(large[i], H1_TOO_LARGE, &r);
		buf_clear(&r.body);
	}
}

static const struct str unfinished[] = {
	STR(""),
	STR("\r"),
	STR("\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a\r\n"),
	STR("GET / HTTP/1.1\r\nHost: a\r\n\r"),
	POST("Content-Length: 3\r\n", "ab"),
	CHUNKED("3\r\nab"),
	CHUNKED("3\r\nabc\r\n0\r\n"),
};

static void unfinished_requests(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(unfinished); i++) {
		struct reader r;
		check(unfinished[i], H1_MORE, &r);
		buf_clear(&r.body);
	}
}

static void headers_are_views_without_white_space(void **state)
{
	struct reader r;
	check(GET("X-Y: \t a b \t\r\nExpect: 100-Continue\r\n"), H1_DONE, &r);
	assert_int_equal(r.head.header_count, 3);
	assert_true(str_eq(r.headers[1].name, STR("X-Y")));
	assert_true(str_eq(r.headers[1].value, STR("a b")));
	assert_true(r.head.expect_continue);
	buf_clear(&r.body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_requests),
		cmocka_unit_test(bad_requests),
		cmocka_unit_test(large_requests),
		cmocka_unit_test(unfinished_requests),
		cmocka_unit_test(headers_are_views_without_white_space),
	};
	return cmocka_run_group_tests_name("h1_parse", tests, NULL, NULL);
}
