/* ca.h - what the files of `sealpost ca` share. */
#ifndef CLI_CA_H
#define CLI_CA_H

#include <jansson.h>

#include "cli/cli.h"
#include "cli/settings.h"

/* A file with the root's private key, outside the data directory. */
struct ca_root_file {
	struct settings settings;
	const char *file;            /* NULL: not given */
	const char *passphrase_file; /* NULL: asked for on the terminal */
};

/* Writes the root's key into a file that must not exist yet; then, where `remove`, has it removed from the data
 * directory. Says what it did; clears the settings. */
MUST_CHECK int ca_export_root_key(struct ca_root_file *root, bool remove, struct err *e);

/* The CA as /admin/ca describes it. */
void ca_print(const json_t *ca);

int cmd_ca_import_root(int argc, char **argv);
int cmd_ca_rotate_issuing(int argc, char **argv);
int cmd_ca_passphrase(int argc, char **argv);

#endif
