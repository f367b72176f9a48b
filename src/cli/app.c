/* app.c - see app.h. Parts are opened in the order of their dependencies and closed in the reverse; app_close
 * copes with any prefix of that order, so that a failure at any step unwinds by itself. */
#include "cli/app.h"

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
#include "cli/own_certs.h"
#include "loop/loop.h"
#include "proxy/proxy.h"
#include "queue/driver.h"
#include "role/version.h"
#include "server/server.h"
#include "store/driver.h"
#include "worker/worker.h"

enum { LOOPS_MAX = 64, IO_THREADS_AUTO_MAX = 8, STORE_LIMIT = 4096, STORE_GROUP = 64 };

struct app {
	int lock_fd;
	char *data;
	struct ca *ca;
	struct keyring *keyring;
	struct registry *registry;
	struct store *store;
	struct queue *queue;
	struct health *health;
	struct server *server;
	struct loop *loops[LOOPS_MAX];
	unsigned loop_count;
	struct loop *handshake_loops[LOOPS_MAX];
	unsigned handshake_loop_count;
	struct proxy *proxy;
	struct worker *worker;
};

/* --- metrics that are read on demand --- */

static void observe_queue(void *arg, unsigned ops, int64_t commit_ns)
{
	(void)arg;
	metric_observe(METRIC_GROUP_SIZE, ops);
	metric_observe(METRIC_COMMIT_SECONDS, (uint64_t)commit_ns);
}

static void observe_store(void *arg, unsigned ops, int64_t commit_ns)
{
	(void)arg;
	metric_observe(METRIC_STORE_GROUP_SIZE, ops);
	metric_observe(METRIC_STORE_COMMIT_SECONDS, (uint64_t)commit_ns);
}

static void collect(void *arg)
{
	const struct app *a = arg;
	struct queue_glance glance;
	queue_glance(a->queue, &glance);
	series_set(metric_series1(METRIC_QUEUE_MESSAGES, message_state_name(MESSAGE_QUEUED)),
		(double)glance.queued);
	series_set(metric_series1(METRIC_QUEUE_MESSAGES, message_state_name(MESSAGE_PROCESSING)),
		(double)glance.processing);
	series_set(metric_series1(METRIC_QUEUE_MESSAGES, message_state_name(MESSAGE_FAILED)),
		(double)glance.failed);
	metric_set(METRIC_QUEUE_WAITING, glance.group.waiting);
	int64_t oldest_ms = glance.oldest_accepted_at.ms;
	metric_set(METRIC_QUEUE_OLDEST,
		oldest_ms ? (double)(clock_wall(&clock_system).ms - oldest_ms) / 1000 : 0);
	series_set(metric_series1(METRIC_CERT_EXPIRY, "issuing_ca"),
		(double)ca_issuing_not_after(a->ca).ms / 1000);
	series_set(metric_series1(METRIC_CERT_EXPIRY, "root_ca"), (double)ca_root_not_after(a->ca).ms / 1000);
	if (a->proxy)
		series_set(metric_series1(METRIC_CERT_EXPIRY, "ingest"),
			(double)proxy_cert_not_after(a->proxy).ms / 1000);
}

/* --- what init makes --- */

static const char config_template[] =
	"# Configuration of Sealpost. `sealpost config reference` explains every option,\n"
	"# `sealpost config show` prints what is in force and where it comes from.\n"
	"#\n"
	"# ingest_listen: 0.0.0.0:8001     # let other machines in\n"
	"# tls_names: broker.example.com   # and name this one in its certificate\n";

static void ca_options_from(const struct paths *paths, const struct config *config, struct ca_options *ret)
{
	*ret = (struct ca_options){
		.dir = paths->ca,
		.trust_domain = config->trust_domain,
		.clock = &clock_system,
		.backdate_ms = 5 * 60 * 1000,
		.max_days = config->cert_days_max,
	};
}

static int make_directories(const struct paths *paths, struct err *e)
{
	const char *const all[] = {
		paths->data, paths->ca, paths->keys, paths->tls, paths->queue, paths->store};
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (dir_make(all[i], 0700, e) < 0)
			return -1;
	return 0;
}

int app_init(const struct paths *paths, const struct config *config, struct err *e)
{
	AUTO(fd_auto) int lock_fd = -1;
	struct ca_options ca;
	struct stat st;
	ca_options_from(paths, config, &ca);
	if (make_directories(paths, e) < 0 || file_lock(paths->lock, &lock_fd, e) < 0)
		return -1;
	if (stat(paths->config, &st) < 0 && file_replace(paths->config, 0600, str_of(config_template), e) < 0)
		return -1;
	return ca_init(&ca, e) < 0 || keyring_init(paths->keys, &clock_system, e) < 0 ? -1 : 0;
}

