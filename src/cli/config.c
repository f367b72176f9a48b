/* config.c - sealpost config: check, show, explain. */
#include "base/config.h"

#include <stdio.h>

#include "base/auto.h"
#include "base/metrics.h"
#include "cli/cli.h"
#include "cli/settings.h"

enum { TEXT_BYTES = 1024 * 1024 };

static void print_text(const struct buf *text)
{
	fwrite(text->p, 1, text->n, stdout);
}

/* check and show: load, and say what is in force. */
static int load_and_print(
	int argc, char **argv, const char *command, const char *summary, const char *example, bool show)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		{"data", ARG_TEXT, &settings.data, "DIR", "data directory"},
		{"config", ARG_TEXT, &settings.file, "FILE", "configuration; default DIR/sealpost.yaml"},
		{"set", ARG_LIST, &settings.sets, "KEY=VALUE", "one option; may be given again"},
		{"json", ARG_FLAG, &json, NULL, "as JSON"},
		{0},
	};
	struct args a = {.command = command,
		.usage = "[--data DIR] [--config FILE] [--set KEY=VALUE …] [--json]",
		.summary = summary,
		.example = example,
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct config *config = NULL;
	AUTO(buf_auto) struct buf text;
	buf_init(&text, TEXT_BYTES);
	int rc = settings_open(&settings, &config, &e);
	if (rc >= 0 && show)
		rc = json ? config_show_json(config, &text, &e) : config_show(config, &text, &e);
	if (rc >= 0 && show)
		print_text(&text);
	else if (rc >= 0)
		puts(json ? "{\"valid\":true}" : "the configuration is valid");
	config_free(config);
	settings_clear(&settings);
	return rc < 0 ? cli_fail(command, &e) : EXIT_DONE;
}

static int cmd_config_check(int argc, char **argv)
{
	return load_and_print(argc, argv, "config check",
		"Reads the configuration as a daemon would and says what is wrong with it.",
		"  sealpost config check --config /etc/sealpost.yaml", false);
}

static int cmd_show(int argc, char **argv)
{
	return load_and_print(argc, argv, "config show",
		"Prints what is in force and where each value comes from.",
		"  sealpost config show --config /etc/sealpost.yaml", true);
}

static int cmd_reference(int argc, char **argv)
{
	bool metrics = false;
	const struct arg options[] = {{"metrics", ARG_FLAG, &metrics, NULL, "the metrics instead"}, {0}};
	struct args a = {.command = "config reference",
		.usage = "[--metrics]",
		.summary = "Prints the reference of all options, or of all metrics, as Markdown.",
		.example = "  sealpost config reference > doc/configuration.md",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	AUTO(buf_auto) struct buf text;
	buf_init(&text, TEXT_BYTES);
	if (metrics)
		metrics_reference(&text);
	else
		config_reference(&text);
	print_text(&text);
	return EXIT_DONE;
}

int cmd_config(int argc, char **argv)
{
	static const struct command table[] = {
		{"check", NULL, "say what is wrong with the configuration", cmd_config_check},
		{"show", NULL, "print what is in force and where it comes from", cmd_show},
		{"reference", NULL, "explain every option", cmd_reference},
		{0},
	};
	return cli_dispatch("config", table, argc, argv);
}
