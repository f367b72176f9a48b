/* metrics.c - see metrics.h.
 *
 * Every row owns a fixed range of cells, sized at compile time for all the series it may ever have; the
 * ranges of one shard lie in one zeroed array, of which the kernel only backs the pages that are touched.
 * A thread adds to the cells of its own shard, reading sums over the shards. A handle holds the index of its
 * first cell and what kind of series it is, so that an update looks nothing up.
 *
 * Cells of a counter: the count. Of a gauge: the bits of a double, in the first shard only, as a set must
 * replace what other threads set. Of a histogram: one for each bucket, the last without bound, then the sum.
 */
#include "base/metrics.h"

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 16, CACHE_LINE_BYTES = 64, SERIES_MAX = 256, LABELS_BYTES_MAX = 1024, COLLECTORS_MAX = 16 };

enum type { TYPE_COUNTER, TYPE_GAUGE, TYPE_HISTOGRAM };
static const char *const type_names[] = {"counter", "gauge", "histogram"};

#define US 1000ull
#define MS 1000000ull
#define S  1000000000ull

static const uint64_t seconds_bounds[] = {100 * US, 250 * US, 500 * US, 1 * MS, 2500 * US, 5 * MS, 10 * MS,
	25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, 1 * S, 2500 * MS, 5 * S, 10 * S, 30 * S, 60 * S};
static const uint64_t count_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

/* What a row's observations are measured with. */
enum scale { SCALE_NONE, SCALE_SECONDS, SCALE_COUNTS };

static const struct {
	const uint64_t *bounds;
	unsigned bound_count;
	uint64_t unit; /* this many make one in the output */
} scales[] = {
	[SCALE_NONE] = {NULL, 0, 1},
	[SCALE_SECONDS] = {seconds_bounds, ARRAY_LEN(seconds_bounds), S},
	[SCALE_COUNTS] = {count_bounds, ARRAY_LEN(count_bounds), 1},
};

enum {
	CELLS_NONE = 1,
	CELLS_SECONDS = ARRAY_LEN(seconds_bounds) + 2,
	CELLS_COUNTS = ARRAY_LEN(count_bounds) + 2,
};

/* With labels there is one series more than the bound: "other". */
#define SERIES_OF(labels) (sizeof(labels) > 1 ? SERIES_MAX + 1 : 1)

enum {
#define METRIC(id, type, name, buckets, labels, help)                                                        \
	FIRST_##id, LAST_##id = FIRST_##id + SERIES_OF(labels) * CELLS_##buckets - 1,
#include "base/metrics.def"
#undef METRIC
	CELL_COUNT
};

struct row {
	const char *name, *labels, *help;
	enum type type;
	enum scale scale;
	unsigned first_cell, cells_per_series;
};

static const struct row rows[METRIC_COUNT] = {
#define METRIC(id, type, name, buckets, labels, help)                                                        \
	[id] = {name, labels, help, TYPE_##type, SCALE_##buckets, FIRST_##id, CELLS_##buckets},
#include "base/metrics.def"
#undef METRIC
};

#define METRIC(id, type, name, buckets, labels, help)                                                        \
	_Static_assert((TYPE_##type == TYPE_HISTOGRAM) == (SCALE_##buckets != SCALE_NONE),                   \
		name ": a histogram has buckets, nothing else has");
#include "base/metrics.def"
#undef METRIC

static struct shard {
	alignas(CACHE_LINE_BYTES) _Atomic uint64_t cells[CELL_COUNT];
} shards[SHARDS];

/* The series of a row with labels. */
struct registered {
	char *labels[SERIES_MAX]; /* as written: listener="ingest",route="/livez" */
	unsigned count;
	bool overflowed; /* "other" is in use */
};

static struct registered registered[METRIC_COUNT];
static pthread_mutex_t register_lock = PTHREAD_MUTEX_INITIALIZER; /* guards `registered` */

static struct collector {
	void (*fn)(void *arg);
	void *arg;
} collectors[COLLECTORS_MAX];
static unsigned collector_count;
static pthread_mutex_t collect_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the two; held while they run */

/* --- handles --- */

enum { CELL_BITS = 28, SCALE_BITS = 2 };
_Static_assert(CELL_COUNT < 1 << CELL_BITS, "cells of all rows must fit into a handle");

static series_t handle_of(enum metric m, unsigned index)
{
	const struct row *row = &rows[m];
	return (series_t)row->type << (CELL_BITS + SCALE_BITS) | (series_t)row->scale << CELL_BITS |
	       (row->first_cell + index * row->cells_per_series);
}

static enum type type_of(series_t s)
{
	return s >> (CELL_BITS + SCALE_BITS);
}

static enum scale scale_of(series_t s)
{
	return s >> CELL_BITS & ((1u << SCALE_BITS) - 1);
}

static unsigned cell_of(series_t s)
{
	return s & ((1u << CELL_BITS) - 1);
}

/* --- updates --- */

static struct shard *my_shard(void)
{
	static _Atomic unsigned threads;
	static _Thread_local struct shard *mine;
	if (unlikely(!mine))
		mine = &shards[atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) % SHARDS];
	return mine;
}

static void cell_add(unsigned cell, uint64_t n)
{
	atomic_fetch_add_explicit(&my_shard()->cells[cell], n, memory_order_relaxed);
}

static uint64_t cell_sum(unsigned cell)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < SHARDS; i++)
		sum += atomic_load_explicit(&shards[i].cells[cell], memory_order_relaxed);
	return sum;
}

