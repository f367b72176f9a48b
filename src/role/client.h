/* client.h - requests to the main server from a role on another machine: libcurl over mutual TLS 1.3,
 * keep-alive.
 *
 * The peer must chain to our CA, carry the name in the URL, and hold a certificate of role `server`: a stolen
 * client certificate with the right name does not pass for the main server.
 *
 * Ownership: one client is one connection's worth of state; new/free. The file names stay with the caller.
 * Threads:   one thread at a time per client; calls block up to their timeout. cancel and reload from any.
 * Errors:    ERR_RETRY when the server cannot be reached or answers 429, 503 or 5xx, with what its
 *            Retry-After asks for; ERR_FORBIDDEN 401, 403; ERR_NOT_FOUND 404; ERR_REJECT other 4xx and
 *            answers that are not JSON. err.unanswered: the connection ended after the whole request was sent, with
 *            neither an answer nor a goodbye of TLS, as it does when a process dies.
 * Security:  errors carry no bodies. */
#ifndef ROLE_CLIENT_H
#define ROLE_CLIENT_H

#include "base/buf.h"
#include "base/json.h"

struct client;

struct client_options {
	const char *url; /* https://HOST:PORT */
	const char *cert_file, *key_file, *ca_file, *trust_domain;
	const struct clock *clock;
	int64_t connect_ms;
};

/* Whether certificate and key can be read and belong together, and the CA file can be read. *ret_not_after: when the
 * certificate ends. */
MUST_CHECK int client_check_files(const struct client_options *o, struct wall *ret_not_after, struct err *e);

MUST_CHECK int client_new(const struct client_options *o, struct client **ret, struct err *e);
void client_free(struct client *c);

/* One request; `body` .n == 0: none. *ret is the answer's JSON (json_decref). */
MUST_CHECK int client_call(struct client *c, const char *method, const char *path, struct str body,
	int64_t timeout_ms, json_t **ret, struct err *e);

/* Ends a call under way; calls to come end at once too. */
void client_cancel(struct client *c);

/* The next call makes a connection of its own, with the files as they are then. */
void client_reload(struct client *c);

#endif
