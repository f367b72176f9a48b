/* post.h - POSTs many bodies to one route, several at a time, and tries again what may work later.
 *
 * Tried again: no answer (unreachable, broken off, timed out), 503 and 429. The wait is the answer's
 * Retry-After, else it doubles from half a second; meanwhile nothing new is sent, because what one request
 * was told holds for all. Every attempt carries the same Idempotency-Key, so that a lost answer cannot make
 * two messages of one.
 *
 * Ownership: a post is its owner's; poster_run holds it from next() to done().
 * Threads:   one; poster_run blocks. */
#ifndef CLI_POST_H
#define CLI_POST_H

#include "cli/https.h"

enum { POST_KEY_BYTES = 256 };

struct post {
	struct buf body;
	char key[POST_KEY_BYTES]; /* Idempotency-Key */
	/* The outcome: */
	int status; /* 0: no answer, see err */
	struct err err;
	struct buf answer;      /* body */
	int64_t retry_after_ms; /* how long the server wants to be left alone; 0: it did not say */
	/* poster_run's own: */
	unsigned attempts;
	struct post *next;
};

struct poster {
	struct https_options https;
	const char *path, *content_type;
	unsigned parallel; /* requests under way at once */
	unsigned retries;  /* of one post */
	void *arg;
	/* The next post, NULL when there are no more. */
	struct post *(*next)(void *arg);
	/* The outcome is there; the post is the owner's again. False: send nothing more; what is under way is
	 * still waited for, and what waits for another attempt is done. */
	bool (*done)(void *arg, struct post *p);
	/* Now and then; wait_ms > 0: how long the server wants to be left alone. May be NULL. */
	void (*progress)(void *arg, int64_t wait_ms);
};

/* <0 only when libcurl or memory fail as such (e must not be NULL); every post is done even then. */
MUST_CHECK int poster_run(const struct poster *o, struct err *e);

/* A key and empty buffers. `prefix` NULL: a random key; else "PREFIX-NUMBER". */
MUST_CHECK int post_init(struct post *p, const char *prefix, uint64_t number, struct err *e);
void post_clear(struct post *p);

#endif
