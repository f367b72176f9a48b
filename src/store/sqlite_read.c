/* sqlite_read.c - the readers' half of the SQLite driver: each call takes a read connection, runs prepared
 * statements, gives it back.
 *
 * A page of messages is gathered in stretches, newest first: the tail that has no index entries yet, then
 * segment by segment. In a stretch the best index names candidates (their seq, descending); each is then
 * fetched under all conditions of the query. So the work for one stretch is bounded by its size, whatever the
 * query asks for, and segments outside the time asked for are not entered. Messages in a state other than
 * DELIVERED have an ordinary index of their own, as they are few: a query for them is one stretch. */
#include "base/auto.h"
#include "store/rules.h"
#include "store/sqlite_store.h"

enum {
	COUNTERS,
	LAST_SEGMENT,
	PREVIOUS_SEGMENT,
	SCAN,
	SCAN_SENDER,
	SCAN_CLIENT,
	SCAN_DOMAIN,
	SCAN_STATE,
	FETCH,
	MESSAGE_BY_ID,
	CLIENTS,
	CLIENTS_OF_DOMAIN,
	CLIENT_BY_NAME,
	CERTS,
	CERTS_OF_SERIAL,
	CERTS_OF_NAME,
	TOKENS,
	TOKENS_OF_NAME,
	TOKEN_BY_ID,
	AUDIT,
	STATEMENTS
};

/* Conditions of a query for messages that stand in their own row; a parameter that is NULL asks for nothing.
 */
#define WANTED                                                                                               \
	"(:state IS NULL OR m.state = :state) AND (:sender IS NULL OR m.sender = :sender)"                   \
	" AND (:since IS NULL OR m.accepted_ms >= :since) AND (:until IS NULL OR m.accepted_ms < :until)"
#define CLIENT_ORIGINS "(SELECT ref FROM origins WHERE client = :client)"
#define DOMAIN_ORIGINS "(SELECT ref FROM origins WHERE domain = :domain)"

#define MESSAGES                                                                                                 \
	"SELECT m.seq, m.id, o.client, o.domain, m.accepted_ms, m.state, m.attempts, m.stored_ms, m.updated_ms," \
	" m.delivered_ms, m.sender, m.error, m.traceparent, m.envelope"                                          \
	" FROM messages m JOIN origins o ON o.ref = m.origin "

#define CLIENTS_FROM "SELECT name, domain, status, created_ms FROM clients "

#define CERTS_BY(index)                                                                                      \
	"SELECT c.serial, c.issuer, c.role, c.name, c.domain, c.not_before_ms, c.not_after_ms, c.issued_ms," \
	" c.revoked_ms, c.reason, c.change, c.der, c.renews, c.renews_issuer, c.first_seen_ms, c.seen_ms,"   \
	" k.status FROM certs c INDEXED BY " index                                                           \
	" LEFT JOIN clients k ON k.name = c.name AND c.role = 'client' "
#define CERTS_WANTED                                                                                               \
	" AND c.change > :after AND (:name IS NULL OR c.name = :name) AND (:domain IS NULL OR c.domain = :domain)" \
	" AND (:role IS NULL OR c.role = :role) AND (:expires IS NULL OR c.not_after_ms < :expires)"               \
	" AND (:issuer IS NULL OR c.issuer = :issuer) AND (NOT :revoked OR c.revoked_ms IS NOT NULL)"              \
	" ORDER BY c.change LIMIT :max"

#define TOKENS_FROM                                                                                           \
	"SELECT ref, hash, name, domain, role, names, days, created_ms, expires_ms, uses_max, uses, used_ms," \
	" revoked_ms FROM tokens WHERE (?1 = 0 OR ref < ?1)"
#define TOKENS_ORDER " ORDER BY ref DESC LIMIT ?2"

