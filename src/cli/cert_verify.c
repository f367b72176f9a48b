/* cert_verify.c - sealpost cert verify: the listeners' own verdict on a certificate, step by step.
 *
 * The same function judges here and in the handshake (tls/verify.h). What differs is the registry: a command
 * that ends at once asks the main server for one row and puts it into a registry of its own. */
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/cert.h"
#include "cli/term.h"
#include "tls/openssl.h"
#include "tls/verify.h"

enum { FILE_BYTES = 16 * 1024 * 1024 };

/* As given. */
struct question {
	struct settings settings;
	const char *file, *role, *ca, *untrusted, *crl, *at;
	bool json;
};

/* What the verdict is made from. */
struct evidence {
	STACK_OF(X509) * chain; /* of the file: the leaf, and what may help; NULL: it cannot be read */
	X509_STORE *store;
	struct registry *registry; /* NULL: not asked */
	struct config *config;     /* of the data directory; NULL with --ca */
	struct clock_fake at;
	json_t *steps;
};

/* --- reading --- */

static bool is_pem(struct str text)
{
	return memmem(text.p, text.n, "-----BEGIN", strlen("-----BEGIN")) != NULL;
}

static STACK_OF(X509) * parse_der(struct str text)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *all = sk_X509_new_null();
	const unsigned char *at = (const unsigned char *)text.p, *end = at + text.n;
	for (X509 *cert; all && at < end && (cert = d2i_X509(NULL, &at, end - at)) != NULL;)
		if (!sk_X509_push(all, cert)) {
			X509_free(cert);
			return NULL;
		}
	ERR_clear_error();
	return at == end && sk_X509_num(all) > 0 ? TAKE(all) : NULL;
}

/* All certificates of a text, PEM or DER; NULL when there is none, or one is malformed. */
static STACK_OF(X509) * parse_certs(struct str text)
{
	STACK_OF(X509) *all = NULL;
	struct err ignored = ERR_INIT;
	if (!is_pem(text))
		return parse_der(text);
	return x509_read_pem(text, &all, &ignored) < 0 ? NULL : all;
}

static int read_certs(const char *path, STACK_OF(X509) * *ret, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, FILE_BYTES);
	if (file_read(path, FILE_BYTES, &text, e) < 0)
		return -1;
	*ret = parse_certs(buf_str(&text));
	return *ret ? 0 : err_set(e, ERR_REJECT, "'%s' is not a file of certificates, in PEM or DER", path);
}

/* The file that is judged: a malformed one is refused, not an error. */
static int read_chain(const struct question *q, struct evidence *ev, struct err *e)
{
	struct err fault = ERR_INIT;
	if (read_certs(q->file, &ev->chain, &fault) >= 0 || fault.kind == ERR_REJECT)
		return 0;
	*e = fault;
	return -1;
}

static int read_untrusted(const char *path, struct evidence *ev, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *more = NULL;
	if (read_certs(path, &more, e) < 0)
		return -1;
	for (X509 *cert; ev->chain && (cert = sk_X509_shift(more)) != NULL;)
		if (!sk_X509_push(ev->chain, cert)) {
			X509_free(cert);
			return err_oom(e);
		}
	return 0;
}

static int read_anchors(const char *path, struct evidence *ev, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *anchors = NULL;
	if (read_certs(path, &anchors, e) < 0)
		return -1;
	for (int i = 0; i < sk_X509_num(anchors); i++)
		if (!X509_STORE_add_cert(ev->store, sk_X509_value(anchors, i)))
			return err_openssl(e, ERR_FATAL, "trust anchors");
	return 0;
}

/* The next list of a file; NULL: there is no other, or it is none. */
static X509_CRL *next_crl(BIO *in, bool pem)
{
	return pem ? PEM_read_bio_X509_CRL(in, NULL, NULL, NULL) : d2i_X509_CRL_bio(in, NULL);
}

