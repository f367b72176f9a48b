/* home.h - a data directory: what it holds before anything runs, and how its certificate authority is opened.
 *
 * Threads: main thread, before any other is started.
 * Errors:  those of base/file.h and ca/ca.h; ERR_REJECT for a passphrase file that cannot be meant. */
#ifndef CLI_HOME_H
#define CLI_HOME_H

#include "base/config.h"
#include "ca/ca.h"
#include "cli/paths.h"

/* The configuration file of a new data directory: comments only. */
extern const char home_config_template[];

/* Makes data directory and configuration file where they are missing, and, for who is an `authority`, keys and
 * CA. Takes and frees the lock. */
MUST_CHECK int home_init(
	const struct paths *paths, const struct config *config, bool authority, struct err *e);

/* *ret points into `paths`, `config` and *ret_passphrase_file, which is fresh memory or NULL. */
MUST_CHECK int home_ca_options(const struct paths *paths, const struct config *config, struct ca_options *ret,
	char **ret_passphrase_file, struct err *e);

#endif
