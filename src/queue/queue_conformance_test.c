/* queue_conformance_test.c - one suite over every driver: what driver.h promises.
 *
 * A new driver is one row in `subjects`. Each case gets a bed: an open driver, a fake clock, a source of ids.
 * The last cases walk at random, hold the driver against a model that is simple enough to be right, and do so
 * again while the k-th call fails, for every k. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "queue/driver.h"
#include "queue/faulty.h"
#include "queue/redis.h"
#include "queue/redis_server_test.h"
#include "queue/row.h"
#include "queue/spool.h"

enum {
	HOUR_MS = 3600 * 1000,
	IDEMPOTENCY_MS = 24 * HOUR_MS,
	ARENA_BYTES = 16 << 20,
	LEASE_MS = 60000,
	START_MS = 1000000000,
};

struct bed;

/* A driver under test. */
struct subject {
	const char *name;
	const struct queue_driver *driver;
	const struct queue_driver *inner; /* of faulty; of spool the remote one */
	bool persists;                    /* and can be crashed */
	void (*make)(struct bed *b);      /* fills b->location */
	void (*drop)(struct bed *b);
	void (*crash)(struct bed *b); /* as if the process had been killed; leaves the driver closed */
	bool shared;                  /* by several processes, and gathers groups: see driver.h */
	unsigned partitions;          /* of redis */
	bool (*exists)(void);         /* NULL: yes */
};

struct bed {
	const struct subject *subject;
	void *state;
	struct clock_fake clock;
	struct faulty faulty;
	char location[64];
	struct uuid_source ids;
	struct arena arena;
	char worker[16];
	struct redis_options redis;
	struct spool_options spool;
	uint64_t keys_max;
	void *dead[64]; /* states of shared drivers that were killed */
	unsigned dead_count;
};

/* --- places --- */

/* In memory where there is such a place: what a disk does is not the question here. */
static void make_dir(struct bed *b)
{
	const char *place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(b->location, sizeof(b->location), "%s/sealpost-queue-XXXXXX", place);
	assert_non_null(mkdtemp(b->location));
}

static const char *const file_names[] = {"queue.db", "queue.db-wal"};

