/* row.c - see row.h. A history is a run of attempts, oldest first, each: u64 wall ms, u8 length and worker,
 * u16 length and reason. */
#include "queue/row.h"

#include <string.h>

static size_t at_most(size_t n, size_t limit)
{
	return n < limit ? n : limit;
}

static bool history_next(struct cursor *c, struct queue_attempt *ret)
{
	if (!c->n)
		return false;
	ret->at.ms = (int64_t)cursor_u64(c);
	size_t worker_bytes = cursor_u8(c);
	ret->worker = cursor_bytes(c, worker_bytes);
	size_t reason_bytes = cursor_u16(c);
	ret->reason = cursor_bytes(c, reason_bytes);
	return !c->failed;
}

static unsigned history_count(struct str history)
{
	struct cursor c = cursor_of(history);
	struct queue_attempt attempt;
	unsigned count = 0;
	while (history_next(&c, &attempt))
		count++;
	/* Damaged: nothing of it is kept. */
	return c.failed ? 0 : count;
}

/* Without the oldest attempts, so that at most `keep` are left. */
static struct str history_newest(struct str history, unsigned keep)
{
	struct cursor c = cursor_of(history);
	struct queue_attempt attempt;
	unsigned count = history_count(history);
	for (unsigned left = count; left > keep; left--)
		(void)history_next(&c, &attempt);
	return count ? str_mem(c.p, c.n) : STR("");
}

void history_append(struct str history, const struct queue_attempt *attempt, struct buf *out)
{
	size_t worker_bytes = at_most(attempt->worker.n, HISTORY_WORKER_BYTES);
	size_t reason_bytes = at_most(attempt->reason.n, HISTORY_REASON_BYTES);
	buf_add_str(out, history_newest(history, HISTORY_ATTEMPTS - 1));
	buf_add_u64(out, (uint64_t)attempt->at.ms);
	buf_add_u8(out, (uint8_t)worker_bytes);
	buf_add(out, attempt->worker.p, worker_bytes);
	buf_add_u16(out, (uint16_t)reason_bytes);
	buf_add(out, attempt->reason.p, reason_bytes);
}

static struct str last_reason(struct str history)
{
	struct cursor c = cursor_of(history_newest(history, 1));
	struct queue_attempt attempt = {.reason = STR("")};
	(void)history_next(&c, &attempt);
	return attempt.reason;
}

static enum message_state row_state(const struct row *row, bool leased)
{
	if (row->failed)
		return MESSAGE_FAILED;
	return leased ? MESSAGE_PROCESSING : MESSAGE_QUEUED;
}

bool row_entry(const struct row *row, bool leased, struct queue_entry *ret)
{
	struct sealed sealed;
	bool whole = sealed_decode(row->record, &sealed, NULL) == 0;
	if (!whole) {
		sealed = (struct sealed){.client_id = STR(""), .domain = STR("")};
		sealed.id = row->id ? *row->id : uuid_of_order_key(row->key);
		sealed.accepted_at = key_time(row->key);
	}
	*ret = (struct queue_entry){
		.id = sealed.id,
		.client_id = sealed.client_id,
		.domain = sealed.domain,
		.state = row_state(row, leased),
		.accepted_at = sealed.accepted_at,
		.due_at = {row->due_ms ? row->due_ms : sealed.accepted_at.ms},
		.attempt_count = row->attempts,
		.last_reason = last_reason(row->history),
	};
	return whole;
}

static bool wanted(struct str wish, struct str is)
{
	return wish.n == 0 || str_eq(wish, is);
}

static bool contains(struct str s, struct str part)
{
	return part.n == 0 || (s.n >= part.n && memmem(s.p, s.n, part.p, part.n));
}

bool entry_matches(const struct queue_entry *entry, const struct queue_filter *filter, bool any_state)
{
	return (any_state || filter->state < 0 || (enum message_state)filter->state == entry->state) &&
	       wanted(filter->client_id, entry->client_id) && wanted(filter->domain, entry->domain) &&
	       contains(entry->last_reason, filter->reason_has) &&
	       (filter->accepted_before.ms == 0 || entry->accepted_at.ms < filter->accepted_before.ms);
}

static int too_much(struct err *e)
{
	return err_set(e, ERR_REJECT, "the answer does not fit into the memory given for it");
}

static int copy(struct arena *arena, struct str *s, struct err *e)
{
	*s = arena_copy(arena, *s);
	return s->p ? 0 : too_much(e);
}

static int copy_entry(struct arena *arena, struct queue_entry *entry, struct err *e)
{
	if (copy(arena, &entry->client_id, e) < 0 || copy(arena, &entry->domain, e) < 0)
		return -1;
	return copy(arena, &entry->last_reason, e);
}

static int copy_attempts(const struct row *row, struct arena *arena, struct queue_entry *entry, struct err *e)
{
	unsigned count = history_count(row->history);
	struct queue_attempt *attempts = arena_alloc(arena, count * sizeof(*attempts));
	if (!attempts)
		return too_much(e);
	struct cursor c = cursor_of(row->history);
	for (unsigned i = 0; i < count && history_next(&c, &attempts[i]); i++)
		if (copy(arena, &attempts[i].worker, e) < 0 || copy(arena, &attempts[i].reason, e) < 0)
			return -1;
	entry->attempts = attempts;
	entry->attempts_kept = count;
	return 0;
}

int row_find(const struct row *row, bool leased, struct queue_find *find, struct err *e)
{
	struct queue_entry entry;
	(void)row_entry(row, leased, &entry);
	if (!uuid_eq(&entry.id, &find->id))
		return err_set(e, ERR_NOT_FOUND, "no such message in the queue");
	if (copy_entry(find->arena, &entry, e) < 0 || copy_attempts(row, find->arena, &entry, e) < 0)
		return -1;
	find->entry = entry;
	return 0;
}

int row_list(const struct row *row, bool leased, struct queue_list *list, struct err *e)
{
	struct queue_entry entry;
	(void)row_entry(row, leased, &entry);
	if (!entry_matches(&entry, &list->filter, false))
		return 0;
	if (!list->entries)
		list->entries = arena_alloc(
			list->arena, ((size_t)list->max + LIST_SIBLINGS) * sizeof(*list->entries));
	if (!list->entries)
		return too_much(e);
	if (copy_entry(list->arena, &entry, e) < 0)
		return -1;
	list->entries[list->count++] = entry;
	return 0;
}

bool dead_has_id(const struct row *row, const struct dead_choice *choice, unsigned i)
{
	struct queue_entry entry;
	(void)row_entry(row, false, &entry);
	return uuid_eq(&entry.id, &choice->ids[i]);
}

bool dead_matches(const struct row *row, const struct dead_choice *choice)
{
	struct queue_entry entry;
	(void)row_entry(row, false, &entry);
	return entry_matches(&entry, choice->filter, true);
}
