/* config.c - gathers values from the file, the environment and --set. See config.h, config_table.h.
 *
 * The file is read event by event with libyaml, not as a tree: what we accept is far smaller than YAML, and
 * an event knows its line. Aliases, anchors, tags, lists and several documents are refused, so that a value
 * means what stands beside its key. */
#include "base/config.h"

#include <stdlib.h>
#include <yaml.h>

#include "base/auto.h"
#include "base/config_table.h"
#include "base/file.h"

enum { FILE_BYTES_MAX = 1 << 20, SECRET_BYTES_MAX = 64 * 1024, NAME_BYTES_MAX = 64 };

/* --- the tables --- */

static const struct config_option options[] = {
#define OPTION(name, TYPE, dflt, allowed, reload, help)                                                      \
	{#name, CONFIG_##TYPE, CONFIG_##reload, offsetof(struct config, name), dflt, allowed, help},
#include CONFIG_OPTIONS_DEF
#undef OPTION
};

static const struct config_option domain_options[] = {
#define DOMAIN_OPTION(name, TYPE, dflt, allowed, help)                                                       \
	{#name, CONFIG_##TYPE, CONFIG_LIVE, offsetof(struct config_domain, name), dflt, allowed, help},
#include CONFIG_OPTIONS_DEF
#undef DOMAIN_OPTION
};

const struct config_table config_table = {options, OPTION_COUNT};
const struct config_table config_domain_table = {domain_options, DOMAIN_OPTION_COUNT};

static const struct config_option *find(const struct config_table *t, struct str name)
{
	for (size_t i = 0; i < t->count; i++)
		if (str_eq(name, str_of(t->options[i].name)))
			return &t->options[i];
	return NULL;
}

/* How many characters must be changed, added or removed to make b of a (Levenshtein). */
static size_t edits_between(struct str a, struct str b)
{
	size_t row[NAME_BYTES_MAX + 1]; /* for the part of a so far: the distance to each beginning of b */
	for (size_t j = 0; j <= b.n; j++)
		row[j] = j;
	for (size_t i = 0; i < a.n; i++) {
		size_t diagonal = row[0];
		row[0] = i + 1;
		for (size_t j = 0; j < b.n; j++) {
			size_t change = diagonal + (a.p[i] != b.p[j]);
			size_t other = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
			diagonal = row[j + 1];
			row[j + 1] = change < other ? change : other;
		}
	}
	return row[b.n];
}

/* The option whose name is most like this one; NULL when none is. */
static const struct config_option *nearest(const struct config_table *t, struct str name)
{
	const struct config_option *best = NULL;
	size_t best_edits = 2 + name.n / 4;
	for (size_t i = 0; i < t->count; i++) {
		size_t edits = edits_between(name, str_of(t->options[i].name));
		if (edits < best_edits) {
			best_edits = edits;
			best = &t->options[i];
		}
	}
	return best;
}

static int unknown_option(const struct config_table *t, struct str name, struct err *e)
{
	char shown[CONFIG_SHOWN_BYTES];
	config_text_shown(name, shown);
	const struct config_option *like = name.n <= NAME_BYTES_MAX ? nearest(t, name) : NULL;
	if (!like)
		return err_set(e, ERR_REJECT, "unknown option '%s'", shown);
	return err_set(e, ERR_REJECT, "unknown option '%s'; did you mean '%s'?", shown, like->name);
}

static int set_defaults(const struct config_table *t, void *base, struct err *e)
{
	for (size_t i = 0; i < t->count; i++)
		if (config_value_parse(&t->options[i], str_of(t->options[i].dflt), base, e) < 0)
			return err_context(e, "default of %s", t->options[i].name);
	return 0;
}

static void clear_values(const struct config_table *t, void *base)
{
	for (size_t i = 0; i < t->count; i++)
		config_value_clear(&t->options[i], base);
}

/* --- the file --- */

/* A configuration in the making. */
struct making {
	struct config *config;
	const struct config_source *source;
	unsigned mistakes;
};

/* After a failure: whether it was a mistake that somebody was told of, so that reading goes on (0), or not (-1). */
static int pass_mistake(struct making *m, struct err *e)
{
	struct err ignored = ERR_INIT, *what = e ? e : &ignored;
	if (!m->source->mistake || (what->kind != ERR_REJECT && what->kind != ERR_FORBIDDEN))
		return -1;
	m->source->mistake(m->source->arg, what);
	m->mistakes++;
	return 0;
}

struct reader {
	struct making *making;
	const char *file;
	struct config *config;
	yaml_parser_t parser;
	yaml_event_t event;
	bool has_domains;
};

static size_t line_of(const struct reader *r)
{
	return r->event.start_mark.line + 1;
}

/* "FILE:LINE: …" around an error about the current event. */
static int at_event(const struct reader *r, struct err *e)
{
	return err_context(e, "%s:%zu", r->file, line_of(r));
}

static int refuse(const struct reader *r, const char *what, struct err *e)
{
	err_set(e, ERR_REJECT, "%s", what);
	return at_event(r, e);
}

static int yaml_error(const struct reader *r, struct err *e)
{
	if (r->parser.error == YAML_MEMORY_ERROR)
		return err_oom(e);
	/* The reader fails on bytes before it has lines. */
	if (r->parser.error == YAML_READER_ERROR)
		return err_set(e, ERR_REJECT, "%s: byte %zu: %s", r->file, r->parser.problem_offset,
			r->parser.problem);
	return err_set(
		e, ERR_REJECT, "%s:%zu: %s", r->file, r->parser.problem_mark.line + 1, r->parser.problem);
}

static struct str scalar_of(const struct reader *r)
{
	return str_mem(r->event.data.scalar.value, r->event.data.scalar.length);
}

static bool has_anchor_or_tag(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.anchor || event->data.scalar.tag;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor || event->data.mapping_start.tag;
	default:
		return false;
	}
}

static int next_event(struct reader *r, struct err *e)
{
	yaml_event_delete(&r->event);
	if (!yaml_parser_parse(&r->parser, &r->event))
		return yaml_error(r, e);
	if (r->event.type == YAML_ALIAS_EVENT || has_anchor_or_tag(&r->event))
		return refuse(r, "anchors, aliases and tags are not supported", e);
	return 0;
}

/* A plain scalar that YAML reads as "no value". */
static bool is_null(const struct reader *r)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
	if (r->event.type != YAML_SCALAR_EVENT || r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(nulls); i++)
		if (str_eq(scalar_of(r), str_of(nulls[i])))
			return true;
	return false;
}

