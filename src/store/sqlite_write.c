/* sqlite_write.c - the writer thread's half of the SQLite driver.
 *
 * A message in the usual case is one INSERT: its number comes from a counter, its origin from a small cache,
 * and a conflict on the id (ON CONFLICT DO NOTHING changes no row) leads to the slower path that looks at the
 * row.
 *
 * Index entries are not written with the row: an entry of a random key dirties a page of its own, and the log
 * then takes 4 KiB for 20 bytes, more as the table grows. Instead, when enough rows have gathered behind the
 * last segment, the commit adds their entries in the order of the keys, which fills pages one after the other
 * (doc/decisions/0006-store-indexes.md has the figures). What changes on a row that is in a segment already
 * moves its entries one by one. */
#include <stdlib.h>

#include "base/auto.h"
#include "store/rules.h"
#include "store/sqlite_writer.h"

const char *const sqlite_counter_names[SQLITE_COUNTERS] = {
	[COUNTER_SEQUENCE] = "sequence",
	[COUNTER_INDEXED] = "indexed",
	[COUNTER_CHANGE] = "change",
	[COUNTER_CLIENTS] = "clients",
	[COUNTER_CERTS] = "certs",
	[COUNTER_AUDIT] = "audit",
	[COUNTER_PROBES] = "probes",
	[COUNTER_STATE + MESSAGE_QUEUED] = "messages.queued",
	[COUNTER_STATE + MESSAGE_PROCESSING] = "messages.processing",
	[COUNTER_STATE + MESSAGE_DELIVERED] = "messages.delivered",
	[COUNTER_STATE + MESSAGE_FAILED] = "messages.failed",
};

static const struct sq_text texts[WRITES] = {
#define STATEMENT(id, what, sql) [SQL_##id] = {what, sql},
#include "store/sqlite_writes.def"
#undef STATEMENT
};

/* Runs a statement that takes no parameters. */
static int run_plain(struct sqlite_writer *w, unsigned statement, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, statement);
	return sq_run(&w->sq, &a, NULL, e);
}

/* --- start and stop --- */

int sqlite_counters_read(const struct sq *s, unsigned statement, struct sqlite_counters *ret, struct err *e)
{
	struct sq_args a = sq_args(s, statement);
	struct sqlite_counters counters = {0};
	int more;
	while ((more = sq_next(s, &a, e)) == SQ_ROW) {
		struct sq_columns c = sq_columns(&a, NULL);
		char name[32];
		unsigned n = sq_column_upto(&c, name, sizeof(name));
		int64_t value = sq_column_int(&c);
		for (unsigned i = 0; i < SQLITE_COUNTERS; i++)
			if (str_eq(str_mem(name, n), str_of(sqlite_counter_names[i])))
				counters.value[i] = value;
	}
	if (more == SQ_END)
		*ret = counters;
	return more;
}

/* Called after each commit with the length of the write-ahead log; stands in the place of automatic
 * checkpoints. */
static int note_wal(void *arg, sqlite3 *db, const char *schema, int pages)
{
	(void)db;
	(void)schema;
	struct sqlite_writer *w = arg;
	w->wal_pages = pages;
	return SQLITE_OK;
}

int sqlite_writer_start(struct sqlite_writer *w, struct err *e)
{
	w->origins = calloc(ORIGIN_SLOTS, sizeof(*w->origins));
	if (!w->origins)
		return err_oom(e);
	if (sq_prepare(&w->sq, texts, WRITES, e) < 0 ||
		sqlite_counters_read(&w->sq, SQL_COUNTERS, &w->committed, e) < 0)
		return -1;
	sqlite3_wal_hook(w->sq.db, note_wal, w);
	return 0;
}

void sqlite_writer_stop(struct sqlite_writer *w)
{
	sq_close(&w->sq);
	free(w->origins);
}

/* --- groups --- */

/* Moves the write-ahead log into the file when it has grown; here and not at commit, so that those who wait
 * for the commit do not wait for this. A reader may keep a part of it back; the next group tries again. */
static int checkpoint(struct sqlite_writer *w, struct err *e)
{
	if (w->wal_pages < (int)w->checkpoint_pages)
		return 0;
	int rc = sqlite3_wal_checkpoint_v2(w->sq.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	return rc == SQLITE_OK || rc == SQLITE_BUSY ? 0 : sq_fail(&w->sq, rc, "checkpoint", e);
}

int sqlite_begin(void *state, struct wall now, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	if (checkpoint(w, e) < 0)
		return -1;
	w->now = now;
	w->counters = w->committed;
	return run_plain(w, SQL_BEGIN, e);
}

/* Adds the index entries of one segment. */
static int add_segment(struct sqlite_writer *w, int64_t first, int64_t last, struct err *e)
{
	static const unsigned steps[] = {SQL_ADD_SEGMENT, SQL_FILL_BY_SENDER, SQL_FILL_BY_ORIGIN};
	for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
		struct sq_args a = sq_args(&w->sq, steps[i]);
		sq_bind_int(&a, first);
		sq_bind_int(&a, last);
		if (sq_run(&w->sq, &a, NULL, e) < 0)
			return -1;
	}
	return 0;
}

