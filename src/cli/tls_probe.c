/* tls_probe.c - see tls_probe.h.
 *
 * In TLS 1.3 a server judges the client's certificate after the client is done with its handshake (RFC 8446
 * section 4.4.4): a refusal arrives in place of the answer to the first request. So a request is sent, and
 * alerts are caught where they arrive, by OpenSSL's callbacks. */
#include "cli/tls_probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "tls/context.h"

enum { ANSWER_BYTES = 64 * 1024, HANDSHAKE_HEAD_BYTES = 4 };

struct run {
	const struct tls_probe_options *options;
	struct tls_probe *result;
	struct mono deadline;
};

static int run_index(void)
{
	static int index = -1;
	if (index < 0)
		index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return index;
}

/* Notes what ended it. Returns -1. */
static int end(struct tls_probe *p, const char *fmt, ...) PRINTF(2, 3);
static int end(struct tls_probe *p, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(p->trouble, sizeof(p->trouble), fmt, ap);
	va_end(ap);
	return -1;
}

/* Until the socket is ready or time is up. */
static int wait_for(const struct run *run, int fd, short events)
{
	for (;;) {
		int64_t left_ms = mono_diff_ms(run->deadline, clock_mono(&clock_system));
		struct pollfd p = {.fd = fd, .events = events};
		int n = left_ms > 0 ? poll(&p, 1, (int)left_ms) : 0;
		if (n > 0)
			return 0;
		if (n == 0) {
			run->result->timed_out = true;
			return end(run->result, "no answer within %lld s",
				(long long)run->options->timeout_ms / 1000);
		}
		if (errno != EINTR)
			return end(run->result, "poll: %s", strerror(errno));
	}
}

/* --- TCP --- */

static int connect_to(const struct run *run, const struct addrinfo *to, int *ret_fd)
{
	struct tls_probe *p = run->result;
	AUTO(fd_auto) int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int problem = 0;
	socklen_t bytes = sizeof(problem);
	if (fd < 0)
		return end(p, "%s", strerror(errno));
	if (connect(fd, to->ai_addr, to->ai_addrlen) < 0) {
		if (errno != EINPROGRESS)
			return end(p, "%s", strerror(errno));
		if (wait_for(run, fd, POLLOUT) < 0)
			return -1;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &bytes) < 0 || problem)
			return end(p, "%s", strerror(problem ? problem : errno));
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* The first of the name's addresses that answers. */
static int reach(const struct run *run, const struct addrinfo *all, int *ret_fd)
{
	struct tls_probe *p = run->result;
	p->stage = PROBE_CONNECT;
	struct mono start = clock_mono(&clock_system);
	for (const struct addrinfo *a = all; a; a = a->ai_next)
		p->address_count++;
	for (const struct addrinfo *a = all; a && !p->timed_out; a = a->ai_next) {
		if (getnameinfo(a->ai_addr, a->ai_addrlen, p->address, sizeof(p->address), NULL, 0,
			    NI_NUMERICHOST) != 0)
			p->address[0] = 0;
		if (connect_to(run, a, ret_fd) < 0)
			continue;
		p->connect_ms = mono_diff_ms(clock_mono(&clock_system), start);
		p->trouble[0] = 0;
		return 0;
	}
	return -1;
}

static int open_tcp(const struct run *run, int *ret_fd)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
	/* RFC 6761, section 6.3: "localhost" is this machine, also where no resolver knows it. No name means that. */
	const char *host = strcmp(run->options->host, "localhost") == 0 ? NULL : run->options->host;
	int code = getaddrinfo(host, run->options->port, &hints, &all);
	if (code != 0)
		return end(run->result, "%s", code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code));
	int rc = reach(run, all, ret_fd);
	freeaddrinfo(all);
	return rc;
}

/* --- what OpenSSL tells on the way --- */

