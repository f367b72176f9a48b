/* A real server on loopback and a unix socket, spoken to in raw bytes. Nothing sleeps: tests wait for bytes,
 * for the end of a connection, or for what a handler does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/metrics.h"
#include "http/server.h"

enum { WAIT_MS = 60000, LARGE_BYTES = 4 << 20 };

/* --- handlers --- */

static void echo(struct http_request *r)
{
	http_reply(r, 200, "text/plain", r->body);
}

static void name(struct http_request *r)
{
	http_set_header(r, "Location", r->params[0]);
	http_reply(r, 201, NULL, STR(""));
}

static _Atomic unsigned large_count;

static void large(struct http_request *r)
{
	struct buf body;
	large_count++;
	buf_init(&body, SIZE_MAX / 2);
	char *at = buf_reserve(&body, LARGE_BYTES);
	memset(at, 'x', LARGE_BYTES);
	buf_commit(&body, LARGE_BYTES);
	http_reply_buf(r, 200, "text/plain", &body);
}

static const char lasting_text[300000] = {
	[0] = 'a', [1 ... sizeof(lasting_text) - 2] = 'x', [sizeof(lasting_text) - 1] = 'z'};

static void lasting(struct http_request *r)
{
	http_reply_lasting(r, 200, "text/plain", str_mem(lasting_text, sizeof(lasting_text)));
}

/* Uses all that its arena gives, and then wants to set a header. */
static void greedy(struct http_request *r)
{
	size_t n = 1 << 20;
	while (n)
		if (!arena_alloc(r->arena, n))
			n /= 2;
	http_set_header(r, "Location", STR("/still-here"));
	http_reply(r, 200, NULL, STR(""));
}

static void too_large_to_answer(struct http_request *r)
{
	struct buf body;
	buf_init(&body, 1);
	buf_add_str(&body, STR("two"));
	http_set_header(r, "Location", STR("/nowhere"));
	http_reply_buf(r, 200, "text/plain", &body);
}

static void not_modified(struct http_request *r)
{
	http_reply(r, 304, NULL, STR(""));
}

/* Requests that wait until the test lets them go, last come first served. */
static struct http_request *held[64];
static _Atomic unsigned held_count;
static sem_t was_held;

static void hold(struct http_request *r)
{
	held[held_count++] = r;
	sem_post(&was_held);
}

static void wait_long(struct http_request *r)
{
	http_wait(r);
	hold(r);
}

/* The first one keeps its loop until the test lets it go. */
static _Atomic unsigned busy_count;
static sem_t busy_may_go;

static void busy(struct http_request *r)
{
	if (busy_count++ == 0) {
		sem_post(&was_held);
		sem_wait(&busy_may_go);
	}
	http_reply(r, 200, NULL, STR(""));
}

static void count_busy(struct http_request *r)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "busy %u.", busy_count);
	http_reply(r, 200, "text/plain", str_mem(text, (size_t)n));
}

enum { ROOM_BYTES = 1000 };

static void take_room(struct http_request *r)
{
	if (http_take_room(r, ROOM_BYTES))
		hold(r);
	else
		http_reply_problem(r, PROBLEM_UNAVAILABLE, NULL);
}

static void let_go(void *arg)
{
	unsigned keep = *(unsigned *)arg;
	while (held_count > keep) {
		struct http_request *r = held[--held_count];
		char text[16];
		int n = snprintf(text, sizeof(text), "held %u", held_count);
		http_reply(r, 200, "text/plain", str_mem(text, (size_t)n));
	}
}

static const struct http_route routes[] = {
	{"POST", "/echo", ROLE_BIT(ROLE_NONE), .handler = echo, .body_ceiling_bytes = 100000},
	{"GET", "/names/{name}", ROLE_BIT(ROLE_NONE), .handler = name},
	{"GET", "/large", ROLE_BIT(ROLE_NONE), .handler = large},
	{"GET", "/lasting", ROLE_BIT(ROLE_NONE), .handler = lasting},
	{"GET", "/greedy", ROLE_BIT(ROLE_NONE), .handler = greedy},
	{"GET", "/failed", ROLE_BIT(ROLE_NONE), .handler = too_large_to_answer},
	{"GET", "/same", ROLE_BIT(ROLE_NONE), .handler = not_modified},
	{"GET", "/hold", ROLE_BIT(ROLE_NONE), .handler = hold},
	{"GET", "/wait", ROLE_BIT(ROLE_NONE), .handler = wait_long},
	{"GET", "/busy", ROLE_BIT(ROLE_NONE), .handler = busy},
	{"GET", "/busy/count", ROLE_BIT(ROLE_NONE), .handler = count_busy},
	{"POST", "/room", ROLE_BIT(ROLE_NONE), .handler = take_room},
	{"GET", "/secret", ROLE_BIT(ROLE_ADMIN), .handler = echo},
	{"GET", "/local", ROLE_BIT(ROLE_ADMIN), .local = true, .handler = echo},
	{NULL},
};

/* --- the server under test --- */

struct fixture {
	struct loop *loop;
	struct http_server *server;
	char unix_path[64];
	sem_t answered;
	int last_status;
};

static struct fixture fixture;

static void on_answered(const struct http_request *r, int status, size_t body_bytes, int64_t duration_ns)
{
	fixture.last_status = status;
	sem_post(&fixture.answered);
}

