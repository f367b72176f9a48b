/* app.c - see app.h. Parts are opened in the order of the table `parts` and closed in the reverse; app_close
 * copes with any prefix of that order, so that a failure at any step unwinds by itself. */
#include "cli/app.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/metrics.h"
#include "ca/ca.h"
#include "cli/engines.h"
#include "cli/home.h"
#include "cli/own_certs.h"
#include "cli/queue_report.h"
#include "cli/self_usage.h"
#include "loop/loop.h"
#include "proxy/feed.h"
#include "proxy/proxy.h"
#include "proxy/upstream.h"
#include "role/access_log.h"
#include "role/listener_limits.h"
#include "role/version.h"
#include "server/server.h"
#include "worker/remote.h"
#include "worker/worker.h"

enum {
	LOOPS_MAX = 64,
	IO_THREADS_AUTO_MAX = 8,
	CONNECT_TIMEOUT_MS = 5000,
};

/* A question to one loop: does it still turn? */
struct pulse {
	struct task task;
	atomic_bool asked; /* and not answered yet */
};

struct app {
	struct role_context context; /* first: the metrics listener's handlers read it */
	const struct paths *paths;   /* the caller's; while opening and closing */
	enum app_mode mode;
	int lock_fd;
	struct app_sockets sockets;
	char *data, *cert_file, *key_file, *ca_file, *issuers_file, *name;
	char *server_cert_file, *server_key_file; /* the main server's own */
	struct ca *ca;
	uint8_t seen_issuer[IDENTITY_KEY_ID_BYTES]; /* whom our own certificates are from */
	struct keyring *keyring;
	struct registry *registry;
	struct store *store;
	struct queue *queue;
	struct queue_report queue_report;
	struct server *server;
	struct feed *feed;
	struct upstream *upstream;
	struct remote *remote;
	struct loop *loops[LOOPS_MAX];
	unsigned loop_count;
	struct pulse pulses[LOOPS_MAX]; /* of the I/O loops */
	struct loop *handshake_loops[LOOPS_MAX];
	unsigned handshake_loop_count;
	struct proxy *proxy;
	struct worker *worker;
	_Atomic int64_t worker_cert_end_ms; /* wall time; of a worker on its own */
	struct http_server *metrics_http;
	bool collecting;
};

/* --- metrics that are read on demand --- */

static void put_expiry(const char *certificate, struct wall not_after)
{
	series_set(metric_series1(METRIC_CERT_EXPIRY, certificate), (double)not_after.ms / 1000);
}

static void collect(void *arg)
{
	const struct app *a = arg;
	self_usage_collect();
	if (a->queue)
		queue_report_collect(a->queue);
	if (a->ca) {
		put_expiry("issuing_ca", ca_issuing_not_after(a->ca));
		put_expiry("root_ca", ca_root_not_after(a->ca));
	}
	if (a->proxy)
		put_expiry("ingest", proxy_cert_not_after(a->proxy));
	if (a->remote)
		put_expiry("worker", (struct wall){atomic_load(&a->worker_cert_end_ms)});
	if (app_server_address(a))
		put_expiry("server", server_cert_not_after(a->server));
}

/* --- the parts, in the order of their dependencies --- */

static int open_lock(struct app *a, const struct config *config, struct err *e)
{
	struct stat st;
	(void)config;
	if (a->mode & (APP_UP | APP_SERVER | APP_ADMIN | APP_INIT) && stat(a->paths->ca_bundle, &st) < 0)
		return err_set(e, ERR_NOT_FOUND,
			"'%s' holds no main server: run this where one is, or make one: sealpost init --data %s",
			a->data, a->data);
	return file_lock(a->paths->lock, &a->lock_fd, e);
}

static int open_ca(struct app *a, const struct config *config, struct err *e)
{
	AUTO(free_auto) char *passphrase_file = NULL;
	struct ca_options ca;
	if (home_ca_options(a->paths, config, &ca, &passphrase_file, e) < 0 || ca_open(&ca, &a->ca, e) < 0)
		return err_context(e, "certificate authority");
	memcpy(a->seen_issuer, ca_issuing_key_id(a->ca), sizeof(a->seen_issuer));
	return 0;
}

/* Lifetimes and URL anew. */
static int reload_ca(const struct app *a, const struct config *config, struct err *e)
{
	AUTO(free_auto) char *passphrase_file = NULL;
	struct ca_options ca;
	if (home_ca_options(a->paths, config, &ca, &passphrase_file, e) < 0 || ca_reload(a->ca, &ca, e) < 0)
		return err_context(e, "certificate authority");
	return 0;
}

