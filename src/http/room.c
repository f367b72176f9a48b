/* room.c - see room.h. */
#include "http/room.h"

enum { SHARES = 4 /* one part in so many is divided among the loops */ };

static size_t share_bytes(struct room_bounds bounds)
{
	return bounds.bytes / SHARES / bounds.loops;
}

static size_t beyond_share(struct room_bounds bounds, size_t used)
{
	size_t share = share_bytes(bounds);
	return used > share ? used - share : 0;
}

static bool borrow(
	struct room *room, struct room_share *share, struct room_bounds bounds, size_t bytes, bool alone)
{
	size_t most = bounds.bytes - share_bytes(bounds) * bounds.loops;
	size_t borrowed = atomic_load_explicit(&room->borrowed, memory_order_relaxed);
	do {
		bool fits = borrowed <= most && bytes <= most - borrowed;
		if (!fits && !(alone && borrowed == share->borrowed))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&room->borrowed, &borrowed, borrowed + bytes, memory_order_relaxed, memory_order_relaxed));
	share->borrowed += bytes;
	return true;
}

bool room_take(
	struct room *room, struct room_share *share, struct room_bounds bounds, size_t bytes, size_t own)
{
	size_t beyond = beyond_share(bounds, share->used + bytes);
	if (beyond > share->borrowed &&
		!borrow(room, share, bounds, beyond - share->borrowed, share->used == own))
		return false;
	share->used += bytes;
	return true;
}

void room_give_back(struct room *room, struct room_share *share, struct room_bounds bounds, size_t bytes)
{
	share->used -= bytes;
	size_t beyond = beyond_share(bounds, share->used);
	if (beyond >= share->borrowed)
		return;
	atomic_fetch_sub_explicit(&room->borrowed, share->borrowed - beyond, memory_order_relaxed);
	share->borrowed = beyond;
}
