/* term.h - what the commands write for people: tables in columns, colour, a progress line, errors.
 *
 * Colour appears only on a terminal, and never when NO_COLOR is set to anything but "" (no-color.org) or TERM
 * is "dumb". The progress line goes to standard error and only when that is a terminal.
 *
 * Ownership: a table copies its cells; new/free.
 * Threads:   one thread at a time.
 * Security:  text that came from a peer can carry escape sequences that drive a terminal; cells and
 *            term_put_untrusted show control characters instead of sending them. */
#ifndef CLI_TERM_H
#define CLI_TERM_H

#include <stdbool.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/str.h"

enum term_style { TERM_PLAIN, TERM_BOLD, TERM_DIM, TERM_RED, TERM_GREEN, TERM_YELLOW, TERM_STYLES };

/* Whether colour may be sent to this stream. */
bool term_colours(FILE *f);

/* printf in a style, where the stream takes colour. */
void term_styled(FILE *f, enum term_style style, const char *fmt, ...) PRINTF(3, 4);

/* The text with every control character (C0, DEL, C1) shown as \xHH. */
void term_put_untrusted(FILE *f, struct str text);

/* "sealpost COMMAND: message" on standard error, after the progress line has been taken away. */
void term_error(const char *command, const char *fmt, ...) PRINTF(2, 3);

struct term_column {
	const char *title; /* NULL in the first column: the table has no heading line */
	bool right;        /* numbers */
};

struct term_table;

/* `columns` must outlive the table. NULL when out of memory. */
MUST_CHECK struct term_table *term_table_new(const struct term_column *columns, unsigned count);
void term_table_free(struct term_table *t);
AUTO_DEFINE(term_table_free, struct term_table *)

/* Fills the next cell, row by row; a failure shows in term_table_print. */
void term_table_cell(struct term_table *t, const char *fmt, ...) PRINTF(2, 3);

/* The style of the cell filled last. */
void term_table_style(struct term_table *t, enum term_style style);

/* Prints the rows that are complete. */
MUST_CHECK int term_table_print(struct term_table *t, FILE *f, struct err *e);

/* Shows the line in place of the one before; nothing when standard error is no terminal. */
void term_progress(const char *fmt, ...) PRINTF(1, 2);
void term_progress_clear(void);

#endif
