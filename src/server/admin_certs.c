/* admin_certs.c - /admin/certificates: issue, renew, list, show, revoke. Each change leaves an audit row. */
#include <arpa/inet.h>
#include <openssl/pem.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/internal.h"
#include "tls/openssl.h"

enum {
	KEY_BYTES = 16 * 1024,
	PAGE = 500,
};

/* What "soon" means to those who do not say. */
static const int64_t expiring_ms = (int64_t)30 * 24 * 60 * 60 * 1000;

#define ADMIN ROLE_BIT(ROLE_ADMIN)

static const char *const revoke_reasons[] = {"unspecified", "keyCompromise", "cACompromise",
	"affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn", NULL};

struct str server_revoke_reason(struct str name)
{
	for (const char *const *reason = revoke_reasons; *reason; reason++)
		if (str_eq(name, str_of(*reason)))
			return str_of(*reason);
	return (struct str){NULL, 0};
}

/* --- one certificate as JSON --- */

static const char *cert_status(const struct server *s, const struct store_cert *c)
{
	if (c->revoked_at.ms)
		return "revoked";
	if (c->not_after.ms <= clock_wall(s->clock).ms)
		return "expired";
	return c->suspended ? "suspended" : "valid";
}

static int put_pem(struct json_out *w, const char *key, struct str der, struct err *e)
{
	const unsigned char *p = (const unsigned char *)der.p;
	X509 *cert = d2i_X509(NULL, &p, (long)der.n);
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = NULL;
	long n = 0;
	if (cert && bio && PEM_write_bio_X509(bio, cert))
		n = BIO_get_mem_data(bio, &text);
	if (n > 0)
		json_put_str(w, key, str_mem(text, (size_t)n));
	BIO_free(bio);
	X509_free(cert);
	return n > 0 ? 0 : err_set(e, ERR_FATAL, "a stored certificate cannot be read");
}

struct store_cert_id server_cert_id(const struct store_cert *cert)
{
	struct store_cert_id id = {.serial_bytes = cert->serial_bytes};
	memcpy(id.serial, cert->serial, sizeof(id.serial));
	memcpy(id.issuer_key_id, cert->issuer_key_id, sizeof(id.issuer_key_id));
	return id;
}

void server_put_cert(struct json_out *w, const char *key, const struct server *s, const struct store_cert *c)
{
	char serial[2 * SERIAL_MAX_BYTES + 1];
	hex_encode(c->serial, c->serial_bytes, serial);
	json_open_object(w, key);
	json_put_str(w, "serial", str_of(serial));
	json_put_str(w, "name", c->name);
	json_put_str(w, "domain", c->domain);
	json_put_str(w, "role", c->role);
	json_put_str(w, "status", str_of(cert_status(s, c)));
	json_put_time(w, "issued_at", c->issued_at);
	json_put_time(w, "not_before", c->not_before);
	json_put_time(w, "not_after", c->not_after);
	if (c->renews.serial_bytes) {
		hex_encode(c->renews.serial, c->renews.serial_bytes, serial);
		json_put_str(w, "renews", str_of(serial));
	}
	if (c->seen_at.ms)
		json_put_time(w, "last_seen_at", c->seen_at);
	if (c->revoked_at.ms) {
		json_put_time(w, "revoked_at", c->revoked_at);
		json_put_str(w, "revoke_reason", c->revoke_reason);
	}
}

/* --- POST /admin/certificates/generate --- */

struct order {
	struct server_order order;
	struct server_names names;
	struct buf spki, key_pem;
	bool new_domain;
};