static int open_keyring(struct app *a, const struct config *config, struct err *e)
{
	(void)config;
	return keyring_load(a->paths->keys, &a->keyring, e) < 0 ? err_context(e, "keys") : 0;
}

static int open_registry(struct app *a, const struct config *config, struct err *e)
{
	(void)config;
	return registry_new(&a->registry, e);
}

static int open_store(struct app *a, const struct config *config, struct err *e)
{
	return engines_open_store(a->paths, config, &a->store, e);
}

static int open_queue(struct app *a, const struct config *config, struct err *e)
{
	unsigned needs = a->mode & (APP_PROXY | APP_WORKER) ? QUEUE_SHARED : 0;
	if (config->spool && a->mode == APP_UP)
		return err_set(
			e, ERR_REJECT, "spool: is for a proxy on its own; this process has every role");
	/* Main server and worker may read the same configuration: it means nothing to them. */
	if (config->spool && a->mode == APP_PROXY)
		needs |= QUEUE_SPOOLED;
	return engines_open_queue(a->paths, config, needs, &a->queue, e);
}

static int open_server(struct app *a, const struct config *config, struct err *e)
{
	struct server_options o = {
		.config = config,
		.clock = &clock_system,
		.store = a->store,
		.ca = a->ca,
		.keyring = a->keyring,
		.registry = a->registry,
		.queue = a->queue,
		.health = a->context.health,
		.revocation_journal =
			config->revocation_journal ? config->revocation_journal : a->paths->revoked,
	};
	return server_open(&o, &a->server, e);
}

static int open_own_certs(struct app *a, const struct config *config, struct err *e)
{
	return own_certs_ensure(a->server, a->ca, a->paths, config, e);
}

/* One more loop into `loops`. */
static int start_loops(struct loop **loops, unsigned *count, unsigned want, const char *prefix, struct err *e)
{
	while (*count < want) {
		char name[16];
		snprintf(name, sizeof(name), "%s-%u", prefix, *count % 100);
		if (loop_start(name, &loops[*count], e) < 0)
			return -1;
		(*count)++;
	}
	return 0;
}

static int open_loops(struct app *a, const struct config *config, struct err *e)
{
	/* Half the cores: the other half syncs, delivers and shakes hands, and fewer loops mean fewer
	 * wake-ups. */
	long half = sysconf(_SC_NPROCESSORS_ONLN) / 2;
	unsigned want = config->io_threads           ? (unsigned)config->io_threads
			: half < 1                   ? 1
			: half > IO_THREADS_AUTO_MAX ? IO_THREADS_AUTO_MAX
						     : (unsigned)half;
	return start_loops(a->loops, &a->loop_count, want, "io", e);
}

static int open_handshake_loops(struct app *a, const struct config *config, struct err *e)
{
	return start_loops(a->handshake_loops, &a->handshake_loop_count, (unsigned)config->handshake_threads,
		"handshake", e);
}

/* How this process reaches a main server on another machine. */
static int client_options_from(
	const struct app *a, const struct config *config, struct client_options *ret, struct err *e)
{
	if (!config->server_url)
		return err_set(e, ERR_REJECT, "server_url is not set: where does the main server listen?");
	if (!str_starts(str_of(config->server_url), STR("https://")))
		return err_set(e, ERR_REJECT,
			"server_url: '%s' does not begin with https://, as in https://HOST:8000",
			config->server_url);
	*ret = (struct client_options){
		.url = config->server_url,
		.cert_file = a->cert_file,
		.key_file = a->key_file,
		.ca_file = a->ca_file,
		.trust_domain = config->trust_domain,
		.clock = &clock_system,
		.connect_ms = CONNECT_TIMEOUT_MS,
	};
	return 0;
}

static int open_feed(struct app *a, const struct config *config, struct err *e)
{
	struct feed_options o = {
		.registry = a->registry, .health = a->context.health, .dir = a->paths->cache};
	if (client_options_from(a, config, &o.client, e) < 0 || feed_open(&o, &a->feed, e) < 0)
		return -1;
	return upstream_new(&o.client, a->registry, &a->upstream, e);
}

static void take_sealing_key(void *proxy, const struct sealing_public *key)
{
	proxy_set_sealing_key(proxy, key);
}

