/* server.c - wiring of the main server: registry and clients in memory, listeners, reload, drain. */
#include "server/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/auto.h"
#include "base/log.h"
#include "role/access_log.h"
#include "role/listener_limits.h"
#include "role/routes.h"
#include "server/internal.h"

enum {
	POOL_THREADS = 4,
	POOL_LIMIT = 1024,
	SYNC_PAGE = 500,
	SYNC_ARENA_BYTES = 16 * 1024 * 1024,
};

const struct server_actor server_itself = {"sealpost", "main server"};

struct server_actor server_actor_of(const struct http_request *r)
{
	bool has_cert = r->peer && r->peer->role != ROLE_NONE;
	return (struct server_actor){has_cert ? r->peer->name : "local administrator", r->peer_address};
}

int server_audit(struct server *s, const struct server_actor *actor, const char *action, struct str target,
	const char *result, struct str detail, struct err *e)
{
	struct store_audit op = {
		.row =
			{
				.actor = str_of(actor->name),
				.origin = str_of(actor->origin),
				.action = str_of(action),
				.target = target,
				.result = str_of(result),
				.detail = detail,
			},
	};
	return store_wait(s->store, STORE_AUDIT, &op.op, e) < 0 ? err_context(e, "audit") : 0;
}

bool server_registry_row(const struct store_cert *cert, struct registry_row *ret)
{
	*ret = (struct registry_row){
		.serial_bytes = cert->serial_bytes,
		.status = cert->revoked_at.ms ? REGISTRY_REVOKED
			  : cert->suspended   ? REGISTRY_SUSPENDED
					      : REGISTRY_ACTIVE,
		.name = cert->name,
		.domain = cert->domain,
		.not_after = cert->not_after,
		.change = cert->change,
	};
	memcpy(ret->serial, cert->serial, sizeof(ret->serial));
	memcpy(ret->issuer_key_id, cert->issuer_key_id, sizeof(ret->issuer_key_id));
	return role_parse(cert->role, &ret->role);
}

/* Applies one page of changes; *ret_count tells how many rows there were. */
static int sync_page(struct server *s, struct arena *arena, unsigned *ret_count, struct err *e)
{
	struct store_cert_query query = {.after_change = registry_change(s->registry), .max = SYNC_PAGE};
	struct store_cert *certs;
	if (store_read_certs(s->store, &query, arena, &certs, ret_count, e) < 0)
		return -1;
	struct registry_row *rows = arena_alloc(arena, (*ret_count + 1) * sizeof(*rows));
	if (!rows)
		return err_oom(e);
	for (unsigned i = 0; i < *ret_count; i++) {
		if (s->journal && server_compare_with_journal(s, &certs[i], e) < 0)
			return -1;
		if (!server_registry_row(&certs[i], &rows[i]))
			return err_set(e, ERR_FATAL, "certificate change %lld has an unknown role",
				(long long)certs[i].change);
	}
	return *ret_count ? registry_apply(s->registry, rows, *ret_count, e) : 0;
}

int server_sync_registry(struct server *s, struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, SYNC_ARENA_BYTES);
	pthread_mutex_lock(&s->sync_lock);
	unsigned count = SYNC_PAGE;
	int rc = 0;
	while (rc >= 0 && count == SYNC_PAGE) {
		arena_reset(&arena);
		rc = sync_page(s, &arena, &count, e);
	}
	struct err why = ERR_INIT;
	if (s->journal && journal_sync(s->journal, &why) < 0)
		log_event(LOG_ERROR, "revocation.not_in_journal", LF_ERR(&why));
	pthread_mutex_unlock(&s->sync_lock);
	server_wake_feed(s);
	return rc < 0 ? err_context(e, "registry") : 0;
}

static void check_store(void *arg, struct health_report *ret)
{
	const struct server *s = arg;
	struct store_glance glance;
	store_glance(s->store, &glance);
	if (!glance.healthy)
		ret->status = HEALTH_FAILED;
	snprintf(ret->detail, sizeof(ret->detail), "%.199s",
		glance.healthy ? store_description(s->store) : glance.trouble);
}

static bool copy_text(const char **ret, const char *text)
{
	*ret = text ? strdup(text) : NULL;
	return *ret || !text;
}

static void place_clear(struct place *p)
{
	free((char *)(uintptr_t)p->public_url);
	free((char *)(uintptr_t)p->listen);
	free((char *)(uintptr_t)p->names);
}

static int place_copy(const struct place *from, struct place *ret, struct err *e)
{
	bool copied = copy_text(&ret->public_url, from->public_url);
	copied &= copy_text(&ret->listen, from->listen);
	copied &= copy_text(&ret->names, from->names);
	if (copied)
		return 0;
	place_clear(ret);
	return err_oom(e);
}

