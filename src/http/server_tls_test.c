/* A real server with TLS: handshakes on a loop of their own, HTTP/1.1 and HTTP/2 on two I/O loops, client
 * certificates and their revocation. The HTTP/2 client is nghttp2's, and raw frames where a client would not
 * do such a thing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/metrics.h"
#include "http/server.h"
#include "tls/craft_cert.h"

enum { WAIT_MS = 60000, BODY_CEILING = 300000, LARGE_BYTES = 1 << 20, CONN_ANSWER_BYTES = 8 << 20 };

/* --- handlers --- */

static void echo(struct http_request *r)
{
	http_reply(r, 200, "text/plain", r->body);
}

static void whoami(struct http_request *r)
{
	http_set_header(r, "X-Host", http_header(r, STR("HOST")));
	http_reply(r, 200, "text/plain", str_of(r->peer->name));
}

static void large(struct http_request *r)
{
	struct buf body;
	buf_init(&body, LARGE_BYTES);
	memset(buf_reserve(&body, LARGE_BYTES), 'x', LARGE_BYTES);
	buf_commit(&body, LARGE_BYTES);
	http_reply_buf(r, 200, "text/plain", &body);
}

static struct http_request *held[64];
static unsigned held_count;
static pthread_mutex_t held_lock = PTHREAD_MUTEX_INITIALIZER; /* two loops hold requests */
static sem_t was_held;

static void hold(struct http_request *r)
{
	pthread_mutex_lock(&held_lock);
	held[held_count++] = r;
	pthread_mutex_unlock(&held_lock);
	sem_post(&was_held);
}

static const struct http_route routes[] = {
	{"POST", "/echo", ROLE_BIT(ROLE_NONE), .handler = echo, .body_ceiling_bytes = BODY_CEILING},
	{"GET", "/whoami", ROLE_BIT(ROLE_CLIENT), .handler = whoami},
	{"GET", "/admin", ROLE_BIT(ROLE_ADMIN), .handler = echo},
	{"GET", "/large", ROLE_BIT(ROLE_NONE), .handler = large},
	{"GET", "/hold", ROLE_BIT(ROLE_NONE), .handler = hold},
	{NULL},
};

/* --- certificates --- */

static char dir[] = "/tmp/sealpost-http-tls-XXXXXX";
static char server_cert[64], server_key[64], client_cert[64], client_key[64], ca_cert[64];
static struct craft_authority root, issuing;
static struct identity client;

static void path_in_dir(char *out, const char *file)
{
	snprintf(out, 64, "%s/%s", dir, file);
}

static void make_leaf(struct craft_spec *spec, const char *cert_path, const char *key_path)
{
	struct err e = ERR_INIT;
	X509 *cert;
	EVP_PKEY *key;
	assert_int_equal(craft_cert(spec, &cert, &key, &e), 0);
	assert_int_equal(craft_write_cert(cert_path, "w", cert, &e), 0);
	assert_int_equal(craft_write_cert(cert_path, "a", issuing.cert, &e), 0);
	assert_int_equal(craft_write_key(key_path, key, &e), 0);
	const char *reason;
	if (identity_of(cert, NULL, &client, &reason, &e) < 0)
		fail_msg("%s: %s", reason, e.text);
	X509_free(cert);
	EVP_PKEY_free(key);
}

static int make_certificates(void **state)
{
	struct err e = ERR_INIT;
	struct wall now = clock_wall(&clock_system);
	assert_non_null(mkdtemp(dir));
	path_in_dir(server_cert, "server.pem");
	path_in_dir(server_key, "server.key");
	path_in_dir(client_cert, "client.pem");
	path_in_dir(client_key, "client.key");
	path_in_dir(ca_cert, "ca.pem");
	assert_int_equal(craft_authorities(now, &root, &issuing, &e), 0);
	assert_int_equal(craft_write_cert(ca_cert, "w", root.cert, &e), 0);
	assert_int_equal(craft_write_cert(ca_cert, "a", issuing.cert, &e), 0);
	struct craft_spec spec;
	craft_leaf(&spec, &issuing, "spiffe://td/server/example.com/main", "main", now);
	spec.usages[0] = NID_server_auth;
	make_leaf(&spec, server_cert, server_key);
	craft_leaf(&spec, &issuing, "spiffe://td/client/example.com/client_1", "client_1", now);
	make_leaf(&spec, client_cert, client_key);
	return 0;
}

static int remove_certificates(void **state)
{
	const char *files[] = {server_cert, server_key, client_cert, client_key, ca_cert};
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		unlink(files[i]);
	rmdir(dir);
	craft_authority_clear(&issuing);
	craft_authority_clear(&root);
	return 0;
}

/* --- the server under test --- */

static struct loop *io[2], *handshakes;
static struct tls_server *tls;
static struct registry *registry;
static struct http_server *server;
static SSL_CTX *with_cert, *without_cert;

