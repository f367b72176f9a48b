/* queue.c - see queue.h. The engine is base/group.h: one committer thread, on which everything here runs
 * except the functions at the end. Its backend functions hand each operation to the driver.
 *
 * Operations that cannot be answered in their own group are parked: leases that found nothing due, and scans
 * that a driver does in parts. Before a group commits, parked operations of earlier groups get their turn, so
 * that a message is committed and leased by one sync; when nothing else comes, tick makes a group for them
 * alone. An answer is given only when its group has committed, and outside of groups, because a group still
 * walks the chain that its operations form.
 *
 * Housekeeping belongs to tick, but under load there is no pause for tick; then begin does it once in a
 * while. */
#include "queue/queue.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/driver.h"

enum {
	PROBE_EVERY_MS = 1000, /* while the engine does not work */
	TICK_EVERY_MS = 1000,  /* under load; otherwise after every group */
};

enum parked_state {
	PARKED_WAITING,
	PARKED_TRIED,    /* in the group under way: its result counts once that commits */
	PARKED_ANSWERED, /* goes back to its caller at the next occasion */
};

struct parked {
	struct group_op *op;
	enum parked_state state;
	int result;
	struct mono deadline; /* of a lease */
};

/* What queue_glance reads. */
struct board {
	pthread_mutex_t lock;
	struct queue_glance glance;
};

struct queue {
	const struct queue_driver *driver;
	void *state;
	const struct clock *clock;
	struct group *group;
	const char *durability;
	uint64_t floor_key, keys_max;
	struct board *board;

	/* The committer thread's. */
	struct parked *parked;
	size_t parked_count, parked_room;
	size_t parked_before;     /* of these, parked by earlier groups */
	struct queue_stats stats; /* after the last commit */
	struct err trouble;       /* .kind ERR_NONE: the engine works */
	bool puts;                /* the group under way has some */
	bool puts_failed;         /* the last group that had some failed */
	struct mono probe_at, tick_at;
	bool due;
	atomic_bool closing; /* set by queue_close */
};

/* --- what others see --- */

static void publish(struct queue *q)
{
	struct queue_glance glance = {
		.queued = q->stats.queued,
		.processing = q->stats.processing,
		.failed = q->stats.failed,
		.keys = q->stats.keys,
		.keys_max = q->keys_max,
		.oldest_accepted_at = q->stats.oldest_accepted_at,
		.accept_paused = q->stats.accept_paused,
		.delivery_paused = q->stats.delivery_paused,
		.healthy = q->trouble.kind == ERR_NONE,
		.spooling = q->stats.spooling,
		.spooled = q->stats.spooled,
		.spool_outages = q->stats.spool_outages,
		.spooled_accepted_at = q->stats.spooled_accepted_at,
	};
	static_assert(sizeof(glance.spool_reason) == sizeof(q->stats.spool_reason), "one size of reasons");
	if (q->stats.oldest_due_ms > 0)
		glance.oldest_due_at.ms = clock_wall(q->clock).ms - q->stats.oldest_due_ms;
	static_assert(sizeof(glance.accept_reason) == sizeof(q->stats.accept_reason), "one size of reasons");
	memcpy(glance.accept_reason, q->stats.accept_reason, sizeof(glance.accept_reason));
	memcpy(glance.delivery_reason, q->stats.delivery_reason, sizeof(glance.delivery_reason));
	memcpy(glance.spool_reason, q->stats.spool_reason, sizeof(glance.spool_reason));
	snprintf(glance.trouble, sizeof(glance.trouble), "%.*s", (int)sizeof(glance.trouble) - 1,
		q->trouble.text);
	pthread_mutex_lock(&q->board->lock);
	q->board->glance = glance;
	pthread_mutex_unlock(&q->board->lock);
}

/* The engine failed: keeps why. Returns -1. */
static int in_trouble(struct queue *q, const struct err *e)
{
	if (q->trouble.kind == ERR_NONE)
		q->probe_at = mono_add_ms(clock_mono(q->clock), PROBE_EVERY_MS);
	q->trouble = *e;
	publish(q);
	return -1;
}

static void look(struct queue *q)
{
	struct err e = ERR_INIT;
	struct queue_stats stats = {0};
	if (q->driver->stats(q->state, &stats, &e) < 0) {
		in_trouble(q, &e);
		return;
	}
	q->stats = stats;
	publish(q);
}

/* --- parked operations --- */

static int park(struct queue *q, const struct parked *p, struct err *e)
{
	if (q->parked_count == q->parked_room) {
		size_t room = q->parked_room ? q->parked_room * 2 : 16;
		struct parked *bigger = reallocarray(q->parked, room, sizeof(*bigger));
		if (!bigger)
			return err_oom(e);
		q->parked = bigger;
		q->parked_room = room;
	}
	q->parked[q->parked_count++] = *p;
	return GROUP_PARKED;
}

