/* cert.c - sealpost cert: certificates for people who do not want to know PKI. Here is what makes them; what
 * looks at them and ends them is in cert_list.c and cert_verify.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/cert.h"
#include "cli/passphrase.h"
#include "cli/pkcs12.h"

enum { FILE_BYTES = 1024 * 1024, DAYS_MAX = 36500 };

struct issue {
	struct settings settings;
	const char *name, *domain, *role, *key_type, *csr, *out;
	const char *password_file;
	int64_t days;
	bool json, p12;
	struct buf password; /* of the PKCS #12 file, with a zero byte behind it */
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

/* The one file instead of certificate and key. */
static int write_p12(const struct issue *in, const json_t *answer, struct str chain, struct err *e)
{
	const struct pkcs12_contents contents = {.name = in->name,
		.key_pem = str_of(json_text(answer, "private_key_pem")),
		.chain_pem = chain,
		.ca_pem = str_of(json_text(answer, "ca_pem"))};
	AUTO(buf_auto) struct buf der;
	buf_init(&der, FILE_BYTES);
	if (pkcs12_make(&contents, str_of(in->password.p), &der, e) < 0)
		return -1;
	return write_file(in, in->name, ".p12", 0600, buf_str(&der), e);
}

/* The key first: a certificate without its key is of no use to anyone. */
static int write_pair(const struct issue *in, const json_t *answer, struct str chain, struct err *e)
{
	const char *key = json_text(answer, "private_key_pem");
	if (*key && write_file(in, in->name, ".key", 0600, str_of(key), e) < 0)
		return -1;
	return write_file(in, in->name, ".pem", 0644, chain, e);
}

static int write_issued(const struct issue *in, const json_t *answer, struct err *e)
{
	AUTO(buf_auto) struct buf chain;
	buf_init(&chain, FILE_BYTES);
	buf_add_str(&chain, str_of(json_text(answer, "certificate_pem")));
	buf_add_str(&chain, str_of(json_text(answer, "issuer_pem")));
	if (buf_check(&chain, e) >= 0 &&
		(in->p12 ? write_p12 : write_pair)(in, answer, buf_str(&chain), e) >= 0 &&
		write_file(in, "ca", ".pem", 0644, str_of(json_text(answer, "ca_pem")), e) >= 0)
		return 0;
	return err_context(e, "certificate %s is issued, but could not be saved; revoke it and try again",
		json_text(answer, "serial"));
}

/* Before anything is issued that could then not be saved. `ret_made`: it was not there. */
static int prepare_directory(const char *path, bool *ret_made, struct err *e)
{
	*ret_made = access(path, F_OK) < 0;
	if (dir_make(path, 0755, e) < 0)
		return -1;
	return access(path, W_OK | X_OK) < 0 ? err_sys(e, ERR_FATAL, "write to '%s'", path) : 0;
}

/* Adds what both requests may hold: lifetime, and the key to certify or the kind of key to make. */
static int add_key(const struct issue *in, json_t *body, struct err *e)
{
	AUTO(buf_auto) struct buf csr;
	buf_init(&csr, FILE_BYTES);
	if (in->days)
		json_object_set_new(body, "days", json_integer(in->days));
	if (in->key_type)
		json_object_set_new(body, "key_type", json_string(in->key_type));
	if (!in->csr)
		return 0;
	if (file_read(in->csr, FILE_BYTES, &csr, e) < 0)
		return -1;
	json_t *text = json_stringn(csr.p, csr.n);
	if (!text)
		return err_set(e, ERR_REJECT, "'%s' is not a PEM file", in->csr);
	json_object_set_new(body, "csr", text);
	return 0;
}

static void print_issued(const struct issue *in, json_t *answer)
{
	admin_note_new_domain(answer);
	if (in->json) {
		json_object_del(answer, "private_key_pem");
		print_json(answer);
		return;
	}
	printf("issued %s (%s, domain %s) until %s\n", in->name, json_text(answer, "role"),
		json_text(answer, "domain"), json_text(answer, "not_after"));
	if (in->p12)
		printf("  all in one   %s/%s.p12\n", in->out, in->name);
	else
		printf("  certificate  %s/%s.pem\n", in->out, in->name);
	if (!in->csr && !in->p12)
		printf("  private key  %s/%s.key\n", in->out, in->name);
	printf("  trust        %s/ca.pem\n", in->out);
}

