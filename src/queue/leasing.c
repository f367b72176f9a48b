/* leasing.c - see leasing.h. The record of a batch names the messages that are still held, u64 key each: it
 * is written when the batch goes out, again when part of it came back, and goes with the last message. */
#include "queue/leasing.h"

#include "base/auto.h"

enum {
	LEASE_MAX = 65536, /* messages in a batch, whatever is asked for */
	MEMBER_BYTES = 8,
};

AUTO_DEFINE(schedule_batch_unref, struct schedule_batch *)

void leasing_init(struct leasing *l, const struct leasing_shelf *shelf, void *state,
	const struct clock *clock, struct schedule *schedule)
{
	*l = (struct leasing){.shelf = shelf, .state = state, .clock = clock, .schedule = schedule};
	buf_init(&l->history, HISTORY_MAX_BYTES);
	buf_init(&l->members, (size_t)LEASE_MAX * MEMBER_BYTES);
}

void leasing_clear(struct leasing *l)
{
	buf_clear(&l->history);
	buf_clear(&l->members);
}

/* --- attempts --- */

static int read_history(struct leasing *l, const struct schedule_entry *entry, struct str *ret, struct err *e)
{
	if (entry->lane == LANE_FRESH) {
		*ret = (struct str){NULL, 0};
		return 0;
	}
	return l->shelf->history(l->state, entry->key, ret, e);
}

/* Writes the message back with one more attempt. */
static int write_attempt(struct leasing *l, const struct schedule_entry *entry,
	const struct queue_attempt *attempt, bool failed, struct wall due_at, struct err *e)
{
	struct str history;
	if (read_history(l, entry, &history, e) < 0)
		return -1;
	buf_reset(&l->history);
	history_append(history, attempt, &l->history);
	if (l->history.failed)
		return err_oom(e);
	struct row row = {
		.key = entry->key,
		.failed = failed,
		.due_ms = due_at.ms,
		.attempts = entry->attempts + 1,
		.history = buf_str(&l->history),
	};
	return l->shelf->rewrite(l->state, entry, &row, e);
}

static struct queue_attempt attempt_now(
	const struct leasing *l, const struct schedule_batch *batch, struct str reason)
{
	return (struct queue_attempt){clock_wall(l->clock), str_of(batch->worker), reason};
}

/* --- batches --- */

/* Writes which messages of the batch are held now. */
static int write_batch(struct leasing *l, const struct schedule_batch *batch, struct err *e)
{
	if (!l->shelf->batch_held)
		return 0;
	const struct schedule_lease *lease;
	buf_reset(&l->members);
	for (size_t cursor = 0; (lease = schedule_member(l->schedule, batch, &cursor));)
		buf_add_u64(&l->members, lease->entry.key);
	if (l->members.failed)
		return err_oom(e);
	return l->shelf->batch_held(l->state, batch, buf_str(&l->members), e);
}

/* Leases of `batch` end; *touched is the batch of which others ended before, which is written once for all.
 */
static int touch_batch(struct leasing *l, const struct schedule_batch **touched,
	const struct schedule_batch *batch, struct err *e)
{
	const struct schedule_batch *before = *touched;
	*touched = batch;
	return before && before != batch ? write_batch(l, before, e) : 0;
}

/* --- lease --- */

static int bury_damaged(struct leasing *l, const struct schedule_batch *batch,
	const struct schedule_entry *entry, struct err *e)
{
	struct queue_attempt attempt =
		attempt_now(l, batch, STR("damaged: the stored record cannot be read"));
	if (write_attempt(l, entry, &attempt, true, attempt.at, e) < 0)
		return -1;
	schedule_bury(l->schedule, entry);
	return 0;
}

static int lease_one(struct leasing *l, struct queue_lease *lease, struct schedule_batch *batch,
	const struct schedule_entry *entry, struct str record, struct err *e)
{
	struct queue_message *m = &lease->messages[lease->count];
	if (sealed_decode(record, &m->sealed, NULL) < 0)
		return bury_damaged(l, batch, entry, e);
	m->ref = (struct queue_ref){.handle = (int64_t)entry->key, .token = batch->token};
	m->attempt_count = entry->attempts;
	lease->count++;
	return schedule_lease(l->schedule, batch, entry, lease->deadline, e);
}

/* Takes what is due until there is enough; a full arena ends it early. */
static int lease_all(struct leasing *l, struct queue_lease *lease, unsigned max, struct schedule_batch *batch,
	struct err *e)
{
	struct wall now = clock_wall(l->clock);
	struct schedule_entry entry;
	int found = 1;
	while (lease->count < max && (found = schedule_next(l->schedule, now, &entry, e)) > 0) {
		struct str record;
		if (l->shelf->record(l->state, &entry, &record, e) < 0)
			return -1;
		record = arena_copy(lease->arena, record);
		if (!record.p) {
			schedule_return(l->schedule, &entry);
			return lease->count ? 0 : err_set(e, ERR_REJECT, "the memory given holds no message");
		}
		if (lease_one(l, lease, batch, &entry, record, e) < 0)
			return -1;
	}
	return found < 0 ? -1 : 0;
}

