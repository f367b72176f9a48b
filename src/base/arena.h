/* arena.h - memory for one request or one delivery: allocate freely, free all at once.
 * Nothing taken from an arena outlives it unless copied out.
 * Ownership: the arena owns every block; arena_reset keeps the first block for the next request.
 * Errors:    NULL when the ceiling is reached or memory runs out.
 * Threads:   one thread at a time.
 * Security:  blocks are overwritten when reset or cleared: requests carry plaintext. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/macros.h"
#include "base/str.h"

struct arena_block;

struct arena {
	struct arena_block *first, *current;
	size_t used_bytes; /* over all blocks */
	size_t ceiling_bytes;
};

void arena_init(struct arena *a, size_t ceiling_bytes);
void arena_reset(struct arena *a);
void arena_clear(struct arena *a);

/* Aligned for any type, not zeroed. */
MUST_CHECK void *arena_alloc(struct arena *a, size_t n);
MUST_CHECK void *arena_zalloc(struct arena *a, size_t n);
MUST_CHECK char *arena_strdup(struct arena *a, struct str s); /* NUL-terminated copy */
MUST_CHECK char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF(2, 3);

/* Copy as a view; .p is NULL on failure (also for an empty s that could not be copied). */
struct str arena_copy(struct arena *a, struct str s);

static inline void arena_auto(struct arena *a)
{
	arena_clear(a);
}

#endif