/* An array of strings, up to SERVER_NAMES_MAX. */
static bool take_names(struct job *j, const json_t *in, const char *key, struct str *ret, unsigned *ret_count)
{
	const json_t *list = json_object_get(in, key);
	*ret_count = 0;
	if (!list)
		return true;
	if (!json_is_array(list) || json_array_size(list) > SERVER_NAMES_MAX) {
		job_invalid(j, "", "wrong_type", "names are arrays of at most 16 strings");
		return false;
	}
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *item = json_array_get(list, i);
		if (!json_is_string(item)) {
			job_invalid(j, "", "wrong_type", "names are arrays of at most 16 strings");
			return false;
		}
		ret[i] = arena_copy(
			j->request->arena, str_mem(json_string_value(item), json_string_length(item)));
		if (!ret[i].p)
			return false;
	}
	*ret_count = (unsigned)json_array_size(list);
	return true;
}

/* The key to certify: from a CSR, or made here and handed out once. */
static bool take_key(struct job *j, const json_t *in, struct order *o)
{
	struct str csr, key_type;
	bool has_csr = json_object_get(in, "csr") != NULL; /* an empty one is not none */
	struct err e = ERR_INIT;
	if (!job_string(j, in, "csr", false, &csr) || !job_string(j, in, "key_type", false, &key_type))
		return false;
	if (has_csr && key_type.n) {
		job_invalid(j, "/key_type", "conflict", "give a csr or a key_type, not both");
		return false;
	}
	int rc =
		has_csr ? ca_csr_public_key(csr, &o->spki, &e)
			: ca_generate_key(key_type.n ? key_type : STR("ec:P-256"), &o->key_pem, &o->spki, &e);
	if (rc >= 0)
		return true;
	if (e.kind == ERR_REJECT)
		job_invalid(j, has_csr ? "/csr" : "/key_type", "refused",
			arena_strdup(j->request->arena, str_of(e.text)));
	else
		job_fail(j, &e);
	return false;
}

static bool take_order(struct job *j, const json_t *in, struct order *o)
{
	static const char *const known[] = {
		"name", "domain", "role", "days", "csr", "key_type", "dns_names", "addresses", NULL};
	struct str role;
	o->order.days = 0;
	if (!job_known(j, in, known) || !job_string(j, in, "name", true, &o->order.name) ||
		!job_string(j, in, "domain", true, &o->order.domain) ||
		!job_string(j, in, "role", false, &role) ||
		!job_integer(j, in, "days", 1, 36500, &o->order.days) ||
		!take_names(j, in, "dns_names", o->names.dns, &o->names.dns_count) ||
		!take_names(j, in, "addresses", o->names.addresses, &o->names.address_count))
		return false;
	o->order.role = ROLE_CLIENT;
	if (role.n && (!role_parse(role, &o->order.role) || o->order.role == ROLE_NONE)) {
		job_invalid(
			j, "/role", "unknown", "client, proxy, worker, server, monitor or admin is expected");
		return false;
	}
	server_order_names(&o->order, &o->names);
	return take_key(j, in, o);
}

static void answer_issued(
	struct job *j, struct server *s, const struct order *o, const struct ca_issued *issued)
{
	struct json_out w = json_out_to(&j->body);
	struct store_cert row = {
		.serial_bytes = issued->identity.serial_bytes,
		.name = o->order.name,
		.domain = o->order.domain,
		.role = str_of(role_name(o->order.role)),
		.issued_at = clock_wall(s->clock),
		.not_before = issued->identity.not_before,
		.not_after = issued->identity.not_after,
	};
	memcpy(row.serial, issued->identity.serial, sizeof(row.serial));
	server_put_cert(&w, NULL, s, &row);
	json_put_str(&w, "certificate_pem", buf_str(&issued->pem));
	json_put_str(&w, "issuer_pem", issued->issuer_pem);
	json_put_str(&w, "ca_pem", ca_bundle(s->ca));
	if (o->key_pem.n)
		json_put_str(&w, "private_key_pem", buf_str(&o->key_pem));
	if (o->new_domain)
		json_put_bool(&w, "new_domain", true);
	json_close_object(&w);
	j->status = 201;
}

