/* feed.c - see feed.h. */
#include "proxy/feed.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "role/wire.h"

enum {
	POLL_TIMEOUT_MS = 45000, /* the server answers after 30 s at the latest */
	CALL_TIMEOUT_MS = 10000,
	KEY_REFRESH_MS = 60000,
	PAUSE_FIRST_MS = 100,
	PAUSE_MAX_MS = 5000,
	LOG_BYTES = 512 * 1024 * 1024,
	KEY_FILE_BYTES = 4096,
	PAGE_ARENA_BYTES = 16 * 1024 * 1024,
	COMPACT_MIN_LINES = 10000,
};

struct feed {
	const struct clock *clock;
	struct registry *registry;
	struct health *health;
	struct proxy *proxy;
	struct client *client;
	char *log_path, *key_path;
	int log_fd;
	size_t log_lines;
	bool log_behind; /* rows are in force that it does not have, and its last line may be torn */
	bool has_key;
	struct sealing_public key;
	struct mono key_asked_at;

	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t wakeup;
	bool stopping, reached;
	char trouble[200];
};

/* --- the copy on disk --- */

/* Applies one line; false when it is not whole. */
static bool replay_line(struct feed *f, struct str line, struct arena *arena)
{
	AUTO(json_auto) json_t *in = NULL;
	struct registry_row row;
	arena_reset(arena);
	return json_read(line, &in, NULL) == 0 && wire_take_row(in, arena, &row, NULL) == 0 &&
	       registry_apply(f->registry, &row, 1, NULL) == 0;
}

/* Reads the log; what follows the last whole line is cut off. */
static int replay_log(struct feed *f, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	AUTO(arena_auto) struct arena arena;
	buf_init(&text, LOG_BYTES);
	arena_init(&arena, PAGE_ARENA_BYTES);
	struct err why = ERR_INIT;
	if (file_read(f->log_path, LOG_BYTES, &text, &why) < 0 && why.kind != ERR_NOT_FOUND) {
		*e = why;
		return -1;
	}
	struct str rest = buf_str(&text), line;
	size_t whole = 0;
	while (str_cut(&rest, '\n', &line) && replay_line(f, line, &arena)) {
		whole = (size_t)(rest.p - text.p);
		f->log_lines++;
	}
	f->log_fd = open(f->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (f->log_fd < 0)
		return err_sys(e, ERR_FATAL, "open '%s'", f->log_path);
	if (whole < text.n && ftruncate(f->log_fd, (off_t)whole) < 0)
		return err_sys(e, ERR_FATAL, "truncate '%s'", f->log_path);
	return 0;
}

static int write_rows(struct feed *f, const struct registry_row *rows, size_t count, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, PAGE_ARENA_BYTES);
	for (size_t i = 0; i < count; i++) {
		struct json_out w = json_out_to(&text);
		wire_put_row(&w, &rows[i]);
		buf_add_char(&text, '\n');
	}
	if (buf_check(&text, e) < 0)
		return -1;
	for (size_t done = 0; done < text.n;) {
		ssize_t n = write(f->log_fd, text.p + done, text.n - done);
		if (n < 0)
			return err_sys(e, ERR_RETRY, "write '%s'", f->log_path);
		done += (size_t)n;
	}
	if (fdatasync(f->log_fd) < 0)
		return err_sys(e, ERR_RETRY, "sync '%s'", f->log_path);
	f->log_lines += count;
	return 0;
}

static void add_line(void *arg, const struct registry_row *row)
{
	struct buf *text = arg;
	struct json_out w = json_out_to(text);
	wire_put_row(&w, row);
	buf_add_char(text, '\n');
}

/* Writes the log anew, one line a certificate. */
static int rewrite_log(struct feed *f, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, LOG_BYTES);
	registry_each(f->registry, add_line, &text);
	if (buf_check(&text, e) < 0 || file_replace(f->log_path, 0600, buf_str(&text), e) < 0)
		return -1;
	int fd = open(f->log_path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, ERR_RETRY, "open '%s'", f->log_path);
	close(f->log_fd);
	f->log_fd = fd;
	f->log_lines = registry_count(f->registry);
	f->log_behind = false;
	return 0;
}

/* Writes down what is in force already. */
static int keep_rows(struct feed *f, const struct registry_row *rows, size_t count, struct err *e)
{
	if (!f->log_behind && write_rows(f, rows, count, e) < 0) {
		f->log_behind = true;
		return -1;
	}
	bool grown = f->log_lines >= COMPACT_MIN_LINES && f->log_lines >= 2 * registry_count(f->registry);
	return f->log_behind || grown ? rewrite_log(f, e) : 0;
}

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
	proxy_set_sealing_key(f->proxy, &key);
	return 0;
}

