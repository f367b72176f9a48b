/* admin_ca.c - the certificate authority for administrators: what it is made of, and the changes to it.
 *
 * The root's key passes through here encrypted only; and only over the admin socket: who administers over the network
 * with a certificate must not be able to fetch what makes certificates. */
#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/internal.h"

#define ADMIN ROLE_BIT(ROLE_ADMIN)
/* No role: the admin socket's table gives every route to its owner. */
#define SOCKET_ONLY 0

enum { ROOT_PEM_BYTES = 16 * 1024 };

/* Subject key identifier of the current issuing CA. */
static const char *issuing_id(const struct ca *ca)
{
	const struct ca_issuer *issuers;
	(void)ca_issuers(ca, &issuers);
	return issuers[0].id;
}

/* --- GET --- */

static void put_issuers(struct json_out *w, const struct ca *ca)
{
	const struct ca_issuer *issuers;
	size_t count = ca_issuers(ca, &issuers);
	json_open_array(w, "issuers");
	for (size_t i = 0; i < count; i++) {
		json_open_object(w, NULL);
		json_put_str(w, "key_id", str_of(issuers[i].id));
		json_put_bool(w, "current", i == 0);
		json_put_time(w, "not_before", issuers[i].not_before);
		json_put_time(w, "not_after", issuers[i].not_after);
		json_close_object(w);
	}
	json_close_array(w);
}

static void put_ca(struct json_out *w, const struct ca *ca)
{
	const struct ca_issuer *issuers;
	(void)ca_issuers(ca, &issuers);
	json_open_object(w, NULL);
	json_put_str(w, "issuing_key_id", str_of(issuers[0].id));
	json_put_time(w, "issuing_not_after", issuers[0].not_after);
	json_put_time(w, "root_not_after", ca_root_not_after(ca));
	json_put_bool(w, "root_key_present", ca_has_root_key(ca));
	put_issuers(w, ca);
	json_put_str(w, "ca_pem", ca_bundle(ca));
	json_close_object(w);
}

