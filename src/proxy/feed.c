/* feed.c - see feed.h. */
#include "proxy/feed.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proxy/copy.h"
#include "role/wire.h"
#include "tls/openssl.h"

enum {
	POLL_TIMEOUT_MS = 45000, /* the server answers after 30 s at the latest */
	CALL_TIMEOUT_MS = 10000,
	KEY_REFRESH_MS = 60000,
	PAUSE_FIRST_MS = 100,
	PAUSE_MAX_MS = 5000,
	KEY_FILE_BYTES = 4096,
	ISSUERS_BYTES = 64 * 1024,
	PAGE_ARENA_BYTES = 16 * 1024 * 1024,
	PRUNE_MS = 60 * 60 * 1000,
	/* Expired certificates are kept a day longer: a clock that is set back then does no harm. */
	PRUNE_GRACE_MS = 24 * 60 * 60 * 1000,
};

struct feed {
	const struct clock *clock;
	struct registry *registry;
	struct health *health;
	feed_set_key *set_key;
	void *set_key_arg;
	struct client *client;
	struct copy *copy;
	char *key_path, *issuers_path;
	bool has_key;
	struct sealing_public key;
	struct mono key_asked_at, pruned_at; /* .ns == 0: not yet */

	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t wakeup;
	bool stopping, reached;
	bool lost; /* the log has said that it is not reached */
	char trouble[200];
	struct wall confirmed_at; /* .ms == 0: not known */
};

/* --- the key on disk --- */

static void read_key(struct feed *f)
{
	AUTO(buf_auto) struct buf text;
	AUTO(json_auto) json_t *in = NULL;
	buf_init(&text, KEY_FILE_BYTES);
	f->has_key = file_read(f->key_path, KEY_FILE_BYTES, &text, NULL) == 0 &&
		     json_read(buf_str(&text), &in, NULL) == 0 &&
		     wire_take_key(json_object_get(in, "active"), &f->key, NULL) == 0;
}

/* --- following the main server --- */

/* Writes down which issuing CAs there are, where that has changed; the listener reads them when it sees the file change.
 * Only what can be read later is written. */
static int keep_issuers(struct feed *f, struct str pem, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = NULL;
	AUTO(buf_auto) struct buf known;
	struct err ignored = ERR_INIT;
	buf_init(&known, ISSUERS_BYTES);
	if (pem.n == 0 || (file_read(f->issuers_path, ISSUERS_BYTES, &known, &ignored) == 0 &&
				  str_eq(buf_str(&known), pem)))
		return 0;
	if (x509_read_pem(pem, &certs, e) < 0)
		return err_context(e, "the main server's CA certificates");
	return file_replace(f->issuers_path, 0644, pem, e);
}

static int take_key(struct feed *f, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(buf_auto) struct buf text;
	struct sealing_public key;
	buf_init(&text, KEY_FILE_BYTES);
	if (client_call(f->client, "GET", "/internal/sealing-keys", (struct str){"", 0}, CALL_TIMEOUT_MS,
		    &answer, e) < 0 ||
		wire_take_key(json_object_get(answer, "active"), &key, e) < 0)
		return -1;
	if (keep_issuers(f, str_of(json_string_value(json_object_get(answer, "ca_pem"))), e) < 0)
		return -1;
	f->key_asked_at = clock_mono(f->clock);
	if (f->has_key && memcmp(&key, &f->key, sizeof(key)) == 0)
		return 0;
	struct json_out w = json_out_to(&text);
	json_open_object(&w, NULL);
	wire_put_key(&w, "active", &key);
	json_close_object(&w);
	if (buf_check(&text, e) < 0 || file_replace(f->key_path, 0600, buf_str(&text), e) < 0)
		return -1;
	f->key = key;
	f->has_key = true;
	f->set_key(f->set_key_arg, &key);
	return 0;
}

/* "epoch" and "change" of an answer. */
static int take_mark(const json_t *answer, struct copy_mark *ret, struct err *e)
{
	const char *epoch = json_string_value(json_object_get(answer, "epoch"));
	const json_t *change = json_object_get(answer, "change");
	if (!epoch || !*epoch || strlen(epoch) > COPY_EPOCH_BYTES || !json_is_integer(change) ||
		json_integer_value(change) < 0)
		return err_set(e, ERR_REJECT, "the main server's answer has no epoch or no change number");
	snprintf(ret->epoch, sizeof(ret->epoch), "%s", epoch);
	ret->change = json_integer_value(change);
	return 0;
}