/* --- opening, in the order of dependencies --- */

static int open_engines(struct app *a, const struct paths *paths, const struct config *config, struct err *e)
{
	static const char *const store_drivers[] = {"sqlite", "mysql", "memory"};
	static const char *const queue_drivers[] = {"sqlite", "redis", "memory"};
	struct store_options store = {
		.driver = store_driver_find(store_drivers[config->store_driver]),
		.location = paths->store,
		.clock = &clock_system,
		.write_limit = STORE_LIMIT,
		.group_max = STORE_GROUP,
		.observe = observe_store,
	};
	struct queue_options queue = {
		.driver = queue_driver_find(queue_drivers[config->queue_driver]),
		.location = paths->queue,
		.clock = &clock_system,
		.put_limit = (unsigned)config->queue_waiting_max,
		.group_max = (unsigned)config->queue_group_max,
		.idempotency_ms = config->idempotency_keep,
		.observe = observe_queue,
	};
	if (!store.driver)
		return err_set(e, ERR_FATAL, "this build has no store driver '%s'",
			store_drivers[config->store_driver]);
	if (!queue.driver)
		return err_set(e, ERR_FATAL, "this build has no queue driver '%s'",
			queue_drivers[config->queue_driver]);
	if (store_open(&store, &a->store, e) < 0)
		return err_context(e, "store");
	if (queue_open(&queue, &a->queue, e) < 0)
		return err_context(e, "queue");
	return 0;
}

static int open_keys(struct app *a, const struct paths *paths, const struct config *config, struct err *e)
{
	struct ca_options ca;
	ca_options_from(paths, config, &ca);
	/* The signer first: it is forked, and must not inherit threads or open databases. */
	if (ca_open(&ca, &a->ca, e) < 0)
		return err_context(e, "certificate authority");
	if (keyring_load(paths->keys, &a->keyring, e) < 0)
		return err_context(e, "keys");
	return registry_new(&a->registry, e);
}

static int start_loops(struct loop **loops, unsigned *count, unsigned want, const char *prefix, struct err *e)
{
	for (unsigned i = 0; i < want; i++) {
		char name[16];
		snprintf(name, sizeof(name), "%s-%u", prefix, i % 100);
		if (loop_start(name, &loops[i], e) < 0)
			return -1;
		*count = i + 1;
	}
	return 0;
}

static unsigned io_thread_count(const struct config *config)
{
	if (config->io_threads)
		return (unsigned)config->io_threads;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	return cores < 1 ? 1 : cores > IO_THREADS_AUTO_MAX ? IO_THREADS_AUTO_MAX : (unsigned)cores;
}

static int open_proxy(struct app *a, const struct paths *paths, const struct config *config, struct err *e)
{
	AUTO(free_auto) char *cert = own_cert_path(paths, "proxy", "pem");
	AUTO(free_auto) char *key = own_cert_path(paths, "proxy", "key");
	if (!cert || !key)
		return err_oom(e);
	struct proxy_options proxy = {
		.config = config,
		.clock = &clock_system,
		.queue = a->queue,
		.registry = a->registry,
		.health = a->health,
		.cert_file = cert,
		.key_file = key,
		.ca_file = paths->ca_bundle,
		.loops = a->loops,
		.loop_count = a->loop_count,
		.handshake_loops = a->handshake_loops,
		.handshake_loop_count = a->handshake_loop_count,
		.lookup = server_lookup,
		.lookup_arg = a->server,
	};
	if (proxy_start(&proxy, &a->proxy, e) < 0)
		return -1;
	struct sealing_public sealing_key;
	keyring_active(a->keyring, &sealing_key);
	proxy_set_sealing_key(a->proxy, &sealing_key);
	return 0;
}

static int open_worker(struct app *a, const struct config *config, struct err *e)
{
	char host[64] = "localhost", name[96];
	gethostname(host, sizeof(host) - 1);
	snprintf(name, sizeof(name), "%.40s:%d", host, (int)getpid());
	struct worker_options worker = {
		.config = config,
		.clock = &clock_system,
		.queue = a->queue,
		.destination = server_destination(a->server),
		.health = a->health,
		.name = name,
	};
	return worker_start(&worker, &a->worker, e);
}

