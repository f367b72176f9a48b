/* metrics.h - counters, gauges and histograms, named in one table (metrics.def), served as Prometheus text.
 *
 * A metric is a row; a series is a row with label values. Label values come from fixed sets (routes, states,
 * reasons): never an id, a client name or anything a peer can choose. A row has at most 256 series; past
 * that values are counted under "other". A row without labels is there from the start, as 0.
 *
 * Cost:     counters and histograms are sharded by thread: an update is one relaxed add to a cache line that
 *           other threads rarely touch. No lock, no allocation.
 * Units:    base units as Prometheus asks (seconds, bytes); histogram observations are given in nanoseconds
 *           or plain counts, as the row says.
 * Threads:  any. metrics_write sees every update that happened before it, not an atomic snapshot. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdint.h>

#include "base/buf.h"

/* See metrics.def. */
enum metric {
#define METRIC(id, type, name, buckets, labels, help) id,
#include "base/metrics.def"
#undef METRIC
	METRIC_COUNT
};

/* A series handle; look it up once, keep it. */
typedef uint32_t series_t;

/* The series of `m` with these label values, in the order of the row's labels, NULL-terminated; registered at
 * first use. Takes a lock: call at start-up or cache the result. */
series_t metric_series(enum metric m, const char *const *values);

/* One-label shorthand. */
series_t metric_series1(enum metric m, const char *value);

void series_add(series_t s, uint64_t n);
void series_set(series_t s, double value);
void series_observe(series_t s, uint64_t value); /* nanoseconds for *_seconds histograms, else a count */
uint64_t series_value(series_t s); /* counter's sum, histogram's observations; for tests and health */

/* For rows without labels. */
void metric_add(enum metric m, uint64_t n);
void metric_set(enum metric m, double value);
void metric_observe(enum metric m, uint64_t value);

/* Appends the whole table as Prometheus text format 0.0.4, with HELP and TYPE. */
void metrics_write(struct buf *out);

/* The page doc/metrics.md: all rows as a Markdown table. */
void metrics_reference(struct buf *out);

/* Called by metrics_write before it reads, to refresh gauges that are computed on demand. At most 16. It may
 * look series up, but not add or remove collectors; after metrics_off_collect it runs no more. */
void metrics_on_collect(void (*fn)(void *arg), void *arg);
void metrics_off_collect(void (*fn)(void *arg), void *arg);

#endif
