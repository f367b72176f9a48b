/* admin_tokens.c - /admin/tokens, and the two ways to a new one: POST /admin/clients and
 * POST /admin/clients/{name}/tokens. Who may enrol, and with what. Each change leaves an audit row. */
#include <openssl/crypto.h>
#include <stdio.h>

#include "base/auto.h"
#include "crypto/enroll.h"
#include "message/message.h"
#include "server/internal.h"
#include "tls/certs_only.h"

#define ADMIN ROLE_BIT(ROLE_ADMIN)

static const struct str nothing = {"", 0};

/* --- tokens as JSON --- */

static const char *token_status(const struct server *s, const struct store_token *t)
{
	if (t->revoked_at.ms)
		return "revoked";
	if (t->uses >= t->uses_max)
		return "used";
	return t->expires_at.ms <= clock_wall(s->clock).ms ? "expired" : "open";
}

static void put_token(struct json_out *w, const struct server *s, const struct store_token *t)
{
	char id[2 * STORE_TOKEN_ID_BYTES + 1];
	hex_encode(t->hash, STORE_TOKEN_ID_BYTES, id);
	json_open_object(w, NULL);
	json_put_str(w, "token_id", str_of(id));
	json_put_str(w, "name", t->name);
	json_put_str(w, "domain", t->domain);
	json_put_str(w, "role", t->role);
	json_put_str(w, "status", str_of(token_status(s, t)));
	json_put_time(w, "created_at", t->created_at);
	json_put_time(w, "expires_at", t->expires_at);
	json_put_int(w, "uses", t->uses);
	json_put_int(w, "uses_max", t->uses_max);
	if (t->used_at.ms)
		json_put_time(w, "used_at", t->used_at);
	if (t->revoked_at.ms)
		json_put_time(w, "revoked_at", t->revoked_at);
	json_close_object(w);
}

int server_put_tokens(struct job *j, struct json_out *w, const struct store_token_query *query,
	int64_t *ret_next, struct err *e)
{
	struct server *s = server_of(j->request);
	struct store_token *tokens;
	unsigned count;
	if (store_read_tokens(s->store, query, &j->arena, &tokens, &count, e) < 0)
		return -1;
	json_open_array(w, "tokens");
	for (unsigned i = 0; i < count; i++)
		put_token(w, s, &tokens[i]);
	json_close_array(w);
	*ret_next = count == query->max ? tokens[count - 1].sequence : 0;
	return 0;
}

/* --- making a token --- */

/* What is asked for. */
struct wish {
	struct store_token_put put;
	char secret[ENROLL_SECRET_CHARS + 1];
	struct str role;
	int64_t valid_s, uses;
	bool new_domain;
};

static bool take_wish(struct job *j, const json_t *in, struct wish *ret)
{
	struct server *s = server_of(j->request);
	struct store_token *token = &ret->put.token;
	ret->valid_s = s->enroll_valid_ms / 1000;
	ret->uses = 1;
	if (!job_string(j, in, "domain", false, &token->domain) ||
		!job_string(j, in, "role", false, &ret->role) ||
		!job_string(j, in, "names", false, &token->names) ||
		!job_integer(j, in, "days", 1, s->cert_days_max, &token->days) ||
		!job_integer(j, in, "valid_s", SERVER_TOKEN_VALID_S_MIN, SERVER_TOKEN_VALID_S_MAX,
			&ret->valid_s) ||
		!job_integer(j, in, "uses", 1, STORE_TOKEN_USES_MAX, &ret->uses))
		return false;
	token->role = ret->role.n ? ret->role : str_of(role_name(ROLE_CLIENT));
	token->uses_max = (unsigned)ret->uses;
	token->expires_at.ms = clock_wall(s->clock).ms + ret->valid_s * 1000;
	return true;
}

/* What the certificates will be like must be possible now, not only when the device asks. */
static bool check_wish(struct job *j, struct wish *wish)
{
	const struct store_token *token = &wish->put.token;
	struct server_order order = {.name = token->name, .domain = token->domain, .days = token->days};
	struct err e = ERR_INIT;
	if (!role_parse(token->role, &order.role) || order.role == ROLE_NONE) {
		job_invalid(
			j, "/role", "unknown", "client, proxy, worker, server, monitor or admin is expected");
		return false;
	}
	if (token->names.n && !role_profile(order.role)->serves) {
		job_invalid(j, "/names", "conflict", "only a role that serves has names in its certificate");
		return false;
	}
	if (server_check_order(server_of(j->request), &order, &e) >= 0 &&
		server_domain_is_new(server_of(j->request), &order, &wish->new_domain, &e) >= 0)
		return true;
	job_fail(j, &e);
	return false;
}