static void drop_dir(struct bed *b)
{
	for (size_t i = 0; i < ARRAY_LEN(file_names); i++) {
		AUTO(free_auto) char *path = path_join(b->location, file_names[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(b->location), 0);
}

static void copy_file(const char *from, const char *to)
{
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf contents;
	buf_init(&contents, 1 << 30);
	if (file_read(from, contents.ceiling_bytes, &contents, &e) == 0)
		assert_int_equal(file_replace(to, 0600, buf_str(&contents), &e), 0);
	else
		assert_int_equal(e.kind, ERR_NOT_FOUND);
}

/* What the files hold at this moment is what a killed process leaves. */
static void crash_dir(struct bed *b)
{
	struct bed copy = {.subject = b->subject};
	make_dir(&copy);
	for (size_t i = 0; i < ARRAY_LEN(file_names); i++) {
		AUTO(free_auto) char *from = path_join(b->location, file_names[i]);
		AUTO(free_auto) char *to = path_join(copy.location, file_names[i]);
		copy_file(from, to);
	}
	b->subject->driver->close(b->state);
	drop_dir(b);
	memcpy(b->location, copy.location, sizeof(b->location));
}

static void make_nothing(struct bed *b)
{
	b->location[0] = 0;
}

/* One server for all; each bed finds it empty. */
static void make_redis(struct bed *b)
{
	snprintf(b->location, sizeof(b->location), "%.60s", redis_server_url());
	b->redis = (struct redis_options){.partitions = b->subject->partitions, .own_clock = true};
	assert_true(REDIS_SERVER_DO("FLUSHALL"));
}

static const struct queue_driver *real_driver(const struct bed *b)
{
	return b->subject->inner ? b->subject->inner : b->subject->driver;
}

static void drop_redis(struct bed *b)
{
	while (b->dead_count)
		real_driver(b)->close(b->dead[--b->dead_count]);
}

/* A process that died is one that never comes back. */
static void crash_redis(struct bed *b)
{
	assert_true(b->dead_count < ARRAY_LEN(b->dead));
	b->dead[b->dead_count++] = b->subject->inner ? b->faulty.inner_state : b->state;
}

static const struct subject subjects[] = {
	{"memory", &queue_driver_memory, .make = make_nothing, .drop = make_nothing},
	{"sqlite", &queue_driver_sqlite, NULL, true, make_dir, drop_dir, crash_dir},
	{"faulty memory", &queue_driver_faulty, &queue_driver_memory, .make = make_nothing,
		.drop = make_nothing},
	{"spool memory", &queue_driver_spool, &queue_driver_memory, .make = make_nothing,
		.drop = make_nothing},
	{"faulty sqlite", &queue_driver_faulty, &queue_driver_sqlite, true, make_dir, drop_dir, crash_dir},
	{"redis", &queue_driver_redis, NULL, true, make_redis, drop_redis, crash_redis, true, 1,
		redis_server_exists},
	{"redis in 3 partitions", &queue_driver_redis, NULL, true, make_redis, drop_redis, crash_redis, true,
		3, redis_server_exists},
	{"faulty redis", &queue_driver_faulty, &queue_driver_redis, true, make_redis, drop_redis, crash_redis,
		true, 1, redis_server_exists},
	{"spool redis", &queue_driver_spool, &queue_driver_redis, false, make_redis, drop_redis, NULL, true,
		1, redis_server_exists},
};

/* --- the bed --- */

static void *argument(struct bed *b)
{
	if (b->subject->driver == &queue_driver_spool)
		return &b->spool;
	return b->subject->driver == &queue_driver_faulty ? (void *)&b->faulty : (void *)&b->redis;
}

static int try_open(struct bed *b, struct err *e)
{
	struct queue_driver_options o = {
		b->location, &b->clock.clock, IDEMPOTENCY_MS, b->keys_max, argument(b)};
	return b->subject->driver->open(&o, &b->state, e);
}

static void bed_open(struct bed *b)
{
	struct err e = ERR_INIT;
	if (try_open(b, &e) < 0)
		fail_msg("open: %s", e.text);
}

static void bed_close(struct bed *b)
{
	b->subject->driver->close(b->state);
	b->state = NULL;
}

static void bed_reopen(struct bed *b)
{
	bed_close(b);
	bed_open(b);
}

/* Where several processes share the engine, nobody knows who died: the leases have to run out. */
static void bed_crash(struct bed *b)
{
	struct mono next;
	b->subject->crash(b);
	bed_open(b);
	if (!b->subject->shared)
		return;
	clock_fake_advance_ms(&b->clock, LEASE_MS);
	b->subject->driver->tick(b->state, b->clock.ticks, &next);
}

static struct bed *bed_new(const struct subject *subject)
{
	struct bed *b = calloc(1, sizeof(*b));
	assert_non_null(b);
	b->subject = subject;
	b->faulty.inner = subject->inner;
	b->faulty.inner_arg = &b->redis;
	/* A remote engine that never fails: the spool is not to be noticed. */
	b->spool = (struct spool_options){.remote = subject->inner,
		.remote_arg = &b->redis,
		.local = &queue_driver_memory,
		.messages_max = 1000};
	b->faulty.kind = ERR_RETRY;
	clock_fake_init(&b->clock, (struct wall){START_MS});
	uuid_source_init(&b->ids, &b->clock.clock, 0);
	arena_init(&b->arena, ARENA_BYTES);
	subject->make(b);
	bed_open(b);
	return b;
}

static void bed_free(struct bed *b)
{
	bed_close(b);
	b->subject->drop(b);
	arena_clear(&b->arena);
	free(b);
}

/* --- operations, as the group would run them --- */

/* The result of an operation that returned `rc`, once its group has been committed. */
#define RESULT(rc, operation) ((rc) == QUEUE_AT_COMMIT ? (operation)->op.result : (rc))

/* Runs one operation in a group of its own; what a failed group leaves is aborted. */
#define RUN(b, name, operation)                                                                              \
	({                                                                                                   \
		const struct queue_driver *d_ = (b)->subject->driver;                                        \
		struct err *e_ = &(operation)->op.err;                                                       \
		int rc_ = d_->begin((b)->state, e_);                                                         \
		if (rc_ >= 0) {                                                                              \
			rc_ = d_->name((b)->state, operation, e_);                                           \
			if (rc_ < 0 && !queue_is_single(e_))                                                 \
				d_->abort((b)->state);                                                       \
			else if (d_->commit((b)->state, e_) < 0)                                             \
				d_->abort((b)->state), rc_ = -1;                                             \
			rc_ = RESULT(rc_, operation);                                                        \
		}                                                                                            \
		rc_;                                                                                         \
	})

#define RUN_WHOLE(b, name, operation)                                                                        \
	({                                                                                                   \
		int whole_;                                                                                  \
		do                                                                                           \
			whole_ = RUN(b, name, operation);                                                    \
		while (whole_ == QUEUE_UNFINISHED);                                                          \
		whole_;                                                                                      \
	})

/* As RUN, but the group is aborted after the operation succeeded. */
#define RUN_ABORTED(b, name, operation)                                                                      \
	({                                                                                                   \
		const struct queue_driver *d_ = (b)->subject->driver;                                        \
		struct err *e_ = &(operation)->op.err;                                                       \
		assert_int_equal(d_->begin((b)->state, e_), 0);                                              \
		int rc_ = d_->name((b)->state, operation, e_);                                               \
		d_->abort((b)->state);                                                                       \
		rc_ == QUEUE_AT_COMMIT ? 0 : rc_;                                                            \
	})

static struct uuid new_id(struct bed *b)
{
	struct uuid id;
	assert_int_equal(uuid_next(&b->ids, &id, NULL), 0);
	return id;
}

/* A message that a decoder takes; `seal` makes the ciphertexts differ. */
static struct sealed message_of(struct uuid id, struct wall at, const char *client)
{
	static _Thread_local struct buf envelope;
	struct envelope env = {
		.sequence = uuid_order_key(&id), .ciphertext = STR("ciphertext and its authentication tag")};
	if (!envelope.ceiling_bytes)
		buf_init(&envelope, 1024);
	buf_reset(&envelope);
	envelope_encode(&env, &envelope);
	return (struct sealed){.id = id,
		.accepted_at = at,
		.client_id = str_of(client),
		.domain = STR("example"),
		.envelope = buf_str(&envelope)};
}

static struct sealed new_message(struct bed *b)
{
	return message_of(new_id(b), b->clock.now, "alpha");
}

static struct uuid put_from(struct bed *b, const char *client)
{
	struct sealed m = message_of(new_id(b), b->clock.now, client);
	struct queue_put put = {.messages = &m, .count = 1};
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	return m.id;
}

static struct uuid put_one(struct bed *b)
{
	return put_from(b, "alpha");
}

static struct queue_lease lease_for(struct bed *b, unsigned max)
{
	arena_reset(&b->arena);
	return (struct queue_lease){.worker = b->worker[0] ? b->worker : "w1",
		.max = max,
		.lease_ms = LEASE_MS,
		.arena = &b->arena};
}

static struct queue_lease lease_some(struct bed *b, unsigned max)
{
	struct queue_lease lease = lease_for(b, max);
	assert_int_equal(RUN(b, lease, &lease), 0);
	return lease;
}

/* Leases exactly this message. */
static struct queue_ref lease_this(struct bed *b, struct uuid id)
{
	struct queue_lease lease = lease_some(b, 1);
	assert_int_equal(lease.count, 1);
	assert_memory_equal(lease.messages[0].sealed.id.b, id.b, sizeof(id.b));
	return lease.messages[0].ref;
}

/* Leases exactly these, in whichever order they come; *ret_refs in the order given. */
static void lease_all(struct bed *b, const struct uuid *ids, struct queue_ref *ret_refs, unsigned count)
{
	struct queue_lease lease = lease_some(b, count + 1);
	assert_int_equal(lease.count, count);
	for (unsigned i = 0; i < count; i++) {
		unsigned at = 0;
		while (at < count && !uuid_eq(&lease.messages[at].sealed.id, &ids[i]))
			at++;
		assert_true(at < count);
		ret_refs[i] = lease.messages[at].ref;
	}
}

static void assert_nothing_due(struct bed *b)
{
	assert_int_equal(lease_some(b, 100).count, 0);
}

/* Returns whether the verdict came too late. */
static bool settle_one(
	struct bed *b, struct queue_ref ref, enum queue_verdict verdict, int64_t in_ms, const char *why)
{
	struct queue_settlement item = {
		.ref = ref, .verdict = verdict, .due_at = {b->clock.now.ms + in_ms}, .reason = str_of(why)};
	struct queue_settle settle = {.worker = "w1", .items = &item, .count = 1};
	assert_int_equal(RUN(b, settle, &settle), 0);
	assert_int_equal(settle.stale_count, item.stale);
	return item.stale;
}

static bool done(struct bed *b, struct queue_ref ref)
{
	return settle_one(b, ref, QUEUE_DONE, 0, "");
}

static void make_dead(struct bed *b, struct uuid id, const char *why)
{
	assert_false(settle_one(b, lease_this(b, id), QUEUE_DEAD, 0, why));
}

static struct queue_stats stats_of(struct bed *b)
{
	struct queue_stats stats = {0};
	assert_int_equal(b->subject->driver->stats(b->state, &stats, &stats.op.err), 0);
	return stats;
}

static void assert_counts(struct bed *b, uint64_t queued, uint64_t processing, uint64_t failed)
{
	struct queue_stats stats = stats_of(b);
	assert_int_equal(stats.queued, queued);
	assert_int_equal(stats.processing, processing);
	assert_int_equal(stats.failed, failed);
}

static int find(struct bed *b, struct uuid id, struct queue_entry *ret)
{
	struct queue_find op = {.id = id, .arena = &b->arena};
	arena_reset(&b->arena);
	int rc = RUN(b, find, &op);
	if (rc < 0)
		assert_int_equal(op.op.err.kind, ERR_NOT_FOUND);
	*ret = op.entry;
	return rc;
}

static struct queue_entry found(struct bed *b, struct uuid id)
{
	struct queue_entry entry;
	assert_int_equal(find(b, id, &entry), 0);
	return entry;
}

static struct queue_list list_of(struct bed *b, struct queue_filter filter, uint64_t after_key, unsigned max)
{
	struct queue_list list = {.filter = filter,
		.after_key = after_key,
		.progress = after_key,
		.max = max,
		.arena = &b->arena};
	arena_reset(&b->arena);
	assert_int_equal(RUN_WHOLE(b, list, &list), 0);
	return list;
}

static bool tick(struct bed *b, struct mono *ret_next)
{
	struct mono next;
	return b->subject->driver->tick(b->state, b->clock.ticks, ret_next ? ret_next : &next);
}

static void advance(struct bed *b, int64_t ms)
{
	clock_fake_advance_ms(&b->clock, ms);
	tick(b, NULL);
}

/* --- put and lease --- */

static void test_hands_out_what_was_put(void **state)
{
	struct bed *b = *state;
	struct sealed m = new_message(b);
	m.traceparent = STR("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	struct queue_put put = {.messages = &m, .count = 1};
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	assert_int_equal(put.position, 1);

	struct queue_lease lease = lease_some(b, 10);
	assert_int_equal(lease.count, 1);
	assert_int_equal(lease.deadline.ns, mono_add_ms(b->clock.ticks, LEASE_MS).ns);
	const struct queue_message *got = &lease.messages[0];
	assert_int_equal(got->attempt_count, 0);
	assert_memory_equal(got->sealed.id.b, m.id.b, sizeof(m.id.b));
	assert_int_equal(got->sealed.accepted_at.ms, m.accepted_at.ms);
	assert_true(str_eq(got->sealed.client_id, m.client_id));
	assert_true(str_eq(got->sealed.domain, m.domain));
	assert_true(str_eq(got->sealed.traceparent, m.traceparent));
	assert_true(str_eq(got->sealed.envelope, m.envelope));
}

static void test_first_in_first_out(void **state)
{
	struct bed *b = *state;
	struct uuid ids[20];
	for (unsigned i = 0; i < ARRAY_LEN(ids); i++)
		ids[i] = put_one(b);
	for (unsigned i = 0; i < ARRAY_LEN(ids); i++)
		lease_this(b, ids[i]);
}

static void test_position_counts_those_waiting(void **state)
{
	struct bed *b = *state;
	put_one(b);
	struct uuid second = put_one(b);
	struct sealed m[2] = {new_message(b), new_message(b)};
	struct queue_put put = {.messages = m, .count = 2};
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	assert_int_equal(put.position, 3);
	lease_some(b, 1);
	done(b, lease_this(b, second));
	m[0] = new_message(b);
	put.count = 1;
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	assert_int_equal(put.position, 3);
}

static void test_put_is_all_or_none(void **state)
{
	struct bed *b = *state;
	struct uuid known = put_one(b);
	struct sealed m[3] = {new_message(b), message_of(known, b->clock.now, "alpha"), new_message(b)};
	struct queue_put put = {.messages = m, .count = 3};
	assert_int_equal(RUN(b, put, &put), -1);
	assert_int_equal(put.op.err.kind, ERR_CONFLICT);
	assert_counts(b, 1, 0, 0);
	lease_this(b, known);
	assert_nothing_due(b);
	/* A retried and a dead one are known as well. */
	put.messages = &m[1];
	put.count = 1;
	advance(b, LEASE_MS);
	assert_int_equal(RUN(b, put, &put), -1);
	make_dead(b, known, "rejected");
	assert_int_equal(RUN(b, put, &put), -1);
	assert_counts(b, 0, 0, 1);
}

static void test_refused_put_spares_its_group(void **state)
{
	struct bed *b = *state;
	const struct queue_driver *d = b->subject->driver;
	struct uuid known = put_one(b);
	struct sealed good = new_message(b),
		      bad[2] = {new_message(b), message_of(known, b->clock.now, "alpha")};
	struct queue_put first = {.messages = &good, .count = 1}, second = {.messages = bad, .count = 2};
	assert_int_equal(d->begin(b->state, NULL), 0);
	int first_rc = d->put(b->state, &first, &first.op.err);
	int second_rc = d->put(b->state, &second, &second.op.err);
	assert_int_equal(d->commit(b->state, NULL), 0);
	assert_int_equal(RESULT(first_rc, &first), QUEUE_STORED);
	assert_int_equal(RESULT(second_rc, &second), -1);
	assert_int_equal(second.op.err.kind, ERR_CONFLICT);
	assert_counts(b, 2, 0, 0);
	lease_this(b, known);
	lease_this(b, good.id);
	assert_nothing_due(b);
}

static void test_late_key_is_not_passed_over(void **state)
{
	struct bed *b = *state;
	struct sealed late = new_message(b);
	struct uuid first = put_one(b), second = put_one(b);
	lease_this(b, first);
	struct queue_put put = {.messages = &late, .count = 1};
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	/* A shared engine goes by the order of commits. */
	lease_this(b, b->subject->shared ? second : late.id);
	lease_this(b, b->subject->shared ? late.id : second);
}

static void test_put_and_lease_in_one_group(void **state)
{
	struct bed *b = *state;
	const struct queue_driver *d = b->subject->driver;
	struct sealed m = new_message(b);
	struct queue_put put = {.messages = &m, .count = 1};
	struct queue_lease lease = lease_for(b, 5);
	assert_int_equal(d->begin(b->state, NULL), 0);
	int rc = d->put(b->state, &put, NULL);
	assert_int_equal(d->lease(b->state, &lease, NULL), 0);
	assert_int_equal(d->commit(b->state, NULL), 0);
	assert_int_equal(RESULT(rc, &put), QUEUE_STORED);
	assert_int_equal(lease.count, b->subject->shared ? 0 : 1);
	if (b->subject->shared)
		lease_this(b, m.id);
	assert_counts(b, 0, 1, 0);
}

static void test_small_arena_gives_fewer(void **state)
{
	struct bed *b = *state;
	for (unsigned i = 0; i < 50; i++)
		put_one(b);
	struct queue_lease lease = lease_for(b, 50);
	struct arena small;
	arena_init(&small, 50 * sizeof(struct queue_message) + 2000);
	lease.arena = &small;
	assert_int_equal(RUN(b, lease, &lease), 0);
	assert_in_range(lease.count, 1, 49);
	unsigned given = lease.count;
	arena_clear(&small);
	assert_counts(b, 50 - given, given, 0);
	assert_int_equal(lease_some(b, 50).count, 50 - given);

	put_one(b);
	arena_init(&small, 16);
	lease.arena = &small;
	assert_int_equal(RUN(b, lease, &lease), -1);
	assert_int_equal(lease.op.err.kind, ERR_REJECT);
	arena_clear(&small);
	assert_int_equal(lease_some(b, 50).count, 1);
}

/* --- leases --- */

static void test_leased_is_hidden_until_settled(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	struct queue_ref ref = lease_this(b, id);
	assert_nothing_due(b);
	assert_counts(b, 0, 1, 0);
	assert_int_equal(found(b, id).state, MESSAGE_PROCESSING);
	assert_false(done(b, ref));
	assert_counts(b, 0, 0, 0);
	struct queue_entry entry;
	assert_int_equal(find(b, id, &entry), -1);
	assert_true(done(b, ref));
}

static void test_stale_tokens_change_nothing(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	struct queue_ref old = lease_this(b, id);
	advance(b, LEASE_MS);
	struct queue_ref now = lease_this(b, id);
	static const enum queue_verdict verdicts[] = {QUEUE_DONE, QUEUE_RETRY, QUEUE_DEAD, QUEUE_RELEASE};
	for (unsigned i = 0; i < ARRAY_LEN(verdicts); i++)
		assert_true(settle_one(b, old, verdicts[i], 0, "late"));
	struct queue_ref none = now;
	none.token = 0;
	assert_true(done(b, none));
	struct queue_renew renew = {.refs = &old, .count = 1, .lease_ms = LEASE_MS};
	assert_int_equal(RUN(b, renew, &renew), 0);
	assert_int_equal(renew.stale_count, 1);
	assert_counts(b, 0, 1, 0);
	assert_false(done(b, now));
}

static void test_expired_lease_counts_an_attempt(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	struct queue_ref ref = lease_this(b, id);
	struct mono next;
	assert_false(tick(b, &next));
	assert_true(next.ns <= mono_add_ms(b->clock.ticks, LEASE_MS).ns);
	clock_fake_advance_ms(&b->clock, LEASE_MS - 1);
	assert_false(tick(b, NULL));
	clock_fake_advance_ms(&b->clock, 1);
	assert_true(tick(b, NULL));
	assert_true(done(b, ref));
	struct queue_lease again = lease_some(b, 1);
	assert_int_equal(again.count, 1);
	assert_int_equal(again.messages[0].attempt_count, 1);
	struct queue_entry entry = found(b, id);
	assert_int_equal(entry.attempts_kept, 1);
	assert_true(str_eq(entry.attempts[0].worker, STR("w1")));
	assert_true(str_starts(entry.last_reason, STR("lease_expired")));
}

static void test_renewed_lease_lives_on(void **state)
{
	struct bed *b = *state;
	put_one(b), put_one(b);
	struct queue_lease lease = lease_some(b, 2);
	struct queue_ref refs[2] = {lease.messages[0].ref, lease.messages[1].ref};
	advance(b, LEASE_MS - 1);
	struct queue_renew renew = {.refs = refs, .count = 1, .lease_ms = LEASE_MS};
	assert_int_equal(RUN(b, renew, &renew), 0);
	assert_int_equal(renew.stale_count, 0);
	advance(b, LEASE_MS - 1);
	assert_counts(b, 1, 1, 0);
	assert_false(done(b, refs[0]));
	assert_true(done(b, refs[1]));
}

static void test_many_leases_expire(void **state)
{
	struct bed *b = *state;
	struct sealed m[300];
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < ARRAY_LEN(m); i++)
			m[i] = new_message(b);
		struct queue_put put = {.messages = m, .count = ARRAY_LEN(m)};
		assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
		assert_int_equal(lease_some(b, ARRAY_LEN(m)).count, ARRAY_LEN(m));
	}
	clock_fake_advance_ms(&b->clock, LEASE_MS);
	struct mono next;
	do
		tick(b, &next);
	while (next.ns <= b->clock.ticks.ns && stats_of(b).processing);
	assert_counts(b, 4 * ARRAY_LEN(m), 0, 0);
	assert_int_equal(stats_of(b).retrying, 4 * ARRAY_LEN(m));
}

/* --- verdicts --- */

static void test_retry_waits_until_due(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	assert_false(settle_one(b, lease_this(b, id), QUEUE_RETRY, 30000, "unavailable: 503"));
	assert_counts(b, 1, 0, 0);
	assert_int_equal(stats_of(b).retrying, 1);
	assert_nothing_due(b);
	struct queue_entry entry = found(b, id);
	assert_int_equal(entry.state, MESSAGE_QUEUED);
	assert_int_equal(entry.due_at.ms, b->clock.now.ms + 30000);
	assert_int_equal(entry.attempt_count, 1);
	assert_true(str_eq(entry.last_reason, STR("unavailable: 503")));
	struct mono next;
	assert_false(tick(b, &next));
	int64_t due_ns = mono_add_ms(b->clock.ticks, 30000).ns;
	assert_true(b->subject->shared ? next.ns <= due_ns : next.ns == due_ns);
	clock_fake_advance_ms(&b->clock, 30000);
	assert_true(tick(b, NULL));
	assert_int_equal(stats_of(b).oldest_due_ms, 0);
	struct queue_lease lease = lease_some(b, 1);
	assert_int_equal(lease.count, 1);
	assert_int_equal(lease.messages[0].attempt_count, 1);
	assert_int_equal(stats_of(b).retrying, 0);
	assert_false(done(b, lease.messages[0].ref));
	assert_counts(b, 0, 0, 0);
}

static void test_release_counts_nothing(void **state)
{
	struct bed *b = *state;
	struct uuid first = put_one(b), second = put_one(b);
	assert_false(settle_one(b, lease_this(b, first), QUEUE_RELEASE, 0, ""));
	assert_counts(b, 2, 0, 0);
	assert_int_equal(found(b, first).attempt_count, 0);
	lease_this(b, first);
	assert_false(settle_one(b, lease_this(b, second), QUEUE_RETRY, 0, "no"));
	assert_false(settle_one(b, lease_this(b, second), QUEUE_RELEASE, 0, ""));
	struct queue_lease again = lease_some(b, 1);
	assert_int_equal(again.messages[0].attempt_count, 1);
}

static void test_dead_letters_stay(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	make_dead(b, id, "rejected: bad envelope");
	advance(b, 1000000);
	assert_nothing_due(b);
	assert_counts(b, 0, 0, 1);
	struct queue_entry entry = found(b, id);
	assert_int_equal(entry.state, MESSAGE_FAILED);
	assert_int_equal(entry.attempt_count, 1);
	assert_true(str_eq(entry.last_reason, STR("rejected: bad envelope")));
	assert_int_equal(stats_of(b).oldest_age_ms, 0);
	assert_int_equal(stats_of(b).oldest_accepted_at.ms, 0);
}

static void test_history_keeps_the_newest(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b);
	char reason[16];
	for (unsigned i = 0; i < HISTORY_ATTEMPTS + 3; i++) {
		snprintf(reason, sizeof(reason), "reason %u", i);
		assert_false(settle_one(b, lease_this(b, id), QUEUE_RETRY, 0, reason));
	}
	struct queue_entry entry = found(b, id);
	assert_int_equal(entry.attempt_count, HISTORY_ATTEMPTS + 3);
	assert_int_equal(entry.attempts_kept, HISTORY_ATTEMPTS);
	assert_true(str_eq(entry.attempts[0].reason, STR("reason 3")));
	assert_true(str_eq(entry.attempts[HISTORY_ATTEMPTS - 1].reason, STR("reason 34")));
	assert_true(str_eq(entry.last_reason, STR("reason 34")));
	assert_int_equal(entry.attempts[0].at.ms, b->clock.now.ms);
}

