/* delivery.c - what one delivery thread does: lease, hand over, settle.
 *
 * Every leased message gets a verdict, whatever happens: by what the destination said of it and by policy, or
 * it is released untouched. When the queue cannot take the verdicts, they are offered again while the leases
 * are kept; only then are they left to the leases' end, which counts an attempt. */
#include <stdio.h>
#include <sys/random.h>

#include "base/log.h"
#include "worker/internal.h"

enum {
	LEASE_WAIT_MS = 250,    /* how long an idle thread sits in one lease; also bounds a stop */
	LEASE_FAILED_MS = 1000, /* until the queue is asked again */
	SETTLE_TRIES = 6,
	SETTLE_PAUSE_MS = 100, /* before the second try; doubles */
};

static uint64_t random_u64(void)
{
	uint64_t v = 0;
	if (getrandom(&v, sizeof(v), 0) != (ssize_t)sizeof(v))
		v = (uint64_t)clock_mono(&clock_system).ns; /* jitter only */
	return v;
}

/* --- verdicts --- */

/* The first names in the order of worker->dead. */
static const char *const dead_reasons[DEAD_REASONS] = {"rejected", "attempts_exhausted", "expired"};

void delivery_name_series(struct worker *w)
{
	for (unsigned o = 0; o < DELIVERY_OUTCOMES; o++)
		w->results[o] = metric_series1(METRIC_DELIVERIES, delivery_outcome_name(o));
	w->released = metric_series1(METRIC_DELIVERIES, "released");
	for (unsigned r = 0; r < DEAD_REASONS; r++)
		w->dead[r] = metric_series1(METRIC_DEAD_LETTERS, dead_reasons[r]);
}

/* `why` is one of dead_reasons; `reason` is what people are told. */
static void give_up(const struct worker *w, struct queue_settlement *ret, const char *why, const char *reason)
{
	ret->verdict = QUEUE_DEAD;
	ret->reason = str_of(reason);
	for (unsigned r = 0; r < DEAD_REASONS; r++)
		if (strcmp(dead_reasons[r], why) == 0)
			series_add(w->dead[r], 1);
}

/* Why it is given up, and what its last attempt came to: that is what an operator has to look into. */
static const char *last_straw(struct arena *arena, const char *exhausted, const char *reason)
{
	const char *both = *reason ? arena_printf(arena, "%s: %s", exhausted, reason) : NULL;
	return both ? both : exhausted;
}

/* One message's verdict, by what the destination said and by policy. */
static void judge(
	struct delivery *d, const struct delivery_item *item, struct wall now, struct queue_settlement *ret)
{
	const struct worker *w = d->worker;
	const struct policy *policy = policies_of(w->policies, item->sealed->domain);
	const char *exhausted;
	switch (item->outcome) {
	case DELIVERY_STORED:
	case DELIVERY_DUPLICATE:
		ret->verdict = QUEUE_DONE;
		return;
	case DELIVERY_REJECTED:
		give_up(w, ret, "rejected", item->reason);
		return;
	case DELIVERY_RETRY:
	case DELIVERY_OUTCOMES:
		break;
	}
	exhausted = policy_exhausted(policy, item->attempt_count + 1, item->sealed->accepted_at, now);
	if (exhausted) {
		give_up(w, ret, exhausted, last_straw(&d->arena, exhausted, item->reason));
		return;
	}
	ret->verdict = QUEUE_RETRY;
	ret->reason = str_of(item->reason);
	ret->due_at.ms = now.ms + policy_wait_ms(policy, item->attempt_count + 1, random_u64());
}

static void judge_all(struct delivery *d, unsigned count)
{
	struct worker *w = d->worker;
	struct wall now = clock_wall(w->clock);
	pthread_rwlock_rdlock(&w->policies_lock);
	for (unsigned i = 0; i < count; i++)
		judge(d, &d->items[i], now, &d->settlements[i]);
	pthread_rwlock_unlock(&w->policies_lock);
}

