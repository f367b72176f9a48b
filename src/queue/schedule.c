/* schedule.c - see schedule.h.
 *
 * What waits is in two lanes (lane.h), which leases take from in turn. Whatever goes wrong with a lane, it can be
 * thrown away and read again from the driver, leaving out what is leased. That is how an abort undoes lanes, and
 * what happens when one cannot grow.
 *
 * Leases are an array in no order plus a map from key to place. Each change of a lease is logged with what
 * was before, and an abort plays the log back. Expired leases are found by looking at all of them, but only
 * when the earliest deadline has come: that is about once per lease time, because leases are taken and
 * settled in step.
 */
#include "queue/schedule.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/auto.h"
#include "queue/map.h"

enum {
	LOAD_ENTRIES = 1024, /* read from the driver at once: about the time of one commit */
	FIRST_ROOM = 64,
	ATTENTION_MS = 60000, /* looked at again at least that often: the wall clock may be set meanwhile */
};

enum change_kind { CHANGE_TAKEN, CHANGE_RENEWED, CHANGE_ENDED };

struct change {
	enum change_kind kind;
	struct schedule_lease before;
};

struct schedule {
	schedule_load *load;
	void *source;
	struct lane lanes[LANES];
	enum schedule_lane turn;
	struct schedule_counts counts, committed;

	struct schedule_lease *leases;
	size_t lease_count, lease_room, leased_retrying;
	struct map place_of;  /* key to place in leases, from 1 */
	struct mono earliest; /* no deadline is before */
	uint64_t next_token;

	struct change *changes;
	size_t change_count, change_room;
};

/* Makes room for one more element. */
static int reserve(void **items, size_t item_bytes, size_t count, size_t *room, struct err *e)
{
	if (count < *room)
		return 0;
	size_t bigger = *room ? *room * 2 : FIRST_ROOM;
	void *p = reallocarray(*items, bigger, item_bytes);
	if (!p)
		return err_oom(e);
	*items = p;
	*room = bigger;
	return 0;
}

#define RESERVE(items, count, room, e) reserve((void **)(items), sizeof(**(items)), count, room, e)

/* --- lanes --- */

int schedule_offer(struct schedule *s, const struct schedule_entry *entry, struct err *e)
{
	return lane_offer(&s->lanes[entry->lane], entry, map_get(&s->place_of, entry->key), e);
}

static int read_some(struct schedule *s, enum schedule_lane which, struct err *e)
{
	struct schedule_entry after;
	if (!lane_wants(&s->lanes[which], &after))
		return 0;
	int rc = s->load(s->source, s, which, &after, LOAD_ENTRIES, e);
	if (rc < 0) {
		lane_forget(&s->lanes[which]);
		return -1;
	}
	if (rc == SCHEDULE_ALL)
		lane_end(&s->lanes[which]);
	return 0;
}

/* Makes sure that the lane has an entry, if there is any. */
static int lane_fill(struct schedule *s, enum schedule_lane which, struct err *e)
{
	struct schedule_entry after;
	while (!s->lanes[which].count && lane_wants(&s->lanes[which], &after))
		if (read_some(s, which, e) < 0)
			return -1;
	return 0;
}

void schedule_look_ahead(struct schedule *s)
{
	for (unsigned i = 0; i < LANES; i++)
		if (read_some(s, i, NULL) < 0)
			return;
}

int schedule_next(struct schedule *s, struct wall now, struct schedule_entry *ret, struct err *e)
{
	for (unsigned i = 0; i < LANES; i++) {
		enum schedule_lane which = (s->turn + i) % LANES;
		if (lane_fill(s, which, e) < 0)
			return -1;
		if (lane_pop(&s->lanes[which], now.ms, ret)) {
			s->turn = (which + 1) % LANES;
			return 1;
		}
	}
	return 0;
}

void schedule_return(struct schedule *s, const struct schedule_entry *entry)
{
	lane_add(&s->lanes[entry->lane], entry);
}

/* --- leases --- */

