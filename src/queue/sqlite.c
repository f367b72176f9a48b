/* sqlite.c - the queue in one SQLite file, written by one thread.
 *
 * A message's row number is its id's order key: rows arrive in key order, so inserting appends to the tree
 * and needs no index (a random id as key costs two thirds of the speed), and a message is found by its id all
 * the same. Tables: see sqlite_statements.def. `fresh` rows are only ever inserted and deleted; the first
 * failed attempt moves a message to `tried`, whose one index on due_ms serves retries in order of their due
 * time and, as NULL, dead letters in order of acceptance.
 *
 * In memory are the front of either lane (schedule.h), the leases, and 16 bytes for each remembered request;
 * none of it grows with the backlog, and a start reads none of the backlog. Counts are kept in one row that
 * each commit writes along, since counting a million rows at start would take longer than the start may.
 *
 * A lease writes one row per batch, deleted with its last message. Rows that a start finds belong to a
 * process that died with the messages in hand: each counts as an attempt. */
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "queue/driver.h"
#include "queue/leasing.h"
#include "queue/pauses.h"
#include "queue/schedule.h"
#include "queue/sqlite_db.h"
#include "queue/sqlite_keys.h"

enum {
	WINDOW_ENTRIES = 4096, /* of a lane, in memory */
	EXPIRE_AT_ONCE = 512,
	FORGET_EVERY_MS = 10000,
	RETRY_MS = 1000, /* until tick tries again what failed */
	LEASE_ROW_BYTES = 1 << 20,
	IDLE_MS = 1000, /* without a commit until the log is moved into the database */
};

struct engine {
	struct sqlite_db db;
	const struct clock *clock;
	struct schedule *schedule;
	struct leasing leasing;
	struct schedule_counts written_counts; /* as in the state row */
	struct pauses pauses, written_pauses;
	struct sqlite_keys keys;                      /* of requests that are remembered */
	struct mono expire_after, forget_at, idle_at; /* see tick */
	struct buf record, bytes;                     /* scratch: a record to put, a blob read */
};

static int begin(struct engine *q, struct err *e)
{
	return sqlite_run_plain(&q->db, SQL_BEGIN, e);
}

/* --- the state row --- */

static int write_state(struct engine *q, struct err *e)
{
	const struct schedule_counts *c = schedule_counts(q->schedule);
	const struct pauses *p = &q->pauses;
	return sqlite_run(&q->db, SQL_SET_STATE, e, V_INT(c->waiting), V_INT(c->retrying), V_INT(c->failed),
		V_INT(c->floor_key), V_INT(p->accept_on), V_BLOB(str_of(p->accept_reason)),
		V_INT(p->delivery_on), V_BLOB(str_of(p->delivery_reason)));
}

static bool state_changed(const struct engine *q)
{
	return memcmp(schedule_counts(q->schedule), &q->written_counts, sizeof(q->written_counts)) != 0 ||
	       memcmp(&q->pauses, &q->written_pauses, sizeof(q->pauses)) != 0;
}

static void take_reason(char *ret, size_t room, struct str s)
{
	memcpy(ret, s.p, s.n < room ? s.n : room - 1);
}

static int read_state(struct engine *q, struct schedule_counts *ret, struct err *e)
{
	sqlite3_stmt *row;
	int rc = sqlite_query_plain(&q->db, SQL_STATE, e, &row);
	if (rc <= 0)
		return rc < 0 ? -1 : err_set(e, ERR_FATAL, "queue.db: the state row is missing");
	*ret = (struct schedule_counts){
		.waiting = (uint64_t)sqlite3_column_int64(row, 0),
		.retrying = (uint64_t)sqlite3_column_int64(row, 1),
		.failed = (uint64_t)sqlite3_column_int64(row, 2),
		.floor_key = (uint64_t)sqlite3_column_int64(row, 3),
	};
	q->pauses.accept_on = sqlite3_column_int(row, 4);
	take_reason(q->pauses.accept_reason, sizeof(q->pauses.accept_reason), sqlite_bytes(row, 5));
	q->pauses.delivery_on = sqlite3_column_int(row, 6);
	take_reason(q->pauses.delivery_reason, sizeof(q->pauses.delivery_reason), sqlite_bytes(row, 7));
	sqlite_done(row);
	return 0;
}

