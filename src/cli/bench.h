/* bench.h - the load tests of sealpost bench. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli/load/run.h"

/* Exit codes: 0 measured and at least one message accepted · 1 none accepted · 2 usage · 4 the server lets
 * us in neither with a handshake nor with a request · 5 it cannot be reached. */
int cmd_bench_ingest(int argc, char **argv);

/* Also 1: not all that was accepted had been stored when the wait for it was over. */
int cmd_bench_e2e(int argc, char **argv);

enum { BENCH_DURABILITY_BYTES = 200 };

/* What a 202 promises, as the server says; "unknown" when it does not. */
void bench_ask_durability(const struct load_options *o, char ret[BENCH_DURABILITY_BYTES]);

int bench_exit_code(const struct run_result *r);

#endif