static bool is_lease(const struct parked *p)
{
	return p->op->kind == QUEUE_LEASE;
}

static void answer(struct parked *p, int result)
{
	p->state = PARKED_ANSWERED;
	p->result = result;
}

/* A lease that has waited long enough gets nothing; what waits when the queue closes is not waited for. */
static void give_up(struct queue *q, struct mono now)
{
	for (size_t i = 0; i < q->parked_count; i++) {
		struct parked *p = &q->parked[i];
		if (p->state != PARKED_WAITING)
			continue;
		if (is_lease(p) && (q->closing || mono_reached(now, p->deadline))) {
			/* An aborted group may have left some in it. */
			container_of(p->op, struct queue_lease, op)->count = 0;
			answer(p, 0);
		} else if (q->closing) {
			answer(p, err_set(&p->op->err, ERR_RETRY, "the queue is being closed"));
		}
	}
}

static void hand_out_answers(struct queue *q)
{
	size_t kept = 0;
	for (size_t i = 0; i < q->parked_count; i++) {
		struct parked p = q->parked[i];
		if (p.state == PARKED_ANSWERED)
			group_finish(q->group, p.op, p.result);
		else
			q->parked[kept++] = p;
	}
	q->parked_count = kept;
}

/* --- operations --- */

#define DIRECTLY(name, type)                                                                                 \
	static int apply_##name(struct queue *q, struct group_op *op, struct err *e)                         \
	{                                                                                                    \
		return q->driver->name(q->state, container_of(op, struct type, op), e);                      \
	}

DIRECTLY(settle, queue_settle)
DIRECTLY(renew, queue_renew)
DIRECTLY(find, queue_find)
DIRECTLY(stats, queue_stats)
DIRECTLY(pause, queue_pause)
DIRECTLY(list, queue_list)
DIRECTLY(redrive, queue_redrive)
DIRECTLY(purge, queue_purge)

/* Parked, because an ERR_RETRY from apply would fail the whole group. */
static int refuse_paused(struct queue *q, struct group_op *op, struct err *e)
{
	err_set(&op->err, ERR_RETRY, "accepting is paused: %s", q->stats.accept_reason);
	return park(q, &(struct parked){.op = op, .state = PARKED_ANSWERED, .result = -1}, e);
}

static int apply_put(struct queue *q, struct group_op *op, struct err *e)
{
	if (q->stats.accept_paused)
		return refuse_paused(q, op, e);
	return q->driver->put(q->state, container_of(op, struct queue_put, op), e);
}

static int apply_lease(struct queue *q, struct group_op *op, struct err *e)
{
	struct queue_lease *lease = container_of(op, struct queue_lease, op);
	lease->messages = NULL;
	lease->count = 0;
	int rc = q->stats.delivery_paused ? 0 : q->driver->lease(q->state, lease, e);
	if (rc < 0 || lease->count || lease->wait_ms <= 0 || q->closing)
		return rc;
	struct mono deadline = mono_add_ms(clock_mono(q->clock), lease->wait_ms);
	return park(q, &(struct parked){.op = op, .state = PARKED_WAITING, .deadline = deadline}, e);
}

static void start_list(struct group_op *op)
{
	struct queue_list *list = container_of(op, struct queue_list, op);
	list->entries = NULL;
	list->count = 0;
	list->progress = list->after_key;
}

static void start_redrive(struct group_op *op)
{
	struct queue_redrive *redrive = container_of(op, struct queue_redrive, op);
	redrive->matched = redrive->progress = 0;
}

static void start_purge(struct group_op *op)
{
	struct queue_purge *purge = container_of(op, struct queue_purge, op);
	purge->matched = purge->progress = 0;
}

static const struct {
	int (*apply)(struct queue *q, struct group_op *op, struct err *e);
	void (*start)(struct group_op *op); /* of operations that may be done in parts */
} operations[QUEUE_KINDS] = {
	[QUEUE_PUT] = {apply_put},
	[QUEUE_LEASE] = {apply_lease},
	[QUEUE_SETTLE] = {apply_settle},
	[QUEUE_RENEW] = {apply_renew},
	[QUEUE_FIND] = {apply_find},
	[QUEUE_LIST] = {apply_list, start_list},
	[QUEUE_STATS] = {apply_stats},
	[QUEUE_REDRIVE] = {apply_redrive, start_redrive},
	[QUEUE_PURGE] = {apply_purge, start_purge},
	[QUEUE_PAUSE] = {apply_pause},
};