static int root_pin(struct server *s, uint8_t ret[ENROLL_PIN_BYTES], struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *bundle = NULL;
	if (x509_read_pem(ca_bundle(s->ca), &bundle, e) < 0)
		return -1;
	for (int i = 0; i < sk_X509_num(bundle); i++)
		if (X509_self_signed(sk_X509_value(bundle, i), 0) == 1)
			return x509_pin(sk_X509_value(bundle, i), ret, e);
	return err_set(e, ERR_FATAL, "the CA's bundle holds no root");
}

/* The text that is handed out, once. */
static int write_token(
	struct server *s, const struct wish *wish, struct enroll_token *token, struct buf *out, struct err *e)
{
	pthread_mutex_lock(&s->place_lock);
	place_url(&s->place, server_tls_address(s), token->url);
	place_url(&s->ingest_place, s->ingest_address, token->send);
	pthread_mutex_unlock(&s->place_lock);
	if (!*token->url)
		return err_set(e, ERR_CONFLICT,
			"it is not known where devices reach the main server: set public_url");
	snprintf(token->name, sizeof(token->name), "%.*s", STR_ARG(wish->put.token.name));
	memcpy(token->secret, wish->secret, sizeof(token->secret));
	return root_pin(s, token->pin, e) < 0 ? -1 : enroll_token_write(token, out, e);
}

static void answer_token(
	struct job *j, const struct wish *wish, const struct enroll_token *token, struct str text)
{
	struct json_out w = json_out_to(&j->body);
	char id[2 * STORE_TOKEN_ID_BYTES + 1];
	hex_encode(wish->put.token.hash, STORE_TOKEN_ID_BYTES, id);
	json_open_object(&w, NULL);
	json_put_str(&w, "token", text);
	json_put_str(&w, "token_id", str_of(id));
	json_put_str(&w, "secret", str_of(token->secret));
	json_put_str(&w, "name", wish->put.token.name);
	json_put_str(&w, "domain", wish->put.token.domain);
	json_put_str(&w, "role", wish->put.token.role);
	json_put_int(&w, "uses_max", wish->put.token.uses_max);
	json_put_time(&w, "expires_at", wish->put.token.expires_at);
	json_put_str(&w, "url", str_of(token->url));
	if (*token->send)
		json_put_str(&w, "send", str_of(token->send));
	if (wish->new_domain)
		json_put_bool(&w, "new_domain", true);
	json_close_object(&w);
	j->status = 201;
}

static int store_token(struct job *j, struct wish *wish, struct err *e)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	char detail[160], id[2 * STORE_TOKEN_ID_BYTES + 1], expires[RFC3339_BYTES];
	hex_encode(wish->put.token.hash, STORE_TOKEN_ID_BYTES, id);
	wall_format(wish->put.token.expires_at, expires);
	snprintf(detail, sizeof(detail), "{\"token\":\"%s\",\"expires_at\":\"%s\",\"uses\":%u}", id, expires,
		wish->put.token.uses_max);
	if (store_wait(s->store, STORE_TOKEN, &wish->put.op, e) < 0)
		return -1;
	return server_audit(s, &actor, "token.create", wish->put.token.name, "ok", str_of(detail), e);
}

/* Makes, stores and hands out. */
static void make_token(struct job *j, struct wish *wish)
{
	struct server *s = server_of(j->request);
	struct enroll_token token = {.send = ""};
	struct err e = ERR_INIT;
	AUTO(buf_wipe_auto) struct buf text;
	buf_init(&text, ENROLL_TOKEN_BYTES);
	if (enroll_secret_new(wish->secret, &e) < 0 || write_token(s, wish, &token, &text, &e) < 0) {
		job_fail(j, &e);
	} else {
		ensure(enroll_secret_hash(str_of(wish->secret), wish->put.token.hash));
		if (store_token(j, wish, &e) < 0)
			job_fail(j, &e);
		else
			answer_token(j, wish, &token, buf_str(&text));
	}
	OPENSSL_cleanse(&token, sizeof(token));
	OPENSSL_cleanse(wish->secret, sizeof(wish->secret));
}

/* --- POST /admin/clients --- */

/* ERR_CONFLICT for a client that is there. One that was removed comes back. */
static int add_client(struct job *j, const struct store_token *token, struct err *e)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	struct store_client there;
	struct err none = ERR_INIT;
	int found = store_read_client(s->store, token->name, &j->arena, &there, &none);
	if (found >= 0 && there.status != CLIENT_REMOVED)
		return err_set(e, ERR_CONFLICT,
			"the client exists; for another token: sealpost client token %.*s",
			STR_ARG(token->name));
	struct store_client_put put = {.client = {.name = token->name, .domain = token->domain}};
	if (store_wait(s->store, STORE_CLIENT, &put.op, e) < 0 ||
		clients_set(s->clients, token->name, token->domain, e) < 0)
		return -1;
	return server_audit(s, &actor, "client.add", token->name, "ok", nothing, e);
}

