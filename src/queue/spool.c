/* spool.c - see spool.h.
 *
 * All driver functions run on the queue's committer thread, so that each group is wholly remote or wholly local,
 * and the way back is a plain step between two groups: when the spool is found empty, the next group is remote.
 *
 * A group that fails at the remote engine is played again into the spool: its puts are remembered until it has
 * committed. The remote engine may have taken it nevertheless (the answer was lost); then the same message is in
 * both places and the id tells.
 *
 * In the spool every envelope ends in a tag (struct tag) that holds what a put has beside its messages: the
 * idempotency key, and which message of how many. So the put can be made again from messages alone, by any local
 * driver. */
#include "queue/spool.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/buf.h"

enum {
	DRAIN_MIN = 2048, /* messages moved in one step, at least; more than a put can have */
	DRAIN_MAX = 8192,
	DRAIN_LEASE_MS = 600000,
	ARENA_BYTES = 128 << 20,
	LOOK_EVERY_MS = 100,         /* whether the remote engine is back */
	LOCAL_TICK_EVERY_MS = 60000, /* while the spool is not in use: forgetting old keys */
};

enum mode { MODE_REMOTE, MODE_LOCAL, MODE_DRAINING };

enum place { PLACE_NONE, PLACE_REMOTE, PLACE_LOCAL };

/* While it is busy, the remote driver's state belongs to its thread. */
struct mender {
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool busy, stopping;
	struct err trouble; /* of the last try */
};

struct spool {
	struct spool_options o;
	struct queue_driver_options driver; /* what the remote one is opened with */
	void *remote, *local;
	enum mode mode;
	enum place group; /* where the group under way is */
	struct stored {
		struct queue_put *put;
		bool answered; /* else its answer comes with the commit */
	} * puts;              /* of a remote group: what it stored */
	size_t put_count, put_room;
	bool changed;       /* a remote group has changed something that the spool cannot take over */
	uint64_t spooled;   /* messages in the spool, with those of the local group under way */
	uint64_t put_total; /* messages put there since the last step of draining */
	struct queue_stats remote_stats; /* as last seen */
	struct err trouble;              /* why the remote engine is, or was, away */
	uint64_t outages;
	struct mono local_tick_at;
	struct mender mender;
	struct arena scratch, moving;
	char *durability;
};

/* Whether a failure concerns one operation only; others are the engine's. */
static bool is_single(const struct err *e)
{
	return e->kind != ERR_RETRY && e->kind != ERR_FATAL && e->kind != ERR_NONE;
}

/* --- reaching the remote engine again: the mender's thread --- */

static int try_remote(struct spool *s, struct err *e)
{
	struct mono next;
	(void)s->o.remote->tick(s->remote, clock_mono(s->driver.clock), &next);
	return s->o.remote->probe(s->remote, e);
}

/* Waits so long, or until told to stop; the lock is held. */
static void rest(struct mender *m, int64_t ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t ns = until.tv_nsec + ms * 1000000;
	until.tv_sec += ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	while (!m->stopping && pthread_cond_timedwait(&m->changed, &m->lock, &until) != ETIMEDOUT)
		;
}

/* Tries until it works; the lock is held, but not while trying. */
static void mend(struct spool *s)
{
	struct mender *m = &s->mender;
	for (int64_t wait_ms = s->o.retry_min_ms; !m->stopping; wait_ms *= 2) {
		struct err e = ERR_INIT;
		pthread_mutex_unlock(&m->lock);
		int rc = try_remote(s, &e);
		pthread_mutex_lock(&m->lock);
		m->trouble = e;
		if (rc >= 0)
			break;
		if (wait_ms > s->o.retry_max_ms)
			wait_ms = s->o.retry_max_ms;
		rest(m, wait_ms);
	}
	m->busy = false;
}