static int open_proxy(struct app *a, const struct config *config, struct err *e)
{
	struct proxy_options o = {
		.config = config,
		.clock = &clock_system,
		.queue = a->queue,
		.registry = a->registry,
		.health = a->context.health,
		.cert_file = a->cert_file,
		.key_file = a->key_file,
		.ca_file = a->ca_file,
		.issuers_file = a->issuers_file,
		.listen_fd = a->sockets.ingest,
		.loops = a->loops,
		.loop_count = a->loop_count,
		.handshake_loops = a->handshake_loops,
		.handshake_loop_count = a->handshake_loop_count,
		.lookup = a->server ? server_lookup : upstream_lookup,
		.lookup_arg = a->server ? (void *)a->server : a->upstream,
		.upstream = a->upstream,
	};
	if (proxy_start(&o, &a->proxy, e) < 0)
		return -1;
	if (a->feed)
		return feed_follow(a->feed, take_sealing_key, a->proxy, e);
	struct sealing_public key;
	keyring_active(a->keyring, &key);
	proxy_set_sealing_key(a->proxy, &key);
	return 0;
}

static int open_remote(struct app *a, const struct config *config, struct err *e)
{
	struct remote_options o = {.name = a->name, .timeout_ms = config->delivery_timeout};
	struct wall cert_end;
	if (client_options_from(a, config, &o.client, e) < 0 ||
		client_check_files(&o.client, &cert_end, e) < 0)
		return -1;
	atomic_store(&a->worker_cert_end_ms, cert_end.ms);
	return remote_new(&o, &a->remote, e);
}

static int open_worker(struct app *a, const struct config *config, struct err *e)
{
	struct worker_options o = {
		.config = config,
		.clock = &clock_system,
		.queue = a->queue,
		.destination = a->server ? server_destination(a->server) : remote_destination(a->remote),
		.health = a->context.health,
		.watch_queue = !a->proxy,
		.name = a->name,
	};
	return worker_start(&o, &a->worker, e);
}

static int listen_server(struct app *a, const struct config *config, bool tls, struct err *e)
{
	struct server_listen_options o = {
		.config = config,
		.admin_socket = a->paths->admin_socket,
		.cert_file = tls ? a->server_cert_file : NULL,
		.key_file = a->server_key_file,
		.ca_file = a->ca_file,
		.ingest_address = tls ? app_ingest_address(a) : config->ingest_listen,
		.listen_fd = a->sockets.server,
		.loops = a->loops,
		.loop_count = a->loop_count,
	};
	return server_listen(a->server, &o, e);
}

static int open_server_listeners(struct app *a, const struct config *config, struct err *e)
{
	return listen_server(a, config, true, e);
}

static int open_admin_listener(struct app *a, const struct config *config, struct err *e)
{
	return listen_server(a, config, false, e);
}

/* Health and metrics as plain HTTP, for a monitor on the same machine. */
static int open_metrics_listener(struct app *a, const struct config *config, struct err *e)
{
	struct http_listen listen = {.address = config->metrics_listen, .fd = a->sockets.metrics};
	struct http_server_options o = {
		.name = "metrics",
		.listens = &listen,
		.listen_count = 1,
		.loops = a->loops,
		.loop_count = a->loop_count,
		.routes = health_routes,
		.context = &a->context,
		.clock = &clock_system,
		.answered = access_log_metrics,
	};
	limits_from_config(config, &o.limits);
	if (http_server_start(&o, &a->metrics_http, e) < 0)
		return err_context(e, "metrics_listen");
	metrics_on_collect(collect, a);
	a->collecting = true;
	return 0;
}

/* Which part belongs to which mode. The signer starts first: it must not inherit threads or open databases.
 */
static const struct part {
	unsigned modes;
	int (*open)(struct app *a, const struct config *config, struct err *e);
} parts[] = {
	{APP_UP | APP_PROXY | APP_WORKER | APP_SERVER | APP_ADMIN | APP_INIT, open_lock},
	{APP_UP | APP_SERVER | APP_ADMIN | APP_INIT, open_ca},
	{APP_UP | APP_SERVER | APP_ADMIN | APP_INIT, open_keyring},
	{APP_UP | APP_SERVER | APP_ADMIN | APP_INIT | APP_PROXY, open_registry},
	{APP_UP | APP_SERVER | APP_ADMIN | APP_INIT, open_store},
	{APP_UP | APP_SERVER | APP_ADMIN | APP_PROXY | APP_WORKER, open_queue},
	{APP_UP | APP_SERVER | APP_ADMIN | APP_INIT, open_server},
	{APP_UP | APP_SERVER | APP_INIT, open_own_certs},
	{APP_UP | APP_SERVER | APP_ADMIN | APP_PROXY | APP_WORKER, open_loops},
	{APP_UP | APP_PROXY, open_handshake_loops},
	{APP_PROXY, open_feed},
	{APP_UP | APP_PROXY, open_proxy},
	{APP_WORKER, open_remote},
	{APP_UP | APP_WORKER, open_worker},
	{APP_UP | APP_SERVER, open_server_listeners},
	{APP_ADMIN, open_admin_listener},
	{APP_UP | APP_SERVER | APP_PROXY | APP_WORKER, open_metrics_listener},
};