/* To the end of the value that the current event begins. */
static int skip_value(struct reader *r, struct err *e)
{
	for (unsigned depth = 0;;) {
		switch (r->event.type) {
		case YAML_MAPPING_START_EVENT:
		case YAML_SEQUENCE_START_EVENT:
			depth++;
			break;
		case YAML_MAPPING_END_EVENT:
		case YAML_SEQUENCE_END_EVENT:
			depth--;
			break;
		default:
			break;
		}
		if (depth == 0)
			return 0;
		if (next_event(r, e) < 0)
			return -1;
	}
}

/* After a mistake: tells of it, and goes to the end of the value that the current event begins. */
static int pass_value(struct reader *r, struct err *e)
{
	return pass_mistake(r->making, e) < 0 ? -1 : skip_value(r, e);
}

/* The same, where the current event is the key. */
static int pass_key(struct reader *r, struct err *e)
{
	return pass_mistake(r->making, e) < 0 || next_event(r, e) < 0 ? -1 : skip_value(r, e);
}

/* The option that the current event names; NULL: a mistake. lines[] is where each was given before, or 0. */
static const struct config_option *known_option(
	const struct reader *r, const struct config_table *t, size_t *lines, struct err *e)
{
	const struct config_option *o = find(t, scalar_of(r));
	if (!o) {
		unknown_option(t, scalar_of(r), e);
		at_event(r, e);
		return NULL;
	}
	size_t *line = &lines[o - t->options];
	if (*line) {
		err_set(e, ERR_REJECT, "%s is given twice, first on line %zu", o->name, *line);
		at_event(r, e);
		return NULL;
	}
	*line = line_of(r);
	return o;
}