static void start_with(const struct http_limits *limits)
{
	struct err e = ERR_INIT;
	held_count = 0;
	assert_int_equal(sem_init(&was_held, 0, 0), 0);
	assert_int_equal(sem_init(&fixture.answered, 0, 0), 0);
	assert_int_equal(loop_start("io", &fixture.loop, &e), 0);
	snprintf(fixture.unix_path, sizeof(fixture.unix_path), "/tmp/sealpost-http-test-%d.sock",
		(int)getpid());
	char unix_address[80];
	snprintf(unix_address, sizeof(unix_address), "unix:%s", fixture.unix_path);
	const struct http_listen listens[] = {
		{.address = "127.0.0.1:0", .fd = -1},
		{.address = unix_address, .fd = -1},
	};
	struct http_server_options o = {
		.name = "test",
		.listens = listens,
		.listen_count = ARRAY_LEN(listens),
		.loops = &fixture.loop,
		.loop_count = 1,
		.routes = routes,
		.clock = &clock_system,
		.limits = *limits,
		.answered = on_answered,
	};
	if (http_server_start(&o, &fixture.server, &e) < 0)
		fail_msg("%s", e.text);
}

static void release_held(unsigned keep)
{
	loop_call(fixture.loop, let_go, &keep);
}

static void stop(void)
{
	release_held(0);
	http_server_drain(fixture.server, WAIT_MS);
	http_server_free(fixture.server);
	loop_stop(fixture.loop);
	sem_destroy(&was_held);
	sem_destroy(&fixture.answered);
}

static int setup(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	start_with(&limits);
	return 0;
}

static int teardown(void **state)
{
	stop();
	return 0;
}

static void wait_for(sem_t *sem)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_MS / 1000;
	assert_int_equal(sem_timedwait(sem, &until), 0);
}

/* --- a client of raw bytes --- */

static uint16_t port_of(const char *address)
{
	uint64_t port;
	assert_true(str_to_u64(str_of(strrchr(address, ':') + 1), &port));
	return (uint16_t)port;
}

static int connect_to(unsigned listen)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	const char *address = http_server_address(fixture.server, listen);
	int family = listen ? AF_UNIX : AF_INET;
	int fd = socket(family, SOCK_STREAM, 0);
	assert_true(fd >= 0);
	if (listen)
		memcpy(un.sun_path, address + 5, strlen(address + 5) + 1);
	else
		in.sin_port = htons(port_of(address));
	assert_int_equal(listen ? connect(fd, (struct sockaddr *)&un, sizeof(un))
				: connect(fd, (struct sockaddr *)&in, sizeof(in)),
		0);
	return fd;
}

static void send_str(int fd, struct str s)
{
	while (s.n) {
		ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL);
		assert_true(n > 0);
		s = (struct str){s.p + n, s.n - (size_t)n};
	}
}

/* More bytes at the end of `in`; false at the end of the connection. */
static bool receive(int fd, struct buf *in)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	char *at = buf_reserve(in, 65536);
	ssize_t n = recv(fd, at, 65536, 0);
	if (n > 0)
		buf_commit(in, (size_t)n);
	return n > 0;
}

/* Waits until the connection ends; all that came. */
static struct str until_end(int fd, struct buf *in)
{
	while (receive(fd, in))
		;
	return buf_str(in);
}

static bool has(struct str text, const char *part)
{
	return text.p && memmem(text.p, text.n, part, strlen(part));
}

/* Waits until `part` has come `times` times. */
static void until_has(int fd, struct buf *in, const char *part, unsigned times)
{
	for (;;) {
		unsigned found = 0;
		for (const char *p = in->p;
			p && (p = memmem(p, (size_t)(in->p + in->n - p), part, strlen(part))); p++)
			found++;
		if (found >= times)
			return;
		if (!receive(fd, in))
			fail_msg("ended without %u times '%s': %.*s", times, part, STR_ARG(buf_str(in)));
	}
}

static struct buf new_buf(void)
{
	struct buf b;
	buf_init(&b, SIZE_MAX / 2);
	return b;
}

static void assert_ended(int fd)
{
	struct buf in = new_buf();
	struct str got = until_end(fd, &in);
	if (got.n)
		fail_msg("unexpected: %.*s", STR_ARG(got));
	buf_clear(&in);
}

static void assert_closed(int fd)
{
	assert_ended(fd);
	close(fd);
}

/* Sends all at once on a fresh connection; what comes until it ends. */
struct exchange {
	struct str sent;
	const char *wanted[4];
	const char *unwanted;
};

#define HOST  "Host: a\r\n"
#define CLOSE "Connection: close\r\n"