/* A certificate whose row bears another name is unknown. */
static void set_status(enum registry_status status)
{
	struct err e = ERR_INIT;
	bool known = status != REGISTRY_UNKNOWN;
	struct registry_row row = {
		.serial_bytes = client.serial_bytes,
		.status = known ? status : REGISTRY_ACTIVE,
		.role = client.role,
		.name = known ? str_of(client.name) : STR("other"),
		.domain = str_of(client.domain),
		.not_after = client.not_after,
		.change = 1,
	};
	memcpy(row.serial, client.serial, sizeof(row.serial));
	memcpy(row.issuer_key_id, client.issuer_key_id, sizeof(row.issuer_key_id));
	assert_int_equal(registry_apply(registry, &row, 1, &e), 0);
}

static void start_tls_parts(void)
{
	struct err e = ERR_INIT;
	struct tls_server_options o = {
		.cert_file = server_cert,
		.key_file = server_key,
		.ca_file = ca_cert,
		.trust_domain = "td",
		.client_cert = true,
		.http2 = true,
		.roles = ~0u,
		.registry = registry,
		.clock = &clock_system,
	};
	if (tls_server_new(&o, &tls, &e) < 0 ||
		tls_client_context(client_cert, client_key, ca_cert, &with_cert, &e) < 0 ||
		tls_client_context(NULL, NULL, ca_cert, &without_cert, &e) < 0)
		fail_msg("%s", e.text);
}

static void start_on(
	const struct http_limits *limits, const struct clock *clock, unsigned handshake_loop_count)
{
	struct err e = ERR_INIT;
	held_count = 0;
	assert_int_equal(sem_init(&was_held, 0, 0), 0);
	assert_int_equal(registry_new(&registry, &e), 0);
	set_status(REGISTRY_ACTIVE);
	start_tls_parts();
	assert_int_equal(loop_start("io-0", &io[0], &e), 0);
	assert_int_equal(loop_start("io-1", &io[1], &e), 0);
	assert_int_equal(loop_start("handshake", &handshakes, &e), 0);
	struct http_server_options o = {
		.name = "test",
		.listens = &(struct http_listen){.address = "127.0.0.1:0", .fd = -1, .tls = tls},
		.listen_count = 1,
		.loops = io,
		.loop_count = 2,
		.handshake_loops = &handshakes,
		.handshake_loop_count = handshake_loop_count,
		.routes = routes,
		.clock = clock,
		.registry = registry,
		.limits = *limits,
	};
	if (http_server_start(&o, &server, &e) < 0)
		fail_msg("%s", e.text);
}

static void start_with(const struct http_limits *limits, const struct clock *clock)
{
	start_on(limits, clock, 1);
}

static void let_go(void *arg)
{
	/* Each is answered on its own loop. */
	pthread_mutex_lock(&held_lock);
	for (unsigned i = 0; i < held_count; i++)
		if (held[i] && held[i]->loop == arg) {
			http_reply(held[i], 200, "text/plain", STR("held"));
			held[i] = NULL;
		}
	pthread_mutex_unlock(&held_lock);
}

static void release_held(void)
{
	loop_call(io[0], let_go, io[0]);
	loop_call(io[1], let_go, io[1]);
}

static int teardown(void **state)
{
	release_held();
	http_server_drain(server, WAIT_MS);
	http_server_free(server);
	loop_stop(handshakes);
	loop_stop(io[0]);
	loop_stop(io[1]);
	tls_server_free(tls);
	registry_free(registry);
	SSL_CTX_free(with_cert);
	SSL_CTX_free(without_cert);
	sem_destroy(&was_held);
	return 0;
}

static int setup(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	start_with(&limits, &clock_system);
	return 0;
}

static void wait_for(sem_t *sem)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_MS / 1000;
	assert_int_equal(sem_timedwait(sem, &until), 0);
}

/* --- a client --- */

struct client {
	int fd;
	SSL *ssl;
	nghttp2_session *h2;
	struct buf in; /* HTTP/1.1: what came; HTTP/2: bodies */
	unsigned statuses[8], status_count, ok_count, unavailable_count, closed_count;
	uint32_t reset_code, goaway_code;
	bool goaway;
	unsigned closed_before_goaway;
};

static uint16_t port_of(const char *address)
{
	uint64_t port;
	assert_true(str_to_u64(str_of(strrchr(address, ':') + 1), &port));
	return (uint16_t)port;
}

/* Gives up on a silent server instead of waiting for good. */
static int connect_tcp(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	in.sin_port = htons(port_of(http_server_address(server, 0)));
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval patience = {.tv_sec = WAIT_MS / 1000};
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

static void client_connect(struct client *c, SSL_CTX *ctx, const char *alpn)
{
	*c = (struct client){.fd = connect_tcp()};
	buf_init(&c->in, SIZE_MAX / 2);
	c->ssl = SSL_new(ctx);
	assert_int_equal(SSL_set_fd(c->ssl, c->fd), 1);
	if (alpn)
		SSL_set_alpn_protos(c->ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn));
	if (SSL_connect(c->ssl) != 1)
		fail_msg("no handshake");
}