int schedule_batch_new(
	struct schedule *s, uint64_t token, struct str worker, struct schedule_batch **ret, struct err *e)
{
	struct schedule_batch *batch = calloc(1, sizeof(*batch));
	if (!batch)
		return err_oom(e);
	batch->refs = 1;
	batch->token = token ? token : s->next_token++;
	if (worker.n)
		memcpy(batch->worker, worker.p,
			worker.n < HISTORY_WORKER_BYTES ? worker.n : HISTORY_WORKER_BYTES);
	*ret = batch;
	return 0;
}

void schedule_batch_unref(struct schedule_batch *batch)
{
	if (batch && --batch->refs == 0)
		free(batch);
}

/* Logs what a lease was before it changes; the log keeps the batch alive. */
static int log_change(
	struct schedule *s, enum change_kind kind, const struct schedule_lease *before, struct err *e)
{
	if (RESERVE(&s->changes, s->change_count, &s->change_room, e) < 0)
		return -1;
	s->changes[s->change_count++] = (struct change){kind, *before};
	before->batch->refs++;
	return 0;
}

static void note_deadline(struct schedule *s, struct mono deadline)
{
	if (deadline.ns < s->earliest.ns)
		s->earliest = deadline;
}

static int lease_insert(struct schedule *s, const struct schedule_lease *lease, struct err *e)
{
	if (RESERVE(&s->leases, s->lease_count, &s->lease_room, e) < 0 ||
		map_add(&s->place_of, lease->entry.key, s->lease_count + 1, e) < 0)
		return -1;
	s->leases[s->lease_count++] = *lease;
	s->leased_retrying += lease->entry.attempts > 0;
	lease->batch->held++;
	lease->batch->refs++;
	note_deadline(s, lease->deadline);
	return 0;
}

/* The last lease moves into the gap. */
static void lease_remove(struct schedule *s, struct schedule_lease *lease)
{
	size_t place = (size_t)(lease - s->leases) + 1, last = s->lease_count;
	map_remove(&s->place_of, lease->entry.key, place);
	if (place != last)
		map_replace(&s->place_of, s->leases[last - 1].entry.key, last, place);
	s->leased_retrying -= lease->entry.attempts > 0;
	lease->batch->held--;
	schedule_batch_unref(lease->batch);
	*lease = s->leases[--s->lease_count];
}

int schedule_lease(struct schedule *s, struct schedule_batch *batch, const struct schedule_entry *entry,
	struct mono deadline, struct err *e)
{
	struct schedule_lease lease = {*entry, deadline, batch};
	if (lease_insert(s, &lease, e) < 0)
		return -1;
	if (log_change(s, CHANGE_TAKEN, &lease, e) < 0) {
		lease_remove(s, &s->leases[s->lease_count - 1]);
		return -1;
	}
	return 0;
}

struct schedule_lease *schedule_find(const struct schedule *s, uint64_t key, uint64_t token)
{
	uint64_t place = map_get(&s->place_of, key);
	if (!place)
		return NULL;
	struct schedule_lease *lease = &s->leases[place - 1];
	return token == 0 || token == lease->batch->token ? lease : NULL;
}

const struct schedule_lease *schedule_member(
	const struct schedule *s, const struct schedule_batch *batch, size_t *cursor)
{
	while (*cursor < s->lease_count) {
		const struct schedule_lease *lease = &s->leases[(*cursor)++];
		if (lease->batch == batch)
			return lease;
	}
	return NULL;
}

struct schedule_lease *schedule_expired(struct schedule *s, struct mono now, unsigned *cursor)
{
	if (!mono_reached(now, s->earliest))
		return NULL;
	/* From the end: what moves into the gap of an ended lease has been looked at already. */
	if (*cursor == 0)
		*cursor = (unsigned)s->lease_count;
	for (; *cursor; (*cursor)--)
		if (mono_reached(now, s->leases[*cursor - 1].deadline))
			return &s->leases[--*cursor];
	s->earliest = (struct mono){INT64_MAX};
	for (size_t i = 0; i < s->lease_count; i++)
		note_deadline(s, s->leases[i].deadline);
	return NULL;
}

