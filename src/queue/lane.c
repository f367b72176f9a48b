/* lane.c - see lane.h.
 *
 * A share is a heap of one client's entries. A client is `behind` when the driver keeps more for it than its
 * quota: all its entries before `skipped` are in its heap (or leased), none from there on. When its heap runs
 * low, the driver's rows are read again from `skipped` on; rows of clients that are not behind are here
 * already and passed over. Reading ends when everybody who wanted more has a quota's worth, or at the last
 * row: then nobody whom it covered is behind any more.
 *
 * The turn goes round the array of shares. Shares that are empty keep their place until there are many of them;
 * then the array is made dense, in order. */
#include "queue/lane.h"

#include <stdlib.h>

enum {
	FIRST_ROOM = 4,
	QUOTA_MIN = 16,
	WINDOWS_MAX = 4,
	EMPTY_MIN = 32, /* shares, before the array is made dense */
};

struct lane_share {
	uint32_t client;
	struct schedule_entry *heap;
	size_t count, room;
	struct schedule_entry last; /* nothing that ever was in the heap came behind it */
	bool behind;
	struct schedule_entry skipped;
	bool full;    /* what is at `skipped` was refused */
	bool covered; /* by the reading that goes on */
	bool wanting; /* it goes on until this one is full */
};

uint32_t schedule_client(struct str client_id)
{
	/* FNV-1a; a collision costs the two clients half a turn. */
	uint32_t hash = 0x811c9dc5;
	for (size_t i = 0; i < client_id.n; i++)
		hash = (hash ^ (unsigned char)client_id.p[i]) * 0x01000193;
	return hash;
}

static bool is_after(const struct schedule_entry *a, const struct schedule_entry *b)
{
	return a->due_ms != b->due_ms ? a->due_ms > b->due_ms : a->key > b->key;
}

/* --- one share --- */

static int share_push(
	struct lane *lane, struct lane_share *s, const struct schedule_entry *entry, struct err *e)
{
	if (s->count == s->room) {
		size_t room = s->room ? s->room * 2 : FIRST_ROOM;
		struct schedule_entry *heap = reallocarray(s->heap, room, sizeof(*heap));
		if (!heap)
			return err_oom(e);
		s->heap = heap;
		s->room = room;
	}
	lane->empty_count -= s->count == 0;
	size_t i = s->count++;
	for (; i && is_after(&s->heap[(i - 1) / 2], entry); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = *entry;
	lane->count++;
	if (is_after(entry, &s->last))
		s->last = *entry;
	if (entry->due_ms < lane->earliest_ms)
		lane->earliest_ms = entry->due_ms;
	return 0;
}

static struct schedule_entry share_pop(struct lane *lane, struct lane_share *s)
{
	struct schedule_entry top = s->heap[0], last = s->heap[--s->count];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < s->count; i = child) {
		if (child + 1 < s->count && is_after(&s->heap[child], &s->heap[child + 1]))
			child++;
		if (!is_after(&last, &s->heap[child]))
			break;
		s->heap[i] = s->heap[child];
	}
	s->heap[i] = last;
	lane->count--;
	lane->empty_count += s->count == 0;
	return top;
}

/* --- all shares --- */

static struct lane_share *share_of(const struct lane *lane, uint32_t client)
{
	uint64_t place = map_get(&lane->place_of, client);
	return place ? &lane->shares[place - 1] : NULL;
}

static struct lane_share *share_new(struct lane *lane, uint32_t client)
{
	if (lane->share_count == lane->share_room) {
		size_t room = lane->share_room ? lane->share_room * 2 : FIRST_ROOM;
		struct lane_share *bigger = reallocarray(lane->shares, room, sizeof(*bigger));
		if (!bigger)
			return NULL;
		lane->shares = bigger;
		lane->share_room = room;
	}
	if (map_add(&lane->place_of, client, lane->share_count + 1, NULL) < 0)
		return NULL;
	lane->empty_count++;
	struct lane_share *s = &lane->shares[lane->share_count++];
	*s = (struct lane_share){.client = client};
	return s;
}