void series_add(series_t s, uint64_t n)
{
	require(type_of(s) == TYPE_COUNTER);
	cell_add(cell_of(s), n);
}

void series_set(series_t s, double value)
{
	require(type_of(s) == TYPE_GAUGE);
	uint64_t bits;
	memcpy(&bits, &value, sizeof(bits));
	atomic_store_explicit(&shards[0].cells[cell_of(s)], bits, memory_order_relaxed);
}

static double gauge_value(unsigned cell)
{
	uint64_t bits = atomic_load_explicit(&shards[0].cells[cell], memory_order_relaxed);
	double value;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

void series_observe(series_t s, uint64_t value)
{
	require(type_of(s) == TYPE_HISTOGRAM);
	enum scale scale = scale_of(s);
	const uint64_t *bounds = scales[scale].bounds;
	unsigned count = scales[scale].bound_count, bucket = 0;
	while (bucket < count && value > bounds[bucket])
		bucket++;
	cell_add(cell_of(s) + bucket, 1);
	cell_add(cell_of(s) + count + 1, value);
}

static uint64_t observation_count(series_t s)
{
	uint64_t count = 0;
	for (unsigned i = 0; i <= scales[scale_of(s)].bound_count; i++)
		count += cell_sum(cell_of(s) + i);
	return count;
}

uint64_t series_value(series_t s)
{
	require(type_of(s) != TYPE_GAUGE);
	return type_of(s) == TYPE_HISTOGRAM ? observation_count(s) : cell_sum(cell_of(s));
}

static series_t only_series(enum metric m)
{
	require(!*rows[m].labels);
	return handle_of(m, 0);
}

void metric_add(enum metric m, uint64_t n)
{
	series_add(only_series(m), n);
}

void metric_set(enum metric m, double value)
{
	series_set(only_series(m), value);
}

void metric_observe(enum metric m, uint64_t value)
{
	series_observe(only_series(m), value);
}

/* --- registration --- */

static void add_escaped(struct buf *out, const char *value)
{
	for (const char *p = value; *p; p++) {
		if (*p == '\n') {
			buf_add_str(out, STR("\\n"));
			continue;
		}
		if (*p == '"' || *p == '\\')
			buf_add_char(out, '\\');
		buf_add_char(out, *p);
	}
}

/* name="value",… in the order of the row; without values each is "other". */
static void add_labels(struct buf *out, const struct row *row, const char *const *values)
{
	struct str left = str_of(row->labels), name;
	unsigned i = 0;
	for (bool more = true; more; i++) {
		more = str_cut(&left, ',', &name);
		require(!values || values[i]);
		buf_addf(out, "%s%.*s=\"", i ? "," : "", STR_ARG(more ? name : left));
		add_escaped(out, values ? values[i] : "other");
		buf_add_char(out, '"');
	}
	require(!values || !values[i]);
}

/* Index of the series with these labels; what cannot be registered is "other". */
static unsigned find_or_register(struct registered *reg, const struct buf *labels)
{
	for (unsigned i = 0; i < reg->count; i++)
		if (str_eq(buf_str(labels), str_of(reg->labels[i])))
			return i;
	bool room = reg->count < SERIES_MAX && !labels->failed;
	char *copy = room ? strndup(labels->p, labels->n) : NULL;
	if (!copy) {
		reg->overflowed = true;
		return SERIES_MAX;
	}
	reg->labels[reg->count] = copy;
	return reg->count++;
}

series_t metric_series(enum metric m, const char *const *values)
{
	const struct row *row = &rows[m];
	if (!*row->labels) {
		require(!values[0]);
		return handle_of(m, 0);
	}
	struct buf labels;
	buf_init(&labels, LABELS_BYTES_MAX);
	add_labels(&labels, row, values);
	pthread_mutex_lock(&register_lock);
	unsigned index = find_or_register(&registered[m], &labels);
	pthread_mutex_unlock(&register_lock);
	buf_clear(&labels);
	return handle_of(m, index);
}

series_t metric_series1(enum metric m, const char *value)
{
	return metric_series(m, (const char *const[]){value, NULL});
}

/* --- output --- */

/* name_suffix{labels,le="bound"} ; labels and bound may be empty. */
static void add_name(
	struct buf *out, const struct row *row, const char *suffix, const char *labels, const char *bound)
{
	buf_addf(out, "%s%s", row->name, suffix);
	if (*labels || *bound)
		buf_addf(out, "{%s%s%s}", labels, *labels && *bound ? "," : "", bound);
	buf_add_char(out, ' ');
}

static void write_histogram(struct buf *out, const struct row *row, series_t s, const char *labels)
{
	enum scale scale = scale_of(s);
	unsigned bound_count = scales[scale].bound_count;
	uint64_t unit = scales[scale].unit, count = 0;
	for (unsigned i = 0; i <= bound_count; i++) {
		char bound[32] = "le=\"+Inf\"";
		if (i < bound_count)
			snprintf(bound, sizeof(bound), "le=\"%g\"",
				(double)scales[scale].bounds[i] / (double)unit);
		count += cell_sum(cell_of(s) + i);
		add_name(out, row, "_bucket", labels, bound);
		buf_addf(out, "%llu\n", (unsigned long long)count);
	}
	add_name(out, row, "_sum", labels, "");
	buf_addf(out, "%.15g\n", (double)cell_sum(cell_of(s) + bound_count + 1) / (double)unit);
	add_name(out, row, "_count", labels, "");
	buf_addf(out, "%llu\n", (unsigned long long)count);
}

static void write_series(struct buf *out, enum metric m, unsigned index, const char *labels)
{
	const struct row *row = &rows[m];
	series_t s = handle_of(m, index);
	if (row->type == TYPE_HISTOGRAM) {
		write_histogram(out, row, s, labels);
		return;
	}
	add_name(out, row, "", labels, "");
	if (row->type == TYPE_GAUGE)
		buf_addf(out, "%.15g\n", gauge_value(cell_of(s)));
	else
		buf_addf(out, "%llu\n", (unsigned long long)cell_sum(cell_of(s)));
}

static void write_other(struct buf *out, enum metric m)
{
	struct buf labels;
	buf_init(&labels, LABELS_BYTES_MAX);
	add_labels(&labels, &rows[m], NULL);
	buf_add_char(&labels, 0);
	if (!labels.failed)
		write_series(out, m, SERIES_MAX, labels.p);
	buf_clear(&labels);
}

static void write_row(struct buf *out, enum metric m)
{
	const struct row *row = &rows[m];
	const struct registered *reg = &registered[m];
	if (*row->labels && !reg->count && !reg->overflowed)
		return;
	buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name, type_names[row->type]);
	if (!*row->labels)
		write_series(out, m, 0, "");
	for (unsigned i = 0; i < reg->count; i++)
		write_series(out, m, i, reg->labels[i]);
	if (reg->overflowed)
		write_other(out, m);
}

