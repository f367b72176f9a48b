/* health.h - what a role knows about its own state, and the routes that every listener serves with it:
 * /livez, /readyz, /api/v1/health, /metrics.
 *
 * A check has a name and a function that says ok, degraded or failed in one sentence. `ready` checks decide
 * whether a message can be durably accepted now; the others only degrade.
 *
 * Threads:  health_add and health_remove from any thread but not from a check; checks run on any I/O loop and
 *           must not block.
 * Security: details carry no secrets: they are shown to anyone who reaches the health routes. */
#ifndef ROLE_HEALTH_H
#define ROLE_HEALTH_H

#include <stdatomic.h>

#include "http/http.h"

enum health_status { HEALTH_OK, HEALTH_DEGRADED, HEALTH_FAILED };

struct health_report {
	enum health_status status;
	char detail[360]; /* more than what a queue says of itself */
};

struct health;

MUST_CHECK int health_new(const struct clock *clock, struct health **ret, struct err *e);
void health_free(struct health *h);

/* `ready`: a failed check makes the role not ready. `name` is static. At most 16 checks. */
void health_add(struct health *h, const char *name, bool ready,
	void (*check)(void *arg, struct health_report *ret), void *arg);

/* Takes every check of `arg` out. None of them runs when this returns: what they look at may go. */
void health_remove(struct health *h, const void *arg);

/* From the start of the drain: not ready any more. */
void health_set_draining(struct health *h);

/* Whether a message can be durably accepted now; *ret_why (may be NULL) the first failing check. */
bool health_ready(struct health *h, struct health_report *ret_why);

/* The context of every listener of ours starts with this. */
struct role_context {
	struct health *health;
	atomic_bool metrics_public; /* may change while handlers run */
	const char *openapi;        /* text served at /openapi.yaml, NULL: none */
};

/* Rows for a listener's route table: livez, readyz, health, metrics, openapi. Ends with method NULL. */
extern const struct http_route health_routes[];

#endif
