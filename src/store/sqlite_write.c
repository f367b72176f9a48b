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
#include "store/sqlite_store.h"

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

enum {
	BEGIN,
	COMMIT,
	COUNTERS,
	SET_COUNTER,
	FIND_ORIGIN,
	ADD_ORIGIN,
	ADD_MESSAGE,
	FIND_MESSAGE,
	DELIVER_MESSAGE,
	SET_STATUS,
	FIND_DELIVERED,
	REMOVE_MESSAGE,
	REMOVE_SEGMENTS,
	ADD_SEGMENT,
	FILL_BY_SENDER,
	FILL_BY_ORIGIN,
	FIND_SEGMENT,
	WIDEN_SEGMENT,
	ADD_BY_SENDER,
	REMOVE_BY_SENDER,
	ADD_BY_ORIGIN,
	REMOVE_BY_ORIGIN,
	FIND_CLIENT,
	ADD_CLIENT,
	SET_CLIENT_STATUS,
	RENUMBER_CERTS,
	ADD_CERT,
	REVOKE_SERIAL,
	REVOKE_NAME,
	ANY_SERIAL,
	ANY_NAME,
	SEE_CERT,
	SUPERSEDE,
	ADD_TOKEN,
	FIND_TOKEN,
	FIND_TOKEN_USE,
	ADD_TOKEN_USE,
	COUNT_TOKEN_USE,
	GIVE_TOKEN_USE,
	ANY_TOKEN,
	REVOKE_TOKEN,
	REVOKE_TOKENS,
	RESTORE_TOKEN,
	PURGE_TOKEN_USES,
	PURGE_TOKENS,
	AUDIT_HASH,
	ADD_AUDIT,
	STATEMENTS
};

/* Which certificates a revocation means; the parameters come first in both statements that use one. */
#define OF_SERIAL "serial = ?1 AND (?2 IS NULL OR issuer = ?2)"
#define OF_NAME   "name = ?1 AND (?2 IS NULL OR role = ?2)"
#define UNREVOKED " AND revoked_ms IS NULL"

/* Gives certificates the change numbers after ?3, in the order of their rows. */
#define NUMBER(which)                                                                                        \
	"change = ?3 + n.place FROM (SELECT ref AS numbered, row_number() OVER (ORDER BY ref) AS place"      \
	" FROM certs WHERE " which ") AS n WHERE certs.ref = n.numbered"
#define REVOKE(which) "UPDATE certs SET revoked_ms = ?4, reason = ?5, " NUMBER(which)

/* What certificates first seen in (?1, ?2] replace; see struct store_supersede. */
#define REPLACED                                                                                             \
	"ref IN (SELECT o.ref FROM certs x INDEXED BY certs_renewed_by_use JOIN certs o"                     \
	" ON o.serial = x.renews AND o.issuer = x.renews_issuer" USED                                        \
	" UNION SELECT o.ref FROM certs x INDEXED BY certs_renewed_by_use JOIN certs o"                      \
	" ON o.renews = x.renews AND o.renews_issuer = x.renews_issuer AND o.issued_ms < x.issued_ms"        \
	" AND o.first_seen_ms IS NULL" USED ")"
#define USED " WHERE x.renews IS NOT NULL AND x.first_seen_ms > ?1 AND x.first_seen_ms <= ?2"

/* Tokens that can still be used at ?2. */
#define USABLE " AND revoked_ms IS NULL AND expires_ms > ?2 AND uses < uses_max"

/* The next ?2 tokens that ended before ?1, as rules_token_ended has it. */
#define ENDED(column)                                                                                        \
	"(SELECT " column " FROM tokens WHERE revoked_ms < ?1 OR expires_ms < ?1"                            \
	" OR (uses >= uses_max AND used_ms < ?1) ORDER BY ref LIMIT ?2)"

