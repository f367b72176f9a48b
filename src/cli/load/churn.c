/* churn.c - see churn.h. A pool of connections bounds how many are under way; what is due beyond that waits,
 * and is still timed from when it was due. */
#include "cli/load/churn.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { POOL = 256, EVENTS = 64 };

static const int64_t second_ns = 1000000000, tick_ns = 100000000;

struct churn {
	struct connector connector;
	struct load *load;
	pthread_t thread;
	struct request request;
	struct connection *pool;
	unsigned pool_count;
	struct connection *free;
	uint64_t due_count; /* connections begun */
	struct churn_result result;
};

static struct churn *churn_of(const struct connection *c)
{
	return container_of(c->connector, struct churn, connector);
}

static void push_free(struct churn *churn, struct connection *c)
{
	c->next_shut = churn->free;
	churn->free = c;
}

static void on_opened(struct connection *c)
{
	connection_start(c, c->opened_ns);
	if (c->state == CONNECTION_OPEN)
		connection_flush(c);
}

static void on_answered(struct connection *c, const struct exchange *x)
{
	struct churn *churn = churn_of(c);
	int64_t now = c->connector->now_ns;
	c->finish = true;
	if (now < churn->load->measure_ns || now >= churn->load->end_ns)
		return;
	churn->result.count++;
	histogram_add(&churn->result.latency, now - x->start_ns);
}

static void on_closed(struct connection *c, enum failure why, unsigned unanswered, const struct err *e)
{
	struct churn *churn = churn_of(c);
	push_free(churn, c);
	if (why == FAILURES)
		return;
	churn->result.failed++;
	if (churn->result.first_failure.kind == ERR_NONE)
		churn->result.first_failure = *e;
}

static const struct handlers handlers = {.opened = on_opened, .answered = on_answered, .closed = on_closed};

static int64_t due_ns(const struct churn *churn)
{
	return churn->load->start_ns +
	       (int64_t)((double)churn->due_count * (double)second_ns / churn->load->options->churn);
}

static void open_due(struct churn *churn)
{
	while (churn->free && due_ns(churn) <= load_now_ns()) {
		struct connection *c = churn->free;
		churn->free = c->next_shut;
		c->opened_ns = due_ns(churn);
		churn->due_count++;
		connection_open(c);
	}
}

static void turn(struct churn *churn)
{
	struct epoll_event events[EVENTS];
	int64_t left = due_ns(churn) - load_now_ns();
	left = !churn->free || left > tick_ns ? tick_ns : left > 0 ? left : 0;
	struct timespec timeout = {.tv_nsec = left};
	int n = epoll_pwait2(churn->connector.epoll_fd, events, EVENTS, &timeout, NULL);
	for (int i = 0; i < n; i++)
		connection_event(events[i].data.ptr, events[i].events);
}

/* Those who come and go are elsewhere in real life: what their handshakes cost them must not be taken from the server and
 * from the clients that are measured. */
static void give_way(void)
{
	enum { CHURN_NICE = 10 };
	const struct sched_param none = {.sched_priority = 0};
	sched_setscheduler(0, SCHED_BATCH, &none);
	setpriority(PRIO_PROCESS, 0, CHURN_NICE);
}

static void *churn_thread(void *arg)
{
	struct churn *churn = arg;
	give_way();
	gate_pass(&churn->load->gate);
	while (!atomic_load(&churn->load->stop) && load_now_ns() < churn->load->end_ns) {
		open_due(churn);
		turn(churn);
	}
	return NULL;
}

static int init_pool(struct churn *churn, struct err *e)
{
	churn->pool = calloc(POOL, sizeof(*churn->pool));
	if (!churn->pool)
		return err_oom(e);
	for (; churn->pool_count < POOL; churn->pool_count++) {
		if (connection_init(&churn->pool[churn->pool_count], &churn->connector, e) < 0)
			return -1;
		push_free(churn, &churn->pool[churn->pool_count]);
	}
	return 0;
}

static int init_connector(struct churn *churn, struct err *e)
{
	churn->connector = (struct connector){
		.tls = churn->load->tls,
		.target = &churn->load->target,
		.protocol = &load_protocol_h1,
		.handlers = &handlers,
		.request = &churn->request,
		.depth = 1,
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
		.scratch = malloc(SCRATCH_BYTES),
	};
	if (churn->connector.epoll_fd < 0)
		return err_sys(e, ERR_RETRY, "create an epoll instance");
	return churn->connector.scratch ? 0 : err_oom(e);
}

static int init(struct churn *churn, struct err *e)
{
	if (init_connector(churn, e) < 0 ||
		request_init_get(&churn->request, churn->load->options, "/livez", e) < 0 ||
		init_pool(churn, e) < 0)
		return -1;
	int rc = pthread_create(&churn->thread, NULL, churn_thread, churn);
	if (rc) {
		errno = rc;
		return err_sys(e, ERR_RETRY, "start a thread");
	}
	pthread_setname_np(churn->thread, "churn");
	return 0;
}

int churn_start(struct load *load, struct churn **ret, struct err *e)
{
	struct churn *churn = calloc(1, sizeof(*churn));
	if (!churn)
		return err_oom(e);
	churn->load = load;
	if (init(churn, e) < 0) {
		churn_free(churn);
		return -1;
	}
	*ret = churn;
	return 0;
}

void churn_join(struct churn *churn)
{
	pthread_join(churn->thread, NULL);
}

void churn_free(struct churn *churn)
{
	if (!churn)
		return;
	for (unsigned i = 0; i < churn->pool_count; i++)
		connection_clear(&churn->pool[i]);
	free(churn->pool);
	if (churn->connector.epoll_fd >= 0)
		close(churn->connector.epoll_fd);
	free(churn->connector.scratch);
	request_clear(&churn->request);
	free(churn);
}

const struct churn_result *churn_result(const struct churn *churn)
{
	return &churn->result;
}