/* The current event is a key; takes its value too. */
static int read_option(
	struct reader *r, const struct config_table *t, void *base, size_t *lines, struct err *e)
{
	const struct config_option *o = known_option(r, t, lines, e);
	if (!o)
		return pass_key(r, e);
	if (next_event(r, e) < 0)
		return -1;
	int rc;
	if (r->event.type != YAML_SCALAR_EVENT)
		rc = err_set(e, ERR_REJECT, "takes one value, not a list or a mapping");
	else
		rc = config_value_parse(o, is_null(r) ? STR("") : scalar_of(r), base, e);
	if (rc >= 0)
		return 0;
	err_context(e, "%s", o->name);
	at_event(r, e);
	return pass_value(r, e);
}

/* Goes to the next key of the mapping; false at its end and on failure, which *ret_rc tells apart. */
static bool next_key(struct reader *r, int *ret_rc, struct err *e)
{
	*ret_rc = next_event(r, e);
	if (*ret_rc < 0 || r->event.type == YAML_MAPPING_END_EVENT)
		return false;
	if (r->event.type != YAML_SCALAR_EVENT)
		*ret_rc = refuse(r, "expected the name of an option", e);
	return *ret_rc == 0;
}

/* As in a certificate's identity. */
static bool is_domain_name(struct str s)
{
	bool good = s.n > 0 && s.n <= NAME_BYTES_MAX;
	for (size_t i = 0; good && i < s.n; i++) {
		char c = s.p[i];
		bool letter_or_digit =
			(c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		good = letter_or_digit || (i > 0 && (c == '.' || c == '_' || c == '-'));
	}
	return good;
}

/* Adds a domain named by the current event, with default values; NULL when it failed. */
static struct config_domain *add_domain(struct reader *r, struct err *e)
{
	struct config *c = r->config;
	struct config_domain *more = reallocarray(c->domains, c->domain_count + 1, sizeof(*more));
	char *name = strndup(scalar_of(r).p, scalar_of(r).n);
	if (more)
		c->domains = more;
	if (!more || !name) {
		free(name);
		err_oom(e);
		return NULL;
	}
	struct config_domain *d = &more[c->domain_count++];
	*d = (struct config_domain){.name = name, .line = line_of(r)};
	return set_defaults(&config_domain_table, d, e) < 0 ? NULL : d;
}

/* The current event is a domain's name. */
static int read_domain(struct reader *r, struct err *e)
{
	if (!is_domain_name(scalar_of(r))) {
		refuse(r,
			"a domain's name has letters, digits and, after the first, '.', '_' and '-'; "
			"at most 64 of them",
			e);
		return pass_key(r, e);
	}
	struct config_domain *d = add_domain(r, e);
	if (!d || next_event(r, e) < 0)
		return -1;
	if (is_null(r))
		return 0;
	if (r->event.type != YAML_MAPPING_START_EVENT) {
		refuse(r, "expected the options of the domain, indented", e);
		return pass_value(r, e);
	}
	size_t lines[DOMAIN_OPTION_COUNT] = {0};
	int rc;
	while (next_key(r, &rc, e)) {
		if (read_option(r, &config_domain_table, d, lines, e) < 0)
			return -1;
	}
	return rc;
}

/* The current event is the key `domains`. */
static int read_domains(struct reader *r, struct err *e)
{
	if (r->has_domains) {
		refuse(r, "domains is given twice", e);
		return pass_key(r, e);
	}
	r->has_domains = true;
	if (next_event(r, e) < 0)
		return -1;
	if (is_null(r))
		return 0;
	if (r->event.type != YAML_MAPPING_START_EVENT) {
		refuse(r, "domains: expected the names of domains, indented", e);
		return pass_value(r, e);
	}
	int rc;
	while (next_key(r, &rc, e)) {
		if (read_domain(r, e) < 0)
			return -1;
	}
	return rc;
}

static int read_top(struct reader *r, struct err *e)
{
	size_t lines[OPTION_COUNT] = {0};
	int rc;
	while (next_key(r, &rc, e)) {
		if (str_eq(scalar_of(r), STR("domains")))
			rc = read_domains(r, e);
		else
			rc = read_option(r, &config_table, r->config, lines, e);
		if (rc < 0)
			return -1;
	}
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (lines[i])
			r->config->origins[i] = (struct config_origin){ORIGIN_FILE, lines[i]};
	return rc;
}

/* Takes one event that says nothing new, and the next. */
static int skip_event(struct reader *r, struct err *e)
{
	return next_event(r, e) < 0 ? -1 : next_event(r, e);
}

/* The one document; a file of comments has none. */
static int read_stream(struct reader *r, struct err *e)
{
	if (skip_event(r, e) < 0) /* the stream starts */
		return -1;
	if (r->event.type == YAML_STREAM_END_EVENT)
		return 0;
	if (next_event(r, e) < 0)
		return -1;
	if (r->event.type == YAML_MAPPING_START_EVENT) {
		if (read_top(r, e) < 0)
			return -1;
	} else if (!is_null(r)) {
		return refuse(r, "expected lines of the form 'option: value'", e);
	}
	if (skip_event(r, e) < 0) /* the document ends */
		return -1;
	if (r->event.type != YAML_STREAM_END_EVENT)
		return refuse(r, "a second document starts here", e);
	return 0;
}

static int by_name_then_line(const void *a, const void *b)
{
	const struct config_domain *x = a, *y = b;
	int c = strcmp(x->name, y->name);
	return c ? c : (x->line > y->line) - (x->line < y->line);
}

static int sort_domains(struct making *m, struct err *e)
{
	struct config *c = m->config;
	if (c->domain_count)
		qsort(c->domains, c->domain_count, sizeof(*c->domains), by_name_then_line);
	for (size_t i = 1; i < c->domain_count; i++) {
		const struct config_domain *first = &c->domains[i - 1], *second = &c->domains[i];
		if (strcmp(first->name, second->name) != 0)
			continue;
		err_set(e, ERR_REJECT, "%s:%zu: domain '%s' is given twice, first on line %zu", c->file,
			second->line, second->name, first->line);
		if (pass_mistake(m, e) < 0)
			return -1;
	}
	return 0;
}

static int read_file(struct making *m, const char *path, struct err *e)
{
	struct config *c = m->config;
	c->file = strdup(path);
	if (!c->file)
		return err_oom(e);
	AUTO(buf_wipe_auto) struct buf text;
	buf_init(&text, FILE_BYTES_MAX);
	if (file_read(path, FILE_BYTES_MAX, &text, e) < 0)
		return -1;
	struct reader r = {.making = m, .file = path, .config = c};
	if (!yaml_parser_initialize(&r.parser))
		return err_oom(e);
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.p, text.n);
	int rc = read_stream(&r, e);
	yaml_event_delete(&r.event);
	yaml_parser_delete(&r.parser);
	return rc < 0 ? -1 : sort_domains(m, e);
}