/* Counts the rows where the state row is plainly wrong: the file was edited by hand. */
static int verify_counts(struct engine *q, struct schedule_counts *counts, struct err *e)
{
	sqlite3_stmt *row;
	if (sqlite_query_plain(&q->db, SQL_ANY, e, &row) < 0)
		return -1;
	bool any_waiting = sqlite3_column_int(row, 0) || sqlite3_column_int(row, 1);
	bool any_failed = sqlite3_column_int(row, 2);
	sqlite_done(row);
	if (any_waiting == (counts->waiting > 0) && any_failed == (counts->failed > 0))
		return 0;
	if (sqlite_query_plain(&q->db, SQL_COUNT, e, &row) < 0)
		return -1;
	counts->waiting = (uint64_t)(sqlite3_column_int64(row, 0) + sqlite3_column_int64(row, 1));
	counts->retrying = (uint64_t)sqlite3_column_int64(row, 2);
	counts->failed = (uint64_t)sqlite3_column_int64(row, 3);
	sqlite_done(row);
	return 0;
}

/* --- groups --- */

static int sqlite_begin(void *state, struct err *e)
{
	struct engine *q = state;
	if (q->db.log_pages >= q->db.checkpoint_at)
		sqlite_checkpoint(&q->db);
	return begin(q, e);
}

static int sqlite_commit(void *state, struct err *e)
{
	struct engine *q = state;
	int log_pages = q->db.log_pages;
	if (state_changed(q) && write_state(q, e) < 0)
		return -1;
	if (sqlite_run_plain(&q->db, SQL_COMMIT, e) < 0)
		return -1;
	if (q->db.log_pages != log_pages)
		q->idle_at = mono_add_ms(clock_mono(q->clock), IDLE_MS);
	schedule_commit(q->schedule);
	q->written_counts = *schedule_counts(q->schedule);
	q->written_pauses = q->pauses;
	sqlite_keys_commit(&q->keys);
	return 0;
}

static void sqlite_abort(void *state)
{
	struct engine *q = state;
	sqlite_rollback(&q->db);
	schedule_abort(q->schedule);
	q->pauses = q->written_pauses;
	sqlite_keys_abort(&q->keys);
}

static int sqlite_probe(void *state, struct err *e)
{
	struct engine *q = state;
	if (sqlite_begin(q, e) == 0 && write_state(q, e) == 0 && sqlite_commit(q, e) == 0)
		return 0;
	sqlite_abort(q);
	return -1;
}

/* --- rows, for leasing.h and schedule.h --- */

/* The first column of the only row, copied. */
static int read_bytes(struct engine *q, enum statement which, uint64_t key, struct str *ret, struct err *e)
{
	sqlite3_stmt *row;
	int rc = sqlite_query(&q->db, which, e, &row, V_INT(key));
	if (rc <= 0)
		return rc < 0 ? -1 : err_set(e, ERR_FATAL, "queue.db: a message is missing");
	struct str bytes = sqlite_bytes(row, 0);
	buf_reset(&q->bytes);
	/* Larger than anything that was ever written: damaged, and read as nothing. */
	if (bytes.n <= q->bytes.ceiling_bytes)
		buf_add_str(&q->bytes, bytes);
	sqlite_done(row);
	*ret = buf_str(&q->bytes);
	return q->bytes.failed ? err_oom(e) : 0;
}

static int shelf_record(void *state, const struct schedule_entry *entry, struct str *ret, struct err *e)
{
	return read_bytes(
		state, entry->lane == LANE_FRESH ? SQL_FRESH_RECORD : SQL_TRIED_RECORD, entry->key, ret, e);
}

static int shelf_history(void *state, uint64_t key, struct str *ret, struct err *e)
{
	return read_bytes(state, SQL_TRIED_HISTORY, key, ret, e);
}

static int shelf_erase(void *state, const struct schedule_entry *entry, struct err *e)
{
	struct engine *q = state;
	enum statement which = entry->lane == LANE_FRESH ? SQL_ERASE_FRESH : SQL_ERASE_TRIED;
	return sqlite_run(&q->db, which, e, V_INT(entry->key));
}

