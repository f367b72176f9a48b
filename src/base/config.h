/* config.h - every option in one table (options.def): it feeds this struct, the YAML reader, --set, the
 * environment, --help, the reference page and the tests.
 *
 * Order, later wins: default, file, environment (SEALPOST_KEY; secrets also SEALPOST_KEY_FILE), --set.
 * The file is one flat YAML mapping; only `domains` nests. Unknown keys and bad values are errors that name
 * the file, the line, the key, what is allowed, and for an unknown key the nearest known one.
 *
 * Ownership: strings belong to the struct config; config_free frees them and wipes secrets.
 * Threads:   immutable after config_load; a reload makes a new one.
 * Security:  a SECRET is never printed: config_show writes [secret]. With --set it is refused, for every user
 *            of the machine can read a command line. */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* A test may put a table of its own here. */
#ifndef CONFIG_OPTIONS_DEF
#define CONFIG_OPTIONS_DEF "base/options.def"
#endif

/* OPTION(name, TYPE, default, allowed, reload, help); the C type of each TYPE: */
typedef bool config_BOOL;
typedef int64_t config_INT;
typedef int64_t config_BYTES;       /* "64KiB", "4MiB", "1GiB" or a plain number of bytes */
typedef int64_t config_DURATION_MS; /* "30s", "5m", "2h", "7d", "250ms" */
typedef int config_CHOICE;          /* index into `allowed`, which reads "a|b|c" */
typedef char *config_STRING;        /* NULL when empty */
typedef char *config_SECRET;
typedef char
	*config_DURATIONS; /* "10s,1m,1h": at least one, at most CONFIG_DURATIONS_MAX; see config_durations */
typedef char *config_ADDRESS; /* "127.0.0.1:8001", "[::1]:0", ":8001" (all addresses); never NULL */

/* Settings of one domain (DOMAIN_OPTION rows): the `domains:` mapping of the file. */
struct config_domain {
	char *name;
	size_t line; /* of the file */
#define DOMAIN_OPTION(name, TYPE, dflt, allowed, help) config_##TYPE name;
#include CONFIG_OPTIONS_DEF
#undef DOMAIN_OPTION
};

struct config {
#define OPTION(name, TYPE, dflt, allowed, reload, help) config_##TYPE name;
#include CONFIG_OPTIONS_DEF
#undef OPTION
	struct config_domain *domains; /* sorted by name */
	size_t domain_count;
	char *file;                    /* where from, for config_show; NULL: no file */
	struct config_origin *origins; /* of each option, in the order of the table */
};

/* Where values come from. `sets` are "key=value" strings of --set; `env` is environ, or NULL for none. */
struct config_source {
	const char *file; /* NULL: no file */
	const char *const *sets;
	size_t set_count;
	char *const *env;
	/* Told of every mistake, so that one does not hide the next; NULL: the first one ends it. */
	void (*mistake)(void *arg, const struct err *what);
	void *arg;
};

/* ERR_REJECT for what is wrong with the configuration, other kinds as file_read. With source.mistake the text is
 * their number. */
MUST_CHECK int config_load(const struct config_source *source, struct config **ret, struct err *e);
void config_free(struct config *c);

/* Whether the strings of --set could be read by themselves; ERR_REJECT, ERR_FORBIDDEN for a secret. */
MUST_CHECK int config_check_sets(const char *const *sets, size_t set_count, struct err *e);

/* What an option of type DURATIONS holds, in milliseconds; how many. */
enum { CONFIG_DURATIONS_MAX = 16 };
unsigned config_durations(const char *text, int64_t ret_ms[CONFIG_DURATIONS_MAX]);

/* The domain's settings, or NULL when the file does not list it. */
const struct config_domain *config_domain(const struct config *c, struct str name);

/* Appends the names of the options that differ and need a restart, separated by ", "; returns how many. */
size_t config_changed_restart(const struct config *before, const struct config *now, struct buf *ret_names);

/* A number as the options of these types are written; false for anything else. */
MUST_CHECK bool config_parse_bytes(struct str text, int64_t *ret);
MUST_CHECK bool config_parse_duration(struct str text, int64_t *ret_ms);

/* Effective values as YAML, each with where it came from as a comment; secrets as [secret]. */
MUST_CHECK int config_show(const struct config *c, struct buf *out, struct err *e);

/* One JSON object of effective values; secrets as "[secret]". */
MUST_CHECK int config_show_json(const struct config *c, struct buf *out, struct err *e);

/* The reference page (Markdown), made from the table. */
void config_reference(struct buf *out);

/* For --help: a line for each option with its default, in aligned columns. */
int config_option_help(struct buf *out);

#endif
