/* admin_clients.c - /admin/clients: who there is, and who may send. How they get their certificates: admin_tokens.c.
 * Each change leaves an audit row. */
#include <stdio.h>

#include "base/auto.h"
#include "server/internal.h"

#define ADMIN ROLE_BIT(ROLE_ADMIN)

enum { CERTS_SHOWN = 200, TOKENS_SHOWN = 50 };

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

/* --- GET /admin/clients --- */

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

/* --- GET /admin/clients/{name} --- */

static int put_certs(struct job *j, struct json_out *w, struct str name, struct err *e)
{
	struct server *s = server_of(j->request);
	struct store_cert_query query = {
		.name = name, .role = str_of(role_name(ROLE_CLIENT)), .max = CERTS_SHOWN};
	struct store_cert *certs;
	unsigned count;
	if (store_read_certs(s->store, &query, &j->arena, &certs, &count, e) < 0)
		return -1;
	json_open_array(w, "certificates");
	for (unsigned i = 0; i < count; i++) {
		server_put_cert(w, NULL, s, &certs[i]);
		json_close_object(w);
	}
	json_close_array(w);
	return 0;
}

static void run_show(struct job *j)
{
	struct server *s = server_of(j->request);
	struct str name = j->request->params[0];
	struct store_client client;
	struct err e = ERR_INIT;
	int64_t next;
	if (store_read_client(s->store, name, &j->arena, &client, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct store_token_query query = {.name = name, .max = TOKENS_SHOWN};
	struct json_out w = json_out_to(&j->body);
	server_put_client(&w, s, &client);
	if (put_certs(j, &w, name, &e) < 0 || server_put_tokens(j, &w, &query, &next, &e) < 0)
		job_fail(j, &e);
	json_close_object(&w);
}

/* --- DELETE /admin/clients/{name} --- */

/* Its certificates and tokens end with it; its messages stay. In this order, what a crash leaves is done by
 * removing it again. */
static int remove_client(struct job *j, struct str name, unsigned *ret_revoked, struct err *e)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	struct store_client_put put = {.client = {.status = CLIENT_ACTIVE}};
	struct store_token_revoke tokens = {.name = name};
	struct store_revoke certs = {
		.name = name, .role = str_of(role_name(ROLE_CLIENT)), .reason = STR("cessationOfOperation")};
	struct err none = ERR_INIT;
	if (store_read_client(s->store, name, &j->arena, &put.client, e) < 0)
		return -1;
	put.client.status = CLIENT_REMOVED;
	if (store_wait(s->store, STORE_CLIENT, &put.op, e) < 0 ||
		store_wait(s->store, STORE_TOKEN_REVOKE, &tokens.op, e) < 0)
		return -1;
	server_note_tokens(s, &(struct store_token_query){.name = name});
	if (store_wait(s->store, STORE_REVOKE, &certs.op, &none) < 0 && none.kind != ERR_NOT_FOUND) {
		*e = none;
		return -1;
	}
	*ret_revoked = certs.revoked_count;
	if (server_sync_registry(s, e) < 0)
		return -1;
	char detail[64];
	snprintf(detail, sizeof(detail), "{\"certificates\":%u,\"tokens\":%u}", certs.revoked_count,
		tokens.revoked_count);
	return server_audit(s, &actor, "client.remove", name, "ok", str_of(detail), e);
}

static void run_remove(struct job *j)
{
	unsigned revoked = 0;
	struct err e = ERR_INIT;
	if (remove_client(j, j->request->params[0], &revoked, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	server_revoked(server_of(j->request), revoked);
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_str(&w, "name", j->request->params[0]);
	json_put_int(&w, "revoked", revoked);
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

ADMIN_HANDLER(get_clients, run_clients)
ADMIN_HANDLER(get_show, run_show)
ADMIN_HANDLER(delete_client, run_remove)
ADMIN_HANDLER(post_suspend, run_suspend)
ADMIN_HANDLER(post_resume, run_resume)

const struct http_route admin_client_routes[] = {
	{"GET", "/admin/clients", ADMIN, false, get_clients, "List clients", 0},
	{"POST", "/admin/clients/suspend", ADMIN, false, post_suspend, "Let a client in no more, for now",
		ADMIN_BODY_BYTES},
	{"POST", "/admin/clients/resume", ADMIN, false, post_resume, "Let a suspended client in again",
		ADMIN_BODY_BYTES},
	{"GET", "/admin/clients/{name}", ADMIN, false, get_show, "Show a client, its certificates and tokens",
		0},
	{"DELETE", "/admin/clients/{name}", ADMIN, false, delete_client,
		"Remove a client: its certificates and tokens end", 0},
	{0},
};
