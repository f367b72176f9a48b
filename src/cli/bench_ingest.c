/* bench_ingest.c - see bench_ingest.h; the generator is in load/. */
#include "cli/bench_ingest.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/https.h"
#include "cli/load/report.h"

enum { DURABILITY_BYTES = 32, FORBIDDEN = 403, UNAUTHORIZED = 401, UNAVAILABLE = 503 };

static const char command[] = "bench ingest";

/* The first member "durability" anywhere in the health answer: which check reports it is the server's matter.
 */
static const char *find_durability(const json_t *j)
{
	const char *key, *found = json_string_value(json_object_get(j, "durability"));
	json_t *value;
	if (found)
		return found;
	json_object_foreach((json_t *)(uintptr_t)j, key, value)
	{
		found = find_durability(value);
		if (found)
			return found;
	}
	return NULL;
}

/* Best effort: "unknown" when the server does not say. */
static void ask_durability(const struct load_options *o, char ret[DURABILITY_BYTES])
{
	struct err e = ERR_INIT;
	struct https_options options = {
		.url = o->url, .cert = o->cert, .key = o->key, .ca = o->ca, .timeout_ms = 5000};
	AUTO(buf_auto) struct buf answer;
	AUTO(json_auto) json_t *health = NULL;
	int status;
	snprintf(ret, DURABILITY_BYTES, "unknown");
	buf_init(&answer, HTTPS_ANSWER_BYTES);
	if (https_get(&options, "/api/v1/health", &status, &answer, &e) < 0 ||
		json_read(buf_str(&answer), &health, &e) < 0)
		return;
	const char *found = find_durability(health);
	/* It goes into CSV and onto the terminal: only a plain word is taken. */
	if (found && strspn(found, "abcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(found))
		snprintf(ret, DURABILITY_BYTES, "%s", found);
}

static int exit_code_of(const struct run_result *r)
{
	const struct load_result *w = &r->load;
	if (w->accepted_in_all)
		return EXIT_DONE;
	if (w->failures[FAIL_REFUSED] || w->statuses[UNAUTHORIZED] || w->statuses[FORBIDDEN])
		return EXIT_REFUSED;
	if (w->failures[FAIL_CONNECT] || w->statuses[UNAVAILABLE])
		return EXIT_UNAVAILABLE;
	return EXIT_FAILED;
}

static int run(const struct load_options *o)
{
	struct err e = ERR_INIT;
	char durability[DURABILITY_BYTES];
	AUTO(free_auto) struct run_result *r = malloc(sizeof(*r));
	if (!r)
		err_oom(&e);
	if (!r || run_load_test(o, r, &e) < 0)
		return cli_fail(command, &e);
	ask_durability(o, durability);
	if (report_print(o, r, durability, stdout, &e) < 0)
		return cli_fail(command, &e);
	return exit_code_of(r);
}

int cmd_bench_ingest(int argc, char **argv)
{
	struct load_options options;
	int code;
	if (!load_options_read(argc, argv, &options, &code))
		return code;
	code = run(&options);
	load_options_clear(&options);
	return code;
}