static int shelf_rewrite(
	void *state, const struct schedule_entry *entry, const struct row *row, struct err *e)
{
	struct engine *q = state;
	enum statement which = entry->lane == LANE_FRESH ? SQL_FIRST_TRY : SQL_LATER_TRY;
	if (sqlite_run(&q->db, which, e, V_INT(row->key), row->failed ? V_NULL : V_INT(row->due_ms),
		    V_INT(row->attempts), V_BLOB(row->history)) < 0)
		return -1;
	return entry->lane == LANE_FRESH ? sqlite_run(&q->db, SQL_ERASE_FRESH, e, V_INT(row->key)) : 0;
}

static int shelf_batch_held(
	void *state, const struct schedule_batch *batch, struct str members, struct err *e)
{
	struct engine *q = state;
	if (!members.n)
		return sqlite_run(&q->db, SQL_LEASE_END, e, V_INT(batch->token));
	return sqlite_run(
		&q->db, SQL_LEASE, e, V_INT(batch->token), V_BLOB(str_of(batch->worker)), V_BLOB(members));
}

static int shelf_waiting(void *state, uint64_t key, struct schedule_entry *ret, struct err *e)
{
	struct engine *q = state;
	sqlite3_stmt *row;
	int rc = sqlite_query(&q->db, SQL_WAITING, e, &row, V_INT(key), V_INT(SEALED_CLIENT_BYTES));
	if (rc <= 0)
		return rc;
	bool tried = sqlite3_column_type(row, 0) != SQLITE_NULL;
	*ret = (struct schedule_entry){
		.due_ms = sqlite3_column_int64(row, 0),
		.key = key,
		.attempts = (uint32_t)sqlite3_column_int64(row, 1),
		.lane = tried ? LANE_RETRY : LANE_FRESH,
		.client = schedule_client(sealed_client(sqlite_bytes(row, 2))),
	};
	sqlite_done(row);
	return 1;
}

static const struct leasing_shelf shelf = {
	.record = shelf_record,
	.history = shelf_history,
	.erase = shelf_erase,
	.rewrite = shelf_rewrite,
	.batch_held = shelf_batch_held,
	.waiting = shelf_waiting,
};

static struct schedule_entry loaded_entry(sqlite3_stmt *row, enum schedule_lane lane)
{
	struct schedule_entry entry = {
		.key = (uint64_t)sqlite3_column_int64(row, 0),
		.lane = lane,
		.client = schedule_client(sealed_client(sqlite_bytes(row, 1))),
	};
	if (lane == LANE_RETRY) {
		entry.due_ms = sqlite3_column_int64(row, 2);
		entry.attempts = (uint32_t)sqlite3_column_int64(row, 3);
	}
	return entry;
}

static int load(void *source, struct schedule *s, enum schedule_lane lane, const struct schedule_entry *after,
	unsigned max, struct err *e)
{
	struct engine *q = source;
	sqlite3_stmt *row;
	unsigned count = 0;
	int rc = lane == LANE_FRESH ? sqlite_query(&q->db, SQL_LOAD_FRESH, e, &row, V_INT(after->key),
					      V_INT(max), V_INT(SEALED_CLIENT_BYTES))
				    : sqlite_query(&q->db, SQL_LOAD_TRIED, e, &row, V_INT(after->due_ms),
					      V_INT(after->key), V_INT(max), V_INT(SEALED_CLIENT_BYTES));
	for (; rc > 0; rc = sqlite_next(&q->db, row, e), count++) {
		struct schedule_entry entry = loaded_entry(row, lane);
		if (schedule_offer(s, &entry, e) < 0) {
			sqlite_done(row);
			return -1;
		}
	}
	if (rc < 0)
		return -1;
	return count < max ? SCHEDULE_ALL : SCHEDULE_MORE;
}

/* --- open, close --- */

