/* bench_queue.c - how fast the queue takes and hands out messages on the disk that DIR is on.
 *
 *	bench_queue DIR put  [--threads N] [--depth M] [--seconds S] [--bytes B] [--keyed]
 *	bench_queue DIR drain [--batch N] [--workers W] …   lease and settle what is there
 *	bench_queue DIR both …                              put and drain at once
 *	bench_queue DIR fill --count N                      put N messages in large requests
 *	bench_queue DIR open                                time until a queue in DIR can lease and put
 *
 * Prints one line of figures. N threads each keep M puts in flight, one message a put. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "queue/driver.h"
#include "queue/queue.h"

enum {
	FILL_BATCH = 1000,
	WORKERS_MAX = 256,
	IDEMPOTENCY_MS = 24 * 3600 * 1000,
	ARENA_BYTES = 64 << 20,
	BUCKETS = 64 * 16, /* of a latency histogram: 16 for each power of two */
};

static const struct mode {
	const char *name;
	bool puts, drains, fills, tries;
} modes[] = {
	{"put", .puts = true},
	{"drain", .drains = true},
	{"both", .puts = true, .drains = true},
	{"fill", .fills = true},
	{"open", .tries = true},
};

struct plan {
	const struct mode *mode;
	const char *dir, *driver;
	unsigned threads, depth, workers, batch;
	int64_t seconds, bytes, count;
	bool keyed;
};

static struct plan plan = {.mode = modes,
	.driver = "sqlite",
	.threads = 2,
	.depth = 32,
	.workers = 2,
	.batch = 256,
	.seconds = 3,
	.bytes = 300,
	.count = 1000000};
static struct queue *queue;
static struct uuid_source ids;
static atomic_bool stop;
static _Atomic uint64_t put_count, drained_count;
static char ciphertext[SEALED_MAX_BYTES];

static _Noreturn void die(const char *what, const struct err *e)
{
	fprintf(stderr, "bench_queue: %s: %s\n", what, e->text);
	exit(1);
}

static void *must_alloc(size_t count, size_t bytes)
{
	void *p = calloc(count, bytes);
	if (!p)
		die("memory", &(struct err){.text = "there is none"});
	return p;
}

/* --- latencies --- */

static _Atomic uint64_t buckets[BUCKETS];

static void note_latency(int64_t ns)
{
	unsigned power = 63 - (unsigned)__builtin_clzll((uint64_t)ns | 16);
	unsigned part = (unsigned)(ns >> (power - 4)) & 15;
	atomic_fetch_add_explicit(&buckets[power * 16 + part], 1, memory_order_relaxed);
}

static double percentile_ms(double share)
{
	uint64_t total = 0, seen = 0;
	for (unsigned i = 0; i < BUCKETS; i++)
		total += buckets[i];
	for (unsigned i = 0; i < BUCKETS; i++) {
		seen += buckets[i];
		if (total && (double)seen >= share * (double)total)
			return (double)((UINT64_C(16) + i % 16) << (i / 16)) / 16 / 1e6;
	}
	return 0;
}

/* --- putting --- */

struct submitter {
	pthread_t thread;
	struct inbox inbox;
	pthread_mutex_t lock;
	pthread_cond_t wakeup;
	bool woken;
	unsigned in_flight;
};

struct request {
	struct queue_put put;
	struct sealed message;
	struct mono began;
	struct submitter *submitter;
	char envelope[SEALED_MAX_BYTES];
};

static void fill_message(struct sealed *m, char *room)
{
	struct err e = ERR_INIT;
	struct buf out;
	struct envelope env = {.ciphertext = {ciphertext, (size_t)plan.bytes}};
	buf_init(&out, SEALED_MAX_BYTES);
	envelope_encode(&env, &out);
	memcpy(room, out.p, out.n);
	*m = (struct sealed){.client_id = STR("client_001"),
		.domain = STR("example.com"),
		.envelope = {room, out.n},
		.accepted_at = clock_wall(&clock_system)};
	buf_clear(&out);
	if (uuid_next(&ids, &m->id, &e) < 0)
		die("id", &e);
}

static void submit(struct request *r)
{
	struct err e = ERR_INIT;
	r->began = clock_mono(&clock_system);
	r->message.accepted_at = clock_wall(&clock_system);
	if (uuid_next(&ids, &r->message.id, &e) < 0)
		die("id", &e);
	r->put.has_key = plan.keyed;
	/* As spread as a hash would be. */
	uint64_t print = uuid_order_key(&r->message.id) * UINT64_C(0x9e3779b97f4a7c15);
	memcpy(r->put.key_hash, &print, sizeof(print));
	if (queue_put(queue, &r->put, NULL) == GROUP_FULL)
		die("put", &(struct err){.text = "the queue is full"});
	r->submitter->in_flight++;
}

