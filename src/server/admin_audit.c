/* admin_audit.c - /admin/audit: who did what, the newest row as a seal over all before it, and whether the chain
 * of hashes still holds.
 *
 * The chain alone finds rows that were edited, taken out or moved. Who can write the database can also compute
 * the chain anew: against that, the head is exported now and then to a place out of their reach, and later held
 * against the row that it was taken from. */
#include "base/auto.h"
#include "server/internal.h"

#define ADMIN ROLE_BIT(ROLE_ADMIN)

/* --- rows --- */

static void put_hash(struct json_out *w, const uint8_t hash[STORE_HASH_BYTES])
{
	char text[2 * STORE_HASH_BYTES + 1];
	hex_encode(hash, STORE_HASH_BYTES, text);
	json_put_str(w, "hash", str_of(text));
}

static void put_row(struct json_out *w, const struct store_audit_row *row)
{
	json_open_object(w, NULL);
	json_put_int(w, "sequence", row->sequence);
	json_put_time(w, "at", row->at);
	json_put_str(w, "actor", row->actor);
	json_put_str(w, "origin", row->origin);
	json_put_str(w, "action", row->action);
	json_put_str(w, "target", row->target);
	json_put_str(w, "result", row->result);
	if (row->detail.n)
		json_put_raw(w, "detail", row->detail);
	put_hash(w, row->hash);
	json_close_object(w);
}

struct filter {
	struct str actor, action, target;
	struct wall since, until;
};

static bool take_filter(struct job *j, struct filter *ret)
{
	ret->actor = http_query(j->request, STR("actor"));
	ret->action = http_query(j->request, STR("action"));
	ret->target = http_query(j->request, STR("target"));
	return job_query_time(j, "since", &ret->since) && job_query_time(j, "until", &ret->until);
}

static bool matches(const struct filter *f, const struct store_audit_row *row)
{
	return (!f->actor.n || str_eq(f->actor, row->actor)) &&
	       (!f->action.n || str_eq(f->action, row->action)) &&
	       (!f->target.n || str_eq(f->target, row->target)) && row->at.ms >= f->since.ms &&
	       (!f->until.ms || row->at.ms < f->until.ms);
}

/* A page of rows as they lie in the store. */
struct page {
	struct store_audit_row *rows;
	unsigned count;
	int64_t next; /* the cursor: oldest first the last row seen, newest first the first one; 0: no more */
};

static int read_oldest(struct job *j, unsigned limit, int64_t after, struct page *ret, struct err *e)
{
	if (store_read_audit(
		    server_of(j->request)->store, after, limit, &j->arena, &ret->rows, &ret->count, e) < 0)
		return -1;
	ret->next = ret->count == limit ? ret->rows[ret->count - 1].sequence : 0;
	return 0;
}

/* The rows before `before` (0: the newest), which the store can only read forwards. */
static int read_newest(struct job *j, unsigned limit, int64_t before, struct page *ret, struct err *e)
{
	struct store *store = server_of(j->request)->store;
	struct store_counts counts;
	if (store_read_counts(store, &counts, e) < 0)
		return -1;
	int64_t end = before ? before : (int64_t)counts.audit_rows + 1;
	int64_t after = end - 1 > limit ? end - 1 - limit : 0;
	if (store_read_audit(store, after, limit, &j->arena, &ret->rows, &ret->count, e) < 0)
		return -1;
	/* Where rows are missing the page reaches too far. */
	while (ret->count && ret->rows[ret->count - 1].sequence >= end)
		ret->count--;
	ret->next = after ? after + 1 : 0;
	return 0;
}

static bool take_order(struct job *j, bool *ret_newest_first)
{
	struct str order = http_query(j->request, STR("order"));
	*ret_newest_first = str_eq(order, STR("newest"));
	if (!order.p || *ret_newest_first || str_eq(order, STR("oldest")))
		return true;
	job_invalid(j, "?order", "unknown", "oldest or newest is expected");
	return false;
}