int schedule_renew(struct schedule *s, struct schedule_lease *lease, struct mono deadline, struct err *e)
{
	if (log_change(s, CHANGE_RENEWED, lease, e) < 0)
		return -1;
	lease->deadline = deadline;
	note_deadline(s, deadline);
	return 0;
}

/* Ends a lease; *ret_entry is what it was on. */
static int lease_end(
	struct schedule *s, struct schedule_lease *lease, struct schedule_entry *ret_entry, struct err *e)
{
	if (log_change(s, CHANGE_ENDED, lease, e) < 0)
		return -1;
	*ret_entry = lease->entry;
	lease_remove(s, lease);
	return 0;
}

static void count_gone(struct schedule *s, const struct schedule_entry *entry)
{
	s->counts.waiting--;
	s->counts.retrying -= entry->attempts > 0;
}

int schedule_done(struct schedule *s, struct schedule_lease *lease, struct err *e)
{
	struct schedule_entry entry;
	if (lease_end(s, lease, &entry, e) < 0)
		return -1;
	count_gone(s, &entry);
	return 0;
}

void schedule_bury(struct schedule *s, const struct schedule_entry *entry)
{
	count_gone(s, entry);
	s->counts.failed++;
}

int schedule_dead(struct schedule *s, struct schedule_lease *lease, struct err *e)
{
	struct schedule_entry entry;
	if (lease_end(s, lease, &entry, e) < 0)
		return -1;
	schedule_bury(s, &entry);
	return 0;
}

int schedule_retry(struct schedule *s, struct schedule_lease *lease, struct wall due_at, struct err *e)
{
	struct schedule_entry entry;
	if (lease_end(s, lease, &entry, e) < 0)
		return -1;
	s->counts.retrying += entry.attempts == 0;
	entry.attempts++;
	entry.due_ms = due_at.ms;
	entry.lane = LANE_RETRY;
	lane_add(&s->lanes[entry.lane], &entry);
	return 0;
}

int schedule_release(struct schedule *s, struct schedule_lease *lease, struct err *e)
{
	struct schedule_entry entry;
	if (lease_end(s, lease, &entry, e) < 0)
		return -1;
	lane_add(&s->lanes[entry.lane], &entry);
	return 0;
}

/* --- messages come and go --- */

void schedule_accept(struct schedule *s, uint64_t key, uint32_t client)
{
	s->counts.waiting++;
	if (key > s->counts.floor_key)
		s->counts.floor_key = key;
	lane_add(&s->lanes[LANE_FRESH],
		&(struct schedule_entry){.key = key, .lane = LANE_FRESH, .client = client});
}

void schedule_redrive(struct schedule *s, uint64_t key, uint32_t client, struct wall now)
{
	s->counts.failed--;
	s->counts.waiting++;
	lane_add(&s->lanes[LANE_RETRY],
		&(struct schedule_entry){.key = key, .due_ms = now.ms, .lane = LANE_RETRY, .client = client});
}

void schedule_purge(struct schedule *s)
{
	s->counts.failed--;
}

/* --- groups --- */

static void forget_changes(struct schedule *s)
{
	for (size_t i = 0; i < s->change_count; i++)
		schedule_batch_unref(s->changes[i].before.batch);
	s->change_count = 0;
}

void schedule_commit(struct schedule *s)
{
	forget_changes(s);
	s->committed = s->counts;
}

static void take_back(struct schedule *s, const struct change *change)
{
	struct schedule_lease *lease = schedule_find(s, change->before.entry.key, 0);
	switch (change->kind) {
	case CHANGE_TAKEN:
		lease_remove(s, lease);
		break;
	case CHANGE_RENEWED:
		lease->deadline = change->before.deadline;
		note_deadline(s, lease->deadline);
		break;
	case CHANGE_ENDED:
		/* There is room: array and map never shrink, and it was in them. */
		ensure(lease_insert(s, &change->before, NULL) == 0);
		break;
	}
}

void schedule_abort(struct schedule *s)
{
	for (size_t i = s->change_count; i-- > 0;)
		take_back(s, &s->changes[i]);
	forget_changes(s);
	s->counts = s->committed;
	for (unsigned i = 0; i < LANES; i++)
		lane_forget(&s->lanes[i]);
}

