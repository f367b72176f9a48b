/* client.c - sealpost client: who may send. Suspending is for now, where revoking a certificate is for good.
 */
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/term.h"
#include "server/server.h"

/* --- client list --- */

static const struct answer_column client_columns[] = {
	{"NAME", "name"},
	{"DOMAIN", "domain"},
	{"STATUS", "status", .good = "active"},
	{"SINCE", "created_at", ANSWER_DAY},
	{0},
};

static int cmd_list(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *domain = NULL;
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"domain", ARG_TEXT, &domain, "D", "only this domain"},
		{"json", ARG_FLAG, &json, NULL, "as a JSON array"},
		{0},
	};
	struct args a = {.command = "client list",
		.usage = "[--domain D] [--json]",
		.summary =
			"Lists all clients by name. A client exists from 'client add' or its first certificate on.",
		.example = "  sealpost client list --domain example.com",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(free_auto) char *path = admin_path("/admin/clients", "domain", domain, (char *)NULL);
	AUTO(json_auto) json_t *clients = NULL;
	if (admin_rows_once(&settings, path, "clients", ADMIN_ALL, &clients, &e) < 0)
		return cli_fail(a.command, &e);
	return admin_show_rows(a.command, clients, json, client_columns);
}

/* --- client suspend, client resume --- */

/* What differs between the two. */
struct change {
	const char *command, *path, *summary, *example;
};

