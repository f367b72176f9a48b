/* internal_api.c - what proxies and workers on other machines ask of the main server: register, deliver,
 * status.
 *
 * The same functions as for a worker in this process stand behind it; only the way here differs. */
#include <stdio.h>

#include "base/auto.h"
#include "role/wire.h"
#include "server/internal.h"

enum { BATCH_MAX = 500, BATCH_BYTES = 24 * 1024 * 1024, BATCH_ARENA_BYTES = 64 * 1024 * 1024 };

/* A batch as it came. */
struct batch {
	struct sealed sealed[BATCH_MAX];
	struct delivery_item items[BATCH_MAX];
	unsigned count;
};

/* The "messages" array; NULL when the job has failed. Lives in `arena`. */
static struct batch *take_batch(struct job *j, const json_t *in, struct arena *arena)
{
	const json_t *list = json_object_get(in, "messages");
	struct batch *batch = arena_alloc(arena, sizeof(*batch));
	struct err e = ERR_INIT;
	if (!batch || !json_is_array(list) || json_array_size(list) < 1 ||
		json_array_size(list) > BATCH_MAX) {
		job_invalid(j, "/messages", "wrong_type", "an array of 1 to 500 sealed messages is expected");
		return NULL;
	}
	batch->count = (unsigned)json_array_size(list);
	for (unsigned i = 0; i < batch->count; i++) {
		struct delivery_item *item = &batch->items[i];
		*item = (struct delivery_item){.sealed = &batch->sealed[i]};
		if (wire_take_sealed(json_array_get(list, i), arena, &batch->sealed[i], &item->attempt_count,
			    &e) < 0) {
			job_invalid(j, arena_printf(j->request->arena, "/messages/%u", i), "malformed",
				arena_strdup(j->request->arena, str_of(e.text)));
			return NULL;
		}
	}
	return batch;
}

/* --- POST /internal/messages/deliver --- */

static void answer_delivered(struct job *j, const struct batch *batch)
{
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_open_array(&w, "results");
	for (unsigned i = 0; i < batch->count; i++) {
		const struct delivery_item *item = &batch->items[i];
		char id[UUID_TEXT_BYTES];
		uuid_format(&item->sealed->id, id);
		json_open_object(&w, NULL);
		json_put_str(&w, "message_id", str_of(id));
		json_put_str(&w, "result", str_of(delivery_outcome_name(item->outcome)));
		if (item->reason)
			json_put_str(&w, "code", str_of(item->reason));
		json_close_object(&w);
	}
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
	if (!session || deliver_batch(session, batch->items, batch->count, &e) < 0)
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
	json_put_int(&w, "skipped", batch->count - op.stored_count);
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
	{"GET", "/internal/revocations", ROLE_BIT(ROLE_PROXY), false, server_get_changes,
		"Changes of the certificate registry; waits up to 30 s for one", 0},
	{"GET", "/internal/sealing-keys", ROLE_BIT(ROLE_PROXY), false, server_get_sealing_keys,
		"The keys that messages are sealed with", 0},
	{0},
};
