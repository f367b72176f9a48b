/* group_test.c - the engine over a ledger in memory: it sums what is committed, fails when told to, and can
 * be held at a gate, so that the test decides what gathers in one group. */
#include "base/group.h"

#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum op_kind {
	OP_ADD,     /* adds 1; result: the sum with it */
	OP_REFUSE,  /* fails on its own account */
	OP_SPOIL,   /* spoils the transaction */
	OP_PARK,    /* waits for OP_RELEASE */
	OP_RELEASE, /* tick then finishes what is parked, with result 77 */
};

enum { GROUPS_MAX = 64, PARKED_MAX = 8 };

struct ledger {
	pthread_mutex_t lock; /* guards the gate */
	pthread_cond_t changed;
	bool gate_closed, at_gate;

	/* the group's thread; the test reads them after a completion or the stop */
	struct group *group;
	const struct clock *clock;
	int committed, pending;
	unsigned begin_count, abort_count, group_sizes[GROUPS_MAX], group_count;
	bool begin_fails, commit_fails;
	struct group_op *parked[PARKED_MAX];
	unsigned parked_count;
	bool release;
	int tick_again_ms; /* 0: never */
	_Atomic unsigned tick_count;
	sem_t ticked;
};

static int ledger_begin(void *backend, struct err *e)
{
	struct ledger *l = backend;
	pthread_mutex_lock(&l->lock);
	l->at_gate = true;
	pthread_cond_broadcast(&l->changed);
	while (l->gate_closed)
		pthread_cond_wait(&l->changed, &l->lock);
	l->at_gate = false;
	pthread_mutex_unlock(&l->lock);
	if (l->begin_fails)
		return err_set(e, ERR_RETRY, "begin fails");
	l->begin_count++;
	l->pending = 0;
	return 0;
}

static int ledger_apply(void *backend, struct group_op *op, struct err *e)
{
	struct ledger *l = backend;
	switch (op->kind) {
	case OP_REFUSE:
		return err_set(e, ERR_CONFLICT, "refused");
	case OP_SPOIL:
		return err_set(e, ERR_RETRY, "spoilt");
	case OP_PARK:
		l->parked[l->parked_count++] = op;
		return GROUP_PARKED;
	case OP_RELEASE:
		l->release = true;
		return 0;
	default:
		return l->committed + ++l->pending;
	}
}

static int ledger_commit(void *backend, struct err *e)
{
	struct ledger *l = backend;
	if (l->commit_fails)
		return err_set(e, ERR_RETRY, "commit fails");
	l->committed += l->pending;
	return 0;
}

static void ledger_abort(void *backend)
{
	struct ledger *l = backend;
	l->pending = 0;
	l->abort_count++;
}

static struct mono ledger_tick(void *backend, struct mono now)
{
	struct ledger *l = backend;
	l->tick_count++;
	sem_post(&l->ticked);
	if (l->release) {
		for (unsigned i = 0; i < l->parked_count; i++)
			group_finish(l->group, l->parked[i], 77);
		l->parked_count = 0;
		l->release = false;
	}
	return l->tick_again_ms ? mono_add_ms(now, l->tick_again_ms) : (struct mono){INT64_MAX};
}

static const struct group_backend backend = {
	.begin = ledger_begin,
	.apply = ledger_apply,
	.commit = ledger_commit,
	.abort = ledger_abort,
	.tick = ledger_tick,
};

static void note_group(void *arg, unsigned ops, int64_t commit_ns)
{
	struct ledger *l = arg;
	assert_true(commit_ns >= 0);
	if (l->group_count < GROUPS_MAX)
		l->group_sizes[l->group_count++] = ops;
}

static void ledger_start(struct ledger *l, unsigned limit, unsigned group_max)
{
	struct group_options o = {.name = "ledger",
		.backend = &backend,
		.backend_state = l,
		.clock = &clock_system,
		.limit = limit,
		.group_max = group_max,
		.observe = note_group,
		.observe_arg = l};
	struct err e = ERR_INIT;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
	sem_init(&l->ticked, 0, 0);
	if (group_start(&o, &l->group, &e) < 0)
		fail_msg("%s", e.text);
}

