/* queue.h - what the files of `sealpost queue` share: which messages a command is about.
 * Ownership: strings are the command line's. Threads: main thread. */
#ifndef CLI_QUEUE_H
#define CLI_QUEUE_H

#include "cli/cli.h"

struct queue_choice {
	const char *client, *domain, *error, *before, *older_than;
	char before_text[32]; /* what --older-than comes to */
};

#define QUEUE_CHOICE_OPTIONS(c)                                                                              \
	{"client", ARG_TEXT, &(c).client, "NAME", "only this client's"},                                     \
		{"domain", ARG_TEXT, &(c).domain, "D", "only this domain's"},                                \
		{"error", ARG_TEXT, &(c).error, "TEXT", "only those whose last error has this text"},        \
		{"before", ARG_TEXT, &(c).before, "TIME", "only those accepted before, RFC 3339"},           \
	{                                                                                                    \
		"older-than", ARG_TEXT, &(c).older_than, "DURATION",                                         \
			"only those accepted longer ago than this, such as 90m or 7d"                        \
	}

/* Turns --older-than into .before. ERR_REJECT: it is no duration, .before no time, or both were given. */
MUST_CHECK int queue_choice_settle(struct queue_choice *c, struct err *e);

int cmd_queue_redrive(int argc, char **argv);
int cmd_queue_purge(int argc, char **argv);

#endif
