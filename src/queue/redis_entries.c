/* redis_entries.c - the administrator's view of the Redis engine: find, list, redrive, purge.
 *
 * What is asked for is read at once, by pages in order of the ids: each partition and set says what it would
 * put on the page, and the smallest ids of all are the page. Changes go with the commit. */
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "queue/redis_engine.h"

enum {
	PAGE_ROWS = 256,
	ROW_WORDS = 5, /* id, record, tried, leased, dead */
	IDS_AT_ONCE = 256,
};

/* A view of a reply. */
struct entry_row {
	struct uuid id;
	struct row row;
	bool leased;
	unsigned part;
};

struct page {
	redisReply *replies[REDIS_PARTITIONS_MAX];
	struct entry_row *rows;
	size_t count;
};

static void page_clear(struct page *p)
{
	for (size_t i = 0; i < ARRAY_LEN(p->replies); i++)
		freeReplyObject(p->replies[i]);
	free(p->rows);
	*p = (struct page){.count = 0};
}

static bool is_set(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_INTEGER && reply->integer;
}

/* tried: u32 attempts, u64 due, history */
static void take_tried(struct str tried, struct row *row)
{
	struct cursor c = cursor_of(tried);
	if (!tried.n)
		return;
	row->attempts = cursor_u32(&c);
	row->due_ms = (int64_t)cursor_u64(&c);
	row->history = str_mem(c.p, c.n);
}

static void take_row(redisReply **words, unsigned part, struct entry_row *ret)
{
	struct str id = redis_text(words[0]);
	*ret = (struct entry_row){.leased = is_set(words[3]), .part = part};
	if (id.n == sizeof(ret->id.b))
		memcpy(ret->id.b, id.p, id.n);
	ret->row = (struct row){
		.key = uuid_order_key(&ret->id),
		.failed = is_set(words[4]),
		.history = STR(""),
		.record = redis_text(words[1]),
	};
	take_tried(redis_text(words[2]), &ret->row);
}

static int by_id(const void *a, const void *b)
{
	const struct entry_row *x = a, *y = b;
	return memcmp(x->id.b, y->id.b, sizeof(x->id.b));
}

static int rows_reply(void *arg, unsigned number, const redisReply *reply, struct err *e)
{
	(void)arg, (void)number;
	return reply->type == REDIS_REPLY_ARRAY && reply->elements % ROW_WORDS == 0 ? 0 : redis_odd_answer(e);
}

/* Sends what q->now holds, a command for each partition, and collects all rows in order. */
static int read_rows(struct redis_queue *q, struct page *ret, struct err *e)
{
	struct redis_exchange x = {
		.count = q->part_count, .again = true, .reply = rows_reply, .keep = ret->replies};
	if (redis_now(q, &x, e) < 0)
		return -1;
	size_t total = 0;
	for (unsigned i = 0; i < q->part_count; i++)
		total += ret->replies[i]->elements / ROW_WORDS;
	ret->rows = calloc(total + 1, sizeof(*ret->rows));
	if (!ret->rows)
		return err_oom(e);
	for (unsigned i = 0; i < q->part_count; i++)
		for (size_t j = 0; j + ROW_WORDS <= ret->replies[i]->elements; j += ROW_WORDS)
			take_row(&ret->replies[i]->element[j], i, &ret->rows[ret->count++]);
	qsort(ret->rows, ret->count, sizeof(*ret->rows), by_id);
	for (size_t i = 0; i < ret->count; i++)
		ret->rows[i].row.id = &ret->rows[i].id;
	return 0;
}

static int read_ids(
	struct redis_queue *q, const struct uuid *ids, size_t count, struct page *ret, struct err *e)
{
	for (unsigned part = 0; part < q->part_count; part++) {
		redis_eval(q, &q->now, REDIS_ROWS, part, 1 + count);
		redis_word(&q->now, STR("i"));
		for (size_t i = 0; i < count; i++)
			redis_word(&q->now, redis_id(&ids[i]));
	}
	return read_rows(q, ret, e);
}

/* Rows behind `key`, whole keys only: ids of several proxies may share one, and the next page starts behind the
 * last. *ret_more: there are others. */
static int read_page(struct redis_queue *q, const char *sets, uint64_t key, struct page *ret, bool *ret_more,
	struct err *e)
{
	struct uuid from = uuid_of_order_key(key + 1);
	for (unsigned part = 0; part < q->part_count; part++) {
		redis_eval(q, &q->now, REDIS_ROWS, part, 4);
		redis_word(&q->now, STR("p"));
		redis_word(&q->now, str_of(sets));
		redis_word(&q->now, redis_id(&from));
		redis_number(&q->now, PAGE_ROWS + 1);
	}
	if (read_rows(q, ret, e) < 0)
		return -1;
	*ret_more = ret->count > PAGE_ROWS;
	if (!*ret_more)
		return 0;
	uint64_t next_key = ret->rows[PAGE_ROWS].row.key;
	ret->count = PAGE_ROWS;
	while (ret->count > 1 && ret->rows[ret->count - 1].row.key == next_key)
		ret->count--;
	return 0;
}

/* --- scans --- */

/* Calls `visit` for the rows behind *progress, until it returns other than 0 or as many as one call may look at
 * were seen. */
struct scan {
	const char *sets;
	uint64_t *progress;
	int (*visit)(void *arg, const struct entry_row *row, struct err *e);
	void *arg;
};

enum { SCAN_STOP = 1 };

static int visit_page(const struct scan *s, const struct page *page, struct err *e)
{
	for (size_t i = 0; i < page->count; i++) {
		int rc = s->visit(s->arg, &page->rows[i], e);
		if (rc)
			return rc;
		*s->progress = page->rows[i].row.key;
	}
	return 0;
}