static bool is_needless(const struct lane_share *s)
{
	return s->count == 0 && !s->behind;
}

/* Leaves out the shares that hold nothing. */
static void make_dense(struct lane *lane)
{
	size_t kept = 0, turn = 0;
	for (size_t i = 0; i < lane->share_count; i++) {
		struct lane_share *s = &lane->shares[i];
		if (is_needless(s)) {
			map_remove(&lane->place_of, s->client, i + 1);
			free(s->heap);
			lane->empty_count--;
			continue;
		}
		turn += i < lane->turn;
		if (kept != i)
			map_replace(&lane->place_of, s->client, i + 1, kept + 1);
		lane->shares[kept++] = *s;
	}
	lane->share_count = kept;
	lane->turn = kept ? turn % kept : 0;
}

static size_t quota(const struct lane *lane)
{
	size_t least = lane->window < QUOTA_MIN ? lane->window : QUOTA_MIN;
	size_t clients = lane->share_count - lane->empty_count;
	size_t equal = lane->window / (clients ? clients : 1);
	return equal > least ? equal : least;
}

static bool is_low(const struct lane *lane, const struct lane_share *s)
{
	return s->behind && s->count <= quota(lane) / 2;
}

static void set_behind(struct lane *lane, struct lane_share *s, const struct schedule_entry *skipped)
{
	lane->behind_count += !s->behind;
	s->behind = s->full = true;
	s->covered = s->wanting = false;
	s->skipped = *skipped;
}

static void set_level(struct lane *lane, struct lane_share *s)
{
	lane->behind_count--;
	s->behind = false;
}

/* --- start and end --- */

void lane_init(struct lane *lane, size_t window, uint64_t seed)
{
	*lane = (struct lane){.window = window, .earliest_ms = INT64_MAX};
	map_init(&lane->place_of, seed);
}

void lane_clear(struct lane *lane)
{
	for (size_t i = 0; i < lane->share_count; i++)
		free(lane->shares[i].heap);
	free(lane->shares);
	map_clear(&lane->place_of);
}

void lane_forget(struct lane *lane)
{
	uint64_t seed = lane->place_of.seed;
	size_t window = lane->window;
	lane_clear(lane);
	lane_init(lane, window, seed);
}

/* --- coming in --- */

/* Whether this one of a client that is behind is left to a later reading. */
static bool is_left(const struct lane *lane, const struct lane_share *s, const struct schedule_entry *entry)
{
	if (!s->behind || is_after(&s->skipped, entry))
		return false;
	bool passed = lane->again && s->covered && !s->full && !is_after(entry, &lane->cursor);
	return !passed;
}

void lane_add(struct lane *lane, const struct schedule_entry *entry)
{
	if (is_after(entry, &lane->examined)) {
		if (!lane->complete || lane->count >= WINDOWS_MAX * lane->window) {
			lane->complete = false;
			return;
		}
		lane->examined = *entry;
	}
	struct lane_share *s = share_of(lane, entry->client);
	if (!s && !(s = share_new(lane, entry->client))) {
		lane_forget(lane);
		return;
	}
	if (is_left(lane, s, entry))
		return;
	if (!s->behind && s->count >= quota(lane) && is_after(entry, &s->last))
		set_behind(lane, s, entry);
	else if (share_push(lane, s, entry, NULL) < 0)
		lane_forget(lane);
}

/* --- reading --- */

static struct schedule_entry just_before(struct schedule_entry entry)
{
	entry.key--;
	return entry;
}

static struct schedule_entry just_after(struct schedule_entry entry)
{
	entry.key++;
	return entry;
}

/* Begins to read again where the first of those who run low left off; false when nobody does. */
static bool start_again(struct lane *lane)
{
	const struct lane_share *first = NULL;
	for (size_t i = 0; lane->behind_count && i < lane->share_count; i++) {
		const struct lane_share *s = &lane->shares[i];
		if (is_low(lane, s) && (!first || is_after(&first->skipped, &s->skipped)))
			first = s;
	}
	if (!first)
		return false;
	struct schedule_entry from = first->skipped;
	lane->wanting_count = 0;
	for (size_t i = 0; i < lane->share_count; i++) {
		struct lane_share *s = &lane->shares[i];
		s->covered = s->behind && !is_after(&from, &s->skipped);
		s->wanting = s->covered && is_low(lane, s);
		s->full = s->behind && !s->covered;
		lane->wanting_count += s->wanting;
	}
	lane->cursor = just_before(from);
	lane->again = true;
	return true;
}