static int backend_apply(void *backend, struct group_op *op, struct err *e)
{
	struct queue *q = backend;
	if (operations[op->kind].start)
		operations[op->kind].start(op);
	q->puts = q->puts || op->kind == QUEUE_PUT;
	int rc = operations[op->kind].apply(q, op, e);
	if (rc < 0 && !queue_is_single(e))
		return in_trouble(q, e);
	if (operations[op->kind].start && rc == QUEUE_UNFINISHED)
		return park(q, &(struct parked){.op = op, .state = PARKED_TRIED, .result = rc}, e);
	return rc;
}

/* --- groups --- */

/* One parked operation has another turn. Returns <0 when that spoilt the group: a scan then fails with it, a
 * lease goes on waiting. */
static int resume_one(struct queue *q, struct parked *p, bool *nothing_due, struct err *e)
{
	struct queue_lease *lease = is_lease(p) ? container_of(p->op, struct queue_lease, op) : NULL;
	if (lease && (*nothing_due || q->stats.delivery_paused))
		return 0;
	int rc = lease ? q->driver->lease(q->state, lease, &p->op->err)
		       : operations[p->op->kind].apply(q, p->op, &p->op->err);
	bool spoilt = rc < 0 && !queue_is_single(&p->op->err);
	*nothing_due = lease && rc == 0 && !lease->count;
	if (!lease || !(spoilt || *nothing_due))
		*p = (struct parked){p->op, PARKED_TRIED, rc, p->deadline};
	if (!spoilt)
		return 0;
	*e = p->op->err;
	return -1;
}

static int resume_parked(struct queue *q, struct err *e)
{
	bool nothing_due = false;
	for (size_t i = 0; i < q->parked_before; i++)
		if (q->parked[i].state == PARKED_WAITING && resume_one(q, &q->parked[i], &nothing_due, e) < 0)
			return -1;
	return 0;
}

static void settle_tried(struct queue *q)
{
	for (size_t i = 0; i < q->parked_count; i++) {
		struct parked *p = &q->parked[i];
		if (p->state == PARKED_TRIED)
			p->state = p->result == QUEUE_UNFINISHED ? PARKED_WAITING : PARKED_ANSWERED;
	}
}

static bool tick_driver(struct queue *q, struct mono now, struct mono *ret_next)
{
	struct mono soon = mono_add_ms(now, TICK_EVERY_MS);
	q->due = q->driver->tick(q->state, now, ret_next);
	q->tick_at = ret_next->ns < soon.ns ? *ret_next : soon;
	return q->due;
}

static int open_group(struct queue *q, struct err *e)
{
	q->parked_before = q->parked_count;
	q->puts = false;
	return q->driver->begin(q->state, e) < 0 ? in_trouble(q, e) : 0;
}

static int backend_begin(void *backend, struct err *e)
{
	struct queue *q = backend;
	struct mono now = clock_mono(q->clock), next;
	if (mono_reached(now, q->tick_at))
		tick_driver(q, now, &next);
	give_up(q, now);
	hand_out_answers(q);
	return open_group(q, e);
}

static int backend_commit(void *backend, struct err *e)
{
	struct queue *q = backend;
	if (resume_parked(q, e) < 0 || q->driver->commit(q->state, e) < 0)
		return in_trouble(q, e);
	settle_tried(q);
	/* An engine that is full hands out and settles all the same. */
	if (q->puts || !q->puts_failed) {
		q->trouble = ERR_INIT;
		q->puts_failed = false;
	}
	look(q);
	return 0;
}

static void backend_abort(void *backend)
{
	struct queue *q = backend;
	q->driver->abort(q->state);
	q->puts_failed = q->puts_failed || q->puts;
	for (size_t i = 0; i < q->parked_count; i++) {
		struct parked *p = &q->parked[i];
		if (p->state != PARKED_TRIED)
			continue;
		p->op->err = q->trouble;
		answer(p, -1);
	}
}

/* --- between groups --- */

static bool has_work(const struct queue *q)
{
	for (size_t i = 0; i < q->parked_count; i++) {
		const struct parked *p = &q->parked[i];
		if (p->state == PARKED_WAITING && (!is_lease(p) || (q->due && !q->stats.delivery_paused)))
			return true;
	}
	return false;
}

/* A group for parked operations alone. */
static void own_group(struct queue *q)
{
	struct err e = ERR_INIT;
	if (open_group(q, &e) == 0 && backend_commit(q, &e) < 0)
		backend_abort(q);
}

static void probe(struct queue *q, struct mono now)
{
	struct err e = ERR_INIT;
	if (q->trouble.kind == ERR_NONE || !mono_reached(now, q->probe_at))
		return;
	q->probe_at = mono_add_ms(now, PROBE_EVERY_MS);
	if (q->driver->probe(q->state, &e) < 0) {
		in_trouble(q, &e);
		return;
	}
	q->trouble = ERR_INIT;
	q->puts_failed = false;
}

