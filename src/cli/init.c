/* init.c - sealpost init: what a data directory needs before the first start. */
#include <stdio.h>

#include "cli/app.h"
#include "cli/cli.h"
#include "cli/settings.h"

int cmd_init(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const struct arg options[] = {
		{"data", ARG_TEXT, &settings.data, "DIR", "data directory"},
		{"config", ARG_TEXT, &settings.file, "FILE", "configuration; default DIR/sealpost.yaml"},
		{"set", ARG_LIST, &settings.sets, "KEY=VALUE", "one option; may be given again"},
		{0},
	};
	struct args a = {.command = "init",
		.usage = "[--data DIR]",
		.summary =
			"Creates the data directory, keys, certificate authority, the server's own certificates and a\n"
			"configuration file, each only where it is missing. `sealpost up` does the same by itself.",
		.example = "  sealpost init --data ./data",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct config *config = NULL;
	struct app *app = NULL;
	int rc = settings_open(&settings, &config, &e);
	if (rc >= 0)
		rc = app_init(&settings.paths, config, APP_INIT, &e);
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
