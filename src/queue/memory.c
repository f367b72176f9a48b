/* memory.c - the queue in memory: the reference for other drivers, and for trying things out. Nothing
 * survives the process.
 *
 * Three tables by order key: messages that wait (leased ones too), dead letters, remembered requests.
 * Everything that waits is always in the lanes of the schedule, except after an abort, when they are read
 * again. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/auto.h"
#include "queue/driver.h"
#include "queue/leasing.h"
#include "queue/map.h"
#include "queue/pauses.h"
#include "queue/remembered.h"
#include "queue/schedule.h"
#include "queue/table.h"

/* One message; immutable once it is in a table. */
struct item {
	enum schedule_lane lane;
	int64_t due_ms;
	uint32_t attempts;
	size_t history_bytes, record_bytes;
	char bytes[]; /* history, record */
};

struct memory {
	const struct clock *clock;
	int64_t idempotency_ms;
	uint64_t keys_max; /* 0: any number */
	struct table waiting, dead, remembered;
	struct table_log log;
	struct map key_by_print; /* of remembered requests */
	struct schedule *schedule;
	struct leasing leasing;
	struct pauses pauses, committed_pauses;
	struct buf record; /* scratch */
};

/* --- rows --- */

static struct str item_history(const struct item *item)
{
	return str_mem(item->bytes, item->history_bytes);
}

static struct str item_record(const struct item *item)
{
	return str_mem(item->bytes + item->history_bytes, item->record_bytes);
}

static struct row row_of(uint64_t key, const struct item *item, bool failed)
{
	return (struct row){
		.key = key,
		.failed = failed,
		.due_ms = item->lane == LANE_RETRY ? item->due_ms : 0,
		.attempts = item->attempts,
		.history = item_history(item),
		.record = item_record(item),
	};
}

static uint32_t client_of(const struct item *item)
{
	return schedule_client(sealed_client(item_record(item)));
}

static struct schedule_entry entry_of(uint64_t key, const struct item *item)
{
	return (struct schedule_entry){item->due_ms, key, item->attempts, item->lane, client_of(item)};
}

static struct item *item_new(const struct schedule_entry *entry, struct str history, struct str record)
{
	struct item *item = malloc(sizeof(*item) + history.n + record.n);
	if (!item)
		return NULL;
	*item = (struct item){entry->lane, entry->due_ms, entry->attempts, history.n, record.n};
	if (history.n)
		memcpy(item->bytes, history.p, history.n);
	memcpy(item->bytes + history.n, record.p, record.n);
	return item;
}

static int set_item(struct memory *m, struct table *t, uint64_t key, struct item *item, struct err *e)
{
	return item ? table_set(t, &m->log, key, item, e) : err_oom(e);
}

static int shelf_record(void *state, const struct schedule_entry *entry, struct str *ret, struct err *e)
{
	struct memory *m = state;
	(void)e;
	*ret = item_record(table_get(&m->waiting, entry->key));
	return 0;
}

static int shelf_history(void *state, uint64_t key, struct str *ret, struct err *e)
{
	struct memory *m = state;
	(void)e;
	*ret = item_history(table_get(&m->waiting, key));
	return 0;
}

static int shelf_erase(void *state, const struct schedule_entry *entry, struct err *e)
{
	struct memory *m = state;
	return table_set(&m->waiting, &m->log, entry->key, NULL, e);
}

static int shelf_rewrite(
	void *state, const struct schedule_entry *entry, const struct row *row, struct err *e)
{
	struct memory *m = state;
	struct schedule_entry next = {
		.due_ms = row->due_ms, .key = row->key, .attempts = row->attempts, .lane = LANE_RETRY};
	struct str record = item_record(table_get(&m->waiting, entry->key));
	struct item *item = item_new(&next, row->history, record);
	if (!row->failed)
		return set_item(m, &m->waiting, row->key, item, e);
	if (set_item(m, &m->dead, row->key, item, e) < 0)
		return -1;
	return shelf_erase(m, entry, e);
}

static const struct leasing_shelf shelf = {
	.record = shelf_record,
	.history = shelf_history,
	.erase = shelf_erase,
	.rewrite = shelf_rewrite,
};

