/* bench_ingest.c - load on a proxy's POST route over real mutual TLS; the generator is in load/. */
#include "cli/bench.h"

#include <stdlib.h>

#include "base/auto.h"
#include "cli/cli.h"
#include "cli/load/report.h"

static const char command[] = "bench ingest";

static int run(const struct load_options *o)
{
	struct err e = ERR_INIT;
	char durability[BENCH_DURABILITY_BYTES];
	AUTO(free_auto) struct run_result *r = malloc(sizeof(*r));
	if (!r)
		err_oom(&e);
	if (!r || run_load_test(o, NULL, r, &e) < 0)
		return cli_fail(command, &e);
	bench_ask_durability(o, durability);
	if (report_print(o, r, durability, NULL, stdout, &e) < 0)
		return cli_fail(command, &e);
	return bench_exit_code(r);
}

int cmd_bench_ingest(int argc, char **argv)
{
	static const struct arg none[] = {{0}};
	static const struct load_command ingest = {
		.name = command,
		.usage = "--url URL --cert FILE --key FILE --ca FILE [options]",
		.summary =
			"Posts messages over mutual TLS as fast as the server takes them, or at a fixed rate.",
		.example =
			"  sealpost bench ingest --url https://127.0.0.1:8001 --cert c.pem --key c.key --ca ca.pem --connections 64\n"
			"  sealpost bench ingest --url https://127.0.0.1:8001 --cert c.pem --key c.key --ca ca.pem --rate 5000 --duration 30s",
		.options = none,
	};
	struct load_options options;
	int code;
	if (!load_options_read(&ingest, argc, argv, &options, &code))
		return code;
	code = run(&options);
	load_options_clear(&options);
	return code;
}
