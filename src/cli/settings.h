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
};

/* Resolves the paths and loads the configuration. */
MUST_CHECK int settings_open(struct settings *s, struct config **ret_config, struct err *e);

/* The configuration again, for a reload. */
MUST_CHECK int settings_load(const struct settings *s, struct config **ret_config, struct err *e);
void settings_clear(struct settings *s);

/* Opens the log as configured, or reopens it. */
MUST_CHECK int settings_log(const struct config *c, bool again, struct err *e);

#endif
