/* retention.c - takes out of the store what has had its time.
 *
 * Delivered messages, when their domain's time is over: a walk in small steps from the oldest on, that ends where rows
 * are too young for any domain. Each walk that took something leaves an audit row per domain, with a count.
 * Enrolment tokens, a while after they ended; with an audit row of the count. */
#include <stdio.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "message/message.h"
#include "server/internal.h"

enum { STEP_ROWS = 250, STEP_TOKENS = 20 };

struct walk {
	struct domains *domains;
	struct wall now;
	json_t *step, *all; /* {domain: messages}: of the step under way, and of those that are on disk */
};

static void count_one(json_t *counts, struct str domain, json_int_t more)
{
	char name[DOMAIN_NAME_BYTES + 1];
	snprintf(name, sizeof(name), "%.*s", STR_ARG(domain));
	json_int_t before = json_integer_value(json_object_get(counts, name));
	json_object_set_new(counts, name, json_integer(before + more));
}

static bool is_over(void *arg, struct str domain, struct wall delivered_at)
{
	const struct walk *w = arg;
	int64_t keep_ms = domains_retention_ms(w->domains, domain);
	bool over = keep_ms && w->now.ms - delivered_at.ms >= keep_ms;
	if (over)
		count_one(w->step, domain, 1);
	return over;
}

/* What a step that is on disk has taken out. */
static void add_step(struct walk *w)
{
	const char *domain;
	json_t *count;
	json_object_foreach(w->step, domain, count)
	{
		count_one(w->all, str_of(domain), json_integer_value(count));
		metric_add(METRIC_EXPIRED, (uint64_t)json_integer_value(count));
	}
}

static int take_steps(struct server *s, struct walk *w, int64_t shortest_ms, struct err *e)
{
	struct store_expire op = {
		.stored_until = {w->now.ms - shortest_ms}, .max = STEP_ROWS, .is_over = is_over, .arg = w};
	do {
		json_object_clear(w->step);
		op.after_sequence = op.next_sequence;
		if (store_wait(s->store, STORE_EXPIRE, &op.op, e) < 0)
			return err_context(e, "take out old messages");
		add_step(w);
	} while (op.next_sequence && !atomic_load(&s->draining));
	return 0;
}

static int audit(struct server *s, const json_t *counts, struct err *e)
{
	const char *domain;
	json_t *count;
	/* The iterator takes a non-const object but does not change it. */
	json_object_foreach((json_t *)(uintptr_t)counts, domain, count)
	{
		char detail[64];
		int n = snprintf(
			detail, sizeof(detail), "{\"messages\":%lld}", (long long)json_integer_value(count));
		if (server_audit(s, &server_itself, "messages.expire", str_of(domain), "ok",
			    str_mem(detail, (size_t)n), e) < 0)
			return -1;
		log_event(LOG_INFO, "messages.expired", LF_STR("domain", domain),
			LF_INT("messages", json_integer_value(count)));
	}
	return 0;
}

int server_expire_messages(struct server *s, struct err *e)
{
	int64_t shortest_ms = domains_shortest_retention_ms(s->domains);
	if (!shortest_ms)
		return 0;
	AUTO(json_auto) json_t *step = json_object();
	AUTO(json_auto) json_t *all = json_object();
	struct walk w = {s->domains, clock_wall(s->clock), step, all};
	if (!step || !all)
		return err_oom(e);
	int rc = take_steps(s, &w, shortest_ms, e);
	/* What is gone is told, also when the walk broke off. */
	return audit(s, all, rc < 0 ? NULL : e) < 0 ? -1 : rc;
}

/* --- enrolment tokens --- */

/* *ret_count: how many are gone for good, also when it failed. */
static int purge_steps(struct server *s, unsigned *ret_count, struct err *e)
{
	struct store_token_purge op = {
		.ended_before = {clock_wall(s->clock).ms - s->enroll_keep_ms}, .max = STEP_TOKENS};
	*ret_count = 0;
	do {
		if (store_wait(s->store, STORE_TOKEN_PURGE, &op.op, e) < 0)
			return err_context(e, "take out old enrolment tokens");
		*ret_count += op.removed_count;
	} while (op.removed_count == op.max && !atomic_load(&s->draining));
	return 0;
}

int server_purge_tokens(struct server *s, struct err *e)
{
	char detail[48];
	unsigned count;
	int rc = purge_steps(s, &count, e);
	if (!count)
		return rc;
	metric_add(METRIC_TOKENS_PURGED, count);
	log_event(LOG_INFO, "enroll.tokens_purged", LF_UINT("count", count));
	snprintf(detail, sizeof(detail), "{\"tokens\":%u}", count);
	return server_audit(
		       s, &server_itself, "token.purge", STR(""), "ok", str_of(detail), rc < 0 ? NULL : e) < 0
		       ? -1
		       : rc;
}