static const struct sq_text texts[STATEMENTS] = {
	[COUNTERS] = {"read counters", SQLITE_COUNTERS_SQL},
	[LAST_SEGMENT] = {"find end of index",
		"SELECT last_seq FROM segments ORDER BY first_seq DESC LIMIT 1"},
	[PREVIOUS_SEGMENT] = {"find segment",
		"SELECT first_seq, last_seq FROM segments WHERE first_seq < :end"
		" AND (:since IS NULL OR max_accepted_ms >= :since) AND (:until IS NULL OR min_accepted_ms < :until)"
		" ORDER BY first_seq DESC LIMIT 1"},
	[SCAN] = {"scan messages", "SELECT m.seq FROM messages m WHERE m.seq >= :first AND m.seq < :end"
				   " AND (:client IS NULL OR m.origin IN " CLIENT_ORIGINS ")"
				   " AND (:domain IS NULL OR m.origin IN " DOMAIN_ORIGINS ")"
				   " AND " WANTED " ORDER BY m.seq DESC"},
	[SCAN_SENDER] = {"find messages of sender",
		"SELECT seq FROM by_sender WHERE segment = :segment"
		" AND sender = substr(:sender, 1, " SENDER_KEY_BYTES ") AND seq < :end ORDER BY seq DESC"},
	[SCAN_CLIENT] = {"find messages of client",
		"SELECT seq FROM by_origin WHERE segment = :segment AND origin IN " CLIENT_ORIGINS
		" AND seq < :end ORDER BY seq DESC"},
	[SCAN_DOMAIN] = {"find messages of domain",
		"SELECT seq FROM by_origin WHERE segment = :segment AND origin IN " DOMAIN_ORIGINS
		" AND seq < :end ORDER BY seq DESC"},
	[SCAN_STATE] = {"find messages in state",
		"SELECT seq FROM messages INDEXED BY messages_undelivered WHERE state = :state AND state <> 2"
		" AND seq < :end ORDER BY seq DESC"},
	[FETCH] = {"fetch message", MESSAGES "WHERE m.seq = :seq AND (:client IS NULL OR o.client = :client)"
					     " AND (:domain IS NULL OR o.domain = :domain) AND " WANTED},
	[MESSAGE_BY_ID] = {"read message", MESSAGES "WHERE m.id = ?1"},

	[CLIENTS] = {"read clients", CLIENTS_FROM "WHERE name > ?1 ORDER BY name LIMIT ?2"},
	[CLIENTS_OF_DOMAIN] = {"read clients of domain",
		CLIENTS_FROM "WHERE name > ?1 AND domain = ?3 ORDER BY name LIMIT ?2"},
	[CLIENT_BY_NAME] = {"read client", CLIENTS_FROM "WHERE name = ?1"},

	[CERTS] = {"read certificates", CERTS_BY("certs_by_change") "WHERE TRUE" CERTS_WANTED},
	[CERTS_OF_SERIAL] = {"read certificate",
		CERTS_BY("certs_by_serial") "WHERE c.serial = :serial" CERTS_WANTED},
	[CERTS_OF_NAME] = {"read certificates of name",
		CERTS_BY("certs_by_name") "WHERE c.name = :name" CERTS_WANTED},

	[TOKENS] = {"read tokens", TOKENS_FROM TOKENS_ORDER},
	[TOKENS_OF_NAME] = {"read tokens of name", TOKENS_FROM " AND name = ?3" TOKENS_ORDER},
	[TOKEN_BY_ID] = {"read token", TOKENS_FROM " AND id = ?3" TOKENS_ORDER},

	[AUDIT] = {"read audit trail",
		"SELECT sequence, at_ms, actor, origin, action, target, result, detail, hash FROM audit"
		" WHERE sequence > ?1 ORDER BY sequence LIMIT ?2"},
};

int sqlite_reader_start(struct sqlite_reader *r, struct err *e)
{
	return sq_prepare(&r->sq, texts, STATEMENTS, e);
}

/* A read connection for the length of a scope. */
struct loan {
	struct sqlite_store *store;
	struct sqlite_reader *reader;
};

static void loan_end(struct loan *loan)
{
	if (loan->reader)
		sqlite_reader_give(loan->store, loan->reader);
}

static int loan_take(struct loan *loan, void *state, struct err *e)
{
	loan->store = state;
	return sqlite_reader_take(loan->store, &loan->reader, e);
}

#define LOAN AUTO(loan_end) struct loan

/* --- messages --- */