static void client_close(struct client *c)
{
	nghttp2_session_del(c->h2);
	SSL_free(c->ssl);
	close(c->fd);
	buf_clear(&c->in);
}

static void client_send(struct client *c, struct str s)
{
	while (s.n) {
		int n = SSL_write(c->ssl, s.p, (int)s.n);
		assert_true(n > 0);
		s = (struct str){s.p + n, s.n - (size_t)n};
	}
}

/* False at the end of the connection. */
static bool client_receive(struct client *c)
{
	char *at = buf_reserve(&c->in, 65536);
	int n = SSL_read(c->ssl, at, 65536);
	if (n > 0)
		buf_commit(&c->in, (size_t)n);
	ERR_clear_error();
	return n > 0;
}

static bool has(const struct client *c, const char *part)
{
	return c->in.n && memmem(c->in.p, c->in.n, part, strlen(part));
}

static void until_has(struct client *c, const char *part)
{
	while (!has(c, part))
		if (!client_receive(c))
			fail_msg("ended without '%s': %.*s", part, (int)c->in.n, c->in.p);
}

static uint64_t rejected(const char *reason)
{
	return series_value(metric_series(METRIC_HTTP_REJECTED, (const char *[]){"test", reason, NULL}));
}

/* --- HTTP/1.1 over TLS --- */

#define GET(path) STR("GET " path " HTTP/1.1\r\nHost: a\r\n\r\n")

static void peers_are_known_by_certificate(void **state)
{
	struct client c;
	client_connect(&c, with_cert, NULL);
	client_send(&c, GET("/whoami"));
	until_has(&c, "\r\n\r\nclient_1");
	client_send(&c, GET("/admin"));
	until_has(&c, "\"code\":\"forbidden\"");
	client_send(&c, GET("/nowhere"));
	until_has(&c, "\"code\":\"not_found\"");
	client_close(&c);
	client_connect(&c, without_cert, "\x08http/1.1");
	client_send(&c, GET("/whoami"));
	until_has(&c, "HTTP/1.1 401 ");
	buf_reset(&c.in);
	client_send(&c, GET("/nowhere"));
	until_has(&c, "HTTP/1.1 401 ");
	client_close(&c);
}

static void bodies_larger_than_a_record(void **state)
{
	struct client c;
	client_connect(&c, without_cert, NULL);
	struct buf text;
	buf_init(&text, SIZE_MAX / 2);
	buf_addf(&text, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", BODY_CEILING);
	size_t head = text.n;
	for (unsigned i = 0; i < BODY_CEILING; i++)
		buf_add_char(&text, (char)('a' + i % 26));
	client_send(&c, buf_str(&text));
	while (c.in.n < BODY_CEILING)
		assert_true(client_receive(&c));
	assert_memory_equal(c.in.p + c.in.n - 1000, text.p + head + BODY_CEILING - 1000, 1000);
	buf_clear(&text);
	client_close(&c);
}

static void a_request_may_come_in_many_records(void **state)
{
	struct client c;
	client_connect(&c, without_cert, NULL);
	struct str text = STR("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
	for (size_t i = 0; i < text.n; i++)
		client_send(&c, (struct str){text.p + i, 1});
	until_has(&c, "\r\n\r\nhello");
	client_close(&c);
}

static void revoked_peers_are_cut_off_at_once(void **state)
{
	static const struct {
		enum registry_status status;
		const char *wanted;
		bool ends;
	} cases[] = {
		{REGISTRY_SUSPENDED, "\"code\":\"forbidden\"", false},
		{REGISTRY_UNKNOWN, "\"code\":\"forbidden\"", true},
		{REGISTRY_REVOKED, "\"code\":\"certificate_revoked\"", true},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct client c;
		set_status(REGISTRY_ACTIVE);
		client_connect(&c, with_cert, NULL);
		client_send(&c, GET("/whoami"));
		until_has(&c, "client_1");
		set_status(cases[i].status);
		client_send(&c, GET("/whoami"));
		until_has(&c, cases[i].wanted);
		if (cases[i].ends) {
			while (client_receive(&c))
				;
		} else {
			set_status(REGISTRY_ACTIVE);
			buf_reset(&c.in);
			client_send(&c, GET("/whoami"));
			until_has(&c, "client_1");
		}
		client_close(&c);
	}
}

static void expired_peers_are_cut_off(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	struct clock_fake fake;
	clock_fake_init(&fake, clock_wall(&clock_system));
	start_with(&limits, &fake.clock);
	struct client c;
	client_connect(&c, with_cert, NULL);
	client_send(&c, GET("/whoami"));
	until_has(&c, "client_1");
	teardown(NULL);
	client_close(&c);

	fake.now.ms = client.not_after.ms + 1;
	start_with(&limits, &fake.clock);
	client_connect(&c, with_cert, NULL);
	client_send(&c, GET("/whoami"));
	until_has(&c, "\"detail\":\"the certificate has expired\"");
	client_close(&c);
	teardown(NULL);
}

static void connections_of_a_client_are_bounded(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	limits.connections_per_client = 1;
	start_with(&limits, &clock_system);
	struct client first, second;
	client_connect(&first, with_cert, NULL);
	client_send(&first, GET("/whoami"));
	until_has(&first, "client_1");
	client_connect(&second, with_cert, NULL);
	client_send(&second, GET("/whoami"));
	until_has(&second, "\r\n\r\n{");
	assert_true(has(&second, "HTTP/1.1 429 ") && has(&second, "Retry-After") &&
		    has(&second, "Connection: close"));
	client_close(&second);
	client_close(&first);
	teardown(NULL);
}

static void handshakes_have_a_deadline(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	limits.handshake_ms = 1;
	start_with(&limits, &clock_system);
	int fd = connect_tcp();
	char byte;
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
	teardown(NULL);
}

static void handshakes_may_run_on_the_io_loops(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	start_on(&limits, &clock_system, 0);
	/* One on each loop. */
	struct client c[2];
	for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
		client_connect(&c[i], with_cert, NULL);
		client_send(&c[i], GET("/whoami"));
		until_has(&c[i], "\r\n\r\nclient_1");
	}
	for (unsigned i = 0; i < ARRAY_LEN(c); i++)
		client_close(&c[i]);
	teardown(NULL);
}

static void failed_handshakes_send_their_alert(void **state)
{
	int fd = connect_tcp();
	SSL *ssl = SSL_new(without_cert);
	assert_int_equal(SSL_set_fd(ssl, fd), 1);
	SSL_set_alpn_protos(ssl, (const unsigned char *)"\x04nope", 5);
	ERR_clear_error();
	assert_int_equal(SSL_connect(ssl), -1);
	assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
	ERR_clear_error();
	SSL_free(ssl);
	close(fd);
}

static void half_closed_tls_peers_are_answered(void **state)
{
	for (unsigned with_close_notify = 0; with_close_notify < 2; with_close_notify++) {
		struct client c;
		client_connect(&c, without_cert, NULL);
		client_send(&c, GET("/hold"));
		if (with_close_notify)
			SSL_shutdown(c.ssl);
		shutdown(c.fd, SHUT_WR);
		wait_for(&was_held);
		release_held();
		until_has(&c, "\r\n\r\nheld");
		client_close(&c);
	}
}

static bool update_keys(struct client *c, int kind)
{
	bool sent = SSL_key_update(c->ssl, kind) == 1 && SSL_do_handshake(c->ssl) == 1;
	ERR_clear_error();
	return sent;
}

static void set_cork(const struct client *c, int on)
{
	assert_int_equal(setsockopt(c->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)), 0);
}