static void release(struct delivery *d, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		d->settlements[i].verdict = QUEUE_RELEASE;
	if (to > from)
		series_add(d->worker->released, to - from);
}

/* Puts those to be tried first; behind them, as dead letters, those whose attempts or lifetime are used up
 * already: a message that kills its worker is judged here, because nobody was left to judge it then. */
static void sort_out(struct delivery *d, const struct queue_lease *lease)
{
	struct worker *w = d->worker;
	struct wall now = clock_wall(w->clock);
	unsigned tried = 0, given_up = lease->count;
	pthread_rwlock_rdlock(&w->policies_lock);
	for (unsigned i = 0; i < lease->count; i++) {
		const struct queue_message *m = &lease->messages[i];
		const char *exhausted = policy_exhausted(policies_of(w->policies, m->sealed.domain),
			m->attempt_count, m->sealed.accepted_at, now);
		unsigned at = exhausted ? --given_up : tried++;
		d->items[at] =
			(struct delivery_item){.sealed = &m->sealed, .attempt_count = m->attempt_count};
		d->settlements[at] = (struct queue_settlement){.ref = m->ref};
		d->hold.refs[i] = m->ref;
		if (exhausted)
			give_up(w, &d->settlements[at], exhausted, exhausted);
	}
	pthread_rwlock_unlock(&w->policies_lock);
	d->tried = tried;
	d->count = d->hold.count = lease->count;
	d->hold.lost = 0;
}

/* --- handing over --- */

/* Reasons outlive the session's next batch in the arena; without memory for it, one is left out. */
static void keep_reasons(struct delivery *d, unsigned from, unsigned count)
{
	for (unsigned i = from; i < from + count; i++) {
		const char *reason = d->items[i].reason;
		const char *kept = reason ? arena_strdup(&d->arena, str_of(reason)) : NULL;
		d->items[i].reason = kept ? kept : "";
	}
}

static void fail_one(struct delivery *d, unsigned at, const char *reason, unsigned *done)
{
	d->items[at].outcome = DELIVERY_RETRY;
	d->items[at].reason = reason;
	keep_reasons(d, at, 1);
	*done += 1;
}

/* The destination is away. It may have died of this message: alone it is once the breaker probes, and when that has come
 * to the same end often enough, it counts as an attempt. So the message makes way for others, and is given up some time;
 * in an outage of another cause no message comes that far. */
static void ask_who_did_it(
	struct delivery *d, unsigned from, unsigned count, unsigned *done, const struct err *e)
{
	struct worker *w = d->worker;
	char id[UUID_TEXT_BYTES];
	if (!e->unanswered || count != 1 || !worker_suspects(w, &d->items[from].sealed->id))
		return;
	uuid_format(&d->items[from].sealed->id, id);
	log_event(LOG_WARN, "worker.message_suspected", LF_STR("destination", w->destination->name),
		LF_STR("message_id", id), LF_ERR(e));
	fail_one(d, from, "connection_lost", done);
}

/* Hands over items [from, from + count) in order; *done counts those that have a result. A request that is
 * refused as such is tried in halves, so that what is wrong with one message costs an attempt of that message
 * alone. <0: the destination is away; what is not done was not tried. */
static int hand_over_part(struct delivery *d, unsigned from, unsigned count, unsigned *done, struct err *e)
{
	struct worker *w = d->worker;
	if (w->destination->deliver(d->session, d->items + from, count, e) >= 0) {
		keep_reasons(d, from, count);
		*done += count;
		return 0;
	}
	if (e->kind != ERR_REJECT) {
		ask_who_did_it(d, from, count, done, e);
		return -1;
	}
	if (count == 1) {
		log_event(LOG_WARN, "worker.message_refused", LF_STR("destination", w->destination->name),
			LF_ERR(e));
		fail_one(d, from, e->text, done);
		return 0;
	}
	unsigned half = count / 2;
	return hand_over_part(d, from, half, done, e) < 0
		       ? -1
		       : hand_over_part(d, from + half, count - half, done, e);
}

