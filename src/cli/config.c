/* config.c - sealpost config: check, show, explain. */
#include "base/config.h"

#include <stdio.h>

#include "base/auto.h"
#include "base/json.h"
#include "base/metrics.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/settings.h"

enum { TEXT_BYTES = 1024 * 1024 };

static void print_text(const struct buf *text)
{
	fwrite(text->p, 1, text->n, stdout);
}

/* What check and show have in common. */
struct query {
	struct settings settings;
	bool json;
};

static bool take_arguments(struct query *q, struct args *a, int argc, char **argv, int *ret_exit)
{
	const struct arg options[] = {
		{"data", ARG_TEXT, &q->settings.data, "DIR", "data directory"},
		{"config", ARG_TEXT, &q->settings.file, "FILE", "configuration; default DIR/sealpost.yaml"},
		{"set", ARG_LIST, &q->settings.sets, "KEY=VALUE", "one option; may be given again"},
		{"json", ARG_FLAG, &q->json, NULL, "as JSON"},
		{0},
	};
	a->usage = "[--data DIR] [--config FILE] [--set KEY=VALUE …] [--json]";
	a->options = options;
	return args_parse(a, argc, argv, ret_exit);
}

/* --- config check --- */

static void add_mistake(void *arg, const struct err *what)
{
	json_array_append_new(arg, json_string(what->text));
}

static void print_mistakes(const struct query *q, const json_t *mistakes)
{
	size_t i;
	const json_t *text;
	if (q->json) {
		AUTO(json_auto)
		json_t *answer = json_pack(
			"{s:b, s:O}", "valid", json_array_size(mistakes) == 0, "mistakes", mistakes);
		print_json(answer);
		return;
	}
	if (json_array_size(mistakes) == 0)
		puts("the configuration is valid");
	json_array_foreach(mistakes, i, text)
	{
		fprintf(stderr, "sealpost config check: %s\n", json_string_value(text));
	}
}

static int cmd_config_check(int argc, char **argv)
{
	AUTO(json_auto) json_t *mistakes = json_array();
	struct query q = {.settings = {.mistake = add_mistake, .arg = mistakes}};
	struct args a = {.command = "config check",
		.summary =
			"Reads the configuration as a daemon would and says everything that is wrong with it.",
		.example = "  sealpost config check --config /etc/sealpost.yaml"};
	int code;
	if (!take_arguments(&q, &a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct config *config = NULL;
	int rc = mistakes ? settings_open(&q.settings, &config, &e) : err_oom(&e);
	config_free(config);
	settings_clear(&q.settings);
	/* Not a mistake in it, but no way to read it at all. */
	if (rc < 0 && json_array_size(mistakes) == 0)
		return settings_fail(&q.settings, "config check", &e);
	print_mistakes(&q, mistakes);
	return rc >= 0 ? EXIT_DONE : q.settings.misused ? EXIT_USAGE : EXIT_FAILED;
}

/* --- config show --- */

static int cmd_show(int argc, char **argv)
{
	struct query q = {.json = false};
	struct args a = {.command = "config show",
		.summary = "Prints what is in force and where each value comes from.",
		.example = "  sealpost config show --config /etc/sealpost.yaml"};
	int code;
	if (!take_arguments(&q, &a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct config *config = NULL;
	AUTO(buf_auto) struct buf text;
	buf_init(&text, TEXT_BYTES);
	int rc = settings_open(&q.settings, &config, &e);
	if (rc >= 0)
		rc = q.json ? config_show_json(config, &text, &e) : config_show(config, &text, &e);
	if (rc >= 0)
		print_text(&text);
	config_free(config);
	settings_clear(&q.settings);
	return rc < 0 ? settings_fail(&q.settings, "config show", &e) : EXIT_DONE;
}

/* --- config reference --- */

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
