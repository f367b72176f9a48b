/* queue.c - sealpost queue: what waits, what failed, and the two switches. What changes dead letters is in
 * queue_change.c. */
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/queue.h"
#include "cli/term.h"
#include "message/state.h"
#include "message/uuid.h"

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 500 };

/* --- queue stats --- */

static void print_paused(const char *what, const json_t *stats, const char *flag, const char *reason)
{
	if (json_is_true(json_object_get(stats, flag)))
		printf("%-11s paused%s%s\n", what, *json_text(stats, reason) ? ": " : "",
			json_text(stats, reason));
}

static void print_stats(const json_t *stats)
{
	static const char *const counts[] = {"queued", "retrying", "processing", "failed"};
	for (size_t i = 0; i < ARRAY_LEN(counts); i++)
		printf("%-11s %lld\n", counts[i], (long long)json_number(stats, counts[i]));
	printf("%-11s %.1f s\n", "oldest", json_number_value(json_object_get(stats, "oldest_age_seconds")));
	printf("%-11s %s\n", "durability", json_text(stats, "durability"));
	print_paused("accepting", stats, "accept_paused", "accept_reason");
	print_paused("delivery", stats, "delivery_paused", "delivery_reason");
}

static int cmd_stats(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings), {"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "queue stats",
		.usage = "[--json]",
		.summary =
			"Shows how many messages wait, are being delivered, failed, and how old the oldest is.",
		.example = "  sealpost queue stats",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	return admin_show(a.command, &settings, "/admin/queue/stats", json, print_stats);
}

/* --- queue list, queue dead --- */

static const struct answer_column entry_columns[] = {
	{"MESSAGE", "message_id"},
	{"CLIENT", "client_id"},
	{"STATUS", "status"},
	{"QUEUED", "queued_at"},
	{"ATTEMPTS", "attempt_count", ANSWER_NUMBER},
	{"LAST ERROR", "error_message"},
	{0},
};

struct listing {
	struct settings settings;
	struct queue_choice choice;
	int64_t limit;
	bool json;
};

/* With --json each message comes with its attempts. */
static int list(const char *command, struct listing *l, const char *status)
{
	struct err e = ERR_INIT;
	if (queue_choice_settle(&l->choice, &e) < 0)
		return cli_usage_error(command, "%s", e.text);
	AUTO(free_auto)
	char *path = admin_path("/admin/queue/messages", "status", status, "client", l->choice.client,
		"domain", l->choice.domain, "reason_has", l->choice.error, "accepted_before",
		l->choice.before, "attempts", l->json ? "true" : NULL, (char *)NULL);
	AUTO(json_auto) json_t *messages = NULL;
	if (admin_rows_once(&l->settings, path, "messages", l->limit, &messages, &e) < 0)
		return cli_fail(command, &e);
	return admin_show_rows(command, messages, l->json, entry_columns);
}

#define LISTING_OPTIONS(l)                                                                                   \
	ADMIN_OPTIONS((l).settings), QUEUE_CHOICE_OPTIONS((l).choice),                                       \
		{"limit", ARG_INT, &(l).limit, "N", "at most N; default 50", 1, LIMIT_MAX},                  \
	{                                                                                                    \
		"json", ARG_FLAG, &(l).json, NULL, "as one JSON array, with every attempt"                   \
	}

