/* histogram.h - durations, counted in buckets whose width is at most 1/64 of their value.
 * Buckets are linear below 128 ns and then 64 to each power of two, so that a percentile is off by at most
 * 1.6 % at any scale, in 20 KB and without allocation.
 * Units:   nanoseconds; what lasts over two hours is counted in the last bucket. max_ns is exact.
 * Threads: one writer; merge after it has stopped. */
#ifndef CLI_LOAD_HISTOGRAM_H
#define CLI_LOAD_HISTOGRAM_H

#include <stdint.h>

#include "base/macros.h"

enum {
	HISTOGRAM_SUB_BITS = 6,
	HISTOGRAM_VALUE_BITS = 43,
	HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS,
};

struct histogram {
	uint64_t count;
	int64_t max_ns;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* A negative duration counts as 0. */
void histogram_add(struct histogram *h, int64_t ns);

void histogram_merge(struct histogram *into, const struct histogram *from);

/* The duration that `percent` of the observations do not exceed; 0 when there are none. */
int64_t histogram_percentile(const struct histogram *h, double percent);

#endif
