/* run.h - one load run from start to end: threads, warm-up, measurement, samples of CPU and memory.
 * Threads: from the main thread; SIGINT and SIGTERM end the measurement early and keep its result. */
#ifndef CLI_LOAD_RUN_H
#define CLI_LOAD_RUN_H

#include "cli/load/churn.h"
#include "cli/load/process.h"

struct run_result {
	struct load_result load; /* of all workers */
	struct churn_result churn;
	double seconds;              /* measured */
	int64_t client_cpu_ns;       /* of this process, while measuring */
	int64_t server_cpu_ns;       /* with server_pid */
	struct process_usage server; /* at the end */
	bool interrupted;
};

/* Called at the begin and at the end of the measurement, while the load goes on. Threads: the owner's. */
struct run_watch {
	int (*sample)(void *arg, bool at_end, struct err *e);
	void *arg;
};

/* 0 also when requests failed; *e says what went wrong when no connection could be opened at all or a sample
 * could not be taken. `watch` may be NULL. */
MUST_CHECK int run_load_test(
	const struct load_options *o, const struct run_watch *watch, struct run_result *ret, struct err *e);

#endif
