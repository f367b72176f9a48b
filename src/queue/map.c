/* map.c - see map.h. Open addressing with linear probing: one cache line for most look-ups. A removal closes
 * the gap by moving later members of the run back, so there are no tombstones and no slow decay.
 *
 * Placing by multiplication with a random odd number (Dietzfelbinger's multiply-shift) keeps two keys apart
 * with a probability that does not depend on the keys. */
#include "queue/map.h"

#include <stdlib.h>

enum { FIRST_BITS = 6 };

void map_init(struct map *m, uint64_t seed)
{
	*m = (struct map){.seed = seed | 1};
}

void map_clear(struct map *m)
{
	free(m->slots);
	*m = (struct map){.seed = m->seed};
}

static size_t home(const struct map *m, uint64_t key)
{
	return (size_t)(key * m->seed >> (64 - m->bits));
}

static size_t mask(const struct map *m)
{
	return ((size_t)1 << m->bits) - 1;
}

static size_t room(const struct map *m)
{
	return m->slots ? mask(m) + 1 : 0;
}

static void place(struct map *m, struct map_slot pair)
{
	size_t i = home(m, pair.key);
	while (m->slots[i].value)
		i = (i + 1) & mask(m);
	m->slots[i] = pair;
}

static int grow(struct map *m, struct err *e)
{
	struct map bigger = *m;
	bigger.bits = m->slots ? m->bits + 1 : FIRST_BITS;
	bigger.slots = calloc(mask(&bigger) + 1, sizeof(*bigger.slots));
	if (!bigger.slots)
		return err_oom(e);
	for (size_t i = 0; i < room(m); i++)
		if (m->slots[i].value)
			place(&bigger, m->slots[i]);
	free(m->slots);
	*m = bigger;
	return 0;
}

int map_add(struct map *m, uint64_t key, uint64_t value, struct err *e)
{
	require(value);
	if ((m->count + 1) * 3 > room(m) * 2 && grow(m, e) < 0)
		return -1;
	place(m, (struct map_slot){key, value});
	m->count++;
	return 0;
}

/* The slot that holds the pair, or NULL. */
static struct map_slot *slot_of(struct map *m, uint64_t key, uint64_t value)
{
	if (!m->slots)
		return NULL;
	for (size_t i = home(m, key); m->slots[i].value; i = (i + 1) & mask(m))
		if (m->slots[i].key == key && m->slots[i].value == value)
			return &m->slots[i];
	return NULL;
}

bool map_remove(struct map *m, uint64_t key, uint64_t value)
{
	struct map_slot *slot = slot_of(m, key, value);
	if (!slot)
		return false;
	size_t gap = (size_t)(slot - m->slots);
	for (size_t i = (gap + 1) & mask(m); m->slots[i].value; i = (i + 1) & mask(m)) {
		/* A member may fill the gap unless its home lies behind the gap. */
		size_t from_home = (i - home(m, m->slots[i].key)) & mask(m);
		size_t from_gap = (i - gap) & mask(m);
		if (from_home >= from_gap) {
			m->slots[gap] = m->slots[i];
			gap = i;
		}
	}
	m->slots[gap].value = 0;
	m->count--;
	return true;
}

bool map_replace(struct map *m, uint64_t key, uint64_t value, uint64_t new_value)
{
	require(new_value);
	struct map_slot *slot = slot_of(m, key, value);
	if (!slot)
		return false;
	slot->value = new_value;
	return true;
}

uint64_t map_next(const struct map *m, uint64_t key, size_t *cursor)
{
	if (!m->slots)
		return 0;
	for (size_t i = (home(m, key) + *cursor) & mask(m); m->slots[i].value; i = (i + 1) & mask(m)) {
		(*cursor)++;
		if (m->slots[i].key == key)
			return m->slots[i].value;
	}
	return 0;
}
