/* cli.h - what every subcommand shares: the command table, exit codes, option parsing.
 *
 * One subcommand, one file: int cmd_x(int argc, char **argv), argv[0] being the subcommand's name; it returns
 * the exit code. Errors go to stderr in one or two lines: what was tried, what went wrong, what to do. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_FOUND = 3,
	EXIT_REFUSED = 4,
	EXIT_UNAVAILABLE = 5
};

struct command {
	const char *name, *group, *summary;
	int (*run)(int argc, char **argv);
};

/* The table (main.c); ends with name NULL. */
extern const struct command commands[];

#define COMMAND(name) int cmd_##name(int argc, char **argv);
COMMAND(up)
COMMAND(proxy)
COMMAND(worker)
COMMAND(server)
COMMAND(init)
COMMAND(cert)
COMMAND(ca)
COMMAND(client)
COMMAND(enroll)
COMMAND(renew)
COMMAND(send)
COMMAND(messages)
COMMAND(queue)
COMMAND(check)
COMMAND(bench)
COMMAND(config)
COMMAND(tls)
COMMAND(audit)
COMMAND(version)
COMMAND(signer)
#undef COMMAND

/* "sealpost cert issue: …" to stderr; returns the exit code that belongs to the error's kind. */
int cli_fail(const char *command, const struct err *e);
int cli_usage_error(const char *command, const char *fmt, ...) PRINTF(2, 3);

/* --- options, by table --- */

enum arg_type { ARG_FLAG, ARG_TEXT, ARG_INT, ARG_LIST };

enum { ARG_LIST_MAX = 64, ARG_REST_MAX = 16 };

struct arg_list {
	const char *items[ARG_LIST_MAX];
	unsigned count;
};

struct arg {
	const char *name; /* without the dashes; NULL ends the table */
	enum arg_type type;
	void *target;      /* bool *, const char **, int64_t *, struct arg_list * */
	const char *value; /* shown in --help: "DIR"; NULL for flags */
	const char *help;
	int64_t min, max; /* ARG_INT */
};

struct args {
	const char *command; /* "cert issue" */
	const char *usage;   /* "NAME [options]" */
	const char *summary;
	const char *example; /* one or more full lines */
	const struct arg *options;
	unsigned rest_min, rest_max;    /* how many other words are allowed */
	const char *rest[ARG_REST_MAX]; /* result */
	unsigned rest_count;            /* result */
};

/* True: go on. False: end with *ret_exit (help was printed, or the usage error). */
bool args_parse(struct args *a, int argc, char **argv, int *ret_exit);

/* A command's own table of subcommands ("cert issue"): runs the named one or prints the overview. */
int cli_dispatch(const char *command, const struct command *table, int argc, char **argv);

#endif