static void issue(struct job *j, struct server *s, struct order *o)
{
	struct server_actor actor = server_actor_of(j->request);
	struct ca_issued issued;
	struct err e = ERR_INIT;
	o->order.public_key_der = buf_str(&o->spki);
	if (server_domain_is_new(s, &o->order, &o->new_domain, &e) < 0 ||
		server_issue(s, &actor, &o->order, &issued, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	answer_issued(j, s, o, &issued);
	ca_issued_clear(&issued);
}

/* Both ways to a certificate: what `take` makes of the request is issued. */
static void run_order(struct job *j, bool (*take)(struct job *j, const json_t *in, struct order *o))
{
	AUTO(json_auto) json_t *in = job_json(j);
	if (!in)
		return;
	struct order o = {.order = {.days = 0}};
	buf_init(&o.spki, KEY_BYTES);
	buf_init(&o.key_pem, KEY_BYTES);
	if (take(j, in, &o))
		issue(j, server_of(j->request), &o);
	buf_clear(&o.spki);
	buf_wipe(&o.key_pem);
}

static void run_generate(struct job *j)
{
	run_order(j, take_order);
}

/* --- POST /admin/certificates/renew --- */

/* The newest certificate of this name, and role unless empty, that is not revoked. */
static int find_renewable(
	struct job *j, struct str name, struct str role, struct store_cert *ret, struct err *e)
{
	struct server *s = server_of(j->request);
	struct store_cert_query query = {.name = name, .role = role, .max = PAGE};
	struct store_cert *certs;
	struct wall newest = {0};
	unsigned count = PAGE;
	bool any = false;
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, JOB_ARENA_BYTES);
	while (count == PAGE) {
		arena_reset(&arena);
		if (store_read_certs(s->store, &query, &arena, &certs, &count, e) < 0)
			return -1;
		for (unsigned i = 0; i < count; i++) {
			any = true;
			query.after_change = certs[i].change;
			if (certs[i].revoked_at.ms || certs[i].issued_at.ms < newest.ms)
				continue;
			newest = certs[i].issued_at;
			*ret = certs[i];
		}
	}
	if (!any)
		return err_set(e, ERR_NOT_FOUND, "no certificate has this name");
	if (!newest.ms)
		return err_set(e, ERR_CONFLICT, "what was revoked is not renewed; issue a new certificate");
	/* Again, into memory that stays. */
	struct store_cert found = *ret;
	return store_read_cert(s->store, found.serial, found.serial_bytes, &j->arena, ret, e);
}

int server_keep_names(struct job *j, struct str der, struct server_names *ret, struct err *e)
{
	const unsigned char *at = (const unsigned char *)der.p;
	AUTO(X509_free_auto) X509 *cert = d2i_X509(NULL, &at, (long)der.n);
	AUTO(GENERAL_NAMES_free_auto)
	GENERAL_NAMES *names = cert ? X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL) : NULL;
	ret->dns_count = ret->address_count = 0;
	if (!names)
		return err_set(e, ERR_FATAL, "a stored certificate cannot be read");
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		int type;
		const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
		char text[INET6_ADDRSTRLEN];
		if (type == GEN_DNS && ret->dns_count < SERVER_NAMES_MAX)
			ret->dns[ret->dns_count++] = arena_copy(&j->arena, str_of_asn1(value));
		else if (type == GEN_IPADD && ret->address_count < SERVER_NAMES_MAX &&
			 inet_ntop(ASN1_STRING_length(value) == 4 ? AF_INET : AF_INET6,
				 ASN1_STRING_get0_data(value), text, sizeof(text)))
			ret->addresses[ret->address_count++] = arena_copy(&j->arena, str_of(text));
	}
	return 0;
}

void server_order_names(struct server_order *order, const struct server_names *names)
{
	order->dns_names = names->dns;
	order->dns_count = names->dns_count;
	order->addresses = names->addresses;
	order->address_count = names->address_count;
}

