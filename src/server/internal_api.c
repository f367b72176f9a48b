/* internal_api.c - what proxies and workers on other machines ask of the main server: register, deliver,
 * status.
 *
 * The same functions as for a worker in this process stand behind it; only the way here differs. */
#include <stdio.h>

#include "base/auto.h"
#include "base/log.h"
#include "role/wire.h"
#include "server/internal.h"

enum { BATCH_MAX = 500, BATCH_BYTES = 24 * 1024 * 1024, BATCH_ARENA_BYTES = 64 * 1024 * 1024 };

/* A batch as it came: every message has a place in `results`; those that could be read are `items` too. */
struct batch {
	struct sealed sealed[BATCH_MAX];
	struct delivery_item items[BATCH_MAX];
	unsigned count; /* of items */
	struct result {
		struct str message_id;            /* as sent; .p NULL: none that could be read */
		const struct delivery_item *item; /* NULL: malformed */
	} results[BATCH_MAX];
	unsigned result_count;
};

static void take_message(struct job *j, struct batch *batch, const json_t *in, struct arena *arena)
{
	struct result *result = &batch->results[batch->result_count++];
	struct delivery_item *item = &batch->items[batch->count];
	struct sealed *sealed = &batch->sealed[batch->count];
	struct uuid id;
	struct err e = ERR_INIT;
	const char *text = json_string_value(json_object_get(in, "message_id"));
	*result = (struct result){0};
	if (text && uuid_parse(str_of(text), &id))
		result->message_id = str_of(text);
	*item = (struct delivery_item){.sealed = sealed};
	if (wire_take_sealed(in, arena, sealed, &item->attempt_count, &e) < 0) {
		log_event(LOG_WARN, "internal.malformed_message",
			LF_STR("request_id", j->request->request_id),
			LF_UINT("index", batch->result_count - 1), LF_ERR(&e));
		return;
	}
	result->item = item;
	batch->count++;
}

/* The "messages" array; NULL when the job has failed. Lives in `arena` and refers to `in`. */
static struct batch *take_batch(struct job *j, const json_t *in, struct arena *arena)
{
	const json_t *list = json_object_get(in, "messages");
	size_t count = json_array_size(list);
	struct err e = ERR_INIT;
	if (count < 1 || count > BATCH_MAX) {
		job_invalid(j, "/messages", "wrong_type", "an array of 1 to 500 sealed messages is expected");
		return NULL;
	}
	struct batch *batch = arena_alloc(arena, sizeof(*batch));
	if (!batch) {
		err_oom(&e);
		job_fail(j, &e);
		return NULL;
	}
	batch->count = batch->result_count = 0;
	for (size_t i = 0; i < count; i++)
		take_message(j, batch, json_array_get(list, i), arena);
	return batch;
}

/* --- POST /internal/messages/deliver --- */

static void put_result(struct json_out *w, const struct result *result)
{
	const struct delivery_item *item = result->item;
	enum delivery_outcome outcome = item ? item->outcome : DELIVERY_REJECTED;
	const char *code = item ? item->reason : "malformed";
	json_open_object(w, NULL);
	if (result->message_id.p)
		json_put_str(w, "message_id", result->message_id);
	else
		json_put_null(w, "message_id");
	json_put_str(w, "result", str_of(delivery_outcome_name(outcome)));
	if (code)
		json_put_str(w, "code", str_of(code));
	json_close_object(w);
}

static void answer_delivered(struct job *j, const struct batch *batch)
{
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_open_array(&w, "results");
	for (unsigned i = 0; i < batch->result_count; i++)
		put_result(&w, &batch->results[i]);
	json_close_array(&w);
	json_close_object(&w);
}

static void run_deliver(struct job *j)
{
	struct server *s = server_of(j->request);
	AUTO(arena_auto) struct arena arena;
	AUTO(json_auto) json_t *in = job_json(j);
	struct err e = ERR_INIT;
	arena_init(&arena, BATCH_ARENA_BYTES);
	struct batch *batch = in ? take_batch(j, in, &arena) : NULL;
	if (!batch)
		return;
	void *session = server_take_session(s, &e);
	if (!session || (batch->count && deliver_batch(session, batch->items, batch->count, &e) < 0))
		job_fail(j, &e);
	else
		answer_delivered(j, batch);
	server_put_session(s, session);
}

/* --- POST /internal/messages/register --- */