/* One long poll. The rows take effect at once; when they cannot be written down, the whole log is written
 * anew after the next one. */
static int take_changes(struct feed *f, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(arena_auto) struct arena arena;
	char path[64];
	arena_init(&arena, PAGE_ARENA_BYTES);
	snprintf(path, sizeof(path), "/internal/revocations?after=%lld",
		(long long)registry_change(f->registry));
	if (client_call(f->client, "GET", path, (struct str){"", 0}, POLL_TIMEOUT_MS, &answer, e) < 0)
		return -1;
	const json_t *list = json_object_get(answer, "certificates");
	size_t count = json_array_size(list);
	if (!count)
		return f->log_behind ? rewrite_log(f, e) : 0;
	struct registry_row *rows = arena_alloc(&arena, count * sizeof(*rows));
	if (!rows)
		return err_oom(e);
	for (size_t i = 0; i < count; i++)
		if (wire_take_row(json_array_get(list, i), &arena, &rows[i], e) < 0)
			return err_context(e, "row %zu of the registry", i);
	if (registry_apply(f->registry, rows, count, e) < 0)
		return -1;
	return keep_rows(f, rows, count, e);
}

static void note_outcome(struct feed *f, int rc, const struct err *e)
{
	pthread_mutex_lock(&f->lock);
	bool was_reached = f->reached, stopping = f->stopping;
	f->reached = rc >= 0;
	snprintf(f->trouble, sizeof(f->trouble), "%.199s", rc < 0 ? e->text : "");
	pthread_mutex_unlock(&f->lock);
	if (stopping)
		return;
	if (was_reached && rc < 0)
		log_event(LOG_WARN, "feed.lost", LF_ERR(e));
	else if (!was_reached && rc >= 0)
		log_event(LOG_INFO, "feed.followed", LF_INT("change", registry_change(f->registry)));
}

static bool wait_a_little(struct feed *f, int64_t ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t ns = until.tv_nsec + ms * 1000000;
	until.tv_sec += ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
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
		note_outcome(f, rc, &e);
		pause_ms = rc >= 0 ? 0 : pause_ms ? pause_ms * 2 : PAUSE_FIRST_MS;
		if (pause_ms > PAUSE_MAX_MS)
			pause_ms = PAUSE_MAX_MS;
	}
	return NULL;
}

static void check_main_server(void *arg, struct health_report *ret)
{
	struct feed *f = arg;
	pthread_mutex_lock(&f->lock);
	if (!f->reached) {
		ret->status = HEALTH_DEGRADED;
		snprintf(ret->detail, sizeof(ret->detail),
			"working with the last known certificates and key; %.140s", f->trouble);
	}
	pthread_mutex_unlock(&f->lock);
}

/* --- opening and closing --- */

int feed_open(const struct feed_options *o, struct feed **ret, struct err *e)
{
	struct feed *f = calloc(1, sizeof(*f));
	if (!f)
		return err_oom(e);
	f->clock = o->client.clock;
	f->registry = o->registry;
	f->health = o->health;
	f->log_fd = -1;
	pthread_mutex_init(&f->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->wakeup, &attr);
	pthread_condattr_destroy(&attr);
	f->log_path = path_join(o->dir, "registry.log");
	f->key_path = path_join(o->dir, "sealing.json");
	int rc = f->log_path && f->key_path ? dir_make(o->dir, 0700, e) : err_oom(e);
	if (rc >= 0)
		rc = client_new(&o->client, &f->client, e);
	if (rc >= 0)
		rc = replay_log(f, e);
	if (rc < 0) {
		feed_close(f);
		return -1;
	}
	read_key(f);
	health_add(o->health, "main_server", false, check_main_server, f);
	*ret = f;
	return 0;
}

int feed_follow(struct feed *f, struct proxy *proxy, struct err *e)
{
	f->proxy = proxy;
	if (f->has_key)
		proxy_set_sealing_key(proxy, &f->key);
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
	pthread_mutex_lock(&f->lock);
	f->stopping = true;
	pthread_cond_signal(&f->wakeup);
	pthread_mutex_unlock(&f->lock);
	if (f->running) {
		client_cancel(f->client);
		pthread_join(f->thread, NULL);
	}
	client_free(f->client);
	if (f->log_fd >= 0)
		close(f->log_fd);
	pthread_cond_destroy(&f->wakeup);
	pthread_mutex_destroy(&f->lock);
	free(f->log_path);
	free(f->key_path);
	free(f);
}
