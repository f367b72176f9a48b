/* cert.c - sealpost cert: certificates for people who do not want to know PKI. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "ca/ca.h"
#include "cli/admin.h"
#include "cli/term.h"

enum { FILE_BYTES = 1024 * 1024, DAYS_MAX = 36500 };

/* --- cert issue --- */

struct issue {
	struct settings settings;
	const char *name, *domain, *role, *key_type, *csr, *out;
	int64_t days;
	bool json;
};

/* One file of what was issued: DIR/NAME + suffix. */
static int write_file(const struct issue *in, const char *name, const char *suffix, mode_t mode,
	struct str contents, struct err *e)
{
	AUTO(free_auto) char *file = NULL, *path = NULL;
	if (asprintf(&file, "%s%s", name, suffix) < 0) {
		file = NULL;
		return err_oom(e);
	}
	path = path_join(in->out, file);
	return path ? file_replace(path, mode, contents, e) : err_oom(e);
}

static int write_issued(const struct issue *in, const json_t *answer, struct err *e)
{
	AUTO(buf_auto) struct buf chain;
	buf_init(&chain, FILE_BYTES);
	buf_add_str(&chain, str_of(json_text(answer, "certificate_pem")));
	buf_add_str(&chain, str_of(json_text(answer, "issuer_pem")));
	const char *key = json_text(answer, "private_key_pem");
	if (buf_check(&chain, e) < 0 || dir_make(in->out, 0755, e) < 0)
		return -1;
	/* The key first: a certificate without its key is of no use to anyone. */
	if (*key && write_file(in, in->name, ".key", 0600, str_of(key), e) < 0)
		return -1;
	if (write_file(in, in->name, ".pem", 0644, buf_str(&chain), e) < 0)
		return -1;
	return write_file(in, "ca", ".pem", 0644, str_of(json_text(answer, "ca_pem")), e);
}

/* The request's body; NULL with *e set. */
static json_t *issue_request(const struct issue *in, struct err *e)
{
	AUTO(buf_auto) struct buf csr;
	buf_init(&csr, FILE_BYTES);
	if (in->csr && file_read(in->csr, FILE_BYTES, &csr, e) < 0)
		return NULL;
	json_t *body = json_pack("{s:s, s:s, s:s}", "name", in->name, "domain", in->domain, "role", in->role);
	if (!body) {
		err_set(e, ERR_REJECT, "names must be valid UTF-8");
		return NULL;
	}
	if (in->days)
		json_object_set_new(body, "days", json_integer(in->days));
	if (in->csr) {
		json_t *text = json_stringn(csr.p, csr.n);
		if (!text) {
			json_decref(body);
			err_set(e, ERR_REJECT, "'%s' is not a PEM file", in->csr);
			return NULL;
		}
		json_object_set_new(body, "csr", text);
	} else {
		json_object_set_new(body, "key_type", json_string(in->key_type));
	}
	return body;
}

static void print_issued(const struct issue *in, json_t *answer)
{
	if (in->json) {
		json_object_del(answer, "private_key_pem");
		print_json(answer);
		return;
	}
	printf("issued %s (%s, domain %s) until %s\n", in->name, in->role, in->domain,
		json_text(answer, "not_after"));
	printf("  certificate  %s/%s.pem\n", in->out, in->name);
	if (!in->csr)
		printf("  private key  %s/%s.key\n", in->out, in->name);
	printf("  trust        %s/ca.pem\n", in->out);
}

static int issue(struct issue *in, struct err *e)
{
	AUTO(json_auto) json_t *body = issue_request(in, e);
	AUTO(json_auto) json_t *answer = NULL;
	struct admin *admin = NULL;
	if (!body || admin_open(&in->settings, &admin, e) < 0)
		return -1;
	int rc = admin_call(admin, "POST", "/admin/certificates/generate", body, &answer, e);
	if (rc >= 0)
		rc = write_issued(in, answer, e);
	if (rc >= 0)
		print_issued(in, answer);
	admin_close(admin);
	return rc;
}

