/* spool_drain.c - see spool_drain.h. */
#include "queue/spool_drain.h"

#include <stdlib.h>
#include <string.h>

#include "queue/spool_tag.h"

enum {
	STEP_MIN = 2048, /* messages; more than a put can have */
	STEP_MAX = 8192,
	LEASE_MS = 600000,
};

struct move {
	const struct drain_ends *ends;
	struct arena *arena;
	struct queue_lease lease;
	struct queue_message **order;   /* by id: as accepted, and those of a batch side by side */
	struct spool_tag *tags;         /* of `order` */
	struct queue_settlement *items; /* of `order` */
	struct put_at {
		struct queue_put *put;
		unsigned first; /* of `order` */
	} * puts;               /* of the remote group under way */
	unsigned put_count;
};

static int by_id(const void *a, const void *b)
{
	uint64_t x = uuid_order_key(&(*(struct queue_message *const *)a)->sealed.id);
	uint64_t y = uuid_order_key(&(*(struct queue_message *const *)b)->sealed.id);
	return x < y ? -1 : x > y;
}

/* One operation in a local group of its own. */
static int local_group(int (*run)(struct move *m, struct err *e), struct move *m, struct err *e)
{
	if (m->ends->local->begin(m->ends->local_state, e) < 0)
		return -1;
	if (run(m, e) < 0 || m->ends->local->commit(m->ends->local_state, e) < 0) {
		m->ends->local->abort(m->ends->local_state);
		return -1;
	}
	return 0;
}

static int lease_local(struct move *m, struct err *e)
{
	return m->ends->local->lease(m->ends->local_state, &m->lease, e);
}

static int settle_local(struct move *m, struct err *e)
{
	struct queue_settle settle = {.worker = m->lease.worker, .items = m->items, .count = m->lease.count};
	return m->ends->local->settle(m->ends->local_state, &settle, e);
}

/* Leases, sorts and reads the tags. */
static int begin_move(struct move *m, uint64_t want, struct err *e)
{
	m->lease = (struct queue_lease){
		.worker = "spool",
		.max = want < STEP_MIN   ? STEP_MIN
		       : want > STEP_MAX ? STEP_MAX
					 : (unsigned)want,
		.lease_ms = LEASE_MS,
		.arena = m->arena,
	};
	if (local_group(lease_local, m, e) < 0)
		return -1;
	m->order = arena_alloc(m->arena, (m->lease.count + 1) * sizeof(struct queue_message *));
	m->tags = arena_alloc(m->arena, (m->lease.count + 1) * sizeof(*m->tags));
	m->items = arena_alloc(m->arena, (m->lease.count + 1) * sizeof(*m->items));
	m->puts = arena_alloc(m->arena, (m->lease.count + 1) * sizeof(*m->puts));
	if (!m->order || !m->tags || !m->items || !m->puts)
		return err_oom(e);
	for (unsigned i = 0; i < m->lease.count; i++)
		m->order[i] = &m->lease.messages[i];
	qsort(m->order, m->lease.count, sizeof(struct queue_message *), by_id);
	for (unsigned i = 0; i < m->lease.count; i++) {
		if (spool_tag_take(&m->order[i]->sealed.envelope, &m->tags[i], e) < 0)
			return -1;
		m->items[i] = (struct queue_settlement){.ref = m->order[i]->ref, .verdict = QUEUE_RELEASE};
	}
	return 0;
}

/* How many messages from `i` on were one put with a key; 0 when not all of them are here. */
static unsigned whole_put(const struct move *m, unsigned i)
{
	const struct spool_tag *first = &m->tags[i];
	if (first->index != 0 || first->count == 0 || first->count > m->lease.count - i)
		return 0;
	for (unsigned n = 1; n < first->count; n++) {
		const struct spool_tag *t = &m->tags[i + n];
		if (!t->has_key || t->index != n ||
			memcmp(t->key_hash, first->key_hash, QUEUE_HASH_BYTES) != 0)
			return 0;
	}
	return first->count;
}

