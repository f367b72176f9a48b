/* log.c - see log.h.
 *
 * A line is built on the caller's stack and leaves with one write(2), at most PIPE_BUF bytes, so that lines
 * do not interleave even in a pipe, and no lock is held while writing. The file keeps one descriptor number
 * for good: turn-over and reopen put the new file under it with dup3, atomically for those who write.
 *
 * Whoever logs first after midnight turns the file over; others write to the old one meanwhile. When that
 * fails, for want of disk space say, the old file is kept and the next try is a minute later. */
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/json.h"
#include "base/metrics.h"

enum {
	LINE_BYTES = 4096, /* PIPE_BUF on Linux: larger writes to a pipe may be split */
	VALUE_BYTES = 1024,
	TAIL_BYTES = 16, /* room that is kept for CUT and the end of the line */
	FILE_MODE = 0640,
	RETRY_MS = 60000,
};

static const int64_t day_ms = 86400000;

_Atomic int log_level_now = LOG_WARN;

static const struct {
	const char *name, *padded, *colour;
} levels[LOG_LEVELS] = {
	[LOG_ERROR] = {"error", "error", "\x1b[31m"},
	[LOG_WARN] = {"warn", "warn ", "\x1b[33m"},
	[LOG_INFO] = {"info", "info ", "\x1b[32m"},
	[LOG_DEBUG] = {"debug", "debug", "\x1b[36m"},
};

/* Where lines go. */
struct sink {
	_Atomic int fd;
	_Atomic bool on;
	_Atomic bool torn; /* the last write stopped within a line: start the next one on a new line */
};

static struct sink to_stderr = {.fd = STDERR_FILENO, .on = true};
static struct sink to_file = {.fd = -1};

static _Atomic(const struct clock *) log_clock = &clock_system;
static _Atomic int log_format_now = LOG_FORMAT_TEXT;
static _Atomic bool stderr_colour;
static _Atomic int64_t turn_over_ms; /* wall time of the next turn-over */

static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the two; held while files change */
static char *file_path;
static unsigned file_keep_days;

/* --- one line --- */

struct line {
	char text[1 + LINE_BYTES]; /* a newline for a sink that is torn, then the line with its own newline */
	size_t n;                  /* without the first newline */
};

/* The field's value when it is not a string. */
static struct str number_text(const struct log_field *f, char scratch[24])
{
	switch (f->type) {
	case LOG_FIELD_BOOL:
		return f->i ? STR("true") : STR("false");
	case LOG_FIELD_UINT:
		return str_mem(scratch, (size_t)snprintf(scratch, 24, "%" PRIu64, f->u));
	default:
		return str_mem(scratch, (size_t)snprintf(scratch, 24, "%" PRId64, f->i));
	}
}

/* At most VALUE_BYTES, not ending within a UTF-8 sequence. */
static struct str clip(struct str s)
{
	if (s.n <= VALUE_BYTES)
		return s;
	s.n = VALUE_BYTES;
	while (s.n && ((unsigned char)s.p[s.n] & 0xc0) == 0x80)
		s.n--;
	return s;
}

static bool needs_quotes(struct str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] > '~' || strchr("\"\\=", s.p[i]))
			return true;
	return s.n == 0;
}

/* Adds one field; in text a value that could be misread is quoted as in JSON. */
static void add_field(struct json_out *w, enum log_format format, const struct log_field *f)
{
	char scratch[24];
	struct str value = f->type == LOG_FIELD_STR ? clip(f->s) : number_text(f, scratch);
	bool quote = f->type == LOG_FIELD_STR && (format == LOG_FORMAT_JSON || needs_quotes(value));
	const char *key = f->key;
	if (format == LOG_FORMAT_TEXT) {
		buf_addf(w->out, " %s=", f->key);
		key = NULL;
		w->comma = false;
	}
	if (quote)
		json_put_str(w, key, value);
	else
		json_put_raw(w, key, value);
}

