/* h1_test.c - answers in every framing, whole and in pieces, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "cli/load/h1.h"

struct answer {
	const char *text, *body;
	int status;
	bool close;
};

#define OK "HTTP/1.1 202 Accepted\r\n"

static const struct answer good[] = {
	{OK "Content-Length: 5\r\n\r\nhello", "hello", 202, false},
	{OK "content-length:5 \r\nConnection: close\r\n\r\nhello", "hello", 202, true},
	{OK "Content-Length: 0\r\n\r\n", "", 202, false},
	{"HTTP/1.1 204 No Content\r\n\r\n", "", 204, false},
	{OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", 202, false},
	{OK "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n", "hello",
		202, false},
	{"HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 1\r\n\r\nx", "x", 202, false},
	{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1\r\n\r\nx", "x", 503, false},
};

static const char *const bad[] = {
	"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
	"\r\n\r\n",
	OK "\r\n",
	OK "Content-Length: x\r\n\r\n",
	OK "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
	OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
	OK "Transfer-Encoding: gzip\r\n\r\n",
	OK "no colon\r\n\r\n",
	OK "Transfer-Encoding: chunked\r\n\r\nz\r\n",
	OK "Transfer-Encoding: chunked\r\n\r\n123456789\r\n",
	OK "Transfer-Encoding: chunked\r\n\r\n1\r\nxyz",
};

/* Feeds `step` bytes at a time, keeping what the parser leaves, as a connection does. */
static enum h1_step feed(struct h1_parser *p, const char *text, size_t step, char *body, size_t room)
{
	size_t n = strlen(text), given = 0, body_n = 0;
	struct str in = str_mem(text, 0), piece;
	for (;;) {
		enum h1_step s = h1_next(p, &in, &piece);
		if (s == H1_BODY) {
			assert_true(body_n + piece.n < room);
			memcpy(body + body_n, piece.p, piece.n);
			body_n += piece.n;
			continue;
		}
		body[body_n] = 0;
		if (s != H1_MORE || given == n)
			return s;
		size_t more = step < n - given ? step : n - given;
		given += more;
		in.n += more;
	}
}

static void test_good(void **state)
{
	char body[64];
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		for (size_t step = 1; step <= strlen(good[i].text); step++) {
			struct h1_parser p = {0};
			assert_int_equal(feed(&p, good[i].text, step, body, sizeof(body)), H1_DONE);
			assert_int_equal(p.status, good[i].status);
			assert_int_equal(p.close, good[i].close);
			assert_string_equal(body, good[i].body);
		}
	}
}

static void test_bad(void **state)
{
	char body[64];
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct h1_parser p = {0};
		assert_int_equal(feed(&p, bad[i], strlen(bad[i]), body, sizeof(body)), H1_BAD);
	}
}

static void test_pipelined(void **state)
{
	struct h1_parser p = {0};
	struct str in = STR(OK "Content-Length: 1\r\n\r\na" OK "Content-Length: 1\r\n\r\nb" OK), piece;
	for (const char *expected = "ab"; *expected; expected++) {
		assert_int_equal(h1_next(&p, &in, &piece), H1_BODY);
		assert_int_equal(piece.n, 1);
		assert_int_equal(piece.p[0], *expected);
		assert_int_equal(h1_next(&p, &in, &piece), H1_DONE);
	}
	assert_int_equal(h1_next(&p, &in, &piece), H1_MORE);
	assert_true(str_eq(in, STR(OK)));
}

static void test_endless_head(void **state)
{
	static char head[H1_HEAD_BYTES + 64];
	struct h1_parser p = {0};
	struct str piece, in = str_mem(head, sizeof(head));
	memset(head, 'a', sizeof(head));
	memcpy(head, OK, sizeof(OK) - 1);
	assert_int_equal(h1_next(&p, &in, &piece), H1_BAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_pipelined),
		cmocka_unit_test(test_endless_head),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