static bool take_renewal(struct job *j, const json_t *in, struct order *o)
{
	static const char *const known[] = {"name", "role", "days", "csr", "key_type", NULL};
	struct str name, role;
	struct store_cert old;
	struct err e = ERR_INIT;
	if (!job_known(j, in, known) || !job_string(j, in, "name", true, &name) ||
		!job_string(j, in, "role", false, &role) ||
		!job_integer(j, in, "days", 1, 36500, &o->order.days))
		return false;
	if (find_renewable(j, name, role, &old, &e) < 0 || server_keep_names(j, old.der, &o->names, &e) < 0) {
		job_fail(j, &e);
		return false;
	}
	o->order.name = old.name;
	o->order.domain = old.domain;
	o->order.renews = server_cert_id(&old);
	o->order.while_good = true;
	server_order_names(&o->order, &o->names);
	if (!role_parse(old.role, &o->order.role)) {
		err_set(&e, ERR_FATAL, "a stored certificate has an unknown role");
		job_fail(j, &e);
		return false;
	}
	return take_key(j, in, o);
}

static void run_renew(struct job *j)
{
	run_order(j, take_renewal);
}

/* --- POST /admin/certificates/revoke --- */

static bool take_revocation(struct job *j, const json_t *in, struct store_revoke *ret)
{
	static const char *const known[] = {"name", "serial", "reason", NULL};
	struct str serial;
	if (!job_known(j, in, known) || !job_string(j, in, "name", false, &ret->name) ||
		!job_string(j, in, "serial", false, &serial) ||
		!job_string(j, in, "reason", false, &ret->reason))
		return false;
	if (!ret->name.n == !serial.n) {
		job_invalid(j, "", "required", "give a name or a serial");
		return false;
	}
	ret->serial_bytes = (unsigned)(serial.n / 2);
	if (serial.n && (ret->serial_bytes > SERIAL_MAX_BYTES ||
				!hex_decode(serial, ret->serial, ret->serial_bytes))) {
		job_invalid(j, "/serial", "not_a_serial", "a serial is an even number of hexadecimal digits");
		return false;
	}
	if (!ret->reason.n)
		ret->reason = STR("unspecified");
	if (server_revoke_reason(ret->reason).p)
		return true;
	job_invalid(j, "/reason", "unknown",
		"unspecified, keyCompromise, cACompromise, affiliationChanged, superseded, cessationOfOperation or "
		"privilegeWithdrawn is expected");
	return false;
}

static int audit_revocation(
	struct server *s, const struct server_actor *actor, const struct store_revoke *op, struct err *e)
{
	char serial[2 * SERIAL_MAX_BYTES + 1];
	hex_encode(op->serial, op->serial_bytes, serial);
	AUTO(buf_auto) struct buf detail;
	buf_init(&detail, 1024);
	struct json_out w = json_out_to(&detail);
	json_open_object(&w, NULL);
	json_put_str(&w, "reason", op->reason);
	json_put_int(&w, "revoked", op->revoked_count);
	json_close_object(&w);
	return server_audit(s, actor, "certificate.revoke", op->name.n ? op->name : str_of(serial), "ok",
		buf_str(&detail), e);
}

void server_revoked(struct server *s, unsigned count)
{
	struct err e = ERR_INIT;
	metric_add(METRIC_CERTS_REVOKED, count);
	if (crl_sign(s->crl, &e) < 0)
		log_event(LOG_WARN, "crl.not_signed", LF_ERR(&e));
}

