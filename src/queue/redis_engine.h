/* redis_engine.h - what the files of the Redis engine share; not for others. See redis.c. */
#ifndef QUEUE_REDIS_ENGINE_H
#define QUEUE_REDIS_ENGINE_H

#include "queue/driver.h"
#include "queue/pauses.h"
#include "queue/redis_session.h"
#include "queue/row.h"

enum { REDIS_PARTITIONS_MAX = 64 };

/* What look.lua said of a partition; a moment of INT64_MAX: none. */
struct redis_look {
	int64_t now_ms; /* by the clock that the scripts go by */
	uint64_t waiting, leased, dead, retrying, keys;
	struct uuid oldest, floor; /* zero: none */
	int64_t head_ms, retry_ms, lease_ms;
};

struct redis_partition {
	char *tag;        /* PREFIX:{N} */
	struct buf words; /* of the puts not in `out` yet */
	size_t word_count, first_put, put_count;
	struct redis_look look;
};

/* Changes of the group under way that are sent with its commit, in the order of their replies. */
struct redis_pending {
	enum {
		PENDING_PUTS,
		PENDING_SETTLE,
		PENDING_RENEW,
		PENDING_REDRIVE,
		PENDING_PURGE,
		PENDING_PAUSE
	} kind;
	void *op;
	unsigned part;
	size_t first, count; /* of the partition's puts, or of what was sent */
};

struct redis_queue {
	struct redis_session *session;
	const struct redis_shas *shas;
	const struct clock *clock;
	int64_t idempotency_ms;
	uint64_t keys_max; /* 0: any number */
	bool own_clock;
	struct redis_partition *parts;
	unsigned part_count;

	/* The group. */
	struct buf out;
	struct redis_pending *pending;
	size_t pending_count, pending_room;
	struct redis_put {
		struct queue_put *put;
		unsigned part;
	} * puts; /* of all partitions, in order of arrival */
	size_t put_count, put_room;
	struct redis_exchange commit;

	/* Batches leased by it, and those that an abort could not give back yet. */
	uint64_t *tokens;
	size_t token_count, token_room, lost_count; /* the first `lost_count` are lost ones */

	uint32_t instance, token_number; /* a token: instance, number, partition */
	unsigned turn;                   /* the partition that a lease asks first */
	bool retries_first;

	struct pauses pauses;
	bool looked;
	struct mono looked_at, leased_at, pulse_at;
	struct buf now, record; /* scratch: commands that are sent at once; a record */
};

/* --- redis_calls.c --- */

/* Appends EVALSHA of the script up to the partition's key; `count` arguments have to follow. */
void redis_eval(
	const struct redis_queue *q, struct buf *out, enum redis_script script, unsigned part, size_t count);

/* The first argument of scripts that need the time. */
void redis_time(const struct redis_queue *q, struct buf *out);

static inline struct str redis_id(const struct uuid *id)
{
	return str_mem(id->b, sizeof(id->b));
}

/* Makes room for one more element. */
MUST_CHECK int redis_reserve(void **items, size_t item_bytes, size_t count, size_t *room, struct err *e);

/* Notes what the next reply to `out` is for. */
MUST_CHECK int redis_promise(struct redis_queue *q, const struct redis_pending *p, struct err *e);

/* Sends q->now, `count` commands, and resets it. */
MUST_CHECK int redis_now(struct redis_queue *q, struct redis_exchange *x, struct err *e);

struct str redis_text(const redisReply *reply);

/* Every script answers as it should, unless somebody changed its keys by hand. */
int redis_odd_answer(struct err *e);

/* --- redis_looks.c --- */

/* Commands for a look at every partition, as many as there are, and what becomes of the n-th reply. */
void redis_add_looks(struct redis_queue *q, struct buf *out);
MUST_CHECK int redis_take_look(struct redis_queue *q, unsigned part, const redisReply *reply, struct err *e);
void redis_looked(struct redis_queue *q);

/* A look that goes with nothing else. */
MUST_CHECK int redis_look(struct redis_queue *q, struct err *e);

/* Whether something is due by the last look; *ret_next is moved to when something falls due or runs out, where
 * that is sooner. */
bool redis_foresee(const struct redis_queue *q, struct mono now, struct mono *ret_next);

MUST_CHECK int redis_stats(void *state, struct queue_stats *stats, struct err *e);
uint64_t redis_floor_key(void *state);

/* --- redis_puts.c --- */

MUST_CHECK int redis_put(void *state, struct queue_put *put, struct err *e);

/* The partition's puts become a command of the group, whose reply tells each what became of it. */
MUST_CHECK int redis_close_puts(struct redis_queue *q, unsigned part, struct err *e);
MUST_CHECK int redis_answer_puts(
	struct redis_queue *q, const struct redis_pending *p, const redisReply *reply, struct err *e);

/* --- redis_leases.c --- */

MUST_CHECK int redis_lease(void *state, struct queue_lease *lease, struct err *e);
MUST_CHECK int redis_settle(void *state, struct queue_settle *settle, struct err *e);
MUST_CHECK int redis_renew(void *state, struct queue_renew *renew, struct err *e);
void redis_settled(struct redis_queue *q, const struct redis_pending *p, const redisReply *reply);

/* Gives back what the group has leased, or what an abort before could not. */
void redis_give_back(struct redis_queue *q);
MUST_CHECK int redis_expire(struct redis_queue *q, bool *ret_more, struct err *e);
void redis_leave(struct redis_queue *q);

/* --- redis_entries.c --- */

MUST_CHECK int redis_find(void *state, struct queue_find *find, struct err *e);
MUST_CHECK int redis_list(void *state, struct queue_list *list, struct err *e);
MUST_CHECK int redis_redrive(void *state, struct queue_redrive *redrive, struct err *e);
MUST_CHECK int redis_purge(void *state, struct queue_purge *purge, struct err *e);

#endif