/* Adds what fits; false when something had to be left out or shortened. */
static bool add_fields(struct json_out *w, enum log_format format, const struct log_field *fields)
{
	bool complete = true;
	for (const struct log_field *f = fields; f->key; f++) {
		size_t before = w->out->n;
		add_field(w, format, f);
		if (w->out->failed) {
			w->out->n = before;
			w->out->failed = false;
			complete = false;
		} else if (f->type == LOG_FIELD_STR && f->s.n > VALUE_BYTES) {
			complete = false;
		}
	}
	return complete;
}

static void build_text(struct json_out *w, const char *time, enum log_level level, bool colour,
	const char *event, const struct log_field *fields)
{
	if (colour)
		buf_addf(
			w->out, "%s %s%s\x1b[0m %s", time, levels[level].colour, levels[level].padded, event);
	else
		buf_addf(w->out, "%s %s %s", time, levels[level].padded, event);
	bool complete = add_fields(w, LOG_FORMAT_TEXT, fields);
	w->out->ceiling_bytes = LINE_BYTES;
	buf_add_str(w->out, complete ? STR("\n") : STR(" cut=true\n"));
}

static void build_json(struct json_out *w, const char *time, enum log_level level, const char *event,
	const struct log_field *fields)
{
	json_open_object(w, NULL);
	json_put_str(w, "time", str_of(time));
	json_put_str(w, "level", str_of(levels[level].name));
	json_put_str(w, "event", str_of(event));
	bool complete = add_fields(w, LOG_FORMAT_JSON, fields);
	w->out->ceiling_bytes = LINE_BYTES;
	if (!complete)
		json_put_bool(w, "cut", true);
	json_close_object(w);
	buf_add_char(w->out, '\n');
}

static void build(struct line *line, struct wall now, enum log_level level, bool colour, const char *event,
	const struct log_field *fields)
{
	/* A buf over the caller's stack: as large as it may ever get, so that it never reallocates. */
	struct buf b = {.p = line->text + 1, .room = LINE_BYTES, .ceiling_bytes = LINE_BYTES - TAIL_BYTES};
	struct json_out w = json_out_to(&b);
	char time[RFC3339_BYTES];
	wall_format(now, time);
	if (atomic_load_explicit(&log_format_now, memory_order_relaxed) == LOG_FORMAT_JSON)
		build_json(&w, time, level, event, fields);
	else
		build_text(&w, time, level, colour, event, fields);
	line->text[0] = '\n';
	line->n = b.n;
}

static void send_to(struct sink *sink, const struct line *line)
{
	bool torn = atomic_exchange_explicit(&sink->torn, false, memory_order_relaxed);
	const char *from = torn ? line->text : line->text + 1;
	size_t n = line->n + torn;
	ssize_t written;
	do {
		written = write(atomic_load_explicit(&sink->fd, memory_order_relaxed), from, n);
	} while (written < 0 && errno == EINTR);
	if (written == (ssize_t)n)
		return;
	if (torn || written > 0)
		atomic_store_explicit(&sink->torn, true, memory_order_relaxed);
	metric_add(METRIC_LOG_DROPPED, 1);
}

static bool is_on(const struct sink *sink)
{
	return atomic_load_explicit(&sink->on, memory_order_relaxed);
}

static void turn_over_if_due(struct wall now);

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
	int saved_errno = errno;
	struct wall now = clock_wall(atomic_load_explicit(&log_clock, memory_order_relaxed));
	turn_over_if_due(now);
	struct line line;
	bool for_terminal = is_on(&to_stderr);
	bool colour = for_terminal && atomic_load_explicit(&stderr_colour, memory_order_relaxed);
	build(&line, now, level, colour, event, fields);
	if (for_terminal)
		send_to(&to_stderr, &line);
	if (is_on(&to_file)) {
		if (colour)
			build(&line, now, level, false, event, fields);
		send_to(&to_file, &line);
	}
	errno = saved_errno;
}

uint64_t log_dropped_count(void)
{
	return series_value(metric_series(METRIC_LOG_DROPPED, (const char *const[]){NULL}));
}