/* Asks for a certificate, writes it, says so. `body` NULL: it could not be made. */
static int order(struct issue *in, const char *path, json_t *body, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	struct admin *admin = NULL;
	bool made = false;
	if (!body)
		return err_set(e, ERR_REJECT, "names must be valid UTF-8");
	if (add_key(in, body, e) < 0 || prepare_directory(in->out, &made, e) < 0)
		return -1;
	int rc = admin_open(&in->settings, &admin, e);
	if (rc >= 0)
		rc = admin_call(admin, "POST", path, body, &answer, e);
	if (rc >= 0)
		rc = write_issued(in, answer, e);
	if (rc >= 0)
		print_issued(in, answer);
	else if (made)
		rmdir(in->out); /* only when nothing is in it */
	admin_close(admin);
	return rc;
}

/* Digits and dots are meant as an address; as a name, no client would look for them. */
static const char *mistyped_address(const struct arg_list *names)
{
	unsigned char octets[sizeof(struct in_addr)];
	for (size_t i = 0; i < names->count; i++) {
		const char *name = names->items[i];
		if (!name[strspn(name, "0123456789.")] && inet_pton(AF_INET, name, octets) != 1)
			return name;
	}
	return NULL;
}

static bool has_listener(const char *role)
{
	return strcmp(role, "proxy") == 0 || strcmp(role, "server") == 0;
}

/* What the certificate of a listener answers to, addresses apart from names. */
static void add_listener_names(json_t *body, const struct arg_list *names)
{
	json_t *dns = json_array(), *addresses = json_array();
	unsigned char octets[sizeof(struct in6_addr)];
	for (size_t i = 0; i < names->count; i++) {
		const char *name = names->items[i];
		bool is_address =
			inet_pton(AF_INET, name, octets) == 1 || inet_pton(AF_INET6, name, octets) == 1;
		json_array_append_new(is_address ? addresses : dns, json_string(name));
	}
	json_object_set_new(body, "dns_names", dns);
	json_object_set_new(body, "addresses", addresses);
}

/* The name becomes a file name before the server has judged it. */
static bool names_a_file(const char *name)
{
	return *name && *name != '.' && !strchr(name, '/');
}

/* Before anything is issued that could then not be handed out. */
static int take_password(struct issue *in, struct err *e)
{
	if (passphrase_get(in->password_file, "the PKCS #12 file", true, &in->password, e) < 0)
		return -1;
	buf_add_char(&in->password, 0);
	return buf_check(&in->password, e);
}

/* Both commands, once their options are read. */
static int run(struct issue *in, const char *command, const char *path, json_t *body)
{
	struct err e = ERR_INIT;
	if (!names_a_file(in->name))
		return cli_usage_error(
			command, "'%s' is not a name: letters, digits, '.', '_' and '-'", in->name);
	if (in->key_type && in->csr)
		return cli_usage_error(command, "--key makes a key, --csr brings one; give one of them");
	if (in->p12 && in->csr)
		return cli_usage_error(command, "--p12 needs the key, which with --csr stays where it is");
	if (in->password_file && !in->p12)
		return cli_usage_error(command, "--password-file needs --p12");
	buf_init(&in->password, PASSPHRASE_BYTES_MAX + 1);
	int rc = in->p12 ? take_password(in, &e) : 0;
	if (rc >= 0)
		rc = order(in, path, body, &e);
	buf_wipe(&in->password);
	settings_clear(&in->settings);
	return rc < 0 ? cli_fail(command, &e) : EXIT_DONE;
}

/* What is certified, and where it goes: the same for both. */
#define FILE_OPTIONS(in)                                                                                     \
	{"csr", ARG_TEXT, &(in).csr, "FILE", "certify this request's key instead of making one"},            \
		{"p12", ARG_FLAG, &(in).p12, NULL,                                                           \
			"one PKCS #12 file, NAME.p12, instead of NAME.pem and NAME.key"},                    \
		{"password-file", ARG_TEXT, &(in).password_file, "FILE",                                     \
			"its first line protects that file; default: asked for"},                            \
		{"out", ARG_TEXT, &(in).out, "DIR", "where the files go; default here"},                     \
	{                                                                                                    \
		"json", ARG_FLAG, &(in).json, NULL, "print the answer as JSON (never the key)"               \
	}