static int index_tail(struct sqlite_writer *w, struct err *e)
{
	int64_t *indexed = &w->counters.value[COUNTER_INDEXED];
	while (w->counters.value[COUNTER_SEQUENCE] - *indexed >= w->segment_rows) {
		if (add_segment(w, *indexed + 1, *indexed + w->segment_rows, e) < 0)
			return -1;
		*indexed += w->segment_rows;
	}
	return 0;
}

static int write_counters(struct sqlite_writer *w, struct err *e)
{
	for (unsigned i = 0; i < SQLITE_COUNTERS; i++) {
		if (w->counters.value[i] == w->committed.value[i])
			continue;
		struct sq_args a = sq_args(&w->sq, SQL_SET_COUNTER);
		sq_bind_text(&a, str_of(sqlite_counter_names[i]));
		sq_bind_int(&a, w->counters.value[i]);
		if (sq_run(&w->sq, &a, NULL, e) < 0)
			return -1;
	}
	return 0;
}

int sqlite_commit(void *state, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	if (index_tail(w, e) < 0 || write_counters(w, e) < 0 || run_plain(w, SQL_COMMIT, e) < 0)
		return -1;
	w->committed = w->counters;
	return 0;
}

void sqlite_abort(void *state)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	/* Origins added by this group are gone with it. */
	memset(w->origins, 0, ORIGIN_SLOTS * sizeof(*w->origins));
	/* Some failures have rolled back by themselves. After a roll-back that fails, so does the next begin.
	 */
	if (!sqlite3_get_autocommit(w->sq.db))
		sqlite3_exec(w->sq.db, "ROLLBACK", NULL, NULL, NULL);
}

/* --- origins --- */

static struct origin_slot *slot_of(struct sqlite_writer *w, struct str client, struct str domain)
{
	uint32_t hash = 2166136261u; /* FNV-1a: only spreads names that we have accepted over a cache */
	for (size_t i = 0; i < client.n; i++)
		hash = (hash ^ (unsigned char)client.p[i]) * 16777619u;
	for (size_t i = 0; i < domain.n; i++)
		hash = (hash ^ (unsigned char)domain.p[i]) * 16777619u;
	return &w->origins[hash % ORIGIN_SLOTS];
}

static bool slot_holds(const struct origin_slot *slot, struct str client, struct str domain)
{
	return str_eq(str_mem(slot->client, slot->client_bytes), client) &&
	       str_eq(str_mem(slot->domain, slot->domain_bytes), domain);
}

/* Finds the number of the pair in the database, or gives it one. */
static int number_origin(
	struct sqlite_writer *w, struct str client, struct str domain, int64_t *ret, struct err *e)
{
	struct sq_args find = sq_args(&w->sq, SQL_FIND_ORIGIN);
	sq_bind_text(&find, client);
	sq_bind_text(&find, domain);
	int found = sq_next(&w->sq, &find, e);
	if (found == SQ_ROW) {
		struct sq_columns c = sq_columns(&find, NULL);
		*ret = sq_column_int(&c);
		sqlite3_reset(find.statement);
		return 0;
	}
	if (found < 0)
		return -1;
	struct sq_args add = sq_args(&w->sq, SQL_ADD_ORIGIN);
	sq_bind_text(&add, client);
	sq_bind_text(&add, domain);
	if (sq_run(&w->sq, &add, NULL, e) < 0)
		return -1;
	*ret = sqlite3_last_insert_rowid(w->sq.db);
	return 0;
}

static int origin_of(struct sqlite_writer *w, const struct sealed *sealed, int64_t *ret, struct err *e)
{
	struct str client = sealed->client_id, domain = sealed->domain;
	struct origin_slot *slot = slot_of(w, client, domain);
	if (!slot_holds(slot, client, domain)) {
		int64_t ref;
		if (number_origin(w, client, domain, &ref, e) < 0)
			return -1;
		memcpy(slot->client, client.p, client.n);
		memcpy(slot->domain, domain.p, domain.n);
		slot->client_bytes = (unsigned char)client.n;
		slot->domain_bytes = (unsigned char)domain.n;
		slot->ref = ref;
	}
	*ret = slot->ref;
	return 0;
}

