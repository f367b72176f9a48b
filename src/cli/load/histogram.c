/* histogram.c - see histogram.h. A value keeps its 7 highest bits; the rest decides the power of two:
 * bucket = exponent * 64 + (value >> exponent), which is continuous because a shifted value is 64..127. */
#include "cli/load/histogram.h"

static const uint64_t value_max = ((uint64_t)1 << HISTOGRAM_VALUE_BITS) - 1;

static unsigned exponent_of(uint64_t v)
{
	unsigned bits = 64 - (unsigned)__builtin_clzll(v | 1);
	return bits > HISTOGRAM_SUB_BITS + 1 ? bits - (HISTOGRAM_SUB_BITS + 1) : 0;
}

static unsigned bucket_of(uint64_t v)
{
	unsigned exponent = exponent_of(v);
	return (exponent << HISTOGRAM_SUB_BITS) + (unsigned)(v >> exponent);
}

/* The largest value that falls into the bucket. */
static int64_t bucket_top(unsigned bucket)
{
	unsigned exponent = bucket >> HISTOGRAM_SUB_BITS;
	exponent = exponent ? exponent - 1 : 0;
	uint64_t shifted = bucket - (exponent << HISTOGRAM_SUB_BITS);
	return (int64_t)(((shifted + 1) << exponent) - 1);
}

void histogram_add(struct histogram *h, int64_t ns)
{
	uint64_t v = ns > 0 ? (uint64_t)ns : 0;
	h->buckets[bucket_of(v < value_max ? v : value_max)]++;
	h->count++;
	if (ns > h->max_ns)
		h->max_ns = ns;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
	into->count += from->count;
	if (from->max_ns > into->max_ns)
		into->max_ns = from->max_ns;
}

int64_t histogram_percentile(const struct histogram *h, double percent)
{
	double exact = percent / 100 * (double)h->count;
	uint64_t rank = (uint64_t)exact, seen = 0;
	rank += (double)rank < exact;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen >= rank && seen)
			return bucket_top(i) < h->max_ns ? bucket_top(i) : h->max_ns;
	}
	return h->max_ns;
}
