/* connection.c - see connection.h. Non-blocking sockets under OpenSSL with read-ahead: one read and one write
 * system call for an answer and the request that follows it. epoll is level-triggered, so a read that emptied
 * OpenSSL's buffer need not be repeated until it would block. */
#include "cli/load/connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "tls/openssl.h"

enum { OUT_BYTES = 64 << 20, ANSWER_BYTES = 4 << 20, MULTI_STATUS = 207 };

static const char *const failure_names[FAILURES] = {
#define FAILURE(id, name, meaning) [id] = name,
#include "cli/load/failure.def"
#undef FAILURE
};

const char *failure_name(enum failure f)
{
	return failure_names[f];
}

int64_t load_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool takes_connection(const struct addrinfo *a)
{
	AUTO(fd_auto) int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
	return fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0;
}

static bool is_address(const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];
	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

int target_find(const struct load_options *o, struct target *ret, struct err *e)
{
	struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM};
	int rc = getaddrinfo(o->host, o->port, &hints, &list);
	if (rc)
		return err_set(e, ERR_RETRY, "resolve '%s': %s", o->host, gai_strerror(rc));
	const struct addrinfo *a = list;
	while (a && !takes_connection(a))
		a = a->ai_next;
	if (a) {
		*ret = (struct target){.address_bytes = a->ai_addrlen,
			.host = o->host,
			.host_is_address = is_address(o->host)};
		memcpy(&ret->address, a->ai_addr, a->ai_addrlen);
	} else {
		err_sys(e, ERR_RETRY, "connect to %s", o->authority);
	}
	freeaddrinfo(list);
	return a ? 0 : -1;
}

int connection_init(struct connection *c, struct connector *connector, struct err *e)
{
	*c = (struct connection){.connector = connector, .fd = -1, .last = &c->first};
	buf_init(&c->out, OUT_BYTES);
	c->exchanges = calloc(connector->depth, sizeof(*c->exchanges));
	if (!c->exchanges)
		return err_oom(e);
	for (unsigned i = 0; i < connector->depth; i++)
		buf_init(&c->exchanges[i].body, ANSWER_BYTES);
	return 0;
}

/* Back to the state after connection_init. */
static void disconnect(struct connection *c)
{
	if (c->state == CONNECTION_OPEN)
		c->connector->protocol->close(c);
	SSL_free(c->ssl);
	c->ssl = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->state = CONNECTION_CLOSED;
	c->in_flight = 0;
	c->finish = false;
	c->out_at = 0;
	buf_reset(&c->out);
}

/* Ends in order: with a close_notify, as a client that has had its answers does. */
static void say_goodbye(struct connection *c)
{
	if (c->state != CONNECTION_OPEN)
		return;
	SSL_shutdown(c->ssl);
	ERR_clear_error();
}

void connection_clear(struct connection *c)
{
	say_goodbye(c);
	disconnect(c);
	for (unsigned i = 0; c->exchanges && i < c->connector->depth; i++)
		buf_clear(&c->exchanges[i].body);
	free(c->exchanges);
	c->exchanges = NULL;
	buf_clear(&c->out);
}

static void end(struct connection *c, enum failure why, const struct err *e)
{
	unsigned unanswered = c->in_flight;
	if (why == FAILURES)
		say_goodbye(c);
	disconnect(c);
	c->connector->handlers->closed(c, why, unanswered, e);
}

static void end_sys(struct connection *c, enum failure why, const char *what)
{
	struct err e = ERR_INIT;
	err_sys(&e, ERR_RETRY, "%s", what);
	end(c, why, &e);
}

