/* admin_queue.c - /admin/queue: what waits, what failed; redrive, purge, pause, resume. */
#include <stdio.h>

#include "base/auto.h"
#include "server/internal.h"

enum { IDS_MAX = 1000, BATCH_MAX = 10000, FILTER_BYTES = 200, DETAIL_BYTES = 8192, IDS_AUDITED = 100 };

#define ADMIN ROLE_BIT(ROLE_ADMIN)

static bool has_queue(struct job *j)
{
	struct err e = ERR_INIT;
	if (server_of(j->request)->queue)
		return true;
	err_set(&e, ERR_RETRY, "this process has no queue");
	job_fail(j, &e);
	return false;
}

static void run_stats(struct job *j)
{
	struct queue_stats stats = {0};
	struct err e = ERR_INIT;
	if (!has_queue(j))
		return;
	if (queue_wait(server_of(j->request)->queue, QUEUE_STATS, &stats.op, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "queued", (int64_t)stats.queued);
	json_put_int(&w, "processing", (int64_t)stats.processing);
	json_put_int(&w, "failed", (int64_t)stats.failed);
	json_put_int(&w, "retrying", (int64_t)stats.retrying);
	json_put_double(&w, "oldest_age_seconds", (double)stats.oldest_age_ms / 1000);
	json_put_double(&w, "oldest_due_seconds", (double)stats.oldest_due_ms / 1000);
	json_put_bool(&w, "accept_paused", stats.accept_paused);
	json_put_str(&w, "accept_reason", str_of(stats.accept_reason));
	json_put_bool(&w, "delivery_paused", stats.delivery_paused);
	json_put_str(&w, "delivery_reason", str_of(stats.delivery_reason));
	json_put_str(&w, "durability", str_of(queue_durability(server_of(j->request)->queue)));
	json_close_object(&w);
}

static void put_entry(struct json_out *w, const struct queue_entry *entry)
{
	char id[UUID_TEXT_BYTES];
	uuid_format(&entry->id, id);
	json_open_object(w, NULL);
	json_put_str(w, "message_id", str_of(id));
	json_put_str(w, "client_id", entry->client_id);
	json_put_str(w, "domain", entry->domain);
	json_put_str(w, "status", str_of(message_state_name(entry->state)));
	json_put_time(w, "queued_at", entry->accepted_at);
	if (entry->due_at.ms)
		json_put_time(w, "due_at", entry->due_at);
	json_put_int(w, "attempt_count", entry->attempt_count);
	if (entry->last_reason.n)
		json_put_str(w, "error_message", entry->last_reason);
}

static void put_attempts(struct json_out *w, const struct queue_entry *entry)
{
	json_open_array(w, "attempts");
	for (unsigned i = 0; i < entry->attempts_kept; i++) {
		const struct queue_attempt *attempt = &entry->attempts[i];
		json_open_object(w, NULL);
		json_put_time(w, "at", attempt->at);
		json_put_str(w, "worker", attempt->worker);
		json_put_str(w, "error_message", attempt->reason);
		json_close_object(w);
	}
	json_close_array(w);
}

static bool take_state(struct job *j, int *ret)
{
	struct str text = http_query(j->request, STR("status"));
	enum message_state state;
	*ret = -1;
	if (!text.p || !text.n)
		return true;
	if (!message_state_parse(text, &state) || state == MESSAGE_DELIVERED) {
		job_invalid(j, "?status", "unknown", "queued, processing or failed is expected");
		return false;
	}
	*ret = state;
	return true;
}

/* One entry of a list; a list has no attempts of its own, they are looked up. A message that is gone meanwhile
 * has none. */
static void put_listed(struct job *j, struct json_out *w, const struct queue_entry *entry, bool with_attempts)
{
	struct queue_find find = {.id = entry->id, .arena = &j->arena};
	struct err e = ERR_INIT;
	put_entry(w, entry);
	if (with_attempts && queue_wait(server_of(j->request)->queue, QUEUE_FIND, &find.op, &e) >= 0)
		put_attempts(w, &find.entry);
	json_close_object(w);
}

static void run_list(struct job *j)
{
	struct http_request *r = j->request;
	struct queue_list op = {
		.filter = {.client_id = http_query(r, STR("client")),
			.domain = http_query(r, STR("domain")),
			.reason_has = http_query(r, STR("reason_has"))},
		.arena = &j->arena,
	};
	bool with_attempts = str_eq(http_query(r, STR("attempts")), STR("true"));
	int64_t cursor;
	struct err e = ERR_INIT;
	if (!has_queue(j) || !job_limit(j, &op.max) || !job_cursor(j, &cursor) ||
		!take_state(j, &op.filter.state) ||
		!job_query_time(j, "accepted_before", &op.filter.accepted_before))
		return;
	op.after_key = (uint64_t)cursor;
	if (queue_wait(server_of(r)->queue, QUEUE_LIST, &op.op, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_open_array(&w, "messages");
	for (unsigned i = 0; i < op.count; i++)
		put_listed(j, &w, &op.entries[i], with_attempts);
	json_close_array(&w);
	job_put_cursor(&w, op.count >= op.max ? (int64_t)uuid_order_key(&op.entries[op.count - 1].id) : 0);
	json_close_object(&w);
}

static void run_show(struct job *j)
{
	struct queue_find op = {.arena = &j->arena};
	struct err e = ERR_INIT;
	if (!has_queue(j))
		return;
	if (!uuid_parse(j->request->params[0], &op.id)) {
		err_set(&e, ERR_NOT_FOUND, "no message has this id");
		job_fail(j, &e);
		return;
	}
	if (queue_wait(server_of(j->request)->queue, QUEUE_FIND, &op.op, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	put_entry(&w, &op.entry);
	put_attempts(&w, &op.entry);
	json_close_object(&w);
}

/* --- redrive and purge: which dead letters --- */

struct selection {
	struct uuid *ids;
	unsigned id_count;
	struct queue_filter filter;
	int64_t max;
	bool dry_run, all;
};

static bool take_ids(struct job *j, const json_t *in, struct selection *ret)
{
	const json_t *ids = json_object_get(in, "ids");
	if (!ids)
		return true;
	if (!json_is_array(ids) || json_array_size(ids) < 1 || json_array_size(ids) > IDS_MAX) {
		job_invalid(j, "/ids", "wrong_type", "an array of 1 to 1000 message ids is expected");
		return false;
	}
	ret->ids = arena_alloc(j->request->arena, json_array_size(ids) * sizeof(*ret->ids));
	for (size_t i = 0; i < json_array_size(ids); i++) {
		const json_t *id = json_array_get(ids, i);
		if (!ret->ids || !json_is_string(id) ||
			!uuid_parse(str_of(json_string_value(id)), &ret->ids[i])) {
			job_invalid(j, arena_printf(j->request->arena, "/ids/%zu", i), "not_an_id",
				"a message id is expected");
			return false;
		}
	}
	ret->id_count = (unsigned)json_array_size(ids);
	return true;
}

/* Ids, or a filter, or "all": true, so that nobody empties a queue by leaving something out. */
static bool take_selection(struct job *j, const json_t *in, struct selection *ret)
{
	static const char *const known[] = {
		"ids", "client", "domain", "reason_has", "accepted_before", "max", "dry_run", "all", NULL};
	struct str before;
	*ret = (struct selection){.filter = {.state = MESSAGE_FAILED}, .max = BATCH_MAX};
	if (!job_known(j, in, known) || !take_ids(j, in, ret) ||
		!job_string(j, in, "client", false, &ret->filter.client_id) ||
		!job_string(j, in, "domain", false, &ret->filter.domain) ||
		!job_string(j, in, "reason_has", false, &ret->filter.reason_has) ||
		!job_string(j, in, "accepted_before", false, &before) ||
		!job_integer(j, in, "max", 1, BATCH_MAX, &ret->max) ||
		!job_boolean(j, in, "dry_run", &ret->dry_run) || !job_boolean(j, in, "all", &ret->all))
		return false;
	if (ret->dry_run && !json_object_get(in, "max"))
		ret->max = UINT32_MAX; /* counting holds nobody up */
	if (before.n && !wall_parse(before, &ret->filter.accepted_before)) {
		job_invalid(j, "/accepted_before", "not_a_time",
			"a time such as 2026-01-31T12:00:00Z is expected");
		return false;
	}
	if (ret->filter.client_id.n > FILTER_BYTES || ret->filter.domain.n > FILTER_BYTES ||
		ret->filter.reason_has.n > FILTER_BYTES) {
		job_invalid(j, "", "too_long", "a filter has at most 200 bytes");
		return false;
	}
	bool filtered =
		ret->filter.client_id.n || ret->filter.domain.n || ret->filter.reason_has.n || before.n;
	if ((ret->id_count > 0) + filtered + ret->all != 1) {
		job_invalid(j, "", "required", "give ids, or a filter, or \"all\": true");
		return false;
	}
	return true;
}

/* The first of them at least. */
static void write_ids(struct json_out *w, const struct selection *selection)
{
	unsigned shown = selection->id_count < IDS_AUDITED ? selection->id_count : IDS_AUDITED;
	char text[UUID_TEXT_BYTES];
	json_open_array(w, "ids");
	for (unsigned i = 0; i < shown; i++) {
		uuid_format(&selection->ids[i], text);
		json_put_str(w, NULL, str_of(text));
	}
	json_close_array(w);
	if (selection->id_count > shown)
		json_put_int(w, "more_ids", selection->id_count - shown);
}

/* Which ones, for the audit trail. */
static void write_detail(struct buf *out, const struct selection *selection, uint64_t matched)
{
	const struct queue_filter *filter = &selection->filter;
	const struct {
		const char *key;
		struct str value;
	} texts[] = {{"client", filter->client_id}, {"domain", filter->domain},
		{"reason_has", filter->reason_has}};
	struct json_out w = json_out_to(out);
	json_open_object(&w, NULL);
	json_put_int(&w, "messages", (int64_t)matched);
	if (selection->id_count)
		write_ids(&w, selection);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (texts[i].value.n)
			json_put_str(&w, texts[i].key, texts[i].value);
	if (filter->accepted_before.ms)
		json_put_time(&w, "accepted_before", filter->accepted_before);
	if (selection->all)
		json_put_bool(&w, "all", true);
	json_close_object(&w);
}

static void answer_matched(
	struct job *j, const char *action, const struct selection *selection, uint64_t matched)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	struct err e = ERR_INIT;
	AUTO(buf_auto) struct buf detail;
	buf_init(&detail, DETAIL_BYTES);
	write_detail(&detail, selection, matched);
	if (!selection->dry_run &&
		server_audit(s, &actor, action, STR("dead letters"), "ok", buf_str(&detail), &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "matched", (int64_t)matched);
	json_put_bool(&w, "dry_run", selection->dry_run);
	json_put_bool(&w, "more", matched == (uint64_t)selection->max);
	json_close_object(&w);
}

static void run_redrive(struct job *j)
{
	AUTO(json_auto) json_t *in = job_json(j);
	struct selection sel;
	struct err e = ERR_INIT;
	if (!in || !has_queue(j) || !take_selection(j, in, &sel))
		return;
	struct queue_redrive op = {.ids = sel.ids,
		.id_count = sel.id_count,
		.filter = sel.filter,
		.max = (unsigned)sel.max,
		.dry_run = sel.dry_run};
	if (queue_wait(server_of(j->request)->queue, QUEUE_REDRIVE, &op.op, &e) < 0)
		job_fail(j, &e);
	else
		answer_matched(j, "queue.redrive", &sel, op.matched);
}

static void run_purge(struct job *j)
{
	AUTO(json_auto) json_t *in = job_json(j);
	struct selection sel;
	struct err e = ERR_INIT;
	if (!in || !has_queue(j) || !take_selection(j, in, &sel))
		return;
	struct queue_purge op = {.ids = sel.ids,
		.id_count = sel.id_count,
		.filter = sel.filter,
		.max = (unsigned)sel.max,
		.dry_run = sel.dry_run};
	if (queue_wait(server_of(j->request)->queue, QUEUE_PURGE, &op.op, &e) < 0)
		job_fail(j, &e);
	else
		answer_matched(j, "queue.purge", &sel, op.matched);
}

/* --- pause and resume --- */

static void set_pause(struct job *j, bool on)
{
	static const char *const known[] = {"what", "reason", NULL};
	struct server *s = server_of(j->request);
	AUTO(json_auto) json_t *in = job_json(j);
	struct str what, reason;
	struct err e = ERR_INIT;
	if (!in || !has_queue(j) || !job_known(j, in, known) || !job_string(j, in, "what", true, &what) ||
		!job_string(j, in, "reason", false, &reason))
		return;
	bool accept = str_eq(what, STR("accept"));
	if (!accept && !str_eq(what, STR("delivery"))) {
		job_invalid(j, "/what", "unknown", "accept or delivery is expected");
		return;
	}
	struct queue_pause op = {.accept = accept, .on = on};
	if (reason.n >= sizeof(op.reason)) {
		job_invalid(j, "/reason", "too_long", "at most 127 bytes are kept");
		return;
	}
	memcpy(op.reason, reason.p, reason.n);
	struct server_actor actor = server_actor_of(j->request);
	AUTO(buf_auto) struct buf detail;
	buf_init(&detail, DETAIL_BYTES);
	struct json_out w = json_out_to(&detail);
	json_open_object(&w, NULL);
	json_put_str(&w, "reason", reason);
	json_close_object(&w);
	if (queue_wait(s->queue, QUEUE_PAUSE, &op.op, &e) < 0 ||
		server_audit(s, &actor, on ? "queue.pause" : "queue.resume", what, "ok", buf_str(&detail),
			&e) < 0) {
		job_fail(j, &e);
		return;
	}
	run_stats(j);
}

static void run_pause(struct job *j)
{
	set_pause(j, true);
}

static void run_resume(struct job *j)
{
	set_pause(j, false);
}

ADMIN_HANDLER(get_stats, run_stats)
ADMIN_HANDLER(get_list, run_list)
ADMIN_HANDLER(get_one, run_show)
ADMIN_HANDLER(post_redrive, run_redrive)
ADMIN_HANDLER(post_purge, run_purge)
ADMIN_HANDLER(post_pause, run_pause)
ADMIN_HANDLER(post_resume, run_resume)

const struct http_route admin_queue_routes[] = {
	{"GET", "/admin/queue/stats", ADMIN, false, get_stats, "Counts, ages and pauses", 0},
	{"GET", "/admin/queue/messages", ADMIN, false, get_list, "List what waits or failed, oldest first",
		0},
	{"GET", "/admin/queue/messages/{id}", ADMIN, false, get_one, "One waiting message with its attempts",
		0},
	{"POST", "/admin/queue/redrive", ADMIN, false, post_redrive, "Put dead letters back",
		ADMIN_BODY_BYTES},
	{"POST", "/admin/queue/purge", ADMIN, false, post_purge, "Delete dead letters", ADMIN_BODY_BYTES},
	{"POST", "/admin/queue/pause", ADMIN, false, post_pause, "Pause accepting or delivery",
		ADMIN_BODY_BYTES},
	{"POST", "/admin/queue/resume", ADMIN, false, post_resume, "Resume accepting or delivery",
		ADMIN_BODY_BYTES},
	{0},
};