static struct mono next_deadline(const struct queue *q, struct mono next)
{
	for (size_t i = 0; i < q->parked_count; i++) {
		const struct parked *p = &q->parked[i];
		if (is_lease(p) && p->deadline.ns < next.ns)
			next = p->deadline;
	}
	return next;
}

static struct mono backend_tick(void *backend, struct mono now)
{
	struct queue *q = backend;
	struct mono next;
	probe(q, now);
	tick_driver(q, now, &next);
	give_up(q, now);
	bool healthy = q->trouble.kind == ERR_NONE;
	if (healthy && has_work(q)) {
		own_group(q);
		next = now;
	} else if (healthy) {
		look(q);
	}
	hand_out_answers(q);
	if (q->trouble.kind != ERR_NONE && q->probe_at.ns < next.ns)
		next = q->probe_at;
	return next_deadline(q, next);
}

static const struct group_backend backend = {
	.begin = backend_begin,
	.apply = backend_apply,
	.commit = backend_commit,
	.abort = backend_abort,
	.tick = backend_tick,
};

/* --- for callers, on any thread --- */

static void queue_free(struct queue *q)
{
	q->driver->close(q->state);
	pthread_mutex_destroy(&q->board->lock);
	free(q->board);
	free(q->parked);
	free(q);
}

static struct queue *queue_new(const struct queue_options *o)
{
	struct queue *q = calloc(1, sizeof(*q));
	struct board *board = calloc(1, sizeof(*board));
	if (!q || !board) {
		free(q);
		free(board);
		return NULL;
	}
	pthread_mutex_init(&board->lock, NULL);
	q->board = board;
	q->driver = o->driver;
	q->clock = o->clock;
	q->keys_max = o->keys_max;
	return q;
}

static int queue_start(struct queue *q, const struct queue_options *o, struct err *e)
{
	const struct queue_driver_options driver = {
		o->location, o->clock, o->idempotency_ms, o->keys_max, o->driver_arg};
	if (q->driver->open(&driver, &q->state, e) < 0)
		return err_context(e, "open queue");
	q->durability = q->driver->durability(q->state);
	q->floor_key = q->driver->floor_key(q->state);
	look(q);
	const struct group_options group = {
		.name = "queue",
		.backend = &backend,
		.backend_state = q,
		.clock = o->clock,
		.limit = o->put_limit,
		.group_max = o->group_max,
		.observe = o->observe,
		.observe_arg = o->observe_arg,
	};
	return group_start(&group, &q->group, e);
}

int queue_open(const struct queue_options *o, struct queue **ret, struct err *e)
{
	struct queue *q = queue_new(o);
	if (!q)
		return err_oom(e);
	if (queue_start(q, o, e) < 0) {
		queue_free(q);
		return -1;
	}
	*ret = q;
	return 0;
}

void queue_close(struct queue *q)
{
	if (!q)
		return;
	atomic_store(&q->closing, true);
	/* Any operation will do: the tick that follows it answers what is parked. */
	struct queue_stats stats = {0};
	int answered = queue_wait(q, QUEUE_STATS, &stats.op, NULL);
	(void)answered;
	group_stop(q->group);
	queue_free(q);
}

const char *queue_durability(const struct queue *q)
{
	return q->durability;
}

uint64_t queue_floor_key(const struct queue *q)
{
	return q->floor_key;
}

int queue_put(struct queue *q, struct queue_put *put, struct outbox *via)
{
	put->op.kind = QUEUE_PUT;
	return group_submit(q->group, &put->op, via);
}

void queue_submit(struct queue *q, enum queue_kind kind, struct group_op *op)
{
	op->kind = kind;
	group_submit_always(q->group, op);
}

void queue_lease(struct queue *q, struct queue_lease *lease)
{
	queue_submit(q, QUEUE_LEASE, &lease->op);
}

void queue_settle(struct queue *q, struct queue_settle *settle)
{
	queue_submit(q, QUEUE_SETTLE, &settle->op);
}

void queue_renew(struct queue *q, struct queue_renew *renew)
{
	queue_submit(q, QUEUE_RENEW, &renew->op);
}

int queue_wait(struct queue *q, enum queue_kind kind, struct group_op *op, struct err *e)
{
	op->kind = kind;
	return group_call(q->group, op, e);
}

void queue_glance(const struct queue *q, struct queue_glance *ret)
{
	pthread_mutex_lock(&q->board->lock);
	*ret = q->board->glance;
	pthread_mutex_unlock(&q->board->lock);
	group_stats(q->group, &ret->group);
}

const struct queue_driver *queue_driver_find(const char *name)
{
	static const struct queue_driver *const drivers[] = {
		&queue_driver_memory, &queue_driver_sqlite, &queue_driver_redis};
	for (size_t i = 0; i < ARRAY_LEN(drivers); i++)
		if (strcmp(drivers[i]->name, name) == 0 && drivers[i]->open)
			return drivers[i];
	return NULL;
}
