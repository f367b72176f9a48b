/* worker.c - see worker.h.
 *
 * Connections wait in two lists: idle (open, with room for a request; first in, first out, so that all take
 * part) and shut (to be opened, a few handshakes at a time). After each event the idle ones are fed with the
 * requests that are due, and each is flushed at once: the time a request is counted from is the time it is
 * written. */
#include "cli/load/worker.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/load/ledger.h"

enum { EVENTS = 64, OPENING_MAX = 32, LEDGER_BYTES = 64 << 20, ACCEPTED = 202, MULTI_STATUS = 207 };

static const int64_t ms = 1000000;

/* How long the first connections may take, the wait before a lost one is opened again, how long answers may
 * come in after the end, and how often the stop flag is looked at. */
static const int64_t connect_ns = 15000 * ms, reopen_after_ns = 50 * ms, tail_ns = 5000 * ms,
		     tick_ns = 100 * ms;

struct load_worker {
	struct connector connector;
	struct load *load;
	unsigned index;
	pthread_t thread;
	struct request request;
	struct connection *connections;
	unsigned connection_count;
	struct connection *idle, **idle_last, *shut, **shut_last;
	unsigned opening; /* connecting or in their handshake */
	unsigned settled; /* open, or failed to open, before the load began */
	bool loading;     /* the load has begun */
	unsigned in_flight;
	int64_t reopen_ns;   /* the earliest time to open what is shut */
	int64_t progress_ns; /* of the last answer */
	double interval_ns;  /* open loop */
	uint64_t due_count;  /* open loop: requests started */
	uint64_t budget;     /* --messages: requests still to be started */
	struct buf ledger;
	_Atomic uint64_t live_accepted, live_failed;
	_Atomic bool done;
	struct load_result result;
};

static struct load_worker *worker_of(const struct connection *c)
{
	return container_of(c->connector, struct load_worker, connector);
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	/* One writer: no need for a locked instruction. */
	uint64_t v = atomic_load_explicit(counter, memory_order_relaxed);
	atomic_store_explicit(counter, v + n, memory_order_relaxed);
}

static void push_idle(struct load_worker *w, struct connection *c)
{
	if (c->idle || !connection_has_room(c))
		return;
	c->idle = true;
	c->next_idle = NULL;
	*w->idle_last = c;
	w->idle_last = &c->next_idle;
}

static struct connection *pop_idle(struct load_worker *w)
{
	struct connection *c = w->idle;
	w->idle = c->next_idle;
	if (!w->idle)
		w->idle_last = &w->idle;
	c->idle = false;
	return c;
}

static void push_shut(struct load_worker *w, struct connection *c)
{
	c->next_shut = NULL;
	*w->shut_last = c;
	w->shut_last = &c->next_shut;
}

static struct connection *pop_shut(struct load_worker *w)
{
	struct connection *c = w->shut;
	w->shut = c->next_shut;
	if (!w->shut)
		w->shut_last = &w->shut;
	return c;
}

static void on_opened(struct connection *c)
{
	struct load_worker *w = worker_of(c);
	c->opened_ns = load_now_ns();
	w->opening--;
	w->settled++;
	push_idle(w, c);
}

static void on_closed(struct connection *c, enum failure why, unsigned unanswered, const struct err *e)
{
	struct load_worker *w = worker_of(c);
	if (!c->opened_ns) {
		w->opening--;
		w->settled++;
	}
	c->opened_ns = 0;
	w->in_flight -= unanswered;
	w->result.unanswered += unanswered;
	push_shut(w, c);
	if (why == FAILURES)
		return;
	w->reopen_ns = load_now_ns() + reopen_after_ns;
	w->result.failures[why]++;
	count(&w->live_failed, unanswered + 1);
	if (w->result.first_failure.kind == ERR_NONE)
		w->result.first_failure = *e;
}