static void run_add(struct job *j)
{
	static const char *const known[] = {
		"name", "domain", "role", "names", "days", "valid_s", "uses", NULL};
	AUTO(json_auto) json_t *in = job_json(j);
	struct wish wish = {.secret = ""};
	struct err e = ERR_INIT;
	if (!in || !job_known(j, in, known) || !job_string(j, in, "name", true, &wish.put.token.name) ||
		!take_wish(j, in, &wish) || !check_wish(j, &wish))
		return;
	if (str_eq(wish.put.token.role, str_of(role_name(ROLE_CLIENT))) &&
		add_client(j, &wish.put.token, &e) < 0)
		job_fail(j, &e);
	else
		make_token(j, &wish);
}

/* --- POST /admin/clients/{name}/tokens --- */

/* A client has its domain from its row; other names have to say it. */
static int find_domain(struct job *j, struct store_token *token, struct err *e)
{
	struct store_client client;
	if (!str_eq(token->role, str_of(role_name(ROLE_CLIENT))))
		return 0;
	if (store_read_client(server_of(j->request)->store, token->name, &j->arena, &client, e) < 0)
		return -1;
	if (client.status != CLIENT_ACTIVE)
		return err_set(e, ERR_CONFLICT, "the client is %s",
			client.status == CLIENT_REMOVED ? "removed; add it again"
							: "suspended; resume it first");
	if (token->domain.n && !str_eq(token->domain, client.domain))
		return err_set(e, ERR_CONFLICT, "the client exists in another domain, '%.*s'",
			STR_ARG(client.domain));
	token->domain = client.domain;
	return 0;
}

static void run_token(struct job *j)
{
	static const char *const known[] = {"domain", "role", "names", "days", "valid_s", "uses", NULL};
	AUTO(json_auto) json_t *in = job_json(j);
	struct wish wish = {.put.token.name = j->request->params[0]};
	struct err e = ERR_INIT;
	if (!in || !job_known(j, in, known) || !take_wish(j, in, &wish))
		return;
	if (find_domain(j, &wish.put.token, &e) < 0)
		job_fail(j, &e);
	else if (check_wish(j, &wish))
		make_token(j, &wish);
}

/* --- /admin/tokens --- */

static void run_tokens(struct job *j)
{
	struct store_token_query query = {.name = http_query(j->request, STR("name"))};
	struct err e = ERR_INIT;
	int64_t next = 0;
	if (!job_limit(j, &query.max) || !job_cursor(j, &query.before_sequence))
		return;
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	if (server_put_tokens(j, &w, &query, &next, &e) < 0)
		job_fail(j, &e);
	job_put_cursor(&w, next);
	json_close_object(&w);
}

static void run_revoke_token(struct job *j)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	struct str id_text = j->request->params[0];
	uint8_t id[STORE_TOKEN_ID_BYTES];
	struct store_token_revoke revoke = {.id = id};
	struct err e = ERR_INIT;
	if (!hex_decode(id_text, id, sizeof(id))) {
		err_set(&e, ERR_NOT_FOUND, "no token has this id");
		job_fail(j, &e);
		return;
	}
	if (store_wait(s->store, STORE_TOKEN_REVOKE, &revoke.op, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	server_note_tokens(s, &(struct store_token_query){.id = id});
	if (server_audit(s, &actor, "token.revoke", id_text, "ok", nothing, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "revoked", revoke.revoked_count);
	json_close_object(&w);
}

ADMIN_HANDLER(post_add, run_add)
ADMIN_HANDLER(post_token, run_token)
ADMIN_HANDLER(get_tokens, run_tokens)
ADMIN_HANDLER(delete_token, run_revoke_token)

const struct http_route admin_token_routes[] = {
	{"POST", "/admin/clients", ADMIN, false, post_add, "Add a client and make its enrolment token",
		ADMIN_BODY_BYTES},
	{"POST", "/admin/clients/{name}/tokens", ADMIN, false, post_token, "Make another enrolment token",
		ADMIN_BODY_BYTES},
	{"GET", "/admin/tokens", ADMIN, false, get_tokens, "List enrolment tokens, newest first", 0},
	{"DELETE", "/admin/tokens/{id}", ADMIN, false, delete_token, "Revoke an enrolment token", 0},
	{0},
};
