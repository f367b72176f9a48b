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
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	if (admin_once(&settings, "GET", "/admin/queue/stats", NULL, &answer, &e) < 0)
		return cli_fail("queue stats", &e);
	if (json)
		print_json(answer);
	else
		print_stats(answer);
	return EXIT_DONE;
}

/* --- queue list, queue dead --- */

static void print_entries(const json_t *entries)
{
	static const struct term_column columns[] = {{"MESSAGE", false}, {"CLIENT", false}, {"STATUS", false},
		{"QUEUED", false}, {"ATTEMPTS", true}, {"LAST ERROR", false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	struct err e = ERR_INIT;
	size_t i;
	const json_t *m;
	if (!t)
		return;
	json_array_foreach(entries, i, m)
	{
		term_table_cell(t, "%s", json_text(m, "message_id"));
		term_table_cell(t, "%s", json_text(m, "client_id"));
		term_table_cell(t, "%s", json_text(m, "status"));
		term_table_cell(t, "%s", json_text(m, "queued_at"));
		term_table_cell(t, "%lld", (long long)json_number(m, "attempt_count"));
		term_table_cell(t, "%s", json_text(m, "error_message"));
	}
	if (term_table_print(t, stdout, &e) < 0)
		term_error("queue list", "%s", e.text);
}

struct listing {
	struct settings settings;
	struct queue_choice choice;
	int64_t limit;
	bool json;
};

/* With --json each message comes with its attempts. */
static int list(const char *command, struct listing *l, const char *status)
{
	char limit[32];
	snprintf(limit, sizeof(limit), "%lld", (long long)l->limit);
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(free_auto) char *path = NULL;
	if (queue_choice_settle(&l->choice, &e) < 0)
		return cli_usage_error(command, "%s", e.text);
	path = admin_path("/admin/queue/messages", "limit", limit, "status", status, "client",
		l->choice.client, "domain", l->choice.domain, "reason_has", l->choice.error,
		"accepted_before", l->choice.before, "attempts", l->json ? "true" : NULL, (char *)NULL);
	if (!path)
		err_oom(&e);
	if (!path || admin_once(&l->settings, "GET", path, NULL, &answer, &e) < 0)
		return cli_fail(command, &e);
	if (l->json)
		print_json(json_object_get(answer, "messages"));
	else
		print_entries(json_object_get(answer, "messages"));
	return EXIT_DONE;
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
			"queue list", "queued, processing or failed is expected, not '%s'", status);
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

static int print_entry(const json_t *entry)
{
	static const struct term_column columns[] = {
		{"ATTEMPT", true}, {"AT", false}, {"WORKER", false}, {"ERROR", false}};
	const json_t *attempts = json_object_get(entry, "attempts"), *attempt;
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	struct err e = ERR_INIT;
	size_t i;
	if (!t)
		return cli_fail("queue show", (err_oom(&e), &e));
	print_field("message", entry, "message_id");
	print_field("client", entry, "client_id");
	print_field("domain", entry, "domain");
	print_field("status", entry, "status");
	print_field("queued", entry, "queued_at");
	print_field("due", entry, "due_at");
	printf("%-10s %lld\n", "attempts", (long long)json_number(entry, "attempt_count"));
	if (!json_array_size(attempts))
		return EXIT_DONE;
	/* Only the newest are kept. */
	long long number =
		(long long)json_number(entry, "attempt_count") - (long long)json_array_size(attempts);
	json_array_foreach(attempts, i, attempt)
	{
		term_table_cell(t, "%lld", ++number);
		term_table_cell(t, "%s", json_text(attempt, "at"));
		term_table_cell(t, "%s", json_text(attempt, "worker"));
		term_table_cell(t, "%s", json_text(attempt, "error_message"));
	}
	putchar('\n');
	return term_table_print(t, stdout, &e) < 0 ? cli_fail("queue show", &e) : EXIT_DONE;
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
		return cli_usage_error("queue show", "'%s' is not a message id", a.rest[0]);
	uuid_format(&id, text);
	snprintf(path, sizeof(path), "/admin/queue/messages/%s", text);
	if (admin_once(&settings, "GET", path, NULL, &answer, &e) < 0)
		return cli_fail("queue show", &e);
	if (!json)
		return print_entry(answer);
	print_json(answer);
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
		{"reason", ARG_TEXT, &reason, "TEXT", "kept, and shown in health and to refused clients"},
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
	if (!body)
		err_set(&e, ERR_REJECT, "the reason must be valid UTF-8");
	if (!body || admin_once(&settings, "POST", path, body, &answer, &e) < 0)
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
