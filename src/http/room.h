/* room.h - memory with one bound that several loops use: each has a share of its own, and borrows from the others
 * together what goes beyond it.
 *
 * A quarter of the bound is divided into the shares, which cost no more than a look; three quarters are there for
 * whoever needs them, so that a large request fits however many loops there are. One that is alone always fits.
 *
 * Threads: a share belongs to its loop's thread; the room is any's. */
#ifndef HTTP_ROOM_H
#define HTTP_ROOM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct room {
	_Atomic size_t borrowed; /* by all loops */
};

struct room_share {
	size_t used, borrowed; /* borrowed: at least what `used` has beyond the share */
};

/* May change while shares are in use. */
struct room_bounds {
	size_t bytes;
	unsigned loops;
};

/* Takes `bytes` more for somebody who has `own` of what this loop uses; false when there is no room. Who has all that
 * this loop uses is never refused while no other loop borrows. */
bool room_take(
	struct room *room, struct room_share *share, struct room_bounds bounds, size_t bytes, size_t own);

void room_give_back(struct room *room, struct room_share *share, struct room_bounds bounds, size_t bytes);

#endif