static int cmd_issue(int argc, char **argv)
{
	struct issue in = {.role = "client", .domain = "default", .key_type = "ec:P-256", .out = "."};
	const struct arg options[] = {
		ADMIN_OPTIONS(in.settings),
		{"domain", ARG_TEXT, &in.domain, "D", "domain the name belongs to; default 'default'"},
		{"role", ARG_TEXT, &in.role, "R",
			"client, proxy, worker, server, monitor or admin; default client"},
		{"days", ARG_INT, &in.days, "N", "lifetime; default cert_days", 1, DAYS_MAX},
		{"key", ARG_TEXT, &in.key_type, "TYPE",
			"ec:P-256, ec:P-384, ed25519, rsa:2048, rsa:3072 or rsa:4096"},
		{"csr", ARG_TEXT, &in.csr, "FILE", "certify this request's key instead of making one"},
		{"out", ARG_TEXT, &in.out, "DIR", "where the files go; default here"},
		{"json", ARG_FLAG, &in.json, NULL, "print the answer as JSON (never the key)"},
		{0},
	};
	struct args a = {.command = "cert issue",
		.usage = "NAME [--domain D] [--role R] [--days N] [--key TYPE | --csr FILE] [--out DIR]",
		.summary =
			"Issues and registers a certificate. Writes NAME.pem (leaf and issuer), NAME.key (0600; not with\n"
			"--csr) and ca.pem: all that a client needs.",
		.example = "  sealpost cert issue client_001 --domain example.com --out ./certs",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	in.name = a.rest[0];
	/* The name becomes a file name before the server has judged it. */
	if (strchr(in.name, '/') || in.name[0] == '.')
		return cli_usage_error(
			"cert issue", "'%s' is not a name: letters, digits, '.', '_' and '-'", in.name);
	struct err e = ERR_INIT;
	int rc = issue(&in, &e);
	settings_clear(&in.settings);
	return rc < 0 ? cli_fail("cert issue", &e) : EXIT_DONE;
}

/* --- cert list, cert show --- */

static void print_certs(const json_t *certs)
{
	static const struct term_column columns[] = {{"NAME", false}, {"DOMAIN", false}, {"ROLE", false},
		{"STATUS", false}, {"EXPIRES", false}, {"SERIAL", false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	struct err e = ERR_INIT;
	size_t i;
	const json_t *cert;
	if (!t)
		return;
	json_array_foreach(certs, i, cert)
	{
		const char *status = json_text(cert, "status");
		term_table_cell(t, "%s", json_text(cert, "name"));
		term_table_cell(t, "%s", json_text(cert, "domain"));
		term_table_cell(t, "%s", json_text(cert, "role"));
		term_table_cell(t, "%s", status);
		term_table_style(t, strcmp(status, "valid") == 0 ? TERM_GREEN : TERM_RED);
		term_table_cell(t, "%.10s", json_text(cert, "not_after"));
		term_table_cell(t, "%s", json_text(cert, "serial"));
	}
	if (term_table_print(t, stdout, &e) < 0)
		term_error("cert list", "%s", e.text);
}

/* All pages of a list into one array. `path` has no cursor yet. */
static int fetch_certs(struct admin *admin, const char *path, json_t *all, struct err *e)
{
	char cursor[64] = "";
	do {
		AUTO(free_auto) char *page_path = admin_path(path, "cursor", cursor, (char *)NULL);
		AUTO(json_auto) json_t *answer = NULL;
		if (!page_path)
			return err_oom(e);
		if (admin_call(admin, "GET", page_path, NULL, &answer, e) < 0)
			return -1;
		json_array_extend(all, json_object_get(answer, "certificates"));
		snprintf(cursor, sizeof(cursor), "%s", json_text(answer, "next_cursor"));
	} while (*cursor);
	return 0;
}

static int cmd_list(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *name = NULL, *domain = NULL, *role = NULL;
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"name", ARG_TEXT, &name, "N", "only this name"},
		{"domain", ARG_TEXT, &domain, "D", "only this domain"},
		{"role", ARG_TEXT, &role, "R", "only this role"},
		{"json", ARG_FLAG, &json, NULL, "as a JSON array"},
		{0},
	};
	struct args a = {.command = "cert list",
		.usage = "[--name N] [--domain D] [--role R] [--json]",
		.summary = "Lists all certificates, in the order of their last change.",
		.example = "  sealpost cert list --domain example.com",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *all = json_array();
	AUTO(free_auto)
	char *path = admin_path(
		"/admin/certificates?limit=500", "name", name, "domain", domain, "role", role, (char *)NULL);
	int rc = all && path ? admin_open(&settings, &admin, &e) : err_oom(&e);
	if (rc >= 0)
		rc = fetch_certs(admin, path, all, &e);
	admin_close(admin);
	settings_clear(&settings);
	if (rc < 0)
		return cli_fail("cert list", &e);
	if (json)
		print_json(all);
	else
		print_certs(all);
	return EXIT_DONE;
}

static int cmd_show(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const struct arg options[] = {ADMIN_OPTIONS(settings), {0}};
	struct args a = {.command = "cert show",
		.usage = "SERIAL",
		.summary = "Shows one certificate, with its PEM, as JSON.",
		.example = "  sealpost cert show 1f0c55a3b2e947d68c1a0f3e5d7b9a21",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(buf_auto) struct buf path;
	buf_init(&path, 1024);
	uint8_t serial[IDENTITY_SERIAL_BYTES];
	size_t digits = strlen(a.rest[0]);
	if (digits > 2 * sizeof(serial) || !hex_decode(str_of(a.rest[0]), serial, digits / 2))
		return cli_usage_error(
			"cert show", "'%s' is not a serial: an even number of hexadecimal digits", a.rest[0]);
	buf_addf(&path, "/admin/certificates/%s", a.rest[0]);
	buf_add_char(&path, 0);
	int rc = admin_open(&settings, &admin, &e);
	if (rc >= 0)
		rc = admin_call(admin, "GET", path.p, NULL, &answer, &e);
	admin_close(admin);
	settings_clear(&settings);
	if (rc < 0)
		return cli_fail("cert show", &e);
	print_json(answer);
	return EXIT_DONE;
}

/* --- cert revoke --- */

static int cmd_revoke(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *reason = "unspecified";
	bool by_serial = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"reason", ARG_TEXT, &reason, "R",
			"RFC 5280 name: keyCompromise, superseded, cessationOfOperation, …"},
		{"serial", ARG_FLAG, &by_serial, NULL, "the word given is a serial, not a name"},
		{0},
	};
	struct args a = {.command = "cert revoke",
		.usage = "NAME | --serial SERIAL [--reason R]",
		.summary =
			"Revokes every certificate of a name, or the one with a serial. Open connections are cut off too.",
		.example = "  sealpost cert revoke client_001 --reason keyCompromise",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(json_auto)
	json_t *body = json_pack("{s:s, s:s}", by_serial ? "serial" : "name", a.rest[0], "reason", reason);
	int rc = body ? admin_open(&settings, &admin, &e)
		      : err_set(&e, ERR_REJECT, "names must be valid UTF-8");
	if (rc >= 0)
		rc = admin_call(admin, "POST", "/admin/certificates/revoke", body, &answer, &e);
	admin_close(admin);
	settings_clear(&settings);
	if (rc < 0)
		return cli_fail("cert revoke", &e);
	printf("revoked %lld certificate(s) of %s\n", (long long)json_number(answer, "revoked"), a.rest[0]);
	return EXIT_DONE;
}

int cmd_cert(int argc, char **argv)
{
	static const struct command table[] = {
		{"issue", NULL, "issue a certificate", cmd_issue},
		{"list", NULL, "list certificates", cmd_list},
		{"show", NULL, "show one certificate", cmd_show},
		{"revoke", NULL, "revoke by name or serial", cmd_revoke},
		{0},
	};
	return cli_dispatch("cert", table, argc, argv);
}
