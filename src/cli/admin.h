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
#include "cli/answer.h"
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

/* One page of a list: the rows in its `member` are appended to *rows, `max` of them at most and never more than
 * the main server gives at once. The cursor is "" before the first page and after the last. */
enum { ADMIN_CURSOR_BYTES = 80 };
MUST_CHECK int admin_page(struct admin *a, const char *path, const char *member, int64_t max,
	char cursor[ADMIN_CURSOR_BYTES], json_t *rows, struct err *e);

/* A list from its first page on, `max` rows at most. Free *ret with json_decref. */
#define ADMIN_ALL INT64_MAX
MUST_CHECK int admin_rows(
	struct admin *a, const char *path, const char *member, int64_t max, json_t **ret, struct err *e);

/* Both for a command that asks for nothing else: opens, asks, closes, clears the settings. */
MUST_CHECK int admin_once(struct settings *settings, const char *method, const char *path, const json_t *body,
	json_t **ret, struct err *e);
MUST_CHECK int admin_rows_once(struct settings *settings, const char *path, const char *member, int64_t max,
	json_t **ret, struct err *e);

/* --- whole commands, once their words are read: they return the exit code --- */

/* What "GET path" answers, as JSON or by `print`. */
int admin_show(const char *command, struct settings *settings, const char *path, bool json,
	void (*print)(const json_t *answer));

/* Rows that were fetched, as JSON or as a table. */
int admin_show_rows(const char *command, const json_t *rows, bool json, const struct answer_column *columns);

/* --- paths: fresh memory, NULL when out of memory. Every function above says so of a path that is NULL. --- */

/* "base?key=value&…", values percent-encoded; a NULL or empty value is left out. Ends with NULL. */
char *admin_path(const char *base, ...) __attribute__((sentinel));

/* base, then `name` percent-encoded, then tail: "/admin/clients/" "client 1" "/tokens". */
char *admin_path_of(const char *base, const char *name, const char *tail);

/* Options that every administrative command has; goes first in its table. */
#define ADMIN_OPTIONS(s)                                                                                     \
	{"data", ARG_TEXT, &(s).data, "DIR", "data directory"},                                              \
	{                                                                                                    \
		"config", ARG_TEXT, &(s).file, "FILE", "configuration; default DIR/sealpost.yaml"            \
	}

/* Says on stderr that the domain in an answer is a new one: it may be a typing mistake. */
void admin_note_new_domain(const json_t *answer);

#endif
