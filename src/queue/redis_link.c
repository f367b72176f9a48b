/* redis_link.c - see redis_link.h. The socket never blocks; waiting is poll with what is left of the
 * deadline. */
#include "queue/redis_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"

enum { READ_BYTES = 64 * 1024 };

struct redis_link {
	int fd;
	SSL *ssl; /* NULL: plain */
	redisReader *reader;
	struct mono deadline; /* of the exchange under way */
	char input[READ_BYTES];
};

AUTO_DEFINE(redis_link_close, struct redis_link *)
AUTO_DEFINE(SSL_CTX_free, SSL_CTX *)

/* --- waiting --- */

static void set_deadline(struct redis_link *link, int timeout_ms)
{
	link->deadline = mono_add_ms(clock_mono(&clock_system), timeout_ms);
}

static int lost(struct err *e, const char *doing)
{
	return err_sys(e, ERR_RETRY, "%s", doing);
}

static int wait_for(struct redis_link *link, short events, const char *doing, struct err *e)
{
	struct pollfd p = {.fd = link->fd, .events = events};
	for (;;) {
		int64_t left_ms = mono_diff_ms(link->deadline, clock_mono(&clock_system));
		int rc = left_ms > 0 ? poll(&p, 1, (int)left_ms) : 0;
		if (rc > 0)
			return 0;
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc == 0)
			errno = ETIMEDOUT;
		return lost(e, doing);
	}
}

/* What TLS says went wrong, from its queue; that may quote the peer but never a secret. */
static int tls_failed(struct err *e, const char *doing)
{
	char why[160] = "the connection was closed";
	unsigned long code = ERR_get_error();
	if (code)
		ERR_error_string_n(code, why, sizeof(why));
	ERR_clear_error();
	return err_set(e, ERR_RETRY, "%s: TLS: %s", doing, why);
}

/* After an SSL function returned `rc`: waits for what it wants, or fails. */
static int tls_wait(struct redis_link *link, int rc, const char *doing, struct err *e)
{
	switch (SSL_get_error(link->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		return wait_for(link, POLLIN, doing, e);
	case SSL_ERROR_WANT_WRITE:
		return wait_for(link, POLLOUT, doing, e);
	default:
		return tls_failed(e, doing);
	}
}

/* --- connecting --- */

static int open_socket(struct redis_link *link, int family, struct err *e)
{
	link->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return link->fd < 0 ? err_sys(e, ERR_RETRY, "socket") : 0;
}

static int connect_socket(
	struct redis_link *link, const struct sockaddr *address, socklen_t bytes, struct err *e)
{
	int error = 0;
	socklen_t n = sizeof(error);
	if (connect(link->fd, address, bytes) == 0)
		return 0;
	if (errno != EINPROGRESS && errno != EAGAIN)
		return lost(e, "connect");
	if (wait_for(link, POLLOUT, "connect", e) < 0)
		return -1;
	if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error) {
		errno = error ? error : errno;
		return lost(e, "connect");
	}
	return 0;
}

static int connect_unix(struct redis_link *link, const char *path, struct err *e)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t n = strlen(path);
	if (n >= sizeof(address.sun_path))
		return err_set(e, ERR_FATAL, "'%s' is too long for a unix socket", path);
	memcpy(address.sun_path, path, n + 1);
	if (open_socket(link, AF_UNIX, e) < 0)
		return -1;
	return connect_socket(link, (const struct sockaddr *)&address, sizeof(address), e);
}

static int connect_one(struct redis_link *link, const struct addrinfo *to, struct err *e)
{
	int on = 1;
	if (link->fd >= 0)
		close(link->fd);
	if (open_socket(link, to->ai_family, e) < 0 ||
		connect_socket(link, to->ai_addr, to->ai_addrlen, e) < 0)
		return -1;
	setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return 0;
}

/* The first address of the name that takes the connection. */
static int connect_tcp(struct redis_link *link, const struct redis_place *place, struct err *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *found = NULL;
	int rc = getaddrinfo(place->host, place->port, &hints, &found);
	if (rc)
		return err_set(e, ERR_RETRY, "look up '%s': %s", place->host, gai_strerror(rc));
	rc = -1;
	for (const struct addrinfo *a = found; a && rc < 0; a = a->ai_next)
		rc = connect_one(link, a, e);
	freeaddrinfo(found);
	return rc;
}

/* --- TLS --- */

static int bad_file(struct err *e, const char *option, const char *path)
{
	char why[160];
	ERR_error_string_n(ERR_peek_last_error(), why, sizeof(why));
	ERR_clear_error();
	return err_set(e, ERR_FATAL, "%s: '%s': %s", option, path, why);
}

static int load_files(SSL_CTX *ctx, const struct redis_place *place, struct err *e)
{
	int ok = place->ca_file ? SSL_CTX_load_verify_file(ctx, place->ca_file)
				: SSL_CTX_set_default_verify_paths(ctx);
	if (ok != 1)
		return bad_file(e, "redis_ca_file", place->ca_file ? place->ca_file : "the system's");
	if (!place->cert_file)
		return 0;
	if (SSL_CTX_use_certificate_chain_file(ctx, place->cert_file) != 1)
		return bad_file(e, "redis_cert_file", place->cert_file);
	if (SSL_CTX_use_PrivateKey_file(ctx, place->key_file, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_check_private_key(ctx) != 1)
		return bad_file(e, "redis_key_file", place->key_file);
	return 0;
}

/* Who the server has to be: an address is looked for among the certificate's addresses, a name among its
 * names. */
static int expect_host(SSL *ssl, const char *host)
{
	struct in6_addr address;
	bool is_address = inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
	if (is_address)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
	/* The macro SSL_set_tlsext_host_name casts const away where compilers can see it. */
	void *name = (void *)(uintptr_t)host;
	return SSL_set1_host(ssl, host) == 1 &&
	       SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name) == 1;
}

