/* report.h - a load run's result, as text for people, one JSON object, or CSV (a heading and one line).
 * Units: latencies in milliseconds in the text, in microseconds in JSON and CSV. */
#ifndef CLI_LOAD_REPORT_H
#define CLI_LOAD_REPORT_H

#include <stdio.h>

#include "cli/load/run.h"

struct figure {
	const char *name;
	double value;
	bool whole; /* an integer */
};

/* What a command has measured besides; JSON and CSV get its figures, the text what `print` writes. */
struct report_more {
	const struct figure *figures;
	unsigned count;
	int (*print)(void *arg, FILE *f, struct err *e);
	void *arg;
};

/* `durability` is what the server says a 202 promises; `more` may be NULL. */
MUST_CHECK int report_print(const struct load_options *o, const struct run_result *r, const char *durability,
	const struct report_more *more, FILE *f, struct err *e);

#endif