/* Where devices are told to go from now on. */
static int take_places(struct server *s, const struct config *c, struct err *e)
{
	struct place fresh[2], old[2];
	if (place_copy(&(struct place){c->public_url, c->server_listen, c->tls_names}, &fresh[0], e) < 0)
		return -1;
	if (place_copy(&(struct place){c->ingest_public_url, NULL, c->tls_names}, &fresh[1], e) < 0) {
		place_clear(&fresh[0]);
		return -1;
	}
	pthread_mutex_lock(&s->place_lock);
	old[0] = s->place;
	old[1] = s->ingest_place;
	s->place = fresh[0];
	s->ingest_place = fresh[1];
	pthread_mutex_unlock(&s->place_lock);
	place_clear(&old[0]);
	place_clear(&old[1]);
	return 0;
}

static int take_config(struct server *s, const struct config *config, struct err *e)
{
	s->cert_days = config->cert_days;
	s->cert_days_max = config->cert_days_max;
	s->enroll_valid_ms = config->enroll_valid;
	s->enroll_keep_ms = config->enroll_keep;
	s->enroll_refusals = config->enroll_refusals;
	s->renew_overlap_ms = config->renew_overlap;
	if (take_places(s, config, e) < 0)
		return -1;
	return s->domains ? domains_reload(s->domains, config, e) : domains_new(config, &s->domains, e);
}

/* The trail begins with the keys that were made for this installation. */
static int audit_keys(struct server *s, struct err *e)
{
	struct store_counts counts;
	struct sealing_public sealing;
	const struct ca_issuer *issuers;
	char key_id[2 * ENVELOPE_KEY_ID_BYTES + 1], detail[64];
	if (store_read_counts(s->store, &counts, e) < 0)
		return -1;
	if (counts.audit_rows)
		return 0;
	(void)ca_issuers(s->ca, &issuers);
	keyring_active(s->keyring, &sealing);
	hex_encode(sealing.key_id, sizeof(sealing.key_id), key_id);
	snprintf(detail, sizeof(detail), "{\"sealing_key\":\"%s\"}", key_id);
	return server_audit(s, &server_itself, "ca.create", str_of(issuers[0].id), "ok", str_of(detail), e);
}

static int draw_epoch(struct server *s, struct err *e)
{
	uint8_t bytes[EPOCH_BYTES];
	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return err_sys(e, ERR_FATAL, "random bytes for the feed's epoch");
	hex_encode(bytes, sizeof(bytes), s->epoch);
	return 0;
}

int server_open(const struct server_options *o, struct server **ret, struct err *e)
{
	struct server *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	s->context.health = o->health;
	s->context.openapi = server_openapi;
	s->clock = o->clock;
	s->store = o->store;
	s->ca = o->ca;
	s->keyring = o->keyring;
	s->registry = o->registry;
	s->queue = o->queue;
	s->destination = (struct destination){.name = "in process",
		.arg = s,
		.open = deliver_open,
		.close = deliver_close,
		.deliver = deliver_batch};
	pthread_mutex_init(&s->sync_lock, NULL);
	pthread_mutex_init(&s->feed_lock, NULL);
	pthread_mutex_init(&s->session_lock, NULL);
	pthread_mutex_init(&s->place_lock, NULL);
	s->renew_grace_ms = o->config->renew_grace;
	if (take_config(s, o->config, e) < 0 || draw_epoch(s, e) < 0 ||
		attempts_new(o->clock, &s->attempts, e) < 0 ||
		work_pool_start("admin", POOL_THREADS, POOL_LIMIT, &s->pool, e) < 0 || audit_keys(s, e) < 0 ||
		clients_load(o->store, &s->clients, e) < 0 ||
		server_open_journal(s, o->revocation_journal, e) < 0 || server_sync_registry(s, e) < 0 ||
		server_compare_tokens(s, e) < 0 || crl_open(o->store, o->ca, o->clock, &s->crl, e) < 0) {
		server_close(s);
		return -1;
	}
	if (o->health)
		health_add(o->health, "store", false, check_store, s);
	*ret = s;
	return 0;
}

const struct http_route *const server_routes[] = {admin_ca_routes, admin_cert_routes, admin_client_routes,
	admin_token_routes, admin_message_routes, admin_queue_routes, admin_stats_routes, admin_audit_routes,
	ca_routes, est_routes, internal_routes, health_routes, NULL};

/* Starts one listener, with what differs between them in `http`. Its table, kept in *routes, lives as long as
 * the server; `roles` as in routes_join. */
static int start_listener(struct server *s, const struct server_listen_options *o, unsigned roles,
	struct http_server_options http, struct http_route **routes, struct http_server **ret, struct err *e)
{
	*routes = routes_join(server_routes, roles);
	if (!*routes)
		return err_oom(e);
	http.listen_count = 1;
	http.loops = o->loops;
	http.loop_count = o->loop_count;
	http.routes = *routes;
	http.context = s;
	http.clock = s->clock;
	limits_from_config(o->config, &http.limits);
	return http_server_start(&http, ret, e);
}

