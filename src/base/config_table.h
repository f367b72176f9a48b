/* config_table.h - what the files of config share: the rows of options.def as data, and the types of values.
 * Only for config*.c; everyone else includes config.h. */
#ifndef BASE_CONFIG_TABLE_H
#define BASE_CONFIG_TABLE_H

#include "base/buf.h"
#include "base/config.h"
#include "base/err.h"

enum config_type {
	CONFIG_BOOL,
	CONFIG_INT,
	CONFIG_BYTES,
	CONFIG_DURATION_MS,
	CONFIG_CHOICE,
	CONFIG_STRING,
	CONFIG_SECRET,
	CONFIG_ADDRESS,
	CONFIG_DURATIONS,
};

enum config_reload { CONFIG_LIVE, CONFIG_RESTART };

struct config_option {
	const char *name;
	enum config_type type;
	enum config_reload reload;
	size_t offset; /* of its value in struct config or struct config_domain */
	const char *dflt, *allowed, *help;
};

/* Index of each option in config_table.options: OPTION_retry_interval, … */
enum {
#define OPTION(name, TYPE, dflt, allowed, reload, help) OPTION_##name,
#include CONFIG_OPTIONS_DEF
#undef OPTION
	OPTION_COUNT
};

enum {
#define DOMAIN_OPTION(name, TYPE, dflt, allowed, help) DOMAIN_OPTION_##name,
#include CONFIG_OPTIONS_DEF
#undef DOMAIN_OPTION
	DOMAIN_OPTION_COUNT
};

struct config_table {
	const struct config_option *options;
	size_t count;
};

extern const struct config_table config_table, config_domain_table;

/* Where an option's value came from. */
struct config_origin {
	enum { ORIGIN_DEFAULT, ORIGIN_FILE, ORIGIN_ENVIRONMENT, ORIGIN_SET } source;
	size_t line; /* ORIGIN_FILE */
};

/* "default", "sealpost.yaml:12", "environment SEALPOST_RETRY_INTERVAL", "--set retry_interval" */
void config_origin_print(const struct config *c, size_t option, struct buf *out);

/* SEALPOST_RETRY_INTERVAL */
void config_env_name_print(const char *option_name, struct buf *out);

/* A key or a value as an error shows it: its beginning, without what a terminal would act on. */
enum { CONFIG_SHOWN_BYTES = 64 };
void config_text_shown(struct str text, char out[CONFIG_SHOWN_BYTES]);

/* --- values; `base` is the struct config or struct config_domain that holds the option --- */

/* Sets the value from its text. The error names the value, unless it is a secret, and what is allowed. */
MUST_CHECK int config_value_parse(const struct config_option *o, struct str text, void *base, struct err *e);

/* As text that config_value_parse takes; a secret as [secret]. */
void config_value_print(const struct config_option *o, const void *base, struct buf *out);

bool config_value_equal(const struct config_option *o, const void *a, const void *b);

/* Frees what the value owns, wipes a secret. */
void config_value_clear(const struct config_option *o, void *base);

/* Whether it is a string of any kind. */
bool config_value_is_text(const struct config_option *o);

/* "duration", … and what is allowed: "10ms to 24h", "error, warn, info, debug", or nothing. */
const char *config_type_name(const struct config_option *o);
void config_allowed_print(const struct config_option *o, struct buf *out);

#endif