static void test_long_reasons_are_cut(void **state)
{
	struct bed *b = *state;
	char reason[HISTORY_REASON_BYTES + 10];
	memset(reason, 'r', sizeof(reason) - 1);
	reason[sizeof(reason) - 1] = 0;
	struct uuid id = put_one(b);
	assert_false(settle_one(b, lease_this(b, id), QUEUE_RETRY, 0, reason));
	assert_int_equal(found(b, id).last_reason.n, HISTORY_REASON_BYTES);
}

static void test_retries_and_new_ones_alternate(void **state)
{
	struct bed *b = *state;
	enum { EACH = 6 };
	for (unsigned i = 0; i < EACH; i++)
		put_one(b);
	struct queue_lease lease = lease_some(b, EACH);
	struct queue_ref refs[EACH];
	for (unsigned i = 0; i < EACH; i++)
		refs[i] = lease.messages[i].ref;
	for (unsigned i = 0; i < EACH; i++)
		assert_false(settle_one(b, refs[i], QUEUE_RETRY, 0, "again"));
	for (unsigned i = 0; i < EACH; i++)
		put_one(b);
	unsigned previous = lease_some(b, 1).messages[0].attempt_count;
	for (unsigned i = 1; i < 2 * EACH; i++) {
		unsigned attempts = lease_some(b, 1).messages[0].attempt_count;
		assert_int_not_equal(attempts, previous);
		previous = attempts;
	}
}

