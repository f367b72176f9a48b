/* feed.c - what proxies keep a copy of: the certificate registry, by long poll, and the sealing keys.
 *
 * GET /internal/revocations?after=N answers at once when there are changes past N, else it waits until there
 * is one or until 30 s are over; so a revocation reaches every proxy within one round trip. Waiting requests
 * hold no thread, and no place among the requests in flight: however few of those there are, deliveries get
 * theirs.
 *
 * A change number means something only in the history that it was given out in, and a restored backup starts
 * another one from an older number. So every answer names an epoch, drawn when the server starts, and a proxy
 * that comes with another one gets everything from the start: a restart costs each proxy one pass over the
 * registry, and no way of putting an older store in place can go unnoticed. */
#include "base/auto.h"
#include "role/wire.h"
#include "server/internal.h"

enum { WAIT_MS = 30000, PAGE = 500, KEYS_MAX = 64, KEYS_BYTES = 64 * 1024 };

/* A request that waits; lives in its request's arena. */
struct feed_waiter {
	struct task task;
	struct feed_waiter *next;
	struct http_request *request;
	struct mono deadline;
};

/* --- the answer --- */

/* From where the proxy has to go on: ?after, or 0 when that is a number of another history. False: not a
 * number. */
static bool take_after(struct http_request *r, int64_t *ret)
{
	const struct server *s = server_of(r);
	struct str text = http_query(r, STR("after")), epoch = http_query(r, STR("epoch"));
	*ret = 0;
	if (text.p && !str_to_i64(text, ret))
		return false;
	if ((epoch.p && !str_eq(epoch, str_of(s->epoch))) || *ret > registry_change(s->registry))
		*ret = 0;
	return true;
}

static void run_changes(struct job *j)
{
	struct server *s = server_of(j->request);
	struct store_cert_query query = {.max = PAGE};
	struct store_cert *certs;
	unsigned count;
	struct err e = ERR_INIT;
	if (!take_after(j->request, &query.after_change)) {
		job_invalid(j, "?after", "not_a_number", "the last change number seen is expected");
		return;
	}
	if (store_read_certs(s->store, &query, &j->arena, &certs, &count, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_open_array(&w, "certificates");
	for (unsigned i = 0; i < count; i++) {
		struct registry_row row;
		if (server_registry_row(&certs[i], &row))
			wire_put_row(&w, &row);
	}
	json_close_array(&w);
	json_put_str(&w, "epoch", str_of(s->epoch));
	json_put_int(&w, "change", count ? certs[count - 1].change : query.after_change);
	json_put_bool(&w, "more", count == PAGE);
	json_close_object(&w);
}

static void wake(struct task *task)
{
	struct feed_waiter *waiter = container_of(task, struct feed_waiter, task);
	job_start(waiter->request, server_of(waiter->request)->pool, run_changes);
}

/* --- waiting --- */

void server_get_changes(struct http_request *r)
{
	struct server *s = server_of(r);
	int64_t after;
	struct feed_waiter *waiter = arena_alloc(r->arena, sizeof(*waiter));
	if (!waiter || !take_after(r, &after)) {
		job_start(r, s->pool, run_changes);
		return;
	}
	waiter->request = r;
	waiter->task.run = wake;
	waiter->deadline = mono_add_ms(clock_mono(s->clock), WAIT_MS);
	pthread_mutex_lock(&s->feed_lock);
	/* Looked at under the lock that server_wake_feed takes after a change: none can slip in between. */
	bool wait = !s->feed_closed && registry_change(s->registry) <= after;
	if (wait) {
		waiter->next = s->feed_waiters;
		s->feed_waiters = waiter;
	}
	pthread_mutex_unlock(&s->feed_lock);
	if (wait)
		http_wait(r);
	else
		job_start(r, s->pool, run_changes);
}

/* Takes those out that `all` or their deadline lets go, and wakes them on their loops. */
static void let_go(struct server *s, bool all, bool close)
{
	struct mono now = clock_mono(s->clock);
	struct feed_waiter *go = NULL;
	pthread_mutex_lock(&s->feed_lock);
	s->feed_closed |= close;
	for (struct feed_waiter **at = &s->feed_waiters; *at;) {
		struct feed_waiter *waiter = *at;
		if (!all && !mono_reached(now, waiter->deadline)) {
			at = &waiter->next;
			continue;
		}
		*at = waiter->next;
		waiter->next = go;
		go = waiter;
	}
	pthread_mutex_unlock(&s->feed_lock);
	for (struct feed_waiter *next; go; go = next) {
		next = go->next;
		inbox_push(loop_inbox(go->request->loop), &go->task);
	}
}

void server_wake_feed(struct server *s)
{
	let_go(s, true, false);
}

void server_close_feed(struct server *s)
{
	let_go(s, true, true);
}

void server_tick(struct server *s)
{
	let_go(s, false, false);
	server_note_seen(s);
	server_upkeep(s);
}

/* --- GET /internal/sealing-keys --- */

void server_get_sealing_keys(struct http_request *r)
{
	const struct server *s = server_of(r);
	struct sealing_public keys[KEYS_MAX], active;
	AUTO(buf_auto) struct buf body;
	buf_init(&body, KEYS_BYTES);
	size_t count = keyring_list(s->keyring, keys, KEYS_MAX);
	keyring_active(s->keyring, &active);
	struct json_out w = json_out_to(&body);
	json_open_object(&w, NULL);
	wire_put_key(&w, "active", &active);
	json_open_array(&w, "keys");
	for (size_t i = 0; i < count && i < KEYS_MAX; i++)
		wire_put_key(&w, NULL, &keys[i]);
	json_close_array(&w);
	json_put_str(&w, "ca_pem", ca_bundle(s->ca));
	json_close_object(&w);
	http_set_header(r, "Cache-Control", STR("no-store"));
	http_reply(r, 200, "application/json", buf_str(&body));
}
