/* name_set.c - see name_set.h. Chains of entries; a name is folded eight bytes at a time through a 64 x 64
 * bit multiplication, both halves kept, so that every input bit reaches the bucket number. */
#include "message/name_set.h"

#include <pthread.h>
#include <unistd.h>

struct name_entry {
	struct name_entry *next;
	struct str name;
	uint64_t hash; /* of object and name */
	unsigned object;
};

static uint64_t seed[2];
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

/* Without randomness the set still works; only its speed under attack is no longer promised. */
static void draw_seed(void)
{
	if (getentropy(seed, sizeof(seed)) < 0)
		seed[0] = (uint64_t)getpid();
}

void name_set_init(struct name_set *set, struct arena *arena)
{
	pthread_once(&seed_once, draw_seed);
	*set = (struct name_set){.arena = arena};
}

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash(unsigned object, struct str name)
{
	uint64_t h = seed[0] ^ object ^ (uint64_t)name.n << 32;
	while (name.n) {
		uint64_t word = 0;
		size_t n = name.n < sizeof(word) ? name.n : sizeof(word);
		memcpy(&word, name.p, n);
		h = fold(h ^ word, seed[1] | 1);
		name.p += n, name.n -= n;
	}
	return fold(h, seed[1] | 1);
}

enum name_set_answer name_set_add(struct name_set *set, unsigned object, struct str name)
{
	uint64_t h = hash(object, name);
	struct name_entry **bucket = &set->buckets[h % NAME_SET_BUCKETS];
	for (struct name_entry *at = *bucket; at; at = at->next)
		if (at->hash == h && at->object == object && str_eq(at->name, name))
			return NAME_PRESENT;
	struct name_entry *entry = arena_alloc(set->arena, sizeof(*entry));
	if (!entry)
		return NAME_NO_MEMORY;
	*entry = (struct name_entry){.next = *bucket, .name = name, .hash = h, .object = object};
	*bucket = entry;
	return NAME_ADDED;
}
