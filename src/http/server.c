/* server.c - see server.h: puts shards and listeners together and takes them apart again.
 *
 * Everything that still exists on some loop (connections, handles) is counted in `alive`; whoever takes the
 * last one away wakes the owner, so that memory is freed only when no loop can touch it any more. */
#include "http/server.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "http/conn.h"
#include "http/listen.h"
#include "http/request.h"

/* About a third of the processor time of a thread that has as much to do. Measured beside 300 handshakes a second, with
 * more niceness, or SCHED_BATCH, established clients wait longer, not shorter. */
enum { HANDSHAKE_NICE = 5 };

void http_limits_default(struct http_limits *l)
{
	*l = (struct http_limits){
		.connections = 10000,
		.connections_per_address = 2048,
		.connections_per_client = 1024,
		.head_bytes = 16384,
		.header_count = 64,
		.target_bytes = 4096,
		.handshake_ms = 10000,
		.head_ms = 10000,
		.body_ms = 30000,
		.idle_ms = 75000,
		.write_ms = 30000,
		.linger_ms = 2000,
		.requests_in_flight = 16384,
		.body_bytes = 256u << 20,
		.answer_bytes = 256u << 20,
		.streams = 128,
	};
}

/* --- counting what exists --- */

void server_alive(struct http_server *s)
{
	pthread_mutex_lock(&s->lock);
	s->alive++;
	pthread_mutex_unlock(&s->lock);
}

void server_gone(struct http_server *s)
{
	pthread_mutex_lock(&s->lock);
	s->alive--;
	pthread_cond_signal(&s->gone);
	pthread_mutex_unlock(&s->lock);
}

/* Until only `count` are left; at most ms, or for good if ms < 0. */
static void wait_alive(struct http_server *s, unsigned count, int64_t ms)
{
	struct timespec until = mono_timespec(mono_add_ms(clock_mono(&clock_system), ms < 0 ? 0 : ms));
	int code = 0;
	pthread_mutex_lock(&s->lock);
	while (s->alive > count && code != ETIMEDOUT)
		code = ms < 0 ? pthread_cond_wait(&s->gone, &s->lock)
			      : pthread_cond_timedwait(&s->gone, &s->lock, &until);
	pthread_mutex_unlock(&s->lock);
}

struct shard *server_pick_io(struct http_server *s)
{
	struct shard *least = &s->shards[0];
	for (unsigned i = 1; i < s->io_count; i++)
		if (atomic_load_explicit(&s->shards[i].conn_count, memory_order_relaxed) <
			atomic_load_explicit(&least->conn_count, memory_order_relaxed))
			least = &s->shards[i];
	return least;
}

/* --- starting --- */

static void collect(void *arg)
{
	struct http_server *s = arg;
	unsigned in_flight = 0;
	for (unsigned i = 0; i < s->io_count; i++)
		in_flight += atomic_load_explicit(&s->shards[i].in_flight, memory_order_relaxed);
	stats_gauges(s->stats, http_server_connections(s), in_flight);
}

static void init_lock(struct http_server *s)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->gone, &attr);
	pthread_condattr_destroy(&attr);
}

static int start_shards(struct http_server *s, struct err *e)
{
	const struct http_server_options *o = &s->options;
	unsigned count = o->loop_count + o->handshake_loop_count;
	s->shards = calloc(count, sizeof(s->shards[0]));
	if (!s->shards)
		return err_oom(e);
	s->io_count = o->loop_count;
	for (unsigned i = 0; i < count; i++, s->shard_count++) {
		struct loop *loop = i < o->loop_count ? o->loops[i] : o->handshake_loops[i - o->loop_count];
		if (shard_start(&s->shards[i], s, loop, i, e) < 0)
			return -1;
		/* A handshake costs as much as a hundred requests: those who are connected already come
		 * first. */
		if (i >= o->loop_count)
			loop_set_nice(loop, HANDSHAKE_NICE);
	}
	return 0;
}

/* All addresses are bound before the first connection is accepted. */
static int start_listeners(
	struct http_server *s, const struct http_listen *listens, unsigned count, struct err *e)
{
	s->listeners = calloc(count, sizeof(struct listener *));
	if (!s->listeners)
		return err_oom(e);
	for (unsigned i = 0; i < count; i++, s->listener_count++)
		if (listener_open(s, &listens[i], &s->listeners[i], e) < 0)
			return -1;
	struct shard *plain = &s->shards[0],
		     *tls = &s->shards[s->shard_count > s->io_count ? s->io_count : 0];
	for (unsigned i = 0; i < count; i++)
		if (listener_start(s->listeners[i], listener_is_tls(s->listeners[i]) ? tls : plain, e) < 0)
			return -1;
	return 0;
}