/* --- for stats and tick --- */

const struct schedule_counts *schedule_counts(const struct schedule *s)
{
	return &s->counts;
}

struct mono schedule_earliest(const struct schedule *s)
{
	return s->lease_count ? s->earliest : (struct mono){INT64_MAX};
}

unsigned schedule_leased(const struct schedule *s)
{
	return (unsigned)s->lease_count;
}

/* Since when the first entry is due; an id's time may be ahead of the clock, a fresh message is due all the
 * same. */
static int64_t due_since(const struct schedule_entry *first, struct wall now)
{
	if (first->lane == LANE_RETRY)
		return first->due_ms;
	int64_t accepted_ms = key_time(first->key).ms;
	return accepted_ms < now.ms ? accepted_ms : now.ms;
}

int schedule_oldest_due(struct schedule *s, struct wall now, int64_t *ret_ms, struct err *e)
{
	int64_t oldest_ms = INT64_MAX;
	for (unsigned i = 0; i < LANES; i++) {
		if (lane_fill(s, i, e) < 0)
			return -1;
		const struct schedule_entry *first = lane_first(&s->lanes[i]);
		if (!first)
			continue;
		int64_t due_ms = due_since(first, now);
		if (due_ms < oldest_ms)
			oldest_ms = due_ms;
	}
	*ret_ms = oldest_ms;
	return 0;
}

bool schedule_attention(struct schedule *s, struct wall wall, struct mono now, struct mono *ret_next)
{
	int64_t due_ms, wait_ms = ATTENTION_MS;
	*ret_next = (struct mono){INT64_MAX};
	if (schedule_oldest_due(s, wall, &due_ms, NULL) < 0)
		due_ms = wall.ms + ATTENTION_MS;
	if (due_ms <= wall.ms)
		return true;
	if (due_ms == INT64_MAX)
		return false;
	if (due_ms - wall.ms < wait_ms)
		wait_ms = due_ms - wall.ms;
	*ret_next = mono_add_ms(now, wait_ms);
	return false;
}

static int64_t age_ms(int64_t since_ms, struct wall now)
{
	return since_ms < now.ms ? now.ms - since_ms : 0;
}

int schedule_stats(
	struct schedule *s, struct wall now, uint64_t oldest_key, struct queue_stats *stats, struct err *e)
{
	int64_t due_ms;
	if (schedule_oldest_due(s, now, &due_ms, e) < 0)
		return -1;
	stats->queued = s->counts.waiting - s->lease_count;
	stats->processing = s->lease_count;
	stats->failed = s->counts.failed;
	stats->retrying = s->counts.retrying - s->leased_retrying;
	stats->oldest_accepted_at = key_time(oldest_key);
	stats->oldest_age_ms = oldest_key ? age_ms(stats->oldest_accepted_at.ms, now) : 0;
	stats->oldest_due_ms = age_ms(due_ms, now);
	return 0;
}

/* --- start and end --- */

int schedule_new(schedule_load *load, void *source, unsigned window, const struct schedule_counts *counts,
	struct schedule **ret, struct err *e)
{
	uint64_t seed[2 + LANES];
	if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
		return err_sys(e, ERR_FATAL, "random bytes from the kernel");
	struct schedule *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	s->load = load;
	s->source = source;
	s->counts = s->committed = *counts;
	s->earliest = (struct mono){INT64_MAX};
	/* Half of the range is left to count up in. */
	s->next_token = (seed[0] >> 2) + 1;
	map_init(&s->place_of, seed[1]);
	for (unsigned i = 0; i < LANES; i++)
		lane_init(&s->lanes[i], window, seed[2 + i]);
	*ret = s;
	return 0;
}

void schedule_free(struct schedule *s)
{
	if (!s)
		return;
	forget_changes(s);
	for (size_t i = 0; i < s->lease_count; i++)
		schedule_batch_unref(s->leases[i].batch);
	for (unsigned i = 0; i < LANES; i++)
		lane_clear(&s->lanes[i]);
	map_clear(&s->place_of);
	free(s->leases);
	free(s->changes);
	free(s);
}
