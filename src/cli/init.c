/* init.c - sealpost init: what a data directory needs before the first start. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "cli/app.h"
#include "cli/cli.h"
#include "cli/home.h"
#include "cli/settings.h"
#include "message/message.h"

enum { CONFIG_BYTES = 64 * 1024 };

/* What is there already is an administrator's: it is not edited, but must say the same. */
static int check_listed(
	const struct settings *s, const struct config *config, const struct arg_list *domains, struct err *e)
{
	for (unsigned i = 0; i < domains->count; i++)
		if (!config_domain(config, str_of(domains->items[i])))
			return err_set(e, ERR_CONFLICT,
				"'%s' is there already: add '%s' under domains: in it",
				s->file ? s->file : s->paths.config, domains->items[i]);
	return 0;
}

static bool is_repeated(const struct arg_list *list, unsigned at)
{
	for (unsigned i = 0; i < at; i++)
		if (strcmp(list->items[i], list->items[at]) == 0)
			return true;
	return false;
}

static int write_domains(const struct paths *paths, const struct arg_list *domains, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, CONFIG_BYTES);
	buf_addf(&text, "%s\ndomains:\n", home_config_template);
	for (unsigned i = 0; i < domains->count; i++)
		if (!is_repeated(domains, i))
			buf_addf(&text, "  %s:\n", domains->items[i]);
	if (buf_check(&text, e) < 0 || dir_make(paths->data, 0700, e) < 0)
		return -1;
	return file_replace(paths->config, 0600, buf_str(&text), e);
}

/* The domains that clients may belong to, into a configuration that is not there yet. */
static int list_domains(
	const struct settings *s, const struct config *config, const struct arg_list *domains, struct err *e)
{
	struct stat st;
	for (unsigned i = 0; i < domains->count; i++)
		if (!message_name_valid(str_of(domains->items[i])))
			return err_set(e, ERR_REJECT, "'%s' cannot be a domain's name", domains->items[i]);
	if (!domains->count)
		return 0;
	if (s->file || stat(s->paths.config, &st) == 0)
		return check_listed(s, config, domains, e);
	return write_domains(&s->paths, domains, e);
}

int cmd_init(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	struct arg_list domains = {.count = 0};
	const struct arg options[] = {
		{"data", ARG_TEXT, &settings.data, "DIR", "data directory"},
		{"config", ARG_TEXT, &settings.file, "FILE", "configuration; default DIR/sealpost.yaml"},
		{"domain", ARG_LIST, &domains, "D",
			"a domain that clients may belong to, for the configuration file; may be given again"},
		{"set", ARG_LIST, &settings.sets, "KEY=VALUE", "one option; may be given again"},
		{0},
	};
	struct args a = {.command = "init",
		.usage = "[--data DIR] [--domain D …]",
		.summary =
			"Creates the data directory, keys, certificate authority, the server's own certificates and a\n"
			"configuration file, each only where it is missing. `sealpost up` does the same by itself.\n"
			"As long as the configuration lists no domain, clients may belong to any.",
		.example = "  sealpost init --data ./data --domain example.com",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct config *config = NULL;
	struct app *app = NULL;
	int rc = settings_open(&settings, &config, &e);
	if (rc >= 0)
		rc = list_domains(&settings, config, &domains, &e);
	if (rc >= 0)
		rc = home_init(&settings.paths, config, true, &e);
	if (rc >= 0)
		rc = app_open(&settings.paths, config, APP_INIT, &app, &e); /* issues our own certificates */
	if (rc >= 0) {
		app_close(app, 0);
		printf("initialised %s\n  configuration  %s\n  trust anchor   %s\nnext: sealpost up --data %s\n",
			settings.paths.data, settings.paths.config, settings.paths.ca_bundle,
			settings.paths.data);
	}
	config_free(config);
	settings_clear(&settings);
	return rc < 0 ? settings_fail(&settings, "init", &e) : EXIT_DONE;
}
