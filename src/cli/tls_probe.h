/* tls_probe.h - one connection to a TLS server, made to be told about: goes on where a client would stop, and
 * keeps what happened.
 *
 * A server that cannot be trusted is still shaken hands with, so that the rest can be looked at. What it gets
 * is our certificate, which is no secret, and a question for its health; never a message.
 *
 * Ownership: clear frees; the options must outlive the probe.
 * Threads:   one. */
#ifndef CLI_TLS_PROBE_H
#define CLI_TLS_PROBE_H

#include <netinet/in.h>
#include <openssl/ssl.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"

struct tls_probe_options {
	const char *host, *port;     /* a name or an address, and a number */
	const char *name;            /* what the certificate has to be for; the host, or another */
	const char *path;            /* of the request that is sent */
	const char *cert, *key, *ca; /* files; cert and key may be NULL; ca NULL: the system's */
	int64_t timeout_ms;          /* for all of it */
};

/* How far it came. */
enum tls_probe_stage { PROBE_RESOLVE, PROBE_CONNECT, PROBE_HANDSHAKE, PROBE_REQUEST, PROBE_DONE };

/* One fault that OpenSSL found in the server's chain; error X509_V_OK: none. */
struct tls_probe_fault {
	int error, depth;
};

struct tls_probe {
	enum tls_probe_stage stage; /* where it ended; PROBE_DONE: with an answer, or with the peer's close */
	char trouble[ERR_TEXT_BYTES]; /* what ended it there; empty: nothing, or an alert */
	bool timed_out;
	char address[INET6_ADDRSTRLEN];
	unsigned address_count; /* that the name has */
	int64_t connect_ms;
	SSL *ssl;
	int alert_received, alert_sent; /* -1: none */
	bool asked, sent;               /* a certificate: the server for ours, and we one */
	bool not_tls;                   /* what came was something else */
	struct tls_probe_fault trust, time;
	struct buf answer;
};

/* Fails only for what is wrong here (files, memory); what happens on the way is the result. */
MUST_CHECK int tls_probe_run(const struct tls_probe_options *o, struct tls_probe *ret, struct err *e);
void tls_probe_clear(struct tls_probe *p);

#endif
