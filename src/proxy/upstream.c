/* upstream.c - see upstream.h. Two buffers change places: loops fill one while the thread sends the other. The same
 * thread looks once a second for certificates that were used: it is the one that is never in a long poll. */
#include "proxy/upstream.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "role/wire.h"

enum {
	BUFFER_BYTES = 8 * 1024 * 1024, /* waiting to be registered */
	REQUEST_BYTES = 24 * 1024 * 1024,
	BATCH_MAX = 500,
	REGISTER_TIMEOUT_MS = 5000,
	LOOKUP_TIMEOUT_MS = 5000,
	LOOKUP_THREADS = 2,
	LOOKUP_LIMIT = 256,
	SEEN_MS = 1000, /* how often uses of certificates are told; doubles while they cannot be */
	SEEN_PAUSE_MAX_MS = 30000,
	SEEN_TIMEOUT_MS = 5000,
	SEEN_AT_ONCE = 1000,
	SEEN_BODY_BYTES = 200 * 1024,
};

struct upstream {
	const struct clock *clock;
	struct registry *registry;
	struct client *telling;
	struct client *asking[LOOKUP_THREADS];
	struct work_pool *pool;

	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* guards the next five */
	pthread_cond_t wakeup;
	struct client *at_rest[LOOKUP_THREADS]; /* of those in `asking` */
	unsigned at_rest_count;
	struct buf filling, record; /* sealed records, each behind its length; one of them */
	bool stopping;
	struct buf sending, request; /* the thread's, as the next two */
	struct mono seen_due;        /* when uses of certificates are told next */
	int64_t seen_pause_ms;
};

/* --- registering --- */

void upstream_register(struct upstream *u, const struct sealed *messages, unsigned count)
{
	unsigned dropped = 0;
	pthread_mutex_lock(&u->lock);
	bool was_empty = u->filling.n == 0;
	for (unsigned i = 0; i < count; i++) {
		buf_reset(&u->record);
		sealed_encode(&messages[i], &u->record);
		if (u->record.failed || u->filling.n + u->record.n + 4 > BUFFER_BYTES) {
			dropped++;
			continue;
		}
		buf_add_u32(&u->filling, (uint32_t)u->record.n);
		buf_add_str(&u->filling, buf_str(&u->record));
	}
	if (was_empty && u->filling.n)
		pthread_cond_signal(&u->wakeup);
	pthread_mutex_unlock(&u->lock);
	if (dropped)
		series_add(metric_series1(METRIC_REGISTERED, "dropped"), dropped);
}

/* Takes up to BATCH_MAX records off the front and writes them as one request; how many. */
static unsigned write_request(struct upstream *u, struct cursor *c)
{
	unsigned count = 0;
	buf_reset(&u->request);
	struct json_out w = json_out_to(&u->request);
	json_open_object(&w, NULL);
	json_open_array(&w, "messages");
	while (c->n && count < BATCH_MAX) {
		struct sealed sealed;
		uint32_t n = cursor_u32(c);
		if (sealed_decode(cursor_bytes(c, n), &sealed, NULL) < 0)
			break;
		wire_put_sealed(&w, &sealed, 0);
		count++;
	}
	json_close_array(&w);
	json_close_object(&w);
	return count;
}

static void send_all(struct upstream *u)
{
	struct cursor c = cursor_of(buf_str(&u->sending));
	unsigned count;
	while ((count = write_request(u, &c)) > 0) {
		AUTO(json_auto) json_t *answer = NULL;
		int rc = client_call(u->telling, "POST", "/internal/messages/register", buf_str(&u->request),
			REGISTER_TIMEOUT_MS, &answer, NULL);
		series_add(metric_series1(METRIC_REGISTERED, rc < 0 ? "failed" : "sent"), count);
	}
	buf_reset(&u->sending);
}

/* --- telling whose certificates were used --- */