static int hand_over(struct delivery *d, unsigned *done, struct err *e)
{
	struct worker *w = d->worker;
	struct mono before = clock_mono(w->clock);
	atomic_fetch_add(&w->in_flight, d->tried);
	int rc = worker_open_session(d, e);
	if (rc >= 0)
		rc = hand_over_part(d, 0, d->tried, done, e);
	atomic_fetch_sub(&w->in_flight, d->tried);
	if (*done) {
		metric_observe(METRIC_DELIVERY_SECONDS, (uint64_t)(clock_mono(w->clock).ns - before.ns));
		metric_observe(METRIC_DELIVERY_BATCH, *done);
	}
	return rc;
}

/* --- after the batch --- */

static void tell_breaker(struct worker *w, const struct breaker_grant *g, int rc, const struct err *why)
{
	if (rc < 0 && worker_is_stopping(w)) {
		breaker_unused(&w->breaker, g); /* the cancelled session says nothing of the destination */
	} else if (rc >= 0) {
		if (breaker_success(&w->breaker, g))
			log_event(LOG_INFO, "worker.destination_back",
				LF_STR("destination", w->destination->name));
	} else if (breaker_failure(&w->breaker, g, clock_mono(w->clock), random_u64(), why)) {
		metric_add(METRIC_BREAKER_OPENED, 1);
		log_event(LOG_WARN, "worker.destination_away", LF_STR("destination", w->destination->name),
			LF_ERR(why));
	}
}

static void record_results(struct worker *w, const struct delivery_item *items, unsigned count)
{
	unsigned by_outcome[DELIVERY_OUTCOMES] = {0};
	struct wall now = clock_wall(w->clock);
	for (unsigned i = 0; i < count; i++) {
		by_outcome[items[i].outcome]++;
		if (items[i].outcome != DELIVERY_RETRY)
			metric_observe(METRIC_DELIVERY_ATTEMPTS, items[i].attempt_count + 1);
		if (items[i].outcome == DELIVERY_STORED) {
			int64_t age_ms = now.ms - items[i].sealed->accepted_at.ms;
			metric_observe(METRIC_STORED_SECONDS, (uint64_t)(age_ms > 0 ? age_ms : 0) * 1000000);
		}
	}
	for (unsigned o = 0; o < DELIVERY_OUTCOMES; o++)
		if (by_outcome[o])
			series_add(w->results[o], by_outcome[o]);
}

/* Leases that somebody else has now, and that the keeper had not found out. */
static void note_stale(const struct delivery *d, const struct queue_settle *op)
{
	if (op->stale_count <= d->hold.lost)
		return;
	unsigned lost = op->stale_count - d->hold.lost;
	metric_add(METRIC_LEASE_LOST, lost);
	log_event(LOG_WARN, "worker.lease_lost", LF_UINT("messages", lost));
}

/* The leases are kept between the tries; the keeper must not renew what is being settled. */
static bool settle(struct delivery *d)
{
	struct worker *w = d->worker;
	int64_t pause_ms = SETTLE_PAUSE_MS;
	for (unsigned i = 1; true; i++, pause_ms *= 2) {
		struct queue_settle op = {.worker = w->name, .items = d->settlements, .count = d->count};
		struct err e = ERR_INIT;
		keeper_drop(w->keeper, &d->hold);
		if (queue_wait(w->queue, QUEUE_SETTLE, &op.op, &e) >= 0) {
			note_stale(d, &op);
			return true;
		}
		log_event(LOG_WARN, "worker.settle_failed", LF_UINT("messages", d->count), LF_UINT("try", i),
			LF_ERR(&e));
		if (i == SETTLE_TRIES)
			return false;
		keeper_hold(w->keeper, &d->hold);
		if (!worker_pause(w, pause_ms)) {
			keeper_drop(w->keeper, &d->hold);
			return false;
		}
	}
}

