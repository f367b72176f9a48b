/* internal.h - what the files of server/ share. */
#ifndef SERVER_INTERNAL_H
#define SERVER_INTERNAL_H

#include <stdatomic.h>

#include "role/job.h"
#include "server/attempts.h"
#include "server/clients.h"
#include "server/crl.h"
#include "server/domains.h"
#include "server/journal.h"
#include "server/place.h"
#include "server/server.h"

enum { SESSIONS_MAX = 16, EPOCH_BYTES = 16, SERVER_NAMES_MAX = 16 };

struct server {
	struct role_context context; /* first: the health routes read it */
	const struct clock *clock;
	struct store *store;
	struct ca *ca;
	const struct keyring *keyring;
	struct registry *registry;
	struct queue *queue;
	struct clients *clients;
	struct domains *domains;
	struct journal *journal; /* NULL: none is kept */
	struct crl *crl;
	struct loop *upkeep_loop; /* NULL: nobody listens, so nothing is kept up */
	atomic_bool upkeep_running, seen_running;
	struct mono expiry_warned_at; /* while nothing runs */
	atomic_bool draining;         /* upkeep under way ends soon */
	struct mono upkeep_due;       /* while nothing runs */
	struct destination destination;
	struct work_pool *pool;
	/* These may change while handlers run. */
	_Atomic int64_t cert_days, cert_days_max, enroll_valid_ms, enroll_keep_ms, enroll_refusals,
		renew_overlap_ms;
	int64_t renew_grace_ms;
	struct attempts *attempts;  /* refused enrolments */
	pthread_mutex_t place_lock; /* guards the next two, whose strings are ours */
	struct place place, ingest_place;
	const char *ingest_address; /* of server_listen_options */
	pthread_mutex_t sync_lock;  /* one registry synchronisation at a time */

	char epoch[2 * EPOCH_BYTES + 1]; /* of the feed's change numbers: see feed.c */
	pthread_mutex_t feed_lock;       /* guards the next two */
	struct feed_waiter *feed_waiters;
	bool feed_closed;

	pthread_mutex_t session_lock; /* guards the next two */
	void *sessions[SESSIONS_MAX]; /* for deliveries over the network: at rest */
	unsigned session_count;

	struct tls_server *tls;
	struct http_server *tls_http, *admin_http, *crl_http;
	struct http_route *tls_routes, *admin_routes;
};

static inline struct server *server_of(const struct http_request *r)
{
	return r->context;
}

/* What the main server does by itself. */
extern const struct server_actor server_itself;

/* Who sends this request: an administrator's certificate, or whoever may open the admin socket. */
struct server_actor server_actor_of(const struct http_request *r);

/* One audit row, on disk when this returns 0. `detail` is a JSON object or empty. */
MUST_CHECK int server_audit(struct server *s, const struct server_actor *actor, const char *action,
	struct str target, const char *result, struct str detail, struct err *e);

/* Brings the registry up to the store's last change. */
MUST_CHECK int server_sync_registry(struct server *s, struct err *e);

/* A certificate as the registry knows it; false for a role that this program does not know. */
MUST_CHECK bool server_registry_row(const struct store_cert *cert, struct registry_row *ret);

/* revocations.c: opens the journal; NULL: none is kept. Then, of each row that comes from the store: notes a
 * revocation that the journal does not know, and revokes again what a store restored from a backup has forgotten.
 * A journal that cannot be written must not keep anybody in: that goes to the log. */
MUST_CHECK int server_open_journal(struct server *s, const char *path, struct err *e);
MUST_CHECK int server_compare_with_journal(struct server *s, struct store_cert *cert, struct err *e);

/* Of enrolment tokens: at start, what the journal knows and the store has forgotten, and the other way round; then,
 * after each use and revocation, what has changed of the tokens named, on disk when it returns (or in the log). */
MUST_CHECK int server_compare_tokens(struct server *s, struct err *e);
void server_note_tokens(struct server *s, const struct store_token_query *which);

/* A reason of RFC 5280 section 5.3.1 that may be given here, as a text that lives for good; .p NULL for others. */
struct str server_revoke_reason(struct str name);

/* retention.c: takes out delivered messages whose time is over, and enrolment tokens that ended long ago; once an
 * hour. */