static void peers_may_update_their_keys(void **state)
{
	struct client c;
	client_connect(&c, without_cert, NULL);
	for (unsigned i = 0; i < 8; i++) {
		/* In one segment: what comes behind the update is not left lying until more arrives. */
		set_cork(&c, 1);
		assert_true(update_keys(&c, i % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED));
		client_send(&c, GET("/large"));
		set_cork(&c, 0);
		until_has(&c, "\r\n\r\nxxx");
		while (c.in.n < LARGE_BYTES)
			assert_true(client_receive(&c));
		buf_reset(&c.in);
	}
	client_close(&c);
}

static void key_updates_are_bounded(void **state)
{
	enum { UPDATES = 100000 };
	struct client c;
	uint64_t before = rejected("flood");
	client_connect(&c, without_cert, NULL);
	for (unsigned i = 0; i < UPDATES && update_keys(&c, SSL_KEY_UPDATE_NOT_REQUESTED); i++)
		;
	while (client_receive(&c))
		;
	assert_int_equal(rejected("flood"), before + 1);
	client_close(&c);
}

/* --- HTTP/2 --- */

static struct client *client_of(void *user_data)
{
	return user_data;
}

static int on_status(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
	const uint8_t *value, size_t value_n, uint8_t flags, void *user_data)
{
	struct client *c = client_of(user_data);
	uint64_t status;
	if (!str_eq(str_mem(name, name_n), STR(":status")) || !str_to_u64(str_mem(value, value_n), &status))
		return 0;
	if (c->status_count < ARRAY_LEN(c->statuses))
		c->statuses[c->status_count++] = (unsigned)status;
	c->ok_count += status == 200;
	c->unavailable_count += status == 503;
	return 0;
}

static int on_body(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *bytes, size_t n,
	void *user_data)
{
	buf_add(&client_of(user_data)->in, bytes, n);
	return 0;
}

static int on_close(nghttp2_session *session, int32_t stream_id, uint32_t code, void *user_data)
{
	struct client *c = client_of(user_data);
	c->closed_count++;
	c->reset_code = code;
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
	struct client *c = client_of(user_data);
	if (frame->hd.type == NGHTTP2_GOAWAY) {
		if (!c->goaway)
			c->closed_before_goaway = c->closed_count;
		c->goaway = true;
		c->goaway_code = frame->goaway.error_code;
	}
	return 0;
}

