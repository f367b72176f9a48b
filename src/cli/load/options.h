/* options.h - what a load run is asked to do, read from the command line.
 * Units:     times in nanoseconds, sizes in bytes, `rate` in requests a second over all threads.
 * Ownership: strings point into argv, except the target's, which belong to the options; load_options_clear.
 * Threads:   immutable once read. */
#ifndef CLI_LOAD_OPTIONS_H
#define CLI_LOAD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"
#include "cli/cli.h"

enum { LOAD_DEPTH_MAX = 1024, LOAD_BATCH_MAX = 1000 };

enum load_format { LOAD_TEXT, LOAD_JSON, LOAD_CSV };

/* The command that reads them: its name, its help, and options of its own. */
struct load_command {
	const char *name, *usage, *summary, *example;
	const struct arg *options; /* ends with name NULL */
};

struct load_options {
	const char *command; /* its name, for errors */
	const char *url;     /* as given */
	char *host;          /* without brackets */
	char *port;
	char *authority; /* host:port as it goes into Host and :authority */
	const char *cert, *key, *ca;
	unsigned connections, threads;
	unsigned depth; /* requests in flight on one connection: pipelined, or HTTP/2 streams */
	bool http2;
	unsigned batch; /* messages in one request; 0: the single-message route */
	unsigned body_bytes;
	double rate;       /* 0: closed loop, each answer is followed by the next request */
	uint64_t messages; /* 0: run for duration_ns */
	int64_t duration_ns, warmup_ns, timeout_ns;
	double churn;       /* new connections a second beside the load */
	pid_t server_pid;   /* 0: none */
	const char *ledger; /* NULL: none */
	enum load_format format;
};

/* False: end with *ret_exit; help or a usage error was printed. */
MUST_CHECK bool load_options_read(
	const struct load_command *command, int argc, char **argv, struct load_options *ret, int *ret_exit);
void load_options_clear(struct load_options *o);

/* Messages carried by one request. */
static inline unsigned load_messages_per_request(const struct load_options *o)
{
	return o->batch ? o->batch : 1;
}

#endif