static int listen_tls(struct server *s, const struct server_listen_options *o, struct err *e)
{
	struct tls_server_options tls = {
		.cert_file = o->cert_file,
		.key_file = o->key_file,
		.ca_file = o->ca_file,
		.trust_domain = o->config->trust_domain,
		.client_cert = true,
		.http2 = true,
		.roles = ROLE_BIT(ROLE_PROXY) | ROLE_BIT(ROLE_WORKER) | ROLE_BIT(ROLE_SERVER) |
			 ROLE_BIT(ROLE_MONITOR) | ROLE_BIT(ROLE_ADMIN) | ROLE_BIT(ROLE_CLIENT),
		.grace_ms = s->renew_grace_ms,
		.registry = s->registry,
		.clock = s->clock,
	};
	if (tls_server_new(&tls, &s->tls, e) < 0)
		return err_context(e, "main server's listener");
	struct http_listen listen = {.address = o->config->server_listen, .fd = o->listen_fd, .tls = s->tls};
	struct http_server_options http = {.name = "server",
		.grace_ms = s->renew_grace_ms,
		.listens = &listen,
		.registry = s->registry,
		.answered = access_log_server};
	return start_listener(s, o, 0, http, &s->tls_routes, &s->tls_http, e);
}

static int listen_admin(struct server *s, const struct server_listen_options *o, struct err *e)
{
	AUTO(free_auto) char *address = NULL;
	if (asprintf(&address, "unix:%s", o->admin_socket) < 0) {
		address = NULL;
		return err_oom(e);
	}
	struct http_listen listen = {.address = address, .fd = -1};
	struct http_server_options http = {.name = "admin", .listens = &listen, .answered = access_log_admin};
	return start_listener(s, o, ROLE_BIT(ROLE_NONE), http, &s->admin_routes, &s->admin_http, e);
}

/* What the CA publishes, for programs without TLS: lists and certificates are signed, so plain HTTP does them no harm
 * (RFC 5280 section 8). */
static int listen_crl(struct server *s, const struct server_listen_options *o, struct err *e)
{
	struct http_listen listen = {.address = o->config->crl_listen, .fd = -1, .allow_plain = true};
	struct http_server_options http = {
		.name = "crl",
		.listens = &listen,
		.listen_count = 1,
		.loops = o->loops,
		.loop_count = o->loop_count,
		.routes = ca_routes,
		.context = s,
		.clock = s->clock,
		.answered = access_log_crl,
	};
	limits_from_config(o->config, &http.limits);
	return http_server_start(&http, &s->crl_http, e) < 0 ? err_context(e, "crl_listen") : 0;
}

int server_listen(struct server *s, const struct server_listen_options *o, struct err *e)
{
	if (!copy_text(&s->ingest_address, o->ingest_address))
		return err_oom(e);
	if (o->cert_file && listen_tls(s, o, e) < 0)
		return -1;
	if (o->cert_file && o->config->crl_listen && listen_crl(s, o, e) < 0)
		return -1;
	if (o->admin_socket && listen_admin(s, o, e) < 0)
		return -1;
	s->upkeep_loop = o->loops[0];
	return 0;
}

const char *server_tls_address(const struct server *s)
{
	return s->tls_http ? http_server_address(s->tls_http, 0) : NULL;
}

const char *server_crl_address(const struct server *s)
{
	return s->crl_http ? http_server_address(s->crl_http, 0) : NULL;
}

struct wall server_cert_not_after(const struct server *s)
{
	return tls_server_not_after(s->tls);
}

const struct destination *server_destination(struct server *s)
{
	return &s->destination;
}

void server_reload(struct server *s, const struct config *config)
{
	struct err e = ERR_INIT;
	if (take_config(s, config, &e) < 0)
		log_event(LOG_ERROR, "server.not_reloaded", LF_ERR(&e));
	struct http_limits limits;
	limits_from_config(config, &limits);
	if (s->tls_http)
		http_server_set_limits(s->tls_http, &limits);
	if (s->crl_http)
		http_server_set_limits(s->crl_http, &limits);
}

int server_reload_certs(struct server *s, struct err *e)
{
	if (!s->tls)
		return 0;
	return tls_server_reload(s->tls, e) < 0 ? err_context(e, "main server's listener") : 0;
}

void server_drain(struct server *s, int64_t drain_ms)
{
	atomic_store(&s->draining, true);
	server_close_feed(s);
	struct http_server *const all[] = {s->tls_http, s->admin_http, s->crl_http};
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i])
			http_server_drain(all[i], drain_ms);
}

void server_close(struct server *s)
{
	if (!s)
		return;
	atomic_store(&s->draining, true);
	http_server_free(s->tls_http);
	http_server_free(s->admin_http);
	http_server_free(s->crl_http);
	free(s->tls_routes);
	free(s->admin_routes);
	work_pool_stop(s->pool);
	tls_server_free(s->tls);
	clients_free(s->clients);
	domains_free(s->domains);
	journal_close(s->journal);
	crl_free(s->crl);
	attempts_free(s->attempts);
	place_clear(&s->place);
	place_clear(&s->ingest_place);
	free((char *)(uintptr_t)s->ingest_address);
	for (unsigned i = 0; i < s->session_count; i++)
		deliver_close(s->sessions[i]);
	pthread_mutex_destroy(&s->session_lock);
	pthread_mutex_destroy(&s->place_lock);
	pthread_mutex_destroy(&s->feed_lock);
	pthread_mutex_destroy(&s->sync_lock);
	free(s);
}