static void run_list(struct job *j)
{
	unsigned limit;
	int64_t cursor;
	bool newest_first;
	struct filter filter;
	struct page page = {0};
	struct err e = ERR_INIT;
	if (!job_limit(j, &limit) || !job_cursor(j, &cursor) || !take_order(j, &newest_first) ||
		!take_filter(j, &filter))
		return;
	if ((newest_first ? read_newest : read_oldest)(j, limit, cursor, &page, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_open_array(&w, "rows");
	for (unsigned i = 0; i < page.count; i++) {
		const struct store_audit_row *row = &page.rows[newest_first ? page.count - 1 - i : i];
		if (matches(&filter, row))
			put_row(&w, row);
	}
	json_close_array(&w);
	job_put_cursor(&w, page.next);
	json_close_object(&w);
}

/* --- the head --- */

/* The row with this sequence; ERR_NOT_FOUND when it is missing. */
static int read_row(struct job *j, int64_t sequence, struct store_audit_row *ret, struct err *e)
{
	struct store_audit_row *rows;
	unsigned count;
	if (store_read_audit(server_of(j->request)->store, sequence - 1, 1, &j->arena, &rows, &count, e) < 0)
		return -1;
	if (!count || rows[0].sequence != sequence)
		return err_set(e, ERR_NOT_FOUND, "audit row %lld is missing", (long long)sequence);
	*ret = rows[0];
	return 0;
}

static void run_head(struct job *j)
{
	struct store_counts counts;
	struct store_audit_row head = {.sequence = 0};
	struct err e = ERR_INIT;
	if (store_read_counts(server_of(j->request)->store, &counts, &e) < 0 ||
		(counts.audit_rows && read_row(j, (int64_t)counts.audit_rows, &head, &e) < 0)) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "sequence", head.sequence);
	json_put_time(&w, "at", head.at);
	put_hash(&w, head.hash);
	json_close_object(&w);
}

/* --- the check --- */

/* A head that was exported earlier; sequence 0: none was given. */
struct known_head {
	int64_t sequence;
	uint8_t hash[STORE_HASH_BYTES];
};

static bool take_known_head(struct job *j, struct known_head *ret)
{
	struct str sequence = http_query(j->request, STR("sequence")),
		   hash = http_query(j->request, STR("hash"));
	ret->sequence = 0;
	if (!sequence.n && !hash.n)
		return true;
	if (str_to_i64(sequence, &ret->sequence) && ret->sequence > 0 &&
		hex_decode(hash, ret->hash, sizeof(ret->hash)))
		return true;
	job_invalid(j, "?sequence", "not_a_head", "sequence and hash of an exported head are expected");
	return false;
}

/* What is wrong with the trail; .fault NULL: nothing. */
struct finding {
	const char *fault;
	int64_t sequence;
	uint64_t checked;
};

static int check_chain(struct job *j, struct finding *ret, struct err *e)
{
	struct store_audit_row row;
	int rc = store_audit_check(server_of(j->request)->store, &ret->checked, &ret->sequence, e);
	if (rc != STORE_AUDIT_BROKEN)
		return rc;
	struct err why = ERR_INIT;
	bool missing = read_row(j, ret->sequence, &row, &why) < 0 && why.kind == ERR_NOT_FOUND;
	ret->fault = missing ? "missing" : "changed";
	return 0;
}

static int check_head(struct job *j, const struct known_head *head, struct finding *ret, struct err *e)
{
	struct store_audit_row row;
	struct err why = ERR_INIT;
	if (read_row(j, head->sequence, &row, &why) < 0) {
		if (why.kind != ERR_NOT_FOUND) {
			*e = why;
			return -1;
		}
		ret->fault = "missing";
	} else if (memcmp(row.hash, head->hash, sizeof(row.hash)) != 0) {
		ret->fault = "rewritten";
	}
	ret->sequence = head->sequence;
	return 0;
}

static void run_verify(struct job *j)
{
	struct known_head head;
	struct finding finding = {NULL, 0, 0};
	struct err e = ERR_INIT;
	if (!take_known_head(j, &head))
		return;
	int rc = check_chain(j, &finding, &e);
	if (rc >= 0 && !finding.fault && head.sequence)
		rc = check_head(j, &head, &finding, &e);
	if (rc < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_bool(&w, "intact", !finding.fault);
	json_put_int(&w, "checked", (int64_t)finding.checked);
	if (finding.fault) {
		json_put_str(&w, "fault", str_of(finding.fault));
		json_put_int(&w, "sequence", finding.sequence);
	}
	json_close_object(&w);
}

ADMIN_HANDLER(get_list, run_list)
ADMIN_HANDLER(get_head, run_head)
ADMIN_HANDLER(get_verify, run_verify)

const struct http_route admin_audit_routes[] = {
	{"GET", "/admin/audit", ADMIN, false, get_list, "The audit trail, oldest first", 0},
	{"GET", "/admin/audit/head", ADMIN, false, get_head, "The newest audit row's hash", 0},
	{"GET", "/admin/audit/verify", ADMIN, false, get_verify, "Check the audit trail", 0},
	{0},
};