static void set_gate(struct ledger *l, bool closed)
{
	pthread_mutex_lock(&l->lock);
	l->gate_closed = closed;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

/* Returns when a group waits at the gate: what is submitted from now on gathers behind it. */
static void wait_at_gate(struct ledger *l)
{
	pthread_mutex_lock(&l->lock);
	while (!l->at_gate)
		pthread_cond_wait(&l->changed, &l->lock);
	pthread_mutex_unlock(&l->lock);
}

/* A reply inbox that counts its wakes and completions. */
struct mailbox {
	struct inbox inbox;
	sem_t wakes;
	int wake_count;
	_Atomic int completed;
};

struct letter {
	struct group_op op;
	struct mailbox *box;
	int order; /* in which it came back, from 1 */
};

static void mailbox_wake(struct inbox *inbox)
{
	struct mailbox *m = container_of(inbox, struct mailbox, inbox);
	m->wake_count++;
	sem_post(&m->wakes);
}

static void mailbox_init(struct mailbox *m)
{
	*m = (struct mailbox){.wake_count = 0};
	inbox_init(&m->inbox, mailbox_wake);
	sem_init(&m->wakes, 0, 0);
}

static void letter_back(struct group_op *op)
{
	struct letter *l = container_of(op, struct letter, op);
	l->order = ++l->box->completed;
}

static void letter_init(struct letter *l, struct mailbox *m, enum op_kind kind)
{
	*l = (struct letter){.box = m, .op = {.kind = kind, .complete = letter_back, .reply = &m->inbox}};
}

static void send(struct ledger *l, struct letter *letter, struct mailbox *m, enum op_kind kind)
{
	letter_init(letter, m, kind);
	assert_int_equal(group_submit(l->group, &letter->op, NULL), 0);
}

static void wait_for_letters(struct mailbox *m, int count)
{
	while (m->completed < count) {
		sem_wait(&m->wakes);
		inbox_run(&m->inbox);
	}
}

static int call(struct ledger *l, enum op_kind kind, struct err *e)
{
	struct group_op op = {.kind = kind};
	return group_call(l->group, &op, e);
}

static void commits(void **state)
{
	struct ledger l = {0};
	struct err e = ERR_INIT;
	ledger_start(&l, 10, 10);
	assert_int_equal(call(&l, OP_ADD, &e), 1);
	assert_int_equal(call(&l, OP_ADD, &e), 2);
	assert_int_equal(l.committed, 2);
	assert_int_equal(call(&l, OP_REFUSE, &e), -1);
	assert_int_equal(e.kind, ERR_CONFLICT);
	assert_string_equal(e.text, "refused");
	struct group_stats stats;
	group_stats(l.group, &stats);
	assert_int_equal(stats.group_count, 3);
	assert_int_equal(stats.op_count, 3);
	assert_int_equal(stats.failed_count, 0);
	assert_int_equal(stats.waiting, 0);
	assert_int_equal(stats.limit, 10);
	group_stop(l.group);
	group_stop(NULL);
}

static void what_waits_shares_a_commit(void **state)
{
	struct ledger l = {.gate_closed = true};
	struct mailbox m;
	struct letter letters[11];
	mailbox_init(&m);
	ledger_start(&l, 100, 4);
	send(&l, &letters[0], &m, OP_ADD);
	wait_at_gate(&l);
	for (int i = 1; i < 11; i++)
		send(&l, &letters[i], &m, OP_ADD);
	set_gate(&l, false);
	wait_for_letters(&m, 11);
	for (int i = 0; i < 11; i++) {
		assert_int_equal(letters[i].op.result, i + 1);
		assert_int_equal(letters[i].order, i + 1);
	}
	group_stop(l.group);
	static const unsigned sizes[] = {1, 4, 4, 2};
	assert_int_equal(l.group_count, ARRAY_LEN(sizes));
	assert_memory_equal(l.group_sizes, sizes, sizeof(sizes));
}

/* However a group's operations are mixed, each inbox hears of it once. */
static void what_is_gathered_shares_a_commit(void **state)
{
	struct ledger l = {.group = NULL};
	struct mailbox m;
	struct letter letters[3];
	struct outbox via = {.count = 0};
	mailbox_init(&m);
	ledger_start(&l, 3, 10);
	for (int i = 0; i < 3; i++) {
		letter_init(&letters[i], &m, OP_ADD);
		assert_int_equal(group_submit(l.group, &letters[i].op, &via), 0);
	}
	/* It counts from now on, and begins later. */
	struct letter late;
	letter_init(&late, &m, OP_ADD);
	assert_int_equal(group_submit(l.group, &late.op, NULL), GROUP_FULL);
	assert_int_equal(m.completed, 0);
	outbox_send(&via);
	wait_for_letters(&m, 3);
	group_stop(l.group);
	assert_int_equal(l.group_count, 1);
	assert_int_equal(l.group_sizes[0], 3);
}

static void a_group_wakes_an_inbox_once(void **state)
{
	struct ledger l = {.gate_closed = true};
	struct mailbox a, b;
	struct letter letters[20];
	mailbox_init(&a);
	mailbox_init(&b);
	ledger_start(&l, 100, 100);
	send(&l, &letters[0], &a, OP_ADD);
	wait_at_gate(&l);
	for (int i = 1; i < 20; i++)
		send(&l, &letters[i], i % 3 ? &a : &b, OP_ADD);
	set_gate(&l, false);
	wait_for_letters(&a, 14);
	wait_for_letters(&b, 6);
	group_stop(l.group);
	assert_int_equal(l.group_count, 2);
	assert_true(a.wake_count <= 2);
	assert_int_equal(b.wake_count, 1);
	for (int i = 3, order = 1; i < 20; i += 3)
		assert_int_equal(letters[i].order, order++);
}

static void more_inboxes_than_an_outbox_holds(void **state)
{
	enum { BOXES = 40 };
	struct ledger l = {.gate_closed = true};
	struct mailbox boxes[BOXES];
	struct letter letters[BOXES + 1];
	for (int i = 0; i < BOXES; i++)
		mailbox_init(&boxes[i]);
	ledger_start(&l, 100, 100);
	send(&l, &letters[BOXES], &boxes[0], OP_ADD);
	wait_at_gate(&l);
	for (int i = 0; i < BOXES; i++)
		send(&l, &letters[i], &boxes[i], OP_ADD);
	set_gate(&l, false);
	for (int i = 0; i < BOXES; i++)
		wait_for_letters(&boxes[i], i ? 1 : 2);
	group_stop(l.group);
	assert_int_equal(l.committed, BOXES + 1);
}

static void a_refusal_fails_alone(void **state)
{
	struct ledger l = {.gate_closed = true};
	struct mailbox m;
	struct letter letters[4];
	mailbox_init(&m);
	ledger_start(&l, 100, 100);
	send(&l, &letters[0], &m, OP_ADD);
	wait_at_gate(&l);
	send(&l, &letters[1], &m, OP_ADD);
	send(&l, &letters[2], &m, OP_REFUSE);
	send(&l, &letters[3], &m, OP_ADD);
	set_gate(&l, false);
	wait_for_letters(&m, 4);
	assert_int_equal(letters[1].op.result, 2);
	assert_int_equal(letters[2].op.result, -1);
	assert_int_equal(letters[2].op.err.kind, ERR_CONFLICT);
	assert_int_equal(letters[3].op.result, 3);
	group_stop(l.group);
	assert_int_equal(l.committed, 3);
	assert_int_equal(l.abort_count, 0);
}

/* One way for a whole group to fail. */
struct failure {
	enum op_kind last; /* of the operations in the group */
	bool begin_fails, commit_fails;
	const char *text;
	unsigned aborts;
	bool refusal_is_seen; /* an operation was applied and refused before */
};

static void fails_as_one(const struct failure *f)
{
	struct ledger l = {
		.gate_closed = true, .begin_fails = f->begin_fails, .commit_fails = f->commit_fails};
	struct mailbox m;
	struct letter letters[5];
	mailbox_init(&m);
	ledger_start(&l, 100, 100);
	send(&l, &letters[0], &m, OP_RELEASE); /* a group of its own at the gate */
	wait_at_gate(&l);
	send(&l, &letters[1], &m, OP_ADD);
	send(&l, &letters[2], &m, OP_REFUSE);
	send(&l, &letters[3], &m, f->last);
	send(&l, &letters[4], &m, OP_ADD);
	set_gate(&l, false);
	wait_for_letters(&m, 5);
	for (int i = 1; i < 5; i++) {
		bool own = i == 2 && f->refusal_is_seen;
		assert_int_equal(letters[i].op.result, -1);
		assert_string_equal(letters[i].op.err.text, own ? "refused" : f->text);
		assert_int_equal(letters[i].op.err.kind, own ? ERR_CONFLICT : ERR_RETRY);
	}
	struct group_stats stats;
	group_stats(l.group, &stats);
	assert_int_equal(stats.failed_count, f->begin_fails || f->commit_fails ? 2 : 1);
	assert_int_equal(stats.waiting, 0);
	l.begin_fails = l.commit_fails = false; /* the thread rests: nothing is outstanding */
	assert_int_equal(call(&l, OP_ADD, NULL), 1);
	group_stop(l.group);
	assert_int_equal(l.committed, 1);
	assert_int_equal(l.abort_count, f->aborts);
}

static void failures_hit_the_whole_group(void **state)
{
	static const struct failure failures[] = {
		{.last = OP_SPOIL, .text = "spoilt", .aborts = 1, .refusal_is_seen = true},
		{.last = OP_ADD, .begin_fails = true, .text = "begin fails", .aborts = 0},
		{.last = OP_ADD,
			.commit_fails = true,
			.text = "commit fails",
			.aborts = 2,
			.refusal_is_seen = true},
	};
	for (size_t i = 0; i < ARRAY_LEN(failures); i++)
		fails_as_one(&failures[i]);
}

static void parked_until_released(void **state)
{
	struct ledger l = {0};
	struct mailbox m;
	struct letter parked[2];
	mailbox_init(&m);
	ledger_start(&l, 100, 100);
	send(&l, &parked[0], &m, OP_PARK);
	send(&l, &parked[1], &m, OP_PARK);
	assert_int_equal(call(&l, OP_ADD, NULL), 1);
	assert_int_equal(call(&l, OP_SPOIL, NULL), -1);
	assert_int_equal(m.completed, 0);
	struct group_stats stats;
	group_stats(l.group, &stats);
	assert_int_equal(stats.waiting, 2);
	assert_int_equal(call(&l, OP_RELEASE, NULL), 0);
	wait_for_letters(&m, 2);
	assert_int_equal(parked[0].op.result, 77);
	assert_int_equal(parked[1].op.result, 77);
	group_stats(l.group, &stats);
	assert_int_equal(stats.waiting, 0);
	group_stop(l.group);
}

/* The others of its group fail; it changed nothing and waits on. */
static void parked_in_a_failed_group(void **state)
{
	struct ledger l = {.gate_closed = true};
	struct mailbox m;
	struct letter letters[3];
	mailbox_init(&m);
	ledger_start(&l, 100, 100);
	send(&l, &letters[0], &m, OP_ADD);
	wait_at_gate(&l);
	send(&l, &letters[1], &m, OP_PARK);
	send(&l, &letters[2], &m, OP_SPOIL);
	set_gate(&l, false);
	wait_for_letters(&m, 2);
	assert_int_equal(letters[1].order, 0);
	assert_int_equal(call(&l, OP_RELEASE, NULL), 0);
	wait_for_letters(&m, 3);
	assert_int_equal(letters[1].op.result, 77);
	group_stop(l.group);
}

static void refuses_past_the_limit(void **state)
{
	struct ledger l = {.gate_closed = true};
	struct mailbox m;
	struct letter letters[5];
	mailbox_init(&m);
	ledger_start(&l, 3, 100);
	for (int i = 0; i < 3; i++)
		send(&l, &letters[i], &m, OP_ADD);
	letter_init(&letters[3], &m, OP_ADD);
	assert_int_equal(group_submit(l.group, &letters[3].op, NULL), GROUP_FULL);
	letter_init(&letters[4], &m, OP_ADD);
	group_submit_always(l.group, &letters[4].op);
	struct group_stats stats;
	group_stats(l.group, &stats);
	assert_int_equal(stats.waiting, 4);
	set_gate(&l, false);
	wait_for_letters(&m, 4);
	assert_int_equal(group_submit(l.group, &letters[3].op, NULL), 0);
	wait_for_letters(&m, 5);
	group_stop(l.group);
	assert_int_equal(l.committed, 5);
}

static void stop_finishes_what_was_submitted(void **state)
{
	enum { COUNT = 100 };
	struct ledger l = {.gate_closed = true};
	struct mailbox m;
	static struct letter letters[COUNT];
	mailbox_init(&m);
	ledger_start(&l, COUNT, 7);
	for (int i = 0; i < COUNT; i++)
		send(&l, &letters[i], &m, i == 0 ? OP_PARK : i == COUNT - 1 ? OP_RELEASE : OP_ADD);
	set_gate(&l, false);
	group_stop(l.group);
	assert_int_equal(inbox_run(&m.inbox), COUNT);
	assert_int_equal(l.committed, COUNT - 2);
	assert_int_equal(letters[0].op.result, 77);
}

/* Completions on the group's own thread that submit again: the inbox is never seen empty. */
struct circle {
	struct group_op op;
	struct ledger *ledger;
	int rounds;
};

static void go_round(struct group_op *op)
{
	struct circle *c = container_of(op, struct circle, op);
	if (c->rounds-- > 0)
		group_submit_always(c->ledger->group, op);
}

static void ticks_under_load(void **state)
{
	enum { ROUNDS = 1000 };
	struct ledger l = {0};
	ledger_start(&l, 10, 10);
	struct circle c = {.op = {.complete = go_round}, .ledger = &l, .rounds = ROUNDS};
	assert_int_equal(group_submit(l.group, &c.op, NULL), 0);
	group_stop(l.group);
	assert_int_equal(l.committed, ROUNDS + 1);
	assert_true(l.tick_count > ROUNDS);
}

static void ticks_when_asked(void **state)
{
	struct ledger l = {.tick_again_ms = 1};
	ledger_start(&l, 10, 10);
	for (int i = 0; i < 5; i++)
		sem_wait(&l.ticked);
	group_stop(l.group);
	assert_int_equal(l.group_count, 0);
}

enum { CALLERS = 6, CALLS = 300 };

static void *call_often(void *arg)
{
	struct ledger *l = arg;
	for (int i = 0; i < CALLS; i++) {
		struct err e = ERR_INIT;
		if (i % 10 == 9)
			assert_int_equal(call(l, OP_REFUSE, &e), -1);
		else
			assert_true(call(l, OP_ADD, &e) > 0);
	}
	return NULL;
}

static void many_threads(void **state)
{
	struct ledger l = {0};
	ledger_start(&l, 2, 4); /* calls are never refused */
	pthread_t threads[CALLERS];
	for (int i = 0; i < CALLERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_often, &l), 0);
	for (int i = 0; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
	struct group_stats stats;
	group_stats(l.group, &stats);
	assert_int_equal(stats.op_count, CALLERS * CALLS);
	assert_int_equal(stats.waiting, 0);
	group_stop(l.group);
	assert_int_equal(l.committed, CALLERS * CALLS * 9 / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commits),
		cmocka_unit_test(what_waits_shares_a_commit),
		cmocka_unit_test(a_group_wakes_an_inbox_once),
		cmocka_unit_test(what_is_gathered_shares_a_commit),
		cmocka_unit_test(more_inboxes_than_an_outbox_holds),
		cmocka_unit_test(a_refusal_fails_alone),
		cmocka_unit_test(failures_hit_the_whole_group),
		cmocka_unit_test(parked_until_released),
		cmocka_unit_test(parked_in_a_failed_group),
		cmocka_unit_test(refuses_past_the_limit),
		cmocka_unit_test(stop_finishes_what_was_submitted),
		cmocka_unit_test(ticks_under_load),
		cmocka_unit_test(ticks_when_asked),
		cmocka_unit_test(many_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