/* Into the remote group. */
static int put_remote(struct move *m, unsigned i, unsigned count, bool with_key, struct err *e)
{
	struct queue_put *put = arena_zalloc(m->arena, sizeof(*put));
	struct sealed *messages = arena_alloc(m->arena, count * sizeof(*messages));
	if (!put || !messages)
		return err_oom(e);
	put->messages = messages;
	put->count = count;
	put->has_key = put->key_promised = with_key;
	for (unsigned n = 0; n < count; n++)
		messages[n] = m->order[i + n]->sealed;
	memcpy(put->key_hash, m->tags[i].key_hash, QUEUE_HASH_BYTES);
	memcpy(put->payload_hash, m->tags[i].payload_hash, QUEUE_HASH_BYTES);
	int rc = m->ends->remote->put(m->ends->remote_state, put, &put->op.err);
	if (rc != QUEUE_AT_COMMIT)
		put->op.result = rc;
	m->puts[m->put_count++] = (struct put_at){put, i};
	if (rc >= 0 || queue_is_single(&put->op.err))
		return 0;
	*e = put->op.err;
	return -1;
}

/* All that is whole; when there is nothing whole among them, each by itself: keys are worth less than progress. */
static int put_all_remote(struct move *m, struct err *e)
{
	unsigned moved = 0;
	for (unsigned i = 0, count; i < m->lease.count; i += count) {
		unsigned whole = m->tags[i].has_key ? whole_put(m, i) : 1;
		count = whole ? whole : 1;
		moved += whole;
		if (whole && put_remote(m, i, whole, m->tags[i].has_key, e) < 0)
			return -1;
	}
	for (unsigned i = 0; !moved && i < m->lease.count; i++)
		if (put_remote(m, i, 1, false, e) < 0)
			return -1;
	return 0;
}

/* A remote group of what `add` puts. */
static int remote_group(struct move *m, int (*add)(struct move *m, struct err *e), struct err *e)
{
	if (m->ends->remote->begin(m->ends->remote_state, e) < 0)
		return -1;
	if (add(m, e) < 0 || m->ends->remote->commit(m->ends->remote_state, e) < 0) {
		m->ends->remote->abort(m->ends->remote_state);
		return -1;
	}
	return 0;
}

/* Of those that the group before refused for their key, which was used for something else while we were apart:
 * what was accepted is kept all the same. */
static int put_without_key(struct move *m, struct err *e)
{
	unsigned before = m->put_count;
	m->put_count = 0;
	for (unsigned i = 0; i < before; i++) {
		struct put_at p = m->puts[i];
		if (p.put->op.result == QUEUE_MISMATCH && put_remote(m, p.first, p.put->count, false, e) < 0)
			return -1;
	}
	return 0;
}

/* Those of the group just committed; one that is there already, or whose key is, needs not come again. Returns
 * how many were refused for their key. */
static unsigned note_moved(struct move *m)
{
	unsigned refused = 0;
	for (unsigned i = 0; i < m->put_count; i++) {
		const struct put_at *p = &m->puts[i];
		const struct group_op *op = &p->put->op;
		refused += op->result == QUEUE_MISMATCH;
		if (op->result == QUEUE_MISMATCH || (op->result < 0 && op->err.kind != ERR_CONFLICT))
			continue;
		for (unsigned n = 0; n < p->put->count; n++)
			m->items[p->first + n].verdict = QUEUE_DONE;
	}
	return refused;
}

static int move_to_remote(struct move *m, struct err *e)
{
	if (remote_group(m, put_all_remote, e) < 0)
		return -1;
	if (!note_moved(m))
		return 0;
	if (remote_group(m, put_without_key, e) < 0)
		return -1;
	note_moved(m);
	return 0;
}

int drain_step(const struct drain_ends *ends, uint64_t want, struct arena *arena, struct err *ret_stuck,
	struct err *e)
{
	struct move m = {.ends = ends, .arena = arena};
	arena_reset(arena);
	if (begin_move(&m, want, e) < 0)
		return -1;
	if (!m.lease.count)
		return 0;
	/* What was not moved is released by its settlement. */
	int moved = move_to_remote(&m, ret_stuck);
	(void)moved;
	return local_group(settle_local, &m, e);
}
