/* admin_misc.c - /admin/stats, /admin/clients, /admin/ca, /admin/ca/crl: what is there, and who may send. */
#include "base/auto.h"
#include "server/internal.h"

#define ADMIN ROLE_BIT(ROLE_ADMIN)

static void run_stats(struct job *j)
{
	struct server *s = server_of(j->request);
	struct store_counts counts;
	struct store_glance glance;
	struct err e = ERR_INIT;
	if (store_read_counts(s->store, &counts, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "messages", (int64_t)counts.messages);
	json_open_object(&w, "messages_by_status");
	for (unsigned i = 0; i < MESSAGE_STATES; i++)
		json_put_int(&w, message_state_name(i), (int64_t)counts.by_state[i]);
	json_close_object(&w);
	json_put_int(&w, "clients", (int64_t)counts.clients);
	json_put_int(&w, "certificates", (int64_t)counts.certificates);
	json_put_int(&w, "audit_rows", (int64_t)counts.audit_rows);
	json_put_str(&w, "store", str_of(store_description(s->store)));
	store_glance(s->store, &glance);
	json_put_str(&w, "store_trouble", str_of(glance.trouble));
	json_close_object(&w);
}

void server_put_client(struct json_out *w, const struct server *s, const struct store_client *c)
{
	static const char *const statuses[CLIENT_STATUSES] = {"active", "suspended", "removed"};
	char display_name[DOMAINS_DISPLAY_BYTES];
	json_open_object(w, NULL);
	json_put_str(w, "name", c->name);
	json_put_str(w, "domain", c->domain);
	if (domains_display_name(s->domains, c->domain, display_name))
		json_put_str(w, "domain_display_name", str_of(display_name));
	json_put_str(w, "status", str_of(statuses[c->status]));
	json_put_time(w, "created_at", c->created_at);
}

static void run_clients(struct job *j)
{
	struct server *s = server_of(j->request);
	struct http_request *r = j->request;
	struct store_client *rows;
	unsigned limit, count;
	struct err e = ERR_INIT;
	struct str after = http_query(r, STR("cursor")), domain = http_query(r, STR("domain"));
	bool removed = str_eq(http_query(r, STR("removed")), STR("true"));
	if (!job_limit(j, &limit))
		return;
	if (store_read_clients(s->store, domain, after, limit, &j->arena, &rows, &count, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_open_array(&w, "clients");
	for (unsigned i = 0; i < count; i++)
		if (rows[i].status != CLIENT_REMOVED || removed) {
			server_put_client(&w, s, &rows[i]);
			json_close_object(&w);
		}
	json_close_array(&w);
	if (count == limit)
		json_put_str(&w, "next_cursor", rows[count - 1].name);
	else
		json_put_null(&w, "next_cursor");
	json_close_object(&w);
}

/* --- POST /admin/clients/suspend, /admin/clients/resume --- */

/* All certificates of the client follow, on open connections too: the registry has them before the answer. */
static int set_status(
	struct server *s, const struct server_actor *actor, struct store_client_put *op, struct err *e)
{
	const char *action = op->client.status == CLIENT_SUSPENDED ? "client.suspend" : "client.resume";
	if (store_wait(s->store, STORE_CLIENT, &op->op, e) < 0 || server_sync_registry(s, e) < 0)
		return -1;
	return server_audit(s, actor, action, op->client.name, "ok", (struct str){"", 0}, e);
}

static void run_set_status(struct job *j, enum client_status status)
{
	static const char *const known[] = {"name", NULL};
	struct server *s = server_of(j->request);
	AUTO(json_auto) json_t *in = job_json(j);
	struct str name;
	struct store_client_put op;
	struct err e = ERR_INIT;
	if (!in || !job_known(j, in, known) || !job_string(j, in, "name", true, &name))
		return;
	memset(&op, 0, sizeof(op));
	struct server_actor actor = server_actor_of(j->request);
	if (store_read_client(s->store, name, &j->arena, &op.client, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	if (op.client.status == CLIENT_REMOVED) {
		err_set(&e, ERR_CONFLICT, "the client was removed; add it again");
		job_fail(j, &e);
		return;
	}
	op.client.status = status;
	if (set_status(s, &actor, &op, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	server_put_client(&w, s, &op.client);
	json_close_object(&w);
}

static void run_suspend(struct job *j)
{
	run_set_status(j, CLIENT_SUSPENDED);
}

static void run_resume(struct job *j)
{
	run_set_status(j, CLIENT_ACTIVE);
}

ADMIN_HANDLER(get_stats, run_stats)
ADMIN_HANDLER(get_clients, run_clients)
ADMIN_HANDLER(post_suspend, run_suspend)
ADMIN_HANDLER(post_resume, run_resume)

const struct http_route admin_misc_routes[] = {
	{"GET", "/admin/stats", ADMIN, false, get_stats, "Counts of what is stored", 0},
	{"GET", "/admin/clients", ADMIN, false, get_clients, "List clients", 0},
	{"POST", "/admin/clients/suspend", ADMIN, false, post_suspend, "Let a client in no more, for now",
		ADMIN_BODY_BYTES},
	{"POST", "/admin/clients/resume", ADMIN, false, post_resume, "Let a suspended client in again",
		ADMIN_BODY_BYTES},
	{0},
};