static void h2_connect(struct client *c, SSL_CTX *ctx)
{
	client_connect(c, ctx, "\x02h2");
	nghttp2_session_callbacks *cb;
	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_status);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_body);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	/* So that malformed requests leave this side. */
	nghttp2_option *option;
	nghttp2_option_new(&option);
	nghttp2_option_set_no_http_messaging(option, 1);
	assert_int_equal(nghttp2_session_client_new2(&c->h2, cb, c, option), 0);
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, NULL, 0);
}

static void h2_send(struct client *c)
{
	const uint8_t *bytes;
	ssize_t n;
	while ((n = nghttp2_session_mem_send(c->h2, &bytes)) > 0)
		for (int sent = 0, k; sent < n; sent += k) {
			k = SSL_write(c->ssl, bytes + sent, (int)n - sent);
			if (k <= 0)
				return; /* cut off, as the test will see */
		}
}

/* One round of sending and receiving; false at the end of the connection. */
static bool h2_round(struct client *c)
{
	static uint8_t in[65536];
	h2_send(c);
	int n = SSL_read(c->ssl, in, sizeof(in));
	ERR_clear_error();
	if (n > 0)
		assert_int_equal(nghttp2_session_mem_recv(c->h2, in, (size_t)n), n);
	return n > 0;
}

static void until_closed(struct client *c, unsigned count)
{
	while (c->closed_count < count)
		if (!h2_round(c))
			fail_msg("ended with %u streams closed instead of %u", c->closed_count, count);
}

static void until_goaway(struct client *c)
{
	while (!c->goaway)
		if (!h2_round(c))
			fail_msg("ended without GOAWAY");
}

struct upload {
	size_t left;
	bool never_ends;
};