static void want(struct connection *c, unsigned events)
{
	if (c->interest == events)
		return;
	struct epoll_event ev = {.events = events, .data.ptr = c};
	epoll_ctl(c->connector->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
	c->interest = events;
}

/* The oldest OpenSSL error, as a class and a text; empties the queue. */
static enum failure tls_failure_of(struct connection *c, struct err *e)
{
	unsigned long code = ERR_peek_error();
	int reason = ERR_GET_REASON(code);
	long verdict = SSL_get_verify_result(c->ssl);
	ERR_clear_error();
	if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		err_set(e, ERR_RETRY, "the server closed the connection");
		return FAIL_CLOSED;
	}
	if (reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
		err_set(e, ERR_FORBIDDEN, "the server refused: TLS alert '%s'",
			tls_alert_name(reason - SSL_AD_REASON_OFFSET));
		return FAIL_REFUSED;
	}
	if (verdict != X509_V_OK)
		err_set(e, ERR_FORBIDDEN, "the server's certificate: %s",
			X509_verify_cert_error_string(verdict));
	else
		err_set(e, ERR_REJECT, "TLS: %s", ERR_reason_error_string(code));
	return c->state == CONNECTION_OPEN ? FAIL_PROTOCOL : FAIL_HANDSHAKE;
}

/* After a call that returned n <= 0: waits for the socket, or ends the connection. */
static void wait_or_end(struct connection *c, int n)
{
	struct err e = ERR_INIT;
	switch (SSL_get_error(c->ssl, n)) {
	case SSL_ERROR_WANT_READ:
		/* An open connection is always watched for reading, and may also be waiting to write. */
		if (c->state != CONNECTION_OPEN)
			want(c, EPOLLIN);
		return;
	case SSL_ERROR_WANT_WRITE:
		want(c, EPOLLIN | EPOLLOUT);
		return;
	case SSL_ERROR_ZERO_RETURN:
		err_set(&e, ERR_RETRY, "the server closed the connection");
		end(c, FAIL_CLOSED, &e);
		return;
	case SSL_ERROR_SYSCALL:
		ERR_clear_error();
		end_sys(c, FAIL_RESET, "connection broken");
		return;
	default:
		end(c, tls_failure_of(c, &e), &e);
	}
}

static void reset_exchanges(struct connection *c)
{
	c->free = c->first = NULL;
	c->last = &c->first;
	for (unsigned i = 0; i < c->connector->depth; i++) {
		c->exchanges[i].next = c->free;
		c->free = &c->exchanges[i];
	}
}

static bool protocol_agreed(const struct connection *c)
{
	const unsigned char *chosen;
	unsigned n;
	SSL_get0_alpn_selected(c->ssl, &chosen, &n);
	struct str asked = str_mem(c->connector->protocol->alpn.p + 1, c->connector->protocol->alpn.n - 1);
	return str_eq(str_mem(chosen, n), asked) || (!n && c->connector->protocol == &load_protocol_h1);
}

static void handshake(struct connection *c)
{
	struct err e = ERR_INIT;
	int n = SSL_do_handshake(c->ssl);
	if (n <= 0) {
		wait_or_end(c, n);
		return;
	}
	if (!protocol_agreed(c)) {
		err_set(&e, ERR_REJECT, "the server does not speak %s", c->connector->protocol->name);
		end(c, FAIL_HANDSHAKE, &e);
		return;
	}
	reset_exchanges(c);
	c->state = CONNECTION_OPEN;
	if (c->connector->protocol->open(c, &e) < 0) {
		end(c, FAIL_PROTOCOL, &e);
		return;
	}
	want(c, EPOLLIN);
	c->connector->handlers->opened(c);
}

/* The certificate must be for the host that was asked for (RFC 6125). */
static bool expect_host(SSL *ssl, const struct target *target)
{
	if (target->host_is_address)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), target->host) == 1;
	/* The macro SSL_set_tlsext_host_name casts const away where compilers can see it. */
	void *name = (void *)(uintptr_t)target->host;
	return SSL_set1_host(ssl, target->host) == 1 &&
	       SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name) == 1;
}

static bool start_tls(struct connection *c)
{
	const struct str alpn = c->connector->protocol->alpn;
	c->ssl = SSL_new(c->connector->tls);
	if (!c->ssl || !SSL_set_fd(c->ssl, c->fd) || !expect_host(c->ssl, c->connector->target) ||
		SSL_set_alpn_protos(c->ssl, (const unsigned char *)alpn.p, (unsigned)alpn.n))
		return false;
	SSL_set_connect_state(c->ssl);
	c->state = CONNECTION_HANDSHAKE;
	return true;
}