static int in_order(const void *a, const void *b)
{
	const struct schedule_entry *x = a, *y = b;
	if (x->due_ms != y->due_ms)
		return x->due_ms < y->due_ms ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

static int load(void *source, struct schedule *s, enum schedule_lane lane, const struct schedule_entry *after,
	unsigned max, struct err *e)
{
	struct memory *m = source;
	(void)max;
	AUTO(free_auto) struct schedule_entry *entries = calloc(m->waiting.count + 1, sizeof(*entries));
	size_t count = 0;
	if (!entries)
		return err_oom(e);
	for (size_t i = 0; i < m->waiting.count; i++) {
		const struct table_slot *slot = table_at(&m->waiting, i);
		struct schedule_entry entry = entry_of(slot->key, slot->item);
		if (entry.lane == lane && in_order(&entry, after) > 0)
			entries[count++] = entry;
	}
	qsort(entries, count, sizeof(*entries), in_order);
	for (size_t i = 0; i < count; i++)
		if (schedule_offer(s, &entries[i], e) < 0)
			return -1;
	return SCHEDULE_ALL;
}

/* --- open, close --- */

static void memory_close(void *state)
{
	struct memory *m = state;
	if (!m)
		return;
	leasing_clear(&m->leasing);
	schedule_free(m->schedule);
	map_clear(&m->key_by_print);
	table_log_clear(&m->log);
	table_clear(&m->waiting);
	table_clear(&m->dead);
	table_clear(&m->remembered);
	buf_clear(&m->record);
	free(m);
}

static int memory_open(const struct queue_driver_options *o, void **ret_state, struct err *e)
{
	uint64_t seed;
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return err_sys(e, ERR_FATAL, "random bytes from the kernel");
	struct memory *m = calloc(1, sizeof(*m));
	if (!m)
		return err_oom(e);
	m->clock = o->clock;
	m->idempotency_ms = o->idempotency_ms;
	m->keys_max = o->keys_max;
	map_init(&m->key_by_print, seed);
	buf_init(&m->record, SEALED_MAX_BYTES);
	if (schedule_new(load, m, UINT_MAX, &(struct schedule_counts){0}, &m->schedule, e) < 0) {
		memory_close(m);
		return -1;
	}
	leasing_init(&m->leasing, &shelf, m, m->clock, m->schedule);
	*ret_state = m;
	return 0;
}

static const char *memory_durability(void *state)
{
	(void)state;
	return "memory: nothing survives the end of the process";
}

static uint64_t memory_floor_key(void *state)
{
	struct memory *m = state;
	return schedule_counts(m->schedule)->floor_key;
}

/* --- groups --- */

static int memory_begin(void *state, struct err *e)
{
	(void)state, (void)e;
	return 0;
}

static int memory_commit(void *state, struct err *e)
{
	struct memory *m = state;
	(void)e;
	table_commit(&m->log);
	schedule_commit(m->schedule);
	m->committed_pauses = m->pauses;
	return 0;
}

/* Takes what this group wants to be remembered out of the map again. */
static void forget_new(struct memory *m)
{
	for (size_t i = 0; i < m->log.count; i++) {
		const struct table_change *change = &m->log.changes[i];
		if (change->table != &m->remembered)
			continue;
		const struct remembered *r = table_get(&m->remembered, change->key);
		map_remove(&m->key_by_print, remembered_print(r->key_hash), change->key);
	}
}

static void memory_abort(void *state)
{
	struct memory *m = state;
	forget_new(m);
	table_undo(&m->log, 0);
	schedule_abort(m->schedule);
	m->pauses = m->committed_pauses;
}

static int memory_probe(void *state, struct err *e)
{
	(void)state, (void)e;
	return 0;
}

/* --- put --- */

static const struct remembered *find_remembered(
	const struct memory *m, const uint8_t key_hash[QUEUE_HASH_BYTES])
{
	uint64_t key;
	for (size_t cursor = 0; (key = map_next(&m->key_by_print, remembered_print(key_hash), &cursor));) {
		const struct remembered *r = table_get(&m->remembered, key);
		if (memcmp(r->key_hash, key_hash, sizeof(r->key_hash)) == 0)
			return r;
	}
	return NULL;
}

static int remember(struct memory *m, const struct queue_put *put, struct err *e)
{
	struct remembered *r = malloc(sizeof(*r));
	if (!r)
		return err_oom(e);
	*r = remembered_of(put);
	uint64_t key = r->key, print = remembered_print(r->key_hash);
	if (table_set(&m->remembered, &m->log, key, r, e) < 0)
		return -1;
	return map_add(&m->key_by_print, print, key, e);
}

static bool keys_full(const struct memory *m)
{
	return m->keys_max && m->remembered.count >= m->keys_max;
}

static int put_one(struct memory *m, const struct sealed *sealed, struct err *e)
{
	uint64_t key = uuid_order_key(&sealed->id);
	if (table_get(&m->waiting, key) || table_get(&m->dead, key))
		return err_set(e, ERR_CONFLICT, "the queue holds a message with this id already");
	buf_reset(&m->record);
	sealed_encode(sealed, &m->record);
	if (buf_check(&m->record, e) < 0)
		return -1;
	struct schedule_entry fresh = {.key = key, .lane = LANE_FRESH};
	return set_item(m, &m->waiting, key, item_new(&fresh, STR(""), buf_str(&m->record)), e);
}

static int put_all(struct memory *m, const struct queue_put *put, struct err *e)
{
	size_t before = m->log.count;
	for (unsigned i = 0; i < put->count; i++) {
		if (put_one(m, &put->messages[i], e) < 0) {
			table_undo(&m->log, before);
			return -1;
		}
	}
	return 0;
}

static int memory_put(void *state, struct queue_put *put, struct err *e)
{
	struct memory *m = state;
	const struct remembered *r = put->has_key ? find_remembered(m, put->key_hash) : NULL;
	if (r)
		return remembered_answer(r, put);
	if (put->has_key && !put->key_promised && keys_full(m))
		return QUEUE_KEYS_FULL;
	if (put_all(m, put, e) < 0)
		return -1;
	put->position = schedule_counts(m->schedule)->waiting - schedule_leased(m->schedule) + 1;
	for (unsigned i = 0; i < put->count; i++)
		schedule_accept(m->schedule, uuid_order_key(&put->messages[i].id),
			schedule_client(put->messages[i].client_id));
	if (put->has_key && remember(m, put, e) < 0)
		return -1;
	return QUEUE_STORED;
}

/* --- lease, settle, renew --- */

static int memory_lease(void *state, struct queue_lease *lease, struct err *e)
{
	struct memory *m = state;
	return leasing_lease(&m->leasing, lease, e);
}

static int memory_settle(void *state, struct queue_settle *settle, struct err *e)
{
	struct memory *m = state;
	return leasing_settle(&m->leasing, settle, e);
}

static int memory_renew(void *state, struct queue_renew *renew, struct err *e)
{
	struct memory *m = state;
	return leasing_renew(&m->leasing, renew, e);
}

/* --- administration --- */

static bool is_leased(const struct memory *m, uint64_t key)
{
	return schedule_find(m->schedule, key, 0) != NULL;
}

static int memory_find(void *state, struct queue_find *find, struct err *e)
{
	struct memory *m = state;
	uint64_t key = uuid_order_key(&find->id);
	const struct item *item = table_get(&m->waiting, key), *failed = table_get(&m->dead, key);
	if (!item && !failed)
		return err_set(e, ERR_NOT_FOUND, "no such message in the queue");
	struct row row = row_of(key, item ? item : failed, failed != NULL);
	return row_find(&row, is_leased(m, key), find, e);
}

/* The next row behind `key` of both tables, in order; false at the end. */
static bool next_row(const struct memory *m, uint64_t key, struct row *ret)
{
	size_t w = table_place(&m->waiting, key + 1), d = table_place(&m->dead, key + 1);
	const struct table_slot *waiting = w < m->waiting.count ? table_at(&m->waiting, w) : NULL;
	const struct table_slot *dead = d < m->dead.count ? table_at(&m->dead, d) : NULL;
	if (!waiting && !dead)
		return false;
	bool failed = !waiting || (dead && dead->key < waiting->key);
	const struct table_slot *slot = failed ? dead : waiting;
	*ret = row_of(slot->key, slot->item, failed);
	return true;
}

static int memory_list(void *state, struct queue_list *list, struct err *e)
{
	struct memory *m = state;
	struct row row;
	for (unsigned i = 0; i < SCAN_ROWS; i++) {
		if (list->count == list->max || !next_row(m, list->progress, &row))
			return 0;
		list->progress = row.key;
		if (row_list(&row, is_leased(m, row.key), list, e) < 0)
			return -1;
	}
	return QUEUE_UNFINISHED;
}

static int memory_stats(void *state, struct queue_stats *stats, struct err *e)
{
	struct memory *m = state;
	uint64_t oldest_key = m->waiting.count ? table_at(&m->waiting, 0)->key : 0;
	stats->keys = m->remembered.count;
	pauses_report(&m->pauses, stats);
	return schedule_stats(m->schedule, clock_wall(m->clock), oldest_key, stats, e);
}

static int redrive_one(struct memory *m, uint64_t key, struct err *e)
{
	const struct item *failed = table_get(&m->dead, key);
	struct wall now = clock_wall(m->clock);
	struct schedule_entry again = {.due_ms = now.ms, .key = key, .lane = LANE_RETRY};
	struct item *item = item_new(&again, item_history(failed), item_record(failed));
	if (set_item(m, &m->waiting, key, item, e) < 0 || table_set(&m->dead, &m->log, key, NULL, e) < 0)
		return -1;
	schedule_redrive(m->schedule, key, client_of(item), now);
	return 0;
}

static int purge_one(struct memory *m, uint64_t key, struct err *e)
{
	if (table_set(&m->dead, &m->log, key, NULL, e) < 0)
		return -1;
	schedule_purge(m->schedule);
	return 0;
}

typedef int dead_action(struct memory *m, uint64_t key, struct err *e);

static int act(
	struct memory *m, uint64_t key, const struct dead_choice *choice, dead_action *action, struct err *e)
{
	(*choice->matched)++;
	return choice->dry_run ? 0 : action(m, key, e);
}

static int dead_by_id(struct memory *m, const struct dead_choice *choice, dead_action *action, struct err *e)
{
	for (unsigned i = 0; i < choice->id_count && *choice->matched < choice->max; i++) {
		uint64_t key = uuid_order_key(&choice->ids[i]);
		const struct item *item = table_get(&m->dead, key);
		struct row row;
		if (!item || (row = row_of(key, item, true), !dead_has_id(&row, choice, i)))
			continue;
		if (act(m, key, choice, action, e) < 0)
			return -1;
	}
	return 0;
}

static int dead_by_filter(
	struct memory *m, const struct dead_choice *choice, dead_action *action, struct err *e)
{
	for (unsigned i = 0; i < SCAN_ROWS; i++) {
		size_t place = table_place(&m->dead, *choice->progress + 1);
		if (*choice->matched == choice->max || place == m->dead.count)
			return 0;
		const struct table_slot *slot = table_at(&m->dead, place);
		struct row row = row_of(slot->key, slot->item, true);
		*choice->progress = row.key;
		if (dead_matches(&row, choice) && act(m, row.key, choice, action, e) < 0)
			return -1;
	}
	return QUEUE_UNFINISHED;
}

static int on_dead(struct memory *m, const struct dead_choice *choice, dead_action *action, struct err *e)
{
	return choice->id_count ? dead_by_id(m, choice, action, e) : dead_by_filter(m, choice, action, e);
}

static int memory_redrive(void *state, struct queue_redrive *redrive, struct err *e)
{
	return on_dead(state, DEAD_CHOICE(redrive), redrive_one, e);
}

static int memory_purge(void *state, struct queue_purge *purge, struct err *e)
{
	return on_dead(state, DEAD_CHOICE(purge), purge_one, e);
}

static int memory_pause(void *state, struct queue_pause *pause, struct err *e)
{
	struct memory *m = state;
	(void)e;
	pauses_set(&m->pauses, pause);
	return 0;
}

/* --- tick --- */

/* What is not forgotten for want of memory is forgotten by a later tick. */
static void forget_old(struct memory *m)
{
	uint64_t floor_key = remembered_floor(clock_wall(m->clock), m->idempotency_ms);
	while (m->remembered.count && table_at(&m->remembered, 0)->key < floor_key) {
		uint64_t key = table_at(&m->remembered, 0)->key;
		const struct remembered *r = table_get(&m->remembered, key);
		uint64_t print = remembered_print(r->key_hash);
		if (table_set(&m->remembered, &m->log, key, NULL, NULL) < 0)
			return;
		table_commit(&m->log);
		map_remove(&m->key_by_print, print, key);
	}
}

static bool memory_tick(void *state, struct mono now, struct mono *ret_next)
{
	struct memory *m = state;
	if (leasing_expire(&m->leasing, UINT_MAX, NULL) < 0)
		memory_abort(m);
	else
		(void)memory_commit(m, NULL);
	forget_old(m);
	bool due = schedule_attention(m->schedule, clock_wall(m->clock), now, ret_next);
	struct mono earliest = schedule_earliest(m->schedule);
	if (earliest.ns < ret_next->ns)
		*ret_next = earliest;
	return due;
}

const struct queue_driver queue_driver_memory = {
	.name = "memory",
	.open = memory_open,
	.close = memory_close,
	.durability = memory_durability,
	.floor_key = memory_floor_key,
	.begin = memory_begin,
	.commit = memory_commit,
	.abort = memory_abort,
	.put = memory_put,
	.lease = memory_lease,
	.settle = memory_settle,
	.renew = memory_renew,
	.find = memory_find,
	.list = memory_list,
	.stats = memory_stats,
	.redrive = memory_redrive,
	.purge = memory_purge,
	.pause = memory_pause,
	.tick = memory_tick,
	.probe = memory_probe,
};