/* Why the server's certificate was refused, if it was. */
static int handshake_failed(struct redis_link *link, int rc, struct err *e)
{
	long verdict = SSL_get_verify_result(link->ssl);
	if (verdict == X509_V_OK)
		return tls_wait(link, rc, "TLS handshake", e);
	ERR_clear_error();
	return err_set(e, ERR_RETRY, "TLS handshake: the server's certificate is refused: %s",
		X509_verify_cert_error_string(verdict));
}

static int start_tls(struct redis_link *link, const struct redis_place *place, struct err *e)
{
	ERR_clear_error();
	AUTO(SSL_CTX_free_auto) SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	if (!ctx)
		return err_oom(e);
	SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (load_files(ctx, place, e) < 0)
		return -1;
	link->ssl = SSL_new(ctx);
	if (!link->ssl || SSL_set_fd(link->ssl, link->fd) != 1 || !expect_host(link->ssl, place->host))
		return err_oom(e);
	for (int rc; (rc = SSL_connect(link->ssl)) != 1;)
		if (handshake_failed(link, rc, e) < 0)
			return -1;
	return 0;
}

/* --- open, close --- */

int redis_link_open(const struct redis_place *place, int timeout_ms, struct redis_link **ret, struct err *e)
{
	AUTO(redis_link_close_auto) struct redis_link *link = calloc(1, sizeof(*link));
	if (!link)
		return err_oom(e);
	link->fd = -1;
	link->reader = redisReaderCreate();
	if (!link->reader)
		return err_oom(e);
	set_deadline(link, timeout_ms);
	int rc = place->unix_path ? connect_unix(link, place->unix_path, e) : connect_tcp(link, place, e);
	if (rc < 0 || (place->tls && start_tls(link, place, e) < 0))
		return -1;
	*ret = TAKE(link);
	return 0;
}

void redis_link_close(struct redis_link *link)
{
	if (!link)
		return;
	SSL_free(link->ssl);
	if (link->fd >= 0)
		close(link->fd);
	if (link->reader)
		redisReaderFree(link->reader);
	free(link);
}

/* --- bytes --- */

/* Writes a part of it; 0: nothing yet. */
static ssize_t write_some(struct redis_link *link, struct str s, struct err *e)
{
	if (link->ssl) {
		int rc = SSL_write(link->ssl, s.p, s.n < INT_MAX ? (int)s.n : INT_MAX);
		return rc > 0 ? rc : tls_wait(link, rc, "write", e);
	}
	ssize_t n = send(link->fd, s.p, s.n, MSG_NOSIGNAL);
	if (n >= 0 || errno == EINTR)
		return n >= 0 ? n : 0;
	return errno == EAGAIN ? wait_for(link, POLLOUT, "write", e) : lost(e, "write");
}

int redis_link_send(struct redis_link *link, struct str commands, int timeout_ms, struct err *e)
{
	set_deadline(link, timeout_ms);
	while (commands.n) {
		ssize_t n = write_some(link, commands, e);
		if (n < 0)
			return -1;
		commands = str_mem(commands.p + n, commands.n - (size_t)n);
	}
	return 0;
}

/* Reads what there is into `input`; 0: nothing yet. */
static ssize_t read_some(struct redis_link *link, struct err *e)
{
	if (link->ssl) {
		int rc = SSL_read(link->ssl, link->input, sizeof(link->input));
		return rc > 0 ? rc : tls_wait(link, rc, "read", e);
	}
	ssize_t n = recv(link->fd, link->input, sizeof(link->input), 0);
	if (n > 0)
		return n;
	if (n == 0)
		return err_set(e, ERR_RETRY, "read: the server closed the connection");
	if (errno == EINTR)
		return 0;
	return errno == EAGAIN ? wait_for(link, POLLIN, "read", e) : lost(e, "read");
}

int redis_link_reply(struct redis_link *link, redisReply **ret, struct err *e)
{
	for (;;) {
		void *reply = NULL;
		if (redisReaderGetReply(link->reader, &reply) != REDIS_OK)
			return err_set(e, ERR_RETRY, "read: %s", link->reader->errstr);
		if (reply) {
			*ret = reply;
			return 0;
		}
		ssize_t n = read_some(link, e);
		if (n < 0)
			return -1;
		if (n && redisReaderFeed(link->reader, link->input, (size_t)n) != REDIS_OK)
			return err_set(e, ERR_RETRY, "read: %s", link->reader->errstr);
	}
}

/* --- commands --- */

void redis_command(struct buf *out, size_t count)
{
	buf_addf(out, "*%zu\r\n", count);
}

void redis_word(struct buf *out, struct str word)
{
	/* snprintf would be half of what a message costs here. */
	char head[24];
	size_t at = sizeof(head), n = word.n;
	head[--at] = '\n';
	head[--at] = '\r';
	do
		head[--at] = (char)('0' + n % 10);
	while (n /= 10);
	head[--at] = '$';
	buf_add(out, head + at, sizeof(head) - at);
	buf_add_str(out, word);
	buf_add(out, "\r\n", 2);
}

void redis_number(struct buf *out, int64_t number)
{
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%" PRId64, number);
	redis_word(out, str_mem(digits, (size_t)n));
}

void redis_text_command(struct buf *out, ...)
{
	va_list args;
	size_t count = 0;
	va_start(args, out);
	while (va_arg(args, const char *))
		count++;
	va_end(args);
	redis_command(out, count);
	va_start(args, out);
	for (; count; count--)
		redis_word(out, str_of(va_arg(args, const char *)));
	va_end(args);
}
