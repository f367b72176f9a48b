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

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 1000000 };

/* --- messages list --- */

static const struct answer_column message_columns[] = {
	{"MESSAGE", "message_id"},
	{"CLIENT", "client_id"},
	{"DOMAIN", "domain"},
	{"STATUS", "status"},
	{"QUEUED", "queued_at"},
	{"ATTEMPTS", "attempt_count", ANSWER_NUMBER},
	{0},
};

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
		return cli_usage_error(a.command, "--status takes queued, processing, delivered or failed");
	if ((since && !wall_parse(str_of(since), &time)) || (until && !wall_parse(str_of(until), &time)))
		return cli_usage_error(
			a.command, "--since and --until take a time such as 2026-01-31T12:00:00Z");
	struct err e = ERR_INIT;
	AUTO(free_auto)
	char *path = admin_path("/admin/messages", "status", status, "client", client, "domain", domain,
		"sender", sender, "since", since, "until", until, (char *)NULL);
	AUTO(json_auto) json_t *messages = NULL;
	if (admin_rows_once(&settings, path, "messages", limit, &messages, &e) < 0)
		return cli_fail(a.command, &e);
	return admin_show_rows(a.command, messages, json, message_columns);
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
		return cli_usage_error(a.command, "'%s' is not a message id", a.rest[0]);
	char text[UUID_TEXT_BYTES], path[80];
	uuid_format(&id, text);
	snprintf(path, sizeof(path), "/admin/messages/%s", text);
	return admin_show(a.command, &settings, path, json, print_message);
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