/* Configured, or the data directory's own. */
static char *file_or(const char *configured, char *own)
{
	if (!configured)
		return own;
	free(own);
	return strdup(configured);
}

static int name_files(struct app *a, const struct config *config, struct err *e)
{
	const char *role = a->mode == APP_WORKER ? "worker" : "proxy";
	char host[64] = "localhost";
	gethostname(host, sizeof(host) - 1);
	a->data = strdup(a->paths->data);
	a->cert_file = file_or(config->cert_file, own_cert_path(a->paths, role, "pem"));
	a->key_file = file_or(config->key_file, own_cert_path(a->paths, role, "key"));
	a->ca_file = file_or(config->ca_file, strdup(a->paths->ca_bundle));
	a->issuers_file = path_join(a->paths->cache, FEED_ISSUERS_FILE);
	a->server_cert_file = own_cert_path(a->paths, "server", "pem");
	a->server_key_file = own_cert_path(a->paths, "server", "key");
	if (asprintf(&a->name, "%.40s:%d", host, (int)getpid()) < 0)
		a->name = NULL;
	return a->data && a->cert_file && a->key_file && a->ca_file && a->issuers_file && a->name &&
			       a->server_cert_file && a->server_key_file
		       ? 0
		       : err_oom(e);
}

/* The certificates that our listeners use from now on. */
static void note_own_certs(const struct app *a)
{
	if (!(a->mode & (APP_UP | APP_SERVER)))
		return;
	own_cert_in_use(a->registry, a->server_cert_file);
	if (a->proxy)
		own_cert_in_use(a->registry, a->cert_file);
}

int app_open(const struct paths *paths, const struct config *config, enum app_mode mode, struct app **ret,
	struct err *e)
{
	return app_open_on(paths, config, mode, &APP_SOCKETS_NONE, ret, e);
}

int app_open_on(const struct paths *paths, const struct config *config, enum app_mode mode,
	const struct app_sockets *sockets, struct app **ret, struct err *e)
{
	struct app *a = calloc(1, sizeof(*a));
	if (!a)
		return err_oom(e);
	a->lock_fd = -1;
	a->mode = mode;
	a->sockets = *sockets;
	a->paths = paths;
	series_set(metric_series1(METRIC_BUILD_INFO, SEALPOST_VERSION), 1);
	metric_set(METRIC_START_TIME, (double)clock_wall(&clock_system).ms / 1000);
	int rc = name_files(a, config, e);
	if (rc >= 0)
		rc = health_new(&clock_system, &a->context.health, e);
	for (size_t i = 0; rc >= 0 && i < ARRAY_LEN(parts); i++)
		if (parts[i].modes & mode)
			rc = parts[i].open(a, config, e);
	if (rc < 0) {
		app_close(a, 0);
		return -1;
	}
	note_own_certs(a);
	app_tick(a);
	*ret = a;
	return 0;
}

const char *app_ingest_address(const struct app *a)
{
	return a->proxy ? proxy_address(a->proxy) : NULL;
}

const char *app_server_address(const struct app *a)
{
	return a->server ? server_tls_address(a->server) : NULL;
}

const char *app_crl_address(const struct app *a)
{
	return a->server ? server_crl_address(a->server) : NULL;
}

const char *app_metrics_address(const struct app *a)
{
	return a->metrics_http ? http_server_address(a->metrics_http, 0) : NULL;
}

const char *app_ca_file(const struct app *a)
{
	return a->ca_file;
}

int app_renew_certs(struct app *a, const struct config *config, struct err *e)
{
	if (!(a->mode & (APP_UP | APP_SERVER)))
		return 0;
	memcpy(a->seen_issuer, ca_issuing_key_id(a->ca), sizeof(a->seen_issuer));
	return open_own_certs(a, config, e);
}

bool app_issuer_changed(const struct app *a)
{
	return a->ca && memcmp(a->seen_issuer, ca_issuing_key_id(a->ca), sizeof(a->seen_issuer)) != 0;
}