/* --- fairness --- */

/* In one group. */
static void put_many(struct bed *b, const char *client, unsigned count)
{
	AUTO(free_auto) struct sealed *m = calloc(count, sizeof(*m));
	assert_non_null(m);
	for (unsigned i = 0; i < count; i++)
		m[i] = message_of(new_id(b), b->clock.now, client);
	struct queue_put put = {.messages = m, .count = count};
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
}

/* Leases of `batch` until one of this client comes; how many messages came before it. */
static unsigned wait_for_client(struct bed *b, const char *client, unsigned batch)
{
	unsigned before = 0;
	for (;;) {
		struct mono next;
		tick(b, &next);
		struct queue_lease lease = lease_some(b, batch);
		assert_true(lease.count > 0);
		for (unsigned i = 0; i < lease.count; i++, before++)
			if (str_eq(lease.messages[i].sealed.client_id, str_of(client)))
				return before;
	}
}

enum { FLOOD = 900, FLOODS = 20 };

static void flood(struct bed *b)
{
	/* What was there at the start has been looked at. */
	tick(b, NULL);
	for (unsigned i = 0; i < FLOODS; i++)
		put_many(b, "flood", FLOOD);
}

static void test_a_flood_does_not_starve_others(void **state)
{
	struct bed *b = *state;
	if (b->subject->driver == &queue_driver_spool)
		return;
	flood(b);
	put_from(b, "single");
	assert_in_range(wait_for_client(b, "single", 10), 0, 20);
	/* Several at once, and again and again. */
	for (unsigned i = 0; i < 20; i++) {
		put_from(b, "alpha");
		assert_in_range(wait_for_client(b, "alpha", 1), 0, 6);
		put_from(b, "beta");
		assert_in_range(wait_for_client(b, "beta", 1), 0, 6);
	}
}

/* What was behind the flood before a restart has its turn soon, not at the end. */
static void test_a_flood_before_a_restart(void **state)
{
	struct bed *b = *state;
	if (!b->subject->persists)
		return;
	flood(b);
	put_from(b, "single");
	bed_reopen(b);
	assert_in_range(wait_for_client(b, "single", 100), 0, 2500);
}

/* Nothing is lost or comes twice while clients take turns, each in its own order. */
static void test_floods_drain_in_order(void **state)
{
	struct bed *b = *state;
	static const char *const clients[] = {"a", "b", "c"};
	uint64_t previous[ARRAY_LEN(clients)] = {0};
	unsigned put = 0, got = 0;
	if (b->subject->driver == &queue_driver_spool)
		return;
	for (unsigned i = 0; i < 40; i++) {
		unsigned count = i % 3 == 0 ? FLOOD : 50;
		put_many(b, clients[i % 3], count);
		put += count;
	}
	for (struct queue_lease lease; (lease = lease_some(b, 250)).count; got += lease.count) {
		for (unsigned i = 0; i < lease.count; i++) {
			unsigned who = (unsigned)(lease.messages[i].sealed.client_id.p[0] - 'a');
			uint64_t key = uuid_order_key(&lease.messages[i].sealed.id);
			assert_true(key > previous[who]);
			previous[who] = key;
		}
		if (got < 2000)
			put_many(b, clients[got % 3], 20), put += 20;
		tick(b, NULL);
	}
	assert_int_equal(got, put);
}

static void test_retries_of_clients_take_turns(void **state)
{
	struct bed *b = *state;
	enum { COUNT = 600 };
	if (b->subject->driver == &queue_driver_spool)
		return;
	put_many(b, "flood", COUNT);
	put_from(b, "single");
	struct queue_lease lease = lease_some(b, COUNT + 1);
	assert_int_equal(lease.count, COUNT + 1);
	AUTO(free_auto) struct queue_settlement *items = calloc(lease.count, sizeof(*items));
	for (unsigned i = 0; i < lease.count; i++) {
		bool single = str_eq(lease.messages[i].sealed.client_id, STR("single"));
		items[i] = (struct queue_settlement){.ref = lease.messages[i].ref,
			.verdict = QUEUE_RETRY,
			.reason = STR("later"),
			.due_at = {b->clock.now.ms + 1000 + single}};
	}
	struct queue_settle settle = {.items = items, .count = lease.count};
	assert_int_equal(RUN(b, settle, &settle), 0);
	assert_nothing_due(b);
	advance(b, 2000);
	assert_in_range(wait_for_client(b, "single", 10), 0, 600);
}

/* --- idempotency --- */

static struct queue_put keyed_put(struct sealed *m, unsigned count, uint8_t key, uint8_t payload)
{
	struct queue_put put = {.messages = m, .count = count, .has_key = true};
	memset(put.key_hash, key, sizeof(put.key_hash));
	memset(put.payload_hash, payload, sizeof(put.payload_hash));
	return put;
}

static void assert_replayed(struct bed *b, const struct sealed *first, unsigned count, uint64_t position)
{
	struct sealed m = new_message(b);
	struct queue_put put = keyed_put(&m, 1, 1, 1);
	assert_int_equal(RUN(b, put, &put), QUEUE_REPLAYED);
	assert_memory_equal(put.first_id.b, first->id.b, sizeof(put.first_id.b));
	assert_int_equal(put.first_accepted_at.ms, first->accepted_at.ms);
	assert_int_equal(put.first_position, position);
	assert_int_equal(put.first_count, count);
	put.payload_hash[31]++;
	assert_int_equal(RUN(b, put, &put), QUEUE_MISMATCH);
}

static void test_same_key_replays_the_answer(void **state)
{
	struct bed *b = *state;
	put_one(b);
	struct sealed m[2] = {new_message(b), new_message(b)};
	struct queue_put put = keyed_put(m, 2, 1, 1);
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	assert_replayed(b, m, 2, 2);
	assert_counts(b, 3, 0, 0);
	/* Also when the messages are long gone; and other keys are other keys, even with the same print. */
	struct queue_lease lease = lease_some(b, 3);
	struct queue_ref refs[3] = {lease.messages[0].ref, lease.messages[1].ref, lease.messages[2].ref};
	for (unsigned i = 0; i < 3; i++)
		assert_false(done(b, refs[i]));
	assert_replayed(b, m, 2, 2);
	struct sealed other = new_message(b);
	put = keyed_put(&other, 1, 1, 1);
	put.key_hash[31] = 7;
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	assert_counts(b, 1, 0, 0);
	if (b->subject->persists) {
		bed_reopen(b);
		assert_replayed(b, m, 2, 2);
		bed_crash(b);
		assert_replayed(b, m, 2, 2);
	}
}

static void test_same_key_within_a_group(void **state)
{
	struct bed *b = *state;
	const struct queue_driver *d = b->subject->driver;
	struct sealed m = new_message(b), n = new_message(b);
	struct queue_put first = keyed_put(&m, 1, 1, 1), second = keyed_put(&n, 1, 1, 1);
	for (unsigned commit = 0; commit < 2; commit++) {
		assert_int_equal(d->begin(b->state, NULL), 0);
		int first_rc = d->put(b->state, &first, NULL);
		int second_rc = d->put(b->state, &second, NULL);
		if (!commit) {
			d->abort(b->state);
			continue;
		}
		assert_int_equal(d->commit(b->state, NULL), 0);
		assert_int_equal(RESULT(first_rc, &first), QUEUE_STORED);
		assert_int_equal(RESULT(second_rc, &second), QUEUE_REPLAYED);
		assert_memory_equal(second.first_id.b, m.id.b, sizeof(m.id.b));
	}
	assert_counts(b, 1, 0, 0);
	assert_replayed(b, &m, 1, 1);
}

static void test_keys_are_forgotten_in_time(void **state)
{
	struct bed *b = *state;
	struct sealed m = new_message(b);
	struct queue_put put = keyed_put(&m, 1, 1, 1);
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	advance(b, IDEMPOTENCY_MS - 1);
	assert_replayed(b, &m, 1, 1);
	advance(b, HOUR_MS);
	m = new_message(b);
	put = keyed_put(&m, 1, 1, 2);
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
}

static void test_many_keys_are_forgotten(void **state)
{
	struct bed *b = *state;
	struct err e = ERR_INIT;
	const struct queue_driver *d = b->subject->driver;
	for (unsigned round = 0; round < 2; round++) {
		static struct sealed m[1200];
		static struct queue_put puts[ARRAY_LEN(m)];
		int rcs[ARRAY_LEN(m)];
		assert_int_equal(d->begin(b->state, &e), 0);
		for (unsigned i = 0; i < ARRAY_LEN(m); i++) {
			m[i] = new_message(b);
			puts[i] = keyed_put(&m[i], 1, 0, 1);
			memcpy(puts[i].key_hash, &i, sizeof(i));
			puts[i].key_hash[20] = 1;
			rcs[i] = d->put(b->state, &puts[i], &e);
		}
		assert_int_equal(d->commit(b->state, &e), 0);
		for (unsigned i = 0; i < ARRAY_LEN(m); i++)
			assert_int_equal(RESULT(rcs[i], &puts[i]), QUEUE_STORED);
		clock_fake_advance_ms(&b->clock, IDEMPOTENCY_MS + 1);
		for (unsigned i = 0; i < 10; i++)
			tick(b, NULL);
	}
}