static int read_row(const struct sq_args *a, struct arena *arena, struct store_row *ret, struct err *e)
{
	struct sq_columns c = sq_columns(a, arena);
	struct store_row row = {.sequence = sq_column_int(&c)};
	sq_column_exact(&c, row.sealed.id.b, sizeof(row.sealed.id.b));
	row.sealed.client_id = sq_column_str(&c);
	row.sealed.domain = sq_column_str(&c);
	row.sealed.accepted_at.ms = sq_column_int(&c);
	unsigned state = sq_column_unsigned(&c);
	row.state = state < MESSAGE_STATES ? (enum message_state)state : MESSAGE_STATES;
	row.attempt_count = sq_column_unsigned(&c);
	row.stored_at.ms = sq_column_int(&c);
	row.updated_at.ms = sq_column_int(&c);
	row.delivered_at.ms = sq_column_int(&c);
	sq_column_exact_or_null(&c, row.sender_index, STORE_INDEX_BYTES);
	row.error_text = sq_column_str(&c);
	row.sealed.traceparent = sq_column_str(&c);
	row.sealed.envelope = sq_column_str(&c);
	if (sq_columns_check(&c, rules_row(&row), "message", row.sequence, e) < 0)
		return -1;
	*ret = row;
	return 0;
}

/* What a page is gathered with. */
struct gathering {
	const struct sq *sq;
	const struct store_query *query;
	struct arena *arena;
	struct store_page page;
	bool full; /* the page is, and one more row has been seen */
};

/* Messages first … end - 1; segment is 0 where there are no index entries. */
struct stretch {
	int64_t segment, first, end;
};

static void bind_state(struct sq_args *a, int state)
{
	if (state >= 0)
		sq_bind_int(a, state);
	else
		sq_bind_null(a);
}

/* Binds those of a query's parameters that the statement has. */
static struct sq_args bind_query(const struct gathering *g, unsigned statement, const struct stretch *stretch)
{
	const struct store_query *q = g->query;
	struct sq_args a = sq_args(g->sq, statement);
	if (sq_bind_at(&a, ":segment"))
		sq_bind_int(&a, stretch->segment);
	if (sq_bind_at(&a, ":first"))
		sq_bind_int(&a, stretch->first);
	if (sq_bind_at(&a, ":end"))
		sq_bind_int(&a, stretch->end);
	if (sq_bind_at(&a, ":client"))
		sq_bind_text_or_null(&a, q->client_id);
	if (sq_bind_at(&a, ":domain"))
		sq_bind_text_or_null(&a, q->domain);
	if (sq_bind_at(&a, ":state"))
		bind_state(&a, q->state);
	if (sq_bind_at(&a, ":sender"))
		sq_bind_blob(&a, q->sender_index, STORE_INDEX_BYTES); /* NULL binds as NULL */
	if (sq_bind_at(&a, ":since"))
		sq_bind_int_or_null(&a, q->since.ms);
	if (sq_bind_at(&a, ":until"))
		sq_bind_int_or_null(&a, q->until.ms);
	return a;
}

/* Takes the message into the page if it is wanted. */
static int take_candidate(struct gathering *g, struct sq_args *fetch, int64_t sequence, struct err *e)
{
	if (sq_bind_at(fetch, ":seq"))
		sq_bind_int(fetch, sequence);
	int found = sq_next(g->sq, fetch, e);
	if (found != SQ_ROW)
		return found;
	if (g->page.count == g->query->max) {
		g->full = true;
		g->page.next_sequence = g->page.rows[g->page.count - 1].sequence;
	} else if (read_row(fetch, g->arena, &g->page.rows[g->page.count++], e) < 0) {
		found = -1;
	}
	sqlite3_reset(fetch->statement);
	return found;
}

static int gather(struct gathering *g, unsigned scan, const struct stretch *stretch, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args candidates = bind_query(g, scan, stretch);
	struct sq_args fetch = bind_query(g, FETCH, stretch);
	int more = SQ_ROW;
	while (!g->full && (more = sq_next(g->sq, &candidates, e)) == SQ_ROW) {
		struct sq_columns c = sq_columns(&candidates, NULL);
		if (take_candidate(g, &fetch, sq_column_int(&c), e) < 0)
			return -1;
	}
	return more < 0 ? -1 : 0;
}

/* The first message behind the segments. */
static int find_tail(struct gathering *g, int64_t *ret, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(g->sq, LAST_SEGMENT);
	int found = sq_next(g->sq, &a, e);
	struct sq_columns c = sq_columns(&a, NULL);
	if (found >= 0)
		*ret = (found == SQ_ROW ? sq_column_int(&c) : 0) + 1;
	return found;
}

