/* scrape.h - reads what a process says of itself as Prometheus text (format 0.0.4).
 *
 * Texts are ours, but come over a network: what is malformed is passed over, and nothing is kept of it.
 * Units:   as in the text.
 * Threads: none of its own. */
#ifndef CLI_LOAD_SCRAPE_H
#define CLI_LOAD_SCRAPE_H

#include "base/str.h"

/* One line: its name, its labels as they stand between the braces, its value. */
struct scrape_series {
	struct str name, labels;
	double value;
};

/* Takes the next series off the text; false at its end. */
MUST_CHECK bool scrape_next(struct str *text, struct scrape_series *ret);

/* The value of a label; .p NULL when there is none of this name. */
struct str scrape_label(const struct scrape_series *s, const char *label);

/* Sum of all series of this name, and of these only that have label=value; `label` NULL: any. */
double scrape_sum(struct str text, const char *name, const char *label, const char *value);

enum { SCRAPE_BUCKETS_MAX = 40 };

/* Counts up to and with each bound, as histograms are exposed; the last bound is infinite. */
struct scrape_histogram {
	unsigned count;
	double bounds[SCRAPE_BUCKETS_MAX], upto[SCRAPE_BUCKETS_MAX];
};

/* Adds the text's histogram of this name, times `factor`: -1 takes away what was there before. */
void scrape_histogram_add(struct scrape_histogram *h, struct str text, const char *name, double factor);

/* The value below which so many percent lie, as if they were spread evenly within their bucket; of those past the
 * last bound that bound. 0 when there are none. */
double scrape_percentile(const struct scrape_histogram *h, double percent);

#endif
