/* name_set.h - which member names of which object have been seen.
 *
 * Any number of objects share one set. Finding a name takes constant time even when the names are chosen by
 * an attacker: the hash is seeded once per process from the kernel.
 *
 * Ownership: entries live in the arena; names are views and must outlive the set.
 * Threads:   one thread at a time per set. */
#ifndef MESSAGE_NAME_SET_H
#define MESSAGE_NAME_SET_H

#include <stdint.h>

#include "base/arena.h"
#include "base/str.h"

enum { NAME_SET_BUCKETS = 64 };

struct name_entry;

struct name_set {
	struct arena *arena;
	struct name_entry *buckets[NAME_SET_BUCKETS];
};

void name_set_init(struct name_set *set, struct arena *arena);

enum name_set_answer { NAME_ADDED, NAME_PRESENT, NAME_NO_MEMORY };
MUST_CHECK enum name_set_answer name_set_add(struct name_set *set, unsigned object, struct str name);

#endif
