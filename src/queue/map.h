/* map.h - 64-bit keys to 64-bit values in memory; a key may have several values.
 * Bounds:    grows with what is in it, 16 bytes a slot, at most two thirds full; never shrinks, so that what
 * was removed can always be put back. Ownership: map_init in place, map_clear frees. Threads:   one at a
 * time. Security:  places depend on a random seed, so that nobody can choose keys that crowd together. */
#ifndef QUEUE_MAP_H
#define QUEUE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct map_slot {
	uint64_t key, value; /* value 0: free */
};

struct map {
	struct map_slot *slots;
	unsigned bits; /* of the number of slots */
	size_t count;
	uint64_t seed;
};

void map_init(struct map *m, uint64_t seed);
void map_clear(struct map *m);

/* `value` is not 0. */
MUST_CHECK int map_add(struct map *m, uint64_t key, uint64_t value, struct err *e);

/* Takes out this pair; false when it is not there. */
bool map_remove(struct map *m, uint64_t key, uint64_t value);

/* Gives the pair another value; false when it is not there. */
bool map_replace(struct map *m, uint64_t key, uint64_t value, uint64_t new_value);

/* The values of a key, one a call, 0 after the last; *cursor starts at 0. */
uint64_t map_next(const struct map *m, uint64_t key, size_t *cursor);

static inline uint64_t map_get(const struct map *m, uint64_t key)
{
	size_t cursor = 0;
	return map_next(m, key, &cursor);
}

#endif
