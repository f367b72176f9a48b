/* loop.c - see loop.h. One thread runs one uv_loop_t. The inbox wakes it through a uv_async_t; since a push
 * wakes only when the inbox was empty, a burst of completions costs one eventfd write and one turn.
 *
 * Signals are blocked on the thread: they belong to main, and a write to a closed socket must return EPIPE,
 * not raise SIGPIPE.
 *
 * Time is read lazily and forgotten just before the loop waits. libuv runs the prepare handle that was
 * started first as the last one, so the other prepare handles of a turn still see its time. */
#include "loop/loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

/* libuv ends the process when it cannot make its table of descriptors longer; memory that is short for a moment must
 * not cost more than that moment. */
enum { PATIENCE_MS = 1000, PATIENCE_STEP_MS = 10 };

static void *patient_realloc(void *p, size_t size)
{
	void *bigger = realloc(p, size);
	for (unsigned waited_ms = 0; !bigger && waited_ms < PATIENCE_MS; waited_ms += PATIENCE_STEP_MS) {
		poll(NULL, 0, PATIENCE_STEP_MS);
		bigger = realloc(p, size);
	}
	return bigger;
}

static pthread_once_t allocator_once = PTHREAD_ONCE_INIT;

static void set_allocator(void)
{
	ensure(uv_replace_allocator(malloc, patient_realloc, calloc, free) == 0);
}

struct loop {
	uv_loop_t uv;
	uv_async_t wake;
	uv_prepare_t turn;
	struct inbox inbox;
	struct outbox outbox;
	pthread_t thread;
	struct task stop;
	struct mono now;
	bool now_known;
	char name[16];
};

static void inbox_wake(struct inbox *inbox)
{
	uv_async_send(&container_of(inbox, struct loop, inbox)->wake);
}

static void on_wake(uv_async_t *wake)
{
	inbox_run(&container_of(wake, struct loop, wake)->inbox);
}

static void on_turn_end(uv_prepare_t *turn)
{
	struct loop *l = container_of(turn, struct loop, turn);
	l->now_known = false;
	outbox_send(&l->outbox);
}

static void on_stop(struct task *task)
{
	uv_stop(&container_of(task, struct loop, stop)->uv);
}

static void close_open(uv_handle_t *handle, void *loop)
{
	struct loop *l = loop;
	/* The inbox must still wake the loop while others close. */
	if (!uv_is_closing(handle) && handle != (uv_handle_t *)&l->wake)
		uv_close(handle, NULL);
}

static void *loop_main(void *arg)
{
	struct loop *l = arg;
	pthread_setname_np(pthread_self(), l->name);
	uv_run(&l->uv, UV_RUN_DEFAULT);

	/* What closing sets free may push once more; after that the inbox is quiet and the wake-up can go. */
	uv_walk(&l->uv, close_open, l);
	uv_run(&l->uv, UV_RUN_NOWAIT);
	inbox_run(&l->inbox);
	uv_walk(&l->uv, close_open, l);
	uv_close((uv_handle_t *)&l->wake, NULL);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	inbox_run(&l->inbox);
	outbox_send(&l->outbox);
	return NULL;
}

static int err_uv(struct err *e, int code, const char *what)
{
	return err_set(e, ERR_FATAL, "%s: %s", what, uv_strerror(code));
}

static int init_handles(struct loop *l, struct err *e)
{
	int code = uv_loop_init(&l->uv);
	if (code)
		return err_uv(e, code, "make event loop");
	code = uv_async_init(&l->uv, &l->wake, on_wake);
	if (code) {
		uv_loop_close(&l->uv);
		return err_uv(e, code, "make wake-up of event loop");
	}
	uv_prepare_init(&l->uv, &l->turn);
	uv_prepare_start(&l->turn, on_turn_end);
	return 0;
}

static void clear_handles(struct loop *l)
{
	uv_close((uv_handle_t *)&l->turn, NULL);
	uv_close((uv_handle_t *)&l->wake, NULL);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	uv_loop_close(&l->uv);
}

static int start_thread(struct loop *l)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int code = pthread_create(&l->thread, NULL, loop_main, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return code;
}

int loop_start(const char *name, struct loop **ret, struct err *e)
{
	require(strlen(name) < sizeof(((struct loop *)NULL)->name));
	pthread_once(&allocator_once, set_allocator);
	struct loop *l = calloc(1, sizeof(*l));
	if (!l)
		return err_oom(e);
	memcpy(l->name, name, strlen(name) + 1);
	inbox_init(&l->inbox, inbox_wake);
	if (init_handles(l, e) < 0) {
		free(l);
		return -1;
	}
	int code = start_thread(l);
	if (code) {
		clear_handles(l);
		free(l);
		errno = code;
		return err_sys(e, ERR_FATAL, "start thread '%s'", name);
	}
	*ret = l;
	return 0;
}

void loop_stop(struct loop *l)
{
	if (!l)
		return;
	require(!loop_is_current(l));
	l->stop.run = on_stop;
	inbox_push(&l->inbox, &l->stop);
	pthread_join(l->thread, NULL);
	ensure(uv_loop_close(&l->uv) == 0);
	free(l);
}

uv_loop_t *loop_uv(struct loop *l)
{
	return &l->uv;
}

struct inbox *loop_inbox(struct loop *l)
{
	return &l->inbox;
}

struct outbox *loop_outbox(struct loop *l)
{
	return &l->outbox;
}

bool loop_is_current(const struct loop *l)
{
	return pthread_equal(l->thread, pthread_self());
}

struct mono loop_now(struct loop *l)
{
	if (!l->now_known) {
		l->now = clock_mono(&clock_system);
		l->now_known = true;
	}
	return l->now;
}

static void set_nice(void *nice)
{
	/* On Linux this is the calling thread's own. */
	setpriority(PRIO_PROCESS, 0, *(int *)nice);
}

void loop_set_nice(struct loop *l, int nice)
{
	loop_call(l, set_nice, &nice);
}

struct run_task {
	struct task task;
	void (*fn)(void *arg);
	void *arg;
};

static void run_and_free(struct task *task)
{
	struct run_task *r = container_of(task, struct run_task, task);
	r->fn(r->arg);
	free(r);
}

int loop_run(struct loop *l, void (*fn)(void *arg), void *arg, struct err *e)
{
	struct run_task *r = malloc(sizeof(*r));
	if (!r)
		return err_oom(e);
	*r = (struct run_task){.task.run = run_and_free, .fn = fn, .arg = arg};
	inbox_push(&l->inbox, &r->task);
	return 0;
}

struct call_task {
	struct task task;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void call_and_post(struct task *task)
{
	struct call_task *c = container_of(task, struct call_task, task);
	c->fn(c->arg);
	sem_post(&c->done);
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	require(!loop_is_current(l));
	struct call_task c = {.task.run = call_and_post, .fn = fn, .arg = arg};
	sem_init(&c.done, 0, 0);
	inbox_push(&l->inbox, &c.task);
	while (sem_wait(&c.done) < 0)
		; /* interrupted by a signal of the caller's thread */
	sem_destroy(&c.done);
}
