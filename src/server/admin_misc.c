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

static void put_client(struct json_out *w, const struct server *s, const struct store_client *c)
{
	char display_name[DOMAINS_DISPLAY_BYTES];
	json_open_object(w, NULL);
	json_put_str(w, "name", c->name);
	json_put_str(w, "domain", c->domain);
	if (domains_display_name(s->domains, c->domain, display_name))
		json_put_str(w, "domain_display_name", str_of(display_name));
	json_put_str(w, "status", c->status == CLIENT_SUSPENDED ? STR("suspended") : STR("active"));
	json_put_time(w, "created_at", c->created_at);
	json_close_object(w);
}

static void run_clients(struct job *j)
{
	struct server *s = server_of(j->request);
	struct http_request *r = j->request;
	struct store_client *rows;
	unsigned limit, count;
	struct err e = ERR_INIT;
	struct str after = http_query(r, STR("cursor")), domain = http_query(r, STR("domain"));
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
		put_client(&w, s, &rows[i]);
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
	op.client.status = status;
	if (set_status(s, &actor, &op, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	put_client(&w, s, &op.client);
}

static void run_suspend(struct job *j)
{
	run_set_status(j, CLIENT_SUSPENDED);
}

static void run_resume(struct job *j)
{
	run_set_status(j, CLIENT_ACTIVE);
}

static void run_ca(struct job *j)
{
	const struct server *s = server_of(j->request);
	char key_id[2 * IDENTITY_KEY_ID_BYTES + 1];
	hex_encode(ca_issuing_key_id(s->ca), IDENTITY_KEY_ID_BYTES, key_id);
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_str(&w, "issuing_key_id", str_of(key_id));
	json_put_time(&w, "issuing_not_after", ca_issuing_not_after(s->ca));
	json_put_time(&w, "root_not_after", ca_root_not_after(s->ca));
	json_put_str(&w, "ca_pem", ca_bundle(s->ca));
	json_close_object(&w);
}

static void run_crl(struct job *j)
{
	AUTO(buf_auto) struct buf list;
	struct crl_times times;
	struct err e = ERR_INIT;
	buf_init(&list, JOB_BODY_BYTES);
	if (crl_copy(server_of(j->request)->crl, CRL_PEM, &list, &times, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_time(&w, "this_update", times.this_update);
	json_put_time(&w, "next_update", times.next_update);
	json_put_str(&w, "crl_pem", buf_str(&list));
	json_close_object(&w);
}

ADMIN_HANDLER(get_stats, run_stats)
ADMIN_HANDLER(get_clients, run_clients)
ADMIN_HANDLER(post_suspend, run_suspend)
ADMIN_HANDLER(post_resume, run_resume)
ADMIN_HANDLER(get_ca, run_ca)
ADMIN_HANDLER(get_crl, run_crl)

const struct http_route admin_misc_routes[] = {
	{"GET", "/admin/stats", ADMIN, false, get_stats, "Counts of what is stored", 0},
	{"GET", "/admin/clients", ADMIN, false, get_clients, "List clients", 0},
	{"POST", "/admin/clients/suspend", ADMIN, false, post_suspend, "Let a client in no more, for now",
		ADMIN_BODY_BYTES},
	{"POST", "/admin/clients/resume", ADMIN, false, post_resume, "Let a suspended client in again",
		ADMIN_BODY_BYTES},
	{"GET", "/admin/ca", ADMIN, false, get_ca, "The certificate authority", 0},
	{"GET", "/admin/ca/crl", ADMIN, false, get_crl, "The certificate revocation list", 0},
	{0},
};
