/* arena.c - see arena.h. Blocks in a list, 4 KiB each or as large as the one allocation that needs it. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK_BYTES = 4096 };

struct arena_block {
	struct arena_block *next;
	size_t n, room;
	alignas(max_align_t) char bytes[];
};

void arena_init(struct arena *a, size_t ceiling_bytes)
{
	*a = (struct arena){.ceiling_bytes = ceiling_bytes};
}

static void free_from(struct arena_block *block)
{
	while (block) {
		struct arena_block *next = block->next;
		explicit_bzero(block->bytes, block->n);
		free(block);
		block = next;
	}
}

void arena_reset(struct arena *a)
{
	if (!a->first)
		return;
	free_from(a->first->next);
	explicit_bzero(a->first->bytes, a->first->n);
	a->first->next = NULL;
	a->first->n = 0;
	a->current = a->first;
	a->used_bytes = 0;
}

void arena_clear(struct arena *a)
{
	if (!a)
		return;
	free_from(a->first);
	*a = (struct arena){.ceiling_bytes = a->ceiling_bytes};
}

void *arena_alloc(struct arena *a, size_t n)
{
	const size_t align = alignof(max_align_t);
	if (n > a->ceiling_bytes)
		return NULL;
	n = (n + align - 1) & ~(align - 1);
	if (a->used_bytes + n > a->ceiling_bytes)
		return NULL;
	struct arena_block *block = a->current;
	if (!block || block->room - block->n < n) {
		size_t room = n > BLOCK_BYTES - sizeof(*block) ? n : BLOCK_BYTES - sizeof(*block);
		struct arena_block *fresh = malloc(sizeof(*fresh) + room);
		if (!fresh)
			return NULL;
		fresh->next = NULL;
		fresh->n = 0;
		fresh->room = room;
		if (block)
			block->next = fresh;
		else
			a->first = fresh;
		a->current = block = fresh;
	}
	void *p = block->bytes + block->n;
	block->n += n;
	a->used_bytes += n;
	return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
	void *p = arena_alloc(a, n);
	return p ? memset(p, 0, n) : NULL;
}

char *arena_strdup(struct arena *a, struct str s)
{
	char *p = arena_alloc(a, s.n + 1);
	if (!p)
		return NULL;
	if (s.n)
		memcpy(p, s.p, s.n);
	p[s.n] = 0;
	return p;
}

struct str arena_copy(struct arena *a, struct str s)
{
	const char *p = arena_strdup(a, s);
	return (struct str){p, p ? s.n : 0};
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
	if (!p)
		return NULL;
	va_start(ap, fmt);
	vsnprintf(p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return p;
}
