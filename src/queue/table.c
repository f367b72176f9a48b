/* table.c - see table.h. A sorted array with spare room at both ends; what has to move for an insertion or a
 * removal is the shorter side. */
#include "queue/table.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 64 };

void table_clear(struct table *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(table_at(t, i)->item);
	free(t->slots);
	*t = (struct table){NULL};
}

void table_log_clear(struct table_log *log)
{
	free(log->changes);
	*log = (struct table_log){NULL};
}

size_t table_place(const struct table *t, uint64_t key)
{
	size_t low = 0, high = t->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (table_at(t, middle)->key < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct table_slot *find(const struct table *t, uint64_t key)
{
	size_t place = table_place(t, key);
	bool there = place < t->count && table_at(t, place)->key == key;
	return there ? &t->slots[t->begin + place] : NULL;
}

void *table_get(const struct table *t, uint64_t key)
{
	const struct table_slot *slot = find(t, key);
	return slot ? slot->item : NULL;
}

/* Makes room behind the last slot: by moving everything to the front where half is free, else by growing. */
static int make_room(struct table *t, struct err *e)
{
	if (t->begin + t->count < t->room)
		return 0;
	if (t->begin > t->room / 2) {
		memmove(t->slots, t->slots + t->begin, t->count * sizeof(*t->slots));
		t->begin = 0;
		return 0;
	}
	size_t room = t->room ? t->room * 2 : FIRST_ROOM;
	struct table_slot *slots = reallocarray(t->slots, room, sizeof(*slots));
	if (!slots)
		return err_oom(e);
	t->slots = slots;
	t->room = room;
	return 0;
}

static void open_gap(struct table *t, size_t place)
{
	bool at_end = t->begin + t->count < t->room;
	if (t->begin && (place < t->count / 2 || !at_end)) {
		t->begin--;
		memmove(&t->slots[t->begin], &t->slots[t->begin + 1], place * sizeof(*t->slots));
	} else {
		struct table_slot *at = &t->slots[t->begin + place];
		memmove(at + 1, at, (t->count - place) * sizeof(*at));
	}
	t->count++;
}

static void close_gap(struct table *t, size_t place)
{
	if (place < t->count / 2) {
		memmove(&t->slots[t->begin + 1], &t->slots[t->begin], place * sizeof(*t->slots));
		t->begin++;
	} else {
		struct table_slot *at = &t->slots[t->begin + place];
		memmove(at, at + 1, (t->count - place - 1) * sizeof(*at));
	}
	t->count--;
}

/* Puts `item` at `key`; there is room. Returns what was there. */
static void *exchange(struct table *t, uint64_t key, void *item)
{
	struct table_slot *slot = find(t, key);
	void *old = slot ? slot->item : NULL;
	size_t place = table_place(t, key);
	if (!slot && item)
		open_gap(t, place);
	if (slot && !item)
		close_gap(t, place);
	if (item)
		t->slots[t->begin + place] = (struct table_slot){key, item};
	return old;
}

static int reserve_log(struct table_log *log, struct err *e)
{
	if (log->count < log->room)
		return 0;
	size_t room = log->room ? log->room * 2 : FIRST_ROOM;
	struct table_change *changes = reallocarray(log->changes, room, sizeof(*changes));
	if (!changes)
		return err_oom(e);
	log->changes = changes;
	log->room = room;
	return 0;
}

int table_set(struct table *t, struct table_log *log, uint64_t key, void *item, struct err *e)
{
	if (reserve_log(log, e) < 0 || make_room(t, e) < 0) {
		free(item);
		return -1;
	}
	log->changes[log->count++] = (struct table_change){t, key, exchange(t, key, item)};
	return 0;
}

void table_commit(struct table_log *log)
{
	for (size_t i = 0; i < log->count; i++)
		free(log->changes[i].old);
	log->count = 0;
}

void table_undo(struct table_log *log, size_t keep)
{
	while (log->count > keep) {
		struct table_change *change = &log->changes[--log->count];
		/* There is room: before the group the old item was there too. */
		free(exchange(change->table, change->key, change->old));
	}
}
