/* bare_responder.c - the least that a server can do for a request over mutual TLS: the limit that
 * `make bench` holds sealpost against.
 *
 * One thread, epoll, OpenSSL with read-ahead, TLS 1.3, a client certificate required, tickets off. It reads
 * until a request's Content-Length is complete and answers a fixed 202 of the size of sealpost's own. It does
 * not look at method, target, other headers or body, and keeps nothing: it is a measure, not a server.
 *
 * Prints the port it listens on; ends with SIGTERM. */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"

enum { INPUT_BYTES = 1 << 17, EVENTS = 64, BACKLOG = 4096 };

#define BODY                                                                                                 \
	"{\"message_id\":\"01935a2e-7d3c-7a10-8c55-0123456789ab\",\"status\":\"queued\","                    \
	"\"client_id\":\"client_001\",\"domain\":\"example.com\","                                           \
	"\"queued_at\":\"2026-01-31T12:00:00.000Z\",\"position\":1234567}"

static const char answer_format[] = "HTTP/1.1 202 Accepted\r\n"
				    "Content-Type: application/json\r\n"
				    "Content-Length: %zu\r\n"
				    "X-Request-Id: 01935a2e-7d3c-7a10-8c55-0123456789ab\r\n"
				    "Location: /api/v1/messages/01935a2e-7d3c-7a10-8c55-0123456789ab\r\n"
				    "\r\n" BODY;

struct peer {
	SSL *ssl;
	int fd;
	size_t n;     /* bytes of an incomplete request */
	char *input;  /* where they are; NULL until there was one */
	bool blocked; /* waits until it can write; what it has to write is `owed` answers */
	unsigned owed;
};

static char answer[1024];
static size_t answer_bytes;
static char scratch[INPUT_BYTES];
static int epoll_fd;
static struct peer *peers; /* by descriptor */
static SSL_CTX *tls;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bare_responder: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void drop(struct peer *p)
{
	ERR_clear_error();
	SSL_free(p->ssl);
	close(p->fd);
	free(p->input);
	*p = (struct peer){.fd = -1};
}

static void watch(int fd, unsigned events, int op)
{
	struct epoll_event ev = {.events = events, .data.fd = fd};
	if (epoll_ctl(epoll_fd, op, fd, &ev) < 0)
		die("epoll_ctl");
}

/* The length of the first request in the bytes, 0 when it is not complete. */
static size_t request_bytes(const char *p, size_t n)
{
	const char *end = memmem(p, n, "\r\n\r\n", 4);
	if (!end)
		return 0;
	struct str head = str_mem(p, (size_t)(end - p) + 2), line, name;
	uint64_t body = 0;
	while (str_cut(&head, '\n', &line)) {
		if (!str_cut(&line, ':', &name) || !str_eq_nocase(name, STR("content-length")))
			continue;
		/* The line still has its carriage return. */
		if (!str_to_u64(str_trim(str_mem(line.p, line.n - 1)), &body))
			return 0;
		break;
	}
	size_t need = (size_t)(end - p) + 4 + (size_t)body;
	return need <= n ? need : 0;
}