static void *mender_thread(void *arg)
{
	struct spool *s = arg;
	struct mender *m = &s->mender;
	pthread_mutex_lock(&m->lock);
	while (!m->stopping) {
		if (m->busy)
			mend(s);
		else
			pthread_cond_wait(&m->changed, &m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

static void mender_init(struct mender *m)
{
	pthread_condattr_t attr;
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->changed, &attr);
	pthread_condattr_destroy(&attr);
}

static int mender_start(struct spool *s, struct err *e)
{
	struct mender *m = &s->mender;
	int rc = pthread_create(&m->thread, NULL, mender_thread, s);
	if (rc) {
		errno = rc;
		return err_sys(e, ERR_RETRY, "start a thread");
	}
	pthread_setname_np(m->thread, "spool");
	m->started = true;
	return 0;
}

static void mender_clear(struct mender *m)
{
	if (m->started) {
		pthread_mutex_lock(&m->lock);
		m->stopping = true;
		pthread_cond_signal(&m->changed);
		pthread_mutex_unlock(&m->lock);
		pthread_join(m->thread, NULL);
	}
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
}

/* Whether the remote state is the committer's again; else why the last try failed. */
static bool is_mended(struct spool *s)
{
	struct mender *m = &s->mender;
	pthread_mutex_lock(&m->lock);
	bool mended = !m->busy;
	if (!mended && m->trouble.kind != ERR_NONE)
		s->trouble = m->trouble;
	pthread_mutex_unlock(&m->lock);
	return mended;
}

/* The remote engine does not work: hands it to the mender. */
static void go_local(struct spool *s, const struct err *why)
{
	struct mender *m = &s->mender;
	s->outages += s->mode == MODE_REMOTE;
	s->mode = MODE_LOCAL;
	s->trouble = *why;
	pthread_mutex_lock(&m->lock);
	m->busy = true;
	m->trouble = ERR_INIT;
	pthread_cond_signal(&m->changed);
	pthread_mutex_unlock(&m->lock);
}

/* --- the tag --- */

struct tag {
	bool has_key;
	uint8_t key_hash[QUEUE_HASH_BYTES], payload_hash[QUEUE_HASH_BYTES];
	uint16_t index, count; /* this message of those of its put */
};

/* At the end of the envelope: the key's part, if there is one, then a byte that says so. */
enum { TAG_PLAIN = 0, TAG_KEYED = 1, TAG_KEY_BYTES = 2 * QUEUE_HASH_BYTES + 2 * 2 };

static struct str tagged(
	struct arena *arena, struct str envelope, const struct queue_put *put, unsigned index)
{
	size_t n = envelope.n + (put->has_key ? TAG_KEY_BYTES : 0) + 1;
	char *bytes = arena_alloc(arena, n);
	if (!bytes)
		return (struct str){NULL, 0};
	/* A buf over it, as large as it may ever get. */
	struct buf out = {.p = bytes, .room = n, .ceiling_bytes = n};
	buf_add_str(&out, envelope);
	if (put->has_key) {
		buf_add(&out, put->key_hash, QUEUE_HASH_BYTES);
		buf_add(&out, put->payload_hash, QUEUE_HASH_BYTES);
		buf_add_u16(&out, (uint16_t)index);
		buf_add_u16(&out, (uint16_t)put->count);
	}
	buf_add_u8(&out, put->has_key ? TAG_KEYED : TAG_PLAIN);
	return buf_str(&out);
}

static int untag(struct str *envelope, struct tag *ret, struct err *e)
{
	uint8_t kind = envelope->n ? (uint8_t)envelope->p[envelope->n - 1] : TAG_PLAIN;
	size_t tag_bytes = 1 + (kind == TAG_KEYED ? TAG_KEY_BYTES : 0);
	if (kind > TAG_KEYED || envelope->n < tag_bytes)
		return err_set(e, ERR_FATAL, "the spool holds a message that it did not write");
	*ret = (struct tag){.has_key = kind == TAG_KEYED};
	envelope->n -= tag_bytes;
	if (!ret->has_key)
		return 0;
	struct cursor c = cursor_of(str_mem(envelope->p + envelope->n, TAG_KEY_BYTES));
	cursor_copy(&c, ret->key_hash, QUEUE_HASH_BYTES);
	cursor_copy(&c, ret->payload_hash, QUEUE_HASH_BYTES);
	ret->index = cursor_u16(&c);
	ret->count = cursor_u16(&c);
	return 0;
}

/* --- open, close --- */

static void spool_close(void *state)
{
	struct spool *s = state;
	if (!s)
		return;
	mender_clear(&s->mender);
	s->o.local->close(s->local);
	s->o.remote->close(s->remote);
	arena_clear(&s->scratch);
	arena_clear(&s->moving);
	free(s->puts);
	free(s->durability);
	free(s);
}

static int describe(struct spool *s, struct err *e)
{
	if (asprintf(&s->durability, "%s; while it is away: %s", s->o.remote->durability(s->remote),
		    s->o.local->durability(s->local)) < 0) {
		s->durability = NULL;
		return err_oom(e);
	}
	return 0;
}

static uint64_t count_spooled(const struct queue_stats *local)
{
	return local->queued + local->processing;
}

static int count_local(struct spool *s, uint64_t *ret, struct err *e)
{
	struct queue_stats local = {0};
	if (s->o.local->stats(s->local, &local, e) < 0)
		return -1;
	*ret = count_spooled(&local);
	return 0;
}

/* What an earlier process left moves first. */
static int open_both(struct spool *s, struct err *e)
{
	const struct queue_driver_options local = {
		s->o.local_location, s->driver.clock, s->driver.idempotency_ms, s->o.local_arg};
	struct err why = ERR_INIT;
	if (s->o.local->open(&local, &s->local, e) < 0 || count_local(s, &s->spooled, e) < 0)
		return err_context(e, "spool");
	if (s->o.remote->open(&s->driver, &s->remote, e) < 0 || describe(s, e) < 0 || mender_start(s, e) < 0)
		return -1;
	if (s->o.remote->probe(s->remote, &why) < 0)
		go_local(s, &why);
	else if (s->spooled)
		s->mode = MODE_DRAINING;
	return 0;
}

static int spool_open(const struct queue_driver_options *o, void **ret_state, struct err *e)
{
	const struct spool_options *options = o->arg;
	struct spool *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	s->o = *options;
	s->driver = *o;
	s->driver.arg = options->remote_arg;
	mender_init(&s->mender);
	arena_init(&s->scratch, ARENA_BYTES);
	arena_init(&s->moving, ARENA_BYTES);
	if (open_both(s, e) < 0) {
		spool_close(s);
		return -1;
	}
	*ret_state = s;
	return 0;
}

static const char *spool_durability(void *state)
{
	const struct spool *s = state;
	return s->durability;
}

static uint64_t spool_floor_key(void *state)
{
	struct spool *s = state;
	uint64_t local = s->o.local->floor_key(s->local);
	uint64_t remote = s->mode == MODE_LOCAL ? 0 : s->o.remote->floor_key(s->remote);
	return local > remote ? local : remote;
}

/* --- groups --- */

static int put_local(struct spool *s, struct queue_put *put, struct err *e);

static int begin_local(struct spool *s, struct err *e)
{
	if (count_local(s, &s->spooled, e) < 0 || s->o.local->begin(s->local, e) < 0)
		return -1;
	s->group = PLACE_LOCAL;
	return 0;
}

/* Makes a put of the remote group again. What has been answered already has to come out the same. */
static int put_again(struct spool *s, const struct stored *stored, struct err *e)
{
	/* Its operation is still outstanding: the memory is there. */
	struct queue_put copy = *stored->put;
	int rc = put_local(s, stored->answered ? &copy : stored->put, e);
	if (!stored->answered && (rc >= 0 || is_single(e))) {
		stored->put->op.result = rc;
		if (rc < 0)
			stored->put->op.err = *e;
		return 0;
	}
	if (rc > 0)
		return err_set(e, ERR_RETRY, "the spool knows a key that was new to the queue");
	return rc;
}

/* The remote group is undone; what it had stored, and nothing else, is in a local group then. */
static int take_over(struct spool *s, const struct err *why, struct err *e)
{
	s->o.remote->abort(s->remote);
	s->group = PLACE_NONE;
	go_local(s, why);
	if (s->changed) {
		*e = *why;
		return -1;
	}
	if (begin_local(s, e) < 0)
		return -1;
	for (size_t i = 0; i < s->put_count; i++)
		if (put_again(s, &s->puts[i], e) < 0)
			return -1;
	return 0;
}

static int spool_begin(void *state, struct err *e)
{
	struct spool *s = state;
	struct err why = ERR_INIT;
	s->put_count = 0;
	s->changed = false;
	if (s->mode == MODE_REMOTE) {
		if (s->o.remote->begin(s->remote, &why) >= 0) {
			s->group = PLACE_REMOTE;
			return 0;
		}
		go_local(s, &why);
	}
	return begin_local(s, e);
}

static int spool_commit(void *state, struct err *e)
{
	struct spool *s = state;
	struct err why = ERR_INIT;
	if (s->group == PLACE_REMOTE) {
		if (s->o.remote->commit(s->remote, &why) >= 0) {
			s->group = PLACE_NONE;
			return 0;
		}
		if (take_over(s, &why, e) < 0)
			return -1;
	}
	if (s->o.local->commit(s->local, e) < 0)
		return -1;
	s->group = PLACE_NONE;
	return 0;
}

static void spool_abort(void *state)
{
	struct spool *s = state;
	if (s->group == PLACE_REMOTE)
		s->o.remote->abort(s->remote);
	else if (s->group == PLACE_LOCAL)
		s->o.local->abort(s->local);
	s->group = PLACE_NONE;
}

/* --- put --- */

static int refuse_full(const struct spool *s, struct err *e)
{
	return err_set(e, ERR_RETRY, "the spool is full (%llu messages) and the queue is away: %s",
		(unsigned long long)s->o.messages_max, s->trouble.text);
}

static int put_local(struct spool *s, struct queue_put *put, struct err *e)
{
	struct queue_put copy = *put;
	if (s->spooled + put->count > s->o.messages_max)
		return refuse_full(s, e);
	arena_reset(&s->scratch);
	copy.messages = arena_alloc(&s->scratch, put->count * sizeof(*copy.messages));
	if (!copy.messages)
		return err_oom(e);
	for (unsigned i = 0; i < put->count; i++) {
		copy.messages[i] = put->messages[i];
		copy.messages[i].envelope = tagged(&s->scratch, put->messages[i].envelope, put, i);
		if (!copy.messages[i].envelope.p)
			return err_oom(e);
	}
	int rc = s->o.local->put(s->local, &copy, e);
	if (rc < 0)
		return -1;
	if (rc == QUEUE_STORED) {
		s->spooled += put->count;
		s->put_total += put->count;
	}
	put->position = copy.position;
	put->first_id = copy.first_id;
	put->first_accepted_at = copy.first_accepted_at;
	put->first_position = copy.first_position;
	put->first_count = copy.first_count;
	return rc;
}

/* For take_over, until the group has committed. */
static int remember(struct spool *s, struct queue_put *put, bool answered, struct err *e)
{
	if (s->put_count == s->put_room) {
		size_t room = s->put_room ? s->put_room * 2 : 64;
		struct stored *bigger = reallocarray(s->puts, room, sizeof(*bigger));
		if (!bigger)
			return err_oom(e);
		s->puts = bigger;
		s->put_room = room;
	}
	s->puts[s->put_count++] = (struct stored){put, answered};
	return 0;
}

static int spool_put(void *state, struct queue_put *put, struct err *e)
{
	struct spool *s = state;
	struct err why = ERR_INIT;
	if (s->group == PLACE_REMOTE) {
		int rc = s->o.remote->put(s->remote, put, &why);
		if (rc == QUEUE_STORED || rc == QUEUE_AT_COMMIT)
			return remember(s, put, rc == QUEUE_STORED, e) < 0 ? -1 : rc;
		if (rc > 0)
			return rc;
		if (is_single(&why)) {
			*e = why;
			return -1;
		}
		if (take_over(s, &why, e) < 0)
			return -1;
	}
	return put_local(s, put, e);
}

/* --- what only the remote engine can do --- */

static int refuse_away(const struct spool *s, struct err *e)
{
	return err_set(e, ERR_CONFLICT, "the queue is away, and what is in the spool moves to it first: %s",
		s->trouble.text);
}

/* `in_group`: what it changes is lost for the group when the engine fails before the commit. */
#define REMOTE_OPERATION(name, type, in_group)                                                               \
	static int spool_##name(void *state, struct type *op, struct err *e)                                 \
	{                                                                                                    \
		struct spool *s = state;                                                                     \
		if (s->mode != MODE_REMOTE)                                                                  \
			return refuse_away(s, e);                                                            \
		s->changed |= in_group;                                                                      \
		return s->o.remote->name(s->remote, op, e);                                                  \
	}

REMOTE_OPERATION(settle, queue_settle, true)
REMOTE_OPERATION(renew, queue_renew, true)
REMOTE_OPERATION(list, queue_list, false)
REMOTE_OPERATION(redrive, queue_redrive, true)
REMOTE_OPERATION(purge, queue_purge, true)
REMOTE_OPERATION(pause, queue_pause, true)

static int spool_lease(void *state, struct queue_lease *lease, struct err *e)
{
	struct spool *s = state;
	lease->count = 0;
	if (s->mode != MODE_REMOTE)
		return 0;
	s->changed = true;
	return s->o.remote->lease(s->remote, lease, e);
}

/* --- find, stats --- */

/* The remote engine failed a question: inside a group that goes on in the spool. */
static int leave_remote(struct spool *s, const struct err *why, struct err *e)
{
	if (s->group == PLACE_REMOTE)
		return take_over(s, why, e);
	go_local(s, why);
	return 0;
}

static int find_remote(struct spool *s, struct queue_find *find, struct err *e)
{
	struct err why = ERR_INIT;
	int rc = s->o.remote->find(s->remote, find, &why);
	if (rc >= 0)
		return rc;
	if (is_single(&why)) {
		*e = why;
		return -1;
	}
	if (leave_remote(s, &why, e) < 0)
		return -1;
	return err_set(e, ERR_NOT_FOUND, "not in the spool, and the queue is away");
}

static int spool_find(void *state, struct queue_find *find, struct err *e)
{
	struct spool *s = state;
	if (s->mode != MODE_REMOTE) {
		int rc = s->o.local->find(s->local, find, e);
		if (rc >= 0 || s->mode == MODE_LOCAL || e->kind != ERR_NOT_FOUND)
			return rc;
	}
	return find_remote(s, find, e);
}

static void add_spooled(struct spool *s, const struct queue_stats *local, struct queue_stats *stats)
{
	stats->queued += count_spooled(local);
	stats->spooled = count_spooled(local);
	stats->spooled_accepted_at = local->oldest_accepted_at;
	if (local->oldest_accepted_at.ms &&
		(!stats->oldest_accepted_at.ms ||
			local->oldest_accepted_at.ms < stats->oldest_accepted_at.ms)) {
		stats->oldest_accepted_at = local->oldest_accepted_at;
		stats->oldest_age_ms = local->oldest_age_ms;
	}
}

/* Fills the results only: `op` is the caller's. */
static void take_stats(const struct queue_stats *from, struct queue_stats *to)
{
	struct group_op op = to->op;
	*to = *from;
	to->op = op;
}

static int spool_stats(void *state, struct queue_stats *stats, struct err *e)
{
	struct spool *s = state;
	struct queue_stats remote = {0}, local = {0};
	struct err why = ERR_INIT;
	if (s->mode != MODE_LOCAL) {
		int rc = s->o.remote->stats(s->remote, &remote, &why);
		if (rc >= 0)
			s->remote_stats = remote;
		else if (leave_remote(s, &why, e) < 0)
			return -1;
	}
	take_stats(&s->remote_stats, stats);
	stats->spooling = s->mode == MODE_LOCAL;
	stats->spool_outages = s->outages;
	snprintf(stats->spool_reason, sizeof(stats->spool_reason), "%.*s",
		(int)sizeof(stats->spool_reason) - 1, s->trouble.text);
	if (s->mode == MODE_REMOTE)
		return 0;
	if (s->o.local->stats(s->local, &local, e) < 0)
		return -1;
	add_spooled(s, &local, stats);
	return 0;
}

/* --- draining: between groups --- */

struct move {
	struct queue_lease lease;
	struct queue_message **order;   /* by id: as accepted, and those of a batch side by side */
	struct tag *tags;               /* of `order` */
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
static int local_group(struct spool *s, int (*run)(struct spool *s, struct move *m, struct err *e),
	struct move *m, struct err *e)
{
	if (s->o.local->begin(s->local, e) < 0)
		return -1;
	if (run(s, m, e) < 0 || s->o.local->commit(s->local, e) < 0) {
		s->o.local->abort(s->local);
		return -1;
	}
	return 0;
}

static int lease_local(struct spool *s, struct move *m, struct err *e)
{
	return s->o.local->lease(s->local, &m->lease, e);
}

static int settle_local(struct spool *s, struct move *m, struct err *e)
{
	struct queue_settle settle = {.worker = m->lease.worker, .items = m->items, .count = m->lease.count};
	return s->o.local->settle(s->local, &settle, e);
}

/* Leases, sorts and reads the tags. */
static int begin_move(struct spool *s, struct move *m, struct err *e)
{
	uint64_t want = 2 * s->put_total;
	s->put_total = 0;
	m->lease = (struct queue_lease){
		.worker = "spool",
		.max = want < DRAIN_MIN   ? DRAIN_MIN
		       : want > DRAIN_MAX ? DRAIN_MAX
					  : (unsigned)want,
		.lease_ms = DRAIN_LEASE_MS,
		.arena = &s->moving,
	};
	arena_reset(&s->moving);
	if (local_group(s, lease_local, m, e) < 0)
		return -1;
	m->order = arena_alloc(&s->moving, (m->lease.count + 1) * sizeof(struct queue_message *));
	m->tags = arena_alloc(&s->moving, (m->lease.count + 1) * sizeof(*m->tags));
	m->items = arena_alloc(&s->moving, (m->lease.count + 1) * sizeof(*m->items));
	m->puts = arena_alloc(&s->moving, (m->lease.count + 1) * sizeof(*m->puts));
	if (!m->order || !m->tags || !m->items || !m->puts)
		return err_oom(e);
	for (unsigned i = 0; i < m->lease.count; i++)
		m->order[i] = &m->lease.messages[i];
	qsort(m->order, m->lease.count, sizeof(struct queue_message *), by_id);
	for (unsigned i = 0; i < m->lease.count; i++) {
		if (untag(&m->order[i]->sealed.envelope, &m->tags[i], e) < 0)
			return -1;
		m->items[i] = (struct queue_settlement){.ref = m->order[i]->ref, .verdict = QUEUE_RELEASE};
	}
	return 0;
}

/* How many messages from `i` on were one put with a key; 0 when not all of them are here. */
static unsigned whole_put(const struct move *m, unsigned i)
{
	const struct tag *first = &m->tags[i];
	if (first->index != 0 || first->count == 0 || first->count > m->lease.count - i)
		return 0;
	for (unsigned n = 1; n < first->count; n++) {
		const struct tag *t = &m->tags[i + n];
		if (!t->has_key || t->index != n ||
			memcmp(t->key_hash, first->key_hash, QUEUE_HASH_BYTES) != 0)
			return 0;
	}
	return first->count;
}

/* Into the remote group. */
static int put_remote(
	struct spool *s, struct move *m, unsigned i, unsigned count, bool with_key, struct err *e)
{
	struct queue_put *put = arena_zalloc(&s->moving, sizeof(*put));
	struct sealed *messages = arena_alloc(&s->moving, count * sizeof(*messages));
	if (!put || !messages)
		return err_oom(e);
	put->messages = messages;
	put->count = count;
	put->has_key = with_key;
	for (unsigned n = 0; n < count; n++)
		messages[n] = m->order[i + n]->sealed;
	memcpy(put->key_hash, m->tags[i].key_hash, QUEUE_HASH_BYTES);
	memcpy(put->payload_hash, m->tags[i].payload_hash, QUEUE_HASH_BYTES);
	int rc = s->o.remote->put(s->remote, put, &put->op.err);
	if (rc != QUEUE_AT_COMMIT)
		put->op.result = rc;
	m->puts[m->put_count++] = (struct put_at){put, i};
	if (rc >= 0 || is_single(&put->op.err))
		return 0;
	*e = put->op.err;
	return -1;
}

/* All that is whole; when there is nothing whole among them, each by itself: keys are worth less than progress. */
static int put_all_remote(struct spool *s, struct move *m, struct err *e)
{
	unsigned moved = 0;
	for (unsigned i = 0, count; i < m->lease.count; i += count) {
		unsigned whole = m->tags[i].has_key ? whole_put(m, i) : 1;
		count = whole ? whole : 1;
		moved += whole;
		if (whole && put_remote(s, m, i, whole, m->tags[i].has_key, e) < 0)
			return -1;
	}
	for (unsigned i = 0; !moved && i < m->lease.count; i++)
		if (put_remote(s, m, i, 1, false, e) < 0)
			return -1;
	return 0;
}

/* A remote group of what `add` puts. */
static int remote_group(struct spool *s, struct move *m,
	int (*add)(struct spool *s, struct move *m, struct err *e), struct err *e)
{
	if (s->o.remote->begin(s->remote, e) < 0)
		return -1;
	if (add(s, m, e) < 0 || s->o.remote->commit(s->remote, e) < 0) {
		s->o.remote->abort(s->remote);
		return -1;
	}
	return 0;
}

/* Of those that the group before refused for their key, which was used for something else while we were apart:
 * what was accepted is kept all the same. */
static int put_without_key(struct spool *s, struct move *m, struct err *e)
{
	unsigned before = m->put_count;
	m->put_count = 0;
	for (unsigned i = 0; i < before; i++) {
		struct put_at p = m->puts[i];
		if (p.put->op.result == QUEUE_MISMATCH &&
			put_remote(s, m, p.first, p.put->count, false, e) < 0)
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

static int move_to_remote(struct spool *s, struct move *m, struct err *e)
{
	if (remote_group(s, m, put_all_remote, e) < 0)
		return -1;
	if (!note_moved(m))
		return 0;
	if (remote_group(s, m, put_without_key, e) < 0)
		return -1;
	note_moved(m);
	return 0;
}

/* One step. What fails locally is tried again by the next one; a lease that is left behind runs out. */
static int drain(struct spool *s, struct err *e)
{
	struct move m = {.order = NULL};
	struct err why = ERR_INIT;
	if (begin_move(s, &m, e) < 0)
		return -1;
	if (m.lease.count && move_to_remote(s, &m, &why) < 0)
		go_local(s, &why);
	if (m.lease.count && local_group(s, settle_local, &m, e) < 0)
		return -1;
	if (count_local(s, &s->spooled, e) < 0)
		return -1;
	if (s->mode == MODE_DRAINING && !s->spooled) {
		s->mode = MODE_REMOTE;
		/* It may have grown to a whole step's messages. */
		arena_clear(&s->moving);
		arena_init(&s->moving, ARENA_BYTES);
	}
	return 0;
}

/* --- tick, probe --- */

static struct mono sooner(struct mono a, struct mono b)
{
	return a.ns < b.ns ? a : b;
}

static void tick_local(struct spool *s, struct mono now, struct mono *next)
{
	struct mono wanted;
	if (s->mode == MODE_REMOTE && !mono_reached(now, s->local_tick_at))
		return;
	s->local_tick_at = mono_add_ms(now, LOCAL_TICK_EVERY_MS);
	(void)s->o.local->tick(s->local, now, &wanted);
	if (s->mode != MODE_REMOTE)
		*next = sooner(*next, wanted);
}

/* While the spool is drained the next step is always due; a step that fails waits a little. */
static void tick_drain(struct spool *s, struct mono now, struct mono *next)
{
	struct err e = ERR_INIT;
	if (drain(s, &e) < 0)
		s->trouble = e;
	if (s->mode != MODE_REMOTE)
		*next = e.kind == ERR_NONE ? now : mono_add_ms(now, LOOK_EVERY_MS);
}

static bool spool_tick(void *state, struct mono now, struct mono *ret_next)
{
	struct spool *s = state;
	struct mono next = {INT64_MAX};
	bool due = false;
	tick_local(s, now, &next);
	if (s->mode == MODE_LOCAL && is_mended(s)) {
		s->mode = MODE_DRAINING;
		s->put_total = 0;
	}
	if (s->mode == MODE_DRAINING)
		tick_drain(s, now, &next);
	if (s->mode == MODE_LOCAL) {
		next = sooner(next, mono_add_ms(now, LOOK_EVERY_MS));
	} else {
		struct mono wanted;
		due = s->o.remote->tick(s->remote, now, &wanted);
		next = sooner(next, wanted);
	}
	*ret_next = next;
	return due;
}

/* Whether a put would be taken somewhere. */
static int spool_probe(void *state, struct err *e)
{
	struct spool *s = state;
	struct err why = ERR_INIT;
	if (s->mode == MODE_REMOTE && s->o.remote->probe(s->remote, &why) < 0)
		go_local(s, &why);
	if (s->mode == MODE_REMOTE)
		return 0;
	if (s->o.local->probe(s->local, e) < 0 || count_local(s, &s->spooled, e) < 0)
		return -1;
	return s->spooled >= s->o.messages_max ? refuse_full(s, e) : 0;
}

const struct queue_driver queue_driver_spool = {
	.name = "spool",
	.open = spool_open,
	.close = spool_close,
	.durability = spool_durability,
	.floor_key = spool_floor_key,
	.begin = spool_begin,
	.commit = spool_commit,
	.abort = spool_abort,
	.put = spool_put,
	.lease = spool_lease,
	.settle = spool_settle,
	.renew = spool_renew,
	.find = spool_find,
	.list = spool_list,
	.stats = spool_stats,
	.redrive = spool_redrive,
	.purge = spool_purge,
	.pause = spool_pause,
	.tick = spool_tick,
	.probe = spool_probe,
};
