/* report.h - a load run's result, as text for people, one JSON object, or CSV (a heading and one line).
 * Units: latencies in milliseconds in the text, in microseconds in JSON and CSV. */
#ifndef CLI_LOAD_REPORT_H
#define CLI_LOAD_REPORT_H

#include <stdio.h>

#include "cli/load/run.h"

/* `durability` is what the server says a 202 promises. */
MUST_CHECK int report_print(const struct load_options *o, const struct run_result *r, const char *durability,
	FILE *f, struct err *e);

#endif