/* Puts a message of `client` under a key of its own. */
static int put_under(struct bed *b, const char *client, uint8_t key, bool promised)
{
	struct sealed m = message_of(new_id(b), b->clock.now, client);
	struct queue_put put = keyed_put(&m, 1, key, 1);
	put.key_promised = promised;
	return RUN(b, put, &put);
}

static void bed_limit_keys(struct bed *b, uint64_t max)
{
	bed_close(b);
	b->keys_max = max;
	bed_open(b);
}

static void test_keys_are_bounded(void **state)
{
	struct bed *b = *state;
	bed_limit_keys(b, 2);
	assert_int_equal(put_under(b, "alpha", 1, false), QUEUE_STORED);
	assert_int_equal(stats_of(b).keys, 1);
	assert_int_equal(put_under(b, "beta", 2, false), QUEUE_STORED);
	/* Full: a new key stores nothing, whoever has it; known ones are answered, and messages without go on. */
	static const char *const clients[] = {"alpha", "beta", "gamma", "delta"};
	for (size_t i = 0; i < ARRAY_LEN(clients); i++)
		assert_int_equal(put_under(b, clients[i], 3, false), QUEUE_KEYS_FULL);
	assert_int_equal(put_under(b, "alpha", 1, false), QUEUE_REPLAYED);
	put_one(b);
	assert_counts(b, 3, 0, 0);
	/* What was promised elsewhere is kept all the same. */
	assert_int_equal(put_under(b, "alpha", 4, true), QUEUE_STORED);
	assert_int_equal(put_under(b, "alpha", 4, false), QUEUE_REPLAYED);
	assert_int_equal(stats_of(b).keys, 3);
	if (b->subject->persists) {
		bed_reopen(b);
		assert_int_equal(stats_of(b).keys, 3);
	}
	/* None is forgotten before its time, and all are soon after. */
	advance(b, IDEMPOTENCY_MS - 1);
	assert_int_equal(put_under(b, "alpha", 3, false), QUEUE_KEYS_FULL);
	assert_int_equal(put_under(b, "beta", 2, false), QUEUE_REPLAYED);
	advance(b, HOUR_MS);
	assert_int_equal(put_under(b, "alpha", 3, false), QUEUE_STORED);
	assert_int_equal(stats_of(b).keys, 1);
}

static void test_keys_of_a_group_are_bounded(void **state)
{
	struct bed *b = *state;
	const struct queue_driver *d = b->subject->driver;
	struct sealed m[3] = {new_message(b), new_message(b), new_message(b)};
	struct queue_put puts[ARRAY_LEN(m)];
	bed_limit_keys(b, 2);
	for (unsigned commit = 0; commit < 2; commit++) {
		int rcs[ARRAY_LEN(m)];
		assert_int_equal(d->begin(b->state, NULL), 0);
		for (unsigned i = 0; i < ARRAY_LEN(m); i++) {
			puts[i] = keyed_put(&m[i], 1, (uint8_t)(1 + i), 1);
			rcs[i] = d->put(b->state, &puts[i], NULL);
		}
		if (!commit) {
			d->abort(b->state);
			assert_int_equal(stats_of(b).keys, 0);
			continue;
		}
		assert_int_equal(d->commit(b->state, NULL), 0);
		for (unsigned i = 0; i < ARRAY_LEN(m); i++)
			assert_int_equal(RESULT(rcs[i], &puts[i]), i < 2 ? QUEUE_STORED : QUEUE_KEYS_FULL);
	}
	assert_counts(b, 2, 0, 0);
	assert_int_equal(stats_of(b).keys, 2);
}

/* --- administration --- */