/* All of them: an installation that has rotated its issuing CA publishes one of each. */
static int read_crls(const char *path, struct evidence *ev, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, FILE_BYTES);
	if (file_read(path, FILE_BYTES, &text, e) < 0)
		return -1;
	AUTO(BIO_free_all_auto) BIO *in = BIO_new_mem_buf(text.p, (int)text.n);
	if (!in)
		return err_oom(e);
	bool pem = is_pem(buf_str(&text));
	unsigned count = 0;
	for (X509_CRL *list; (list = next_crl(in, pem)) != NULL; count++) {
		int added = X509_STORE_add_crl(ev->store, list);
		X509_CRL_free(list);
		if (!added)
			return err_openssl(e, ERR_FATAL, "CRL");
	}
	ERR_clear_error();
	return count ? 0 : err_set(e, ERR_REJECT, "'%s' is not a CRL, in PEM or DER", path);
}

/* --- the registry --- */

/* The main server's row, as the listeners would have it in memory. */
static int add_row(struct registry *registry, const json_t *answer, struct err *e)
{
	static const struct {
		const char *name;
		enum registry_status status;
	} statuses[] = {{"revoked", REGISTRY_REVOKED}, {"suspended", REGISTRY_SUSPENDED}};
	AUTO(x509_stack_free_auto)
	STACK_OF(X509) *found = parse_certs(str_of(json_text(answer, "certificate_pem")));
	struct identity id;
	const char *rule;
	if (!found)
		return err_set(e, ERR_FATAL, "the registered certificate cannot be read");
	if (identity_of(sk_X509_value(found, 0), NULL, &id, &rule, e) < 0)
		return err_context(e, "the registered certificate");
	struct registry_row row = {.serial_bytes = id.serial_bytes,
		.status = REGISTRY_ACTIVE,
		.role = id.role,
		.name = str_of(id.name),
		.domain = str_of(id.domain),
		.not_after = id.not_after,
		.change = 1};
	memcpy(row.serial, id.serial, sizeof(row.serial));
	memcpy(row.issuer_key_id, id.issuer_key_id, sizeof(row.issuer_key_id));
	for (size_t i = 0; i < ARRAY_LEN(statuses); i++)
		if (strcmp(json_text(answer, "status"), statuses[i].name) == 0)
			row.status = statuses[i].status;
	return registry_apply(registry, &row, 1, e);
}

/* Leaves the registry empty when the certificate is not registered. */
static int ask_registry(struct admin *admin, struct evidence *ev, struct err *e)
{
	if (registry_new(&ev->registry, e) < 0)
		return -1;
	if (!ev->chain)
		return 0;
	struct str serial = str_of_asn1(X509_get0_serialNumber(sk_X509_value(ev->chain, 0)));
	char hex[2 * IDENTITY_SERIAL_BYTES + 1], path[80];
	if (serial.n == 0 || serial.n > IDENTITY_SERIAL_BYTES)
		return 0; /* not one of ours; the profile says so */
	hex_encode(serial.p, serial.n, hex);
	snprintf(path, sizeof(path), "/admin/certificates/%s", hex);
	AUTO(json_auto) json_t *answer = NULL;
	struct err why = ERR_INIT;
	if (admin_call(admin, "GET", path, NULL, &answer, &why) >= 0)
		return add_row(ev->registry, answer, e);
	if (why.kind == ERR_NOT_FOUND)
		return 0;
	*e = why;
	return -1;
}

/* Trust anchors, trust domain and registry of the data directory. */
static int read_installation(struct question *q, struct evidence *ev, struct err *e)
{
	struct admin *admin = NULL;
	if (admin_open(&q->settings, &admin, e) < 0)
		return -1;
	int rc = ask_registry(admin, ev, e);
	admin_close(admin);
	if (rc < 0 || settings_load(&q->settings, &ev->config, e) < 0)
		return -1;
	return read_anchors(ev->config->ca_file ? ev->config->ca_file : q->settings.paths.ca_bundle, ev, e);
}

static int gather(struct question *q, struct evidence *ev, struct err *e)
{
	ev->store = X509_STORE_new();
	ev->steps = json_array();
	if (!ev->store || !ev->steps)
		return err_oom(e);
	if (read_chain(q, ev, e) < 0 || (q->untrusted && read_untrusted(q->untrusted, ev, e) < 0) ||
		(q->crl && read_crls(q->crl, ev, e) < 0))
		return -1;
	return q->ca ? read_anchors(q->ca, ev, e) : read_installation(q, ev, e);
}