static int tell(struct upstream *u, const struct registry_seen *seen, size_t count, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(buf_auto) struct buf body;
	buf_init(&body, SEEN_BODY_BYTES);
	struct json_out w = json_out_to(&body);
	json_open_object(&w, NULL);
	json_open_array(&w, "certificates");
	for (size_t i = 0; i < count; i++)
		wire_put_seen(&w, &seen[i]);
	json_close_array(&w);
	json_close_object(&w);
	if (buf_check(&body, e) < 0)
		return -1;
	return client_call(u->telling, "POST", "/internal/certificates/seen", buf_str(&body), SEEN_TIMEOUT_MS,
		&answer, e);
}

static void note_again(struct upstream *u, const struct registry_seen *seen, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct identity id = {.serial_bytes = seen[i].serial_bytes};
		memcpy(id.serial, seen[i].serial, sizeof(id.serial));
		memcpy(id.issuer_key_id, seen[i].issuer_key_id, sizeof(id.issuer_key_id));
		registry_note_seen(u->registry, &id, seen[i].at);
	}
}

static bool is_seen_due(const struct upstream *u)
{
	return mono_reached(clock_mono(u->clock), u->seen_due) && registry_any_seen(u->registry);
}

static void tell_seen(struct upstream *u)
{
	struct registry_seen seen[SEEN_AT_ONCE];
	struct err e = ERR_INIT;
	size_t count = registry_take_seen(u->registry, seen, SEEN_AT_ONCE);
	if (count == 0 || tell(u, seen, count, &e) >= 0) {
		u->seen_pause_ms = SEEN_MS;
	} else {
		note_again(u, seen, count);
		if (u->seen_pause_ms == SEEN_MS)
			log_event(LOG_WARN, "certificates.seen_not_told", LF_ERR(&e));
		u->seen_pause_ms *= 2;
		if (u->seen_pause_ms > SEEN_PAUSE_MAX_MS)
			u->seen_pause_ms = SEEN_PAUSE_MAX_MS;
	}
	u->seen_due = mono_add_ms(clock_mono(u->clock), u->seen_pause_ms);
}

/* --- the thread --- */

/* Until there are records to send, SEEN_MS are over, or it is to end: false. */
static bool wait_for_work(struct upstream *u)
{
	struct timespec until = mono_timespec(mono_add_ms(clock_mono(&clock_system), SEEN_MS));
	pthread_mutex_lock(&u->lock);
	while (!u->stopping && !u->filling.n && pthread_cond_timedwait(&u->wakeup, &u->lock, &until) == 0)
		;
	struct buf full = u->filling;
	u->filling = u->sending;
	u->sending = full;
	bool go_on = !u->stopping;
	pthread_mutex_unlock(&u->lock);
	return go_on;
}

static void *telling_thread(void *arg)
{
	struct upstream *u = arg;
	for (bool go_on = true; go_on;) {
		go_on = wait_for_work(u);
		send_all(u);
		if (is_seen_due(u))
			tell_seen(u);
	}
	return NULL;
}

/* --- asking --- */

static void take_answer(struct lookup *l, const json_t *in)
{
	const char *state = json_string_value(json_object_get(in, "status"));
	const char *owner = json_string_value(json_object_get(in, "client_id"));
	const char *domain = json_string_value(json_object_get(in, "domain"));
	const char *queued = json_string_value(json_object_get(in, "queued_at"));
	const char *delivered = json_string_value(json_object_get(in, "delivered_at"));
	const char *error_text = json_string_value(json_object_get(in, "error_message"));
	if (!owner || strcmp(owner, l->client_id) != 0) {
		l->result = err_set(&l->err, ERR_NOT_FOUND, "this message belongs to another client");
		return;
	}
	if (!state || !message_state_parse(str_of(state), &l->state) || !queued ||
		!wall_parse(str_of(queued), &l->accepted_at) ||
		(delivered && !wall_parse(str_of(delivered), &l->delivered_at))) {
		l->result = err_set(&l->err, ERR_RETRY, "the main server's answer makes no sense");
		return;
	}
	l->attempt_count = (unsigned)json_integer_value(json_object_get(in, "attempt_count"));
	snprintf(l->domain, sizeof(l->domain), "%s", domain ? domain : "");
	snprintf(l->error_text, sizeof(l->error_text), "%s", error_text ? error_text : "");
}

