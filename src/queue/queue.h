/* queue.h - messages accepted but not yet delivered.
 *
 * Every operation is asynchronous: fill its struct, submit op->op, get it back through op->op.complete (see
 * base/group.h) once its effect is durable. Blocking callers use the queue_*_wait functions.
 *
 * Durability: a put completes only after the message survives power loss; so do settle, redrive, purge,
 * pause. Leases:     a leased message is hidden from others until settled or until its lease expires; then
 * its token is stale and settling with it changes nothing. Attempts are counted when settled as RETRY or
 * DEAD, and when a lease expires or its process died (the try may have been what killed it). Order: first in,
 * first out among due messages; retries take their turn when due, behind no backlog: due retries and new
 * messages alternate, so neither starves the other. Ownership:  operation structs and everything they point
 * to belong to the caller until completion. Bodies of put are copied; messages handed out by lease live in
 * the operation's arena. Threads:    submit from any thread; see group.h for completions. Errors: ERR_RETRY:
 * not durable now (disk full, I/O error, engine away): nothing was accepted. Security:   bodies are sealed by
 * the caller; this module never logs. */
#ifndef QUEUE_QUEUE_H
#define QUEUE_QUEUE_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/group.h"
#include "message/sealed.h"
#include "message/state.h"

struct queue;
struct queue_driver;

struct queue_options {
	const struct queue_driver *driver;
	const char *location; /* the driver's: a directory for sqlite, a URL for redis, NULL for memory */
	const struct clock *clock;
	unsigned put_limit;     /* operations outstanding before queue_put is refused, e.g. 8192 */
	unsigned group_max;     /* operations in one commit, e.g. 1024 */
	int64_t idempotency_ms; /* how long a key is remembered, at least */
	uint64_t keys_max;      /* remembered at once; 0: any number */
	void (*observe)(void *arg, unsigned ops, int64_t commit_ns);
	void *observe_arg;
	void *driver_arg; /* the driver's own; NULL for most */
};

MUST_CHECK int queue_open(const struct queue_options *o, struct queue **ret, struct err *e);
void queue_close(struct queue *q);

/* "sqlite: synchronous=FULL …": what a 202 promises, for health and the start log. */
const char *queue_durability(const struct queue *q);

/* Highest uuid_order_key ever stored, for uuid_source_init; 0 for none. */
uint64_t queue_floor_key(const struct queue *q);

/* Operation numbers, group_op.kind. */
enum queue_kind {
	QUEUE_PUT,
	QUEUE_LEASE,
	QUEUE_SETTLE,
	QUEUE_RENEW,
	QUEUE_FIND,
	QUEUE_LIST,
	QUEUE_STATS,
	QUEUE_REDRIVE,
	QUEUE_PURGE,
	QUEUE_PAUSE,
	QUEUE_KINDS
};

enum { QUEUE_HASH_BYTES = 32 };

/* put: one request's messages, all or none. */
struct queue_put {
	struct group_op op;
	struct sealed *messages;
	unsigned count;
	/* Idempotency, for the request as a whole. key_hash covers client and key; payload_hash what was
	 * sent. */
	bool has_key;      /* false: the rest is not looked at */
	bool key_promised; /* accepted elsewhere with this key: remembered past keys_max, too */
	uint8_t key_hash[QUEUE_HASH_BYTES];
	uint8_t payload_hash[QUEUE_HASH_BYTES];
	/* Result: op.result is QUEUE_STORED, or one of the others, which stored nothing. */
	uint64_t position;    /* of the first message among those waiting, from 1 */
	struct uuid first_id; /* QUEUE_REPLAYED: of the first answer */
	struct wall first_accepted_at;
	uint64_t first_position;
	unsigned first_count;
};
enum {
	QUEUE_STORED = 0,
	QUEUE_REPLAYED = 1,
	QUEUE_MISMATCH = 2,
	QUEUE_KEYS_FULL = 3, /* a new key, and as many are remembered as may be */
};

/* 0 or GROUP_FULL; `via` as in group_submit. */
MUST_CHECK int queue_put(struct queue *q, struct queue_put *put, struct outbox *via);

/* lease: up to `max` due messages; waits up to wait_ms for the first one. */
struct queue_ref {
	int64_t handle; /* the driver's; sqlite: row number */
	uint64_t token;
	uint64_t part; /* the driver's; redis: partition and entry */
};

struct queue_message {
	struct queue_ref ref;
	struct sealed sealed;
	unsigned attempt_count; /* finished attempts so far */
};

struct queue_lease {
	struct group_op op;
	const char *worker; /* who; at most 64 bytes; for list and the attempt history */
	unsigned max;
	int64_t lease_ms, wait_ms;
	struct arena *arena; /* messages live here */
	struct queue_message *messages;
	unsigned count;       /* may be 0: nothing due within wait_ms, or delivery is paused */
	struct mono deadline; /* the engine's */
};
void queue_lease(struct queue *q, struct queue_lease *lease);

/* settle: what became of leased messages. */
enum queue_verdict {
	QUEUE_DONE,    /* stored: forget it */
	QUEUE_RETRY,   /* attempt counted, due again at due_at */
	QUEUE_DEAD,    /* attempt counted, dead letter with `reason` */
	QUEUE_RELEASE, /* not tried: due at once, no attempt counted */
};
struct queue_settlement {
	struct queue_ref ref;
	struct wall due_at; /* QUEUE_RETRY */
	struct str reason;  /* RETRY and DEAD: code and text, at most 256 bytes, no payload */
	enum queue_verdict verdict;
	bool stale; /* result: the lease was no longer ours; nothing changed */
};
struct queue_settle {
	struct group_op op;
	const char *worker;
	struct queue_settlement *items;
	unsigned count;
	unsigned stale_count; /* result */
};
void queue_settle(struct queue *q, struct queue_settle *settle);