/* --- messages --- */

static void bind_index(struct sq_args *a, const uint8_t index[STORE_INDEX_BYTES])
{
	if (rules_index_known(index))
		sq_bind_blob(a, index, STORE_INDEX_BYTES);
	else
		sq_bind_null(a);
}

static int64_t delivered_ms(const struct sqlite_writer *w, const struct store_message *item)
{
	return item->state == MESSAGE_DELIVERED ? w->now.ms : 0;
}

/* *ret_added is false when the id is there already. */
static int add_message(struct sqlite_writer *w, const struct store_message *item, int64_t origin,
	bool *ret_added, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, SQL_ADD_MESSAGE);
	sq_bind_int(&a, w->counters.value[COUNTER_SEQUENCE] + 1);
	sq_bind_blob(&a, item->sealed.id.b, sizeof(item->sealed.id.b));
	sq_bind_int(&a, origin);
	sq_bind_int(&a, item->sealed.accepted_at.ms);
	sq_bind_int(&a, item->state);
	sq_bind_int(&a, item->attempt_count);
	sq_bind_int(&a, w->now.ms);
	sq_bind_int(&a, w->now.ms);
	sq_bind_int_or_null(&a, delivered_ms(w, item));
	bind_index(&a, item->sender_index);
	sq_bind_text_or_null(&a, item->sealed.traceparent);
	sq_bind_blob(&a, item->sealed.envelope.p, item->sealed.envelope.n);
	int64_t changed;
	if (sq_run(&w->sq, &a, &changed, e) < 0)
		return -1;
	*ret_added = changed != 0;
	w->counters.value[COUNTER_SEQUENCE] += changed;
	w->counters.value[COUNTER_STATE + item->state] += changed;
	return 0;
}

/* What the writer needs to know of a row before it changes it. */
struct known {
	int64_t sequence;
	enum message_state state;
	int64_t origin, accepted_ms;
	uint8_t sender_index[STORE_INDEX_BYTES];
};

/* SQ_ROW or SQ_END. */
static int find_message(struct sqlite_writer *w, const struct uuid *id, struct known *ret, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, SQL_FIND_MESSAGE);
	sq_bind_blob(&a, id->b, sizeof(id->b));
	int found = sq_next(&w->sq, &a, e);
	if (found != SQ_ROW)
		return found;
	struct sq_columns c = sq_columns(&a, NULL);
	ret->sequence = sq_column_int(&c);
	unsigned state = sq_column_unsigned(&c);
	ret->origin = sq_column_int(&c);
	ret->accepted_ms = sq_column_int(&c);
	sq_column_exact_or_null(&c, ret->sender_index, STORE_INDEX_BYTES);
	if (sq_columns_check(&c, state < MESSAGE_STATES ? NULL : "state", "message", ret->sequence, e) < 0)
		return -1;
	ret->state = (enum message_state)state;
	return SQ_ROW;
}

static int change_entry(struct sqlite_writer *w, unsigned statement, int64_t segment, int64_t sequence,
	const uint8_t *sender_index, int64_t origin, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, statement);
	sq_bind_int(&a, segment);
	sq_bind_int(&a, sequence);
	if (sender_index)
		sq_bind_blob(&a, sender_index, STORE_INDEX_BYTES);
	else
		sq_bind_int(&a, origin);
	return sq_run(&w->sq, &a, NULL, e);
}

static int move_sender(struct sqlite_writer *w, int64_t segment, const struct known *old,
	const uint8_t index[STORE_INDEX_BYTES], struct err *e)
{
	if (memcmp(old->sender_index, index, STORE_INDEX_BYTES) == 0)
		return 0;
	if (rules_index_known(old->sender_index) &&
		change_entry(w, SQL_REMOVE_BY_SENDER, segment, old->sequence, old->sender_index, 0, e) < 0)
		return -1;
	if (!rules_index_known(index))
		return 0;
	return change_entry(w, SQL_ADD_BY_SENDER, segment, old->sequence, index, 0, e);
}

static int move_origin(
	struct sqlite_writer *w, int64_t segment, const struct known *old, int64_t origin, struct err *e)
{
	if (old->origin == origin)
		return 0;
	if (change_entry(w, SQL_REMOVE_BY_ORIGIN, segment, old->sequence, NULL, old->origin, e) < 0)
		return -1;
	return change_entry(w, SQL_ADD_BY_ORIGIN, segment, old->sequence, NULL, origin, e);
}

