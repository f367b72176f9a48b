/* config_show.c - the configuration for people: what is in force, the reference page, --help. */
#include "base/auto.h"
#include "base/config_table.h"
#include "base/json.h"

void config_origin_print(const struct config *c, size_t option, struct buf *out)
{
	const struct config_origin *origin = &c->origins[option];
	const char *name = config_table.options[option].name;
	switch (origin->source) {
	case ORIGIN_FILE:
		buf_addf(out, "%s:%zu", c->file, origin->line);
		break;
	case ORIGIN_ENVIRONMENT:
		buf_add_str(out, STR("environment "));
		config_env_name_print(name, out);
		break;
	case ORIGIN_SET:
		buf_addf(out, "--set %s", name);
		break;
	default:
		buf_add_str(out, STR("default"));
	}
}

/* The value as JSON; numbers with a unit are strings. */
static void put_value(struct json_out *w, const char *key, const struct config_option *o, const void *base)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, w->out->ceiling_bytes);
	config_value_print(o, base, &text);
	if (o->type == CONFIG_BOOL || o->type == CONFIG_INT)
		json_put_raw(w, key, buf_str(&text));
	else
		json_put_str(w, key, buf_str(&text));
	w->out->failed |= text.failed;
}

/* key: value; text is quoted as in JSON, which YAML reads alike. */
static void show_option(struct buf *out, const char *indent, const struct config_option *o, const void *base)
{
	buf_addf(out, "%s%s: ", indent, o->name);
	if (config_value_is_text(o)) {
		struct json_out w = json_out_to(out);
		put_value(&w, NULL, o, base);
	} else {
		config_value_print(o, base, out);
	}
}

static void show_domain(struct buf *out, const struct config *c, const struct config_domain *d)
{
	buf_addf(out, "  %s:  # %s:%zu\n", d->name, c->file, d->line);
	for (size_t i = 0; i < config_domain_table.count; i++) {
		show_option(out, "    ", &config_domain_table.options[i], d);
		buf_add_char(out, '\n');
	}
}

int config_show(const struct config *c, struct buf *out, struct err *e)
{
	for (size_t i = 0; i < config_table.count; i++) {
		show_option(out, "", &config_table.options[i], c);
		buf_add_str(out, STR("  # "));
		config_origin_print(c, i, out);
		buf_add_char(out, '\n');
	}
	if (c->domain_count)
		buf_add_str(out, STR("domains:\n"));
	for (size_t i = 0; i < c->domain_count; i++)
		show_domain(out, c, &c->domains[i]);
	return buf_check(out, e);
}

static void put_values(struct json_out *w, const struct config_table *t, const void *base)
{
	for (size_t i = 0; i < t->count; i++)
		put_value(w, t->options[i].name, &t->options[i], base);
}

int config_show_json(const struct config *c, struct buf *out, struct err *e)
{
	struct json_out w = json_out_to(out);
	json_open_object(&w, NULL);
	put_values(&w, &config_table, c);
	json_open_object(&w, "domains");
	for (size_t i = 0; i < c->domain_count; i++) {
		json_open_object(&w, c->domains[i].name);
		put_values(&w, &config_domain_table, &c->domains[i]);
		json_close_object(&w);
	}
	json_close_object(&w);
	json_close_object(&w);
	return buf_check(out, e);
}

static void reference_row(struct buf *out, const struct config_option *o)
{
	const char *tick = *o->dflt ? "`" : "";
	buf_addf(out, "| `%s` | %s | %s%s%s | ", o->name, config_type_name(o), tick, o->dflt, tick);
	config_allowed_print(o, out);
}

void config_reference(struct buf *out)
{
	buf_add_str(out,
		STR("# Configuration\n\n"
		    "Every option can stand in the configuration file (YAML, `option: value`), in the "
		    "environment as `SEALPOST_` and its name in capitals, or on the command line as "
		    "`--set option=value`; the later of these wins. A secret is never taken from the "
		    "command line; `SEALPOST_…_FILE` names a file that holds it. Unknown options are "
		    "errors. `sealpost config check` says what is wrong, `sealpost config show` what is in "
		    "force and where it comes from.\n\n"
		    "Durations are written `250ms`, `30s`, `5m`, `2h` or `7d`; sizes `64KiB`, `4MiB`, "
		    "`1GiB`, `1TiB` or a number of bytes; addresses `127.0.0.1:8001`, `[::1]:8001` or "
		    "`:8001` for all addresses, port 0 for a free one.\n\n"
		    "| option | type | default | allowed | a change | meaning |\n"
		    "|---|---|---|---|---|---|\n"));
	for (size_t i = 0; i < config_table.count; i++) {
		const struct config_option *o = &config_table.options[i];
		reference_row(out, o);
		buf_addf(out, " | %s | %s |\n", o->reload == CONFIG_LIVE ? "by SIGHUP" : "needs a restart",
			o->help);
	}
	buf_add_str(out,
		STR("\n## Domains\n\n"
		    "Settings of single domains, in the file only, by SIGHUP. Where one is 0 or empty the "
		    "general option holds.\n\n"
		    "```yaml\ndomains:\n  example.org:\n    display_name: Example\n    rate: 100\n```\n\n"
		    "| option | type | default | allowed | meaning |\n"
		    "|---|---|---|---|---|\n"));
	for (size_t i = 0; i < config_domain_table.count; i++) {
		reference_row(out, &config_domain_table.options[i]);
		buf_addf(out, " | %s |\n", config_domain_table.options[i].help);
	}
}

static int width_of(size_t widest, const char *text)
{
	size_t n = strlen(text);
	return (int)(n > widest ? n : widest);
}

int config_option_help(struct buf *out)
{
	int name_width = 0, default_width = 0;
	for (size_t i = 0; i < config_table.count; i++) {
		name_width = width_of((size_t)name_width, config_table.options[i].name);
		default_width = width_of((size_t)default_width, config_table.options[i].dflt);
	}
	for (size_t i = 0; i < config_table.count; i++) {
		const struct config_option *o = &config_table.options[i];
		buf_addf(out, "  %-*s  %-*s  %s", name_width, o->name, default_width, o->dflt, o->help);
		if (*o->allowed) {
			buf_add_str(out, STR(" ("));
			config_allowed_print(o, out);
			buf_add_char(out, ')');
		}
		buf_add_char(out, '\n');
	}
	return buf_check(out, NULL);
}