/* SQ_ROW: *stretch is the newest segment, or the part of it, before what it was; SQ_END: there is none. */
static int previous_segment(struct gathering *g, struct stretch *stretch, struct err *e)
{
	struct stretch before = {.end = stretch->first};
	AUTO(sq_reset_auto) struct sq_args a = bind_query(g, PREVIOUS_SEGMENT, &before);
	int found = sq_next(g->sq, &a, e);
	if (found != SQ_ROW)
		return found;
	struct sq_columns c = sq_columns(&a, NULL);
	int64_t first = sq_column_int(&c);
	int64_t last = sq_column_int(&c);
	*stretch = (struct stretch){first, first, last < before.end ? last + 1 : before.end};
	return SQ_ROW;
}

/* The index that leaves the fewest candidates in a segment. */
static unsigned best_scan(const struct store_query *q)
{
	return q->sender_index  ? SCAN_SENDER
	       : q->client_id.n ? SCAN_CLIENT
	       : q->domain.n    ? SCAN_DOMAIN
				: SCAN;
}

static int gather_page(struct gathering *g, struct err *e)
{
	const struct store_query *q = g->query;
	struct stretch stretch = {.first = 1, .end = q->before_sequence ? q->before_sequence : INT64_MAX};
	if (q->state >= 0 && q->state != MESSAGE_DELIVERED && !q->sender_index)
		return gather(g, SCAN_STATE, &stretch, e);
	if (find_tail(g, &stretch.first, e) < 0)
		return -1;
	if (stretch.first < stretch.end && gather(g, SCAN, &stretch, e) < 0)
		return -1;
	if (stretch.first > stretch.end)
		stretch.first = stretch.end;
	int more = SQ_ROW;
	while (!g->full && (more = previous_segment(g, &stretch, e)) == SQ_ROW)
		if (gather(g, best_scan(q), &stretch, e) < 0)
			return -1;
	return more < 0 ? -1 : 0;
}

int sqlite_read_messages(void *state, const struct store_query *query, struct arena *arena,
	struct store_page *ret, struct err *e)
{
	LOAN loan = {NULL, NULL};
	if (loan_take(&loan, state, e) < 0)
		return -1;
	struct gathering g = {
		.sq = &loan.reader->sq,
		.query = query,
		.arena = arena,
		.page.rows = arena_alloc(arena, query->max * sizeof(*g.page.rows)),
	};
	if (!g.page.rows)
		return err_oom(e);
	if (gather_page(&g, e) < 0)
		return -1;
	*ret = g.page;
	return 0;
}

int sqlite_read_message(
	void *state, const struct uuid *id, struct arena *arena, struct store_row *ret, struct err *e)
{
	LOAN loan = {NULL, NULL};
	if (loan_take(&loan, state, e) < 0)
		return -1;
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&loan.reader->sq, MESSAGE_BY_ID);
	sq_bind_blob(&a, id->b, sizeof(id->b));
	int found = sq_next(&loan.reader->sq, &a, e);
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no message has this id");
	return found < 0 ? -1 : read_row(&a, arena, ret, e);
}

int sqlite_read_counts(void *state, struct store_counts *ret, struct err *e)
{
	LOAN loan = {NULL, NULL};
	struct sqlite_counters counters;
	if (loan_take(&loan, state, e) < 0 ||
		sqlite_counters_read(&loan.reader->sq, COUNTERS, &counters, e) < 0)
		return -1;
	*ret = (struct store_counts){
		.clients = (uint64_t)counters.value[COUNTER_CLIENTS],
		.certificates = (uint64_t)counters.value[COUNTER_CERTS],
		.audit_rows = (uint64_t)counters.value[COUNTER_AUDIT],
	};
	for (unsigned i = 0; i < MESSAGE_STATES; i++) {
		ret->by_state[i] = (uint64_t)counters.value[COUNTER_STATE + i];
		ret->messages += ret->by_state[i];
	}
	return 0;
}

/* --- clients --- */

static int read_client(const struct sq_args *a, struct arena *arena, struct store_client *ret, struct err *e)
{
	struct sq_columns c = sq_columns(a, arena);
	struct store_client client = {.name = sq_column_str(&c)};
	client.domain = sq_column_str(&c);
	unsigned status = sq_column_unsigned(&c);
	client.status = status < CLIENT_STATUSES ? (enum client_status)status : CLIENT_STATUSES;
	client.created_at.ms = sq_column_int(&c);
	if (sq_columns_check(&c, rules_client(&client), "client created at", client.created_at.ms, e) < 0)
		return -1;
	*ret = client;
	return 0;
}