static void run_ca(struct job *j)
{
	struct json_out w = json_out_to(&j->body);
	put_ca(&w, server_of(j->request)->ca);
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

/* --- changes --- */

/* Audits what was tried, with its result, and answers with the CA as it is then. */
static void finish(struct job *j, const char *action, int rc, struct err *e)
{
	struct server *s = server_of(j->request);
	struct server_actor actor = server_actor_of(j->request);
	struct err audit_e = ERR_INIT;
	struct str target = str_of(issuing_id(s->ca));
	if (server_audit(s, &actor, action, target, rc < 0 ? "failed" : "ok", (struct str){"", 0}, &audit_e) <
		0) {
		job_fail(j, rc < 0 ? e : &audit_e);
		return;
	}
	if (rc < 0) {
		job_fail(j, e);
		return;
	}
	log_event(LOG_INFO, action, LF_STR("issuing_ca", issuing_id(s->ca)));
	struct json_out w = json_out_to(&j->body);
	put_ca(&w, s->ca);
}

/* The members of a request that carries the root's key; both may be left out. */
static bool take_root_key(struct job *j, const json_t *in, struct ca_root_key *ret)
{
	static const char *const known[] = {"root_key_pem", "passphrase", NULL};
	return job_known(j, in, known) && job_string(j, in, "root_key_pem", false, &ret->pem) &&
	       job_string(j, in, "passphrase", false, &ret->passphrase);
}

/* The secrets of a request, in the job's arena and in its JSON. */
static void wipe_root_key(struct ca_root_key *key)
{
	if (key->passphrase.n)
		explicit_bzero((char *)(uintptr_t)key->passphrase.p, key->passphrase.n);
	if (key->pem.n)
		explicit_bzero((char *)(uintptr_t)key->pem.p, key->pem.n);
}

/* Runs one change that takes a root key, given or not. */
static void run_with_root_key(struct job *j, const char *action,
	int (*change)(struct server *s, const struct ca_root_key *key, struct err *e))
{
	AUTO(json_auto) json_t *in = job_json(j);
	struct ca_root_key key = {0};
	struct err e = ERR_INIT;
	if (!in || !take_root_key(j, in, &key))
		return;
	int rc = change(server_of(j->request), &key, &e);
	wipe_root_key(&key);
	finish(j, action, rc, &e);
}

/* New certificates come from the new one from now on; its list should be there for whoever is shown one. The rotation
 * stands, whatever becomes of the list: that is tried again. */
static int rotate(struct server *s, const struct ca_root_key *key, struct err *e)
{
	struct err crl_e = ERR_INIT;
	if (ca_rotate(s->ca, key->pem.n ? key : NULL, e) < 0)
		return -1;
	if (crl_sign(s->crl, &crl_e) < 0)
		log_event(LOG_WARN, "crl.not_signed", LF_ERR(&crl_e));
	return 0;
}

static void run_rotate(struct job *j)
{
	run_with_root_key(j, "ca.rotate", rotate);
}

static int remove_root(struct server *s, const struct ca_root_key *key, struct err *e)
{
	return ca_remove_root(s->ca, key, e);
}

static void run_remove_root(struct job *j)
{
	run_with_root_key(j, "ca.root.remove", remove_root);
}

static int import_root(struct server *s, const struct ca_root_key *key, struct err *e)
{
	return ca_import_root(s->ca, key, e);
}

static void run_import_root(struct job *j)
{
	run_with_root_key(j, "ca.root.import", import_root);
}

static void run_rekey(struct job *j)
{
	struct err e = ERR_INIT;
	int rc = ca_rekey(server_of(j->request)->ca, &e);
	finish(j, "ca.rekey", rc, &e);
}

/* Audited before the key is handed out. */
static void run_export_root(struct job *j)
{
	AUTO(json_auto) json_t *in = job_json(j);
	AUTO(buf_wipe_auto) struct buf pem;
	struct server *s = server_of(j->request);
	struct ca_root_key key = {0};
	struct err e = ERR_INIT;
	buf_init(&pem, ROOT_PEM_BYTES);
	if (!in || !take_root_key(j, in, &key))
		return;
	int rc = ca_export_root(s->ca, key.passphrase, &pem, &e);
	wipe_root_key(&key);
	finish(j, "ca.root.export", rc, &e);
	if (j->failed)
		return;
	buf_reset(&j->body);
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_str(&w, "root_key_pem", buf_str(&pem));
	json_close_object(&w);
}

ADMIN_HANDLER(get_ca, run_ca)
ADMIN_HANDLER(get_crl, run_crl)
ADMIN_HANDLER(post_rotate, run_rotate)
ADMIN_HANDLER(post_rekey, run_rekey)
ADMIN_HANDLER(post_export_root, run_export_root)
ADMIN_HANDLER(post_remove_root, run_remove_root)
ADMIN_HANDLER(post_import_root, run_import_root)

const struct http_route admin_ca_routes[] = {
	{"GET", "/admin/ca", ADMIN, false, get_ca, "The certificate authority", 0},
	{"GET", "/admin/ca/crl", ADMIN, false, get_crl, "The certificate revocation list", 0},
	{"POST", "/admin/ca/rotate", SOCKET_ONLY, false, post_rotate, "Make a new issuing CA",
		ADMIN_BODY_BYTES},
	{"POST", "/admin/ca/rekey", SOCKET_ONLY, false, post_rekey, "Encrypt the CA's keys anew", 0},
	{"POST", "/admin/ca/root/export", SOCKET_ONLY, false, post_export_root,
		"The root's key, encrypted by a passphrase", ADMIN_BODY_BYTES},
	{"POST", "/admin/ca/root/remove", SOCKET_ONLY, false, post_remove_root,
		"Remove the root's key, given a copy that opens", ADMIN_BODY_BYTES},
	{"POST", "/admin/ca/root/import", SOCKET_ONLY, false, post_import_root, "Put the root's key back",
		ADMIN_BODY_BYTES},
	{0},
};
