/* engines.c - see engines.h. */
#include "cli/engines.h"

#include "base/metrics.h"
#include "queue/driver.h"
#include "queue/redis.h"
#include "queue/spool.h"
#include "store/driver.h"

enum { STORE_LIMIT = 4096, STORE_GROUP = 64, SPOOL_RETRY_GROWTH = 10 };

/* --- the store --- */

static void observe_store(void *arg, unsigned ops, int64_t commit_ns)
{
	(void)arg;
	metric_observe(METRIC_STORE_GROUP_SIZE, ops);
	metric_observe(METRIC_STORE_COMMIT_SECONDS, (uint64_t)commit_ns);
}

int engines_open_store(
	const struct paths *paths, const struct config *config, struct store **ret, struct err *e)
{
	static const char *const drivers[] = {"sqlite", "mysql", "memory"};
	struct store_options o = {
		.driver = store_driver_find(drivers[config->store_driver]),
		.location = paths->store,
		.clock = &clock_system,
		.write_limit = STORE_LIMIT,
		.group_max = STORE_GROUP,
		.observe = observe_store,
	};
	if (!o.driver)
		return err_set(
			e, ERR_FATAL, "this build has no store driver '%s'", drivers[config->store_driver]);
	return store_open(&o, ret, e) < 0 ? err_context(e, "store") : 0;
}

/* --- the queue --- */

static void observe_queue(void *arg, unsigned ops, int64_t commit_ns)
{
	(void)arg;
	metric_observe(METRIC_GROUP_SIZE, ops);
	metric_observe(METRIC_COMMIT_SECONDS, (uint64_t)commit_ns);
}

static struct redis_options redis_options_of(const struct config *config)
{
	return (struct redis_options){
		.url = config->redis_url,
		.user = config->redis_user,
		.password = config->redis_password,
		.ca_file = config->redis_ca_file,
		.cert_file = config->redis_cert_file,
		.key_file = config->redis_key_file,
		.prefix = config->redis_prefix,
		.partitions = (unsigned)config->redis_partitions,
		.timeout_ms = config->redis_timeout,
		.durability = (enum redis_durability)config->durability,
		.trust_settings = config->redis_settings == 1,
		.sentinels = config->redis_sentinels,
		.master = config->redis_master,
		.sentinel_password = config->redis_sentinel_password,
		.wait_replicas = (unsigned)config->redis_wait_replicas,
	};
}

/* The queue's driver behind one that goes on while it is away. *ret is used until the queue is open. */
static void add_spool(const struct paths *paths, const struct config *config, struct queue_options *o,
	struct spool_options *ret)
{
	*ret = (struct spool_options){
		.remote = o->driver,
		.remote_arg = o->driver_arg,
		.local = &queue_driver_sqlite,
		.local_location = paths->queue,
		.messages_max = (uint64_t)config->spool_messages_max,
		.retry_min_ms = config->spool_retry,
		.retry_max_ms = SPOOL_RETRY_GROWTH * config->spool_retry,
	};
	o->driver = &queue_driver_spool;
	o->driver_arg = ret;
}

int engines_open_queue(const struct paths *paths, const struct config *config, unsigned needs,
	struct queue **ret, struct err *e)
{
	static const char *const drivers[] = {"sqlite", "redis", "memory"};
	struct redis_options redis = redis_options_of(config);
	struct queue_options o = {
		.driver = queue_driver_find(drivers[config->queue_driver]),
		.driver_arg = &redis,
		.location = paths->queue,
		.clock = &clock_system,
		.put_limit = (unsigned)config->queue_waiting_max,
		.group_max = (unsigned)config->queue_group_max,
		.idempotency_ms = config->idempotency_keep,
		.keys_max = (uint64_t)config->idempotency_max,
		.observe = observe_queue,
	};
	/* A queue that only this process reaches would take messages that nobody can deliver. */
	if (needs & QUEUE_SHARED && o.driver != &queue_driver_redis)
		return err_set(e, ERR_REJECT,
			"queue_driver: %s is this process's own; a proxy and a worker need one that both reach",
			drivers[config->queue_driver]);
	if (!o.driver)
		return err_set(
			e, ERR_FATAL, "this build has no queue driver '%s'", drivers[config->queue_driver]);
	struct spool_options spool;
	if (needs & QUEUE_SPOOLED)
		add_spool(paths, config, &o, &spool);
	return queue_open(&o, ret, e) < 0 ? err_context(e, "queue") : 0;
}
