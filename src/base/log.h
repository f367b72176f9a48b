/* log.h - events: a name and key=value fields, as text for eyes or as JSON lines for machines.
 *
 *	log_event(LOG_INFO, "queue.opened", LF_STR("path", path), LF_INT("rows", rows));
 *
 * Text: "2026-11-22T09:30:00.123Z info  queue.opened path=/var/… rows=3"; JSON: one object a line with
 * "time", "level", "event" and the fields. Values are escaped; a line never contains a raw newline.
 * To stderr, and to a file that turns over at midnight UTC (name.log becomes name-YYYY-MM-DD.log).
 * A line is at most 4 KiB and a value 1 KiB; what does not fit is left out, and the line says cut=true.
 *
 * Errors:   never fails towards its caller; what cannot be written is counted (log_dropped_count, and the
 *           metric). errno stays as it was.
 * Threads:  any; lines do not interleave. Below the level an event costs one relaxed load.
 * Security: never a message body, a phone number, a key, a token or a password. Libraries do not log:
 *           they return errors; only programs and roles log. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_LEVELS };

struct log_field {
	const char *key; /* NULL ends the list */
	enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_UINT, LOG_FIELD_BOOL } type;
	struct str s;
	int64_t i;
	uint64_t u;
};

#define LF_STR(key_, z)  ((struct log_field){.key = key_, .type = LOG_FIELD_STR, .s = str_of(z)})
#define LF_VIEW(key_, v) ((struct log_field){.key = key_, .type = LOG_FIELD_STR, .s = v})
#define LF_INT(key_, v)  ((struct log_field){.key = key_, .type = LOG_FIELD_INT, .i = v})
#define LF_UINT(key_, v) ((struct log_field){.key = key_, .type = LOG_FIELD_UINT, .u = v})
#define LF_BOOL(key_, v) ((struct log_field){.key = key_, .type = LOG_FIELD_BOOL, .i = v})

/* The two fields that describe a failure: error kind and text. */
#define LF_ERR(e) LF_STR("kind", err_kind_name((e)->kind)), LF_STR("error", (e)->text)

extern _Atomic int log_level_now; /* read by the macro only */

#define log_enabled(level) (atomic_load_explicit(&log_level_now, memory_order_relaxed) >= (int)(level))
/* The first element of the array keeps the list from being empty, which `, ##` needs; it is skipped. */
#define log_event(level, event, ...)                                                                         \
	do {                                                                                                 \
		if (log_enabled(level))                                                                      \
			log_write(level, event, &(const struct log_field[]){{0}, ##__VA_ARGS__, {0}}[1]);    \
	} while (0)

void log_write(enum log_level level, const char *event, const struct log_field *fields);

enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_options {
	enum log_level level;
	enum log_format format;
	bool to_stderr;
	const char *file;   /* path whose name gets the date, NULL for none; directory must exist */
	unsigned keep_days; /* files of this name from more days ago are deleted, at open and at turn-over */
	const struct clock *clock;
};

/* Before log_open: warnings and errors as text to stderr. When the file cannot be opened nothing changes. */
MUST_CHECK int log_open(const struct log_options *o, struct err *e);

/* SIGHUP: opens the file anew (after logrotate moved it) and takes the new options. When that fails the old
 * ones stay. */
MUST_CHECK int log_reopen(const struct log_options *o, struct err *e);

/* Back to how it was before log_open. No other thread may be logging. */
void log_close(void);
uint64_t log_dropped_count(void);

MUST_CHECK bool log_level_parse(struct str s, enum log_level *ret);

#endif
