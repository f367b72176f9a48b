/* redis_session.h - the way to the Redis server that is master now: connects, finds the master by Sentinels,
 * authenticates, verifies the server's settings, loads the scripts; reconnects with backoff and jitter.
 *
 * A session is opened without a connection: a server that is away, or not as it has to be, is an ERR_RETRY
 * of every exchange, with the sentence that says what to do, until it is there.
 *
 * Threads:  one at a time. Exchanges block, at most about the timeout.
 * Security: errors never hold the password. */
#ifndef QUEUE_REDIS_SESSION_H
#define QUEUE_REDIS_SESSION_H

#include "base/clock.h"
#include "queue/redis.h"
#include "queue/redis_link.h"
#include "queue/redis_scripts.h"

struct redis_session;

/* ERR_REJECT for options that can never work. Prefix and number of partitions have to be set. */
MUST_CHECK int redis_session_open(
	const struct redis_options *o, const struct clock *clock, struct redis_session **ret, struct err *e);
void redis_session_close(struct redis_session *s); /* takes NULL */

/* Connected, after an attempt when its time has come; otherwise says why not. */
MUST_CHECK int redis_session_ensure(struct redis_session *s, struct err *e);

/* When to try again; {INT64_MAX} while connected. */
struct mono redis_session_next_try(const struct redis_session *s);

const struct redis_shas *redis_session_shas(const struct redis_session *s);

/* What a commit survives. */
const char *redis_session_durability(const struct redis_session *s);

/* Some commands in one round trip. `reply` is called for each reply that is no error, with its number; when
 * the commands had to be sent again, once more from the first. */
struct redis_exchange {
	struct str commands;
	unsigned count; /* of commands */
	bool again;     /* may be sent again when the connection breaks: nothing happens twice */
	bool writes;    /* replicas have to confirm it, if so configured */
	int (*reply)(void *arg, unsigned number, const redisReply *reply, struct err *e);
	void *arg;
	redisReply **keep;   /* of `count`, NULL at first: takes the replies over; the caller frees them */
	bool was_sent_again; /* result: some of it may have been done the first time */
};

/* <0: not done, or not known to be done; of error replies the first one. */
MUST_CHECK int redis_session_exchange(struct redis_session *s, struct redis_exchange *x, struct err *e);

#endif