static int open_listeners(
	struct app *a, const struct paths *paths, const struct config *config, unsigned parts, struct err *e)
{
	AUTO(free_auto) char *cert = own_cert_path(paths, "server", "pem");
	AUTO(free_auto) char *key = own_cert_path(paths, "server", "key");
	if (!cert || !key)
		return err_oom(e);
	struct server_listen_options listen = {
		.config = config,
		.admin_socket = parts & APP_ADMIN ? paths->admin_socket : NULL,
		.cert_file = parts & APP_TLS ? cert : NULL,
		.key_file = key,
		.ca_file = paths->ca_bundle,
		.metrics_listen = parts & APP_TLS ? config->metrics_listen : NULL,
		.loops = a->loops,
		.loop_count = a->loop_count,
	};
	return server_listen(a->server, &listen, e);
}

static int open_roles(
	struct app *a, const struct paths *paths, const struct config *config, unsigned parts, struct err *e)
{
	struct server_options server = {
		.config = config,
		.clock = &clock_system,
		.store = a->store,
		.ca = a->ca,
		.keyring = a->keyring,
		.registry = a->registry,
		.queue = a->queue,
		.health = a->health,
	};
	if (server_open(&server, &a->server, e) < 0)
		return -1;
	if (own_certs_ensure(a->server, a->ca, paths, config, e) < 0)
		return -1;
	if (start_loops(a->loops, &a->loop_count, io_thread_count(config), "io", e) < 0)
		return -1;
	if (parts & APP_INGEST) {
		if (start_loops(a->handshake_loops, &a->handshake_loop_count,
			    (unsigned)config->handshake_threads, "handshake", e) < 0 ||
			open_proxy(a, paths, config, e) < 0)
			return -1;
		metrics_on_collect(collect, a);
	}
	if (parts & APP_DELIVERY && open_worker(a, config, e) < 0)
		return -1;
	return parts & (APP_ADMIN | APP_TLS) ? open_listeners(a, paths, config, parts, e) : 0;
}

int app_open(const struct paths *paths, const struct config *config, unsigned parts, struct app **ret,
	struct err *e)
{
	struct stat st;
	if (stat(paths->ca_bundle, &st) < 0)
		return err_set(e, ERR_NOT_FOUND, "'%s' is not initialised; run: sealpost init --data %s",
			paths->data, paths->data);
	struct app *a = calloc(1, sizeof(*a));
	if (!a)
		return err_oom(e);
	a->lock_fd = -1;
	series_set(metric_series1(METRIC_BUILD_INFO, SEALPOST_VERSION), 1);
	metric_set(METRIC_START_TIME, (double)clock_wall(&clock_system).ms / 1000);
	a->data = strdup(paths->data);
	int rc = a->data ? file_lock(paths->lock, &a->lock_fd, e) : err_oom(e);
	if (rc >= 0)
		rc = health_new(&clock_system, &a->health, e);
	if (rc >= 0)
		rc = open_keys(a, paths, config, e);
	if (rc >= 0)
		rc = open_engines(a, paths, config, e);
	if (rc >= 0)
		rc = open_roles(a, paths, config, parts, e);
	if (rc < 0) {
		app_close(a, 0);
		return -1;
	}
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
	return server_tls_address(a->server);
}

const char *app_metrics_address(const struct app *a)
{
	return server_metrics_address(a->server);
}

void app_tick(struct app *a)
{
	struct statvfs fs;
	server_tick(a->server);
	if (statvfs(a->data, &fs) < 0)
		return;
	int64_t free_bytes = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
	metric_set(METRIC_DISK_FREE, (double)free_bytes);
	if (a->proxy)
		proxy_set_disk_free(a->proxy, free_bytes);
}

int app_reload(struct app *a, const struct config *config, struct err *e)
{
	if (a->worker)
		worker_reload(a->worker, config);
	if (a->proxy && proxy_reload(a->proxy, config, e) < 0)
		return -1;
	return server_reload(a->server, config, e);
}

void app_close(struct app *a, int64_t drain_ms)
{
	if (!a)
		return;
	if (a->health)
		health_set_draining(a->health);
	if (a->proxy)
		proxy_drain(a->proxy, drain_ms);
	worker_stop(a->worker);
	if (a->server)
		server_drain(a->server, drain_ms);
	if (a->proxy)
		metrics_off_collect(collect, a);
	proxy_free(a->proxy);
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
	health_free(a->health);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
	free(a->data);
	free(a);
}