/* Of a batch that was taken in part. */
static unsigned accepted_in(struct str body)
{
	json_t *answer = json_loadb(body.p, body.n, 0, NULL);
	json_int_t n = json_integer_value(json_object_get(answer, "accepted"));
	json_decref(answer);
	return n > 0 && n <= LOAD_BATCH_MAX ? (unsigned)n : 0;
}

static unsigned accepted_by(const struct load_worker *w, const struct exchange *x)
{
	if (x->status == ACCEPTED)
		return w->request.messages;
	return x->status == MULTI_STATUS ? accepted_in(buf_str(&x->body)) : 0;
}

static void on_answered(struct connection *c, const struct exchange *x)
{
	struct load_worker *w = worker_of(c);
	struct load_result *r = &w->result;
	int64_t now = w->connector.now_ns;
	unsigned accepted = accepted_by(w, x);
	w->in_flight--;
	w->progress_ns = now;
	if (accepted && x->start_ns >= w->load->measure_ns)
		histogram_add(&r->latency, now - x->start_ns);
	if (now >= w->load->measure_ns && now < w->load->end_ns) {
		r->requests++;
		r->accepted += accepted;
		r->rejected += w->request.messages - accepted;
		r->statuses[x->status]++;
		r->last_answer_ns = now;
	}
	r->accepted_in_all += accepted;
	if (accepted && w->load->ledger_fd >= 0)
		ledger_note(&w->ledger, buf_str(&x->body));
	count(accepted ? &w->live_accepted : &w->live_failed, accepted ? accepted : 1);
	push_idle(w, c);
}

static const struct handlers handlers = {.opened = on_opened, .answered = on_answered, .closed = on_closed};

static bool is_stopped(const struct load_worker *w)
{
	return atomic_load_explicit(&w->load->stop, memory_order_relaxed);
}

static bool is_open_loop(const struct load_worker *w)
{
	return w->interval_ns > 0;
}

static bool has_budget(const struct load_worker *w)
{
	return w->load->end_ns != INT64_MAX || w->budget > 0;
}

/* When request number n of this worker is due; the workers take turns. */
static int64_t due_ns(const struct load_worker *w, uint64_t n)
{
	double turn = (double)w->index / w->load->options->threads;
	return w->load->start_ns + (int64_t)(((double)n + turn) * w->interval_ns);
}

/* Whether a request is to be sent now, and the time it counts from. */
static bool take_request(struct load_worker *w, int64_t *ret_start_ns)
{
	int64_t now = load_now_ns(), start = now;
	if (is_stopped(w) || !has_budget(w))
		return false;
	if (is_open_loop(w)) {
		start = due_ns(w, w->due_count);
		if (start > now)
			return false;
	}
	if (start >= w->load->end_ns)
		return false;
	w->due_count++;
	if (start >= w->load->measure_ns && w->budget)
		w->budget--;
	*ret_start_ns = start;
	return true;
}

static void start_request(struct load_worker *w, struct connection *c, int64_t start_ns)
{
	w->in_flight++;
	connection_start(c, start_ns);
}

/* Hands due requests to idle connections. A closed loop fills each connection to its depth; an open loop
 * spreads. */
static void feed(struct load_worker *w)
{
	int64_t start_ns;
	while (w->loading && w->idle) {
		struct connection *c = w->idle;
		if (!connection_has_room(c)) {
			pop_idle(w);
			continue;
		}
		if (!take_request(w, &start_ns))
			return;
		pop_idle(w);
		start_request(w, c, start_ns);
		while (!is_open_loop(w) && connection_has_room(c) && take_request(w, &start_ns))
			start_request(w, c, start_ns);
		if (c->state == CONNECTION_OPEN)
			connection_flush(c);
		push_idle(w, c);
	}
}

/* Before the load begins, each connection is tried once. */
static void open_some(struct load_worker *w)
{
	if (w->reopen_ns > load_now_ns())
		return;
	while (w->shut && w->opening < OPENING_MAX &&
		(w->loading || w->settled + w->opening < w->connection_count)) {
		w->opening++;
		connection_open(pop_shut(w));
	}
}