static void on_info(const SSL *ssl, int where, int value)
{
	struct tls_probe *p = SSL_get_ex_data(ssl, run_index());
	bool fatal = value >> 8 == SSL3_AL_FATAL;
	if (fatal && (where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT)
		p->alert_received = value & 0xff;
	if (fatal && (where & SSL_CB_WRITE_ALERT) == SSL_CB_WRITE_ALERT)
		p->alert_sent = value & 0xff;
}

/* Whether a Certificate message holds one: of TLS 1.3 after a context (RFC 8446 section 4.4.2), else at once
 * (RFC 5246 section 7.4.2). */
static bool holds_certificate(const unsigned char *message, size_t n, bool tls13)
{
	size_t at = HANDSHAKE_HEAD_BYTES;
	if (tls13 && n > at)
		at += 1u + message[at];
	return n >= at + 3 && (message[at] || message[at + 1] || message[at + 2]);
}

static void on_message(int is_ours, int version, int type, const void *bytes, size_t n, SSL *ssl, void *arg)
{
	struct tls_probe *p = arg;
	const unsigned char *message = bytes;
	if (type != SSL3_RT_HANDSHAKE || n < HANDSHAKE_HEAD_BYTES)
		return;
	if (!is_ours && message[0] == SSL3_MT_CERTIFICATE_REQUEST)
		p->asked = true;
	if (is_ours && message[0] == SSL3_MT_CERTIFICATE)
		p->sent = holds_certificate(message, n, SSL_version(ssl) == TLS1_3_VERSION);
	(void)version;
}

static bool is_about_time(int error)
{
	return error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID;
}

/* Notes the first fault of each kind and goes on. */
static int on_certificate(int ok, X509_STORE_CTX *ctx)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_probe *p = SSL_get_ex_data(ssl, run_index());
	int error = X509_STORE_CTX_get_error(ctx);
	struct tls_probe_fault *fault = is_about_time(error) ? &p->time : &p->trust;
	if (!ok && fault->error == X509_V_OK)
		*fault = (struct tls_probe_fault){error, X509_STORE_CTX_get_error_depth(ctx)};
	return 1;
}

/* --- TLS --- */

/* Certificate, key and trust as our clients use them, but willing to talk TLS 1.2: the answer is to tell. */
static int make_context(const struct tls_probe_options *o, SSL_CTX **ret, struct err *e)
{
	AUTO(SSL_CTX_free_auto) SSL_CTX *ctx = NULL;
	if (tls_client_context(o->cert, o->key, o->ca, &ctx, e) < 0)
		return -1;
	if (!SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION))
		return err_openssl(e, ERR_FATAL, "TLS context");
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_certificate);
	SSL_CTX_set_info_callback(ctx, on_info);
	SSL_CTX_set_msg_callback(ctx, on_message);
	*ret = TAKE(ctx);
	return 0;
}

/* The server name goes along only when it is one (RFC 6066 section 3). */
static bool is_address(const char *name)
{
	struct in6_addr address;
	return inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1;
}

static int make_ssl(const struct tls_probe_options *o, struct tls_probe *p, struct err *e)
{
	static const unsigned char http1[] = "\x08http/1.1";
	AUTO(SSL_CTX_free_auto) SSL_CTX *ctx = NULL;
	char name[TLSEXT_MAXLEN_host_name + 1]; /* OpenSSL wants to be able to write to it */
	if (make_context(o, &ctx, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "%s", o->name);
	p->ssl = SSL_new(ctx);
	if (!p->ssl || !SSL_set_ex_data(p->ssl, run_index(), p) ||
		SSL_set_alpn_protos(p->ssl, http1, sizeof(http1) - 1) ||
		(!is_address(o->name) && !SSL_set_tlsext_host_name(p->ssl, name)))
		return err_openssl(e, ERR_FATAL, "TLS");
	SSL_set_msg_callback_arg(p->ssl, p);
	SSL_set_connect_state(p->ssl);
	return 0;
}

/* OpenSSL's reasons for bytes that are no TLS record. */
static bool is_not_tls(unsigned long code)
{
	static const int reasons[] = {SSL_R_WRONG_VERSION_NUMBER, SSL_R_HTTP_REQUEST,
		SSL_R_HTTPS_PROXY_REQUEST, SSL_R_PACKET_LENGTH_TOO_LONG, SSL_R_BAD_RECORD_TYPE};
	for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
		if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == reasons[i])
			return true;
	return false;
}

