#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "loop/loop.h"

struct count {
	struct loop *loop;
	unsigned n;
	bool right_thread;
};

static void bump(void *arg)
{
	struct count *c = arg;
	c->n++;
	c->right_thread = loop_is_current(c->loop);
}

static struct loop *start(void)
{
	struct loop *l;
	struct err e = ERR_INIT;
	assert_int_equal(loop_start("test", &l, &e), 0);
	return l;
}

static void calls_run_on_the_loop(void **state)
{
	struct loop *l = start();
	struct count c = {.loop = l};
	loop_call(l, bump, &c);
	assert_int_equal(c.n, 1);
	assert_true(c.right_thread);
	assert_false(loop_is_current(l));
	loop_stop(l);
}

static void stop_runs_what_was_pushed(void **state)
{
	struct loop *l = start();
	struct count c = {.loop = l};
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(loop_run(l, bump, &c, NULL), 0);
	loop_stop(l);
	assert_int_equal(c.n, 1000);
	loop_stop(NULL);
}

struct sender {
	struct loop *loop;
	struct inbox to;
	unsigned wakes;
	struct task tasks[3];
};

static void count_wake(struct inbox *inbox)
{
	container_of(inbox, struct sender, to)->wakes++;
}

static void send_three(void *arg)
{
	struct sender *s = arg;
	for (unsigned i = 0; i < 3; i++)
		outbox_add(loop_outbox(s->loop), &s->to, &s->tasks[i]);
	assert_int_equal(s->wakes, 0);
}

static void nothing(void *arg)
{
}

static void a_turn_sends_together(void **state)
{
	struct sender s = {.loop = start()};
	inbox_init(&s.to, count_wake);
	loop_call(s.loop, send_three, &s);
	/* Between two calls a turn ends. */
	loop_call(s.loop, nothing, NULL);
	assert_int_equal(s.wakes, 1);
	assert_ptr_equal(inbox_take(&s.to), &s.tasks[0]);
	loop_stop(s.loop);
}

static void read_nice(void *arg)
{
	*(int *)arg = getpriority(PRIO_PROCESS, 0);
}

static void only_the_loops_thread_gives_way(void **state)
{
	struct loop *l = start();
	int before = getpriority(PRIO_PROCESS, 0), nice = 0;
	loop_set_nice(l, 7);
	loop_call(l, read_nice, &nice);
	assert_int_equal(nice, 7);
	assert_int_equal(getpriority(PRIO_PROCESS, 0), before);
	loop_stop(l);
}

static void on_timer(uv_timer_t *timer)
{
}

static void start_timer(void *arg)
{
	uv_timer_t *timer = arg;
	uv_timer_start(timer, on_timer, 3600000, 0);
}

static void stop_closes_what_is_open(void **state)
{
	struct loop *l = start();
	uv_timer_t timer;
	uv_timer_init(loop_uv(l), &timer);
	loop_call(l, start_timer, &timer);
	loop_stop(l);
	assert_true(uv_is_closing((uv_handle_t *)&timer));
}

struct times {
	struct loop *loop;
	struct mono first, second;
};

static void read_time_twice(void *arg)
{
	struct times *t = arg;
	t->first = loop_now(t->loop);
	t->second = loop_now(t->loop);
}

static void time_stands_still_within_a_turn(void **state)
{
	struct loop *l = start();
	struct times a = {.loop = l}, b = {.loop = l};
	loop_call(l, read_time_twice, &a);
	loop_call(l, read_time_twice, &b);
	assert_true(a.first.ns == a.second.ns);
	assert_true(b.first.ns > a.first.ns);
	loop_stop(l);
}

struct pusher {
	struct loop *loop;
	struct count *count;
};

static void *push_many(void *arg)
{
	struct pusher *p = arg;
	for (unsigned i = 0; i < 2000; i++)
		assert_int_equal(loop_run(p->loop, bump, p->count, NULL), 0);
	return NULL;
}

static void many_threads_may_push(void **state)
{
	struct loop *l = start();
	struct count c = {.loop = l};
	struct pusher p = {l, &c};
	pthread_t threads[4];
	for (unsigned i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, push_many, &p), 0);
	for (unsigned i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	loop_stop(l);
	assert_int_equal(c.n, 8000);
}

struct job {
	struct work work;
	sem_t *gate;          /* waited for in `work`; NULL: not */
	unsigned *done_count; /* on the loop only */
	bool worked, done_on_loop;
};

static void job_work(struct work *w)
{
	struct job *j = container_of(w, struct job, work);
	if (j->gate)
		sem_wait(j->gate);
	j->worked = true;
}

static void job_done(struct work *w)
{
	struct job *j = container_of(w, struct job, work);
	j->done_on_loop = loop_is_current(w->loop);
	++*j->done_count;
}

static void pool_is_bounded_and_finishes(void **state)
{
	struct loop *l = start();
	struct work_pool *p;
	struct err e = ERR_INIT;
	assert_int_equal(work_pool_start("pool", 2, 3, &p, &e), 0);
	sem_t gate;
	sem_init(&gate, 0, 0);
	unsigned done = 0;
	struct job jobs[4];
	for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
		jobs[i] = (struct job){.work = {.loop = l, .work = job_work, .done = job_done},
			.gate = &gate,
			.done_count = &done};
		assert_int_equal(work_submit(p, &jobs[i].work), i < 3 ? 0 : LOOP_WORK_FULL);
	}
	for (unsigned i = 0; i < 3; i++)
		sem_post(&gate);
	work_pool_stop(p);
	loop_stop(l);
	assert_int_equal(done, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_true(jobs[i].worked && jobs[i].done_on_loop);
	assert_false(jobs[3].worked);
	sem_destroy(&gate);
	work_pool_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_run_on_the_loop),
		cmocka_unit_test(stop_runs_what_was_pushed),
		cmocka_unit_test(a_turn_sends_together),
		cmocka_unit_test(only_the_loops_thread_gives_way),
		cmocka_unit_test(stop_closes_what_is_open),
		cmocka_unit_test(time_stands_still_within_a_turn),
		cmocka_unit_test(many_threads_may_push),
		cmocka_unit_test(pool_is_bounded_and_finishes),
	};
	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
