/* remote.c - see remote.h. */
#include "worker/remote.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "role/wire.h"

enum {
	REQUEST_BYTES = 24 * 1024 * 1024,
	REPORT_BYTES = 4096,
	REPORT_TIMEOUT_MS = 5000,
	REASON_BYTES = 48,
	BATCH_MAX = 500,
};

struct remote {
	struct client_options client;
	char *url, *trust_domain; /* what `client` points to */
	char *name;
	int64_t timeout_ms;
	atomic_uint reloads;
	struct destination destination;
};

struct session {
	const struct remote *remote;
	struct client *client;
	unsigned reloads; /* how many the client has seen */
	struct buf request;
	char reasons[BATCH_MAX][REASON_BYTES]; /* of the last batch: they outlive the answer */
};

static int open_session(void *arg, void **ret_session, struct err *e)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	s->remote = arg;
	s->reloads = atomic_load(&s->remote->reloads);
	buf_init(&s->request, REQUEST_BYTES);
	if (client_new(&s->remote->client, &s->client, e) < 0) {
		free(s);
		return -1;
	}
	*ret_session = s;
	return 0;
}

static void close_session(void *arg)
{
	struct session *s = arg;
	if (!s)
		return;
	client_free(s->client);
	buf_clear(&s->request);
	free(s);
}

static void write_request(struct session *s, const struct delivery_item *items, unsigned count)
{
	buf_reset(&s->request);
	struct json_out w = json_out_to(&s->request);
	json_open_object(&w, NULL);
	json_put_str(&w, "worker_id", str_of(s->remote->name));
	json_open_array(&w, "messages");
	for (unsigned i = 0; i < count; i++)
		wire_put_sealed(&w, items[i].sealed, items[i].attempt_count);
	json_close_array(&w);
	json_close_object(&w);
}

/* One message's result; false when it makes no sense. */
static bool take_result(struct session *s, const json_t *in, unsigned i, struct delivery_item *item)
{
	char id[UUID_TEXT_BYTES];
	uuid_format(&item->sealed->id, id);
	const char *result = json_string_value(json_object_get(in, "result"));
	const char *named = json_string_value(json_object_get(in, "message_id"));
	const char *code = json_string_value(json_object_get(in, "code"));
	if (!result || !named || strcmp(named, id) != 0)
		return false;
	snprintf(s->reasons[i], REASON_BYTES, "%s", code ? code : "");
	item->reason = s->reasons[i];
	for (unsigned o = 0; o < DELIVERY_OUTCOMES; o++)
		if (strcmp(result, delivery_outcome_name(o)) == 0) {
			item->outcome = o;
			return true;
		}
	return false;
}

static void follow_reload(struct session *s)
{
	unsigned reloads = atomic_load(&s->remote->reloads);
	if (reloads != s->reloads)
		client_reload(s->client);
	s->reloads = reloads;
}

static int deliver(void *arg, struct delivery_item *items, unsigned count, struct err *e)
{
	struct session *s = arg;
	AUTO(json_auto) json_t *answer = NULL;
	if (count > BATCH_MAX)
		return err_set(e, ERR_REJECT, "a batch holds at most %d messages", BATCH_MAX);
	write_request(s, items, count);
	if (buf_check(&s->request, e) < 0)
		return err_context(e, "delivery request");
	follow_reload(s);
	if (client_call(s->client, "POST", "/internal/messages/deliver", buf_str(&s->request),
		    s->remote->timeout_ms, &answer, e) < 0)
		return -1;
	const json_t *results = json_object_get(answer, "results");
	if (json_array_size(results) != count)
		return err_set(e, ERR_RETRY, "the main server answered %zu results for %u messages",
			json_array_size(results), count);
	for (unsigned i = 0; i < count; i++)
		if (!take_result(s, json_array_get(results, i), i, &items[i]))
			return err_set(
				e, ERR_RETRY, "the main server's answer does not match the messages sent");
	return 0;
}

static int report(void *arg, const struct delivery_report *r, struct err *e)
{
	struct session *s = arg;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(buf_auto) struct buf body;
	char id[UUID_TEXT_BYTES], path[80];
	buf_init(&body, REPORT_BYTES);
	uuid_format(&r->id, id);
	snprintf(path, sizeof(path), "/internal/messages/%s/status", id);
	struct json_out w = json_out_to(&body);
	json_open_object(&w, NULL);
	json_put_str(&w, "status", str_of(message_state_name(r->state)));
	json_put_int(&w, "attempt_count", r->attempt_count);
	json_put_str(&w, "error_message", r->reason);
	json_close_object(&w);
	if (buf_check(&body, e) < 0)
		return err_context(e, "status report");
	struct err why = ERR_INIT;
	if (client_call(s->client, "PUT", path, buf_str(&body), REPORT_TIMEOUT_MS, &answer, &why) >= 0 ||
		why.kind == ERR_NOT_FOUND) /* it was not registered: there is nothing to correct */
		return 0;
	if (e)
		*e = why;
	return -1;
}

static void cancel(void *arg)
{
	client_cancel(((struct session *)arg)->client);
}

int remote_new(const struct remote_options *o, struct remote **ret, struct err *e)
{
	struct remote *r = calloc(1, sizeof(*r));
	if (!r)
		return err_oom(e);
	r->url = strdup(o->client.url);
	r->trust_domain = strdup(o->client.trust_domain);
	r->name = strdup(o->name);
	if (!r->url || !r->trust_domain || !r->name) {
		remote_free(r);
		return err_oom(e);
	}
	r->client = o->client;
	r->client.url = r->url;
	r->client.trust_domain = r->trust_domain;
	r->timeout_ms = o->timeout_ms;
	r->destination = (struct destination){
		.name = r->url,
		.arg = r,
		.open = open_session,
		.close = close_session,
		.deliver = deliver,
		.report = report,
		.cancel = cancel,
	};
	*ret = r;
	return 0;
}

void remote_free(struct remote *r)
{
	if (!r)
		return;
	free(r->url);
	free(r->trust_domain);
	free(r->name);
	free(r);
}

const struct destination *remote_destination(const struct remote *r)
{
	return &r->destination;
}

void remote_reload(struct remote *r)
{
	atomic_fetch_add(&r->reloads, 1);
}