static const struct sq_text texts[STATEMENTS] = {
	[BEGIN] = {"begin", "BEGIN IMMEDIATE"},
	[COMMIT] = {"commit", "COMMIT"},
	[COUNTERS] = {"read counters", SQLITE_COUNTERS_SQL},
	[SET_COUNTER] = {"write counter", "INSERT INTO counters (name, value) VALUES (?1, ?2)"
					  " ON CONFLICT (name) DO UPDATE SET value = excluded.value"},

	[FIND_ORIGIN] = {"find origin", "SELECT ref FROM origins WHERE client = ?1 AND domain = ?2"},
	[ADD_ORIGIN] = {"add origin", "INSERT INTO origins (client, domain) VALUES (?1, ?2)"},
	[ADD_MESSAGE] = {"add message",
		"INSERT INTO messages (seq, id, origin, accepted_ms, state, attempts, stored_ms, updated_ms, delivered_ms,"
		" sender, traceparent, envelope) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
		" ON CONFLICT (id) DO NOTHING"},
	[FIND_MESSAGE] = {"find message",
		"SELECT seq, state, origin, accepted_ms, sender FROM messages WHERE id = ?1"},
	[DELIVER_MESSAGE] = {"deliver message",
		"UPDATE messages SET origin = ?2, accepted_ms = ?3, state = ?4, attempts = ?5, updated_ms = ?6,"
		" delivered_ms = ?7, sender = ?8, error = NULL, traceparent = ?9, envelope = ?10 WHERE seq = ?1"},
	[SET_STATUS] = {"set status",
		"UPDATE messages SET state = ?2, attempts = ?3, updated_ms = ?4, error = ?5 WHERE seq = ?1"},

	[FIND_DELIVERED] = {"find delivered messages",
		"SELECT m.seq, m.origin, m.sender, o.domain, m.delivered_ms, m.stored_ms FROM messages m"
		" CROSS JOIN origins o ON o.ref = m.origin WHERE m.seq > ?1 AND m.state = 2 ORDER BY m.seq LIMIT ?2"},
	[REMOVE_MESSAGE] = {"remove message", "DELETE FROM messages WHERE seq = ?1"},
	[REMOVE_SEGMENTS] = {"remove segments",
		"DELETE FROM segments WHERE last_seq < (SELECT coalesce(min(seq), 0) FROM messages)"
		" AND last_seq < (SELECT max(last_seq) FROM segments)"},

	[ADD_SEGMENT] = {"add segment",
		"INSERT INTO segments (first_seq, last_seq, min_accepted_ms, max_accepted_ms)"
		" SELECT ?1, ?2, coalesce(min(accepted_ms), 0), coalesce(max(accepted_ms), 0) FROM messages"
		" WHERE seq BETWEEN ?1 AND ?2"},
	[FILL_BY_SENDER] = {"index senders",
		"INSERT INTO by_sender (segment, sender, seq)"
		" SELECT ?1, substr(sender, 1, " SENDER_KEY_BYTES "), seq FROM messages"
		" WHERE seq BETWEEN ?1 AND ?2 AND sender IS NOT NULL ORDER BY 2, 3"},
	[FILL_BY_ORIGIN] = {"index origins",
		"INSERT INTO by_origin (segment, origin, seq)"
		" SELECT ?1, origin, seq FROM messages WHERE seq BETWEEN ?1 AND ?2 ORDER BY 2, 3"},
	[FIND_SEGMENT] = {"find segment",
		"SELECT first_seq FROM segments WHERE first_seq <= ?1 ORDER BY first_seq DESC LIMIT 1"},
	[WIDEN_SEGMENT] = {"widen segment",
		"UPDATE segments SET min_accepted_ms = min(min_accepted_ms, ?2),"
		" max_accepted_ms = max(max_accepted_ms, ?2) WHERE first_seq = ?1"},
	[ADD_BY_SENDER] = {"index sender",
		"INSERT INTO by_sender (segment, sender, seq) VALUES (?1, substr(?3, 1, " SENDER_KEY_BYTES
		"), ?2)"},
	[REMOVE_BY_SENDER] = {"remove sender from index",
		"DELETE FROM by_sender WHERE segment = ?1 AND seq = ?2 AND sender = substr(?3, 1, " SENDER_KEY_BYTES
		")"},
	[ADD_BY_ORIGIN] = {"index origin",
		"INSERT INTO by_origin (segment, origin, seq) VALUES (?1, ?3, ?2)"},
	[REMOVE_BY_ORIGIN] = {"remove origin from index",
		"DELETE FROM by_origin WHERE segment = ?1 AND seq = ?2 AND origin = ?3"},

	[FIND_CLIENT] = {"find client", "SELECT domain, status FROM clients WHERE name = ?1"},
	[ADD_CLIENT] = {"add client",
		"INSERT INTO clients (name, domain, status, created_ms) VALUES (?1, ?2, ?3, ?4)"},
	[SET_CLIENT_STATUS] = {"set status of client", "UPDATE clients SET status = ?2 WHERE name = ?1"},
	[RENUMBER_CERTS] = {"number certificates", "UPDATE certs SET " NUMBER(OF_NAME)},
	[ADD_CERT] = {"add certificate",
		"INSERT INTO certs (serial, issuer, role, name, domain, not_before_ms, not_after_ms, issued_ms, change, der,"
		" renews, renews_issuer) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
		" ON CONFLICT (serial, issuer) DO NOTHING"},
	[REVOKE_SERIAL] = {"revoke certificate", REVOKE(OF_SERIAL UNREVOKED)},
	[REVOKE_NAME] = {"revoke certificates", REVOKE(OF_NAME UNREVOKED)},
	[ANY_SERIAL] = {"find certificate", "SELECT 1 FROM certs WHERE " OF_SERIAL " LIMIT 1"},
	[ANY_NAME] = {"find certificates", "SELECT 1 FROM certs WHERE " OF_NAME " LIMIT 1"},

	[SEE_CERT] = {"note use of certificate",
		"UPDATE certs SET first_seen_ms = coalesce(first_seen_ms, ?3), seen_ms = ?3"
		" WHERE serial = ?1 AND issuer = ?2 AND coalesce(seen_ms, 0) < ?3"},
	[SUPERSEDE] = {"supersede certificates", REVOKE(REPLACED UNREVOKED)},

	[ADD_TOKEN] = {"add token",
		"INSERT INTO tokens (id, hash, name, domain, role, names, days, created_ms, expires_ms, uses_max, uses)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0) ON CONFLICT (id) DO NOTHING"},
	[FIND_TOKEN] = {"find token",
		"SELECT expires_ms, uses_max, uses, used_ms, revoked_ms FROM tokens WHERE id = ?1"},
	[FIND_TOKEN_USE] = {"find use of token",
		"SELECT serial, issuer FROM token_uses WHERE token = ?1 AND key = ?2"},
	[ADD_TOKEN_USE] = {"add use of token", "INSERT INTO token_uses (token, key) VALUES (?1, ?2)"},
	[COUNT_TOKEN_USE] = {"count use of token",
		"UPDATE tokens SET uses = uses + 1, used_ms = ?2 WHERE id = ?1"},
	[GIVE_TOKEN_USE] = {"note certificate of token",
		"UPDATE token_uses SET serial = ?3, issuer = ?4 WHERE token = ?1 AND key = ?2"},
	[ANY_TOKEN] = {"find token", "SELECT 1 FROM tokens WHERE id = ?1"},
	[REVOKE_TOKEN] = {"revoke token", "UPDATE tokens SET revoked_ms = ?2 WHERE id = ?1" USABLE},
	[REVOKE_TOKENS] = {"revoke tokens", "UPDATE tokens SET revoked_ms = ?2 WHERE name = ?1" USABLE},

	[RESTORE_TOKEN] = {"restore token",
		"UPDATE tokens SET uses = ?2, used_ms = ?3, revoked_ms = ?4 WHERE id = ?1"},
	[PURGE_TOKEN_USES] = {"purge uses of tokens", "DELETE FROM token_uses WHERE token IN " ENDED("id")},
	[PURGE_TOKENS] = {"purge tokens", "DELETE FROM tokens WHERE ref IN " ENDED("ref")},

	[AUDIT_HASH] = {"read audit trail", "SELECT hash FROM audit ORDER BY sequence DESC LIMIT 1"},
	[ADD_AUDIT] = {"add to audit trail",
		"INSERT INTO audit (sequence, at_ms, actor, origin, action, target, result, detail, hash)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"},
};