static int take_rows(const json_t *answer, struct arena *arena, struct registry_row **ret, size_t *ret_count,
	struct err *e)
{
	const json_t *list = json_object_get(answer, "certificates");
	size_t count = json_array_size(list);
	struct registry_row *rows = arena_alloc(arena, (count + 1) * sizeof(*rows));
	if (!rows)
		return err_oom(e);
	for (size_t i = 0; i < count; i++)
		if (wire_take_row(json_array_get(list, i), arena, &rows[i], e) < 0)
			return err_context(e, "row %zu of the registry", i);
	*ret = rows;
	*ret_count = count;
	return 0;
}

/* The main server has restarted, or an older store has been put in its place: it has sent its first page. */
static void note_resync(const struct copy_mark *before, const struct copy_mark *now)
{
	if (!before->epoch[0] || strcmp(before->epoch, now->epoch) == 0)
		return;
	metric_add(METRIC_FEED_RESYNCS, 1);
	log_event(LOG_INFO, "feed.resync", LF_INT("change", before->change));
}

/* One long poll. The rows take effect before they are written down: a full disk must not keep a revocation
 * from being obeyed. */
static int take_changes(struct feed *f, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(arena_auto) struct arena arena;
	const struct copy_mark *seen = copy_mark(f->copy);
	struct copy_mark mark;
	struct registry_row *rows = NULL;
	size_t count = 0;
	char path[128];
	arena_init(&arena, PAGE_ARENA_BYTES);
	snprintf(path, sizeof(path), "/internal/revocations?after=%lld%s%s", (long long)seen->change,
		seen->epoch[0] ? "&epoch=" : "", seen->epoch);
	if (client_call(f->client, "GET", path, (struct str){"", 0}, POLL_TIMEOUT_MS, &answer, e) < 0 ||
		take_mark(answer, &mark, e) < 0 || take_rows(answer, &arena, &rows, &count, e) < 0)
		return -1;
	note_resync(seen, &mark);
	if (count && registry_merge(f->registry, rows, count, e) < 0)
		return -1;
	return copy_add(f->copy, rows, count, &mark, e);
}

/* Certificates that have ended are of no more use. */
static int prune(struct feed *f, struct err *e)
{
	struct mono now = clock_mono(f->clock);
	if (f->pruned_at.ns && mono_diff_ms(now, f->pruned_at) < PRUNE_MS)
		return 0;
	f->pruned_at = now;
	return registry_prune(f->registry, (struct wall){clock_wall(f->clock).ms - PRUNE_GRACE_MS}, e);
}

static void note_outcome(struct feed *f, int rc, const struct err *e)
{
	pthread_mutex_lock(&f->lock);
	bool was_reached = f->reached, was_lost = f->lost, stopping = f->stopping;
	f->reached = rc >= 0;
	f->lost = rc < 0;
	if (rc >= 0)
		f->confirmed_at = clock_wall(f->clock);
	snprintf(f->trouble, sizeof(f->trouble), "%.199s", rc < 0 ? e->text : "");
	pthread_mutex_unlock(&f->lock);
	if (stopping)
		return;
	if (!was_lost && rc < 0)
		log_event(LOG_WARN, "feed.lost", LF_ERR(e));
	else if (!was_reached && rc >= 0)
		log_event(LOG_INFO, "feed.followed", LF_INT("change", copy_mark(f->copy)->change));
}

static bool wait_a_little(struct feed *f, int64_t ms)
{
	struct timespec until = mono_timespec(mono_add_ms(clock_mono(&clock_system), ms));
	pthread_mutex_lock(&f->lock);
	while (ms && !f->stopping && pthread_cond_timedwait(&f->wakeup, &f->lock, &until) == 0)
		;
	bool go_on = !f->stopping;
	pthread_mutex_unlock(&f->lock);
	return go_on;
}

static void *follow(void *arg)
{
	struct feed *f = arg;
	int64_t pause_ms = 0;
	while (wait_a_little(f, pause_ms)) {
		struct err e = ERR_INIT;
		int rc = 0;
		struct mono now = clock_mono(f->clock);
		if (!f->key_asked_at.ns || mono_diff_ms(now, f->key_asked_at) >= KEY_REFRESH_MS)
			rc = take_key(f, &e);
		if (rc >= 0)
			rc = take_changes(f, &e);
		if (rc >= 0)
			rc = prune(f, &e);
		note_outcome(f, rc, &e);
		pause_ms = rc >= 0 ? 0 : pause_ms ? pause_ms * 2 : PAUSE_FIRST_MS;
		if (pause_ms > PAUSE_MAX_MS)
			pause_ms = PAUSE_MAX_MS;
	}
	return NULL;
}