/* A client may send several of the largest bodies side by side on one connection, and leave as much unread. */
static size_t conn_bytes(const struct http_route *routes)
{
	enum { AT_LEAST = 8 << 20, SIDE_BY_SIDE = 4 };
	size_t most = AT_LEAST;
	for (const struct http_route *r = routes; r->method; r++)
		if (r->body_ceiling_bytes > most / SIDE_BY_SIDE)
			most = r->body_ceiling_bytes * SIDE_BY_SIDE;
	return most;
}

static int start(struct http_server *s, const struct http_server_options *o, struct err *e)
{
	if (router_new(o->routes, &s->router, e) < 0 ||
		stats_new(o->name, o->routes, router_route_count(s->router), &s->stats, e) < 0 ||
		tally_new(&s->addresses, e) < 0 || tally_new(&s->clients, e) < 0 || start_shards(s, e) < 0 ||
		start_listeners(s, o->listens, o->listen_count, e) < 0)
		return -1;
	metrics_on_collect(collect, s);
	s->collecting = true;
	return 0;
}

int http_server_start(const struct http_server_options *o, struct http_server **ret, struct err *e)
{
	require(o->loop_count && o->clock && o->routes);
	struct http_server *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	init_lock(s);
	s->options = *o;
	s->conn_bytes = conn_bytes(o->routes);
	if (start(s, o, e) < 0) {
		http_server_drain(s, 0);
		http_server_free(s);
		return err_context(e, "%s", o->name);
	}
	/* The caller's arrays were needed up to here. */
	s->options.listens = NULL;
	s->options.loops = s->options.handshake_loops = NULL;
	*ret = s;
	return 0;
}

const char *http_server_address(const struct http_server *s, unsigned i)
{
	require(i < s->listener_count);
	return listener_address(s->listeners[i]);
}

unsigned http_server_connections(const struct http_server *s)
{
	return atomic_load(&s->open);
}

/* --- new limits --- */

struct limits_call {
	struct shard *shard;
	const struct http_limits *limits;
};

static void set_limits(void *arg)
{
	struct limits_call *call = arg;
	call->shard->limits = *call->limits;
}

void http_server_set_limits(struct http_server *s, const struct http_limits *l)
{
	for (unsigned i = 0; i < s->shard_count; i++)
		loop_call(s->shards[i].loop, set_limits, &(struct limits_call){&s->shards[i], l});
}

/* --- ending --- */

static void each_conn(struct shard *s, void (*fn)(struct conn *c))
{
	for (struct link *l = s->conns.next, *next; l != &s->conns; l = next) {
		next = l->next;
		fn(container_of(l, struct conn, link));
	}
}

static void drain_shard(void *arg)
{
	struct shard *s = arg;
	s->draining = true;
	each_conn(s, conn_drain);
}

static void cut_shard(void *arg)
{
	each_conn(arg, conn_cut);
}

static void on_shards(struct http_server *s, void (*fn)(void *shard))
{
	for (unsigned i = 0; i < s->shard_count; i++)
		loop_call(s->shards[i].loop, fn, &s->shards[i]);
}

static unsigned handle_count(const struct http_server *s)
{
	return s->shard_count * SHARD_HANDLES;
}

void http_server_drain(struct http_server *s, int64_t drain_ms)
{
	for (unsigned i = 0; i < s->listener_count; i++)
		listener_stop(s->listeners[i]);
	on_shards(s, drain_shard);
	wait_alive(s, handle_count(s), drain_ms);
	on_shards(s, cut_shard);
}

static void free_parts(struct http_server *s)
{
	for (unsigned i = 0; i < s->listener_count; i++)
		listener_free(s->listeners[i]);
	free(s->listeners);
	free(s->shards);
	router_free(s->router);
	stats_free(s->stats);
	tally_free(s->addresses);
	tally_free(s->clients);
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	if (s->collecting)
		metrics_off_collect(collect, s);
	/* First the connections, which look at their shards until their last request is answered. */
	wait_alive(s, handle_count(s), -1);
	for (unsigned i = 0; i < s->shard_count; i++)
		shard_stop(&s->shards[i]);
	wait_alive(s, 0, -1);
	free_parts(s);
	pthread_cond_destroy(&s->gone);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
