/* settings.h - from command line options to paths and configuration, the same for every command. */
#ifndef CLI_SETTINGS_H
#define CLI_SETTINGS_H

#include "base/config.h"
#include "cli/cli.h"
#include "cli/paths.h"

struct settings {
	/* as given */
	const char *data, *file;
	struct arg_list sets;
	/* as found */
	struct paths paths;
	bool misused; /* a --set cannot be read, which is a mistake of the command line */
	/* Told of every mistake in the configuration; NULL: the first ends it. */
	void (*mistake)(void *arg, const struct err *what);
	void *arg;
};

/* Resolves the paths and loads the configuration. */
MUST_CHECK int settings_open(struct settings *s, struct config **ret_config, struct err *e);

/* The configuration again, for a reload. */
MUST_CHECK int settings_load(const struct settings *s, struct config **ret_config, struct err *e);
void settings_clear(struct settings *s);

/* As cli_fail, but a mistake of the command line is a usage error. */
int settings_fail(const struct settings *s, const char *command, const struct err *e);

/* Opens the log as configured, or reopens it. */
MUST_CHECK int settings_log(const struct config *c, bool again, struct err *e);

#endif
