/* upkeep.c - what a main server does now and then: it forgets expired certificates, keeps the CRLs fresh, retires
 * issuing CAs whose last certificate has ended, and takes out messages and enrolment tokens whose time is over.
 *
 * The tick only looks at the time; the work itself blocks, and runs on the work pool. Its piece of work is
 * not part of the server: a loop may hear that it is done after the server is gone. */
#include <stdlib.h>

#include "base/auto.h"
#include "base/log.h"
#include "server/internal.h"

enum {
	UPKEEP_MS = 60 * 60 * 1000,
	UPKEEP_AGAIN_MS = 60 * 1000,
	DAY_MS = 24 * 60 * 60 * 1000,
	PAGE = 500,
	ARENA_BYTES = 16 * 1024 * 1024,
};

/* --- retiring issuing CAs --- */

/* Whether a certificate of this issuing CA may still be needed: valid, or ended so recently that its revocation must be
 * published (see crl.c) or that it may be renewed. */
static int is_needed(struct server *s, const struct ca_issuer *issuer, bool *ret, struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	struct store_cert_query query = {.issuer_key_id = issuer->key_id, .max = PAGE};
	int64_t listed_ms = CRL_VALID_DAYS * (int64_t)DAY_MS;
	int64_t since =
		clock_wall(s->clock).ms - (s->renew_grace_ms > listed_ms ? s->renew_grace_ms : listed_ms);
	struct store_cert *certs;
	unsigned count = PAGE;
	arena_init(&arena, ARENA_BYTES);
	*ret = false;
	while (count == PAGE && !*ret) {
		arena_reset(&arena);
		if (store_read_certs(s->store, &query, &arena, &certs, &count, e) < 0)
			return -1;
		for (unsigned i = 0; i < count && !*ret; i++) {
			*ret = certs[i].not_after.ms >= since;
			query.after_change = certs[i].change;
		}
	}
	return 0;
}

static int retire(struct server *s, const struct ca_issuer *issuer, struct err *e)
{
	if (ca_retire(s->ca, issuer->key_id, e) < 0 ||
		server_audit(
			s, &server_itself, "ca.retire", str_of(issuer->id), "ok", (struct str){"", 0}, e) < 0)
		return -1;
	log_event(LOG_INFO, "ca.retire", LF_STR("issuing_ca", issuer->id));
	return crl_sign(s->crl, e);
}

/* Those that are not current any more. After a rotation an hour passes first: a certificate that was signed just before
 * may not be registered yet. */
static int retire_ended(struct server *s, struct err *e)
{
	const struct ca_issuer *issuers;
	size_t count = ca_issuers(s->ca, &issuers);
	if (clock_wall(s->clock).ms - issuers[0].not_before.ms < UPKEEP_MS)
		return 0;
	for (size_t i = 1; i < count; i++) {
		bool needed;
		if (is_needed(s, &issuers[i], &needed, e) < 0 || (!needed && retire(s, &issuers[i], e) < 0))
			return -1;
	}
	return 0;
}

/* --- now and then --- */

struct upkeep {
	struct work work;
	struct server *server;
};

/* Certificates that nobody can show any more. */
static int forget_ended(struct server *s, struct err *e)
{
	struct wall ended = {clock_wall(s->clock).ms - s->renew_grace_ms};
	return registry_prune(s->registry, ended, e);
}

static void keep_up(struct work *w)
{
	struct server *s = container_of(w, struct upkeep, work)->server;
	struct err e = ERR_INIT;
	int64_t wait_ms = UPKEEP_MS;
	if (server_supersede(s, true, &e) < 0 || crl_refresh(s->crl, &e) < 0 || forget_ended(s, &e) < 0 ||
		retire_ended(s, &e) < 0 || server_expire_messages(s, &e) < 0 ||
		server_purge_tokens(s, &e) < 0 || server_look_at_expiry(s, &e) < 0) {
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
		(!mono_reached(clock_mono(s->clock), s->upkeep_due) && !crl_is_overdue(s->crl)))
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