static int cmd_list(int argc, char **argv)
{
	struct listing l = {.limit = LIMIT_DEFAULT};
	const struct arg options[] = {LISTING_OPTIONS(l), {0}};
	struct args a = {.command = "queue list",
		.usage =
			"[queued|processing|failed] [--client NAME] [--domain D] [--error TEXT] [--before TIME] [--limit N] [--json]",
		.summary = "Lists the messages in the queue, oldest first, without their text.",
		.example = "  sealpost queue list failed\n  sealpost queue list queued --older-than 10m",
		.options = options,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	const char *status = a.rest_count ? a.rest[0] : NULL;
	enum message_state state;
	if (status && (!message_state_parse(str_of(status), &state) || state == MESSAGE_DELIVERED))
		return cli_usage_error(
			a.command, "queued, processing or failed is expected, not '%s'", status);
	return list("queue list", &l, status);
}

static int cmd_dead(int argc, char **argv)
{
	struct listing l = {.limit = LIMIT_DEFAULT};
	const struct arg options[] = {LISTING_OPTIONS(l), {0}};
	struct args a = {.command = "queue dead",
		.usage = "[--client NAME] [--domain D] [--error TEXT] [--before TIME] [--limit N] [--json]",
		.summary =
			"Lists dead letters: messages that were rejected or given up, kept until redriven or purged.",
		.example = "  sealpost queue dead --error unknown_client",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	return list("queue dead", &l, "failed");
}

/* --- queue show --- */

static void print_field(const char *name, const json_t *entry, const char *key)
{
	if (*json_text(entry, key))
		printf("%-10s %s\n", name, json_text(entry, key));
}

static const struct answer_column attempt_columns[] = {
	{"ATTEMPT", "number", ANSWER_NUMBER},
	{"AT", "at"},
	{"WORKER", "worker"},
	{"ERROR", "error_message"},
	{0},
};

/* Only the newest attempts are there, so that they are numbered from the last on. */
static int print_entry(const json_t *entry, struct err *e)
{
	const json_t *attempts = json_object_get(entry, "attempts");
	int64_t count = json_number(entry, "attempt_count");
	size_t i, kept = json_array_size(attempts);
	json_t *attempt;
	print_field("message", entry, "message_id");
	print_field("client", entry, "client_id");
	print_field("domain", entry, "domain");
	print_field("status", entry, "status");
	print_field("queued", entry, "queued_at");
	if (strcmp(json_text(entry, "status"), message_state_name(MESSAGE_QUEUED)) == 0)
		print_field("due", entry, "due_at");
	printf("%-10s %lld\n", "attempts", (long long)count);
	if (!kept)
		return 0;
	json_array_foreach(attempts, i, attempt)
	{
		json_object_set_new(attempt, "number", json_integer(count - (int64_t)kept + (int64_t)i + 1));
	}
	putchar('\n');
	return print_table(attempts, attempt_columns, stdout, e);
}

static int cmd_show(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings), {"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "queue show",
		.usage = "ID [--json]",
		.summary =
			"Shows a message in the queue with its attempts: when, by which worker, why they failed.",
		.example = "  sealpost queue show 019a1b2c-3d4e-7f50-8a6b-7c8d9e0f1a2b",
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	struct uuid id;
	char text[UUID_TEXT_BYTES], path[80];
	if (!uuid_parse(str_of(a.rest[0]), &id))
		return cli_usage_error(a.command, "'%s' is not a message id", a.rest[0]);
	uuid_format(&id, text);
	snprintf(path, sizeof(path), "/admin/queue/messages/%s", text);
	if (admin_once(&settings, "GET", path, NULL, &answer, &e) < 0)
		return cli_fail(a.command, &e);
	if (json)
		print_json(answer);
	else if (print_entry(answer, &e) < 0)
		return cli_fail(a.command, &e);
	return EXIT_DONE;
}

/* --- queue pause, queue resume --- */

static int cmd_switch(int argc, char **argv, const char *command, const char *path, const char *summary,
	const char *example)
{
	struct settings settings = {.data = NULL};
	const char *reason = "";
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"reason", ARG_TEXT, &reason, "TEXT",
			"kept in the audit trail; a pause's is shown by health, stats and checks"},
		{0},
	};
	struct args a = {.command = command,
		.usage = "accept|delivery [--reason TEXT]",
		.summary = summary,
		.example = example,
		.options = options,
		.rest_min = 1,
		.rest_max = 1};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (strcmp(a.rest[0], "accept") != 0 && strcmp(a.rest[0], "delivery") != 0)
		return cli_usage_error(command, "accept or delivery is expected, not '%s'", a.rest[0]);
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(json_auto) json_t *body = json_pack("{s:s, s:s}", "what", a.rest[0], "reason", reason);
	int rc = body ? admin_once(&settings, "POST", path, body, &answer, &e)
		      : err_set(&e, ERR_REJECT, "the reason must be valid UTF-8");
	if (rc < 0)
		return cli_fail(command, &e);
	print_stats(answer);
	return EXIT_DONE;
}

static int cmd_pause(int argc, char **argv)
{
	return cmd_switch(argc, argv, "queue pause", "/admin/queue/pause",
		"Stops accepting new messages (clients get 503), or stops delivering; survives restarts.",
		"  sealpost queue pause delivery --reason 'database maintenance'");
}

static int cmd_resume(int argc, char **argv)
{
	return cmd_switch(argc, argv, "queue resume", "/admin/queue/resume", "Ends a pause.",
		"  sealpost queue resume delivery");
}

int cmd_queue(int argc, char **argv)
{
	static const struct command table[] = {
		{"stats", NULL, "counts, ages, pauses", cmd_stats},
		{"list", NULL, "list what is in the queue", cmd_list},
		{"dead", NULL, "list dead letters", cmd_dead},
		{"show", NULL, "show one message with its attempts", cmd_show},
		{"redrive", NULL, "put dead letters back", cmd_queue_redrive},
		{"purge", NULL, "delete dead letters", cmd_queue_purge},
		{"pause", NULL, "pause accepting or delivery", cmd_pause},
		{"resume", NULL, "end a pause", cmd_resume},
		{0},
	};
	return cli_dispatch("queue", table, argc, argv);
}