int sqlite_read_clients(void *state, struct str domain, struct str after_name, unsigned max,
	struct arena *arena, struct store_client **ret, unsigned *ret_count, struct err *e)
{
	LOAN loan = {NULL, NULL};
	struct store_client *rows = arena_alloc(arena, max * sizeof(*rows));
	if (!rows)
		return err_oom(e);
	if (loan_take(&loan, state, e) < 0)
		return -1;
	const struct sq *sq = &loan.reader->sq;
	AUTO(sq_reset_auto) struct sq_args a = sq_args(sq, domain.n ? CLIENTS_OF_DOMAIN : CLIENTS);
	sq_bind_text(&a, after_name);
	sq_bind_int(&a, max);
	if (domain.n)
		sq_bind_text(&a, domain);
	unsigned count = 0;
	int more;
	while ((more = sq_next(sq, &a, e)) == SQ_ROW)
		if (read_client(&a, arena, &rows[count++], e) < 0)
			return -1;
	if (more < 0)
		return -1;
	*ret = rows;
	*ret_count = count;
	return 0;
}

int sqlite_read_client(
	void *state, struct str name, struct arena *arena, struct store_client *ret, struct err *e)
{
	LOAN loan = {NULL, NULL};
	if (loan_take(&loan, state, e) < 0)
		return -1;
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&loan.reader->sq, CLIENT_BY_NAME);
	sq_bind_text(&a, name);
	int found = sq_next(&loan.reader->sq, &a, e);
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no client has this name");
	return found < 0 ? -1 : read_client(&a, arena, ret, e);
}

/* --- certificates --- */

static int read_cert(const struct sq_args *a, struct arena *arena, struct store_cert *ret, struct err *e)
{
	struct sq_columns c = sq_columns(a, arena);
	struct store_cert cert = {0};
	cert.serial_bytes = sq_column_upto(&c, cert.serial, sizeof(cert.serial));
	sq_column_exact(&c, cert.issuer_key_id, sizeof(cert.issuer_key_id));
	cert.role = sq_column_str(&c);
	cert.name = sq_column_str(&c);
	cert.domain = sq_column_str(&c);
	cert.not_before.ms = sq_column_int(&c);
	cert.not_after.ms = sq_column_int(&c);
	cert.issued_at.ms = sq_column_int(&c);
	cert.revoked_at.ms = sq_column_int(&c);
	cert.revoke_reason = sq_column_str(&c);
	cert.change = sq_column_int(&c);
	cert.der = sq_column_str(&c);
	cert.renews.serial_bytes = sq_column_upto(&c, cert.renews.serial, sizeof(cert.renews.serial));
	sq_column_exact_or_null(&c, cert.renews.issuer_key_id, sizeof(cert.renews.issuer_key_id));
	cert.first_seen_at.ms = sq_column_int(&c);
	cert.seen_at.ms = sq_column_int(&c);
	cert.suspended = sq_column_int(&c) != CLIENT_ACTIVE; /* NULL, no such client: 0, active */
	if (sq_columns_check(&c, rules_cert(&cert), "certificate with change", cert.change, e) < 0)
		return -1;
	*ret = cert;
	return 0;
}

static struct sq_args bind_certs(const struct sq *sq, const struct store_cert_query *q)
{
	struct sq_args a = sq_args(sq, q->serial ? CERTS_OF_SERIAL : q->name.n ? CERTS_OF_NAME : CERTS);
	if (sq_bind_at(&a, ":serial"))
		sq_bind_blob(&a, q->serial, q->serial_bytes);
	if (sq_bind_at(&a, ":name"))
		sq_bind_text_or_null(&a, q->name);
	if (sq_bind_at(&a, ":after"))
		sq_bind_int(&a, q->after_change);
	if (sq_bind_at(&a, ":domain"))
		sq_bind_text_or_null(&a, q->domain);
	if (sq_bind_at(&a, ":role"))
		sq_bind_text_or_null(&a, q->role);
	if (sq_bind_at(&a, ":expires"))
		sq_bind_int_or_null(&a, q->expires_before.ms);
	if (sq_bind_at(&a, ":issuer"))
		sq_bind_blob(&a, q->issuer_key_id, STORE_KEY_ID_BYTES); /* NULL binds as NULL */
	if (sq_bind_at(&a, ":revoked"))
		sq_bind_int(&a, q->revoked_only);
	if (sq_bind_at(&a, ":max"))
		sq_bind_int(&a, q->max);
	return a;
}