/* --- environment and command line --- */

void config_env_name_print(const char *option_name, struct buf *out)
{
	buf_add_str(out, STR("SEALPOST_"));
	for (const char *p = option_name; *p; p++)
		buf_add_char(out, (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p));
}

/* LOG_LEVEL to log_level; false when it cannot be the name of an option. */
static bool option_name_of(struct str env_name, char out[NAME_BYTES_MAX], struct str *ret)
{
	if (env_name.n > NAME_BYTES_MAX)
		return false;
	for (size_t i = 0; i < env_name.n; i++) {
		char c = env_name.p[i];
		if (c >= 'a' && c <= 'z')
			return false;
		out[i] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
	}
	*ret = str_mem(out, env_name.n);
	return true;
}

/* The secret that SEALPOST_…_FILE is about, or NULL. */
static const struct config_option *secret_of_file(struct str name)
{
	struct str ending = STR("_file");
	if (name.n < ending.n || !str_eq(str_mem(name.p + name.n - ending.n, ending.n), ending))
		return NULL;
	const struct config_option *o = find(&config_table, str_mem(name.p, name.n - ending.n));
	return o && o->type == CONFIG_SECRET ? o : NULL;
}

/* A secret from a file of its own; one newline at the end does not count. */
static int set_from_file(const struct config_option *o, const char *path, struct config *c, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf text;
	buf_init(&text, SECRET_BYTES_MAX);
	if (file_read(path, SECRET_BYTES_MAX, &text, e) < 0)
		return -1;
	struct str value = buf_str(&text);
	if (value.n && value.p[value.n - 1] == '\n')
		value.n--;
	return config_value_parse(o, value, c, e);
}