static void put_done(struct group_op *op)
{
	struct request *r = container_of(op, struct request, put.op);
	r->submitter->in_flight--;
	if (op->result < 0)
		die("put", &op->err);
	note_latency(clock_mono(&clock_system).ns - r->began.ns);
	atomic_fetch_add_explicit(&put_count, 1, memory_order_relaxed);
	if (!atomic_load_explicit(&stop, memory_order_relaxed))
		submit(r);
}

static void submitter_wake(struct inbox *inbox)
{
	struct submitter *s = container_of(inbox, struct submitter, inbox);
	pthread_mutex_lock(&s->lock);
	s->woken = true;
	pthread_cond_signal(&s->wakeup);
	pthread_mutex_unlock(&s->lock);
}

static void *submitter_run(void *arg)
{
	struct submitter *s = arg;
	struct request *requests = must_alloc(plan.depth, sizeof(*requests));
	for (unsigned i = 0; i < plan.depth; i++) {
		struct request *r = &requests[i];
		fill_message(&r->message, r->envelope);
		r->submitter = s;
		r->put = (struct queue_put){.messages = &r->message, .count = 1};
		r->put.op.reply = &s->inbox;
		r->put.op.complete = put_done;
		submit(r);
	}
	while (s->in_flight) {
		pthread_mutex_lock(&s->lock);
		while (!s->woken)
			pthread_cond_wait(&s->wakeup, &s->lock);
		s->woken = false;
		pthread_mutex_unlock(&s->lock);
		inbox_run(&s->inbox);
	}
	free(requests);
	return NULL;
}

static struct submitter *start_putting(void)
{
	struct submitter *all = must_alloc(plan.threads, sizeof(*all));
	for (unsigned i = 0; i < plan.threads; i++) {
		inbox_init(&all[i].inbox, submitter_wake);
		pthread_mutex_init(&all[i].lock, NULL);
		pthread_cond_init(&all[i].wakeup, NULL);
		pthread_create(&all[i].thread, NULL, submitter_run, &all[i]);
	}
	return all;
}

static void end_putting(struct submitter *all)
{
	for (unsigned i = 0; i < plan.threads; i++)
		pthread_join(all[i].thread, NULL);
	free(all);
}

static void fill(void)
{
	struct sealed *messages = must_alloc(FILL_BATCH, sizeof(*messages));
	char *room = must_alloc(FILL_BATCH, SEALED_MAX_BYTES);
	struct err e = ERR_INIT;
	for (int64_t done = 0; done < plan.count; done += FILL_BATCH) {
		for (unsigned i = 0; i < FILL_BATCH; i++)
			fill_message(&messages[i], room + (size_t)i * SEALED_MAX_BYTES);
		struct queue_put put = {.messages = messages, .count = FILL_BATCH};
		if (queue_wait(queue, QUEUE_PUT, &put.op, &e) < 0)
			die("fill", &e);
		atomic_fetch_add(&put_count, FILL_BATCH);
	}
	free(room);
	free(messages);
}

/* --- draining --- */

static bool drain_once(struct arena *arena, struct queue_settlement *items)
{
	struct err e = ERR_INIT;
	struct queue_lease lease = {
		.worker = "bench", .max = plan.batch, .lease_ms = 60000, .wait_ms = 100, .arena = arena};
	arena_reset(arena);
	if (queue_wait(queue, QUEUE_LEASE, &lease.op, &e) < 0)
		die("lease", &e);
	for (unsigned i = 0; i < lease.count; i++)
		items[i] = (struct queue_settlement){.ref = lease.messages[i].ref, .verdict = QUEUE_DONE};
	struct queue_settle settle = {.worker = "bench", .items = items, .count = lease.count};
	if (lease.count && queue_wait(queue, QUEUE_SETTLE, &settle.op, &e) < 0)
		die("settle", &e);
	atomic_fetch_add_explicit(&drained_count, lease.count, memory_order_relaxed);
	return lease.count > 0;
}

static void *drain_run(void *arg)
{
	struct queue_settlement *items = must_alloc(plan.batch, sizeof(*items));
	struct arena arena;
	bool forever = arg != NULL;
	arena_init(&arena, ARENA_BYTES);
	while (!atomic_load(&stop) && (drain_once(&arena, items) || forever))
		;
	arena_clear(&arena);
	free(items);
	return NULL;
}

/* --- modes --- */