/* QUEUE_UNFINISHED, 0 at the end or when visit has enough, <0. */
static int scan(struct redis_queue *q, const struct scan *s, struct err *e)
{
	bool more = true;
	for (unsigned looked_at = 0; more && looked_at < SCAN_ROWS; looked_at += PAGE_ROWS) {
		struct page page = {.count = 0};
		int rc = read_page(q, s->sets, *s->progress, &page, &more, e);
		if (rc == 0)
			rc = visit_page(s, &page, e);
		page_clear(&page);
		if (rc)
			return rc == SCAN_STOP ? 0 : -1;
	}
	return more ? QUEUE_UNFINISHED : 0;
}

/* --- find, list --- */

int redis_find(void *state, struct queue_find *find, struct err *e)
{
	struct page page = {.count = 0};
	int rc = read_ids(state, &find->id, 1, &page, e);
	if (rc == 0 && !page.count)
		rc = err_set(e, ERR_NOT_FOUND, "no such message in the queue");
	else if (rc == 0)
		rc = row_find(&page.rows[0].row, page.rows[0].leased, find, e);
	page_clear(&page);
	return rc;
}

/* The page does not end before it: the next one starts behind the order key of the last. */
static bool is_sibling(const struct queue_list *list, const struct entry_row *row)
{
	return list->count && list->count < list->max + LIST_SIBLINGS &&
	       uuid_order_key(&list->entries[list->count - 1].id) == row->row.key;
}

static int list_one(void *arg, const struct entry_row *row, struct err *e)
{
	struct queue_list *list = arg;
	if (list->count >= list->max && !is_sibling(list, row))
		return SCAN_STOP;
	return row_list(&row->row, row->leased, list, e);
}

int redis_list(void *state, struct queue_list *list, struct err *e)
{
	int wanted = list->filter.state;
	struct scan s = {.sets = wanted < 0                 ? "b"
				 : wanted == MESSAGE_FAILED ? "d"
							    : "a",
		.progress = &list->progress,
		.visit = list_one,
		.arg = list};
	return scan(state, &s, e);
}

/* --- dead letters --- */

/* Dead letters that one operation has chosen. */
struct chosen {
	struct redis_queue *q;
	const struct dead_choice *choice;
	struct buf words[REDIS_PARTITIONS_MAX]; /* id and client of each */
	size_t count[REDIS_PARTITIONS_MAX];
};

static int choose(struct chosen *c, const struct entry_row *row, struct err *e)
{
	struct queue_entry entry;
	(void)row_entry(&row->row, false, &entry);
	struct buf *words = &c->words[row->part];
	(*c->choice->matched)++;
	redis_word(words, redis_id(&row->id));
	redis_word(words, entry.client_id);
	c->count[row->part]++;
	return buf_check(words, e);
}

static int choose_by_filter(void *arg, const struct entry_row *row, struct err *e)
{
	struct chosen *c = arg;
	if (*c->choice->matched == c->choice->max)
		return SCAN_STOP;
	return dead_matches(&row->row, c->choice) ? choose(c, row, e) : 0;
}

static int choose_by_id(struct chosen *c, struct err *e)
{
	const struct dead_choice *choice = c->choice;
	for (unsigned at = 0; at < choice->id_count; at += IDS_AT_ONCE) {
		struct page page = {.count = 0};
		unsigned left = choice->id_count - at;
		int rc = read_ids(c->q, &choice->ids[at], left < IDS_AT_ONCE ? left : IDS_AT_ONCE, &page, e);
		for (size_t i = 0; rc == 0 && i < page.count && *choice->matched < choice->max; i++)
			if (page.rows[i].row.failed)
				rc = choose(c, &page.rows[i], e);
		page_clear(&page);
		if (rc < 0)
			return -1;
	}
	return 0;
}

/* What was chosen becomes commands of the group. */
static int act(struct chosen *c, enum redis_script script, const struct redis_pending *what, struct err *e)
{
	for (unsigned part = 0; part < c->q->part_count; part++) {
		struct redis_pending p = *what;
		p.part = part;
		p.count = c->count[part];
		if (!p.count)
			continue;
		if (redis_promise(c->q, &p, e) < 0)
			return -1;
		redis_eval(c->q, &c->q->out, script, part, 2 * p.count);
		buf_add_str(&c->q->out, buf_str(&c->words[part]));
	}
	return 0;
}

static int on_dead(struct redis_queue *q, const struct dead_choice *choice, enum redis_script script,
	const struct redis_pending *what, struct err *e)
{
	struct chosen c = {.q = q, .choice = choice};
	for (unsigned i = 0; i < q->part_count; i++)
		buf_init(&c.words[i], SIZE_MAX);
	struct scan s = {.sets = "d", .progress = choice->progress, .visit = choose_by_filter, .arg = &c};
	int rc = choice->id_count ? choose_by_id(&c, e) : scan(q, &s, e);
	if (rc >= 0 && !choice->dry_run && act(&c, script, what, e) < 0)
		rc = -1;
	for (unsigned i = 0; i < q->part_count; i++)
		buf_clear(&c.words[i]);
	return rc;
}

int redis_redrive(void *state, struct queue_redrive *redrive, struct err *e)
{
	struct redis_pending what = {.kind = PENDING_REDRIVE, .op = redrive};
	return on_dead(state, DEAD_CHOICE(redrive), REDIS_REDRIVE, &what, e);
}

int redis_purge(void *state, struct queue_purge *purge, struct err *e)
{
	struct redis_pending what = {.kind = PENDING_PURGE, .op = purge};
	return on_dead(state, DEAD_CHOICE(purge), REDIS_PURGE, &what, e);
}