static ssize_t read_upload(nghttp2_session *session, int32_t stream_id, uint8_t *to, size_t room,
	uint32_t *flags, nghttp2_data_source *source, void *user_data)
{
	struct upload *u = source->ptr;
	size_t n = u->left < room ? u->left : room;
	if (!n && u->never_ends)
		return NGHTTP2_ERR_DEFERRED;
	memset(to, 'x', n);
	u->left -= n;
	if (!u->left && !u->never_ends)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

/* "name: value" pairs; names of pseudo-headers first. */
struct h2_case {
	const char *headers[12];
	size_t body_bytes;
	unsigned status;    /* 0: the stream is reset */
	uint32_t code;      /* of its end */
	const char *wanted; /* in the body */
};

#define REQUEST(method, path) ":method", method, ":scheme", "https", ":authority", "a:1", ":path", path

static const struct h2_case h2_cases[] = {
	{{REQUEST("GET", "/whoami")}, .status = 200, .wanted = "client_1"},
	{{REQUEST("GET", "/whoami?x=%20")}, .status = 200},
	{{REQUEST("HEAD", "/whoami")}, .status = 200},
	{{REQUEST("POST", "/echo")}, .body_bytes = 5, .status = 200, .wanted = "xxxxx"},
	{{REQUEST("POST", "/echo"), "content-length", "100000"}, .body_bytes = 100000, .status = 200},
	{{REQUEST("POST", "/echo")}, .body_bytes = BODY_CEILING, .status = 200},
	{{REQUEST("POST", "/echo"), "expect", "100-continue"}, .body_bytes = 1, .status = 100},
	{{REQUEST("POST", "/echo")}, .body_bytes = BODY_CEILING + 1, .status = 413,
		.wanted = "payload_too_large"},
	{{REQUEST("POST", "/echo"), "content-length", "300001"}, .body_bytes = BODY_CEILING + 1,
		.status = 413},
	{{REQUEST("GET", "/whoami")}, .body_bytes = 1, .status = 413},
	{{REQUEST("GET", "/nowhere")}, .status = 404, .wanted = "\"code\":\"not_found\""},
	{{REQUEST("DELETE", "/echo")}, .status = 405},
	{{REQUEST("GET", "/admin")}, .status = 403},
	{{REQUEST("GET", "/\"")}, .status = 400},
	{{REQUEST("GET", "/%zz")}, .status = 400, .wanted = "malformed_request"},
	{{REQUEST("OPTIONS", "*")}, .status = 404},
	{{REQUEST("GET", "/whoami"), "host", "A:1"}, .status = 200},
	{{REQUEST("GET", "/whoami"), "host", "b:1"}, .status = 400, .wanted = "malformed_request"},
	{{":method", "GET", ":scheme", "https", ":path", "/whoami", "host", "a"}, .status = 200},
	{{":method", "GET", ":scheme", "https", ":path", "/whoami", ":authority", "u@a"}, .status = 400},
	{{REQUEST("GET", "/whoami"), "x", "a\rb"}, .code = NGHTTP2_PROTOCOL_ERROR},
	{{REQUEST("GET", "/whoami"), "connection", "close"}, .code = NGHTTP2_PROTOCOL_ERROR},
	{{REQUEST("GET", "/whoami"), "te", "gzip"}, .code = NGHTTP2_PROTOCOL_ERROR},
	{{REQUEST("GET", "/whoami"), ":path", "/echo"}, .code = NGHTTP2_PROTOCOL_ERROR},
	{{":method", "GET", ":scheme", "https", ":path", "/whoami"}, .code = NGHTTP2_PROTOCOL_ERROR},
	{{":method", "GET", ":authority", "a", ":path", "/whoami"}, .code = NGHTTP2_PROTOCOL_ERROR},
	{{REQUEST("GET", "")}, .code = NGHTTP2_PROTOCOL_ERROR},
	{{REQUEST("POST", "/echo"), "content-length", "4"}, .body_bytes = 5, .code = NGHTTP2_PROTOCOL_ERROR},
	{{REQUEST("POST", "/echo"), "content-length", "4x"}, .body_bytes = 4, .code = NGHTTP2_PROTOCOL_ERROR},
	{{REQUEST("POST", "/echo"), "content-length", "6"}, .body_bytes = 5, .code = NGHTTP2_PROTOCOL_ERROR},
};

static void h2_submit(struct client *c, const char *const *headers, struct upload *upload)
{
	nghttp2_nv nvs[8];
	size_t n = 0;
	for (; headers[2 * n]; n++)
		nvs[n] = (nghttp2_nv){(uint8_t *)(uintptr_t)headers[2 * n],
			(uint8_t *)(uintptr_t)headers[2 * n + 1], strlen(headers[2 * n]),
			strlen(headers[2 * n + 1]), 0};
	nghttp2_data_provider body = {.source.ptr = upload, .read_callback = read_upload};
	assert_true(nghttp2_submit_request(c->h2, NULL, nvs, n, upload ? &body : NULL, NULL) > 0);
}

static void h2_get(struct client *c, const char *path)
{
	const char *headers[] = {REQUEST("GET", path), NULL};
	h2_submit(c, headers, NULL);
}

static void check_h2_case(struct client *c, const struct h2_case *x)
{
	struct upload upload = {.left = x->body_bytes};
	unsigned streams = c->closed_count;
	c->status_count = 0;
	buf_reset(&c->in);
	h2_submit(c, x->headers, x->body_bytes ? &upload : NULL);
	until_closed(c, streams + 1);
	if ((c->status_count ? c->statuses[0] : 0) != x->status || c->reset_code != x->code)
		fail_msg("%s %s (%s): status %u, end %u", x->headers[1], x->headers[7],
			x->headers[8] ? x->headers[8] : "", c->statuses[0], c->reset_code);
	if (x->wanted && !has(c, x->wanted))
		fail_msg("%s: no '%s' in: %.*s", x->headers[7], x->wanted, (int)c->in.n, c->in.p);
	if (!strcmp(x->headers[1], "HEAD"))
		assert_int_equal(c->in.n, 0);
}

static void h2_requests(void **state)
{
	struct client c;
	h2_connect(&c, with_cert);
	for (size_t i = 0; i < ARRAY_LEN(h2_cases); i++) {
		const struct h2_case *x = &h2_cases[i];
		uint64_t before = rejected("malformed");
		check_h2_case(&c, x);
		bool malformed = x->status == 400 || x->code == NGHTTP2_PROTOCOL_ERROR;
		if (rejected("malformed") != before + malformed)
			fail_msg("case %zu: %s be counted as malformed", i,
				malformed ? "should" : "should not");
	}
	client_close(&c);
}

static void h2_streams_are_answered_as_they_finish(void **state)
{
	struct client c;
	h2_connect(&c, with_cert);
	h2_get(&c, "/hold");
	h2_get(&c, "/whoami");
	until_closed(&c, 1);
	assert_true(has(&c, "client_1"));
	wait_for(&was_held);
	release_held();
	until_closed(&c, 2);
	assert_true(has(&c, "held"));
	client_close(&c);
}

static void h2_headers_are_bounded(void **state)
{
	struct client c;
	h2_connect(&c, with_cert);
	static char value[12000];
	memset(value, 'x', sizeof(value) - 1);
	const char *headers[] = {REQUEST("GET", "/whoami"), "a", value, "b", value, NULL};
	h2_submit(&c, headers, NULL);
	until_closed(&c, 1);
	assert_int_equal(c.statuses[0], 431);
	client_close(&c);
}

static void h2_revocation_ends_the_connection(void **state)
{
	struct client c;
	h2_connect(&c, with_cert);
	h2_get(&c, "/whoami");
	until_closed(&c, 1);
	set_status(REGISTRY_REVOKED);
	h2_get(&c, "/whoami");
	until_goaway(&c);
	while (h2_round(&c))
		;
	assert_int_equal(c.statuses[1], 403);
	assert_int_equal(c.closed_before_goaway, 2); /* the whole answer came first */
	client_close(&c);
}

static void h2_resets_are_bounded(void **state)
{
	struct client c;
	uint64_t before = rejected("flood");
	h2_connect(&c, without_cert);
	nghttp2_session_set_local_window_size(c.h2, NGHTTP2_FLAG_NONE, 0, 1 << 20);
	for (unsigned i = 0; !c.goaway && i < 2000; i++) {
		h2_get(&c, "/whoami");
		h2_send(&c);
		nghttp2_submit_rst_stream(c.h2, NGHTTP2_FLAG_NONE, (int32_t)(2 * i + 1), NGHTTP2_CANCEL);
		h2_send(&c);
	}
	until_goaway(&c);
	assert_int_not_equal(c.goaway_code, NGHTTP2_NO_ERROR);
	assert_int_equal(rejected("flood"), before + 1);
	client_close(&c);
}

static void h2_streams_are_bounded(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	limits.streams = 2;
	start_with(&limits, &clock_system);
	struct client c;
	uint64_t before = rejected("streams");
	h2_connect(&c, without_cert);
	/* Sent before the limit is known here. */
	for (unsigned i = 0; i < 3; i++)
		h2_get(&c, "/hold");
	until_closed(&c, 1);
	assert_int_equal(c.reset_code, NGHTTP2_REFUSED_STREAM);
	assert_int_equal(rejected("streams"), before + 1);
	client_close(&c);
	teardown(NULL);
}

/* Answers that wait for the peer's window: those past what one connection is given are refused. */
static void h2_answers_are_bounded(void **state)
{
	enum { REQUESTS = 32 };
	struct client c;
	uint64_t before = rejected("answer_room");
	h2_connect(&c, without_cert);
	nghttp2_settings_entry no_window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
	nghttp2_submit_settings(c.h2, NGHTTP2_FLAG_NONE, &no_window, 1);
	for (unsigned i = 0; i < REQUESTS; i++)
		h2_get(&c, "/large");
	while (c.ok_count + c.unavailable_count < REQUESTS)
		assert_true(h2_round(&c));
	/* The one that goes over the line is still answered. */
	assert_int_equal(c.ok_count, CONN_ANSWER_BYTES / LARGE_BYTES);
	assert_int_equal(rejected("answer_room"), before + c.unavailable_count);
	client_close(&c);
}

/* A stream that is reset while its handler works keeps its place until the handler is done. */
static void h2_abandoned_work_is_bounded(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	limits.streams = 4;
	start_with(&limits, &clock_system);
	struct client c;
	h2_connect(&c, without_cert);
	for (unsigned i = 0; i < 8; i++) {
		h2_get(&c, "/hold");
		h2_send(&c);
		wait_for(&was_held);
		nghttp2_submit_rst_stream(c.h2, NGHTTP2_FLAG_NONE, (int32_t)(2 * i + 1), NGHTTP2_CANCEL);
		h2_send(&c);
	}
	h2_get(&c, "/hold");
	h2_send(&c);
	release_held();
	wait_for(&was_held);
	assert_int_equal(held_count, 9);
	release_held();
	until_closed(&c, 9);
	assert_true(has(&c, "held"));
	client_close(&c);
	teardown(NULL);
}

/* Side by side they may take what one connection is given, no more; those past it are asked to come again. */
static void h2_bodies_are_bounded(void **state)
{
	enum { STREAMS = 32, BYTES = BODY_CEILING - 1 };
	struct client c;
	h2_connect(&c, without_cert);
	struct upload uploads[STREAMS];
	const char *headers[] = {REQUEST("POST", "/echo"), NULL};
	for (unsigned i = 0; i < STREAMS; i++) {
		uploads[i] = (struct upload){.left = BYTES, .never_ends = true};
		h2_submit(&c, headers, &uploads[i]);
	}
	while (!c.status_count)
		assert_true(h2_round(&c));
	assert_int_equal(c.statuses[0], 503);
	client_close(&c);
}

/* No window will open any more for the answer that waits: it is not kept until the write deadline. */
static void h2_peers_that_hang_up_are_let_go(void **state)
{
	struct client c;
	h2_connect(&c, without_cert);
	nghttp2_settings_entry no_window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
	nghttp2_submit_settings(c.h2, NGHTTP2_FLAG_NONE, &no_window, 1);
	h2_get(&c, "/large");
	while (!c.ok_count)
		assert_true(h2_round(&c));
	SSL_shutdown(c.ssl);
	while (client_receive(&c))
		;
	assert_true(SSL_get_shutdown(c.ssl) & SSL_RECEIVED_SHUTDOWN);
	client_close(&c);
}

static void h2_slow_bodies_are_reset(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	limits.body_ms = 1;
	start_with(&limits, &clock_system);
	struct client c;
	h2_connect(&c, without_cert);
	struct upload upload = {.left = 1, .never_ends = true};
	const char *headers[] = {REQUEST("POST", "/echo"), NULL};
	h2_submit(&c, headers, &upload);
	until_closed(&c, 1);
	assert_int_equal(c.reset_code, NGHTTP2_CANCEL);
	client_close(&c);
	teardown(NULL);
}

/* The answer comes at once, the stream ends a while later and without an error. */
static void h2_refused_uploads_run_out(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	limits.linger_ms = 1;
	start_with(&limits, &clock_system);
	struct client c;
	h2_connect(&c, without_cert);
	struct upload upload = {.left = 1, .never_ends = true};
	const char *headers[] = {REQUEST("POST", "/nowhere"), NULL};
	h2_submit(&c, headers, &upload);
	until_closed(&c, 1);
	assert_int_equal(c.statuses[0], 401);
	assert_true(has(&c, "authentication_required"));
	assert_int_equal(c.reset_code, NGHTTP2_NO_ERROR);
	client_close(&c);
	teardown(NULL);
}

static void h2_idle_connections_are_closed(void **state)
{
	struct http_limits limits;
	http_limits_default(&limits);
	limits.idle_ms = 1;
	start_with(&limits, &clock_system);
	struct client c;
	h2_connect(&c, without_cert);
	while (h2_round(&c))
		;
	client_close(&c);
	teardown(NULL);
}

/* Frames that no client library would send. */
#define CONTINUATION "\0\0\0\x9\0\0\0\0\1"
#define CONTINUATIONS                                                                                        \
	CONTINUATION CONTINUATION CONTINUATION CONTINUATION CONTINUATION CONTINUATION CONTINUATION           \
		CONTINUATION CONTINUATION
static const struct {
	const char *what;
	struct str frames;
	const char *reason;
} broken_frames[] = {
	{"not HTTP/2", STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "malformed"},
	{"headers for stream 0",
		STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
		    "\0\0\1\1\5\0\0\0\0\x82"),
		"malformed"},
	{"a frame larger than allowed",
		STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
		    "\xff\xff\xff\0\0\0\0\0\1"),
		"malformed"},
	{"a continuation of nothing",
		STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
		    "\0\0\1\x9\4\0\0\0\1\x82"),
		"malformed"},
	{"bad compression",
		STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
		    "\0\0\2\1\5\0\0\0\1\xff\xff"),
		"malformed"},
	{"continuations without end",
		STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\0\1\0\0\0\0\1" CONTINUATIONS),
		"flood"},
};