/* Nothing more will be sent. */
static bool is_sent(const struct load_worker *w, int64_t now)
{
	if (is_stopped(w) || !has_budget(w))
		return true;
	return now >= w->load->end_ns && !(is_open_loop(w) && due_ns(w, w->due_count) < w->load->end_ns);
}

static void sooner(int64_t *at_ns, int64_t candidate_ns)
{
	if (candidate_ns < *at_ns)
		*at_ns = candidate_ns;
}

static struct timespec time_until_next(const struct load_worker *w, int64_t until_ns)
{
	int64_t now = load_now_ns(), at = now + tick_ns;
	if (until_ns > now)
		sooner(&at, until_ns);
	if (w->loading && is_open_loop(w) && w->idle && !is_sent(w, now))
		sooner(&at, due_ns(w, w->due_count));
	if (w->shut)
		sooner(&at, w->reopen_ns > now ? w->reopen_ns : now + reopen_after_ns);
	int64_t left = at > now ? at - now : 0;
	return (struct timespec){.tv_sec = left / (1000 * ms), .tv_nsec = left % (1000 * ms)};
}

static void write_ledger(struct load_worker *w)
{
	if (w->load->ledger_fd < 0 ||
		ledger_write(w->load->ledger_fd, &w->ledger, &w->result.first_failure) == 0)
		return;
	atomic_store(&w->load->stop, true);
}

/* One round of the loop: wait, handle what came in, send what is due. */
static void turn(struct load_worker *w, int64_t until_ns)
{
	struct epoll_event events[EVENTS];
	open_some(w);
	feed(w);
	struct timespec left = time_until_next(w, until_ns);
	int n = epoll_pwait2(w->connector.epoll_fd, events, EVENTS, &left, NULL);
	for (int i = 0; i < n; i++) {
		connection_event(events[i].data.ptr, events[i].events);
		feed(w);
	}
	write_ledger(w);
}

/* A server that lets nobody in is not stormed until the end of the run. */
static bool is_shut_out(const struct load_worker *w)
{
	return !w->result.accepted_in_all && w->result.failures[FAIL_REFUSED] >= 2UL * w->connection_count;
}

static bool is_over(const struct load_worker *w, int64_t now)
{
	bool endless = w->load->end_ns == INT64_MAX;
	bool stalled = now - w->progress_ns > w->load->options->timeout_ns && (w->in_flight || endless);
	if (is_shut_out(w) || stalled || (!endless && now > w->load->end_ns + tail_ns))
		return true;
	return is_sent(w, now) && !w->in_flight;
}

static void connect_all(struct load_worker *w)
{
	int64_t until = load_now_ns() + connect_ns;
	while (w->settled < w->connection_count && !is_stopped(w) && load_now_ns() < until)
		turn(w, until);
	for (unsigned i = 0; i < w->connection_count; i++)
		w->result.opened += w->connections[i].state == CONNECTION_OPEN;
}

static void count_unsent(struct load_worker *w)
{
	if (!is_open_loop(w) || w->load->end_ns == INT64_MAX || is_stopped(w))
		return;
	for (; due_ns(w, w->due_count) < w->load->end_ns; w->due_count++)
		w->result.unsent++;
}

static void run_load(struct load_worker *w)
{
	w->loading = true;
	w->progress_ns = w->load->start_ns;
	w->reopen_ns = 0;
	while (!is_over(w, load_now_ns()))
		turn(w, w->load->end_ns);
	w->result.unanswered += w->in_flight;
	count_unsent(w);
}

static void *worker_thread(void *arg)
{
	struct load_worker *w = arg;
	/* Sends are due to the microsecond; the default lets the kernel be 50 µs late. */
	prctl(PR_SET_TIMERSLACK, 1000UL);
	connect_all(w);
	gate_pass(&w->load->gate);
	run_load(w);
	atomic_store(&w->done, true);
	return NULL;
}

