/* link.h - a doubly linked list whose links sit inside what is linked; a list is a link of its own.
 * A link that is in no list points to itself, so removing is always allowed.
 * Ownership: the list owns nothing. Threads: one at a time. */
#ifndef HTTP_LINK_H
#define HTTP_LINK_H

#include <stdbool.h>

struct link {
	struct link *prev, *next;
};

static inline void link_init(struct link *l)
{
	l->prev = l->next = l;
}

static inline bool link_alone(const struct link *l)
{
	return l->next == l;
}

static inline void link_remove(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

/* Puts `l`, which is in no list, right behind `at`. */
static inline void link_insert(struct link *at, struct link *l)
{
	l->prev = at;
	l->next = at->next;
	at->next->prev = l;
	at->next = l;
}

static inline void link_append(struct link *list, struct link *l)
{
	link_insert(list->prev, l);
}

#endif