/* Takes over the lease rows of the process that wrote the file last, one after the other. */
static int restore_leases(struct engine *q, struct err *e)
{
	AUTO(buf_auto) struct buf copy;
	buf_init(&copy, LEASE_ROW_BYTES);
	sqlite3_stmt *row;
	uint64_t token = 0;
	int rc;
	while ((rc = sqlite_query(&q->db, SQL_LEASE_NEXT, e, &row, V_INT(token))) > 0) {
		token = (uint64_t)sqlite3_column_int64(row, 0);
		struct str worker = sqlite_bytes(row, 1);
		buf_reset(&copy);
		buf_add_str(&copy, worker);
		buf_add_str(&copy, sqlite_bytes(row, 2));
		sqlite_done(row);
		if (buf_check(&copy, e) < 0)
			return -1;
		if (leasing_restore(&q->leasing, token, str_mem(copy.p, worker.n),
			    str_mem(copy.p + worker.n, copy.n - worker.n), e) < 0)
			return -1;
	}
	return rc;
}

static int count_lost_leases(struct engine *q, struct err *e)
{
	if (begin(q, e) < 0 || restore_leases(q, e) < 0)
		return -1;
	int ended;
	do
		ended = leasing_expire(&q->leasing, EXPIRE_AT_ONCE, e);
	while (ended > 0);
	return ended < 0 ? -1 : sqlite_commit(q, e);
}

static int start(struct engine *q, struct err *e)
{
	struct schedule_counts counts = {0};
	if (read_state(q, &counts, e) < 0)
		return -1;
	q->written_counts = counts;
	q->written_pauses = q->pauses;
	if (verify_counts(q, &counts, e) < 0 ||
		schedule_new(load, q, WINDOW_ENTRIES, &counts, &q->schedule, e) < 0)
		return -1;
	leasing_init(&q->leasing, &shelf, q, q->clock, q->schedule);
	return sqlite_keys_load(&q->keys, e) < 0 ? -1 : count_lost_leases(q, e);
}

static void free_engine(struct engine *q)
{
	sqlite_db_close(&q->db);
	leasing_clear(&q->leasing);
	schedule_free(q->schedule);
	sqlite_keys_clear(&q->keys);
	buf_clear(&q->record);
	buf_clear(&q->bytes);
	free(q);
}

static int sqlite_open(const struct queue_driver_options *o, void **ret_state, struct err *e)
{
	struct engine *q = calloc(1, sizeof(*q));
	if (!q)
		return err_oom(e);
	q->clock = o->clock;
	sqlite_keys_init(&q->keys, &q->db, o);
	buf_init(&q->record, SEALED_MAX_BYTES);
	buf_init(&q->bytes, HISTORY_MAX_BYTES + SEALED_MAX_BYTES);
	if (sqlite_db_open(o->location, &q->db, e) < 0 || start(q, e) < 0) {
		free_engine(q);
		return -1;
	}
	*ret_state = q;
	return 0;
}

static void sqlite_close(void *state)
{
	struct engine *q = state;
	if (!q)
		return;
	/* Nobody died: what is still leased counts no attempt. If it cannot be written, it does. */
	if (schedule_leased(q->schedule))
		sqlite_run_if_possible(&q->db, SQL_LEASE_END_ALL);
	free_engine(q);
}

static const char *sqlite_durability(void *state)
{
	(void)state;
	return "sqlite: WAL, synchronous=FULL: a commit survives the end of the process and power loss";
}

static uint64_t sqlite_floor_key(void *state)
{
	struct engine *q = state;
	return schedule_counts(q->schedule)->floor_key;
}

/* --- put --- */

/* Keys above every key there ever was, the usual case, cannot be in `tried`. */
static int refuse_tried(struct engine *q, uint64_t key, struct err *e)
{
	sqlite3_stmt *row;
	if (key > schedule_counts(q->schedule)->floor_key)
		return 0;
	int rc = sqlite_query(&q->db, SQL_IS_TRIED, e, &row, V_INT(key));
	if (rc <= 0)
		return rc;
	sqlite_done(row);
	return err_set(e, ERR_CONFLICT, "the queue holds a message with this id already");
}