static struct sqlite_writer *writer_of(void *state)
{
	return &((struct sqlite_store *)state)->writer;
}

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
	if (sq_prepare(&w->sq, texts, STATEMENTS, e) < 0 ||
		sqlite_counters_read(&w->sq, COUNTERS, &w->committed, e) < 0)
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
	struct sqlite_writer *w = writer_of(state);
	if (checkpoint(w, e) < 0)
		return -1;
	w->now = now;
	w->counters = w->committed;
	return run_plain(w, BEGIN, e);
}

/* Adds the index entries of one segment. */
static int add_segment(struct sqlite_writer *w, int64_t first, int64_t last, struct err *e)
{
	static const unsigned steps[] = {ADD_SEGMENT, FILL_BY_SENDER, FILL_BY_ORIGIN};
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
		struct sq_args a = sq_args(&w->sq, SET_COUNTER);
		sq_bind_text(&a, str_of(sqlite_counter_names[i]));
		sq_bind_int(&a, w->counters.value[i]);
		if (sq_run(&w->sq, &a, NULL, e) < 0)
			return -1;
	}
	return 0;
}

int sqlite_commit(void *state, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	if (index_tail(w, e) < 0 || write_counters(w, e) < 0 || run_plain(w, COMMIT, e) < 0)
		return -1;
	w->committed = w->counters;
	return 0;
}

