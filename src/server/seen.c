/* seen.c - which certificates are in use, and what ends because of it.
 *
 * Listeners note in the registry whose bearer came with a certificate; once a second that is taken out and
 * stored, with what proxies elsewhere report. The first use of a certificate ends the one that it renews: only
 * then does its bearer surely have the new one. */
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "role/wire.h"
#include "server/internal.h"

enum {
	SEEN_AT_ONCE = STORE_SEEN_MAX,
	/* How late the report of a use may come and still be looked at before the hourly look at all. */
	LATE_MS = 10 * 60 * 1000,
	PAGE = 500,
	ARENA_BYTES = 16 * 1024 * 1024,
};

/* --- superseding --- */

static int audit_one(struct server *s, const struct store_cert *cert, struct err *e)
{
	char serial[2 * SERIAL_MAX_BYTES + 1], detail[128];
	hex_encode(cert->serial, cert->serial_bytes, serial);
	snprintf(
		detail, sizeof(detail), "{\"serial\":\"%s\",\"role\":\"%.*s\"}", serial, STR_ARG(cert->role));
	return server_audit(s, &server_itself, "certificate.supersede", cert->name, "ok", str_of(detail), e);
}

/* A row for each. What was changed once more meanwhile (its client was suspended) is further on in the order of changes;
 * of those a row tells the number. */
static int audit_superseded(struct server *s, const struct store_supersede *op, struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	struct store_cert_query query = {.after_change = op->change - op->revoked_count, .max = PAGE};
	struct store_cert *certs;
	unsigned count, left = op->revoked_count;
	char detail[48];
	arena_init(&arena, ARENA_BYTES);
	while (query.after_change < op->change) {
		arena_reset(&arena);
		if (store_read_certs(s->store, &query, &arena, &certs, &count, e) < 0)
			return -1;
		for (unsigned i = 0; i < count && certs[i].change <= op->change; i++, left--)
			if (audit_one(s, &certs[i], e) < 0)
				return -1;
		query.after_change = count ? certs[count - 1].change : op->change;
	}
	snprintf(detail, sizeof(detail), "{\"revoked\":%u}", left);
	return left ? server_audit(
			      s, &server_itself, "certificate.supersede", STR(""), "ok", str_of(detail), e)
		    : 0;
}

int server_supersede(struct server *s, bool all, struct err *e)
{
	int64_t until_ms = clock_wall(s->clock).ms - s->renew_overlap_ms;
	struct store_supersede op = {.after = {all ? 0 : until_ms - LATE_MS}, .until = {until_ms}};
	if (store_wait(s->store, STORE_SUPERSEDE, &op.op, e) < 0)
		return -1;
	if (!op.revoked_count)
		return 0;
	if (server_sync_registry(s, e) < 0 || audit_superseded(s, &op, e) < 0)
		return -1;
	log_event(LOG_INFO, "certificates.superseded", LF_UINT("count", op.revoked_count));
	metric_add(METRIC_CERTS_SUPERSEDED, op.revoked_count);
	server_revoked(s, op.revoked_count);
	return 0;
}

static int store_seen(struct server *s, const struct store_seen_item *items, unsigned count, struct err *e)
{
	struct store_seen op = {.items = items, .count = count};
	return store_wait(s->store, STORE_SEEN, &op.op, e) < 0 ? -1 : server_supersede(s, false, e);
}

/* --- of this process --- */

/* Not part of the server: a loop may hear that it is done after the server is gone. */
struct seen_work {
	struct work work;
	struct server *server;
	unsigned count;
	struct store_seen_item items[SEEN_AT_ONCE];
};

static void store_work(struct work *w)
{
	struct seen_work *seen = container_of(w, struct seen_work, work);
	struct err e = ERR_INIT;
	if (store_seen(seen->server, seen->items, seen->count, &e) < 0)
		log_event(LOG_WARN, "certificates.seen_not_stored", LF_ERR(&e));
	atomic_store(&seen->server->seen_running, false);
}

static void stored(struct work *w)
{
	free(container_of(w, struct seen_work, work));
}

static struct store_seen_item item_of(const struct registry_seen *seen)
{
	struct store_seen_item item = {.cert = {.serial_bytes = seen->serial_bytes}, .at = seen->at};
	memcpy(item.cert.serial, seen->serial, sizeof(item.cert.serial));
	memcpy(item.cert.issuer_key_id, seen->issuer_key_id, sizeof(item.cert.issuer_key_id));
	return item;
}

static unsigned take(struct server *s, struct seen_work *ret)
{
	struct registry_seen seen[SEEN_AT_ONCE];
	size_t count = registry_take_seen(s->registry, seen, SEEN_AT_ONCE);
	for (size_t i = 0; i < count; i++)
		ret->items[i] = item_of(&seen[i]);
	return (unsigned)count;
}

void server_note_seen(struct server *s)
{
	if (!s->upkeep_loop || atomic_load(&s->seen_running) || !registry_any_seen(s->registry))
		return;
	struct seen_work *work = calloc(1, sizeof(*work));
	if (!work)
		return; /* the next tick tries again */
	work->server = s;
	work->work = (struct work){.loop = s->upkeep_loop, .work = store_work, .done = stored};
	work->count = take(s, work);
	if (!work->count) {
		free(work);
		return;
	}
	atomic_store(&s->seen_running, true);
	if (work_submit(s->pool, &work->work) == LOOP_WORK_FULL) {
		atomic_store(&s->seen_running, false);
		free(work);
	}
}

/* --- POST /internal/certificates/seen --- */

static bool take_item(struct job *j, const json_t *in, struct store_seen_item *ret)
{
	struct registry_seen seen;
	struct err e = ERR_INIT;
	if (wire_take_seen(in, &seen, &e) < 0) {
		job_invalid(j, "/certificates", "malformed", arena_strdup(j->request->arena, str_of(e.text)));
		return false;
	}
	*ret = item_of(&seen);
	/* A clock that is ahead must not make a use look as if it was yet to come. */
	struct wall now = clock_wall(server_of(j->request)->clock);
	if (ret->at.ms > now.ms)
		ret->at = now;
	return true;
}

static void run_seen(struct job *j)
{
	static const char *const known[] = {"certificates", NULL};
	AUTO(json_auto) json_t *in = job_json(j);
	struct store_seen_item items[SEEN_AT_ONCE] = {0};
	struct err e = ERR_INIT;
	if (!in || !job_known(j, in, known))
		return;
	const json_t *list = json_object_get(in, "certificates");
	size_t count = json_array_size(list);
	if (count == 0 || count > SEEN_AT_ONCE) {
		job_invalid(
			j, "/certificates", "out_of_range", "an array of 1 to 1000 certificates is expected");
		return;
	}
	for (size_t i = 0; i < count; i++)
		if (!take_item(j, json_array_get(list, i), &items[i]))
			return;
	if (store_seen(server_of(j->request), items, (unsigned)count, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "seen", (int64_t)count);
	json_close_object(&w);
}

void server_post_seen(struct http_request *r)
{
	job_start(r, server_of(r)->pool, run_seen);
}