MUST_CHECK int server_expire_messages(struct server *s, struct err *e);
MUST_CHECK int server_purge_tokens(struct server *s, struct err *e);

/* Whether the policy allows such a certificate; ERR_REJECT. The key is not looked at. */
MUST_CHECK int server_check_order(const struct server *s, const struct server_order *order, struct err *e);

/* Whether the order brings a domain that the configuration does not list and no client has belonged to, while there are
 * clients in others: maybe a typing mistake, which whoever asked should see. */
MUST_CHECK int server_domain_is_new(
	struct server *s, const struct server_order *order, bool *ret, struct err *e);

struct store_cert_id server_cert_id(const struct store_cert *cert);

/* Opens an object with what there is to say of a certificate; the caller closes it. */
void server_put_cert(struct json_out *w, const char *key, const struct server *s, const struct store_cert *c);

/* Likewise of a client. */
void server_put_client(struct json_out *w, const struct server *s, const struct store_client *c);

/* A page of tokens as the member "tokens"; *ret_next is the cursor of the next, 0 for none. */
MUST_CHECK int server_put_tokens(struct job *j, struct json_out *w, const struct store_token_query *query,
	int64_t *ret_next, struct err *e);

/* DNS names and addresses of a certificate that serves, for the one that renews it. */
struct server_names {
	struct str dns[SERVER_NAMES_MAX], addresses[SERVER_NAMES_MAX];
	unsigned dns_count, address_count;
};
MUST_CHECK int server_keep_names(struct job *j, struct str der, struct server_names *ret, struct err *e);
void server_order_names(struct server_order *order, const struct server_names *names);

/* Counts what was revoked and signs the CRL, for those elsewhere who read it. The revocation stands, whatever
 * becomes of the list. */
void server_revoked(struct server *s, unsigned count);

/* seen.c: takes out of the registry whose bearers came, and stores it; from server_tick. */
void server_note_seen(struct server *s);
http_handler server_post_seen;

/* Ends what is replaced by certificates in use; `all`: not only those first used lately. */
MUST_CHECK int server_supersede(struct server *s, bool all, struct err *e);

/* expiry.c: metric and warning. */
MUST_CHECK int server_look_at_expiry(struct server *s, struct err *e);

/* upkeep.c: what is due now and then; from server_tick. */
void server_upkeep(struct server *s);

/* feed.c: answers every proxy that waits for a change; at shutdown also those to come. */
void server_wake_feed(struct server *s);
void server_close_feed(struct server *s);
http_handler server_get_changes, server_get_sealing_keys;

/* A session to deliver with, from those at rest or a fresh one; NULL: see *e. Put takes NULL. */
MUST_CHECK void *server_take_session(struct server *s, struct err *e);
void server_put_session(struct server *s, void *session);

/* The destination's functions (deliver.c). */
MUST_CHECK int deliver_open(void *arg, void **ret_session, struct err *e);
void deliver_close(void *arg);
MUST_CHECK int deliver_batch(void *arg, struct delivery_item *items, unsigned count, struct err *e);

/* Route tables; each ends with method NULL. */
extern const struct http_route admin_ca_routes[];
extern const struct http_route admin_cert_routes[];
extern const struct http_route admin_client_routes[];
extern const struct http_route admin_token_routes[];
extern const struct http_route admin_message_routes[];
extern const struct http_route admin_queue_routes[];
extern const struct http_route admin_stats_routes[];
extern const struct http_route admin_audit_routes[];
extern const struct http_route ca_routes[];
extern const struct http_route est_routes[];
extern const struct http_route internal_routes[];

/* All of them and the health routes; ends with NULL. */
extern const struct http_route *const server_routes[];

/* openapi.yaml, which describes them. */
extern const char server_openapi[];

enum { ADMIN_BODY_BYTES = 64 * 1024, SEEN_BYTES = 256 * 1024 };

/* A handler whose work is done by run(struct job *) on the work pool. */
#define ADMIN_HANDLER(name, run)                                                                             \
	static void name(struct http_request *r)                                                             \
	{                                                                                                    \
		job_start(r, server_of(r)->pool, run);                                                       \
	}

#endif