void sqlite_abort(void *state)
{
	struct sqlite_writer *w = writer_of(state);
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
	struct sq_args find = sq_args(&w->sq, FIND_ORIGIN);
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
	struct sq_args add = sq_args(&w->sq, ADD_ORIGIN);
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
	struct sq_args a = sq_args(&w->sq, ADD_MESSAGE);
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
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, FIND_MESSAGE);
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
		change_entry(w, REMOVE_BY_SENDER, segment, old->sequence, old->sender_index, 0, e) < 0)
		return -1;
	if (!rules_index_known(index))
		return 0;
	return change_entry(w, ADD_BY_SENDER, segment, old->sequence, index, 0, e);
}

static int move_origin(
	struct sqlite_writer *w, int64_t segment, const struct known *old, int64_t origin, struct err *e)
{
	if (old->origin == origin)
		return 0;
	if (change_entry(w, REMOVE_BY_ORIGIN, segment, old->sequence, NULL, old->origin, e) < 0)
		return -1;
	return change_entry(w, ADD_BY_ORIGIN, segment, old->sequence, NULL, origin, e);
}

static int widen_segment(struct sqlite_writer *w, int64_t segment, const struct known *old,
	struct wall accepted_at, struct err *e)
{
	if (old->accepted_ms == accepted_at.ms)
		return 0;
	struct sq_args a = sq_args(&w->sq, WIDEN_SEGMENT);
	sq_bind_int(&a, segment);
	sq_bind_int(&a, accepted_at.ms);
	return sq_run(&w->sq, &a, NULL, e);
}

/* The segment that a row before the tail is in. */
static int find_segment(struct sqlite_writer *w, int64_t sequence, int64_t *ret, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, FIND_SEGMENT);
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
	struct sq_args a = sq_args(&w->sq, DELIVER_MESSAGE);
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
		if (put_message(writer_of(state), &put->items[i], e) < 0)
			return -1;
		put->stored_count += !put->items[i].duplicate;
	}
	return 0;
}

int sqlite_put_status(void *state, struct store_status *put, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	struct known old = {0};
	int found = find_message(w, &put->id, &old, e);
	if (found < 0)
		return -1;
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no message has this id");
	if (old.state == MESSAGE_DELIVERED)
		return STORE_UNCHANGED;
	struct sq_args a = sq_args(&w->sq, SET_STATUS);
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
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, FIND_DELIVERED);
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
	struct sq_args a = sq_args(&w->sq, REMOVE_MESSAGE);
	sq_bind_int(&a, victim->sequence);
	if (sq_run(&w->sq, &a, NULL, e) < 0)
		return -1;
	w->counters.value[COUNTER_STATE + MESSAGE_DELIVERED]--;
	if (victim->sequence > w->counters.value[COUNTER_INDEXED])
		return 0;
	if (find_segment(w, victim->sequence, &segment, e) < 0 ||
		change_entry(w, REMOVE_BY_ORIGIN, segment, victim->sequence, NULL, victim->origin, e) < 0)
		return -1;
	return rules_index_known(victim->sender_index) ? change_entry(w, REMOVE_BY_SENDER, segment,
								 victim->sequence, victim->sender_index, 0, e)
						       : 0;
}

