/* tls_serve.c - sealpost tls serve: a small server to try clients against. It uses the listeners' own TLS
 * context and verdict (tls/context.h), takes one connection after the other, and tells of each what the client
 * offered and sent and what became of it. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/json.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/term.h"
#include "cli/tls.h"
#include "tls/context.h"
#include "tls/openssl.h"

enum { WORDS_BYTES = 800, HEAD_BYTES = 16 * 1024, TIMEOUT_S = 10, LISTED_MAX = 8, ADDRESS_BYTES = 64 };

struct serve {
	struct tls_server_options tls;
	const char *listen;
	bool once, json;
};

/* One connection, as it is told. */
struct told {
	json_t *steps, *facts;
	int alert; /* that the client sent; -1: none */
};

/* --- what a client offers --- */

static void add_version(json_t *all, unsigned version)
{
	static const struct {
		unsigned version;
		const char *name;
	} names[] = {{TLS1_3_VERSION, "TLS 1.3"}, {TLS1_2_VERSION, "TLS 1.2"}, {TLS1_1_VERSION, "TLS 1.1"},
		{TLS1_VERSION, "TLS 1.0"}, {SSL3_VERSION, "SSL 3"}};
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (names[i].version == version)
			json_array_append_new(all, json_string(names[i].name));
}

/* The extension (RFC 8446 section 4.2.1), or the field that older clients have only. */
static json_t *offered_versions(SSL *ssl)
{
	json_t *all = json_array();
	const unsigned char *bytes;
	size_t n;
	if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_supported_versions, &bytes, &n)) {
		add_version(all, SSL_client_hello_get0_legacy_version(ssl));
		return all;
	}
	for (size_t i = 1; i + 1 < n; i += 2)
		add_version(all, (unsigned)bytes[i] << 8 | bytes[i + 1]);
	return all;
}

static json_t *offered_ciphers(SSL *ssl)
{
	json_t *all = json_array();
	const unsigned char *bytes;
	size_t n = SSL_client_hello_get0_ciphers(ssl, &bytes);
	for (size_t i = 0; i + 1 < n; i += 2) {
		const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, bytes + i);
		if (cipher)
			json_array_append_new(all, json_string(SSL_CIPHER_standard_name(cipher)));
	}
	return all;
}

/* Protocols of ALPN (RFC 7301 section 3.1): a list of names, each behind its length. */
static json_t *offered_protocols(SSL *ssl)
{
	json_t *all = json_array();
	const unsigned char *bytes;
	size_t n;
	if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &bytes, &n))
		return all;
	for (size_t i = 2; i < n && i + bytes[i] < n; i += 1u + bytes[i]) {
		json_t *name = json_stringn((const char *)bytes + i + 1, bytes[i]);
		if (name)
			json_array_append_new(all, name);
	}
	return all;
}

/* The server name that was asked for (RFC 6066 section 3): list length, type 0, name length, name. */
static json_t *asked_name(SSL *ssl)
{
	enum { NAME_AT = 5 };
	const unsigned char *bytes;
	size_t n;
	if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &n) || n <= NAME_AT)
		return json_null();
	json_t *name = json_stringn((const char *)bytes + NAME_AT, n - NAME_AT);
	return name ? name : json_null();
}

static struct told *told_of(const SSL *ssl);

static int on_hello(SSL *ssl, int *alert, void *arg)
{
	struct told *told = told_of(ssl);
	char versions[WORDS_BYTES / 4], ciphers[WORDS_BYTES / 2], protocols[WORDS_BYTES / 4];
	json_t *offered = json_pack("{s:o, s:o, s:o, s:o}", "versions", offered_versions(ssl), "ciphers",
		offered_ciphers(ssl), "protocols", offered_protocols(ssl), "server_name", asked_name(ssl));
	tls_join(json_object_get(offered, "versions"), LISTED_MAX, versions, sizeof(versions));
	tls_join(json_object_get(offered, "ciphers"), 3, ciphers, sizeof(ciphers));
	tls_join(json_object_get(offered, "protocols"), LISTED_MAX, protocols, sizeof(protocols));
	const char *name = json_text(offered, "server_name");
	steps_add(told->steps, STEP_NOTE, "offers", "%s; %s; protocols: %s; for the server '%s'", versions,
		ciphers, *protocols ? protocols : "none named", *name ? name : "(not named)");
	json_object_set_new(told->facts, "offered", offered);
	(void)alert, (void)arg;
	return SSL_CLIENT_HELLO_SUCCESS;
}

