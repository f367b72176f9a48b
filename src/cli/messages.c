/* messages.c - sealpost messages: the administrator's view of what is stored. */
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/messages.h"
#include "cli/term.h"
#include "message/state.h"
#include "message/uuid.h"

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 1000000, PAGE_MAX = 500 };

/* --- messages list --- */

static void print_messages(const json_t *messages)
{
	static const struct term_column columns[] = {{"MESSAGE", false}, {"CLIENT", false}, {"DOMAIN", false},
		{"STATUS", false}, {"QUEUED", false}, {"ATTEMPTS", true}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	struct err e = ERR_INIT;
	size_t i;
	const json_t *m;
	if (!t)
		return;
	json_array_foreach(messages, i, m)
	{
		term_table_cell(t, "%s", json_text(m, "message_id"));
		term_table_cell(t, "%s", json_text(m, "client_id"));
		term_table_cell(t, "%s", json_text(m, "domain"));
		term_table_cell(t, "%s", json_text(m, "status"));
		term_table_cell(t, "%s", json_text(m, "queued_at"));
		term_table_cell(t, "%lld", (long long)json_number(m, "attempt_count"));
	}
	if (term_table_print(t, stdout, &e) < 0)
		term_error("messages list", "%s", e.text);
}

/* Pages until `limit` rows are there or no more exist. */
static int fetch_messages(struct admin *admin, const char *path, int64_t limit, json_t *all, struct err *e)
{
	char cursor[64] = "", page[32];
	do {
		int64_t left = limit - (int64_t)json_array_size(all);
		snprintf(page, sizeof(page), "%lld", (long long)(left < PAGE_MAX ? left : PAGE_MAX));
		AUTO(free_auto)
		char *page_path = admin_path(path, "limit", page, "cursor", cursor, (char *)NULL);
		AUTO(json_auto) json_t *answer = NULL;
		if (!page_path)
			return err_oom(e);
		if (admin_call(admin, "GET", page_path, NULL, &answer, e) < 0)
			return -1;
		json_array_extend(all, json_object_get(answer, "messages"));
		snprintf(cursor, sizeof(cursor), "%s", json_text(answer, "next_cursor"));
	} while (*cursor && (int64_t)json_array_size(all) < limit);
	return 0;
}

static int cmd_list(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *status = NULL, *client = NULL, *domain = NULL, *sender = NULL, *since = NULL,
		   *until = NULL;
	int64_t limit = LIMIT_DEFAULT;
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"limit", ARG_INT, &limit, "N", "at most N; default 50", 1, LIMIT_MAX},
		{"status", ARG_TEXT, &status, "S", "queued, processing, delivered or failed"},
		{"client", ARG_TEXT, &client, "NAME", "only this client's"},
		{"domain", ARG_TEXT, &domain, "D", "only this domain's"},
		{"sender", ARG_TEXT, &sender, "NUMBER", "only from this phone number"},
		{"since", ARG_TEXT, &since, "TIME", "accepted at or after, RFC 3339"},
		{"until", ARG_TEXT, &until, "TIME", "accepted before, RFC 3339"},
		{"json", ARG_FLAG, &json, NULL, "as one JSON array"},
		{0},
	};
	struct args a = {.command = "messages list",
		.usage =
			"[--limit N] [--status S] [--client NAME] [--domain D] [--sender NUMBER] [--since T] [--until T] [--json]",
		.summary = "Lists stored messages, newest first, without their text.",
		.example = "  sealpost messages list --client client_001 --since 2026-01-31T00:00:00Z",
		.options = options};
	int code;
	enum message_state state;
	struct wall time;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (status && !message_state_parse(str_of(status), &state))
		return cli_usage_error(
			"messages list", "--status takes queued, processing, delivered or failed");
	if ((since && !wall_parse(str_of(since), &time)) || (until && !wall_parse(str_of(until), &time)))
		return cli_usage_error(
			"messages list", "--since and --until take a time such as 2026-01-31T12:00:00Z");
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *all = json_array();
	AUTO(free_auto)
	char *path = admin_path("/admin/messages", "status", status, "client", client, "domain", domain,
		"sender", sender, "since", since, "until", until, (char *)NULL);
	int rc = all && path ? admin_open(&settings, &admin, &e) : err_oom(&e);
	if (rc >= 0)
		rc = fetch_messages(admin, path, limit, all, &e);
	admin_close(admin);
	settings_clear(&settings);
	if (rc < 0)
		return cli_fail("messages list", &e);
	if (json)
		print_json(all);
	else
		print_messages(all);
	return EXIT_DONE;
}

/* --- messages show --- */

static void print_message(const json_t *m)
{
	static const char *const keys[] = {"message_id", "client_id", "domain", "status", "queued_at",
		"delivered_at", "error_message", "traceparent", "sender_number", NULL};
	for (const char *const *key = keys; *key; key++) {
		if (!*json_text(m, *key))
			continue;
		printf("%-14s ", *key);
		term_put_untrusted(stdout, str_of(json_text(m, *key)));
		putchar('\n');
	}
	printf("%-14s %lld\n\n", "attempt_count", (long long)json_number(m, "attempt_count"));
	term_put_untrusted(stdout, str_of(json_text(m, "message_body")));
	putchar('\n');
}

static int cmd_show(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings), {"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "messages show",
		.usage = "ID [--json]",
		.summary =
			"Shows one message with its text, decrypted by the main server. Leaves a row in the audit trail.",
		.example = "  sealpost messages show 0192f3a4-5b6c-7d8e-9f01-23456789abcd",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct uuid id;
	if (!uuid_parse(str_of(a.rest[0]), &id))
		return cli_usage_error("messages show", "'%s' is not a message id", a.rest[0]);
	char text[UUID_TEXT_BYTES], path[80];
	uuid_format(&id, text);
	snprintf(path, sizeof(path), "/admin/messages/%s", text);
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	if (admin_once(&settings, "GET", path, NULL, &answer, &e) < 0)
		return cli_fail("messages show", &e);
	if (json)
		print_json(answer);
	else
		print_message(answer);
	return EXIT_DONE;
}

int cmd_messages(int argc, char **argv)
{
	static const struct command table[] = {
		{"list", NULL, "list stored messages, newest first", cmd_list},
		{"follow", NULL, "show messages as they arrive and change", cmd_messages_follow},
		{"show", NULL, "show one message with its text (audited)", cmd_show},
		{0},
	};
	return cli_dispatch("messages", table, argc, argv);
}