/* False when the peer is gone. */
static bool send_owed(struct peer *p)
{
	while (p->owed) {
		int n = SSL_write(p->ssl, answer, (int)answer_bytes);
		if (n <= 0 && SSL_get_error(p->ssl, n) != SSL_ERROR_WANT_WRITE)
			return false;
		if ((n <= 0) != p->blocked) {
			p->blocked = n <= 0;
			watch(p->fd, p->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
		}
		if (n <= 0)
			return true;
		p->owed--;
	}
	return true;
}

/* Counts the complete requests and keeps the rest. */
static bool take_requests(struct peer *p, const char *bytes, size_t n)
{
	size_t used = 0, one;
	while ((one = request_bytes(bytes + used, n - used)) > 0) {
		used += one;
		p->owed++;
	}
	p->n = n - used;
	if (!p->n)
		return true;
	if (!p->input)
		p->input = malloc(INPUT_BYTES);
	if (!p->input)
		return false;
	memmove(p->input, bytes + used, p->n);
	return p->n < INPUT_BYTES;
}

/* False when the peer is gone. */
static bool receive(struct peer *p)
{
	do {
		char *to = p->input ? p->input : scratch;
		int n = SSL_read(p->ssl, to + p->n, (int)(INPUT_BYTES - p->n));
		if (n <= 0)
			return SSL_get_error(p->ssl, n) == SSL_ERROR_WANT_READ;
		if (!take_requests(p, to, p->n + (size_t)n))
			return false;
	} while (SSL_has_pending(p->ssl));
	return send_owed(p);
}

static bool shake_hands(struct peer *p)
{
	int n = SSL_accept(p->ssl);
	if (n == 1)
		return true;
	return SSL_get_error(p->ssl, n) == SSL_ERROR_WANT_READ;
}

static void on_event(struct peer *p, unsigned events)
{
	bool alive = SSL_is_init_finished(p->ssl) || shake_hands(p);
	if (alive && events & EPOLLOUT)
		alive = send_owed(p);
	if (alive && SSL_is_init_finished(p->ssl))
		alive = receive(p);
	if (!alive)
		drop(p);
}

static void accept_all(int listener)
{
	int fd;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
		peers[fd] = (struct peer){.fd = fd, .ssl = SSL_new(tls)};
		if (!peers[fd].ssl || !SSL_set_fd(peers[fd].ssl, fd))
			die("SSL_new");
		watch(fd, EPOLLIN, EPOLL_CTL_ADD);
	}
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
	unsigned in_n, void *arg)
{
	static const unsigned char http[] = "\x08http/1.1";
	unsigned char *chosen;
	if (SSL_select_next_proto(&chosen, out_n, http, sizeof(http) - 1, in, in_n) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static void make_context(const char *cert, const char *key, const char *ca)
{
	tls = SSL_CTX_new(TLS_server_method());
	if (!tls || !SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION) ||
		SSL_CTX_use_certificate_chain_file(tls, cert) != 1 ||
		SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_load_verify_file(tls, ca) != 1 || SSL_CTX_set_num_tickets(tls, 0) != 1)
		die("certificates");
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_read_ahead(tls, 1);
	SSL_CTX_set_alpn_select_cb(tls, select_alpn, NULL);
	SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
}

static int listen_on(unsigned short port)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
		bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, BACKLOG) < 0 ||
		getsockname(fd, (struct sockaddr *)&a, &n) < 0)
		die("listen");
	printf("%u\n", (unsigned)ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static _Noreturn void serve(int listener)
{
	struct epoll_event events[EVENTS];
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1");
	watch(listener, EPOLLIN, EPOLL_CTL_ADD);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == listener)
				accept_all(listener);
			else
				on_event(&peers[events[i].data.fd], events[i].events);
		}
	}
}

/* One place for each descriptor there can be; only those in use are ever touched. */
static void make_peers(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		die("getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		die("setrlimit");
	peers = calloc(limit.rlim_cur, sizeof(*peers));
	if (!peers)
		die("calloc");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"port", required_argument, NULL, 'p'},
		{"cert", required_argument, NULL, 'c'}, {"key", required_argument, NULL, 'k'},
		{"ca", required_argument, NULL, 'a'}, {0}};
	const char *cert = NULL, *key = NULL, *ca = NULL;
	uint64_t port = 0;
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (o == 'p')
			port = str_to_u64(str_of(optarg), &port) ? port : UINT64_MAX;
		else if (o == 'c')
			cert = optarg;
		else if (o == 'k')
			key = optarg;
		else if (o == 'a')
			ca = optarg;
	}
	if (!cert || !key || !ca || optind < argc || port > 65535) {
		fprintf(stderr, "usage: bare_responder --cert FILE --key FILE --ca FILE [--port N]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	make_peers();
	answer_bytes = (size_t)snprintf(answer, sizeof(answer), answer_format, sizeof(BODY) - 1);
	make_context(cert, key, ca);
	serve(listen_on((unsigned short)port));
}