/* --- what it sends, and the verdict on it --- */

static int told_index(void)
{
	static int index = -1;
	if (index < 0)
		index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	return index;
}

static struct told *told_of(const SSL *ssl)
{
	return SSL_get_ex_data(ssl, told_index());
}

/* The verdict's steps do not know their connection; there is only one at a time. */
static void on_step(void *arg, const struct verify_step *step)
{
	struct told *const *current = arg;
	const char *shown = step->fault ? step->fault : step->demands;
	if (!step->skipped)
		steps_add((*current)->steps, step->fault ? STEP_FAILED : STEP_OK, step->name, "%s", shown);
}

static void on_info(const SSL *ssl, int where, int value)
{
	if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT && value >> 8 == SSL3_AL_FATAL)
		told_of(ssl)->alert = value & 0xff;
}

static void on_message(int is_ours, int version, int type, const void *bytes, size_t n, SSL *ssl, void *arg)
{
	(void)version, (void)arg;
	if (is_ours || type != SSL3_RT_HANDSHAKE || n < 1 || *(const char *)bytes != SSL3_MT_CERTIFICATE)
		return;
	struct told *told = told_of(ssl);
	char words[WORDS_BYTES];
	json_t *known = tls_peer_algorithms(ssl);
	tls_join(known, LISTED_MAX, words, sizeof(words));
	steps_add(told->steps, STEP_NOTE, "verifies", "signatures by %s", words);
	json_object_set_new(told->facts, "signature_algorithms", known);
}

static void tell_peer(SSL *ssl, struct told *told)
{
	X509 *cert = SSL_get0_peer_certificate(ssl);
	char words[WORDS_BYTES];
	if (!cert) {
		json_object_set_new(told->facts, "sent", json_null());
		steps_add(told->steps, STEP_WARNING, "sends", "no certificate");
		return;
	}
	json_t *shown = tls_cert_json(cert, clock_wall(&clock_system));
	tls_cert_words(shown, words, sizeof(words));
	steps_add(told->steps, STEP_OK, "sends", "%s", words);
	json_object_set_new(told->facts, "sent", shown);
}

/* --- the request, for clients that want an answer --- */

/* Up to the empty line. */
static bool read_head(SSL *ssl, struct buf *head)
{
	while (!head->n || !memmem(head->p, head->n, "\r\n\r\n", 4)) {
		char chunk[1024];
		int n = SSL_read(ssl, chunk, sizeof(chunk));
		if (n <= 0)
			return false;
		buf_add(head, chunk, (size_t)n);
		if (head->failed)
			return false;
	}
	return true;
}

static void answer(SSL *ssl, const struct identity *peer)
{
	bool known = peer->role != ROLE_NONE;
	AUTO(buf_auto) struct buf body, out;
	buf_init(&body, HEAD_BYTES);
	buf_init(&out, HEAD_BYTES);
	struct json_out w = json_out_to(&body);
	json_open_object(&w, NULL);
	json_put_str(&w, "status", known ? STR("accepted") : STR("no certificate"));
	json_put_str(&w, "role", str_of(role_name(peer->role)));
	json_put_str(&w, "name", str_of(peer->name));
	json_put_str(&w, "domain", str_of(peer->domain));
	json_close_object(&w);
	buf_addf(&out,
		"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
		known ? "200 OK" : "401 Unauthorized", body.n);
	buf_add_str(&out, buf_str(&body));
	/* A client that is gone misses it, and nothing else. */
	if (!out.failed && SSL_write(ssl, out.p, (int)out.n) > 0)
		SSL_shutdown(ssl);
}

static void tell_request(SSL *ssl, struct told *told)
{
	AUTO(buf_auto) struct buf head;
	buf_init(&head, HEAD_BYTES);
	if (!read_head(ssl, &head)) {
		if (told->alert >= 0)
			steps_add(told->steps, STEP_FAILED, "request",
				"the client refused us, with TLS alert '%s'", tls_alert_name(told->alert));
		else
			steps_add(told->steps, STEP_NOTE, "request", "none that is complete");
		return;
	}
	struct str rest = buf_str(&head), line;
	if (!str_cut(&rest, '\r', &line))
		line = rest;
	steps_add(told->steps, STEP_OK, "request", "%.*s", STR_ARG(line));
	answer(ssl, tls_peer(ssl));
}

/* --- a connection --- */

