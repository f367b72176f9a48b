/* upkeep.c - what a main server does now and then: it forgets expired certificates and keeps the CRL fresh.
 *
 * The tick only looks at the time; the work itself blocks, and runs on the work pool. Its piece of work is
 * not part of the server: a loop may hear that it is done after the server is gone. */
#include <stdlib.h>

#include "base/log.h"
#include "server/internal.h"

enum { UPKEEP_MS = 60 * 60 * 1000, UPKEEP_AGAIN_MS = 60 * 1000 };

struct upkeep {
	struct work work;
	struct server *server;
};

static void keep_up(struct work *w)
{
	struct server *s = container_of(w, struct upkeep, work)->server;
	struct err e = ERR_INIT;
	int64_t wait_ms = UPKEEP_MS;
	if (registry_prune(s->registry, clock_wall(s->clock), &e) < 0 || crl_refresh(s->crl, &e) < 0) {
		log_event(LOG_WARN, "upkeep.failed", LF_ERR(&e));
		wait_ms = UPKEEP_AGAIN_MS;
	}
	s->upkeep_due = mono_add_ms(clock_mono(s->clock), wait_ms);
	atomic_store(&s->upkeep_running, false);
}

static void kept_up(struct work *w)
{
	free(container_of(w, struct upkeep, work));
}

void server_upkeep(struct server *s)
{
	if (!s->upkeep_loop || atomic_load(&s->upkeep_running) ||
		!mono_reached(clock_mono(s->clock), s->upkeep_due))
		return;
	struct upkeep *upkeep = calloc(1, sizeof(*upkeep));
	if (!upkeep)
		return; /* the next tick tries again */
	*upkeep = (struct upkeep){
		.work = {.loop = s->upkeep_loop, .work = keep_up, .done = kept_up}, .server = s};
	atomic_store(&s->upkeep_running, true);
	if (work_submit(s->pool, &upkeep->work) == LOOP_WORK_FULL) {
		atomic_store(&s->upkeep_running, false);
		free(upkeep);
	}
}
