/* inbox_test.c - inboxes, and outboxes that fill them. */
#include "base/outbox.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

struct counted {
	struct inbox inbox;
	sem_t wakes;
};

static void count_wake(struct inbox *inbox)
{
	sem_post(&container_of(inbox, struct counted, inbox)->wakes);
}

static void counted_init(struct counted *c)
{
	inbox_init(&c->inbox, count_wake);
	sem_init(&c->wakes, 0, 0);
}

static int wakes(struct counted *c)
{
	int n;
	sem_getvalue(&c->wakes, &n);
	return n;
}

static void keeps_the_order(void **state)
{
	struct counted c;
	counted_init(&c);
	assert_null(inbox_take(&c.inbox));
	struct task tasks[3];
	for (int i = 0; i < 3; i++)
		inbox_push(&c.inbox, &tasks[i]);
	assert_int_equal(wakes(&c), 1); /* only the first found it empty */
	struct task *t = inbox_take(&c.inbox);
	for (int i = 0; i < 3; i++, t = t->next)
		assert_ptr_equal(t, &tasks[i]);
	assert_null(t);
	assert_null(inbox_take(&c.inbox));
	inbox_push(&c.inbox, &tasks[0]);
	assert_int_equal(wakes(&c), 2);
}

static void takes_a_chain_at_once(void **state)
{
	struct counted c;
	counted_init(&c);
	struct task tasks[4];
	tasks[3].next = &tasks[2];
	tasks[2].next = &tasks[1];
	inbox_push(&c.inbox, &tasks[0]);
	inbox_push_chain(&c.inbox, &tasks[3], &tasks[1]);
	assert_int_equal(wakes(&c), 1);
	struct task *t = inbox_take(&c.inbox);
	for (int i = 0; i < 4; i++, t = t->next)
		assert_ptr_equal(t, &tasks[i]);
	assert_null(t);
}

struct note {
	struct task task;
	unsigned producer, number;
};

enum { PRODUCERS = 4, NOTES = 5000 };

static struct counted shared;
static unsigned next_number[PRODUCERS];

/* Each producer's notes arrive in its order, each once. */
static void receive(struct task *task)
{
	struct note *n = container_of(task, struct note, task);
	assert_int_equal(n->number, next_number[n->producer]++);
	free(n);
}

static void *produce(void *arg)
{
	for (unsigned i = 0; i < NOTES; i++) {
		struct note *n = malloc(sizeof(*n));
		*n = (struct note){{.run = receive}, (unsigned)(uintptr_t)arg, i};
		inbox_push(&shared.inbox, &n->task);
	}
	return NULL;
}

static void many_fill_one_empties(void **state)
{
	counted_init(&shared);
	pthread_t threads[PRODUCERS];
	for (uintptr_t i = 0; i < PRODUCERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, produce, (void *)i), 0);
	for (unsigned received = 0; received < PRODUCERS * NOTES;) {
		sem_wait(&shared.wakes);
		received += inbox_run(&shared.inbox);
	}
	for (int i = 0; i < PRODUCERS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(next_number[i], NOTES);
	}
	assert_int_equal(inbox_run(&shared.inbox), 0);
}

/* Each inbox gets its own tasks in order, and one push. */
static void an_outbox_sorts(void **state)
{
	struct counted c[2];
	counted_init(&c[0]);
	counted_init(&c[1]);
	struct task tasks[6];
	struct outbox o = {.count = 0};
	for (int i = 0; i < 6; i++)
		outbox_add(&o, &c[i % 2].inbox, &tasks[i]);
	assert_null(inbox_take(&c[0].inbox));
	outbox_send(&o);
	for (int k = 0; k < 2; k++) {
		assert_int_equal(wakes(&c[k]), 1);
		struct task *t = inbox_take(&c[k].inbox);
		for (int i = k; i < 6; i += 2, t = t->next)
			assert_ptr_equal(t, &tasks[i]);
		assert_null(t);
	}
	outbox_send(&o);
	assert_int_equal(wakes(&c[0]), 1);
}

static void an_outbox_with_more_inboxes_than_it_holds(void **state)
{
	struct counted c[OUTBOX_INBOXES + 1];
	struct task tasks[OUTBOX_INBOXES + 1];
	struct outbox o = {.count = 0};
	for (int i = 0; i <= OUTBOX_INBOXES; i++) {
		counted_init(&c[i]);
		outbox_add(&o, &c[i].inbox, &tasks[i]);
	}
	assert_int_equal(o.count, 1);
	outbox_send(&o);
	for (int i = 0; i <= OUTBOX_INBOXES; i++)
		assert_ptr_equal(inbox_take(&c[i].inbox), &tasks[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_the_order),
		cmocka_unit_test(takes_a_chain_at_once),
		cmocka_unit_test(many_fill_one_empties),
		cmocka_unit_test(an_outbox_sorts),
		cmocka_unit_test(an_outbox_with_more_inboxes_than_it_holds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