static const struct exchange exchanges[] = {
	{STR("POST /echo HTTP/1.1\r\n" HOST CLOSE "Content-Length: 5\r\n\r\nhello"),
		{"HTTP/1.1 200 OK\r\nDate: ",
			"\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
			"\r\nConnection: close\r\n", "\r\nX-Request-Id: "}},
	{STR("POST /echo HTTP/1.1\r\n" HOST CLOSE
	     "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
		{"HTTP/1.1 200 OK\r\n", "\r\n\r\nhello"}},
	{STR("POST /echo HTTP/1.1\r\n" HOST CLOSE "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"),
		{"HTTP/1.1 200 OK\r\n", "\r\n\r\nhi"}, "100 Continue"},
	{STR("GET /names/a%20b HTTP/1.0\r\n\r\n"),
		{"HTTP/1.1 201 Created\r\n", "\r\nLocation: a b\r\n", "\r\nContent-Length: 0\r\n\r\n",
			"Connection: close"}},
	{STR("GET /same HTTP/1.1\r\n" HOST CLOSE "\r\n"), {"HTTP/1.1 304 Not Modified\r\n"},
		"Content-Length"},
	{STR("HEAD /names/x HTTP/1.1\r\n" HOST CLOSE "\r\n"),
		{"HTTP/1.1 201 Created\r\n", "Content-Length: 0"}},
	{STR("HEAD /nowhere HTTP/1.1\r\n" HOST CLOSE "\r\n"),
		{"HTTP/1.1 401 Unauthorized\r\n", "Content-Length: 1"}, "{"},
	{STR("GET /local HTTP/1.1\r\n" HOST CLOSE "\r\n"), {"HTTP/1.1 200 OK\r\n"}},
	{STR("GET /secret HTTP/1.1\r\n" HOST CLOSE "X-Request-Id: my-Id_1.2\r\n\r\n"),
		{"HTTP/1.1 401 Unauthorized\r\n", "\r\nX-Request-Id: my-Id_1.2\r\n",
			"\"type\":\"urn:sealpost:problem:authentication-required\"",
			"\"request_id\":\"my-Id_1.2\""}},
	{STR("GET /x HTTP/1.1\r\n" HOST CLOSE "X-Request-Id: a b\r\n\r\n"), {"HTTP/1.1 401 Unauthorized\r\n"},
		"a b"},
	{STR("DELETE /echo HTTP/1.1\r\n" HOST CLOSE "\r\n"),
		{"HTTP/1.1 405 Method Not Allowed\r\n", "\r\nAllow: POST\r\n",
			"\"code\":\"method_not_allowed\""}},
	{STR("POST /names/x HTTP/1.1\r\n" HOST CLOSE "Content-Length: 0\r\n\r\n"),
		{"HTTP/1.1 405 Method Not Allowed\r\n", "\r\nAllow: GET, HEAD\r\n"}},
	{STR("GET /greedy HTTP/1.1\r\n" HOST CLOSE "\r\n"),
		{"HTTP/1.1 200 OK\r\n", "Location: /still-here\r\n"}},
	{STR("GET /failed HTTP/1.1\r\n" HOST CLOSE "\r\n"), {"HTTP/1.1 503 ", "\r\nContent-Length: 0\r\n"},
		"Location"},
	/* a refused request's body is thrown away, and the next request answered */
	{STR("POST /x HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabcGET /same HTTP/1.1\r\n" HOST CLOSE
	     "\r\n"),
		{"HTTP/1.1 401 Unauthorized\r\n", "HTTP/1.1 304 Not Modified\r\n"}},
	/* nothing after these is answered */
	{STR("POST /x HTTP/1.1\r\n" HOST
	     "Content-Length: 3\r\nExpect: 100-continue\r\n\r\nGET /same HTTP/1.1\r\n" HOST "\r\n"),
		{"HTTP/1.1 401 Unauthorized\r\n", "Connection: close"}, "304"},
	{STR("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 100001\r\n\r\nGET /same HTTP/1.1\r\n" HOST
	     "\r\n"),
		{"HTTP/1.1 413 Content Too Large\r\n", "Connection: close", "\"code\":\"payload_too_large\""},
		"304"},
	{STR("POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n186a1\r\n"),
		{"HTTP/1.1 413 Content Too Large\r\n"}},
	{STR("GET /same HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\nxGET /same HTTP/1.1\r\n" HOST "\r\n"),
		{"HTTP/1.1 413 Content Too Large\r\n"}, "304"},
	{STR("GET /same HTTP/1.1\r\n\r\nGET /same HTTP/1.1\r\n" HOST "\r\n"),
		{"HTTP/1.1 400 Bad Request\r\n", "Connection: close", "\"detail\":\"Host is missing\""},
		"304"},
	{STR("POST /echo HTTP/1.1\r\n" HOST
	     "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /same HTTP/1.1\r\n" HOST
	     "\r\n"),
		{"HTTP/1.1 400 Bad Request\r\n"}, "304"},
	{STR("POST /echo HTTP/1.1\r\n" HOST
	     "Transfer-Encoding: chunked\r\n\r\nx\r\n\r\nGET /same HTTP/1.1\r\n" HOST "\r\n"),
		{"HTTP/1.1 400 Bad Request\r\n"}, "304"},
	{STR("GET /same HTTP/1.1\r\n" HOST "\r\nGET\n/same HTTP/1.1\r\n" HOST "\r\n"),
		{"HTTP/1.1 304 Not Modified\r\n", "HTTP/1.1 400 Bad Request\r\n"}},
	{STR("GET /names/a%0d%0aX:%20b HTTP/1.1\r\n" HOST CLOSE "\r\n"), {"HTTP/1.1 201 Created\r\n"},
		"X: b"},
	{STR("GET /names/%00 HTTP/1.1\r\n" HOST CLOSE "\r\n"), {"HTTP/1.1 400 Bad Request\r\n"}},
};

static void check_exchange(const struct exchange *x, unsigned listen)
{
	int fd = connect_to(listen);
	struct buf in = new_buf();
	send_str(fd, x->sent);
	struct str got = until_end(fd, &in);
	for (unsigned i = 0; i < ARRAY_LEN(x->wanted) && x->wanted[i]; i++)
		if (!has(got, x->wanted[i]))
			fail_msg("no '%s' in the answer to '%.*s': %.*s", x->wanted[i], STR_ARG(x->sent),
				STR_ARG(got));
	if (x->unwanted && has(got, x->unwanted))
		fail_msg("'%s' in the answer to '%.*s': %.*s", x->unwanted, STR_ARG(x->sent), STR_ARG(got));
	buf_clear(&in);
	close(fd);
}

static void exchanges_over_tcp(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(exchanges); i++)
		check_exchange(&exchanges[i], 0);
}