int sqlite_expire(void *state, struct store_expire *expire, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	AUTO(free_auto) struct known *victims = calloc(expire->max, sizeof(*victims));
	if (!victims)
		return err_oom(e);
	if (find_expired(w, expire, victims, e) < 0)
		return -1;
	for (unsigned i = 0; i < expire->removed_count; i++)
		if (remove_message(w, &victims[i], e) < 0)
			return -1;
	/* Those in front that are empty now; at least the last stays, for where it ends. */
	return expire->removed_count ? run_plain(w, REMOVE_SEGMENTS, e) : 0;
}

/* --- clients and certificates --- */

/* SQ_ROW or SQ_END; *ret_same_domain and *ret_status are set for a row. */
static int find_client(struct sqlite_writer *w, struct str name, struct str domain, bool *ret_same_domain,
	int64_t *ret_status, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, FIND_CLIENT);
	sq_bind_text(&a, name);
	int found = sq_next(&w->sq, &a, e);
	if (found != SQ_ROW)
		return found;
	struct sq_columns c = sq_columns(&a, NULL);
	char there[DOMAIN_NAME_BYTES];
	unsigned n = sq_column_upto(&c, there, sizeof(there));
	*ret_same_domain = str_eq(str_mem(there, n), domain);
	*ret_status = sq_column_int(&c);
	return SQ_ROW;
}

static int other_domain(struct err *e)
{
	return err_set(e, ERR_CONFLICT, "the client exists in another domain");
}

static int add_client(struct sqlite_writer *w, const struct store_client *client, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, ADD_CLIENT);
	sq_bind_text(&a, client->name);
	sq_bind_text(&a, client->domain);
	sq_bind_int(&a, client->status);
	sq_bind_int(&a, client->created_at.ms ? client->created_at.ms : w->now.ms);
	if (sq_run(&w->sq, &a, NULL, e) < 0)
		return -1;
	w->counters.value[COUNTER_CLIENTS]++;
	return 0;
}

/* Runs a statement that gives change numbers (its ?3 is the last one given out so far), and accounts for
 * them. */
static int run_numbering(struct sqlite_writer *w, const struct sq_args *a, int64_t *ret_changed,
	int64_t *ret_change, struct err *e)
{
	if (sq_run(&w->sq, a, ret_changed, e) < 0)
		return -1;
	w->counters.value[COUNTER_CHANGE] += *ret_changed;
	if (*ret_changed)
		*ret_change = w->counters.value[COUNTER_CHANGE];
	return 0;
}

/* All certificates of a client whose status changed are changed. */
static int renumber_certs(struct sqlite_writer *w, struct str client, int64_t *ret_change, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, RENUMBER_CERTS);
	sq_bind_text(&a, client);
	sq_bind_text(&a, STR("client"));
	sq_bind_int(&a, w->counters.value[COUNTER_CHANGE]);
	int64_t changed;
	return run_numbering(w, &a, &changed, ret_change, e);
}

static int set_client_status(struct sqlite_writer *w, const struct store_client *client, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, SET_CLIENT_STATUS);
	sq_bind_text(&a, client->name);
	sq_bind_int(&a, client->status);
	return sq_run(&w->sq, &a, NULL, e);
}

int sqlite_put_client(void *state, struct store_client_put *put, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	const struct store_client *client = &put->client;
	bool same_domain = false;
	int64_t status = 0;
	int found = find_client(w, client->name, client->domain, &same_domain, &status, e);
	if (found < 0)
		return -1;
	if (found == SQ_END) {
		if (add_client(w, client, e) < 0)
			return -1;
		/* Certificates may have been there before their client. */
		return client->status == CLIENT_ACTIVE ? 0 : renumber_certs(w, client->name, &put->change, e);
	}
	if (!same_domain)
		return other_domain(e);
	if (status == client->status)
		return STORE_UNCHANGED;
	return set_client_status(w, client, e) < 0 ? -1 : renumber_certs(w, client->name, &put->change, e);
}

/* Two parameters, NULL both for no certificate. */
static void bind_cert_id(struct sq_args *a, const struct store_cert_id *id)
{
	if (id->serial_bytes) {
		sq_bind_blob(a, id->serial, id->serial_bytes);
		sq_bind_blob(a, id->issuer_key_id, STORE_KEY_ID_BYTES);
	} else {
		sq_bind_null(a);
		sq_bind_null(a);
	}
}