static void run_revoke(struct job *j)
{
	struct server *s = server_of(j->request);
	AUTO(json_auto) json_t *in = job_json(j);
	struct store_revoke op = {.at = clock_wall(s->clock)};
	if (!in || !take_revocation(j, in, &op))
		return;
	struct server_actor actor = server_actor_of(j->request);
	struct err e = ERR_INIT;
	/* The registry first: the answer must not come before the certificate is refused everywhere in here.
	 */
	if (store_wait(s->store, STORE_REVOKE, &op.op, &e) < 0 || server_sync_registry(s, &e) < 0 ||
		audit_revocation(s, &actor, &op, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	server_revoked(s, op.revoked_count);
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_put_int(&w, "revoked", op.revoked_count);
	json_close_object(&w);
}

/* --- GET --- */

static bool in_use(const struct server *s, const struct store_cert *c)
{
	return !c->revoked_at.ms && c->not_after.ms > clock_wall(s->clock).ms;
}

/* A page; of those in use only, where asked, and then maybe shorter than there is more. */
static void list(struct job *j, struct store_cert_query *query, bool in_use_only)
{
	struct server *s = server_of(j->request);
	struct store_cert *certs;
	unsigned count;
	struct err e = ERR_INIT;
	if (!job_limit(j, &query->max) || !job_cursor(j, &query->after_change))
		return;
	if (store_read_certs(s->store, query, &j->arena, &certs, &count, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	json_open_object(&w, NULL);
	json_open_array(&w, "certificates");
	for (unsigned i = 0; i < count; i++) {
		if (in_use_only && !in_use(s, &certs[i]))
			continue;
		server_put_cert(&w, NULL, s, &certs[i]);
		json_close_object(&w);
	}
	json_close_array(&w);
	job_put_cursor(&w, count == query->max ? certs[count - 1].change : 0);
	json_close_object(&w);
}

static void run_list(struct job *j)
{
	struct http_request *r = j->request;
	struct store_cert_query query = {
		.name = http_query(r, STR("name")),
		.domain = http_query(r, STR("domain")),
		.role = http_query(r, STR("role")),
	};
	if (job_query_time(j, "expires_before", &query.expires_before))
		list(j, &query, false);
}

static void run_expiring(struct job *j)
{
	struct store_cert_query query = {
		.expires_before = {clock_wall(server_of(j->request)->clock).ms + expiring_ms}};
	if (job_query_time(j, "before", &query.expires_before))
		list(j, &query, true);
}

static void run_show(struct job *j)
{
	struct server *s = server_of(j->request);
	struct str hex = j->request->params[0];
	uint8_t serial[SERIAL_MAX_BYTES];
	struct store_cert cert;
	struct err e = ERR_INIT;
	if (hex.n / 2 > SERIAL_MAX_BYTES || !hex_decode(hex, serial, hex.n / 2)) {
		err_set(&e, ERR_NOT_FOUND, "no certificate has this serial");
		job_fail(j, &e);
		return;
	}
	if (store_read_cert(s->store, serial, (unsigned)(hex.n / 2), &j->arena, &cert, &e) < 0) {
		job_fail(j, &e);
		return;
	}
	struct json_out w = json_out_to(&j->body);
	server_put_cert(&w, NULL, s, &cert);
	if (put_pem(&w, "certificate_pem", cert.der, &e) < 0)
		job_fail(j, &e);
	json_close_object(&w);
}

ADMIN_HANDLER(post_generate, run_generate)
ADMIN_HANDLER(post_renew, run_renew)
ADMIN_HANDLER(post_revoke, run_revoke)
ADMIN_HANDLER(get_list, run_list)
ADMIN_HANDLER(get_expiring, run_expiring)
ADMIN_HANDLER(get_one, run_show)

const struct http_route admin_cert_routes[] = {
	{"GET", "/admin/certificates", ADMIN, false, get_list, "List certificates", 0},
	{"POST", "/admin/certificates/generate", ADMIN, false, post_generate, "Issue a certificate",
		ADMIN_BODY_BYTES},
	{"POST", "/admin/certificates/renew", ADMIN, false, post_renew,
		"Issue the next certificate of a name", ADMIN_BODY_BYTES},
	{"POST", "/admin/certificates/revoke", ADMIN, false, post_revoke, "Revoke by name or serial",
		ADMIN_BODY_BYTES},
	{"GET", "/admin/certificates/expiring", ADMIN, false, get_expiring,
		"List certificates in use that end soon", 0},
	{"GET", "/admin/certificates/{serial}", ADMIN, false, get_one, "Show a certificate", 0},
	{0},
};