static void wait_seconds(int64_t seconds)
{
	struct timespec t = {.tv_sec = seconds};
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
	atomic_store(&stop, true);
}

static void open_queue(void)
{
	struct err e = ERR_INIT;
	struct queue_options o = {
		.driver = queue_driver_find(plan.driver),
		.location = plan.dir,
		.clock = &clock_system,
		.put_limit = 1 << 20,
		.group_max = 1024,
		.idempotency_ms = IDEMPOTENCY_MS,
	};
	if (!o.driver)
		die("driver", &(struct err){.text = "no such driver"});
	if (queue_open(&o, &queue, &e) < 0)
		die("open", &e);
	uuid_source_init(&ids, &clock_system, queue_floor_key(queue));
}

/* One message out and a few in. */
static void try_queue(void)
{
	struct arena arena;
	struct queue_settlement item;
	arena_init(&arena, ARENA_BYTES);
	plan.batch = 1;
	drain_once(&arena, &item);
	arena_clear(&arena);
	plan.count = FILL_BATCH;
	fill();
}

static void put_and_drain(void)
{
	bool puts = plan.mode->puts;
	pthread_t workers[WORKERS_MAX] = {0};
	unsigned worker_count = plan.mode->drains ? plan.workers : 0;
	struct submitter *submitters = puts ? start_putting() : NULL;
	for (unsigned i = 0; i < worker_count; i++)
		pthread_create(&workers[i], NULL, drain_run, puts ? queue : NULL);
	if (puts)
		wait_seconds(plan.seconds);
	for (unsigned i = 0; i < worker_count; i++)
		pthread_join(workers[i], NULL);
	if (puts)
		end_putting(submitters);
}

static void run(void)
{
	if (plan.mode->fills)
		fill();
	else if (plan.mode->tries)
		try_queue();
	else
		put_and_drain();
}

static _Noreturn void die_of_usage(void)
{
	die("usage",
		&(struct err){
			.text = "bench_queue DIR put|drain|both|fill|open [--option N]; see the source"});
}

static const struct mode *mode_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		if (strcmp(modes[i].name, name) == 0)
			return &modes[i];
	die_of_usage();
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {{"threads", 1, NULL, 't'}, {"depth", 1, NULL, 'd'},
		{"workers", 1, NULL, 'w'}, {"batch", 1, NULL, 'b'}, {"seconds", 1, NULL, 's'},
		{"bytes", 1, NULL, 'n'}, {"count", 1, NULL, 'c'}, {"driver", 1, NULL, 'D'},
		{"keyed", 0, NULL, 'k'}, {0}};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		int64_t v = 0;
		bool number = optarg && str_to_i64(str_of(optarg), &v) && v > 0;
		if (c == 'k')
			plan.keyed = true;
		else if (c == 'D')
			plan.driver = optarg;
		else if (!number)
			die_of_usage();
		else if (c == 't' || c == 'd' || c == 'w' || c == 'b')
			*(c == 't'         ? &plan.threads
				: c == 'd' ? &plan.depth
				: c == 'w' ? &plan.workers
					   : &plan.batch) = (unsigned)v;
		else
			*(c == 's' ? &plan.seconds : c == 'n' ? &plan.bytes : &plan.count) = v;
	}
	if (argc - optind != 2 || plan.bytes > SEALED_MAX_BYTES / 2 || plan.bytes < ENVELOPE_TAG_BYTES ||
		plan.workers > WORKERS_MAX)
		die_of_usage();
	plan.dir = argv[optind];
	plan.mode = mode_of(argv[optind + 1]);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	struct mono began = clock_mono(&clock_system);
	open_queue();
	struct mono opened = clock_mono(&clock_system);
	run();
	struct mono ended = clock_mono(&clock_system);
	struct queue_glance glance;
	queue_glance(queue, &glance);
	double seconds = (double)(ended.ns - opened.ns) / 1e9;
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	printf("%s %s: opened in %.3f s; %.2f s; put %.0f/s; drained %.0f/s; p50 %.2f p99 %.2f p99.9 %.2f ms;"
	       " %.1f ops a commit; cpu %.2f s; rss %ld MiB; %" PRIu64 " left\n",
		plan.driver, plan.mode->name, (double)(opened.ns - began.ns) / 1e9, seconds,
		(double)put_count / seconds, (double)drained_count / seconds, percentile_ms(0.5),
		percentile_ms(0.99), percentile_ms(0.999),
		(double)glance.group.op_count /
			(double)(glance.group.group_count ? glance.group.group_count : 1),
		(double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
		usage.ru_maxrss / 1024, glance.queued);
	queue_close(queue);
	return 0;
}