/* SQ_ROW or SQ_END; *ret: the certificate of what was enrolled with this token and key, none if there is none yet. */
static int find_token_use(
	struct sqlite_writer *w, const struct store_token_key *key, struct store_cert_id *ret, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, FIND_TOKEN_USE);
	sq_bind_blob(&a, key->id, sizeof(key->id));
	sq_bind_blob(&a, key->key_hash, sizeof(key->key_hash));
	int found = sq_next(&w->sq, &a, e);
	if (found != SQ_ROW)
		return found;
	struct sq_columns c = sq_columns(&a, NULL);
	struct store_cert_id cert = {0};
	cert.serial_bytes = sq_column_upto(&c, cert.serial, sizeof(cert.serial));
	sq_column_exact_or_null(&c, cert.issuer_key_id, sizeof(cert.issuer_key_id));
	if (sq_columns_check(&c, NULL, "use of token", 0, e) < 0)
		return -1;
	*ret = cert;
	return SQ_ROW;
}

static int check_token_use(struct sqlite_writer *w, const struct store_token_key *key, struct err *e)
{
	struct store_cert_id cert = {0};
	int found = find_token_use(w, key, &cert, e);
	if (found < 0)
		return -1;
	return found == SQ_ROW && !cert.serial_bytes
		       ? 0
		       : err_set(e, ERR_CONFLICT,
				 "what was enrolled with this token has its certificate already");
}

static int give_token_use(struct sqlite_writer *w, const struct store_cert_put *put, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, GIVE_TOKEN_USE);
	sq_bind_blob(&a, put->token->id, sizeof(put->token->id));
	sq_bind_blob(&a, put->token->key_hash, sizeof(put->token->key_hash));
	sq_bind_blob(&a, put->cert.serial, put->cert.serial_bytes);
	sq_bind_blob(&a, put->cert.issuer_key_id, STORE_KEY_ID_BYTES);
	return sq_run(&w->sq, &a, NULL, e);
}

/* *ret_added is false when this issuer has the serial already. */
static int add_cert(struct sqlite_writer *w, const struct store_cert *cert, bool *ret_added, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, ADD_CERT);
	sq_bind_blob(&a, cert->serial, cert->serial_bytes);
	sq_bind_blob(&a, cert->issuer_key_id, STORE_KEY_ID_BYTES);
	sq_bind_text(&a, cert->role);
	sq_bind_text(&a, cert->name);
	sq_bind_text(&a, cert->domain);
	sq_bind_int(&a, cert->not_before.ms);
	sq_bind_int(&a, cert->not_after.ms);
	sq_bind_int(&a, cert->issued_at.ms);
	sq_bind_int(&a, w->counters.value[COUNTER_CHANGE] + 1);
	sq_bind_blob(&a, cert->der.p, cert->der.n);
	bind_cert_id(&a, &cert->renews);
	int64_t changed;
	if (sq_run(&w->sq, &a, &changed, e) < 0)
		return -1;
	*ret_added = changed != 0;
	w->counters.value[COUNTER_CHANGE] += changed;
	w->counters.value[COUNTER_CERTS] += changed;
	return 0;
}

int sqlite_put_cert(void *state, struct store_cert_put *put, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	const struct store_cert *cert = &put->cert;
	int client = SQ_ROW;
	if (put->create_client && str_eq(cert->role, STR("client"))) {
		bool same_domain = false;
		int64_t status = 0;
		client = find_client(w, cert->name, cert->domain, &same_domain, &status, e);
		if (client < 0)
			return -1;
		if (client == SQ_ROW && !same_domain)
			return other_domain(e);
	}
	if (put->token && check_token_use(w, put->token, e) < 0)
		return -1;
	bool added;
	if (add_cert(w, cert, &added, e) < 0)
		return -1;
	if (!added)
		return err_set(e, ERR_CONFLICT, "this issuer has used this serial number already");
	put->change = w->counters.value[COUNTER_CHANGE];
	if (put->token && give_token_use(w, put, e) < 0)
		return -1;
	struct store_client fresh = {.name = cert->name, .domain = cert->domain, .status = CLIENT_ACTIVE};
	return client == SQ_END ? add_client(w, &fresh, e) : 0;
}