/* One variable: its name without SEALPOST_, its value. */
static int take_variable(struct config *c, struct str env_name, const char *value, struct err *e)
{
	char scratch[NAME_BYTES_MAX];
	struct str name;
	if (!option_name_of(env_name, scratch, &name))
		return err_set(e, ERR_REJECT, "expected SEALPOST_ and the name of an option, in capitals");
	const struct config_option *o = find(&config_table, name);
	const struct config_option *secret = o ? NULL : secret_of_file(name);
	if (!o && !secret)
		return unknown_option(&config_table, name, e);
	struct config_origin *origin = &c->origins[(o ? o : secret) - options];
	if (origin->source == ORIGIN_ENVIRONMENT)
		return err_set(e, ERR_REJECT, "another variable gives the same option");
	*origin = (struct config_origin){.source = ORIGIN_ENVIRONMENT};
	return o ? config_value_parse(o, str_of(value), c, e) : set_from_file(secret, value, c, e);
}

static int read_environment(struct making *m, char *const *env, struct err *e)
{
	const struct str prefix = STR("SEALPOST_");
	for (; *env; env++) {
		struct str value = str_of(*env), name;
		if (!str_starts(value, prefix) || !str_cut(&value, '=', &name))
			continue;
		struct str env_name = str_mem(name.p + prefix.n, name.n - prefix.n);
		if (take_variable(m->config, env_name, value.p, e) >= 0)
			continue;
		err_context(e, "environment %.*s", STR_ARG(name));
		if (pass_mistake(m, e) < 0)
			return -1;
	}
	return 0;
}

static int refuse_secret(const struct config_option *o, struct err *e)
{
	char text[2 * NAME_BYTES_MAX];
	struct buf name = {.p = text, .room = sizeof(text), .ceiling_bytes = sizeof(text)};
	config_env_name_print(o->name, &name);
	return err_set(e, ERR_FORBIDDEN,
		"a secret on the command line can be seen by every user of this machine; "
		"use the configuration file, or %.*s_FILE in the environment",
		STR_ARG(buf_str(&name)));
}

static int read_set(struct config *c, const char *set, struct err *e)
{
	struct str value = str_of(set), name;
	if (!str_cut(&value, '=', &name)) {
		char shown[CONFIG_SHOWN_BYTES];
		config_text_shown(value, shown);
		return err_set(e, ERR_REJECT, "--set %s: expected KEY=VALUE", shown);
	}
	const struct config_option *o = find(&config_table, name);
	if (!o) {
		unknown_option(&config_table, name, e);
		return err_context(e, "--set");
	}
	int rc = o->type == CONFIG_SECRET ? refuse_secret(o, e) : config_value_parse(o, value, c, e);
	if (rc < 0)
		return err_context(e, "--set %s", o->name);
	c->origins[o - options] = (struct config_origin){.source = ORIGIN_SET};
	return 0;
}

/* --- options that must fit each other --- */

static bool cert_days_fit(const struct config *c)
{
	return c->cert_days <= c->cert_days_max;
}

static bool retry_intervals_fit(const struct config *c)
{
	enum { FIXED, EXPONENTIAL }; /* the first choices of retry_policy */
	return c->retry_policy != EXPONENTIAL || c->retry_interval <= c->retry_interval_max;
}

static bool breaker_pauses_fit(const struct config *c)
{
	return c->breaker_pause <= c->breaker_pause_max;
}