int sqlite_read_certs(void *state, const struct store_cert_query *query, struct arena *arena,
	struct store_cert **ret, unsigned *ret_count, struct err *e)
{
	LOAN loan = {NULL, NULL};
	struct store_cert *rows = arena_alloc(arena, query->max * sizeof(*rows));
	if (!rows)
		return err_oom(e);
	if (loan_take(&loan, state, e) < 0)
		return -1;
	const struct sq *sq = &loan.reader->sq;
	AUTO(sq_reset_auto) struct sq_args a = bind_certs(sq, query);
	unsigned count = 0;
	int more;
	while ((more = sq_next(sq, &a, e)) == SQ_ROW)
		if (read_cert(&a, arena, &rows[count++], e) < 0)
			return -1;
	if (more < 0)
		return -1;
	*ret = rows;
	*ret_count = count;
	return 0;
}

/* --- tokens --- */

static int read_token(const struct sq_args *a, struct arena *arena, struct store_token *ret, struct err *e)
{
	struct sq_columns c = sq_columns(a, arena);
	struct store_token token = {.sequence = sq_column_int(&c)};
	sq_column_exact(&c, token.hash, sizeof(token.hash));
	token.name = sq_column_str(&c);
	token.domain = sq_column_str(&c);
	token.role = sq_column_str(&c);
	token.names = sq_column_str(&c);
	token.days = sq_column_int(&c);
	token.created_at.ms = sq_column_int(&c);
	token.expires_at.ms = sq_column_int(&c);
	token.uses_max = sq_column_unsigned(&c);
	token.uses = sq_column_unsigned(&c);
	token.used_at.ms = sq_column_int(&c);
	token.revoked_at.ms = sq_column_int(&c);
	if (sq_columns_check(&c, rules_token(&token), "token", token.sequence, e) < 0)
		return -1;
	*ret = token;
	return 0;
}

static struct sq_args bind_tokens(const struct sq *sq, const struct store_token_query *q)
{
	struct sq_args a = sq_args(sq, q->id ? TOKEN_BY_ID : q->name.n ? TOKENS_OF_NAME : TOKENS);
	sq_bind_int(&a, q->before_sequence);
	sq_bind_int(&a, q->max);
	if (q->id)
		sq_bind_blob(&a, q->id, STORE_TOKEN_ID_BYTES);
	else if (q->name.n)
		sq_bind_text(&a, q->name);
	return a;
}

int sqlite_read_tokens(void *state, const struct store_token_query *query, struct arena *arena,
	struct store_token **ret, unsigned *ret_count, struct err *e)
{
	LOAN loan = {NULL, NULL};
	struct store_token *rows = arena_alloc(arena, query->max * sizeof(*rows));
	if (!rows)
		return err_oom(e);
	if (loan_take(&loan, state, e) < 0)
		return -1;
	const struct sq *sq = &loan.reader->sq;
	AUTO(sq_reset_auto) struct sq_args a = bind_tokens(sq, query);
	unsigned count = 0;
	int more;
	while ((more = sq_next(sq, &a, e)) == SQ_ROW)
		if (read_token(&a, arena, &rows[count++], e) < 0)
			return -1;
	if (more < 0)
		return -1;
	*ret = rows;
	*ret_count = count;
	return 0;
}

/* --- audit --- */

static int read_audit(
	const struct sq_args *a, struct arena *arena, struct store_audit_row *ret, struct err *e)
{
	struct sq_columns c = sq_columns(a, arena);
	struct store_audit_row row = {.sequence = sq_column_int(&c)};
	row.at.ms = sq_column_int(&c);
	row.actor = sq_column_str(&c);
	row.origin = sq_column_str(&c);
	row.action = sq_column_str(&c);
	row.target = sq_column_str(&c);
	row.result = sq_column_str(&c);
	row.detail = sq_column_str(&c);
	sq_column_exact(&c, row.hash, sizeof(row.hash));
	if (sq_columns_check(&c, rules_audit(&row), "audit row", row.sequence, e) < 0)
		return -1;
	*ret = row;
	return 0;
}