/* --- cert issue --- */

static int cmd_issue(int argc, char **argv)
{
	struct issue in = {.role = "client", .domain = "default", .out = "."};
	struct arg_list names = {.count = 0};
	const struct arg options[] = {
		ADMIN_OPTIONS(in.settings),
		{"domain", ARG_TEXT, &in.domain, "D", "domain the name belongs to; default 'default'"},
		{"role", ARG_TEXT, &in.role, "R",
			"client, proxy, worker, server, monitor or admin; default client"},
		{"san", ARG_LIST, &names, "NAME",
			"proxy, server: DNS name or address that clients reach it by; may be given again"},
		{"days", ARG_INT, &in.days, "N", "lifetime; default cert_days", 1, DAYS_MAX},
		{"key", ARG_TEXT, &in.key_type, "TYPE",
			"ec:P-256 (default), ec:P-384, ed25519, rsa:2048, rsa:3072 or rsa:4096"},
		FILE_OPTIONS(in),
		{0},
	};
	struct args a = {.command = "cert issue",
		.usage =
			"NAME [--domain D] [--role R] [--san NAME …] [--days N] [--key TYPE | --csr FILE] [--p12] [--out DIR]",
		.summary =
			"Issues and registers a certificate. Writes NAME.pem (leaf and issuer), NAME.key (0600; not with\n"
			"--csr) and ca.pem: all that a client needs. With --p12, certificate, key and issuers are in one file.",
		.example =
			"  sealpost cert issue client_001 --domain example.com --out ./certs\n"
			"  sealpost cert issue proxy-1 --role proxy --san ingest.example.com --san 192.0.2.7 --out ./certs",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (mistyped_address(&names))
		return cli_usage_error(
			a.command, "--san: '%s' is not an IP address", mistyped_address(&names));
	in.name = a.rest[0];
	AUTO(json_auto)
	json_t *body = json_pack("{s:s, s:s, s:s}", "name", in.name, "domain", in.domain, "role", in.role);
	if (body)
		add_listener_names(body, &names);
	code = run(&in, "cert issue", "/admin/certificates/generate", body);
	if (code == EXIT_DONE && names.count == 0 && has_listener(in.role))
		fprintf(stderr,
			"note: clients cannot verify a %s by this certificate: --san names what they reach it by\n",
			in.role);
	return code;
}

/* --- cert renew --- */

static int renew_by_hand(int argc, char **argv)
{
	struct issue in = {.out = "."};
	const struct arg options[] = {
		ADMIN_OPTIONS(in.settings),
		{"role", ARG_TEXT, &in.role, "R", "of this role, where a name has several"},
		{"days", ARG_INT, &in.days, "N", "lifetime; default cert_days", 1, DAYS_MAX},
		{"key", ARG_TEXT, &in.key_type, "TYPE", "of the new key, as for 'cert issue'"},
		FILE_OPTIONS(in),
		{0},
	};
	struct args a = {.command = "cert renew",
		.usage = "NAME [--days N] [--key TYPE | --csr FILE] [--p12] [--out DIR]",
		.summary =
			"Issues the next certificate of a name: same domain, role and addresses, a fresh key. The old one\n"
			"ends when the new one is first used, so that nothing stops while the new files are put in place.",
		.example = "  sealpost cert renew client_001 --out ./certs",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	in.name = a.rest[0];
	AUTO(json_auto)
	json_t *body = json_pack("{s:s, s:s*}", "name", in.name, "role", in.role);
	return run(&in, "cert renew", "/admin/certificates/renew", body);
}

int cmd_cert(int argc, char **argv)
{
	static const struct command table[] = {
		{"issue", NULL, "issue a certificate", cmd_issue},
		{"renew", NULL, "issue the next certificate of a name", renew_by_hand},
		{"list", NULL, "list certificates", cmd_cert_list},
		{"expiring", NULL, "list those that end soon", cmd_cert_expiring},
		{"show", NULL, "show one certificate", cmd_cert_show},
		{"revoke", NULL, "revoke by name or serial", cmd_cert_revoke},
		{"verify", NULL, "judge a certificate as the listeners do", cmd_cert_verify},
		{0},
	};
	return cli_dispatch("cert", table, argc, argv);
}