bool log_level_parse(struct str s, enum log_level *ret)
{
	for (enum log_level level = 0; level < LOG_LEVELS; level++) {
		if (str_eq(s, str_of(levels[level].name))) {
			*ret = level;
			return true;
		}
	}
	return false;
}

/* --- files --- */

enum { DATE_BYTES = 10 }; /* 2026-11-22 */

/* What stands before "-DATE.log" in the names of path's files. */
static struct str stem_of(const char *path)
{
	struct str s = str_of(path), ending = STR(".log");
	if (s.n > ending.n && str_eq(str_mem(s.p + s.n - ending.n, ending.n), ending))
		s.n -= ending.n;
	return s;
}

/* The descriptor of the day's file, -1 when it cannot be opened. */
static int open_dated(const char *path, struct wall now, struct err *e)
{
	char date[RFC3339_BYTES];
	wall_format(now, date);
	AUTO(free_auto) char *name = NULL;
	if (asprintf(&name, "%.*s-%.*s.log", STR_ARG(stem_of(path)), DATE_BYTES, date) < 0) {
		name = NULL;
		return err_oom(e);
	}
	int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, FILE_MODE);
	return fd < 0 ? err_sys(e, ERR_FATAL, "open log file '%s'", name) : fd;
}

/* The day in "STEM-DATE.log"; false for any other name. */
static bool day_of_name(struct str name, struct str stem, struct wall *ret)
{
	if (!str_starts(name, stem) || name.n != stem.n + 1 + DATE_BYTES + 4)
		return false;
	struct str rest = str_mem(name.p + stem.n, name.n - stem.n);
	if (rest.p[0] != '-' || !str_eq(str_mem(rest.p + 1 + DATE_BYTES, 4), STR(".log")))
		return false;
	char midnight[RFC3339_BYTES];
	int n = snprintf(midnight, sizeof(midnight), "%.*sT00:00:00Z", DATE_BYTES, rest.p + 1);
	return wall_parse(str_mem(midnight, (size_t)n), ret);
}

/* Deletes the files of more than keep_days ago. The first failure is reported, the others go on. */
static int delete_old(const char *path, unsigned keep_days, struct wall now, struct err *e)
{
	struct str stem = stem_of(path);
	const char *slash = memrchr(stem.p, '/', stem.n);
	size_t dir_n = slash ? (size_t)(slash - stem.p) + 1 : 0;
	AUTO(free_auto) char *dir = dir_n ? strndup(stem.p, dir_n) : strdup(".");
	if (!dir)
		return err_oom(e);
	DIR *d = opendir(dir);
	if (!d)
		return err_sys(e, ERR_RETRY, "read directory '%s'", dir);
	stem = str_mem(stem.p + dir_n, stem.n - dir_n);
	int rc = 0;
	for (struct dirent *entry; (entry = readdir(d));) {
		struct wall day;
		if (!day_of_name(str_of(entry->d_name), stem, &day) ||
			now.ms / day_ms - day.ms / day_ms <= (int64_t)keep_days)
			continue;
		if (unlinkat(dirfd(d), entry->d_name, 0) < 0 && errno != ENOENT && rc == 0)
			rc = err_sys(e, ERR_RETRY, "delete log file '%s'", entry->d_name);
	}
	closedir(d);
	return rc;
}

/* Puts `fd` under the number that to_file keeps; consumes it. */
static int install(int fd, struct err *e)
{
	int kept = atomic_load_explicit(&to_file.fd, memory_order_relaxed);
	if (kept < 0) {
		atomic_store_explicit(&to_file.fd, fd, memory_order_relaxed);
		return 0;
	}
	int rc = dup3(fd, kept, O_CLOEXEC) < 0 ? err_sys(e, ERR_RETRY, "switch log file") : 0;
	close(fd);
	return rc;
}

static int enter_day(const char *path, struct wall now, struct err *e)
{
	int fd = open_dated(path, now, e);
	return fd < 0 ? -1 : install(fd, e);
}