static bool tell_handshake(SSL *ssl, struct told *told, char *why, size_t room)
{
	ERR_clear_error();
	if (SSL_accept(ssl) == 1) {
		const struct identity *peer = tls_peer(ssl);
		tell_peer(ssl, told);
		if (peer->role == ROLE_NONE)
			snprintf(why, room, "nobody in particular, without a certificate");
		else
			snprintf(why, room, "%s %s of domain %s", role_name(peer->role), peer->name,
				peer->domain);
		return true;
	}
	const char *rule, *outcome = tls_failure(ssl, &rule);
	if (told->alert >= 0)
		snprintf(
			why, room, "the client refused us, with TLS alert '%s'", tls_alert_name(told->alert));
	else
		snprintf(why, room, "%s: %s", outcome, rule);
	return false;
}

static int print_told(const struct serve *s, struct told *told, const char *from, bool accepted,
	const char *why, struct err *e)
{
	if (s->json) {
		AUTO(json_auto)
		json_t *line = json_pack("{s:s, s:b, s:s}", "from", from, "accepted", accepted, "why", why);
		json_object_update(line, told->facts);
		json_object_set(line, "steps", told->steps);
		json_dumpf(line, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		putchar('\n');
		fflush(stdout);
		return 0;
	}
	printf("connection from %s\n", from);
	if (steps_print(told->steps, e) < 0)
		return -1;
	term_styled(stdout, accepted ? TERM_GREEN : TERM_RED, "%s", accepted ? "accepted" : "refused");
	printf(": ");
	term_put_untrusted(stdout, str_of(why));
	printf("\n\n");
	fflush(stdout);
	return 0;
}

/* Whether it was accepted; or -1. */
static int serve_one(const struct serve *s, struct tls_server *tls, struct told **current, int fd,
	const char *from, struct err *e)
{
	AUTO(SSL_free_auto) SSL *ssl = tls_server_accept(tls);
	AUTO(json_auto) json_t *steps = json_array();
	AUTO(json_auto) json_t *facts = json_object();
	struct told told = {steps, facts, -1};
	char why[WORDS_BYTES];
	if (!ssl || !steps || !facts || !SSL_set_ex_data(ssl, told_index(), &told) || !SSL_set_fd(ssl, fd))
		return err_oom(e);
	*current = &told;
	SSL_set_info_callback(ssl, on_info);
	SSL_set_msg_callback(ssl, on_message);
	bool accepted = tell_handshake(ssl, &told, why, sizeof(why));
	if (accepted)
		tell_request(ssl, &told);
	ERR_clear_error();
	*current = NULL;
	return print_told(s, &told, from, accepted, why, e) < 0 ? -1 : accepted;
}

/* --- listening --- */

static int bind_one(const struct addrinfo *to, const char *address, int *ret_fd, struct err *e)
{
	AUTO(fd_auto) int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int on = 1;
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		bind(fd, to->ai_addr, to->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0)
		return err_sys(e, errno == EADDRINUSE ? ERR_CONFLICT : ERR_FATAL, "listen on '%s'", address);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* "127.0.0.1:8443", "[::1]:8443" or ":8443". */
static int open_listener(const char *address, int *ret_fd, struct err *e)
{
	const char *colon = strrchr(address, ':');
	struct str host = {address, colon ? (size_t)(colon - address) : 0};
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *all = NULL;
	if (!colon || !colon[1])
		return err_set(e, ERR_REJECT, "'%s' is not ADDRESS:PORT", address);
	if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
		host = str_mem(host.p + 1, host.n - 2);
	AUTO(free_auto) char *name = strndup(host.p, host.n);
	if (!name)
		return err_oom(e);
	int code = getaddrinfo(host.n ? name : NULL, colon + 1, &hints, &all);
	if (code != 0)
		return err_set(e, ERR_REJECT, "listen on '%s': %s", address, gai_strerror(code));
	int rc = bind_one(all, address, ret_fd, e);
	freeaddrinfo(all);
	return rc;
}

/* "127.0.0.1:34567", of this end of the socket or of the other. */
static void name_end(
	int fd, int (*get)(int fd, struct sockaddr *address, socklen_t *bytes), char *out, size_t room)
{
	struct sockaddr_storage address = {0};
	socklen_t bytes = sizeof(address);
	char host[INET6_ADDRSTRLEN], port[8];
	bool known = get(fd, (struct sockaddr *)&address, &bytes) == 0 &&
		     getnameinfo((struct sockaddr *)&address, bytes, host, sizeof(host), port, sizeof(port),
			     NI_NUMERICHOST | NI_NUMERICSERV) == 0;
	if (!known)
		snprintf(out, room, "unknown");
	else
		snprintf(out, room, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

/* SIGINT and SIGTERM arrive only while we wait for a connection, with the mask returned. */
static void catch_signals(sigset_t *ret_while_waiting)
{
	const struct sigaction action = {.sa_handler = on_signal};
	sigset_t ours;
	sigemptyset(&ours);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGTERM);
	sigprocmask(SIG_BLOCK, &ours, ret_while_waiting);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* The next connection, which must hurry; -1 when it is time to stop. */
static int next_connection(int listener, const sigset_t *while_waiting)
{
	const struct timeval limit = {.tv_sec = TIMEOUT_S};
	while (!stop) {
		struct pollfd p = {.fd = listener, .events = POLLIN};
		if (ppoll(&p, 1, NULL, while_waiting) < 0)
			continue;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		return fd;
	}
	return -1;
}

/* --- the command --- */

/* The exit code; or -1. */
static int serve(struct serve *s, struct err *e)
{
	struct told *current = NULL;
	struct tls_server *tls = NULL;
	AUTO(fd_auto) int listener = -1;
	char at[ADDRESS_BYTES], from[ADDRESS_BYTES];
	sigset_t while_waiting;
	s->tls.arg = &current;
	if (tls_server_new(&s->tls, &tls, e) < 0)
		return -1;
	int rc = open_listener(s->listen, &listener, e), fd;
	if (rc >= 0) {
		catch_signals(&while_waiting);
		name_end(listener, getsockname, at, sizeof(at));
		fprintf(stderr, "listening on %s; try: sealpost tls check https://%s\n", at, at);
	}
	while (rc >= 0 && (fd = next_connection(listener, &while_waiting)) >= 0) {
		name_end(fd, getpeername, from, sizeof(from));
		rc = serve_one(s, tls, &current, fd, from, e);
		close(fd);
		if (s->once && rc >= 0) {
			rc = rc ? EXIT_DONE : EXIT_REFUSED;
			break;
		}
		rc = rc < 0 ? -1 : EXIT_DONE;
	}
	tls_server_free(tls);
	return rc;
}

int cmd_tls_serve(int argc, char **argv)
{
	struct serve s = {
		.tls = {.client_cert = true, .clock = &clock_system, .hello = on_hello, .each = on_step},
		.listen = "127.0.0.1:8443",
	};
	const char *role_word = NULL;
	const struct arg options[] = {
		{"listen", ARG_TEXT, &s.listen, "ADDRESS:PORT", "default 127.0.0.1:8443; port 0: a free one"},
		{"cert", ARG_TEXT, &s.tls.cert_file, "FILE", "our certificate, with its issuer; PEM"},
		{"key", ARG_TEXT, &s.tls.key_file, "FILE", "its private key; PEM"},
		{"ca", ARG_TEXT, &s.tls.ca_file, "FILE", "whose certificates clients may show"},
		{"role", ARG_TEXT, &role_word, "R", "let in only this role; default any"},
		{"trust-domain", ARG_TEXT, &s.tls.trust_domain, "D", "of the identities; default any"},
		{"once", ARG_FLAG, &s.once, NULL, "end after the first connection: 0 accepted, 4 refused"},
		{"json", ARG_FLAG, &s.json, NULL, "one JSON object a connection"},
		{0},
	};
	struct args a = {.command = "tls serve",
		.usage =
			"--cert FILE --key FILE --ca FILE [--listen ADDRESS:PORT] [--role R] [--once] [--json]",
		.summary =
			"A small server to try clients against: tells of each connection what the client offers and sends,\n"
			"and the listeners' own verdict on it, step by step. It asks no registry: revoked certificates pass.",
		.example =
			"  sealpost tls serve --cert certs/peer.pem --key certs/peer.key --ca certs/ca.pem --once",
		.options = options};
	int code;
	enum role role = ROLE_NONE;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (!s.tls.cert_file || !s.tls.key_file || !s.tls.ca_file)
		return cli_usage_error("tls serve", "--cert, --key and --ca are needed");
	if (role_word && !role_parse(str_of(role_word), &role))
		return cli_usage_error(
			"tls serve", "--role is client, proxy, worker, server, monitor or admin");
	s.tls.roles = role_word ? ROLE_BIT(role) : 0;
	struct err e = ERR_INIT;
	code = serve(&s, &e);
	return code < 0 ? cli_fail("tls serve", &e) : code;
}