int leasing_lease(struct leasing *l, struct queue_lease *lease, struct err *e)
{
	int64_t due_ms;
	lease->count = 0;
	lease->deadline = mono_add_ms(clock_mono(l->clock), lease->lease_ms);
	struct wall now = clock_wall(l->clock);
	if (schedule_oldest_due(l->schedule, now, &due_ms, e) < 0)
		return -1;
	if (due_ms > now.ms)
		return 0;
	uint64_t waiting = schedule_counts(l->schedule)->waiting - schedule_leased(l->schedule);
	unsigned max = lease->max < LEASE_MAX ? lease->max : LEASE_MAX;
	if (waiting < max)
		max = (unsigned)waiting;
	lease->messages = arena_alloc(lease->arena, max * sizeof(*lease->messages));
	if (!lease->messages)
		return err_set(e, ERR_REJECT, "the memory given holds no %u messages", max);
	AUTO(schedule_batch_unref_auto) struct schedule_batch *batch = NULL;
	if (schedule_batch_new(l->schedule, 0, str_of(lease->worker), &batch, e) < 0)
		return -1;
	if (lease_all(l, lease, max, batch, e) < 0)
		return -1;
	return lease->count ? write_batch(l, batch, e) : 0;
}

/* --- settle, renew --- */

static int settle_done(
	struct leasing *l, struct schedule_lease *lease, const struct queue_settlement *item, struct err *e)
{
	(void)item;
	if (l->shelf->erase(l->state, &lease->entry, e) < 0)
		return -1;
	return schedule_done(l->schedule, lease, e);
}

static int settle_retry(
	struct leasing *l, struct schedule_lease *lease, const struct queue_settlement *item, struct err *e)
{
	struct queue_attempt attempt = attempt_now(l, lease->batch, item->reason);
	if (write_attempt(l, &lease->entry, &attempt, false, item->due_at, e) < 0)
		return -1;
	return schedule_retry(l->schedule, lease, item->due_at, e);
}

static int settle_dead(
	struct leasing *l, struct schedule_lease *lease, const struct queue_settlement *item, struct err *e)
{
	struct queue_attempt attempt = attempt_now(l, lease->batch, item->reason);
	if (write_attempt(l, &lease->entry, &attempt, true, attempt.at, e) < 0)
		return -1;
	return schedule_dead(l->schedule, lease, e);
}

static int settle_release(
	struct leasing *l, struct schedule_lease *lease, const struct queue_settlement *item, struct err *e)
{
	(void)item;
	return schedule_release(l->schedule, lease, e);
}

static int (*const settle_by_verdict[])(
	struct leasing *, struct schedule_lease *, const struct queue_settlement *, struct err *) = {
	[QUEUE_DONE] = settle_done,
	[QUEUE_RETRY] = settle_retry,
	[QUEUE_DEAD] = settle_dead,
	[QUEUE_RELEASE] = settle_release,
};

static struct schedule_lease *lease_of(const struct leasing *l, const struct queue_ref *ref)
{
	return ref->token ? schedule_find(l->schedule, (uint64_t)ref->handle, ref->token) : NULL;
}

int leasing_settle(struct leasing *l, struct queue_settle *settle, struct err *e)
{
	const struct schedule_batch *touched = NULL;
	settle->stale_count = 0;
	for (unsigned i = 0; i < settle->count; i++) {
		struct queue_settlement *item = &settle->items[i];
		struct schedule_lease *lease = lease_of(l, &item->ref);
		item->stale = !lease;
		settle->stale_count += item->stale;
		if (item->stale)
			continue;
		if (touch_batch(l, &touched, lease->batch, e) < 0 ||
			settle_by_verdict[item->verdict](l, lease, item, e) < 0)
			return -1;
	}
	return touch_batch(l, &touched, NULL, e);
}

int leasing_renew(struct leasing *l, struct queue_renew *renew, struct err *e)
{
	struct mono deadline = mono_add_ms(clock_mono(l->clock), renew->lease_ms);
	renew->stale_count = 0;
	for (unsigned i = 0; i < renew->count; i++) {
		struct schedule_lease *lease = lease_of(l, &renew->refs[i]);
		if (!lease)
			renew->stale_count++;
		else if (schedule_renew(l->schedule, lease, deadline, e) < 0)
			return -1;
	}
	return 0;
}

/* --- leases that no one ended --- */

int leasing_expire(struct leasing *l, unsigned max, struct err *e)
{
	struct mono now = clock_mono(l->clock);
	const struct schedule_batch *touched = NULL;
	const struct queue_settlement retry = {
		.due_at = clock_wall(l->clock),
		.reason = STR("lease_expired: no result in time, or the process that held it ended"),
	};
	unsigned cursor = 0, count = 0;
	for (struct schedule_lease *lease; count < max; count++) {
		lease = schedule_expired(l->schedule, now, &cursor);
		if (!lease)
			break;
		if (touch_batch(l, &touched, lease->batch, e) < 0 || settle_retry(l, lease, &retry, e) < 0)
			return -1;
	}
	return touch_batch(l, &touched, NULL, e) < 0 ? -1 : (int)count;
}

int leasing_restore(struct leasing *l, uint64_t token, struct str worker, struct str members, struct err *e)
{
	AUTO(schedule_batch_unref_auto) struct schedule_batch *batch = NULL;
	if (schedule_batch_new(l->schedule, token, worker, &batch, e) < 0)
		return -1;
	struct mono past = clock_mono(l->clock);
	struct cursor c = cursor_of(members);
	while (c.n >= MEMBER_BYTES) {
		uint64_t key = cursor_u64(&c);
		struct schedule_entry entry;
		/* Named twice: the file was tampered with. */
		if (schedule_find(l->schedule, key, 0))
			continue;
		int found = l->shelf->waiting(l->state, key, &entry, e);
		if (found < 0 || (found && schedule_lease(l->schedule, batch, &entry, past, e) < 0))
			return -1;
	}
	return batch->held ? 0 : write_batch(l, batch, e);
}
