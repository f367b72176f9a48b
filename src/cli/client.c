/* client.c - sealpost client: who may send. Suspending is for now, where revoking a certificate is for good.
 */
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/term.h"

/* --- client list --- */

static void print_clients(const json_t *clients)
{
	static const struct term_column columns[] = {
		{"NAME", false}, {"DOMAIN", false}, {"STATUS", false}, {"SINCE", false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	struct err e = ERR_INIT;
	size_t i;
	const json_t *client;
	if (!t)
		return;
	json_array_foreach(clients, i, client)
	{
		const char *status = json_text(client, "status");
		term_table_cell(t, "%s", json_text(client, "name"));
		term_table_cell(t, "%s", json_text(client, "domain"));
		term_table_cell(t, "%s", status);
		term_table_style(t, strcmp(status, "active") == 0 ? TERM_GREEN : TERM_RED);
		term_table_cell(t, "%.10s", json_text(client, "created_at"));
	}
	if (term_table_print(t, stdout, &e) < 0)
		term_error("client list", "%s", e.text);
}

static int fetch_clients(struct admin *admin, const char *domain, json_t *all, struct err *e)
{
	char cursor[80] = "";
	do {
		AUTO(free_auto)
		char *path = admin_path(
			"/admin/clients?limit=500", "domain", domain, "cursor", cursor, (char *)NULL);
		AUTO(json_auto) json_t *answer = NULL;
		if (!path)
			return err_oom(e);
		if (admin_call(admin, "GET", path, NULL, &answer, e) < 0)
			return -1;
		json_array_extend(all, json_object_get(answer, "clients"));
		snprintf(cursor, sizeof(cursor), "%s", json_text(answer, "next_cursor"));
	} while (*cursor);
	return 0;
}

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
		.summary = "Lists all clients by name. A client exists from its first certificate on.",
		.example = "  sealpost client list --domain example.com",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *all = json_array();
	int rc = all ? admin_open(&settings, &admin, &e) : err_oom(&e);
	if (rc >= 0)
		rc = fetch_clients(admin, domain, all, &e);
	admin_close(admin);
	settings_clear(&settings);
	if (rc < 0)
		return cli_fail("client list", &e);
	if (json)
		print_json(all);
	else
		print_clients(all);
	return EXIT_DONE;
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
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(json_auto) json_t *body = json_pack("{s:s}", "name", a.rest[0]);
	int rc = body ? admin_open(&settings, &admin, &e)
		      : err_set(&e, ERR_REJECT, "a name must be valid UTF-8");
	if (rc >= 0)
		rc = admin_call(admin, "POST", change->path, body, &answer, &e);
	admin_close(admin);
	settings_clear(&settings);
	if (rc < 0)
		return cli_fail(change->command, &e);
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

int cmd_client(int argc, char **argv)
{
	static const struct command table[] = {
		{"list", NULL, "list clients", cmd_list},
		{"suspend", NULL, "let a client in no more, for now", cmd_suspend},
		{"resume", NULL, "let a suspended client in again", cmd_resume},
		{0},
	};
	return cli_dispatch("client", table, argc, argv);
}