static void evidence_clear(struct evidence *ev)
{
	x509_stack_free(ev->chain);
	X509_STORE_free(ev->store);
	registry_free(ev->registry);
	config_free(ev->config);
	json_decref(ev->steps);
}

/* --- the verdict --- */

static void note_step(void *arg, const struct verify_step *step)
{
	json_t *steps = arg;
	const char *verdict = step->skipped ? "skipped" : step->fault ? "failed" : "ok";
	json_t *note = json_pack(
		"{s:s, s:s, s:s}", "name", step->name, "verdict", verdict, "demands", step->demands);
	if (step->fault) {
		json_object_set_new(note, "fault", json_string(step->fault));
		json_object_set_new(note, "depth", json_integer(step->depth));
	}
	json_array_append_new(steps, note);
}

/* The side of TLS that this certificate would be shown on. */
static int purpose_of(X509 *leaf)
{
	uint32_t usages = X509_get_extended_key_usage(leaf);
	return (usages & XKU_SSL_SERVER) && !(usages & XKU_SSL_CLIENT) ? X509_PURPOSE_SSL_SERVER
								       : X509_PURPOSE_SSL_CLIENT;
}

static bool judge(const struct question *q, struct evidence *ev, enum role role, struct verify_result *ret,
	struct err *e)
{
	struct verify_step encoding = {.name = "encoding", .demands = "X.509 certificates, in PEM or DER"};
	if (!ev->chain) {
		encoding.fault = "malformed";
		note_step(ev->steps, &encoding);
		*ret = (struct verify_result){.outcome = VERIFY_CHAIN, .rule = encoding.name};
		err_set(e, ERR_REJECT, "malformed: '%s' is not a certificate, in PEM or DER", q->file);
		return false;
	}
	note_step(ev->steps, &encoding);
	X509 *leaf = sk_X509_value(ev->chain, 0);
	struct verify_policy policy = {
		.trust_domain = ev->config ? ev->config->trust_domain : NULL,
		.roles = q->role ? ROLE_BIT(role) : 0,
		.purpose = purpose_of(leaf),
		.crl = q->crl != NULL,
		.registry = ev->registry,
		.clock = q->at ? &ev->at.clock : &clock_system,
		.each = note_step,
		.arg = ev->steps,
	};
	return verify_certificate(leaf, ev->chain, ev->store, &policy, ret, e);
}

/* --- printing --- */

static json_t *identity_json(const struct identity *id)
{
	char uri[4 * IDENTITY_NAME_BYTES + 16], serial[2 * IDENTITY_SERIAL_BYTES + 1], end[RFC3339_BYTES];
	identity_uri(id, uri, sizeof(uri));
	hex_encode(id->serial, id->serial_bytes, serial);
	wall_format(id->not_after, end);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", id->name, "domain", id->domain, "role",
		role_name(id->role), "uri", uri, "serial", serial, "not_after", end);
}

static void print_as_json(
	const struct evidence *ev, bool accepted, const struct verify_result *result, const struct err *why)
{
	AUTO(json_auto)
	json_t *answer = json_pack("{s:b, s:s, s:O}", "accepted", accepted, "outcome",
		verify_outcome_name(result->outcome), "steps", ev->steps);
	if (accepted) {
		json_object_set_new(answer, "identity", identity_json(&result->identity));
	} else {
		json_object_set_new(answer, "rule", json_string(result->rule));
		json_object_set_new(answer, "reason", json_string(why->text));
	}
	print_json(answer);
}

