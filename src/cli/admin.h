/* admin.h - administrative commands' way to the main server: HTTP over the admin socket of the data
 * directory.
 *
 * With no daemon running, the directory's lock is taken and the main server is opened in this process, behind
 * the same socket, for as long as the command runs: one code path, whoever answers.
 *
 * Errors: the answer's problem as an error: 404 ERR_NOT_FOUND, 401/403 ERR_FORBIDDEN, 409 ERR_CONFLICT, 503
 *         ERR_RETRY, other 4xx ERR_REJECT with what is wrong; ERR_RETRY when nothing answers. */
#ifndef CLI_ADMIN_H
#define CLI_ADMIN_H

#include <jansson.h>

#include "base/err.h"
#include "base/str.h"
#include "cli/settings.h"

struct admin;

MUST_CHECK int admin_open(struct settings *settings, struct admin **ret, struct err *e);
void admin_close(struct admin *a);

/* Whether a running daemon answers, not this process itself. */
bool admin_has_daemon(const struct admin *a);

/* One request. `body` NULL: none (it is not taken over). *ret is the answer's JSON; free with json_decref. */
MUST_CHECK int admin_call(struct admin *a, const char *method, const char *path, const json_t *body,
	json_t **ret, struct err *e);

/* How long a request may take from now on; without it a minute. */
void admin_set_timeout(struct admin *a, long seconds);

/* One request of a command that makes no other: opens, calls, closes, clears the settings. */
MUST_CHECK int admin_once(struct settings *settings, const char *method, const char *path, const json_t *body,
	json_t **ret, struct err *e);

/* Path with query: "base?key=value&…", values percent-encoded; a NULL or empty value is left out. Ends with
 * NULL. Fresh memory; NULL when out of memory. */
char *admin_path(const char *base, ...) __attribute__((sentinel));

/* Members of an answer, for printing; "" or 0 when absent. */
const char *json_text(const json_t *object, const char *key);
int64_t json_number(const json_t *object, const char *key);

/* The answer as JSON on stdout, for --json. */
void print_json(const json_t *answer);

/* Options that every administrative command has; goes first in its table. */
#define ADMIN_OPTIONS(s)                                                                                     \
	{"data", ARG_TEXT, &(s).data, "DIR", "data directory"},                                              \
	{                                                                                                    \
		"config", ARG_TEXT, &(s).file, "FILE", "configuration; default DIR/sealpost.yaml"            \
	}

#endif
