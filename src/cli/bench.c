/* bench.c - sealpost bench: the table of load tests, and what they share. See bench.h. */
#include "cli/bench.h"

#include <jansson.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/https.h"

enum { HEALTH_TIMEOUT_MS = 5000, UNAUTHORIZED = 401, FORBIDDEN = 403, UNAVAILABLE = 503 };

/* The queue's check ends in what a commit promises: "3 queued, …; sqlite: WAL, …". */
static struct str durability_of(const json_t *health)
{
	const json_t *queue = json_object_get(json_object_get(health, "checks"), "queue");
	const json_t *detail = json_object_get(queue, "detail");
	struct str rest = str_mem(json_string_value(detail), json_string_length(detail)), counts;
	return str_cut(&rest, ';', &counts) ? str_trim(rest) : STR("unknown");
}

void bench_ask_durability(const struct load_options *o, char ret[BENCH_DURABILITY_BYTES])
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
	snprintf(ret, BENCH_DURABILITY_BYTES, "%.*s", STR_ARG(durability));
}

int bench_exit_code(const struct run_result *r)
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

static const struct command benches[] = {
	{"ingest", NULL, "post messages to a proxy and measure throughput, latency and CPU",
		cmd_bench_ingest},
	{"e2e", NULL, "the same, and until the main server has stored them", cmd_bench_e2e},
	{0},
};

int cmd_bench(int argc, char **argv)
{
	return cli_dispatch("bench", benches, argc, argv);
}
