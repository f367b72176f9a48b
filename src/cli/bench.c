/* bench.c - sealpost bench: the table of load tests. */
#include "cli/bench_ingest.h"
#include "cli/cli.h"

static const struct command benches[] = {
	{"ingest", NULL, "post messages to a proxy and measure throughput, latency and CPU",
		cmd_bench_ingest},
	{0},
};

int cmd_bench(int argc, char **argv)
{
	return cli_dispatch("bench", benches, argc, argv);
}