static int init_connections(struct load_worker *w, struct err *e)
{
	const struct load_options *o = w->load->options;
	unsigned count = o->connections / o->threads + (w->index < o->connections % o->threads);
	w->connections = calloc(count, sizeof(*w->connections));
	if (!w->connections)
		return err_oom(e);
	for (; w->connection_count < count; w->connection_count++) {
		struct connection *c = &w->connections[w->connection_count];
		if (connection_init(c, &w->connector, e) < 0)
			return -1;
		push_shut(w, c);
	}
	return 0;
}

static int init_connector(struct load_worker *w, struct err *e)
{
	const struct load_options *o = w->load->options;
	w->connector = (struct connector){
		.tls = w->load->tls,
		.target = &w->load->target,
		.protocol = o->http2 ? &load_protocol_h2 : &load_protocol_h1,
		.handlers = &handlers,
		.request = &w->request,
		.depth = o->depth,
		.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
		.keep_bodies = w->load->ledger_fd >= 0,
		.scratch = malloc(SCRATCH_BYTES),
	};
	if (w->connector.epoll_fd < 0)
		return err_sys(e, ERR_RETRY, "create an epoll instance");
	return w->connector.scratch ? 0 : err_oom(e);
}

/* This worker's part of `total`, which the workers share out among them. */
static uint64_t share_of(const struct load_worker *w, uint64_t total)
{
	unsigned threads = w->load->options->threads;
	return total / threads + (w->index < total % threads);
}

static void init_share(struct load_worker *w)
{
	const struct load_options *o = w->load->options;
	unsigned batch = load_messages_per_request(o);
	w->idle_last = &w->idle;
	w->shut_last = &w->shut;
	w->budget = share_of(w, (o->messages + batch - 1) / batch);
	w->interval_ns = o->rate > 0 ? 1e9 * o->threads / o->rate : 0;
	buf_init(&w->ledger, LEDGER_BYTES);
}

static int init(struct load_worker *w, struct err *e)
{
	/* Apart by a prime, so that the blocks of numbers of two workers do not meet soon. */
	static const uint32_t number_step = 15485863;
	init_share(w);
	if (init_connector(w, e) < 0 ||
		request_init_ingest(&w->request, w->load->options, w->index * number_step, e) < 0 ||
		init_connections(w, e) < 0)
		return -1;
	int rc = pthread_create(&w->thread, NULL, worker_thread, w);
	if (rc) {
		errno = rc;
		return err_sys(e, ERR_RETRY, "start a thread");
	}
	pthread_setname_np(w->thread, "load");
	return 0;
}

int load_worker_start(struct load *load, unsigned index, struct load_worker **ret, struct err *e)
{
	struct load_worker *w = calloc(1, sizeof(*w));
	if (!w)
		return err_oom(e);
	w->load = load;
	w->index = index;
	if (init(w, e) < 0) {
		load_worker_free(w);
		return -1;
	}
	*ret = w;
	return 0;
}

void load_worker_join(struct load_worker *w)
{
	pthread_join(w->thread, NULL);
}

void load_worker_free(struct load_worker *w)
{
	if (!w)
		return;
	for (unsigned i = 0; i < w->connection_count; i++)
		connection_clear(&w->connections[i]);
	free(w->connections);
	if (w->connector.epoll_fd >= 0)
		close(w->connector.epoll_fd);
	free(w->connector.scratch);
	request_clear(&w->request);
	buf_clear(&w->ledger);
	free(w);
}

const struct load_result *load_worker_result(const struct load_worker *w)
{
	return &w->result;
}

uint64_t load_worker_accepted(const struct load_worker *w)
{
	return atomic_load_explicit(&w->live_accepted, memory_order_relaxed);
}

uint64_t load_worker_failed(const struct load_worker *w)
{
	return atomic_load_explicit(&w->live_failed, memory_order_relaxed);
}

bool load_worker_done(const struct load_worker *w)
{
	return atomic_load(&w->done);
}