static int change_status(const struct change *change, int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const struct arg options[] = {ADMIN_OPTIONS(settings), {0}};
	struct args a = {.command = change->command,
		.usage = "NAME",
		.summary = change->summary,
		.example = change->example,
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(json_auto) json_t *body = json_pack("{s:s}", "name", a.rest[0]);
	int rc = body ? admin_once(&settings, "POST", change->path, body, &answer, &e)
		      : err_set(&e, ERR_REJECT, "a name must be valid UTF-8");
	if (rc < 0)
		return cli_fail(a.command, &e);
	printf("%s is %s\n", json_text(answer, "name"), json_text(answer, "status"));
	return EXIT_DONE;
}

static int cmd_suspend(int argc, char **argv)
{
	static const struct change change = {"client suspend", "/admin/clients/suspend",
		"Lets a client in no more, until it is resumed. Open connections are cut off too; its certificates stay\n"
		"as they are.",
		"  sealpost client suspend client_001"};
	return change_status(&change, argc, argv);
}

static int cmd_resume(int argc, char **argv)
{
	static const struct change change = {"client resume", "/admin/clients/resume",
		"Lets a suspended client in again, with the certificates that it has.",
		"  sealpost client resume client_001"};
	return change_status(&change, argc, argv);
}

/* --- client add, client token --- */

struct order {
	struct settings settings;
	const char *domain, *role, *names, *valid;
	int64_t days, uses;
	bool json;
};

enum { DAYS_MAX = 36500, USES_MAX = 10000 };

#define ORDER_OPTIONS(o)                                                                                     \
	{"role", ARG_TEXT, &(o).role, "R",                                                                   \
		"client, proxy, worker, server, monitor or admin; default client"},                          \
		{"names", ARG_TEXT, &(o).names, "LIST",                                                      \
			"DNS names and addresses of a proxy or server, comma separated"},                    \
		{"days", ARG_INT, &(o).days, "N", "lifetime of its certificates; default cert_days", 1,      \
			DAYS_MAX},                                                                           \
		{"valid", ARG_TEXT, &(o).valid, "TIME",                                                      \
			"how long the token lasts: 30m, 24h, 7d; default enroll_valid"},                     \
		{"uses", ARG_INT, &(o).uses, "N", "how many devices may enrol with it; default 1", 1,        \
			USES_MAX},                                                                           \
	{                                                                                                    \
		"json", ARG_FLAG, &(o).json, NULL, "as JSON"                                                 \
	}

/* Members that are not given are left to the server. */
static int order_body(const struct order *o, const char *name, json_t **ret, struct err *e)
{
	AUTO(json_auto)
	json_t *body = json_pack("{s:s*, s:s*, s:s*, s:s*}", "name", name, "domain", o->domain, "role",
		o->role, "names", o->names);
	int64_t valid_ms = 0;
	if (!body)
		return err_set(e, ERR_REJECT, "names must be valid UTF-8");
	if (o->valid && !config_parse_duration(str_of(o->valid), &valid_ms))
		return err_set(e, ERR_REJECT, "--valid: '%s' is no time: 30m, 24h and 7d are", o->valid);
	if (o->valid && (valid_ms < SERVER_TOKEN_VALID_S_MIN * INT64_C(1000) ||
				valid_ms > SERVER_TOKEN_VALID_S_MAX * INT64_C(1000)))
		return err_set(e, ERR_REJECT, "--valid: a token lasts from 1m to 365d");
	if (o->valid)
		json_object_set_new(body, "valid_s", json_integer(valid_ms / 1000));
	if (o->days)
		json_object_set_new(body, "days", json_integer(o->days));
	if (o->uses)
		json_object_set_new(body, "uses", json_integer(o->uses));
	*ret = TAKE(body);
	return 0;
}

static void print_token(const json_t *answer)
{
	const char *name = json_text(answer, "name"), *url = json_text(answer, "url");
	printf("%s (%s, domain %s): a token for %lld device%s, until %s\n\n", name, json_text(answer, "role"),
		json_text(answer, "domain"), (long long)json_number(answer, "uses_max"),
		json_number(answer, "uses_max") == 1 ? "" : "s", json_text(answer, "expires_at"));
	printf("on the device:\n  sealpost enroll %s\n\n", json_text(answer, "token"));
	printf("It is shown this once. Another EST client (RFC 7030): %s/.well-known/est, user %s, password %s\n",
		url, name, json_text(answer, "secret"));
	if (strstr(url, "//127.") || strstr(url, "//localhost") || strstr(url, "//[::1]"))
		printf("Only this machine reaches %s: for others set server_listen and tls_names, or public_url.\n",
			url);
}

static int order_token(struct order *o, const char *path, const char *name, struct err *e)
{
	AUTO(json_auto) json_t *body = NULL, *answer = NULL;
	if (order_body(o, name, &body, e) < 0)
		return -1;
	if (admin_once(&o->settings, "POST", path, body, &answer, e) < 0)
		return -1;
	admin_note_new_domain(answer);
	if (o->json)
		print_json(answer);
	else
		print_token(answer);
	return 0;
}

static int cmd_add(int argc, char **argv)
{
	struct order o = {.domain = "default"};
	const struct arg options[] = {
		ADMIN_OPTIONS(o.settings),
		{"domain", ARG_TEXT, &o.domain, "D", "domain the name belongs to; default 'default'"},
		ORDER_OPTIONS(o),
		{0},
	};
	struct args a = {.command = "client add",
		.usage = "NAME [--domain D] [--valid TIME] [--uses N]",
		.summary =
			"Adds a client and prints a token with which its device fetches a certificate: 'sealpost enroll'.\n"
			"The private key is made on the device and never leaves it.",
		.example = "  sealpost client add client_001 --domain example.com",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	return order_token(&o, "/admin/clients", a.rest[0], &e) < 0 ? cli_fail(a.command, &e) : EXIT_DONE;
}

static int cmd_token(int argc, char **argv)
{
	struct order o = {.domain = NULL};
	const struct arg options[] = {
		ADMIN_OPTIONS(o.settings),
		{"domain", ARG_TEXT, &o.domain, "D", "for a role other than client"},
		ORDER_OPTIONS(o),
		{0},
	};
	struct args a = {.command = "client token",
		.usage = "NAME [--valid TIME] [--uses N]",
		.summary =
			"Prints another enrolment token for a client: for a second device, or one that has lost its key.",
		.example = "  sealpost client token client_001 --valid 1h",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(free_auto) char *path = admin_path_of("/admin/clients/", a.rest[0], "/tokens");
	return order_token(&o, path, NULL, &e) < 0 ? cli_fail(a.command, &e) : EXIT_DONE;
}

/* --- client tokens, client revoke-token --- */

static void fill_uses(struct term_table *t, const json_t *token)
{
	term_table_cell(t, "%lld/%lld", (long long)json_number(token, "uses"),
		(long long)json_number(token, "uses_max"));
}

static const struct answer_column token_columns[] = {
	{"TOKEN", "token_id"},
	{"NAME", "name"},
	{"ROLE", "role"},
	{"STATUS", "status", .good = "open"},
	{"USES", NULL, ANSWER_NUMBER, .fill = fill_uses},
	{"CREATED", "created_at", ANSWER_MINUTE},
	{"EXPIRES", "expires_at", ANSWER_MINUTE},
	{0},
};

static int cmd_tokens(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings), {"json", ARG_FLAG, &json, NULL, "as a JSON array"}, {0}};
	struct args a = {.command = "client tokens",
		.usage = "[NAME] [--json]",
		.summary =
			"Lists enrolment tokens, newest first: open, used, expired or revoked. The tokens themselves are\n"
			"kept nowhere.",
		.example = "  sealpost client tokens client_001",
		.options = options,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	const char *name = a.rest_count ? a.rest[0] : NULL;
	AUTO(free_auto) char *path = admin_path("/admin/tokens", "name", name, (char *)NULL);
	AUTO(json_auto) json_t *tokens = NULL;
	if (admin_rows_once(&settings, path, "tokens", ADMIN_ALL, &tokens, &e) < 0)
		return cli_fail(a.command, &e);
	return admin_show_rows(a.command, tokens, json, token_columns);
}

static int cmd_revoke_token(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const struct arg options[] = {ADMIN_OPTIONS(settings), {0}};
	struct args a = {.command = "client revoke-token",
		.usage = "TOKEN_ID",
		.summary =
			"Ends an enrolment token that nobody shall use any more. What was enrolled with it stays.",
		.example = "  sealpost client revoke-token 9f86d081884c7d65",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(free_auto) char *path = admin_path_of("/admin/tokens/", a.rest[0], "");
	if (admin_once(&settings, "DELETE", path, NULL, &answer, &e) < 0)
		return cli_fail(a.command, &e);
	puts(json_number(answer, "revoked") ? "revoked" : "it could not be used any more anyway");
	return EXIT_DONE;
}

/* --- client show, client remove --- */

static void print_client(const json_t *client)
{
	size_t i;
	const json_t *cert;
	printf("%s  %s, domain %s, since %.10s\n", json_text(client, "name"), json_text(client, "status"),
		json_text(client, "domain"), json_text(client, "created_at"));
	json_array_foreach(json_object_get(client, "certificates"), i, cert)
	{
		const char *seen = json_text(cert, "last_seen_at"), *renews = json_text(cert, "renews");
		printf("  certificate %s  %s, until %.10s, %s%.16s", json_text(cert, "serial"),
			json_text(cert, "status"), json_text(cert, "not_after"),
			*seen ? "last seen " : "never seen", seen);
		printf("%s%s\n", *renews ? ", renews " : "", renews);
	}
	json_array_foreach(json_object_get(client, "tokens"), i, cert)
	{
		printf("  token %s  %s, until %.16s\n", json_text(cert, "token_id"),
			json_text(cert, "status"), json_text(cert, "expires_at"));
	}
}

static int cmd_show(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings), {"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "client show",
		.usage = "NAME [--json]",
		.summary =
			"Shows a client with its certificates, which renews which, and its enrolment tokens.",
		.example = "  sealpost client show client_001",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	AUTO(free_auto) char *path = admin_path_of("/admin/clients/", a.rest[0], "");
	return admin_show(a.command, &settings, path, json, print_client);
}

static int cmd_remove(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const struct arg options[] = {ADMIN_OPTIONS(settings), {0}};
	struct args a = {.command = "client remove",
		.usage = "NAME",
		.summary =
			"Removes a client for good: its certificates are revoked and its tokens end. Its messages stay, and\n"
			"its name stays in its domain: 'client add' brings it back, with a new certificate.",
		.example = "  sealpost client remove client_001",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(free_auto) char *path = admin_path_of("/admin/clients/", a.rest[0], "");
	if (admin_once(&settings, "DELETE", path, NULL, &answer, &e) < 0)
		return cli_fail(a.command, &e);
	printf("removed %s; %lld certificates revoked\n", json_text(answer, "name"),
		(long long)json_number(answer, "revoked"));
	return EXIT_DONE;
}

int cmd_client(int argc, char **argv)
{
	static const struct command table[] = {
		{"add", NULL, "add a client and print its enrolment token", cmd_add},
		{"list", NULL, "list clients", cmd_list},
		{"show", NULL, "show a client, its certificates and tokens", cmd_show},
		{"suspend", NULL, "let a client in no more, for now", cmd_suspend},
		{"resume", NULL, "let a suspended client in again", cmd_resume},
		{"remove", NULL, "revoke its certificates and forget it", cmd_remove},
		{"token", NULL, "print another enrolment token", cmd_token},
		{"tokens", NULL, "list enrolment tokens", cmd_tokens},
		{"revoke-token", NULL, "end an enrolment token", cmd_revoke_token},
		{0},
	};
	return cli_dispatch("client", table, argc, argv);
}
