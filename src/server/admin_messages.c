/* admin_messages.c - /admin/messages: lists without text, and one message decrypted, which leaves an audit
 * row. */
#include "base/auto.h"
#include "crypto/seal.h"
#include "server/internal.h"

#define ADMIN ROLE_BIT(ROLE_ADMIN)

static void put_row(struct json_out *w, const struct store_row *row)
{
	char id[UUID_TEXT_BYTES];
	uuid_format(&row->sealed.id, id);
	json_open_object(w, NULL);
	json_put_str(w, "message_id", str_of(id));
	json_put_str(w, "client_id", row->sealed.client_id);
	json_put_str(w, "domain", row->sealed.domain);
	json_put_str(w, "status", str_of(message_state_name(row->state)));
	json_put_time(w, "queued_at", row->sealed.accepted_at);
	if (row->delivered_at.ms)
		json_put_time(w, "delivered_at", row->delivered_at);
	else
		json_put_null(w, "delivered_at");
	json_put_int(w, "attempt_count", row->attempt_count);
	if (row->error_text.n)
		json_put_str(w, "error_message", row->error_text);
	if (row->sealed.traceparent.n)
		json_put_str(w, "traceparent", row->sealed.traceparent);
}

static bool take_state(struct job *j, int *ret)
{
	struct str text = http_query(j->request, STR("status"));
	enum message_state state;
	*ret = -1;
	if (!text.p || !text.n)
		return true;
	if (!message_state_parse(text, &state)) {
		job_invalid(j, "?status", "unknown", "queued, processing, delivered or failed is expected");
		return false;
	}
	*ret = state;
	return true;
}

/* ?sender=+49…: by the blind index; the number itself goes nowhere. */
static bool take_sender(struct job *j, uint8_t index[STORE_INDEX_BYTES], const uint8_t **ret)
{
	struct str number = http_query(j->request, STR("sender"));
	struct err e = ERR_INIT;
	*ret = NULL;
	if (!number.p || !number.n)
		return true;
	if (!message_number_valid(number)) {
		job_invalid(
			j, "?sender", "not_e164", "a number such as +4915112345678 is expected ('+' as %2B)");
		return false;
	}
	if (keyring_blind_index(server_of(j->request)->keyring, number, index, &e) < 0) {
		job_fail(j, &e);
		return false;
	}
	*ret = index;
	return true;
}

static void run_list(struct job *j)
{
	struct server *s = server_of(j->request);
	struct store_query query = {
		.client_id = http_query(j->request, STR("client")),
		.domain = http_query(j->request, STR("domain")),
	};
	uint8_t index[STORE_INDEX_BYTES];
	struct store_page page;
	struct err e = ERR_INIT;
	if (!job_limit(j, &query.max) || !job_cursor(j, &query.before_sequence) ||
		!take_state(j, &query.state) || !take_sender(j, index, &query.sender_index) ||
		!job_query_time(j, "since", &query.since) || !job_query_time(j, "until", &query.until))
		return;
	if (store_read_messages(s->store, &query, &j->arena, &page, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_open_array(&w, "messages");
	for (unsigned i = 0; i < page.count; i++) {
		put_row(&w, &page.rows[i]);
		json_close_object(&w);
	}
	json_close_array(&w);
	job_put_cursor(&w, page.next_sequence);
	json_close_object(&w);
}

/* Opens the row and writes the answer; the audit row is on disk before this returns 0. */
static int show_row(struct job *j, const struct store_row *row, const char *id, struct err *e)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	AUTO(buf_wipe_auto) struct buf plaintext;
	buf_init(&plaintext, SEALED_MAX_BYTES);
	struct opener *opener;
	struct message message;
	if (opener_new(s->keyring, &opener, e) < 0)
		return -1;
	int rc = opener_open(opener, &row->sealed, &plaintext, &message, e);
	opener_free(opener);
	const char *result = rc < 0 ? "does_not_open" : "ok";
	if (server_audit(s, &actor, "message.read", str_of(id), result, (struct str){"", 0}, e) < 0)
		return -1;
	if (rc < 0)
		return err_set(e, ERR_FATAL, "message %s does not open: its row or its key is damaged", id);
	struct json_out w = json_out_to(&j->body);
	put_row(&w, row);
	json_put_str(&w, "sender_number", message.sender_number);
	json_put_str(&w, "message_body", message.body);
	if (message.metadata.n)
		json_put_raw(&w, "metadata", message.metadata);
	json_close_object(&w);
	return 0;
}

static void run_show(struct job *j)
{
	struct server *s = server_of(j->request);
	struct uuid id;
	struct store_row row;
	char text[UUID_TEXT_BYTES];
	struct err e = ERR_INIT;
	if (!uuid_parse(j->request->params[0], &id)) {
		err_set(&e, ERR_NOT_FOUND, "no message has this id");
		job_fail(j, &e);
		return;
	}
	uuid_format(&id, text);
	if (store_read_message(s->store, &id, &j->arena, &row, &e) < 0 || show_row(j, &row, text, &e) < 0)
		job_fail(j, &e);
}

ADMIN_HANDLER(get_list, run_list)
ADMIN_HANDLER(get_one, run_show)

const struct http_route admin_message_routes[] = {
	{"GET", "/admin/messages", ADMIN, false, get_list, "List messages, newest first, without their text",
		0},
	{"GET", "/admin/messages/{id}", ADMIN, false, get_one, "Show a message decrypted; audited", 0},
	{0},
};