static void exchanges_over_a_unix_socket(void **state)
{
	struct stat st;
	assert_int_equal(stat(fixture.unix_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	for (size_t i = 0; i < ARRAY_LEN(exchanges); i++)
		check_exchange(&exchanges[i], 1);
}

static void header_block_is_bounded(void **state)
{
	struct buf text = new_buf();
	buf_add_str(&text, STR("GET /same HTTP/1.1\r\n" HOST "X: "));
	for (unsigned i = 0; i < 20000; i++)
		buf_add_char(&text, 'x');
	check_exchange(&(struct exchange){buf_str(&text), {"HTTP/1.1 431 ", "headers_too_large"}}, 0);
	buf_clear(&text);
}

static const struct str hold_request = STR("GET /hold HTTP/1.1\r\n" HOST "\r\n");

static void pipelined_requests_are_answered_in_order(void **state)
{
	int fd = connect_to(0);
	struct buf in = new_buf();
	/* More than may wait at once: the rest is read when the first are answered. */
	for (unsigned i = 0; i < 40; i++)
		send_str(fd, hold_request);
	for (unsigned i = 0; i < 32; i++)
		wait_for(&was_held);
	release_held(1);
	release_held(0);
	until_has(fd, &in, "\r\n\r\nheld", 32);
	for (unsigned i = 0; i < 8; i++)
		wait_for(&was_held);
	release_held(0);
	until_has(fd, &in, "\r\n\r\nheld", 40);
	/* They were let go from the last to the first, and yet come from the first to the last. */
	const char *at = in.p, *end = in.p + in.n;
	for (unsigned i = 0; i < 40; i++) {
		char want[16];
		snprintf(want, sizeof(want), "held %u", i % 32);
		at = memmem(at, (size_t)(end - at), "held", 4);
		assert_non_null(at);
		assert_memory_equal(at, want, strlen(want));
		at++;
	}
	buf_clear(&in);
	close(fd);
}

static void split_at_every_byte(void **state)
{
	struct str text = exchanges[1].sent;
	for (size_t cut = 1; cut < text.n; cut++) {
		int fd = connect_to(0), on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		struct buf in = new_buf();
		send_str(fd, (struct str){text.p, cut});
		send_str(fd, (struct str){text.p + cut, text.n - cut});
		struct str got = until_end(fd, &in);
		assert_true(has(got, "200 OK") && has(got, "\r\n\r\nhello"));
		buf_clear(&in);
		close(fd);
	}
}

static void continue_is_sent_when_the_body_is_awaited(void **state)
{
	int fd = connect_to(0);
	struct buf in = new_buf();
	/* Not before the answer to the request in front. */
	send_str(fd, hold_request);
	wait_for(&was_held);
	send_str(fd, STR("POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
	release_held(0);
	until_has(fd, &in, "HTTP/1.1 100 Continue\r\n\r\n", 1);
	assert_true(str_starts(buf_str(&in), STR("HTTP/1.1 200 OK")));
	send_str(fd, STR("hi"));
	until_has(fd, &in, "\r\n\r\nhi", 1);
	buf_clear(&in);
	close(fd);
}

static void half_closed_peers_are_answered(void **state)
{
	int fd = connect_to(0);
	struct buf in = new_buf();
	send_str(fd, hold_request);
	send_str(fd, STR("GET /same HTTP/1.1\r\n" HOST "\r\n"));
	shutdown(fd, SHUT_WR);
	wait_for(&was_held);
	release_held(0);
	struct str got = until_end(fd, &in);
	assert_true(has(got, "held 0") && has(got, "304"));
	buf_clear(&in);
	close(fd);
}

static void answers_to_peers_that_left_are_dropped(void **state)
{
	int fd = connect_to(0);
	send_str(fd, hold_request);
	wait_for(&was_held);
	struct linger reset = {.l_onoff = 1};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	/* The reset is noticed; the request stays what it was. */
	while (http_server_connections(fixture.server))
		sched_yield();
	assert_true(str_eq(held[0]->path, STR("/hold")));
	release_held(0);
}

static void large_answers_wait_for_the_peer(void **state)
{
	int fd = connect_to(0);
	struct buf in = new_buf();
	for (unsigned i = 0; i < 3; i++)
		send_str(fd, STR("GET /large HTTP/1.1\r\n" HOST "\r\n"));
	send_str(fd, STR("GET /same HTTP/1.1\r\n" HOST CLOSE "\r\n"));
	struct str got = until_end(fd, &in);
	assert_true(got.n > (size_t)3 * LARGE_BYTES && has(got, "304"));
	buf_clear(&in);
	close(fd);
}

static uint64_t counted(enum metric m, const char *a, const char *b, const char *c)
{
	return series_value(metric_series(m, (const char *[]){"test", a, b, c, NULL}));
}

/* --- limits --- */

static struct http_limits short_limits(void)
{
	struct http_limits l;
	http_limits_default(&l);
	l.head_ms = l.body_ms = l.idle_ms = l.write_ms = 1;
	return l;
}

static void check_deadline(struct http_limits limits, struct str sent)
{
	start_with(&limits);
	int fd = connect_to(0);
	send_str(fd, sent);
	assert_closed(fd);
	stop();
}

static void slow_heads_are_cut(void **state)
{
	struct http_limits l = short_limits();
	l.idle_ms = WAIT_MS;
	check_deadline(l, STR("GET / HT"));
}

static void slow_bodies_are_cut(void **state)
{
	struct http_limits l = short_limits();
	l.idle_ms = l.head_ms = WAIT_MS;
	check_deadline(l, STR("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nx"));
}

static void idle_connections_are_closed(void **state)
{
	struct http_limits l = short_limits();
	l.head_ms = l.body_ms = WAIT_MS;
	check_deadline(l, STR(""));
}

/* An answer is followed by the end of our side; who then says nothing is not waited for. */
static void lingering_ends(void **state)
{
	struct http_limits l = short_limits();
	l.head_ms = l.body_ms = l.idle_ms = l.write_ms = WAIT_MS;
	l.linger_ms = 1;
	start_with(&l);
	int fd = connect_to(0);
	send_str(fd, STR("GET /same HTTP/1.1\r\n" HOST CLOSE "\r\n"));
	struct buf in = new_buf();
	assert_true(has(until_end(fd, &in), "304"));
	while (http_server_connections(fixture.server))
		sched_yield();
	buf_clear(&in);
	close(fd);
	stop();
}

/* The rest of an upload is swallowed, so that the answer is not lost to a reset. */
static void rejected_uploads_run_out(void **state)
{
	static char rest[4 << 20];
	struct http_limits l;
	http_limits_default(&l);
	l.linger_ms = WAIT_MS;
	start_with(&l);
	int fd = connect_to(0);
	struct buf in = new_buf();
	send_str(fd, STR("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 4194304\r\n\r\n"));
	send_str(fd, str_mem(rest, sizeof(rest)));
	assert_true(has(until_end(fd, &in), "HTTP/1.1 413 "));
	buf_clear(&in);
	close(fd);
	stop();
}

static void peers_that_do_not_read_are_cut(void **state)
{
	struct http_limits l = short_limits();
	l.head_ms = l.body_ms = l.idle_ms = WAIT_MS;
	start_with(&l);
	int fd = connect_to(0);
	for (unsigned i = 0; i < 4; i++)
		send_str(fd, STR("GET /large HTTP/1.1\r\n" HOST "\r\n"));
	/* The first bytes of an answer, which stay where they are: it may be over before a count of connections is seen. */
	struct pollfd p = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	while (http_server_connections(fixture.server))
		sched_yield();
	close(fd);
	stop();
}

static void connections_are_bounded(void **state)
{
	struct http_limits l;
	http_limits_default(&l);
	l.connections_per_address = 2;
	l.connections = 3;
	start_with(&l);
	struct buf in = new_buf();
	int fds[3];
	for (unsigned i = 0; i < 3; i++) {
		fds[i] = connect_to(i == 2);
		send_str(fds[i], STR("GET /same HTTP/1.1\r\n" HOST "\r\n"));
		buf_reset(&in);
		until_has(fds[i], &in, "304", 1);
		/* One address is full, then all are. */
		if (i > 0)
			assert_closed(connect_to(i == 2));
	}
	close(fds[0]);
	while (http_server_connections(fixture.server) == 3)
		sched_yield();
	fds[0] = connect_to(0);
	send_str(fds[0], STR("GET /same HTTP/1.1\r\n" HOST "\r\n"));
	buf_reset(&in);
	until_has(fds[0], &in, "304", 1);
	for (unsigned i = 0; i < 3; i++)
		close(fds[i]);
	buf_clear(&in);
	stop();
}

static void requests_in_flight_are_bounded(void **state)
{
	struct http_limits l;
	http_limits_default(&l);
	l.requests_in_flight = 1;
	start_with(&l);
	int first = connect_to(0), second = connect_to(0);
	struct buf in = new_buf();
	send_str(first, hold_request);
	wait_for(&was_held);
	send_str(second, hold_request);
	until_has(second, &in, "\r\n\r\n{", 1);
	assert_true(has(buf_str(&in), "HTTP/1.1 503 ") && has(buf_str(&in), "\r\nRetry-After: "));
	release_held(0);
	buf_reset(&in);
	until_has(first, &in, "held 0", 1);
	/* The place is free again, also for the connection that was refused. */
	send_str(second, hold_request);
	wait_for(&was_held);
	close(first);
	close(second);
	buf_clear(&in);
	stop();
}

static void waiting_requests_take_no_place(void **state)
{
	struct http_limits l;
	http_limits_default(&l);
	l.requests_in_flight = 1;
	start_with(&l);
	int waiting = connect_to(0), working = connect_to(0), refused = connect_to(0);
	struct buf in = new_buf();
	send_str(waiting, STR("GET /wait HTTP/1.1\r\n" HOST "\r\n"));
	wait_for(&was_held);
	send_str(working, hold_request);
	wait_for(&was_held);
	send_str(refused, hold_request);
	until_has(refused, &in, "HTTP/1.1 503 ", 1);
	release_held(0);
	buf_reset(&in);
	until_has(waiting, &in, "held 0", 1);
	/* A place is given back once. */
	send_str(working, hold_request);
	wait_for(&was_held);
	buf_reset(&in);
	send_str(refused, hold_request);
	until_has(refused, &in, "HTTP/1.1 503 ", 1);
	close(waiting);
	close(working);
	close(refused);
	buf_clear(&in);
	stop();
}

static void bodies_in_memory_are_bounded(void **state)
{
	struct http_limits l;
	http_limits_default(&l);
	l.body_bytes = 10;
	start_with(&l);
	check_exchange(&exchanges[0], 0);
	int fd = connect_to(0);
	struct buf in = new_buf();
	send_str(fd, STR("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n123456"));
	while (http_server_connections(fixture.server) != 1)
		sched_yield();
	/* The second one finds six bytes taken once the server has read them. */

	for (bool refused = false; !refused;) {
		int other = connect_to(1);
		buf_reset(&in);
		send_str(other, STR("POST /echo HTTP/1.1\r\n" HOST CLOSE "Content-Length: 5\r\n\r\nhello"));
		struct str got = until_end(other, &in);
		refused = has(got, "HTTP/1.1 503 ") && has(got, "too many request bodies");
		close(other);
	}
	/* What was there first is served, and its room is free again. */
	buf_reset(&in);
	send_str(fd, STR("7890"));
	until_has(fd, &in, "\r\n\r\n1234567890", 1);
	check_exchange(&exchanges[0], 0);
	buf_clear(&in);
	close(fd);
	stop();
}

/* One that always has a next request ready does not keep the loop from others. */
static void pipelines_take_turns(void **state)
{
	enum { REQUESTS = 1000 };
	int greedy_peer = connect_to(0), other = connect_to(0);
	struct buf in = new_buf(), requests = new_buf();
	check_exchange(&exchanges[0], 0);
	busy_count = 0;
	assert_int_equal(sem_init(&busy_may_go, 0, 0), 0);
	for (unsigned i = 0; i < REQUESTS; i++)
		buf_add_str(&requests, STR("GET /busy HTTP/1.1\r\n" HOST "\r\n"));
	send_str(greedy_peer, buf_str(&requests));
	wait_for(&was_held);
	send_str(other, STR("GET /busy/count HTTP/1.1\r\n" HOST "\r\n"));
	sem_post(&busy_may_go);
	until_has(other, &in, "busy ", 1);
	assert_false(has(buf_str(&in), "busy 1000."));
	sem_destroy(&busy_may_go);
	close(greedy_peer);
	close(other);
	buf_clear(&in);
	buf_clear(&requests);
}

/* What handlers keep counts among the bodies, but never stops one that is alone. */
static void room_of_handlers_is_bounded(void **state)
{
	static const struct str request = STR("POST /room HTTP/1.1\r\n" HOST "\r\n");
	struct http_limits l;
	http_limits_default(&l);
	l.body_bytes = ROOM_BYTES / 2;
	start_with(&l);
	int first = connect_to(0), second = connect_to(0);
	struct buf in = new_buf();
	for (unsigned i = 0; i < 2; i++) {
		send_str(first, request);
		wait_for(&was_held);
		buf_reset(&in);
		send_str(second, request);
		until_has(second, &in, "HTTP/1.1 503 ", 1);
		release_held(0);
		buf_reset(&in);
		until_has(first, &in, "held 0", 1);
	}
	close(first);
	close(second);
	buf_clear(&in);
	stop();
}

/* Requests behind an answer that is not read are not even taken. */
static void pipelined_answers_are_bounded(void **state)
{
	enum { REQUESTS = 8 };
	int deaf = connect_to(0), other = connect_to(0);
	struct buf in = new_buf();
	large_count = 0;
	for (unsigned i = 0; i < REQUESTS; i++)
		send_str(deaf, STR("GET /large HTTP/1.1\r\n" HOST "\r\n"));
	while (!large_count)
		sched_yield();
	/* One loop serves both, in the order of what came. */
	send_str(other, STR("GET /same HTTP/1.1\r\n" HOST "\r\n"));
	until_has(other, &in, "304", 1);
	assert_int_equal(large_count, 1);
	buf_reset(&in);
	shutdown(deaf, SHUT_WR);
	assert_true(until_end(deaf, &in).n > (size_t)REQUESTS * LARGE_BYTES);
	buf_clear(&in);
	close(deaf);
	close(other);
}

static void answers_in_memory_are_bounded(void **state)
{
	struct http_limits l;
	http_limits_default(&l);
	l.answer_bytes = LARGE_BYTES;
	start_with(&l);
	int deaf = connect_to(0), other = connect_to(0);
	struct buf in = new_buf();
	uint64_t before = counted(METRIC_HTTP_REJECTED, "answer_room", NULL, NULL);
	large_count = 0;
	send_str(deaf, STR("GET /large HTTP/1.1\r\n" HOST "\r\n"));
	while (!large_count)
		sched_yield();
	send_str(other, STR("GET /large HTTP/1.1\r\n" HOST "\r\n"));
	until_has(other, &in, "too many answers wait to be read", 1);
	assert_true(has(buf_str(&in), "HTTP/1.1 503 ") && has(buf_str(&in), "\r\nRetry-After: "));
	assert_int_equal(counted(METRIC_HTTP_REJECTED, "answer_room", NULL, NULL), before + 1);
	/* Once it is read there is room again, and who goes away leaves his. */
	buf_reset(&in);
	shutdown(deaf, SHUT_WR);
	assert_true(until_end(deaf, &in).n > LARGE_BYTES);
	for (unsigned i = 0; i < 2; i++) {
		int next = connect_to(0);
		send_str(next, STR("GET /large HTTP/1.1\r\n" HOST "\r\n"));
		while (large_count < i + 2)
			sched_yield();
		close(next);
		while (http_server_connections(fixture.server) > 1)
			sched_yield();
	}
	buf_clear(&in);
	close(deaf);
	close(other);
	stop();
}

/* A text that need not be kept for the peer takes no room, however slowly he reads. */
static void lasting_answers_take_no_room(void **state)
{
	struct http_limits l;
	http_limits_default(&l);
	l.answer_bytes = sizeof(lasting_text);
	start_with(&l);
	enum { REQUESTS = 10 };
	int deaf = connect_to(0);
	struct buf in = new_buf();
	for (unsigned i = 0; i < REQUESTS; i++)
		send_str(deaf, STR("GET /lasting HTTP/1.1\r\n" HOST "\r\n"));
	send_str(deaf, STR("HEAD /lasting HTTP/1.1\r\n" HOST CLOSE "\r\n"));
	struct str got = until_end(deaf, &in);
	unsigned whole = 0, ok = 0;
	for (size_t i = 0; i < got.n; i++) {
		whole += i + sizeof(lasting_text) <= got.n && got.p[i] == 'a' &&
			 !memcmp(got.p + i, lasting_text, sizeof(lasting_text));
		ok += got.n - i >= 15 && !memcmp(got.p + i, "HTTP/1.1 200 OK", 15);
	}
	assert_int_equal(whole, REQUESTS);
	assert_int_equal(ok, REQUESTS + 1);
	buf_clear(&in);
	close(deaf);
	stop();
}

/* The first number that no descriptor has. */
static int next_descriptor(void)
{
	int fd = dup(0);
	close(fd);
	return fd;
}

static void running_out_of_descriptors_is_survived(void **state)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	in.sin_port = htons(port_of(http_server_address(fixture.server, 0)));
	int fds[3];
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
	struct rlimit before, none_left;
	getrlimit(RLIMIT_NOFILE, &before);
	none_left = before;
	none_left.rlim_cur = (rlim_t)next_descriptor();
	setrlimit(RLIMIT_NOFILE, &none_left);
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		assert_int_equal(connect(fds[i], (struct sockaddr *)&in, sizeof(in)), 0);
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		assert_ended(fds[i]);
	setrlimit(RLIMIT_NOFILE, &before);
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
	check_exchange(&exchanges[0], 0);
}

static void requests_are_counted(void **state)
{
	uint64_t answered = counted(METRIC_HTTP_REQUESTS, "/echo", "POST", "200");
	uint64_t unknown = counted(METRIC_HTTP_REQUESTS, "none", "other", "401");
	uint64_t head = counted(METRIC_HTTP_REQUESTS, "/names/{name}", "HEAD", "201");
	uint64_t malformed = counted(METRIC_HTTP_REJECTED, "malformed", NULL, NULL);
	check_exchange(&exchanges[0], 0);
	check_exchange(&(struct exchange){STR("GET /x HTTP/1.1\r\n" HOST CLOSE "\r\n"), {"401"}}, 0);
	check_exchange(&(struct exchange){STR("HEAD /names/x HTTP/1.1\r\n" HOST CLOSE "\r\n"), {"201"}}, 0);
	check_exchange(&(struct exchange){STR("GET / HTTP/1.1\r\n\r\n"), {"400"}}, 0);
	for (unsigned i = 0; i < 4; i++)
		wait_for(&fixture.answered);
	assert_int_equal(counted(METRIC_HTTP_REQUESTS, "/echo", "POST", "200"), answered + 1);
	assert_int_equal(counted(METRIC_HTTP_REQUESTS, "none", "other", "401"), unknown + 1);
	assert_int_equal(counted(METRIC_HTTP_REQUESTS, "/names/{name}", "HEAD", "201"), head + 1);
	assert_int_equal(counted(METRIC_HTTP_REJECTED, "malformed", NULL, NULL), malformed + 1);
}

static void limits_change_while_running(void **state)
{
	struct http_limits l;
	http_limits_default(&l);
	start_with(&l);
	l.connections = 0;
	http_server_set_limits(fixture.server, &l);
	assert_closed(connect_to(0));
	stop();
}

/* --- the end --- */

static void *drain(void *arg)
{
	http_server_drain(fixture.server, WAIT_MS);
	return NULL;
}

static void drain_finishes_what_was_accepted(void **state)
{
	setup(NULL);
	int idle = connect_to(0), busy = connect_to(0), partial = connect_to(0);
	struct buf in = new_buf();
	send_str(busy, hold_request);
	wait_for(&was_held);
	send_str(partial, STR("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nh"));
	send_str(idle, STR("GET /same HTTP/1.1\r\n" HOST "\r\n"));
	until_has(idle, &in, "304", 1);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, drain, NULL), 0);
	assert_closed(idle);
	send_str(partial, STR("i"));
	buf_reset(&in);
	struct str got = until_end(partial, &in);
	assert_true(has(got, "Connection: close") && has(got, "\r\n\r\nhi"));
	release_held(0);
	buf_reset(&in);
	got = until_end(busy, &in);
	assert_true(has(got, "Connection: close") && has(got, "held 0"));
	close(partial);
	close(busy);
	pthread_join(thread, NULL);
	assert_int_equal(http_server_connections(fixture.server), 0);
	assert_true(access(fixture.unix_path, F_OK) < 0 && errno == ENOENT);
	buf_clear(&in);
	stop();
}

static void drain_cuts_in_the_end(void **state)
{
	setup(NULL);
	int fd = connect_to(0);
	send_str(fd, hold_request);
	wait_for(&was_held);
	http_server_drain(fixture.server, 0);
	assert_closed(fd);
	stop();
}

static void every_answer_is_reported(void **state)
{
	check_exchange(&exchanges[0], 0);
	wait_for(&fixture.answered);
	assert_int_equal(fixture.last_status, 200);
}

/* --- starting --- */

static void expect_failure(
	const struct http_listen *listen, const struct http_route *table, enum err_kind kind)
{
	struct loop *loop;
	struct err e = ERR_INIT;
	struct http_server *server;
	assert_int_equal(loop_start("io", &loop, &e), 0);
	struct http_server_options o = {
		.name = "test",
		.listens = listen,
		.listen_count = 1,
		.loops = &loop,
		.loop_count = 1,
		.routes = table,
		.clock = &clock_system,
	};
	assert_true(http_server_start(&o, &server, &e) < 0);
	assert_int_equal(e.kind, kind);
	loop_stop(loop);
}

static void bad_options_are_refused(void **state)
{
	static const struct http_route no_slash[] = {{"GET", "x", .handler = echo}, {NULL}};
	static const struct http_route twice[] = {
		{"GET", "/x", .handler = echo}, {"GET", "/x", .handler = echo}, {NULL}};
	expect_failure(&(struct http_listen){.address = "0.0.0.0:0", .fd = -1}, routes, ERR_FATAL);
	expect_failure(&(struct http_listen){.address = "127.0.0.1", .fd = -1}, routes, ERR_FATAL);
	expect_failure(&(struct http_listen){.address = "::1:80", .fd = -1}, routes, ERR_FATAL);
	expect_failure(&(struct http_listen){.address = "127.0.0.1:0", .fd = -1}, no_slash, ERR_FATAL);
	expect_failure(&(struct http_listen){.address = "127.0.0.1:0", .fd = -1}, twice, ERR_FATAL);
	expect_failure(&(struct http_listen){.address = "unix:/dev/null", .fd = -1}, routes, ERR_CONFLICT);
	expect_failure(&(struct http_listen){.address = http_server_address(fixture.server, 0), .fd = -1},
		routes, ERR_CONFLICT);
	expect_failure(&(struct http_listen){.address = http_server_address(fixture.server, 1), .fd = -1},
		routes, ERR_CONFLICT);
}

static void stale_unix_sockets_are_replaced(void **state)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	snprintf(un.sun_path, sizeof(un.sun_path), "/tmp/sealpost-http-test-%d.sock", (int)getpid());
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
	setup(NULL);
	check_exchange(&exchanges[0], 1);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(exchanges_over_tcp, setup, teardown),
		cmocka_unit_test_setup_teardown(exchanges_over_a_unix_socket, setup, teardown),
		cmocka_unit_test_setup_teardown(header_block_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(pipelined_requests_are_answered_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(split_at_every_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(continue_is_sent_when_the_body_is_awaited, setup, teardown),
		cmocka_unit_test_setup_teardown(half_closed_peers_are_answered, setup, teardown),
		cmocka_unit_test_setup_teardown(answers_to_peers_that_left_are_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(large_answers_wait_for_the_peer, setup, teardown),
		cmocka_unit_test_setup_teardown(every_answer_is_reported, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_options_are_refused, setup, teardown),
		cmocka_unit_test(slow_heads_are_cut),
		cmocka_unit_test(slow_bodies_are_cut),
		cmocka_unit_test(idle_connections_are_closed),
		cmocka_unit_test(lingering_ends),
		cmocka_unit_test(rejected_uploads_run_out),
		cmocka_unit_test(peers_that_do_not_read_are_cut),
		cmocka_unit_test(connections_are_bounded),
		cmocka_unit_test(requests_in_flight_are_bounded),
		cmocka_unit_test(waiting_requests_take_no_place),
		cmocka_unit_test_setup_teardown(pipelines_take_turns, setup, teardown),
		cmocka_unit_test(room_of_handlers_is_bounded),
		cmocka_unit_test(bodies_in_memory_are_bounded),
		cmocka_unit_test_setup_teardown(pipelined_answers_are_bounded, setup, teardown),
		cmocka_unit_test(answers_in_memory_are_bounded),
		cmocka_unit_test(lasting_answers_take_no_room),
		cmocka_unit_test_setup_teardown(running_out_of_descriptors_is_survived, setup, teardown),
		cmocka_unit_test_setup_teardown(requests_are_counted, setup, teardown),
		cmocka_unit_test(limits_change_while_running),
		cmocka_unit_test(drain_finishes_what_was_accepted),
		cmocka_unit_test(drain_cuts_in_the_end),
		cmocka_unit_test(stale_unix_sockets_are_replaced),
	};
	return cmocka_run_group_tests_name("http_server", tests, NULL, NULL);
}