/* What became of a call to OpenSSL that is not done: 0: try again. */
static int go_on(const struct run *run, int rc)
{
	struct tls_probe *p = run->result;
	int system_errno = errno;
	unsigned long code = ERR_peek_error();
	switch (SSL_get_error(p->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		return wait_for(run, SSL_get_fd(p->ssl), POLLIN);
	case SSL_ERROR_WANT_WRITE:
		return wait_for(run, SSL_get_fd(p->ssl), POLLOUT);
	case SSL_ERROR_ZERO_RETURN:
		return end(p, "the server closed the connection");
	case SSL_ERROR_SYSCALL:
		return end(p, "%s", system_errno ? strerror(system_errno) : "the connection was cut");
	default:
		p->not_tls = is_not_tls(code);
		if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
			ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
			p->alert_sent = -1; /* OpenSSL answers with one, but nobody is there to refuse */
			return end(p, "the server closed the connection without a reason");
		}
		return end(p, "%s", ERR_reason_error_string(code) ? ERR_reason_error_string(code) : "?");
	}
}

static int shake_hands(const struct run *run)
{
	run->result->stage = PROBE_HANDSHAKE;
	for (;;) {
		ERR_clear_error();
		errno = 0;
		int rc = SSL_do_handshake(run->result->ssl);
		if (rc == 1)
			return 0;
		if (go_on(run, rc) < 0)
			return -1;
	}
}

static int send_request(const struct run *run)
{
	const struct tls_probe_options *o = run->options;
	AUTO(free_auto) char *request = NULL;
	int n = asprintf(&request,
		"GET %s HTTP/1.1\r\nHost: %s:%s\r\nUser-Agent: sealpost\r\nConnection: close\r\n\r\n",
		o->path, o->host, o->port);
	run->result->stage = PROBE_REQUEST;
	if (n < 0) {
		request = NULL;
		return end(run->result, "out of memory");
	}
	for (;;) {
		ERR_clear_error();
		errno = 0;
		int rc = SSL_write(run->result->ssl, request, n);
		if (rc > 0)
			return 0;
		if (go_on(run, rc) < 0)
			return -1;
	}
}

/* Up to the peer's close, or to more than is wanted. */
static int read_answer(const struct run *run)
{
	struct tls_probe *p = run->result;
	while (p->answer.n < ANSWER_BYTES) {
		char chunk[4096];
		ERR_clear_error();
		errno = 0;
		int rc = SSL_read(p->ssl, chunk, sizeof(chunk));
		if (rc > 0) {
			buf_add(&p->answer, chunk, (size_t)rc);
			if (p->answer.failed)
				break;
		} else if (go_on(run, rc) < 0) {
			break;
		}
	}
	/* With an answer at hand it does not matter how the connection ended, nor that a server keeps it. */
	if (p->answer.n == 0)
		return -1;
	p->timed_out = false;
	p->trouble[0] = 0;
	return 0;
}

int tls_probe_run(const struct tls_probe_options *o, struct tls_probe *ret, struct err *e)
{
	*ret = (struct tls_probe){.alert_received = -1, .alert_sent = -1};
	struct run run = {o, ret, mono_add_ms(clock_mono(&clock_system), o->timeout_ms)};
	int fd = -1;
	buf_init(&ret->answer, ANSWER_BYTES);
	if (make_ssl(o, ret, e) < 0)
		return -1;
	if (open_tcp(&run, &fd) < 0)
		return 0;
	/* The socket belongs to the SSL from here on. */
	BIO *bio = BIO_new_socket(fd, BIO_CLOSE);
	if (!bio) {
		close(fd);
		return err_oom(e);
	}
	SSL_set_bio(ret->ssl, bio, bio);
	if (shake_hands(&run) == 0 && send_request(&run) == 0 && read_answer(&run) == 0)
		ret->stage = PROBE_DONE;
	ERR_clear_error();
	return 0;
}

void tls_probe_clear(struct tls_probe *p)
{
	SSL_free(p->ssl);
	buf_clear(&p->answer);
}
