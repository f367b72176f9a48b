/* spool.c - see spool.h.
 *
 * All driver functions run on the queue's committer thread, so that each group is wholly remote or wholly local,
 * and the way back is a plain step between two groups: when the spool is found empty, the next group is remote.
 *
 * A group that fails at the remote engine is played again into the spool: its puts are remembered until it has
 * committed. The remote engine may have taken it nevertheless (the answer was lost); then the same message is in
 * both places and the id tells. */
#include "queue/spool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "queue/mender.h"
#include "queue/pauses.h"
#include "queue/spool_drain.h"
#include "queue/spool_tag.h"

enum {
	ARENA_BYTES = 128 << 20,
	LOOK_EVERY_MS = 100,         /* whether the remote engine is back */
	LOCAL_TICK_EVERY_MS = 60000, /* while the spool is not in use: forgetting old keys */
};

enum mode { MODE_REMOTE, MODE_LOCAL, MODE_DRAINING };

enum place { PLACE_NONE, PLACE_REMOTE, PLACE_LOCAL };

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
	struct queue_stats remote_stats; /* as last seen; at first what is kept */
	struct pauses kept;              /* the remote engine's, as the local one has them */
	struct err trouble;              /* why the remote engine is, or was, away */
	uint64_t outages;
	struct mono local_tick_at;
	struct mender mender;
	struct arena scratch, moving;
	char *durability;
};

/* --- reaching the remote engine again --- */

/* On the mender's thread, to which the remote driver's state belongs meanwhile. */
static int try_remote(void *arg, struct err *e)
{
	struct spool *s = arg;
	struct mono next;
	(void)s->o.remote->tick(s->remote, clock_mono(s->driver.clock), &next);
	return s->o.remote->probe(s->remote, e);
}

/* The remote engine does not work: hands it to the mender. */
static void go_local(struct spool *s, const struct err *why)
{
	s->outages += s->mode == MODE_REMOTE;
	s->mode = MODE_LOCAL;
	s->trouble = *why;
	mender_hand(&s->mender);
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

/* --- pauses: the remote engine's; kept for a start while that is away --- */

/* Comparable as bytes. */
static struct pauses pauses_of(const struct queue_stats *stats)
{
	struct pauses p = {.accept_on = stats->accept_paused, .delivery_on = stats->delivery_paused};
	snprintf(p.accept_reason, sizeof(p.accept_reason), "%s", stats->accept_reason);
	snprintf(p.delivery_reason, sizeof(p.delivery_reason), "%s", stats->delivery_reason);
	return p;
}

static int write_pauses(struct spool *s, const struct pauses *p, struct err *e)
{
	struct queue_pause accept = {.accept = true, .on = p->accept_on}, delivery = {.on = p->delivery_on};
	memcpy(accept.reason, p->accept_reason, sizeof(accept.reason));
	memcpy(delivery.reason, p->delivery_reason, sizeof(delivery.reason));
	if (s->o.local->begin(s->local, e) < 0)
		return -1;
	if (s->o.local->pause(s->local, &accept, e) >= 0 && s->o.local->pause(s->local, &delivery, e) >= 0 &&
		s->o.local->commit(s->local, e) >= 0)
		return 0;
	s->o.local->abort(s->local);
	return -1;
}

/* What fails here is tried again with the next tick; should the disk be at fault, puts will say so. */
static void keep_pauses(struct spool *s)
{
	struct pauses now = pauses_of(&s->remote_stats);
	struct err e = ERR_INIT;
	if (memcmp(&now, &s->kept, sizeof(now)) != 0 && write_pauses(s, &now, &e) >= 0)
		s->kept = now;
}

static int take_kept_pauses(struct spool *s, struct err *e)
{
	struct queue_stats local = {0};
	if (s->o.local->stats(s->local, &local, e) < 0)
		return -1;
	s->kept = pauses_of(&local);
	pauses_report(&s->kept, &s->remote_stats);
	return 0;
}

/* What an earlier process left moves first. */
static int open_both(struct spool *s, struct err *e)
{
	const struct queue_driver_options local = {s->o.local_location, s->driver.clock,
		s->driver.idempotency_ms, s->driver.keys_max, s->o.local_arg};
	struct err why = ERR_INIT;
	if (s->o.local->open(&local, &s->local, e) < 0 || count_local(s, &s->spooled, e) < 0 ||
		take_kept_pauses(s, e) < 0)
		return err_context(e, "spool");
	if (s->o.remote->open(&s->driver, &s->remote, e) < 0 || describe(s, e) < 0 ||
		mender_start(&s->mender, "spool", e) < 0)
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
	mender_init(&s->mender, try_remote, s, s->o.retry_min_ms, s->o.retry_max_ms);
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
	if (!stored->answered && (rc >= 0 || queue_is_single(e))) {
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
		copy.messages[i].envelope = spool_tag_add(&s->scratch, put->messages[i].envelope, put, i);
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
		if (queue_is_single(&why)) {
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
	if (queue_is_single(&why)) {
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
	if (local->keys > stats->keys)
		stats->keys = local->keys;
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

static int drain(struct spool *s, struct err *e)
{
	const struct drain_ends ends = {s->o.local, s->o.remote, s->local, s->remote};
	struct err stuck = ERR_INIT;
	/* Faster than it fills. */
	int rc = drain_step(&ends, 2 * s->put_total, &s->moving, &stuck, e);
	s->put_total = 0;
	if (stuck.kind != ERR_NONE)
		go_local(s, &stuck);
	if (rc < 0 || count_local(s, &s->spooled, e) < 0)
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
	if (s->mode == MODE_LOCAL && mender_done(&s->mender, &s->trouble)) {
		s->mode = MODE_DRAINING;
		s->put_total = 0;
	}
	if (s->mode == MODE_DRAINING)
		tick_drain(s, now, &next);
	if (s->mode == MODE_REMOTE)
		keep_pauses(s);
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