bool lane_wants(struct lane *lane, struct schedule_entry *ret_after)
{
	if (lane->again || start_again(lane)) {
		*ret_after = lane->cursor;
		return true;
	}
	*ret_after = lane->examined;
	return !lane->complete && lane->count < WINDOWS_MAX * lane->window;
}

/* An entry of a client that is behind, while its rows are read without a gap. */
static int take_skipped(struct lane *lane, struct lane_share *s, const struct schedule_entry *entry,
	bool leased, struct err *e)
{
	if (s->full || is_after(&s->skipped, entry))
		return 0;
	if (!leased && s->count >= quota(lane)) {
		s->full = true;
		s->skipped = *entry;
		lane->wanting_count -= s->wanting;
		s->wanting = false;
		lane->again = lane->wanting_count > 0;
		return 0;
	}
	s->skipped = just_after(*entry);
	return leased ? 0 : share_push(lane, s, entry, e);
}

/* An entry that was never read before. */
static int take_new(struct lane *lane, const struct schedule_entry *entry, bool leased, struct err *e)
{
	struct lane_share *s = share_of(lane, entry->client);
	if (leased)
		return 0;
	if (!s && !(s = share_new(lane, entry->client)))
		return err_oom(e);
	if (s->count < quota(lane))
		return share_push(lane, s, entry, e);
	set_behind(lane, s, entry);
	return 0;
}

int lane_offer(struct lane *lane, const struct schedule_entry *entry, bool leased, struct err *e)
{
	bool is_new = is_after(entry, &lane->examined);
	if (is_new)
		lane->examined = *entry;
	struct lane_share *s = share_of(lane, entry->client);
	bool again = lane->again;
	if (again)
		lane->cursor = *entry;
	if (s && s->behind)
		return again && s->covered ? take_skipped(lane, s, entry, leased, e) : 0;
	return is_new ? take_new(lane, entry, leased, e) : 0;
}

void lane_end(struct lane *lane)
{
	lane->complete = true;
	for (size_t i = 0; lane->again && i < lane->share_count; i++) {
		struct lane_share *s = &lane->shares[i];
		if (s->behind && s->covered && !s->full)
			set_level(lane, s);
	}
	lane->again = false;
}

/* --- going out --- */

static void find_earliest(struct lane *lane)
{
	lane->earliest_ms = INT64_MAX;
	for (size_t i = 0; i < lane->share_count; i++) {
		const struct lane_share *s = &lane->shares[i];
		if (s->count && s->heap[0].due_ms < lane->earliest_ms)
			lane->earliest_ms = s->heap[0].due_ms;
	}
}

bool lane_pop(struct lane *lane, int64_t now_ms, struct schedule_entry *ret)
{
	if (!lane->count || lane->earliest_ms > now_ms)
		return false;
	if (lane->empty_count > EMPTY_MIN && lane->empty_count > lane->share_count / 2)
		make_dense(lane);
	for (size_t n = 0; n < lane->share_count; n++) {
		size_t place = lane->turn;
		struct lane_share *s = &lane->shares[place];
		lane->turn = (place + 1) % lane->share_count;
		if (s->count && s->heap[0].due_ms <= now_ms) {
			*ret = share_pop(lane, s);
			return true;
		}
	}
	find_earliest(lane);
	return false;
}

const struct schedule_entry *lane_first(const struct lane *lane)
{
	const struct schedule_entry *first = NULL;
	for (size_t i = 0; i < lane->share_count; i++) {
		const struct lane_share *s = &lane->shares[i];
		if (s->count && (!first || is_after(first, &s->heap[0])))
			first = &s->heap[0];
	}
	return first;
}