int sqlite_read_audit(void *state, int64_t after_sequence, unsigned max, struct arena *arena,
	struct store_audit_row **ret, unsigned *ret_count, struct err *e)
{
	LOAN loan = {NULL, NULL};
	struct store_audit_row *rows = arena_alloc(arena, max * sizeof(*rows));
	if (!rows)
		return err_oom(e);
	if (loan_take(&loan, state, e) < 0)
		return -1;
	const struct sq *sq = &loan.reader->sq;
	AUTO(sq_reset_auto) struct sq_args a = sq_args(sq, AUDIT);
	sq_bind_int(&a, after_sequence);
	sq_bind_int(&a, max);
	unsigned count = 0;
	int more;
	while ((more = sq_next(sq, &a, e)) == SQ_ROW)
		if (read_audit(&a, arena, &rows[count++], e) < 0)
			return -1;
	if (more < 0)
		return -1;
	*ret = rows;
	*ret_count = count;
	return 0;
}

/* --- check --- */

/* Bookkeeping that must agree; each query yields 0 when it does. */
static const struct {
	const char *trouble;
	const char *sql;
} bookkeeping[] = {
	{"the counters of messages by state are wrong",
		"SELECT count(*) FROM (SELECT state, count(*) AS n FROM messages GROUP BY state) WHERE n <> coalesce("
		"(SELECT value FROM counters WHERE name = CASE state WHEN 0 THEN 'messages.queued'"
		" WHEN 1 THEN 'messages.processing' WHEN 2 THEN 'messages.delivered' ELSE 'messages.failed' END), 0)"},
	{"the counter of clients is wrong",
		"SELECT count(*) <> coalesce((SELECT value FROM counters WHERE name = 'clients'), 0) FROM clients"},
	{"the counter of certificates is wrong",
		"SELECT count(*) <> coalesce((SELECT value FROM counters WHERE name = 'certs'), 0) FROM certs"},
	{"the counter of change numbers is behind",
		"SELECT coalesce(max(change), 0) > coalesce((SELECT value FROM counters WHERE name = 'change'), 0)"
		" FROM certs"},
	{"the counter of messages is behind",
		"SELECT coalesce(max(seq), 0) > coalesce((SELECT value FROM counters WHERE name = 'sequence'), 0)"
		" FROM messages"},
	{"a message has an origin that does not exist",
		"SELECT count(*) FROM messages WHERE origin NOT IN (SELECT ref FROM origins)"},
	{"segments have gaps or do not end where the counter says",
		"SELECT coalesce(sum(last_seq - first_seq + 1), 0) <> coalesce(max(last_seq) - min(first_seq) + 1, 0)"
		" OR coalesce(max(last_seq), 0) <> coalesce((SELECT value FROM counters WHERE name = 'indexed'), 0)"
		" FROM segments"},
	{"a message is outside its segment's times",
		"SELECT count(*) FROM segments s JOIN messages m ON m.seq BETWEEN s.first_seq AND s.last_seq"
		" WHERE m.accepted_ms NOT BETWEEN s.min_accepted_ms AND s.max_accepted_ms"},
	{"the index by origin does not match the messages",
		"SELECT (SELECT count(*) FROM by_origin) <> (SELECT count(*) FROM messages WHERE seq <="
		" (SELECT coalesce(max(last_seq), 0) FROM segments)) OR EXISTS (SELECT 1 FROM by_origin i"
		" LEFT JOIN messages m ON m.seq = i.seq WHERE m.origin IS NOT i.origin)"},
	{"the index by sender does not match the messages",
		"SELECT (SELECT count(*) FROM by_sender) <> (SELECT count(*) FROM messages WHERE sender IS NOT NULL"
		" AND seq <= (SELECT coalesce(max(last_seq), 0) FROM segments)) OR EXISTS (SELECT 1 FROM by_sender i"
		" LEFT JOIN messages m ON m.seq = i.seq"
		" WHERE substr(m.sender, 1, " SENDER_KEY_BYTES ") IS NOT i.sender)"},
};

static int check_bookkeeping(const struct sq *sq, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(bookkeeping); i++) {
		int64_t wrong;
		if (sq_exec_int(sq, bookkeeping[i].sql, &wrong, e) < 0)
			return -1;
		if (wrong)
			return err_set(e, ERR_FATAL, "%s", bookkeeping[i].trouble);
	}
	return 0;
}

int sqlite_check(void *state, bool full, struct err *e)
{
	LOAN loan = {NULL, NULL};
	if (loan_take(&loan, state, e) < 0)
		return -1;
	const struct sq *sq = &loan.reader->sq;
	if (sq_exec_expect(sq, full ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)", "ok", e) < 0)
		return -1;
	return full ? check_bookkeeping(sq, e) : 0;
}