static void ask(struct work *w)
{
	struct lookup *l = container_of(w, struct lookup, work);
	struct upstream *u = l->server;
	AUTO(json_auto) json_t *answer = NULL;
	char id[UUID_TEXT_BYTES], path[80];
	uuid_format(&l->id, id);
	snprintf(path, sizeof(path), "/internal/messages/%s", id);
	/* As many clients as threads: there is always one at rest. */
	pthread_mutex_lock(&u->lock);
	struct client *client = u->at_rest[--u->at_rest_count];
	pthread_mutex_unlock(&u->lock);
	l->result =
		client_call(client, "GET", path, (struct str){"", 0}, LOOKUP_TIMEOUT_MS, &answer, &l->err);
	pthread_mutex_lock(&u->lock);
	u->at_rest[u->at_rest_count++] = client;
	pthread_mutex_unlock(&u->lock);
	if (l->result >= 0)
		take_answer(l, answer);
}

static void answered(struct work *w)
{
	struct lookup *l = container_of(w, struct lookup, work);
	l->done(l);
}

void upstream_lookup(void *arg, struct lookup *l)
{
	struct upstream *u = arg;
	l->server = u;
	l->work = (struct work){.loop = l->loop, .work = ask, .done = answered};
	if (work_submit(u->pool, &l->work) == 0)
		return;
	l->result = err_set(&l->err, ERR_RETRY, "too many questions at once");
	l->done(l);
}

/* --- opening and closing --- */

static int open_clients(struct upstream *u, const struct client_options *o, struct err *e)
{
	if (client_new(o, &u->telling, e) < 0)
		return -1;
	for (unsigned i = 0; i < LOOKUP_THREADS; i++) {
		if (client_new(o, &u->asking[i], e) < 0)
			return -1;
		u->at_rest[u->at_rest_count++] = u->asking[i];
	}
	return work_pool_start("lookup", LOOKUP_THREADS, LOOKUP_LIMIT, &u->pool, e);
}

int upstream_new(
	const struct client_options *o, struct registry *registry, struct upstream **ret, struct err *e)
{
	struct upstream *u = calloc(1, sizeof(*u));
	if (!u)
		return err_oom(e);
	u->clock = o->clock;
	u->registry = registry;
	u->seen_pause_ms = SEEN_MS;
	buf_init(&u->filling, BUFFER_BYTES);
	buf_init(&u->sending, BUFFER_BYTES);
	buf_init(&u->record, SEALED_MAX_BYTES);
	buf_init(&u->request, REQUEST_BYTES);
	pthread_mutex_init(&u->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&u->wakeup, &attr);
	pthread_condattr_destroy(&attr);
	int rc = open_clients(u, o, e);
	if (rc >= 0) {
		errno = pthread_create(&u->thread, NULL, telling_thread, u);
		rc = errno ? err_sys(e, ERR_RETRY, "start a thread") : 0;
		u->running = rc >= 0;
	}
	if (rc < 0) {
		upstream_free(u);
		return -1;
	}
	pthread_setname_np(u->thread, "register");
	*ret = u;
	return 0;
}

void upstream_cancel(struct upstream *u)
{
	for (unsigned i = 0; i < LOOKUP_THREADS; i++)
		if (u->asking[i])
			client_cancel(u->asking[i]);
}

void upstream_reload(struct upstream *u)
{
	client_reload(u->telling);
	for (unsigned i = 0; i < LOOKUP_THREADS; i++)
		client_reload(u->asking[i]);
}

void upstream_free(struct upstream *u)
{
	if (!u)
		return;
	upstream_cancel(u);
	work_pool_stop(u->pool);
	if (u->running) {
		pthread_mutex_lock(&u->lock);
		u->stopping = true;
		pthread_cond_signal(&u->wakeup);
		pthread_mutex_unlock(&u->lock);
		client_cancel(u->telling);
		pthread_join(u->thread, NULL);
	}
	client_free(u->telling);
	for (unsigned i = 0; i < LOOKUP_THREADS; i++)
		client_free(u->asking[i]);
	buf_clear(&u->filling);
	buf_clear(&u->sending);
	buf_clear(&u->record);
	buf_clear(&u->request);
	pthread_cond_destroy(&u->wakeup);
	pthread_mutex_destroy(&u->lock);
	free(u);
}