static void run_register(struct job *j)
{
	struct server *s = server_of(j->request);
	AUTO(arena_auto) struct arena arena;
	AUTO(json_auto) json_t *in = job_json(j);
	struct err e = ERR_INIT;
	arena_init(&arena, BATCH_ARENA_BYTES);
	struct batch *batch = in ? take_batch(j, in, &arena) : NULL;
	struct store_message *rows = batch ? arena_zalloc(&arena, batch->count * sizeof(*rows)) : NULL;
	if (!rows) {
		if (batch) {
			err_oom(&e);
			job_fail(j, &e);
		}
		return;
	}
	unsigned known = 0;
	for (unsigned i = 0; i < batch->count; i++)
		if (clients_known(s->clients, batch->sealed[i].client_id, batch->sealed[i].domain))
			rows[known++] =
				(struct store_message){.sealed = batch->sealed[i], .state = MESSAGE_QUEUED};
	struct store_messages op = {.items = rows, .count = known};
	if (known && store_wait(s->store, STORE_MESSAGES, &op.op, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "registered", op.stored_count);
	json_put_int(&w, "skipped", batch->result_count - op.stored_count);
	json_close_object(&w);
}

/* --- PUT /internal/messages/{id}/status --- */

static void run_status(struct job *j)
{
	static const char *const known[] = {"status", "attempt_count", "error_message", NULL};
	struct server *s = server_of(j->request);
	struct str status;
	int64_t attempts = 0;
	struct err e = ERR_INIT;
	struct store_status op = {.attempt_count = 0};
	AUTO(json_auto) json_t *in = job_json(j);
	if (!in || !job_known(j, in, known) || !job_string(j, in, "status", true, &status) ||
		!job_integer(j, in, "attempt_count", 0, UINT32_MAX, &attempts) ||
		!job_string(j, in, "error_message", false, &op.error_text))
		return;
	if (!message_state_parse(status, &op.state) || op.state == MESSAGE_DELIVERED) {
		job_invalid(j, "/status", "unknown", "queued, processing or failed is expected");
		return;
	}
	op.attempt_count = (unsigned)attempts;
	if (!uuid_parse(j->request->params[0], &op.id)) {
		err_set(&e, ERR_NOT_FOUND, "no message has this id");
		job_fail(j, &e);
	} else if (store_wait(s->store, STORE_STATUS, &op.op, &e) < 0) {
		job_fail(j, &e);
	} else {
		struct json_out w = json_out_to(&j->body);
		json_open_object(&w, NULL);
		json_put_bool(&w, "changed", op.op.result == 0);
		json_close_object(&w);
	}
}

/* --- GET /internal/messages/{id} --- */

static void run_message(struct job *j)
{
	struct server *s = server_of(j->request);
	struct uuid id;
	struct store_row row;
	struct err e = ERR_INIT;
	if (!uuid_parse(j->request->params[0], &id))
		err_set(&e, ERR_NOT_FOUND, "no message has this id");
	if (e.kind != ERR_NONE || store_read_message(s->store, &id, &j->arena, &row, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_str(&w, "client_id", row.sealed.client_id);
	json_put_str(&w, "domain", row.sealed.domain);
	json_put_str(&w, "status", str_of(message_state_name(row.state)));
	json_put_time(&w, "queued_at", row.sealed.accepted_at);
	if (row.delivered_at.ms)
		json_put_time(&w, "delivered_at", row.delivered_at);
	json_put_int(&w, "attempt_count", row.attempt_count);
	json_put_str(&w, "error_message", row.error_text);
	json_close_object(&w);
}

ADMIN_HANDLER(post_register, run_register)
ADMIN_HANDLER(post_deliver, run_deliver)
ADMIN_HANDLER(put_status, run_status)
ADMIN_HANDLER(get_message, run_message)

const struct http_route internal_routes[] = {
	{"POST", "/internal/messages/register", ROLE_BIT(ROLE_PROXY), false, post_register,
		"Make accepted messages known before they are delivered", BATCH_BYTES},
	{"POST", "/internal/messages/deliver", ROLE_BIT(ROLE_WORKER), false, post_deliver, "Deliver a batch",
		BATCH_BYTES},
	{"PUT", "/internal/messages/{id}/status", ROLE_BIT(ROLE_WORKER), false, put_status,
		"Report a message that is not delivered", ADMIN_BODY_BYTES},
	{"GET", "/internal/messages/{id}", ROLE_BIT(ROLE_PROXY), false, get_message,
		"What became of a message", 0},
	{"POST", "/internal/certificates/seen", ROLE_BIT(ROLE_PROXY), false, server_post_seen,
		"Report whose bearers came to a proxy", SEEN_BYTES},
	{"GET", "/internal/revocations", ROLE_BIT(ROLE_PROXY), false, server_get_changes,
		"Changes of the certificate registry; waits up to 30 s for one", 0},
	{"GET", "/internal/sealing-keys", ROLE_BIT(ROLE_PROXY), false, server_get_sealing_keys,
		"The keys that messages are sealed with", 0},
	{0},
};
