/* work_pool.c - threads that take work from one bounded list, first in first out. A finished piece goes to
 * the inbox of the loop that asked; its task is free for that, because the list of waiting work uses the same
 * link. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "loop/loop.h"

struct work_pool {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct task *first, **last; /* waiting, oldest first */
	unsigned outstanding, limit;
	bool stopping;
	char name[16];
	unsigned thread_count;
	pthread_t threads[];
};

static void run_done(struct task *task)
{
	struct work *w = container_of(task, struct work, task);
	w->done(w);
}

/* The oldest piece, or NULL when the pool stops and nothing is left. */
static struct work *take(struct work_pool *p)
{
	pthread_mutex_lock(&p->lock);
	while (!p->first && !p->stopping)
		pthread_cond_wait(&p->more, &p->lock);
	struct task *task = p->first;
	if (task) {
		p->first = task->next;
		if (!p->first)
			p->last = &p->first;
	}
	pthread_mutex_unlock(&p->lock);
	return task ? container_of(task, struct work, task) : NULL;
}

static void finish(struct work_pool *p, struct work *w)
{
	pthread_mutex_lock(&p->lock);
	p->outstanding--;
	pthread_mutex_unlock(&p->lock);
	w->task.run = run_done;
	inbox_push(loop_inbox(w->loop), &w->task);
}

static void *pool_main(void *arg)
{
	struct work_pool *p = arg;
	pthread_setname_np(pthread_self(), p->name);
	for (struct work *w; (w = take(p));) {
		w->work(w);
		finish(p, w);
	}
	return NULL;
}

static int start_threads(struct work_pool *p, unsigned threads, struct err *e)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int code = 0;
	while (!code && p->thread_count < threads) {
		code = pthread_create(&p->threads[p->thread_count], NULL, pool_main, p);
		if (!code)
			p->thread_count++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = code;
	return code ? err_sys(e, ERR_FATAL, "start thread '%s'", p->name) : 0;
}

int work_pool_start(const char *name, unsigned threads, unsigned limit, struct work_pool **ret, struct err *e)
{
	require(strlen(name) < sizeof(((struct work_pool *)NULL)->name) && threads && limit);
	struct work_pool *p = calloc(1, sizeof(*p) + threads * sizeof(p->threads[0]));
	if (!p)
		return err_oom(e);
	memcpy(p->name, name, strlen(name) + 1);
	p->last = &p->first;
	p->limit = limit;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->more, NULL);
	if (start_threads(p, threads, e) < 0) {
		work_pool_stop(p);
		return -1;
	}
	*ret = p;
	return 0;
}

void work_pool_stop(struct work_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->more);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->thread_count; i++)
		pthread_join(p->threads[i], NULL);
	pthread_cond_destroy(&p->more);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

int work_submit(struct work_pool *p, struct work *w)
{
	pthread_mutex_lock(&p->lock);
	bool full = p->outstanding == p->limit;
	if (!full) {
		p->outstanding++;
		w->task.next = NULL;
		*p->last = &w->task;
		p->last = &w->task.next;
		pthread_cond_signal(&p->more);
	}
	pthread_mutex_unlock(&p->lock);
	return full ? LOOP_WORK_FULL : 0;
}