static void connected(struct connection *c)
{
	struct err e = ERR_INIT;
	int failed = 0;
	socklen_t n = sizeof(failed);
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &n);
	if (failed) {
		errno = failed;
		end_sys(c, FAIL_CONNECT, "connect");
	} else if (!start_tls(c)) {
		ERR_clear_error();
		err_oom(&e);
		end(c, FAIL_HANDSHAKE, &e);
	} else {
		handshake(c);
	}
}

/* A socket under way, watched until it can be written to. */
static bool open_socket(struct connection *c)
{
	const struct target *t = c->connector->target;
	c->fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return false;
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	if (connect(c->fd, (const struct sockaddr *)&t->address, t->address_bytes) < 0 &&
		errno != EINPROGRESS)
		return false;
	c->interest = EPOLLOUT;
	struct epoll_event ev = {.events = c->interest, .data.ptr = c};
	return epoll_ctl(c->connector->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) == 0;
}

void connection_open(struct connection *c)
{
	require(c->state == CONNECTION_CLOSED);
	if (!open_socket(c)) {
		end_sys(c, FAIL_CONNECT, "connect");
		return;
	}
	c->state = CONNECTION_CONNECTING;
}

void exchange_answered(struct connection *c, struct exchange *x)
{
	c->in_flight--;
	c->connector->handlers->answered(c, x);
	x->next = c->free;
	c->free = x;
}

int exchange_body(struct connection *c, struct exchange *x, struct str piece, struct err *e)
{
	if (!c->connector->keep_bodies && x->status != MULTI_STATUS)
		return 0;
	buf_add_str(&x->body, piece);
	return buf_check(&x->body, e);
}

/* One TLS record at most; false when there is no more to read now. */
static bool receive(struct connection *c)
{
	struct err e = ERR_INIT;
	int n = SSL_read(c->ssl, c->connector->scratch, SCRATCH_BYTES);
	if (n <= 0) {
		wait_or_end(c, n);
		return false;
	}
	c->connector->now_ns = load_now_ns();
	if (c->connector->protocol->received(c, str_mem(c->connector->scratch, (size_t)n), &e) < 0) {
		end(c, FAIL_PROTOCOL, &e);
		return false;
	}
	return SSL_has_pending(c->ssl);
}

static void receive_all(struct connection *c)
{
	while (receive(c))
		;
	if (c->state != CONNECTION_OPEN)
		return;
	if (c->finish && !c->in_flight)
		end(c, FAILURES, NULL);
	else
		connection_flush(c);
}

void connection_event(struct connection *c, unsigned events)
{
	switch (c->state) {
	case CONNECTION_CLOSED:
		break;
	case CONNECTION_CONNECTING:
		connected(c);
		break;
	case CONNECTION_HANDSHAKE:
		handshake(c);
		break;
	case CONNECTION_OPEN:
		if (events & EPOLLOUT)
			connection_flush(c);
		if (c->state == CONNECTION_OPEN && events & ~(unsigned)EPOLLOUT)
			receive_all(c);
		break;
	}
}

void connection_start(struct connection *c, int64_t start_ns)
{
	struct err e = ERR_INIT;
	struct exchange *x = c->free;
	c->free = x->next;
	x->next = NULL;
	x->start_ns = start_ns;
	x->status = 0;
	buf_reset(&x->body);
	c->in_flight++;
	request_vary(c->connector->request);
	if (c->connector->protocol->send(c, x, &e) < 0)
		end(c, FAIL_PROTOCOL, &e);
}

void connection_flush(struct connection *c)
{
	struct err e = ERR_INIT;
	if (c->connector->protocol->fill && c->connector->protocol->fill(c, &e) < 0) {
		end(c, FAIL_PROTOCOL, &e);
		return;
	}
	while (c->out_at < c->out.n) {
		int n = SSL_write(c->ssl, c->out.p + c->out_at, (int)(c->out.n - c->out_at));
		if (n <= 0) {
			wait_or_end(c, n);
			return;
		}
		c->out_at += (size_t)n;
	}
	c->out_at = 0;
	buf_reset(&c->out);
	want(c, EPOLLIN);
}