static int put_one(struct engine *q, const struct sealed *sealed, struct err *e)
{
	uint64_t key = uuid_order_key(&sealed->id);
	buf_reset(&q->record);
	sealed_encode(sealed, &q->record);
	if (buf_check(&q->record, e) < 0 || refuse_tried(q, key, e) < 0)
		return -1;
	return sqlite_run(&q->db, SQL_PUT, e, V_INT(key), V_BLOB(buf_str(&q->record)));
}

/* All or none: what went in before a refused one comes out again. */
static int put_all(struct engine *q, const struct queue_put *put, struct err *e)
{
	struct err why = ERR_INIT;
	unsigned i = 0;
	while (i < put->count && put_one(q, &put->messages[i], &why) == 0)
		i++;
	if (i == put->count)
		return 0;
	/* Of other failures the transaction is spoilt, and may be rolled back already. */
	bool alone = why.kind == ERR_CONFLICT || why.kind == ERR_REJECT;
	while (alone && i-- > 0)
		if (sqlite_run(&q->db, SQL_ERASE_FRESH, e, V_INT(uuid_order_key(&put->messages[i].id))) < 0)
			return -1;
	if (e)
		*e = why;
	return -1;
}

static int sqlite_put(void *state, struct queue_put *put, struct err *e)
{
	struct engine *q = state;
	struct remembered first;
	int known = put->has_key ? sqlite_keys_find(&q->keys, put->key_hash, &first, e) : 0;
	if (known)
		return known < 0 ? -1 : remembered_answer(&first, put);
	if (put->has_key && !put->key_promised && sqlite_keys_full(&q->keys))
		return QUEUE_KEYS_FULL;
	if (put_all(q, put, e) < 0)
		return -1;
	put->position = schedule_counts(q->schedule)->waiting - schedule_leased(q->schedule) + 1;
	for (unsigned i = 0; i < put->count; i++)
		schedule_accept(q->schedule, uuid_order_key(&put->messages[i].id),
			schedule_client(put->messages[i].client_id));
	return put->has_key && sqlite_keys_add(&q->keys, put, e) < 0 ? -1 : QUEUE_STORED;
}

/* --- lease, settle, renew --- */

static int sqlite_lease(void *state, struct queue_lease *lease, struct err *e)
{
	struct engine *q = state;
	return leasing_lease(&q->leasing, lease, e);
}

static int sqlite_settle(void *state, struct queue_settle *settle, struct err *e)
{
	struct engine *q = state;
	return leasing_settle(&q->leasing, settle, e);
}

static int sqlite_renew(void *state, struct queue_renew *renew, struct err *e)
{
	struct engine *q = state;
	return leasing_renew(&q->leasing, renew, e);
}

/* --- administration --- */

static struct row row_of(sqlite3_stmt *row)
{
	return (struct row){
		.key = (uint64_t)sqlite3_column_int64(row, 0),
		.failed = sqlite3_column_type(row, 1) == SQLITE_NULL,
		.due_ms = sqlite3_column_int64(row, 1),
		.attempts = (unsigned)sqlite3_column_int64(row, 2),
		.history = sqlite_bytes(row, 3),
		.record = sqlite_bytes(row, 4),
	};
}

static bool is_leased(const struct engine *q, uint64_t key)
{
	return schedule_find(q->schedule, key, 0) != NULL;
}

static int sqlite_find(void *state, struct queue_find *find, struct err *e)
{
	struct engine *q = state;
	sqlite3_stmt *found;
	int rc = sqlite_query(&q->db, SQL_FIND, e, &found, V_INT(uuid_order_key(&find->id)));
	if (rc <= 0)
		return rc < 0 ? -1 : err_set(e, ERR_NOT_FOUND, "no such message in the queue");
	struct row row = row_of(found);
	rc = row_find(&row, is_leased(q, row.key), find, e);
	sqlite_done(found);
	return rc;
}