static void turn_over_at(int64_t wall_ms)
{
	atomic_store_explicit(&turn_over_ms, wall_ms, memory_order_relaxed);
}

static int64_t midnight_after(struct wall t)
{
	return (t.ms / day_ms + 1) * day_ms;
}

static bool turn_over_due(struct wall now)
{
	return is_on(&to_file) && now.ms >= atomic_load_explicit(&turn_over_ms, memory_order_relaxed);
}

static void turn_over_if_due(struct wall now)
{
	if (likely(!turn_over_due(now)) || pthread_mutex_trylock(&files_lock))
		return;
	struct err entering = ERR_INIT, deleting = ERR_INIT;
	if (turn_over_due(now)) {
		int rc = enter_day(file_path, now, &entering);
		turn_over_at(rc < 0 ? now.ms + RETRY_MS : midnight_after(now));
		if (rc == 0)
			delete_old(file_path, file_keep_days, now, &deleting);
	}
	pthread_mutex_unlock(&files_lock);
	if (entering.kind)
		log_event(LOG_ERROR, "log.turn_over_failed", LF_ERR(&entering));
	if (deleting.kind)
		log_event(LOG_WARN, "log.delete_failed", LF_ERR(&deleting));
}

/* https://no-color.org: set and not empty. */
static bool wants_colour(void)
{
	const char *no_color = getenv("NO_COLOR");
	return isatty(STDERR_FILENO) && !(no_color && *no_color);
}

static void take_options(const struct log_options *o)
{
	atomic_store_explicit(&log_level_now, (int)o->level, memory_order_relaxed);
	atomic_store_explicit(&log_format_now, (int)o->format, memory_order_relaxed);
	atomic_store_explicit(&log_clock, o->clock, memory_order_relaxed);
	atomic_store_explicit(&stderr_colour, wants_colour(), memory_order_relaxed);
	atomic_store_explicit(&to_stderr.on, o->to_stderr, memory_order_relaxed);
	atomic_store_explicit(&to_file.on, o->file != NULL, memory_order_relaxed);
}

/* Opens o->file, or lets go of the one that is open. Under files_lock. */
static int take_file(const struct log_options *o, struct wall now, struct err *e)
{
	AUTO(free_auto) char *path = NULL;
	if (o->file) {
		path = strdup(o->file);
		if (!path)
			return err_oom(e);
		if (enter_day(path, now, e) < 0)
			return -1;
	} else if (atomic_load_explicit(&to_file.fd, memory_order_relaxed) >= 0) {
		/* Its number stays taken, for a thread may be about to write to it. */
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		if (null < 0)
			return err_sys(e, ERR_RETRY, "open /dev/null");
		if (install(null, e) < 0)
			return -1;
	}
	free(file_path);
	file_path = TAKE(path);
	file_keep_days = o->keep_days;
	turn_over_at(midnight_after(now));
	return 0;
}

int log_open(const struct log_options *o, struct err *e)
{
	struct wall now = clock_wall(o->clock);
	struct err deleting = ERR_INIT;
	pthread_mutex_lock(&files_lock);
	int rc = take_file(o, now, e);
	if (rc == 0) {
		take_options(o);
		if (file_path)
			delete_old(file_path, file_keep_days, now, &deleting);
	}
	pthread_mutex_unlock(&files_lock);
	if (deleting.kind)
		log_event(LOG_WARN, "log.delete_failed", LF_ERR(&deleting));
	return rc;
}

int log_reopen(const struct log_options *o, struct err *e)
{
	return log_open(o, e);
}

void log_close(void)
{
	const struct log_options initial = {.level = LOG_WARN, .to_stderr = true, .clock = &clock_system};
	take_options(&initial);
	int fd = atomic_exchange_explicit(&to_file.fd, -1, memory_order_relaxed);
	if (fd >= 0)
		close(fd);
	free(file_path);
	file_path = NULL;
}