static void test_list_pages_and_filters(void **state)
{
	struct bed *b = *state;
	struct uuid ids[9];
	for (unsigned i = 0; i < ARRAY_LEN(ids); i++) {
		ids[i] = put_from(b, i % 3 ? "alpha" : "beta");
		clock_fake_advance_ms(&b->clock, 10);
	}
	struct queue_ref refs[ARRAY_LEN(ids)];
	lease_all(b, ids, refs, ARRAY_LEN(ids));
	assert_false(settle_one(b, refs[0], QUEUE_DEAD, 0, "rejected: number"));
	assert_false(settle_one(b, refs[1], QUEUE_DEAD, 0, "expired: lifetime"));
	assert_false(settle_one(b, refs[2], QUEUE_RETRY, 5000, "unavailable"));
	for (unsigned i = 4; i < ARRAY_LEN(ids); i++)
		assert_false(settle_one(b, refs[i], QUEUE_RELEASE, 0, ""));

	const struct queue_filter any = {.state = -1};
	unsigned seen = 0;
	uint64_t after = 0;
	for (;;) {
		struct queue_list page = list_of(b, any, after, 2);
		for (unsigned i = 0; i < page.count; i++, seen++)
			assert_memory_equal(page.entries[i].id.b, ids[seen].b, sizeof(ids[seen].b));
		if (page.count < page.max)
			break;
		after = uuid_order_key(&page.entries[page.count - 1].id);
	}
	assert_int_equal(seen, ARRAY_LEN(ids));

	static const struct {
		struct queue_filter filter;
		unsigned count;
	} cases[] = {
		{{.state = MESSAGE_FAILED}, 2},
		{{.state = MESSAGE_PROCESSING}, 1},
		{{.state = MESSAGE_QUEUED}, 6},
		{{.state = MESSAGE_DELIVERED}, 0},
		{{.state = -1, .client_id = STR("beta")}, 3},
		{{.state = -1, .client_id = STR("bet")}, 0},
		{{.state = -1, .domain = STR("example")}, 9},
		{{.state = -1, .domain = STR("other")}, 0},
		{{.state = -1, .reason_has = STR("able")}, 1},
		{{.state = -1, .accepted_before = {START_MS + 40}}, 4},
		{{.state = MESSAGE_FAILED, .client_id = STR("alpha"), .reason_has = STR("lifetime")}, 1},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(list_of(b, cases[i].filter, 0, 100).count, cases[i].count);
	assert_int_equal(list_of(b, any, 0, 0).count, 0);
}

static void test_list_needs_room(void **state)
{
	struct bed *b = *state;
	put_one(b);
	struct arena small;
	arena_init(&small, 16);
	struct queue_list list = {.filter = {.state = -1}, .max = 1, .arena = &small};
	assert_int_equal(RUN_WHOLE(b, list, &list), -1);
	assert_int_equal(list.op.err.kind, ERR_REJECT);
	arena_clear(&small);
	assert_counts(b, 1, 0, 0);
}

static void test_find_wants_the_whole_id(void **state)
{
	struct bed *b = *state;
	struct uuid id = put_one(b), forged = id;
	struct queue_entry entry;
	forged.b[15] ^= 1;
	assert_int_equal(find(b, forged, &entry), -1);
	assert_int_equal(found(b, id).attempts_kept, 0);
	make_dead(b, id, "no");
	struct queue_purge purge = {.ids = &forged, .id_count = 1, .max = 10};
	assert_int_equal(RUN_WHOLE(b, purge, &purge), 0);
	assert_int_equal(purge.matched, 0);
	assert_counts(b, 0, 0, 1);
}

static void test_redrive(void **state)
{
	struct bed *b = *state;
	struct uuid ids[5];
	for (unsigned i = 0; i < ARRAY_LEN(ids); i++) {
		ids[i] = put_one(b);
		make_dead(b, ids[i], i < 3 ? "rejected" : "expired");
	}
	struct uuid waiting = put_one(b), chosen[] = {waiting, ids[4], new_id(b)};
	struct queue_redrive redrive = {.filter = {.reason_has = STR("rejected")}, .max = 2, .dry_run = true};
	assert_int_equal(RUN_WHOLE(b, redrive, &redrive), 0);
	assert_int_equal(redrive.matched, 2);
	assert_counts(b, 1, 0, 5);

	redrive.dry_run = false;
	redrive.matched = redrive.progress = 0;
	assert_int_equal(RUN_ABORTED(b, redrive, &redrive), 0);
	assert_counts(b, 1, 0, 5);
	redrive.matched = redrive.progress = 0;
	assert_int_equal(RUN_WHOLE(b, redrive, &redrive), 0);
	assert_int_equal(redrive.matched, 2);
	assert_counts(b, 3, 0, 3);

	redrive = (struct queue_redrive){.ids = chosen, .id_count = ARRAY_LEN(chosen), .max = 10};
	assert_int_equal(RUN_WHOLE(b, redrive, &redrive), 0);
	assert_int_equal(redrive.matched, 1);
	assert_counts(b, 4, 0, 2);
	assert_int_equal(stats_of(b).retrying, 0);
	struct queue_entry entry = found(b, ids[4]);
	assert_int_equal(entry.state, MESSAGE_QUEUED);
	assert_int_equal(entry.attempt_count, 0);
	assert_int_equal(entry.attempts_kept, 1);
	struct queue_lease lease = lease_some(b, 10);
	assert_int_equal(lease.count, 4);
	for (unsigned i = 0; i < lease.count; i++)
		assert_int_equal(lease.messages[i].attempt_count, 0);
}

static void test_purge(void **state)
{
	struct bed *b = *state;
	struct uuid ids[4];
	for (unsigned i = 0; i < ARRAY_LEN(ids); i++) {
		ids[i] = put_one(b);
		make_dead(b, ids[i], "rejected");
	}
	put_one(b);
	struct queue_purge purge = {.ids = ids, .id_count = 2, .max = 10, .dry_run = true};
	assert_int_equal(RUN_WHOLE(b, purge, &purge), 0);
	assert_int_equal(purge.matched, 2);
	purge.dry_run = false;
	purge.matched = 0;
	assert_int_equal(RUN_ABORTED(b, purge, &purge), 0);
	assert_counts(b, 1, 0, 4);
	purge.matched = 0;
	assert_int_equal(RUN_WHOLE(b, purge, &purge), 0);
	assert_int_equal(purge.matched, 2);
	assert_counts(b, 1, 0, 2);
	purge = (struct queue_purge){.filter = {.state = -1}, .max = 10};
	assert_int_equal(RUN_WHOLE(b, purge, &purge), 0);
	assert_int_equal(purge.matched, 2);
	assert_counts(b, 1, 0, 0);
}

static void test_long_scans_come_in_parts(void **state)
{
	struct bed *b = *state;
	enum { COUNT = SCAN_ROWS + 100 };
	AUTO(free_auto) struct sealed *m = calloc(COUNT, sizeof(*m));
	for (unsigned i = 0; i < COUNT; i++)
		m[i] = new_message(b);
	struct queue_put put = {.messages = m, .count = COUNT};
	assert_int_equal(RUN(b, put, &put), QUEUE_STORED);

	struct queue_list list = {.filter = {.state = MESSAGE_FAILED + 0, .client_id = STR("nobody")},
		.max = 1,
		.arena = &b->arena};
	list.filter.state = -1;
	assert_int_equal(RUN(b, list, &list), QUEUE_UNFINISHED);
	assert_int_equal(RUN(b, list, &list), 0);
	assert_int_equal(list.count, 0);

	struct queue_lease lease = lease_some(b, COUNT);
	assert_int_equal(lease.count, COUNT);
	AUTO(free_auto) struct queue_settlement *items = calloc(COUNT, sizeof(*items));
	for (unsigned i = 0; i < COUNT; i++)
		items[i] = (struct queue_settlement){
			.ref = lease.messages[i].ref, .verdict = QUEUE_DEAD, .reason = STR("rejected")};
	struct queue_settle settle = {.worker = "w1", .items = items, .count = COUNT};
	assert_int_equal(RUN(b, settle, &settle), 0);
	assert_counts(b, 0, 0, COUNT);

	struct queue_redrive redrive = {.filter = {.state = -1}, .max = COUNT};
	assert_int_equal(RUN(b, redrive, &redrive), QUEUE_UNFINISHED);
	assert_int_equal(redrive.matched, SCAN_ROWS);
	assert_counts(b, SCAN_ROWS, 0, 100);
	assert_int_equal(RUN(b, redrive, &redrive), 0);
	assert_int_equal(redrive.matched, COUNT);
	assert_counts(b, COUNT, 0, 0);
}

static void test_pauses_are_kept(void **state)
{
	struct bed *b = *state;
	struct queue_pause accept = {.accept = true, .on = true, .reason = "disk is full"};
	struct queue_pause delivery = {.on = true, .reason = "maintenance"};
	assert_int_equal(RUN_ABORTED(b, pause, &accept), 0);
	assert_false(stats_of(b).accept_paused);
	assert_int_equal(RUN(b, pause, &accept), 0);
	assert_int_equal(RUN(b, pause, &delivery), 0);
	if (b->subject->persists)
		bed_crash(b);
	struct queue_stats stats = stats_of(b);
	assert_true(stats.accept_paused);
	assert_true(stats.delivery_paused);
	assert_string_equal(stats.accept_reason, "disk is full");
	assert_string_equal(stats.delivery_reason, "maintenance");
	accept = (struct queue_pause){.accept = true};
	assert_int_equal(RUN(b, pause, &accept), 0);
	stats = stats_of(b);
	assert_false(stats.accept_paused);
	assert_true(stats.delivery_paused);
	assert_string_equal(stats.accept_reason, "");
}

static void test_stats_tell_ages(void **state)
{
	struct bed *b = *state;
	assert_counts(b, 0, 0, 0);
	assert_int_equal(stats_of(b).oldest_age_ms, 0);
	struct uuid first = put_one(b);
	clock_fake_advance_ms(&b->clock, 500);
	struct uuid second = put_one(b);
	clock_fake_advance_ms(&b->clock, 500);
	struct queue_stats stats = stats_of(b);
	assert_int_equal(stats.oldest_age_ms, 1000);
	assert_int_equal(stats.oldest_due_ms, 1000);
	assert_int_equal(stats.oldest_accepted_at.ms, START_MS);
	struct queue_ref ref = lease_this(b, first);
	stats = stats_of(b);
	assert_int_equal(stats.oldest_age_ms, 1000);
	assert_int_equal(stats.oldest_due_ms, 500);
	assert_false(done(b, ref));
	assert_int_equal(stats_of(b).oldest_age_ms, 500);
	assert_false(settle_one(b, lease_this(b, second), QUEUE_RETRY, 100, "later"));
	stats = stats_of(b);
	assert_int_equal(stats.oldest_age_ms, 500);
	assert_int_equal(stats.oldest_due_ms, 0);
}

static void test_floor_key(void **state)
{
	struct bed *b = *state;
	assert_int_equal(b->subject->driver->floor_key(b->state), 0);
	struct uuid id = put_one(b);
	assert_false(done(b, lease_this(b, id)));
	if (b->subject->persists)
		bed_reopen(b);
	assert_int_equal(b->subject->driver->floor_key(b->state), uuid_order_key(&id));
	assert_true(strlen(b->subject->driver->durability(b->state)) > 0);
}

static void test_probe(void **state)
{
	struct bed *b = *state;
	struct err e = ERR_INIT;
	put_one(b);
	assert_int_equal(b->subject->driver->probe(b->state, &e), 0);
	assert_counts(b, 1, 0, 0);
}

/* --- undo --- */

static void test_abort_undoes_everything(void **state)
{
	struct bed *b = *state;
	struct uuid dead = put_one(b);
	make_dead(b, dead, "rejected");
	struct uuid first = put_one(b), second = put_one(b), third = put_one(b);

	struct sealed m = new_message(b);
	struct queue_put put = keyed_put(&m, 1, 1, 1);
	assert_int_equal(RUN_ABORTED(b, put, &put), QUEUE_STORED);
	assert_counts(b, 3, 0, 1);

	struct queue_lease lease = lease_for(b, 10);
	assert_int_equal(RUN_ABORTED(b, lease, &lease), 0);
	assert_int_equal(lease.count, 3);
	struct queue_ref gone = lease.messages[0].ref;
	assert_true(done(b, gone));
	assert_counts(b, 3, 0, 1);

	struct queue_ref refs[3] = {lease_this(b, first), lease_this(b, second), lease_this(b, third)};
	static const enum queue_verdict verdicts[] = {QUEUE_DONE, QUEUE_RETRY, QUEUE_DEAD, QUEUE_RELEASE};
	for (unsigned i = 0; i < ARRAY_LEN(verdicts); i++) {
		struct queue_settlement items[3];
		for (unsigned j = 0; j < 3; j++)
			items[j] = (struct queue_settlement){.ref = refs[j],
				.verdict = verdicts[i],
				.due_at = b->clock.now,
				.reason = STR("x")};
		struct queue_settle settle = {.items = items, .count = 3};
		assert_int_equal(RUN_ABORTED(b, settle, &settle), 0);
		assert_int_equal(settle.stale_count, 0);
		assert_counts(b, 0, 3, 1);
		assert_nothing_due(b);
	}
	struct queue_renew renew = {.refs = refs, .count = 3, .lease_ms = (int64_t)10 * LEASE_MS};
	assert_int_equal(RUN_ABORTED(b, renew, &renew), 0);
	advance(b, LEASE_MS);
	assert_counts(b, 3, 0, 1);
}

/* --- restart --- */

static void test_restart_keeps_everything(void **state)
{
	struct bed *b = *state;
	if (!b->subject->persists)
		return;
	struct uuid dead = put_one(b);
	make_dead(b, dead, "rejected");
	struct uuid retried = put_one(b);
	assert_false(settle_one(b, lease_this(b, retried), QUEUE_RETRY, 1000, "later"));
	struct uuid held = put_one(b), fresh = put_one(b);
	struct queue_ref ref = lease_this(b, held);
	bed_reopen(b);
	assert_counts(b, 3, 0, 1);
	assert_int_equal(stats_of(b).retrying, 1);
	assert_true(done(b, ref));
	lease_this(b, held);
	assert_int_equal(found(b, held).attempt_count, 0);
	lease_this(b, fresh);
	assert_nothing_due(b);
	advance(b, 1000);
	lease_this(b, retried);
	assert_int_equal(found(b, retried).attempt_count, 1);
	assert_int_equal(found(b, dead).state, MESSAGE_FAILED);
}

static void test_crash_counts_what_was_held(void **state)
{
	struct bed *b = *state;
	if (!b->subject->persists)
		return;
	struct uuid retried = put_one(b);
	assert_false(settle_one(b, lease_this(b, retried), QUEUE_RETRY, 0, "later"));
	snprintf(b->worker, sizeof(b->worker), "deadly");
	lease_this(b, retried);
	struct uuid held = put_one(b), settled = put_one(b), fresh = put_one(b);
	struct queue_lease lease = lease_some(b, 2);
	assert_int_equal(lease.count, 2);
	struct queue_ref ref = lease.messages[1].ref;
	assert_false(settle_one(b, ref, QUEUE_RETRY, 0, "once"));
	bed_crash(b);
	assert_counts(b, 4, 0, 0);
	assert_int_equal(found(b, held).attempt_count, 1);
	assert_int_equal(found(b, settled).attempt_count, 1);
	assert_int_equal(found(b, fresh).attempt_count, 0);
	struct queue_entry entry = found(b, retried);
	assert_int_equal(entry.attempt_count, 2);
	assert_true(str_eq(entry.attempts[1].worker, STR("deadly")));
	assert_int_equal(lease_some(b, 10).count, 4);
	/* Once is enough: these leases end in order. */
	bed_reopen(b);
	assert_int_equal(found(b, held).attempt_count, 1);
}

static void test_second_open_is_refused(void **state)
{
	struct bed *b = *state;
	if (!b->subject->persists || b->subject->shared)
		return;
	struct err e = ERR_INIT;
	const struct queue_driver *d = real_driver(b);
	struct queue_driver_options o = {b->location, &b->clock.clock, IDEMPOTENCY_MS, 0, NULL};
	void *second;
	assert_int_equal(d->open(&o, &second, &e), -1);
	assert_int_equal(e.kind, ERR_CONFLICT);
	put_one(b);
}

/* --- the walk --- */

enum { WALK_MESSAGES = 400 };

struct model_message {
	struct uuid id;
	enum { NOT_THERE, WAITING, HELD, DEAD } state;
	unsigned attempts;
	int64_t due_ms;
	struct queue_ref ref;
	bool changed; /* by the group under way, and a shared engine does not see that yet */
};

struct model {
	struct model_message messages[WALK_MESSAGES];
	unsigned count;
};

struct walk {
	struct bed *bed;
	struct model model, before; /* now, and when the group began */
	uint64_t random;
	bool failed;                /* the group */
	struct arena operations;    /* its own: they live until its commit */
	struct queue_settle *stale; /* one that has to turn out so; NULL: none */
	struct err e;
};

static unsigned pick(struct walk *w, unsigned below)
{
	/* xorshift64: the walk is the same each time */
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (unsigned)(w->random % below);
}

static struct model_message *model_find(struct model *m, const struct uuid *id)
{
	for (unsigned i = 0; i < m->count; i++)
		if (uuid_eq(&m->messages[i].id, id))
			return &m->messages[i];
	fail_msg("a message that was never put");
	return m->messages;
}

static unsigned model_count(const struct model *m, int state)
{
	unsigned count = 0;
	for (unsigned i = 0; i < m->count; i++)
		count += (int)m->messages[i].state == state;
	return count;
}

/* The n-th message in this state, or NULL. */
static struct model_message *model_nth(struct model *m, int state, unsigned n)
{
	for (unsigned i = 0; i < m->count; i++)
		if ((int)m->messages[i].state == state && n-- == 0)
			return &m->messages[i];
	return NULL;
}

static void note_change(struct walk *w, struct model_message *m)
{
	m->changed = w->bed->subject->shared;
}

/* Zeroed, until the group ends. */
#define FOR_GROUP(w, type, count)                                                                            \
	({                                                                                                   \
		type *p_ = arena_zalloc(&(w)->operations, (count) * sizeof(*p_));                            \
		assert_non_null(p_);                                                                         \
		p_;                                                                                          \
	})

static struct model_message *model_any(struct walk *w, int state)
{
	unsigned count = model_count(&w->model, state);
	return count ? model_nth(&w->model, state, pick(w, count)) : NULL;
}

static unsigned model_due(const struct walk *w)
{
	unsigned count = 0;
	for (unsigned i = 0; i < w->model.count; i++)
		count += w->model.messages[i].state == WAITING && !w->model.messages[i].changed &&
			 w->model.messages[i].due_ms <= w->bed->clock.now.ms;
	return count;
}

static bool ok(struct walk *w, int rc)
{
	w->failed = w->failed || rc < 0;
	return !w->failed;
}

static void walk_put(struct walk *w)
{
	unsigned count = 1 + pick(w, 3);
	if (w->model.count + count > WALK_MESSAGES)
		return;
	struct sealed *m = FOR_GROUP(w, struct sealed, count);
	for (unsigned i = 0; i < count; i++)
		m[i] = new_message(w->bed);
	struct queue_put *put = FOR_GROUP(w, struct queue_put, 1);
	*put = (struct queue_put){.messages = m, .count = count};
	if (!ok(w, w->bed->subject->driver->put(w->bed->state, put, &w->e)))
		return;
	for (unsigned i = 0; i < count; i++) {
		struct model_message *added = &w->model.messages[w->model.count++];
		*added = (struct model_message){
			.id = m[i].id, .state = WAITING, .due_ms = w->bed->clock.now.ms};
		note_change(w, added);
	}
}

static void walk_lease(struct walk *w)
{
	struct queue_lease lease = lease_for(w->bed, 1 + pick(w, 8));
	unsigned due = model_due(w);
	if (!ok(w, w->bed->subject->driver->lease(w->bed->state, &lease, &w->e)))
		return;
	assert_int_equal(lease.count, due < lease.max ? due : lease.max);
	for (unsigned i = 0; i < lease.count; i++) {
		struct model_message *m = model_find(&w->model, &lease.messages[i].sealed.id);
		assert_int_equal(m->state, WAITING);
		assert_true(m->due_ms <= w->bed->clock.now.ms);
		assert_int_equal(m->attempts, lease.messages[i].attempt_count);
		m->state = HELD;
		m->ref = lease.messages[i].ref;
	}
}

static void walk_settle(struct walk *w)
{
	struct queue_settlement *items = FOR_GROUP(w, struct queue_settlement, 4);
	struct model_message *of[4];
	unsigned count = 0;
	for (unsigned i = 0, n = 1 + pick(w, 4); i < n; i++) {
		struct model_message *m = model_nth(&w->model, HELD, i);
		if (!m)
			break;
		of[count] = m;
		items[count++] = (struct queue_settlement){.ref = m->ref,
			.verdict = pick(w, 4),
			.reason = STR("walk"),
			.due_at = {w->bed->clock.now.ms + (int64_t)pick(w, 5000)}};
	}
	struct queue_settle *settle = FOR_GROUP(w, struct queue_settle, 1);
	*settle = (struct queue_settle){.items = items, .count = count};
	if (!ok(w, w->bed->subject->driver->settle(w->bed->state, settle, &w->e)))
		return;
	assert_int_equal(settle->stale_count, 0);
	for (unsigned i = 0; i < count; i++) {
		note_change(w, of[i]);
		enum queue_verdict v = items[i].verdict;
		of[i]->state = v == QUEUE_DONE ? NOT_THERE : v == QUEUE_DEAD ? DEAD : WAITING;
		of[i]->attempts += v == QUEUE_RETRY || v == QUEUE_DEAD;
		if (v == QUEUE_RETRY)
			of[i]->due_ms = items[i].due_at.ms;
	}
}

static void walk_stale(struct walk *w)
{
	struct model_message *m = model_any(w, WAITING);
	if (!m || !m->ref.token)
		return;
	struct queue_settlement *item = FOR_GROUP(w, struct queue_settlement, 1);
	*item = (struct queue_settlement){.ref = m->ref, .verdict = QUEUE_DONE};
	w->stale = FOR_GROUP(w, struct queue_settle, 1);
	*w->stale = (struct queue_settle){.items = item, .count = 1};
	(void)ok(w, w->bed->subject->driver->settle(w->bed->state, w->stale, &w->e));
}

static void walk_redrive(struct walk *w)
{
	struct model_message *m = model_any(w, DEAD);
	if (!m || m->changed)
		return;
	struct queue_redrive *redrive = FOR_GROUP(w, struct queue_redrive, 1);
	*redrive = (struct queue_redrive){.ids = &m->id, .id_count = 1, .max = 1};
	if (!ok(w, w->bed->subject->driver->redrive(w->bed->state, redrive, &w->e)))
		return;
	assert_int_equal(redrive->matched, 1);
	note_change(w, m);
	m->state = WAITING;
	m->attempts = 0;
	m->due_ms = w->bed->clock.now.ms;
}

static void walk_purge(struct walk *w)
{
	struct model_message *m = model_any(w, DEAD);
	if (!m || m->changed)
		return;
	struct queue_purge *purge = FOR_GROUP(w, struct queue_purge, 1);
	*purge = (struct queue_purge){.ids = &m->id, .id_count = 1, .max = 1};
	if (!ok(w, w->bed->subject->driver->purge(w->bed->state, purge, &w->e)))
		return;
	assert_int_equal(purge->matched, 1);
	note_change(w, m);
	m->state = NOT_THERE;
}

/* What a restart or the end of a lease does to those held. */
static void model_end_leases(struct walk *w, bool counted)
{
	for (unsigned i = 0; i < w->model.count; i++) {
		struct model_message *m = &w->model.messages[i];
		if (m->state != HELD)
			continue;
		m->state = WAITING;
		if (counted)
			m->due_ms = w->bed->clock.now.ms;
		m->attempts += counted;
	}
}

static void walk_group(struct walk *w)
{
	static void (*const steps[])(struct walk *) = {walk_put, walk_put, walk_lease, walk_lease,
		walk_settle, walk_settle, walk_settle, walk_stale, walk_redrive, walk_purge};
	const struct queue_driver *d = w->bed->subject->driver;
	w->before = w->model;
	w->failed = false;
	w->stale = NULL;
	arena_reset(&w->operations);
	if (d->begin(w->bed->state, &w->e) < 0)
		return;
	for (unsigned n = 1 + pick(w, 4); n && !w->failed; n--)
		steps[pick(w, ARRAY_LEN(steps))](w);
	bool abort = pick(w, 8) == 0;
	if (w->failed || abort || d->commit(w->bed->state, &w->e) < 0) {
		d->abort(w->bed->state);
		w->model = w->before;
	} else if (w->stale) {
		assert_int_equal(w->stale->stale_count, 1);
	}
	for (unsigned i = 0; i < w->model.count; i++)
		w->model.messages[i].changed = false;
}

static void walk_between(struct walk *w)
{
	struct bed *b = w->bed;
	switch (pick(w, 16)) {
	case 0:
		clock_fake_advance_ms(&b->clock, LEASE_MS);
		tick(b, NULL);
		model_end_leases(w, true);
		break;
	case 1:
		advance(b, 1000);
		break;
	case 2:
		if (b->subject->persists) {
			bed_reopen(b);
			model_end_leases(w, false);
		}
		break;
	case 3:
		if (b->subject->persists) {
			bed_crash(b);
			model_end_leases(w, true);
		}
		break;
	default:
		break;
	}
}

static void walk_verify(struct walk *w)
{
	struct bed *b = w->bed;
	static const enum message_state seen_as[] = {
		[WAITING] = MESSAGE_QUEUED, [HELD] = MESSAGE_PROCESSING, [DEAD] = MESSAGE_FAILED};
	assert_counts(b, model_count(&w->model, WAITING), model_count(&w->model, HELD),
		model_count(&w->model, DEAD));
	struct queue_list list = list_of(b, (struct queue_filter){.state = -1}, 0, WALK_MESSAGES + 1);
	assert_int_equal(list.count, w->model.count - model_count(&w->model, NOT_THERE));
	unsigned retrying = 0;
	for (unsigned i = 0; i < list.count; i++) {
		struct model_message *m = model_find(&w->model, &list.entries[i].id);
		assert_int_not_equal(m->state, NOT_THERE);
		assert_int_equal(list.entries[i].state, seen_as[m->state]);
		assert_int_equal(list.entries[i].attempt_count, m->attempts);
		retrying += m->state == WAITING && m->attempts;
	}
	assert_int_equal(stats_of(b).retrying, retrying);
}

/* Everything that waits can be had, once. */
static void walk_drain(struct walk *w)
{
	struct bed *b = w->bed;
	advance(b, (int64_t)2 * LEASE_MS);
	model_end_leases(w, true);
	unsigned left = model_count(&w->model, WAITING);
	while (left) {
		struct queue_lease lease = lease_some(b, 64);
		assert_in_range(lease.count, 1, left);
		left -= lease.count;
	}
	assert_nothing_due(b);
}

/* No call to the driver fails while it is looked at. */
static void walk_look(struct walk *w, void (*look)(struct walk *))
{
	unsigned fail_at = w->bed->faulty.fail_at, calls = w->bed->faulty.calls;
	w->bed->faulty.fail_at = 0;
	look(w);
	w->bed->faulty.calls = calls;
	w->bed->faulty.fail_at = fail_at;
}

static struct walk *walk_new(struct bed *b, uint64_t seed)
{
	struct walk *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	w->bed = b;
	w->random = seed;
	arena_init(&w->operations, ARENA_BYTES);
	return w;
}

static void walk_free(struct walk *w)
{
	if (w)
		arena_clear(&w->operations);
	free(w);
}

AUTO_DEFINE(walk_free, struct walk *)

static void test_random_walk(void **state)
{
	AUTO(walk_free_auto) struct walk *w = walk_new(*state, 0x9e3779b97f4a7c15);
	for (unsigned i = 0; i < 400; i++) {
		walk_group(w);
		walk_between(w);
		if (i % 8 == 0)
			walk_look(w, walk_verify);
	}
	walk_look(w, walk_verify);
	walk_look(w, walk_drain);
}

/* The same short walk, over and over, with the k-th call failing. */
static void test_every_call_may_fail(void **state)
{
	struct bed *b = *state;
	if (b->subject->driver != &queue_driver_faulty)
		return;
	const struct subject *subject = b->subject;
	bool reached = true;
	for (unsigned k = 1; reached; k++) {
		struct bed *own = bed_new(subject);
		AUTO(walk_free_auto) struct walk *w = walk_new(own, 88172645463325252);
		own->faulty.kind = k % 3 ? ERR_RETRY : ERR_FATAL;
		faulty_fail(&own->faulty, NULL, k, 1 + k % 2);
		for (unsigned i = 0; i < 30; i++)
			walk_group(w);
		reached = own->faulty.calls >= k;
		walk_look(w, walk_verify);
		faulty_fail(&own->faulty, NULL, 0, 0);
		if (subject->persists) {
			bed_crash(own);
			model_end_leases(w, true);
			walk_verify(w);
		}
		walk_drain(w);
		bed_free(own);
	}
}

/* --- many --- */

/* More than any window in memory: in order, each once, with others coming meanwhile. */
static void test_backlog(void **state)
{
	struct bed *b = *state;
	enum { GROUP = 1000, GROUPS = 11, TAKE = 500 };
	AUTO(free_auto) struct sealed *m = calloc(GROUP, sizeof(*m));
	AUTO(free_auto) struct queue_settlement *items = calloc(TAKE, sizeof(*items));
	for (unsigned g = 0; g < GROUPS; g++) {
		for (unsigned i = 0; i < GROUP; i++)
			m[i] = new_message(b);
		struct queue_put put = {.messages = m, .count = GROUP};
		assert_int_equal(RUN(b, put, &put), QUEUE_STORED);
	}
	if (b->subject->persists)
		bed_reopen(b);
	uint64_t previous = 0;
	unsigned got = 0;
	for (struct queue_lease lease; (lease = lease_some(b, TAKE)).count; got += lease.count) {
		for (unsigned i = 0; i < lease.count; i++) {
			uint64_t key = uuid_order_key(&lease.messages[i].sealed.id);
			assert_true(key > previous);
			previous = key;
			items[i] = (struct queue_settlement){
				.ref = lease.messages[i].ref, .verdict = QUEUE_DONE};
		}
		struct queue_settle settle = {.items = items, .count = lease.count};
		assert_int_equal(RUN(b, settle, &settle), 0);
		if (got < 2 * TAKE)
			put_one(b);
	}
	assert_int_equal(got, GROUP * GROUPS + 2);
	assert_counts(b, 0, 0, 0);
}

/* --- the table --- */

#define CASE(name)                                                                                           \
	{                                                                                                    \
#name, test_##name                                                                           \
	}

static const struct {
	const char *name;
	void (*run)(void **state);
} cases[] = {
	CASE(hands_out_what_was_put),
	CASE(first_in_first_out),
	CASE(position_counts_those_waiting),
	CASE(put_is_all_or_none),
	CASE(refused_put_spares_its_group),
	CASE(late_key_is_not_passed_over),
	CASE(put_and_lease_in_one_group),
	CASE(small_arena_gives_fewer),
	CASE(leased_is_hidden_until_settled),
	CASE(stale_tokens_change_nothing),
	CASE(expired_lease_counts_an_attempt),
	CASE(renewed_lease_lives_on),
	CASE(many_leases_expire),
	CASE(retry_waits_until_due),
	CASE(release_counts_nothing),
	CASE(dead_letters_stay),
	CASE(history_keeps_the_newest),
	CASE(long_reasons_are_cut),
	CASE(retries_and_new_ones_alternate),
	CASE(a_flood_does_not_starve_others),
	CASE(a_flood_before_a_restart),
	CASE(floods_drain_in_order),
	CASE(retries_of_clients_take_turns),
	CASE(same_key_replays_the_answer),
	CASE(same_key_within_a_group),
	CASE(keys_are_forgotten_in_time),
	CASE(many_keys_are_forgotten),
	CASE(keys_are_bounded),
	CASE(keys_of_a_group_are_bounded),
	CASE(list_pages_and_filters),
	CASE(list_needs_room),
	CASE(find_wants_the_whole_id),
	CASE(redrive),
	CASE(purge),
	CASE(long_scans_come_in_parts),
	CASE(pauses_are_kept),
	CASE(stats_tell_ages),
	CASE(floor_key),
	CASE(probe),
	CASE(abort_undoes_everything),
	CASE(restart_keeps_everything),
	CASE(crash_counts_what_was_held),
	CASE(second_open_is_refused),
	CASE(random_walk),
	CASE(every_call_may_fail),
	CASE(backlog),
};

static int set_up(void **state)
{
	*state = bed_new(*state);
	return 0;
}

static void test_without_engine(void **state)
{
	(void)state;
	print_message("the engine's server is not installed (scripts/deps test)\n");
	skip();
}

static int tear_down(void **state)
{
	bed_free(*state);
	return 0;
}

int main(void)
{
	static struct CMUnitTest tests[ARRAY_LEN(subjects) * ARRAY_LEN(cases)];
	static char names[ARRAY_LEN(tests)][64];
	for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
		const struct subject *subject = &subjects[i / ARRAY_LEN(cases)];
		size_t c = i % ARRAY_LEN(cases);
		snprintf(names[i], sizeof(names[i]), "%s: %s", subject->name, cases[c].name);
		/* cmocka hands initial_state on as it is; set_up only reads it. */
		tests[i] = (struct CMUnitTest){
			names[i], cases[c].run, set_up, tear_down, (void *)(uintptr_t)subject};
		if (subject->exists && !subject->exists())
			tests[i] = (struct CMUnitTest){names[i], test_without_engine, NULL, NULL, NULL};
	}
	return cmocka_run_group_tests_name("queue drivers", tests, NULL, NULL);
}