/* Binds what a revocation names, as OF_SERIAL and OF_NAME want it. */
static void bind_named(struct sq_args *a, const struct store_revoke *revoke)
{
	if (!revoke->serial_bytes) {
		sq_bind_text(a, revoke->name);
		sq_bind_text_or_null(a, revoke->role);
		return;
	}
	sq_bind_blob(a, revoke->serial, revoke->serial_bytes);
	if (revoke->issuer_key_id)
		sq_bind_blob(a, revoke->issuer_key_id, STORE_KEY_ID_BYTES);
	else
		sq_bind_null(a);
}

int sqlite_revoke(void *state, struct store_revoke *revoke, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	struct sq_args a = sq_args(&w->sq, revoke->serial_bytes ? REVOKE_SERIAL : REVOKE_NAME);
	bind_named(&a, revoke);
	sq_bind_int(&a, w->counters.value[COUNTER_CHANGE]);
	sq_bind_int(&a, revoke->at.ms ? revoke->at.ms : w->now.ms);
	sq_bind_text(&a, revoke->reason.n ? revoke->reason : STR("unspecified"));
	int64_t changed;
	if (run_numbering(w, &a, &changed, &revoke->change, e) < 0)
		return -1;
	revoke->revoked_count = (unsigned)changed;
	if (changed)
		return 0;
	unsigned matching = revoke->serial_bytes ? ANY_SERIAL : ANY_NAME;
	AUTO(sq_reset_auto) struct sq_args any = sq_args(&w->sq, matching);
	bind_named(&any, revoke);
	int found = sq_next(&w->sq, &any, e);
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no certificate matches");
	return found == SQ_ROW ? STORE_UNCHANGED : -1;
}

int sqlite_put_seen(void *state, const struct store_seen *seen, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	for (unsigned i = 0; i < seen->count; i++) {
		const struct store_seen_item *item = &seen->items[i];
		struct sq_args a = sq_args(&w->sq, SEE_CERT);
		sq_bind_blob(&a, item->cert.serial, item->cert.serial_bytes);
		sq_bind_blob(&a, item->cert.issuer_key_id, STORE_KEY_ID_BYTES);
		sq_bind_int(&a, item->at.ms);
		if (sq_run(&w->sq, &a, NULL, e) < 0)
			return -1;
	}
	return 0;
}

int sqlite_supersede(void *state, struct store_supersede *supersede, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	struct sq_args a = sq_args(&w->sq, SUPERSEDE);
	sq_bind_int(&a, supersede->after.ms);
	sq_bind_int(&a, supersede->until.ms);
	sq_bind_int(&a, w->counters.value[COUNTER_CHANGE]);
	sq_bind_int(&a, w->now.ms);
	sq_bind_text(&a, STR("superseded"));
	int64_t changed;
	if (run_numbering(w, &a, &changed, &supersede->change, e) < 0)
		return -1;
	supersede->revoked_count = (unsigned)changed;
	return changed ? 0 : STORE_UNCHANGED;
}

/* --- tokens --- */

int sqlite_put_token(void *state, const struct store_token *token, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	struct sq_args a = sq_args(&w->sq, ADD_TOKEN);
	sq_bind_blob(&a, token->hash, STORE_TOKEN_ID_BYTES);
	sq_bind_blob(&a, token->hash, STORE_HASH_BYTES);
	sq_bind_text(&a, token->name);
	sq_bind_text(&a, token->domain);
	sq_bind_text(&a, token->role);
	sq_bind_text(&a, token->names);
	sq_bind_int(&a, token->days);
	sq_bind_int(&a, token->created_at.ms);
	sq_bind_int(&a, token->expires_at.ms);
	sq_bind_int(&a, token->uses_max);
	int64_t changed;
	if (sq_run(&w->sq, &a, &changed, e) < 0)
		return -1;
	return changed ? 0 : err_set(e, ERR_CONFLICT, "there is a token of this id");
}

/* What decides about a use; ERR_NOT_FOUND. */
static int find_token(struct sqlite_writer *w, const uint8_t *id, struct store_token *ret, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, FIND_TOKEN);
	sq_bind_blob(&a, id, STORE_TOKEN_ID_BYTES);
	int found = sq_next(&w->sq, &a, e);
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no such token");
	if (found < 0)
		return -1;
	struct sq_columns c = sq_columns(&a, NULL);
	struct store_token token = {.expires_at.ms = sq_column_int(&c)};
	token.uses_max = sq_column_unsigned(&c);
	token.uses = sq_column_unsigned(&c);
	token.used_at.ms = sq_column_int(&c);
	token.revoked_at.ms = sq_column_int(&c);
	*ret = token;
	return sq_columns_check(&c, NULL, "token", 0, e);
}