static int sqlite_list(void *state, struct queue_list *list, struct err *e)
{
	struct engine *q = state;
	enum statement which = list->filter.state == MESSAGE_FAILED ? SQL_LIST_DEAD : SQL_LIST;
	sqlite3_stmt *found;
	unsigned seen = 0;
	int rc = sqlite_query(&q->db, which, e, &found, V_INT(list->progress), V_INT(SCAN_ROWS));
	for (; rc > 0 && list->count < list->max; rc = sqlite_next(&q->db, found, e), seen++) {
		struct row row = row_of(found);
		list->progress = row.key;
		if (row_list(&row, is_leased(q, row.key), list, e) < 0) {
			sqlite_done(found);
			return -1;
		}
	}
	if (rc > 0)
		sqlite_done(found);
	if (rc < 0)
		return -1;
	return list->count < list->max && seen == SCAN_ROWS ? QUEUE_UNFINISHED : 0;
}

static int sqlite_stats(void *state, struct queue_stats *stats, struct err *e)
{
	struct engine *q = state;
	sqlite3_stmt *row;
	if (sqlite_query_plain(&q->db, SQL_OLDEST, e, &row) < 0)
		return -1;
	uint64_t oldest_key = (uint64_t)sqlite3_column_int64(row, 0);
	sqlite_done(row);
	stats->keys = sqlite_keys_count(&q->keys);
	pauses_report(&q->pauses, stats);
	return schedule_stats(q->schedule, clock_wall(q->clock), oldest_key, stats, e);
}

typedef int dead_action(struct engine *q, uint64_t key, struct err *e);

static int redrive_one(struct engine *q, uint64_t key, struct err *e)
{
	struct wall now = clock_wall(q->clock);
	struct schedule_entry entry = {.key = key};
	if (sqlite_run(&q->db, SQL_REDRIVE, e, V_INT(key), V_INT(now.ms)) < 0 ||
		shelf_waiting(q, key, &entry, e) < 0)
		return -1;
	schedule_redrive(q->schedule, key, entry.client, now);
	return 0;
}

static int purge_one(struct engine *q, uint64_t key, struct err *e)
{
	if (sqlite_run(&q->db, SQL_ERASE_TRIED, e, V_INT(key)) < 0)
		return -1;
	schedule_purge(q->schedule);
	return 0;
}

static int dead_by_id(struct engine *q, const struct dead_choice *choice, dead_action *action, struct err *e)
{
	for (unsigned i = 0; i < choice->id_count && *choice->matched < choice->max; i++) {
		uint64_t key = uuid_order_key(&choice->ids[i]);
		sqlite3_stmt *found;
		int rc = sqlite_query(&q->db, SQL_FIND_DEAD, e, &found, V_INT(key));
		if (rc < 0)
			return -1;
		if (rc == 0)
			continue;
		struct row row = row_of(found);
		bool meant = dead_has_id(&row, choice, i);
		sqlite_done(found);
		*choice->matched += meant;
		if (meant && !choice->dry_run && action(q, key, e) < 0)
			return -1;
	}
	return 0;
}

/* Collects the keys of the next rows that match; what changes rows comes after the query. Returns whether
 * there may be more rows, or <0. */
static int collect_dead(struct engine *q, const struct dead_choice *choice, uint64_t keys[SCAN_ROWS],
	unsigned *ret_count, struct err *e)
{
	sqlite3_stmt *found;
	unsigned seen = 0, count = 0;
	int rc = sqlite_query(&q->db, SQL_LIST_DEAD, e, &found, V_INT(*choice->progress), V_INT(SCAN_ROWS));
	for (; rc > 0 && *choice->matched < choice->max; rc = sqlite_next(&q->db, found, e), seen++) {
		struct row row = row_of(found);
		*choice->progress = row.key;
		if (!dead_matches(&row, choice))
			continue;
		keys[count++] = row.key;
		(*choice->matched)++;
	}
	if (rc > 0)
		sqlite_done(found);
	*ret_count = count;
	return rc < 0 ? -1 : *choice->matched < choice->max && seen == SCAN_ROWS;
}

static int dead_by_filter(
	struct engine *q, const struct dead_choice *choice, dead_action *action, struct err *e)
{
	uint64_t keys[SCAN_ROWS];
	unsigned count;
	int more = collect_dead(q, choice, keys, &count, e);
	if (more < 0)
		return -1;
	for (unsigned i = 0; i < count && !choice->dry_run; i++)
		if (action(q, keys[i], e) < 0)
			return -1;
	return more ? QUEUE_UNFINISHED : 0;
}