static int widen_segment(struct sqlite_writer *w, int64_t segment, const struct known *old,
	struct wall accepted_at, struct err *e)
{
	if (old->accepted_ms == accepted_at.ms)
		return 0;
	struct sq_args a = sq_args(&w->sq, SQL_WIDEN_SEGMENT);
	sq_bind_int(&a, segment);
	sq_bind_int(&a, accepted_at.ms);
	return sq_run(&w->sq, &a, NULL, e);
}

/* The segment that a row before the tail is in. */
static int find_segment(struct sqlite_writer *w, int64_t sequence, int64_t *ret, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, SQL_FIND_SEGMENT);
	sq_bind_int(&a, sequence);
	int found = sq_next(&w->sq, &a, e);
	if (found < 0)
		return -1;
	if (found == SQ_END)
		return err_set(e, ERR_FATAL, "store: message %lld is in no segment", (long long)sequence);
	struct sq_columns c = sq_columns(&a, NULL);
	*ret = sq_column_int(&c);
	return 0;
}

/* Lets the index entries of a row that is in a segment follow what its delivery changes. */
static int move_entries(struct sqlite_writer *w, const struct known *old, const struct store_message *item,
	int64_t origin, struct err *e)
{
	int64_t segment;
	if (find_segment(w, old->sequence, &segment, e) < 0)
		return -1;
	if (move_sender(w, segment, old, item->sender_index, e) < 0 ||
		move_origin(w, segment, old, origin, e) < 0)
		return -1;
	return widen_segment(w, segment, old, item->sealed.accepted_at, e);
}

static int deliver_message(struct sqlite_writer *w, const struct known *old, const struct store_message *item,
	int64_t origin, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, SQL_DELIVER_MESSAGE);
	sq_bind_int(&a, old->sequence);
	sq_bind_int(&a, origin);
	sq_bind_int(&a, item->sealed.accepted_at.ms);
	sq_bind_int(&a, item->state);
	sq_bind_int(&a, item->attempt_count);
	sq_bind_int(&a, w->now.ms);
	sq_bind_int(&a, w->now.ms);
	bind_index(&a, item->sender_index);
	sq_bind_text_or_null(&a, item->sealed.traceparent);
	sq_bind_blob(&a, item->sealed.envelope.p, item->sealed.envelope.n);
	if (sq_run(&w->sq, &a, NULL, e) < 0)
		return -1;
	w->counters.value[COUNTER_STATE + old->state]--;
	w->counters.value[COUNTER_STATE + item->state]++;
	bool in_tail = old->sequence > w->counters.value[COUNTER_INDEXED];
	return in_tail ? 0 : move_entries(w, old, item, origin, e);
}

static int put_message(struct sqlite_writer *w, struct store_message *item, struct err *e)
{
	int64_t origin;
	bool added;
	if (origin_of(w, &item->sealed, &origin, e) < 0 || add_message(w, item, origin, &added, e) < 0)
		return -1;
	if (added)
		return 0;
	struct known old = {0};
	int found = find_message(w, &item->sealed.id, &old, e);
	if (found < 0)
		return -1;
	if (found == SQ_END)
		return err_set(e, ERR_FATAL, "store: the index of message ids is damaged");
	item->duplicate = item->state != MESSAGE_DELIVERED || old.state == MESSAGE_DELIVERED;
	return item->duplicate ? 0 : deliver_message(w, &old, item, origin, e);
}

int sqlite_put_messages(void *state, struct store_messages *put, struct err *e)
{
	for (unsigned i = 0; i < put->count; i++) {
		if (put_message(sqlite_writer_of(state), &put->items[i], e) < 0)
			return -1;
		put->stored_count += !put->items[i].duplicate;
	}
	return 0;
}

int sqlite_put_status(void *state, struct store_status *put, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	struct known old = {0};
	int found = find_message(w, &put->id, &old, e);
	if (found < 0)
		return -1;
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no message has this id");
	if (old.state == MESSAGE_DELIVERED)
		return STORE_UNCHANGED;
	struct sq_args a = sq_args(&w->sq, SQL_SET_STATUS);
	sq_bind_int(&a, old.sequence);
	sq_bind_int(&a, put->state);
	sq_bind_int(&a, put->attempt_count);
	sq_bind_int(&a, w->now.ms);
	sq_bind_text_or_null(&a, put->error_text);
	if (sq_run(&w->sq, &a, NULL, e) < 0)
		return -1;
	w->counters.value[COUNTER_STATE + old.state]--;
	w->counters.value[COUNTER_STATE + put->state]++;
	return 0;
}

/* --- messages whose time is over --- */

