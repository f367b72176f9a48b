/* destination.h - where a worker delivers to: the main server, in this process or over the network.
 *
 * Each delivery thread opens a session of its own, so that whatever is costly to set up (a connection, opened
 * key contexts) is never shared between threads.
 *
 * Errors: deliver returns <0 when the destination as a whole did not take the batch, and nothing of it has a
 *         result. ERR_REJECT: it refuses the request itself; a part of the batch may do better. Any other kind:
 *         it cannot be reached or cannot take anything now (err.retry_after_ms may say for how long): the batch
 *         consumes no attempts, and the circuit breaker opens. err.unanswered: it was there and broke off over
 *         this batch. What is wrong with a single message is its result, not an error.
 * Threads: one at a time for a session; cancel from any. */
#ifndef ROLE_DESTINATION_H
#define ROLE_DESTINATION_H

#include "base/err.h"
#include "message/sealed.h"
#include "message/state.h"

enum delivery_outcome {
	DELIVERY_STORED,    /* on the main server's disk */
	DELIVERY_DUPLICATE, /* was there already: as good as stored */
	DELIVERY_REJECTED,  /* will never be taken: dead letter */
	DELIVERY_RETRY,     /* this message failed, may work later: an attempt is counted */
	DELIVERY_OUTCOMES
};

struct delivery_item {
	const struct sealed *sealed;
	unsigned attempt_count; /* finished attempts, without this one */
	/* results */
	enum delivery_outcome outcome;
	const char *reason; /* REJECTED, RETRY: a short code, valid until the session's next batch */
};

struct delivery_report {
	struct uuid id;
	enum message_state state; /* MESSAGE_QUEUED: will be tried again; MESSAGE_FAILED */
	unsigned attempt_count;
	struct str reason;
};

struct destination {
	const char *name; /* for logs and health: "in process", a URL */
	void *arg;
	MUST_CHECK int (*open)(void *arg, void **ret_session, struct err *e);
	void (*close)(void *session);
	MUST_CHECK int (*deliver)(void *session, struct delivery_item *items, unsigned count, struct err *e);

	/* Tells what became of a message that was not stored, so that it shows where it is only registered.
	 * Best effort. NULL: the destination need not be told. */
	MUST_CHECK int (*report)(void *session, const struct delivery_report *report, struct err *e);

	/* Ends what the session is doing, and all that it is asked to do from now on, with an error. NULL: it
	 * cannot be hurried. */
	void (*cancel)(void *session);
};

/* "stored", … */
static inline const char *delivery_outcome_name(enum delivery_outcome o)
{
	static const char *const names[DELIVERY_OUTCOMES] = {"stored", "duplicate", "rejected", "retry"};
	return names[o];
}

#endif