/* renew: extends leases for a long delivery; stale ones are counted. */
struct queue_renew {
	struct group_op op;
	const struct queue_ref *refs;
	unsigned count;
	int64_t lease_ms;
	unsigned stale_count;
};
void queue_renew(struct queue *q, struct queue_renew *renew);

/* One finished attempt, for the history of a dead letter. */
struct queue_attempt {
	struct wall at;
	struct str worker, reason;
};

/* What an administrator sees of one message; never its body. */
struct queue_entry {
	struct uuid id;
	struct str client_id, domain;
	enum message_state state;
	struct wall accepted_at, due_at;
	unsigned attempt_count;
	struct str last_reason;
	const struct queue_attempt *attempts; /* find only: the newest 32 */
	unsigned attempts_kept;
};

/* find: one message by id. ERR_NOT_FOUND when it is not (or no longer) here. */
struct queue_find {
	struct group_op op;
	struct uuid id;
	struct arena *arena;
	struct queue_entry entry;
};

struct queue_filter {
	int state;                    /* enum message_state, or -1 for any */
	struct str client_id, domain; /* .n == 0: any */
	struct str reason_has;        /* substring of the last reason */
	struct wall accepted_before;  /* .ms == 0: any */
};

/* list: keyset paging in order of acceptance. */
struct queue_list {
	struct group_op op;
	struct queue_filter filter;
	uint64_t after_key; /* uuid_order_key of the last one seen, 0 to start */
	unsigned max;
	struct arena *arena;
	struct queue_entry *entries;
	unsigned
		count; /* less than max: there are no more; a few more than max where ids share an order key */
	uint64_t progress; /* the driver's */
};

struct queue_stats {
	struct group_op op;
	uint64_t queued, processing, failed; /* `queued` includes those waiting for a retry */
	uint64_t retrying;                   /* queued with at least one attempt */
	int64_t oldest_age_ms;               /* since acceptance, of the oldest not failed; 0 when empty */
	struct wall oldest_accepted_at;      /* the same as a moment; .ms == 0 when empty */
	int64_t oldest_due_ms;               /* how long the most overdue one has been due */
	uint64_t keys;                       /* remembered idempotency keys */
	bool accept_paused, delivery_paused;
	char accept_reason[128], delivery_reason[128];
	/* Of a driver with a spool (spool.h): what waits there, part of `queued`; how often the engine has been
	 * away since the start, and why the last time. */
	bool spooling; /* it is now */
	uint64_t spooled, spool_outages;
	struct wall spooled_accepted_at; /* of the oldest in the spool; .ms == 0 when empty */
	char spool_reason[256];
};

/* redrive and purge of dead letters: by id, or by filter (state is taken as failed), at most `max` a call. */
struct queue_redrive {
	struct group_op op;
	const struct uuid *ids;
	unsigned id_count; /* 0: by filter */
	struct queue_filter filter;
	unsigned max;
	bool dry_run;
	uint64_t matched;  /* result; with dry_run nothing changed */
	uint64_t progress; /* the driver's */
};
struct queue_purge {
	struct group_op op;
	const struct uuid *ids;
	unsigned id_count;
	struct queue_filter filter;
	unsigned max;
	bool dry_run;
	uint64_t matched;
	uint64_t progress;
};

/* pause: accepting (put fails with ERR_RETRY and the reason) and delivering (lease hands out nothing) are
 * separate, survive a restart, and carry a reason. */
struct queue_pause {
	struct group_op op;
	bool accept; /* which of the two */
	bool on;
	char reason[128];
};

/* Any operation of the above; sets kind and submits, never refused. */
void queue_submit(struct queue *q, enum queue_kind kind, struct group_op *op);

/* Blocks until durable; not from an event loop. Returns op->result. */
MUST_CHECK int queue_wait(struct queue *q, enum queue_kind kind, struct group_op *op, struct err *e);

/* Cheap enough for every request, from any thread: counts as of the last commit. */
struct queue_glance {
	uint64_t queued, processing, failed;
	uint64_t keys, keys_max;        /* remembered idempotency keys; 0: any number */
	struct wall oldest_accepted_at; /* .ms == 0 when empty */
	struct wall oldest_due_at;      /* since when the most overdue one is due; .ms == 0: none is */
	bool accept_paused, delivery_paused;
	char accept_reason[128], delivery_reason[128];
	bool healthy;      /* the last commit succeeded */
	char trouble[256]; /* why not */
	bool spooling;     /* accepting, but into the spool: the engine is away */
	uint64_t spooled, spool_outages;
	struct wall spooled_accepted_at;
	char spool_reason[256];
	struct group_stats group;
};
void queue_glance(const struct queue *q, struct queue_glance *ret);

/* Whether nine tenths of the room for idempotency keys are taken: time to do something about it. */
static inline bool queue_keys_scarce(const struct queue_glance *glance)
{
	return glance->keys_max && glance->keys >= glance->keys_max - glance->keys_max / 10;
}

#endif