/* One line a batch, not one a message. */
static void log_dead_letters(const struct delivery *d)
{
	unsigned count = 0, first = 0;
	for (unsigned i = d->count; i-- > 0;)
		if (d->settlements[i].verdict == QUEUE_DEAD) {
			count++;
			first = i;
		}
	if (!count)
		return;
	char id[UUID_TEXT_BYTES];
	uuid_format(&d->items[first].sealed->id, id);
	log_event(LOG_WARN, "worker.dead_letters", LF_UINT("messages", count), LF_STR("first", id),
		LF_VIEW("reason", d->settlements[first].reason));
}

/* Tells the destination what was not stored; the first failure ends it, for nothing depends on it. */
static void report(struct delivery *d)
{
	const struct destination *to = d->worker->destination;
	struct err e = ERR_INIT;
	if (!to->report)
		return;
	for (unsigned i = 0; i < d->count; i++) {
		const struct queue_settlement *s = &d->settlements[i];
		if (s->stale || (s->verdict != QUEUE_RETRY && s->verdict != QUEUE_DEAD))
			continue;
		struct delivery_report r = {.id = d->items[i].sealed->id,
			.state = s->verdict == QUEUE_DEAD ? MESSAGE_FAILED : MESSAGE_QUEUED,
			.attempt_count = d->items[i].attempt_count + 1,
			.reason = s->reason};
		if (worker_open_session(d, &e) < 0 || to->report(d->session, &r, &e) < 0)
			return;
	}
}

/* --- one round --- */

static void deliver(struct delivery *d, const struct queue_lease *lease, const struct breaker_grant *g)
{
	struct worker *w = d->worker;
	struct err e = ERR_INIT;
	unsigned done = 0;
	int rc = 0;
	sort_out(d, lease);
	keeper_hold(w->keeper, &d->hold);
	if (d->tried)
		rc = hand_over(d, &done, &e);
	judge_all(d, done);
	record_results(w, d->items, done);
	release(d, done, d->tried);
	bool settled = settle(d);
	if (d->tried)
		tell_breaker(w, g, rc, &e);
	else
		breaker_unused(&w->breaker, g);
	if (!settled)
		return;
	log_dead_letters(d);
	if (rc >= 0)
		report(d);
}

/* The worker stops: what came meanwhile goes back as it came. */
static void give_back(struct delivery *d, const struct queue_lease *lease)
{
	d->count = lease->count;
	for (unsigned i = 0; i < d->count; i++)
		d->settlements[i] = (struct queue_settlement){.ref = lease->messages[i].ref};
	d->hold.lost = 0;
	release(d, 0, d->count);
	settle(d);
}

/* One line for an outage of the queue, not one for each thread and second of it. */
static void note_leasing(struct worker *w, int rc, const struct err *e)
{
	bool failed = rc < 0;
	if (atomic_exchange(&w->lease_failed, failed) == failed)
		return;
	if (failed)
		log_event(LOG_WARN, "worker.lease_failed", LF_ERR(e));
	else
		log_event(LOG_INFO, "worker.leasing_again");
}

void delivery_run(struct delivery *d)
{
	struct worker *w = d->worker;
	struct err e = ERR_INIT;
	struct breaker_grant g = breaker_allow(&w->breaker, clock_mono(w->clock));
	if (!g.max) {
		worker_pause(w, g.wait_ms);
		return;
	}
	arena_reset(&d->arena);
	struct queue_lease lease = {
		.worker = w->name,
		.max = g.max,
		.lease_ms = w->lease_ms,
		.wait_ms = LEASE_WAIT_MS,
		.arena = &d->arena,
	};
	int rc = queue_wait(w->queue, QUEUE_LEASE, &lease.op, &e);
	note_leasing(w, rc, &e);
	if (rc < 0) {
		breaker_unused(&w->breaker, &g);
		worker_pause(w, LEASE_FAILED_MS);
	} else if (lease.count == 0) {
		breaker_unused(&w->breaker, &g);
	} else if (worker_is_stopping(w)) {
		breaker_unused(&w->breaker, &g);
		give_back(d, &lease);
	} else {
		deliver(d, &lease, &g);
	}
}