static int on_dead(struct engine *q, const struct dead_choice *choice, dead_action *action, struct err *e)
{
	return choice->id_count ? dead_by_id(q, choice, action, e) : dead_by_filter(q, choice, action, e);
}

static int sqlite_redrive(void *state, struct queue_redrive *redrive, struct err *e)
{
	return on_dead(state, DEAD_CHOICE(redrive), redrive_one, e);
}

static int sqlite_purge(void *state, struct queue_purge *purge, struct err *e)
{
	return on_dead(state, DEAD_CHOICE(purge), purge_one, e);
}

static int sqlite_pause(void *state, struct queue_pause *pause, struct err *e)
{
	struct engine *q = state;
	(void)e;
	pauses_set(&q->pauses, pause);
	return 0;
}

/* --- tick --- */

/* Runs a piece of housekeeping in a transaction of its own. Returns what it returned, or <0. */
static int in_transaction(struct engine *q, int (*work)(struct engine *q, struct err *e))
{
	struct err e = ERR_INIT;
	int rc = sqlite_begin(q, &e);
	if (rc < 0)
		return -1;
	rc = work(q, &e);
	if (rc >= 0 && sqlite_commit(q, &e) == 0)
		return rc;
	sqlite_abort(q);
	return -1;
}

static int expire_some(struct engine *q, struct err *e)
{
	return leasing_expire(&q->leasing, EXPIRE_AT_ONCE, e);
}

static void expire(struct engine *q, struct mono now)
{
	if (!mono_reached(now, schedule_earliest(q->schedule)) || !mono_reached(now, q->expire_after))
		return;
	if (in_transaction(q, expire_some) < 0)
		q->expire_after = mono_add_ms(now, RETRY_MS);
}

static int forget_some(struct engine *q, struct err *e)
{
	return sqlite_keys_forget(&q->keys, e);
}

static void forget(struct engine *q, struct mono now)
{
	if (!mono_reached(now, q->forget_at))
		return;
	bool more = in_transaction(q, forget_some) > 0;
	q->forget_at = more ? now : mono_add_ms(now, FORGET_EVERY_MS);
}

static void checkpoint_when_idle(struct engine *q, struct mono now)
{
	if (q->db.log_pages < LOG_PAGES_IDLE || !mono_reached(now, q->idle_at))
		return;
	sqlite_checkpoint(&q->db);
	q->idle_at = mono_add_ms(now, IDLE_MS);
}

static struct mono earlier(struct mono a, struct mono b)
{
	return a.ns < b.ns ? a : b;
}

static struct mono later(struct mono a, struct mono b)
{
	return a.ns > b.ns ? a : b;
}

static bool sqlite_tick(void *state, struct mono now, struct mono *ret_next)
{
	struct engine *q = state;
	expire(q, now);
	forget(q, now);
	checkpoint_when_idle(q, now);
	schedule_look_ahead(q->schedule);
	bool due = schedule_attention(q->schedule, clock_wall(q->clock), now, ret_next);
	*ret_next = earlier(*ret_next, later(schedule_earliest(q->schedule), q->expire_after));
	if (sqlite_keys_count(&q->keys))
		*ret_next = earlier(*ret_next, q->forget_at);
	if (q->db.log_pages >= LOG_PAGES_IDLE)
		*ret_next = earlier(*ret_next, q->idle_at);
	return due;
}

const struct queue_driver queue_driver_sqlite = {
	.name = "sqlite",
	.open = sqlite_open,
	.close = sqlite_close,
	.durability = sqlite_durability,
	.floor_key = sqlite_floor_key,
	.begin = sqlite_begin,
	.commit = sqlite_commit,
	.abort = sqlite_abort,
	.put = sqlite_put,
	.lease = sqlite_lease,
	.settle = sqlite_settle,
	.renew = sqlite_renew,
	.find = sqlite_find,
	.list = sqlite_list,
	.stats = sqlite_stats,
	.redrive = sqlite_redrive,
	.purge = sqlite_purge,
	.pause = sqlite_pause,
	.tick = sqlite_tick,
	.probe = sqlite_probe,
};
