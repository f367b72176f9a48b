/* server.h - the main server: keeps messages, is the certificate authority, serves administrators.
 *
 * Listeners: TLS (`server_listen`) for other roles and administrators with certificates, and the admin socket
 * in the data directory (plain HTTP over a unix socket, mode 0600: whoever may open it may do everything).
 * The same route table serves both; the command line talks to it. On `crl_listen`, where that is set, plain HTTP for what
 * the CA publishes.
 *
 * Ownership: server_open … server_close; store, CA, keyring, registry and queue outlive the server.
 * Threads:   open, listen, drain, close, reload from the owner's thread; handlers on I/O loops, their
 * blocking parts on the work pool; the destination's sessions on the worker's delivery threads. Security: the
 * only place where an envelope is opened. What an administrator reads leaves an audit row. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "base/config.h"
#include "ca/ca.h"
#include "crypto/keyring.h"
#include "http/server.h"
#include "queue/queue.h"
#include "role/destination.h"
#include "role/health.h"
#include "role/lookup.h"
#include "store/store.h"

struct server;

struct server_options {
	const struct config *config; /* read at open and by server_reload; not kept */
	const struct clock *clock;
	struct store *store;
	struct ca *ca;
	const struct keyring *keyring;
	struct registry *registry;      /* filled and kept up to date by the server */
	struct queue *queue;            /* what /admin/queue works on; NULL: those routes answer 503 */
	struct health *health;          /* may be NULL */
	const char *revocation_journal; /* path; NULL: none is kept */
};

/* Loads the registry and the known clients; no listener yet. */
MUST_CHECK int server_open(const struct server_options *o, struct server **ret, struct err *e);

struct server_listen_options {
	const struct config *config;
	const char *admin_socket;                   /* path; NULL: none */
	const char *cert_file, *key_file, *ca_file; /* of the TLS listener; cert_file NULL: no TLS listener */
	const char
		*ingest_address; /* where clients send to this process, for enrolment tokens; NULL: nowhere */
	int listen_fd; /* its socket, listening already, is taken over; -1: `server_listen` is bound */
	struct loop *const *loops;
	unsigned loop_count;
};
MUST_CHECK int server_listen(struct server *s, const struct server_listen_options *o, struct err *e);

/* Bound address; NULL when that listener does not run. */
const char *server_tls_address(const struct server *s);
const char *server_crl_address(const struct server *s);

/* When the TLS listener's certificate ends; only while it runs. */
struct wall server_cert_not_after(const struct server *s);

/* Answers proxies of this process; arg is the server. */
lookup_fn server_lookup;

/* In-process deliveries go here. */
const struct destination *server_destination(struct server *s);

/* Limits and lifetimes anew; connections stay. */
void server_reload(struct server *s, const struct config *config);

/* The TLS listener's files anew, for connections to come; when that fails the old ones stay. */
MUST_CHECK int server_reload_certs(struct server *s, struct err *e);

/* Once a second: ends long polls whose time is over, and starts what is due: a fresh CRL, a registry without expired
 * certificates. */
void server_tick(struct server *s);

/* Stops the listeners; then close. */
void server_drain(struct server *s, int64_t drain_ms);
void server_close(struct server *s);

/* --- certificates, also used by `init` before any listener runs --- */

/* Who asks, for the audit trail. */
struct server_actor {
	const char *name;   /* "local administrator", an admin certificate's name, "init" */
	const char *origin; /* address, "unix" for the admin socket, "main server" */
};

/* For how long an enrolment token may be good. */
enum { SERVER_TOKEN_VALID_S_MIN = 60, SERVER_TOKEN_VALID_S_MAX = 365 * 24 * 60 * 60 };

struct server_order {
	enum role role;
	struct str name, domain;
	int64_t days;                /* 0: the configured default */
	struct str public_key_der;   /* SubjectPublicKeyInfo */
	const struct str *dns_names; /* server and proxy: besides nothing else */
	unsigned dns_count;
	const struct str *addresses;
	unsigned address_count;
	struct store_cert_id renews;         /* the one before; none: it is the first */
	bool while_good;                     /* only while that one is not revoked, also in between */
	const struct store_token_key *token; /* what it is enrolled with; NULL: an administrator's doing */
};

/* Issues, registers, audits, and only then hands out. */
MUST_CHECK int server_issue(struct server *s, const struct server_actor *actor,
	const struct server_order *order, struct ca_issued *ret, struct err *e);

#endif