static const struct rule {
	size_t option, other;
	bool (*fits)(const struct config *c);
} rules[] = {
	{OPTION_cert_days, OPTION_cert_days_max, cert_days_fit},
	{OPTION_retry_interval, OPTION_retry_interval_max, retry_intervals_fit},
	{OPTION_breaker_pause, OPTION_breaker_pause_max, breaker_pauses_fit},
};

/* "FILE:LINE: cert_days is 900, but cert_days_max is 825" */
static int broken_rule(const struct config *c, const struct rule *rule, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, ERR_TEXT_BYTES);
	bool by_default = c->origins[rule->option].source == ORIGIN_DEFAULT;
	config_origin_print(c, by_default ? rule->other : rule->option, &text);
	buf_addf(&text, ": %s is ", options[rule->option].name);
	config_value_print(&options[rule->option], c, &text);
	buf_addf(&text, ", but %s is ", options[rule->other].name);
	config_value_print(&options[rule->other], c, &text);
	return err_set(e, ERR_REJECT, "%.*s", STR_ARG(buf_str(&text)));
}

static int check_rules(struct making *m, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		if (rules[i].fits(m->config))
			continue;
		broken_rule(m->config, &rules[i], e);
		if (pass_mistake(m, e) < 0)
			return -1;
	}
	return 0;
}

/* --- the whole --- */

static int read_sets(struct making *m, struct err *e)
{
	for (size_t i = 0; i < m->source->set_count; i++)
		if (read_set(m->config, m->source->sets[i], e) < 0 && pass_mistake(m, e) < 0)
			return -1;
	return 0;
}

/* What YAML cannot read ends the file, but not the rest. */
static int gather(struct making *m, struct err *e)
{
	const struct config_source *source = m->source;
	if (set_defaults(&config_table, m->config, e) < 0)
		return -1;
	if (source->file && read_file(m, source->file, e) < 0 && pass_mistake(m, e) < 0)
		return -1;
	if (source->env && read_environment(m, source->env, e) < 0)
		return -1;
	if (read_sets(m, e) < 0 || check_rules(m, e) < 0)
		return -1;
	return m->mistakes ? err_set(e, ERR_REJECT, "%u mistake(s) in the configuration", m->mistakes) : 0;
}

int config_load(const struct config_source *source, struct config **ret, struct err *e)
{
	struct config *c = calloc(1, sizeof(*c));
	struct config_origin *origins = calloc(OPTION_COUNT, sizeof(*origins));
	if (!c || !origins) {
		free(c);
		free(origins);
		return err_oom(e);
	}
	c->origins = origins;
	struct making making = {.config = c, .source = source};
	if (gather(&making, e) < 0) {
		config_free(c);
		return -1;
	}
	*ret = c;
	return 0;
}

int config_check_sets(const char *const *sets, size_t set_count, struct err *e)
{
	struct config_origin origins[OPTION_COUNT];
	struct config scratch = {.origins = origins};
	int rc = 0;
	for (size_t i = 0; rc >= 0 && i < set_count; i++)
		rc = read_set(&scratch, sets[i], e);
	clear_values(&config_table, &scratch);
	return rc;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	clear_values(&config_table, c);
	for (size_t i = 0; i < c->domain_count; i++) {
		clear_values(&config_domain_table, &c->domains[i]);
		free(c->domains[i].name);
	}
	free(c->domains);
	free(c->origins);
	free(c->file);
	free(c);
}

static int compare_name(const void *key, const void *element)
{
	const struct config_domain *d = element;
	return str_cmp(*(const struct str *)key, str_of(d->name));
}

const struct config_domain *config_domain(const struct config *c, struct str name)
{
	if (!c->domain_count)
		return NULL;
	return bsearch(&name, c->domains, c->domain_count, sizeof(*c->domains), compare_name);
}

size_t config_changed_restart(const struct config *before, const struct config *now, struct buf *ret_names)
{
	size_t changed = 0;
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct config_option *o = &options[i];
		if (o->reload == CONFIG_RESTART && !config_value_equal(o, before, now))
			buf_addf(ret_names, "%s%s", changed++ ? ", " : "", o->name);
	}
	return changed;
}