static void collect(void)
{
	pthread_mutex_lock(&collect_lock);
	for (unsigned i = 0; i < collector_count; i++)
		collectors[i].fn(collectors[i].arg);
	pthread_mutex_unlock(&collect_lock);
}

void metrics_write(struct buf *out)
{
	collect();
	pthread_mutex_lock(&register_lock);
	for (enum metric m = 0; m < METRIC_COUNT; m++)
		write_row(out, m);
	pthread_mutex_unlock(&register_lock);
}

void metrics_on_collect(void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&collect_lock);
	require(collector_count < COLLECTORS_MAX);
	collectors[collector_count++] = (struct collector){fn, arg};
	pthread_mutex_unlock(&collect_lock);
}

void metrics_off_collect(void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&collect_lock);
	for (unsigned i = 0; i < collector_count; i++) {
		if (collectors[i].fn == fn && collectors[i].arg == arg) {
			collectors[i] = collectors[--collector_count];
			break;
		}
	}
	pthread_mutex_unlock(&collect_lock);
}

static void reference_labels(struct buf *out, const char *labels)
{
	for (const char *p = labels; *p; p++) {
		if (*p == ',')
			buf_add_str(out, STR("`, `"));
		else
			buf_add_char(out, *p);
	}
}

void metrics_reference(struct buf *out)
{
	buf_add_str(out,
		STR("# Metrics\n\n"
		    "Served as Prometheus text at `/metrics`. A metric has at most 256 series; past that "
		    "values are counted as `other`.\n\n"
		    "| metric | type | labels | meaning |\n|---|---|---|---|\n"));
	for (enum metric m = 0; m < METRIC_COUNT; m++) {
		const struct row *row = &rows[m];
		const char *tick = *row->labels ? "`" : "";
		buf_addf(out, "| `%s` | %s | %s", row->name, type_names[row->type], tick);
		reference_labels(out, row->labels);
		buf_addf(out, "%s | %s |\n", tick, row->help);
	}
}
