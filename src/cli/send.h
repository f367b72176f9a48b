/* send.h - what `sealpost send` and its file mode share. */
#ifndef CLI_SEND_H
#define CLI_SEND_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "cli/post.h"

struct send_options {
	struct https_options https;
	const char *file;       /* "-": standard input; NULL: one message from the command line */
	const char *resume_key; /* Idempotency-Keys are "RESUME_KEY-LINE" instead of random; NULL: random */
	unsigned batch;         /* messages in one request; 0: one by one */
	unsigned parallel, retries;
	bool json, ids;
};

/* The exit code that belongs to an answer, or to its absence. */
int send_exit_code(const struct post *p);

/* A post that was not accepted, on standard error: the problem, or why there was no answer. `where` may be
 * "". */
void send_print_failure(const struct post *p, const char *where, const json_t *answer);

/* Sends every line of the file; returns the exit code. */
int send_file(const struct send_options *o);

#endif