/* Fills `victims` with what goes of the next rows. */
static int find_expired(
	struct sqlite_writer *w, struct store_expire *expire, struct known *victims, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, SQL_FIND_DELIVERED);
	sq_bind_int(&a, expire->after_sequence);
	sq_bind_int(&a, expire->max);
	int64_t last = 0;
	int more;
	for (unsigned seen = 0; (more = sq_next(&w->sq, &a, e)) == SQ_ROW; seen++) {
		struct known *victim = &victims[expire->removed_count];
		struct sq_columns c = sq_columns(&a, NULL);
		char domain[DOMAIN_NAME_BYTES];
		last = victim->sequence = sq_column_int(&c);
		victim->origin = sq_column_int(&c);
		sq_column_exact_or_null(&c, victim->sender_index, STORE_INDEX_BYTES);
		unsigned domain_bytes = sq_column_upto(&c, domain, sizeof(domain));
		struct wall delivered_at = {sq_column_int(&c)}, stored_at = {sq_column_int(&c)};
		if (sq_columns_check(&c, NULL, "message", last, e) < 0)
			return -1;
		if (stored_at.ms >= expire->stored_until.ms)
			return 0;
		if (expire->is_over(expire->arg, str_mem(domain, domain_bytes), delivered_at))
			expire->removed_count++;
		if (seen + 1 == expire->max)
			expire->next_sequence = last;
	}
	return more;
}

static int remove_message(struct sqlite_writer *w, const struct known *victim, struct err *e)
{
	int64_t segment;
	struct sq_args a = sq_args(&w->sq, SQL_REMOVE_MESSAGE);
	sq_bind_int(&a, victim->sequence);
	if (sq_run(&w->sq, &a, NULL, e) < 0)
		return -1;
	w->counters.value[COUNTER_STATE + MESSAGE_DELIVERED]--;
	if (victim->sequence > w->counters.value[COUNTER_INDEXED])
		return 0;
	if (find_segment(w, victim->sequence, &segment, e) < 0 ||
		change_entry(w, SQL_REMOVE_BY_ORIGIN, segment, victim->sequence, NULL, victim->origin, e) < 0)
		return -1;
	return rules_index_known(victim->sender_index) ? change_entry(w, SQL_REMOVE_BY_SENDER, segment,
								 victim->sequence, victim->sender_index, 0, e)
						       : 0;
}

int sqlite_expire(void *state, struct store_expire *expire, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	AUTO(free_auto) struct known *victims = calloc(expire->max, sizeof(*victims));
	if (!victims)
		return err_oom(e);
	if (find_expired(w, expire, victims, e) < 0)
		return -1;
	for (unsigned i = 0; i < expire->removed_count; i++)
		if (remove_message(w, &victims[i], e) < 0)
			return -1;
	/* Those in front that are empty now; at least the last stays, for where it ends. */
	return expire->removed_count ? run_plain(w, SQL_REMOVE_SEGMENTS, e) : 0;
}

/* --- audit --- */

int sqlite_audit_head(void *state, int64_t *ret_sequence, uint8_t ret_hash[STORE_HASH_BYTES], struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, SQL_AUDIT_HASH);
	/* The counter, not the last row: a trail whose end was cut off goes on with a gap that the check
	 * finds. */
	*ret_sequence = w->counters.value[COUNTER_AUDIT];
	memset(ret_hash, 0, STORE_HASH_BYTES);
	int found = sq_next(&w->sq, &a, e);
	if (found != SQ_ROW)
		return found;
	struct sq_columns c = sq_columns(&a, NULL);
	sq_column_exact(&c, ret_hash, STORE_HASH_BYTES);
	return sq_columns_check(&c, NULL, "the newest audit row before", *ret_sequence + 1, e);
}

int sqlite_put_audit(void *state, const struct store_audit_row *row, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	struct sq_args a = sq_args(&w->sq, SQL_ADD_AUDIT);
	sq_bind_int(&a, row->sequence);
	sq_bind_int(&a, row->at.ms);
	sq_bind_text(&a, row->actor);
	sq_bind_text(&a, row->origin);
	sq_bind_text(&a, row->action);
	sq_bind_text(&a, row->target);
	sq_bind_text(&a, row->result);
	sq_bind_text(&a, row->detail);
	sq_bind_blob(&a, row->hash, STORE_HASH_BYTES);
	if (sq_run(&w->sq, &a, NULL, e) < 0)
		return -1;
	w->counters.value[COUNTER_AUDIT] = row->sequence;
	return 0;
}

/* Any counter that changes is written with the commit. */
int sqlite_probe(void *state, struct err *e)
{
	(void)e;
	sqlite_writer_of(state)->counters.value[COUNTER_PROBES]++;
	return 0;
}
