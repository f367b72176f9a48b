/* deadline.h - points in time after which a peer is cut, for tens of thousands of connections.
 *
 * Every class of deadline (head, body, idle, …) has one length, so a new one nearly always goes to the end of its
 * class's list: setting and clearing cost a few stores, no heap and no system timer. One coarse timer of the owner
 * asks for what has expired.
 *
 * Ownership: a struct deadline is embedded in what it watches and must be cleared before that is freed.
 * Threads:   one at a time. */
#ifndef HTTP_DEADLINE_H
#define HTTP_DEADLINE_H

#include "base/clock.h"
#include "http/link.h"

enum deadline_class {
	DEADLINE_HANDSHAKE,
	DEADLINE_HEAD,
	DEADLINE_BODY,
	DEADLINE_IDLE,
	DEADLINE_WRITE,
	DEADLINE_LINGER,
	DEADLINE_CLASSES
};

struct deadline {
	struct link link;
	struct mono at;
	enum deadline_class class;
	void (*expired)(struct deadline *d);
};

struct deadlines {
	struct link lists[DEADLINE_CLASSES]; /* each in order of time */
};

void deadlines_init(struct deadlines *ds);
void deadline_init(struct deadline *d, void (*expired)(struct deadline *d));

/* Sets or moves. */
void deadline_set(struct deadlines *ds, struct deadline *d, enum deadline_class class, struct mono at);
void deadline_clear(struct deadline *d);

static inline bool deadline_is_set(const struct deadline *d)
{
	return !link_alone(&d->link);
}

/* Clears and calls `expired` for everything that is due; that may set, clear and free any deadline. */
void deadlines_run(struct deadlines *ds, struct mono now);

#endif
