/* bench_ingest.c - see bench_ingest.h; the generator is in load/. */
#include "cli/bench_ingest.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/https.h"
#include "cli/load/report.h"

enum {
	DURABILITY_BYTES = 200,
	HEALTH_TIMEOUT_MS = 5000,
	UNAUTHORIZED = 401,
	FORBIDDEN = 403,
	UNAVAILABLE = 503
};

static const char command[] = "bench ingest";

/* The queue's check ends in what a commit promises: "3 queued, …; sqlite: WAL, …". */
static struct str durability_of(const json_t *health)
{
	const json_t *queue = json_object_get(json_object_get(health, "checks"), "queue");
	const json_t *detail = json_object_get(queue, "detail");
	struct str rest = str_mem(json_string_value(detail), json_string_length(detail)), counts;
	return str_cut(&rest, ';', &counts) ? str_trim(rest) : STR("unknown");
}

/* Best effort: "unknown" when the server does not say. */
static void ask_durability(const struct load_options *o, char ret[DURABILITY_BYTES])
{
	struct err e = ERR_INIT;
	struct https_options options = {
		.url = o->url, .cert = o->cert, .key = o->key, .ca = o->ca, .timeout_ms = HEALTH_TIMEOUT_MS};
	AUTO(buf_auto) struct buf answer;
	AUTO(json_auto) json_t *health = NULL;
	int status;
	buf_init(&answer, HTTPS_ANSWER_BYTES);
	if (https_get(&options, "/api/v1/health", &status, &answer, &e) < 0 ||
		json_read(buf_str(&answer), &health, &e) < 0)
		health = NULL;
	struct str durability = durability_of(health);
	snprintf(ret, DURABILITY_BYTES, "%.*s", STR_ARG(durability));
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