/* How old the list of certificates is; -1: not known. Under the lock. */
static int64_t age_ms(const struct feed *f)
{
	int64_t age = clock_wall(f->clock).ms - f->confirmed_at.ms;
	return !f->confirmed_at.ms ? -1 : age > 0 ? age : 0;
}

static void check_main_server(void *arg, struct health_report *ret)
{
	struct feed *f = arg;
	pthread_mutex_lock(&f->lock);
	int64_t age_s = age_ms(f) / 1000;
	if (f->reached) {
		snprintf(ret->detail, sizeof(ret->detail), "list of certificates confirmed %lld s ago",
			(long long)age_s);
	} else {
		ret->status = HEALTH_DEGRADED;
		if (f->confirmed_at.ms)
			snprintf(ret->detail, sizeof(ret->detail),
				"working with the last known key and list of certificates, confirmed %lld s ago; %s",
				(long long)age_s, f->trouble);
		else
			snprintf(ret->detail, sizeof(ret->detail),
				"no confirmed list of certificates yet; %s", f->trouble);
	}
	pthread_mutex_unlock(&f->lock);
}

static void collect(void *arg)
{
	struct feed *f = arg;
	pthread_mutex_lock(&f->lock);
	int64_t age = age_ms(f);
	metric_set(METRIC_FEED_AGE, age < 0 ? -1 : (double)age / 1000);
	pthread_mutex_unlock(&f->lock);
}

/* --- opening and closing --- */

static int open_copy(struct feed *f, const char *dir, struct err *e)
{
	AUTO(free_auto) char *path = path_join(dir, "registry.log");
	size_t damaged;
	if (!path)
		return err_oom(e);
	if (copy_open(path, f->registry, &f->copy, &damaged, e) < 0)
		return -1;
	f->confirmed_at = copy_confirmed_at(f->copy);
	if (damaged) {
		metric_add(METRIC_FEED_RESYNCS, 1);
		log_event(LOG_ERROR, "feed.copy_damaged", LF_STR("path", path), LF_UINT("lines", damaged));
	}
	return 0;
}

int feed_open(const struct feed_options *o, struct feed **ret, struct err *e)
{
	struct feed *f = calloc(1, sizeof(*f));
	if (!f)
		return err_oom(e);
	f->clock = o->client.clock;
	f->registry = o->registry;
	f->health = o->health;
	pthread_mutex_init(&f->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->wakeup, &attr);
	pthread_condattr_destroy(&attr);
	f->key_path = path_join(o->dir, "sealing.json");
	f->issuers_path = path_join(o->dir, FEED_ISSUERS_FILE);
	int rc = f->key_path && f->issuers_path ? dir_make(o->dir, 0700, e) : err_oom(e);
	if (rc >= 0)
		rc = client_new(&o->client, &f->client, e);
	if (rc >= 0)
		rc = open_copy(f, o->dir, e);
	if (rc < 0) {
		feed_close(f);
		return -1;
	}
	read_key(f);
	health_add(o->health, "main_server", false, check_main_server, f);
	metrics_on_collect(collect, f);
	*ret = f;
	return 0;
}

int feed_follow(struct feed *f, feed_set_key *set_key, void *arg, struct err *e)
{
	f->set_key = set_key;
	f->set_key_arg = arg;
	if (f->has_key)
		set_key(arg, &f->key);
	errno = pthread_create(&f->thread, NULL, follow, f);
	if (errno)
		return err_sys(e, ERR_RETRY, "start the feed's thread");
	pthread_setname_np(f->thread, "feed");
	f->running = true;
	return 0;
}

void feed_reload(struct feed *f)
{
	client_reload(f->client);
}

void feed_close(struct feed *f)
{
	if (!f)
		return;
	health_remove(f->health, f);
	metrics_off_collect(collect, f);
	pthread_mutex_lock(&f->lock);
	f->stopping = true;
	pthread_cond_signal(&f->wakeup);
	pthread_mutex_unlock(&f->lock);
	if (f->running) {
		client_cancel(f->client);
		pthread_join(f->thread, NULL);
	}
	client_free(f->client);
	copy_close(f->copy);
	pthread_cond_destroy(&f->wakeup);
	pthread_mutex_destroy(&f->lock);
	free(f->key_path);
	free(f->issuers_path);
	free(f);
}