static void h2_broken_frames_end_the_connection(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(broken_frames); i++) {
		struct client c;
		uint64_t before = rejected(broken_frames[i].reason);
		client_connect(&c, without_cert, "\x02h2");
		client_send(&c, broken_frames[i].frames);
		while (client_receive(&c))
			;
		if (rejected(broken_frames[i].reason) != before + 1)
			fail_msg("%s: not counted", broken_frames[i].what);
		client_close(&c);
	}
}

static void *drain(void *arg)
{
	http_server_drain(server, WAIT_MS);
	return NULL;
}

static void h2_drain_finishes_streams(void **state)
{
	setup(NULL);
	struct client c, idle;
	h2_connect(&c, without_cert);
	h2_connect(&idle, without_cert);
	h2_get(&idle, "/nowhere");
	until_closed(&idle, 1);
	h2_get(&c, "/hold");
	h2_send(&c);
	wait_for(&was_held);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, drain, NULL), 0);
	until_goaway(&idle);
	while (h2_round(&idle))
		;
	until_goaway(&c);
	assert_int_equal(c.goaway_code, NGHTTP2_NO_ERROR);
	release_held();
	until_closed(&c, 1);
	assert_true(has(&c, "held"));
	client_close(&c);
	client_close(&idle);
	pthread_join(thread, NULL);
	assert_int_equal(http_server_connections(server), 0);
	teardown(NULL);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(peers_are_known_by_certificate, setup, teardown),
		cmocka_unit_test_setup_teardown(bodies_larger_than_a_record, setup, teardown),
		cmocka_unit_test_setup_teardown(a_request_may_come_in_many_records, setup, teardown),
		cmocka_unit_test_setup_teardown(revoked_peers_are_cut_off_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(failed_handshakes_send_their_alert, setup, teardown),
		cmocka_unit_test_setup_teardown(half_closed_tls_peers_are_answered, setup, teardown),
		cmocka_unit_test_setup_teardown(peers_may_update_their_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(key_updates_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_streams_are_answered_as_they_finish, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_headers_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_revocation_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_resets_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_bodies_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_answers_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_peers_that_hang_up_are_let_go, setup, teardown),
		cmocka_unit_test_setup_teardown(h2_broken_frames_end_the_connection, setup, teardown),
		cmocka_unit_test(expired_peers_are_cut_off),
		cmocka_unit_test(connections_of_a_client_are_bounded),
		cmocka_unit_test(handshakes_have_a_deadline),
		cmocka_unit_test(handshakes_may_run_on_the_io_loops),
		cmocka_unit_test(h2_streams_are_bounded),
		cmocka_unit_test(h2_abandoned_work_is_bounded),
		cmocka_unit_test(h2_slow_bodies_are_reset),
		cmocka_unit_test(h2_refused_uploads_run_out),
		cmocka_unit_test(h2_idle_connections_are_closed),
		cmocka_unit_test(h2_drain_finishes_streams),
	};
	return cmocka_run_group_tests_name("http_server_tls", tests, make_certificates, remove_certificates);
}