void app_tick(struct app *a)
{
	struct statvfs fs;
	if (a->queue)
		queue_report_log(&a->queue_report, a->queue);
	if (a->server)
		server_tick(a->server);
	if (statvfs(a->data, &fs) < 0)
		return;
	int64_t free_bytes = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
	metric_set(METRIC_DISK_FREE, (double)free_bytes);
	if (a->proxy)
		proxy_set_disk_free(a->proxy, free_bytes);
}

bool app_ready(const struct app *a)
{
	return health_ready(a->context.health, NULL);
}

static void answer_pulse(struct task *task)
{
	atomic_store(&container_of(task, struct pulse, task)->asked, false);
}

bool app_alive(struct app *a)
{
	bool alive = true;
	for (unsigned i = 0; i < a->loop_count; i++) {
		struct pulse *pulse = &a->pulses[i];
		if (atomic_exchange(&pulse->asked, true)) {
			alive = false;
			continue;
		}
		pulse->task.run = answer_pulse;
		inbox_push(loop_inbox(a->loops[i]), &pulse->task);
	}
	return alive;
}

void app_watch_files(const struct app *a, struct watch *w)
{
	if (a->proxy || a->remote) {
		watch_add(w, a->cert_file);
		watch_add(w, a->key_file);
	}
	if (app_server_address(a)) {
		watch_add(w, a->server_cert_file);
		watch_add(w, a->server_key_file);
	}
	if (a->proxy || a->remote || a->server)
		watch_add(w, a->ca_file);
	if (a->feed)
		watch_add(w, a->issuers_file);
}

static int check_client_files(
	const struct app *a, const struct config *config, struct wall *ret_cert_end, struct err *e)
{
	struct client_options client;
	return client_options_from(a, config, &client, e) < 0 ? -1
							      : client_check_files(&client, ret_cert_end, e);
}

/* Connections to the main server are made anew, with the files as they are now. */
static void reload_clients(struct app *a, struct wall cert_end)
{
	if (a->remote) {
		remote_reload(a->remote);
		atomic_store(&a->worker_cert_end_ms, cert_end.ms);
	}
	if (a->feed)
		feed_reload(a->feed);
	if (a->upstream)
		upstream_reload(a->upstream);
}

int app_reload(struct app *a, const struct config *config, struct err *e)
{
	struct wall cert_end = {0};
	if ((a->mode & (APP_PROXY | APP_WORKER) && check_client_files(a, config, &cert_end, e) < 0) ||
		(a->ca && reload_ca(a, config, e) < 0) || (a->proxy && proxy_reload_certs(a->proxy, e) < 0) ||
		(a->server && server_reload_certs(a->server, e) < 0) ||
		(a->proxy && proxy_reload(a->proxy, config, e) < 0) ||
		(a->worker && worker_reload(a->worker, config, e) < 0))
		return -1;
	note_own_certs(a);
	reload_clients(a, cert_end);
	if (a->server)
		server_reload(a->server, config);
	if (a->metrics_http) {
		struct http_limits limits;
		limits_from_config(config, &limits);
		http_server_set_limits(a->metrics_http, &limits);
	}
	return 0;
}

/* Clients first: what they were told must be kept; then deliveries under way; then everybody else. */
static void drain(struct app *a, int64_t drain_ms)
{
	if (a->context.health)
		health_set_draining(a->context.health);
	if (a->proxy)
		proxy_drain(a->proxy, drain_ms);
	worker_stop(a->worker, drain_ms);
	if (a->server)
		server_drain(a->server, drain_ms);
	if (a->metrics_http)
		http_server_drain(a->metrics_http, drain_ms);
	if (a->collecting)
		metrics_off_collect(collect, a);
}

void app_close(struct app *a, int64_t drain_ms)
{
	if (!a)
		return;
	drain(a, drain_ms);
	http_server_free(a->metrics_http);
	feed_close(a->feed);
	proxy_free(a->proxy);
	upstream_free(a->upstream);
	remote_free(a->remote);
	server_close(a->server);
	for (unsigned i = 0; i < a->handshake_loop_count; i++)
		loop_stop(a->handshake_loops[i]);
	for (unsigned i = 0; i < a->loop_count; i++)
		loop_stop(a->loops[i]);
	queue_close(a->queue);
	store_close(a->store);
	registry_free(a->registry);
	keyring_free(a->keyring);
	ca_close(a->ca);
	health_free(a->context.health);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
	free(a->data);
	free(a->cert_file);
	free(a->key_file);
	free(a->ca_file);
	free(a->issuers_file);
	free(a->server_cert_file);
	free(a->server_key_file);
	free(a->name);
	free(a);
}