static void add_step(struct term_table *t, const json_t *step)
{
	static const struct {
		const char *verdict, *shown;
		enum term_style style;
	} verdicts[] = {
		{"ok", "ok", TERM_GREEN}, {"failed", "FAILED", TERM_RED}, {"skipped", "skipped", TERM_DIM}};
	for (size_t i = 0; i < ARRAY_LEN(verdicts); i++)
		if (strcmp(json_text(step, "verdict"), verdicts[i].verdict) == 0) {
			term_table_cell(t, "%s", verdicts[i].shown);
			term_table_style(t, verdicts[i].style);
		}
	term_table_cell(t, "%s", json_text(step, "name"));
	int64_t depth = json_number(step, "depth");
	if (!*json_text(step, "fault"))
		term_table_cell(t, "%s", json_text(step, "demands"));
	else if (depth == 0)
		term_table_cell(t, "%s (demanded: %s)", json_text(step, "fault"), json_text(step, "demands"));
	else
		term_table_cell(t, "issuer %lld: %s (demanded: %s)", (long long)depth,
			json_text(step, "fault"), json_text(step, "demands"));
}

static int print_as_text(const struct evidence *ev, bool accepted, const struct verify_result *result,
	const struct err *why, struct err *e)
{
	static const struct term_column columns[] = {{NULL, false}, {NULL, false}, {NULL, false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	size_t i;
	const json_t *step;
	if (!t)
		return err_oom(e);
	json_array_foreach(ev->steps, i, step)
	{
		add_step(t, step);
	}
	if (term_table_print(t, stdout, e) < 0)
		return -1;
	const struct identity *id = &result->identity;
	char end[RFC3339_BYTES];
	wall_format(id->not_after, end);
	if (accepted)
		printf("\naccepted: %s %s of domain %s, until %s\n", role_name(id->role), id->name,
			id->domain, end);
	else
		printf("\nrefused: %s\n", why->text);
	return 0;
}

/* The exit code; or -1. */
static int verify(struct question *q, enum role role, struct evidence *ev, struct err *e)
{
	if (gather(q, ev, e) < 0)
		return -1;
	struct verify_result result;
	struct err why = ERR_INIT;
	bool accepted = judge(q, ev, role, &result, &why);
	if (result.outcome == VERIFY_INTERNAL) {
		*e = why;
		return -1;
	}
	if (q->json)
		print_as_json(ev, accepted, &result, &why);
	else if (print_as_text(ev, accepted, &result, &why, e) < 0)
		return -1;
	return accepted ? EXIT_DONE : EXIT_REFUSED;
}

int cmd_cert_verify(int argc, char **argv)
{
	struct question q = {.file = NULL};
	const struct arg options[] = {
		ADMIN_OPTIONS(q.settings),
		{"role", ARG_TEXT, &q.role, "R", "let in only this role; default any"},
		{"ca", ARG_TEXT, &q.ca, "FILE", "trust these roots instead; then the registry is not asked"},
		{"untrusted", ARG_TEXT, &q.untrusted, "FILE",
			"issuing CAs that may help, besides those in FILE"},
		{"crl", ARG_TEXT, &q.crl, "FILE",
			"revocation lists; its issuer's must be current and not name it"},
		{"at", ARG_TEXT, &q.at, "TIME", "judge as if it were then, RFC 3339; default now"},
		{"json", ARG_FLAG, &q.json, NULL, "the steps as JSON"},
		{0},
	};
	struct args a = {.command = "cert verify",
		.usage = "FILE [--role R] [--ca FILE] [--untrusted FILE] [--crl FILE] [--at TIME] [--json]",
		.summary =
			"What our listeners would say to this certificate, step by step. Exit code 0: accepted, 4: refused.",
		.example = "  sealpost cert verify certs/client_001.pem --role client",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	struct evidence ev = {.chain = NULL};
	enum role role = ROLE_NONE;
	struct wall at;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	q.file = a.rest[0];
	if (q.role && !role_parse(str_of(q.role), &role))
		return cli_usage_error(
			"cert verify", "--role is client, proxy, worker, server, monitor or admin");
	if (q.at && !wall_parse(str_of(q.at), &at))
		return cli_usage_error("cert verify", "--at takes a time such as 2026-01-31T00:00:00Z");
	if (q.at)
		clock_fake_init(&ev.at, at);
	struct err e = ERR_INIT;
	code = verify(&q, role, &ev, &e);
	evidence_clear(&ev);
	settings_clear(&q.settings);
	return code < 0 ? cli_fail("cert verify", &e) : code;
}
