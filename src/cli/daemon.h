/* daemon.h - what every long-running command shares: options, privileges, signals, readiness, reload, drain.
 */
#ifndef CLI_DAEMON_H
#define CLI_DAEMON_H

#include "cli/app.h"
#include "cli/cli.h"

struct daemon_command {
	const char *command, *summary, *example; /* as in struct args */
	enum app_mode mode;
};

/* Parses the options, runs until SIGTERM or SIGINT, returns the exit code. */
int daemon_main(const struct daemon_command *command, int argc, char **argv);

#endif