static int add_token_use(struct sqlite_writer *w, const struct store_token_key *key, struct err *e)
{
	struct sq_args add = sq_args(&w->sq, ADD_TOKEN_USE);
	sq_bind_blob(&add, key->id, sizeof(key->id));
	sq_bind_blob(&add, key->key_hash, sizeof(key->key_hash));
	if (sq_run(&w->sq, &add, NULL, e) < 0)
		return -1;
	struct sq_args count = sq_args(&w->sq, COUNT_TOKEN_USE);
	sq_bind_blob(&count, key->id, sizeof(key->id));
	sq_bind_int(&count, w->now.ms);
	return sq_run(&w->sq, &count, NULL, e);
}

int sqlite_use_token(void *state, struct store_token_use *use, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	struct store_token token = {0};
	if (find_token(w, use->key.id, &token, e) < 0)
		return -1;
	int before = find_token_use(w, &use->key, &use->cert, e);
	if (before < 0)
		return -1;
	int outcome = rules_token_outcome(&token, w->now, before == SQ_ROW);
	return outcome != STORE_TOKEN_CONSUMED ? outcome : add_token_use(w, &use->key, e);
}

int sqlite_revoke_tokens(void *state, struct store_token_revoke *revoke, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	struct sq_args a = sq_args(&w->sq, revoke->id ? REVOKE_TOKEN : REVOKE_TOKENS);
	if (revoke->id)
		sq_bind_blob(&a, revoke->id, STORE_TOKEN_ID_BYTES);
	else
		sq_bind_text(&a, revoke->name);
	sq_bind_int(&a, w->now.ms);
	int64_t changed;
	if (sq_run(&w->sq, &a, &changed, e) < 0)
		return -1;
	revoke->revoked_count = (unsigned)changed;
	if (changed)
		return 0;
	if (!revoke->id)
		return STORE_UNCHANGED;
	AUTO(sq_reset_auto) struct sq_args any = sq_args(&w->sq, ANY_TOKEN);
	sq_bind_blob(&any, revoke->id, STORE_TOKEN_ID_BYTES);
	int found = sq_next(&w->sq, &any, e);
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no such token");
	return found == SQ_ROW ? STORE_UNCHANGED : -1;
}

int sqlite_restore_token(void *state, const struct store_token_restore *restore, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	struct store_token token = {0};
	if (find_token(w, restore->id, &token, e) < 0)
		return -1;
	if (!rules_token_restore(&token, restore))
		return STORE_UNCHANGED;
	struct sq_args a = sq_args(&w->sq, RESTORE_TOKEN);
	sq_bind_blob(&a, restore->id, STORE_TOKEN_ID_BYTES);
	sq_bind_int(&a, token.uses);
	sq_bind_int_or_null(&a, token.used_at.ms);
	sq_bind_int_or_null(&a, token.revoked_at.ms);
	return sq_run(&w->sq, &a, NULL, e);
}

int sqlite_purge_tokens(void *state, struct store_token_purge *purge, struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	int64_t changed = 0;
	static const unsigned steps[] = {PURGE_TOKEN_USES, PURGE_TOKENS};
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		struct sq_args a = sq_args(&w->sq, steps[i]);
		sq_bind_int(&a, purge->ended_before.ms);
		sq_bind_int(&a, purge->max);
		if (sq_run(&w->sq, &a, &changed, e) < 0)
			return -1;
	}
	purge->removed_count = (unsigned)changed;
	return 0;
}

/* --- audit --- */

int sqlite_audit_head(void *state, int64_t *ret_sequence, uint8_t ret_hash[STORE_HASH_BYTES], struct err *e)
{
	struct sqlite_writer *w = writer_of(state);
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, AUDIT_HASH);
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
	struct sqlite_writer *w = writer_of(state);
	struct sq_args a = sq_args(&w->sq, ADD_AUDIT);
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
	writer_of(state)->counters.value[COUNTER_PROBES]++;
	return 0;
}
