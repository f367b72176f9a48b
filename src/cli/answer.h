/* answer.h - JSON answers, shown: single members, whole answers, lists as tables.
 *
 * Threads:  main thread.
 * Security: what a table shows is cleaned of control characters (term.h); what a command prints of its own
 *           accord is the command's to clean, where a peer chose it. */
#ifndef CLI_ANSWER_H
#define CLI_ANSWER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cli/term.h"

/* Members of an answer, for printing; "" or 0 when absent. */
const char *json_text(const json_t *object, const char *key);
int64_t json_number(const json_t *object, const char *key);

/* The answer as JSON on standard output, for --json. */
void print_json(const json_t *answer);

enum answer_cell {
	ANSWER_TEXT,
	ANSWER_NUMBER, /* right-aligned */
	ANSWER_DAY,    /* of a time: 2026-01-31; "-" where there is none */
	ANSWER_MINUTE, /* of a time: 2026-01-31T12:30 */
};

/* One column of a table, and how a row fills it. */
struct answer_column {
	const char *title, *member;
	enum answer_cell kind;
	const char *good; /* the word that is shown in green, every other in red; NULL: no colour */
	void (*fill)(
		struct term_table *t, const json_t *row); /* instead, where one member does not do; or NULL */
};

enum { ANSWER_COLUMNS_MAX = 12 };

/* An array of objects, one row each. `columns` ends with title NULL. */
MUST_CHECK int print_table(const json_t *rows, const struct answer_column *columns, FILE *f, struct err *e);

#endif
