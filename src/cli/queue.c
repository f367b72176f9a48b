/* queue.c - sealpost queue: what waits, what failed, and the two switches. */
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/term.h"
#include "message/state.h"

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

static int list(const char *command, struct settings *settings, const char *status, int64_t limit, bool json)
{
	char text[32];
	snprintf(text, sizeof(text), "%lld", (long long)limit);
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	AUTO(free_auto)
	char *path = admin_path("/admin/queue/messages", "limit", text, "status", status, (char *)NULL);
	if (!path)
		err_oom(&e);
	if (!path || admin_once(settings, "GET", path, NULL, &answer, &e) < 0)
		return cli_fail(command, &e);
	if (json)
		print_json(json_object_get(answer, "messages"));
	else
		print_entries(json_object_get(answer, "messages"));
	return EXIT_DONE;
}

static int cmd_list(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	int64_t limit = LIMIT_DEFAULT;
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"limit", ARG_INT, &limit, "N", "at most N; default 50", 1, LIMIT_MAX},
		{"json", ARG_FLAG, &json, NULL, "as one JSON array"},
		{0},
	};
	struct args a = {.command = "queue list",
		.usage = "[queued|processing|failed] [--limit N] [--json]",
		.summary = "Lists the messages in the queue, oldest first, without their text.",
		.example = "  sealpost queue list failed",
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
	return list("queue list", &settings, status, limit, json);
}

static int cmd_dead(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	int64_t limit = LIMIT_DEFAULT;
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"limit", ARG_INT, &limit, "N", "at most N; default 50", 1, LIMIT_MAX},
		{"json", ARG_FLAG, &json, NULL, "as one JSON array"},
		{0},
	};
	struct args a = {.command = "queue dead",
		.usage = "[--limit N] [--json]",
		.summary =
			"Lists dead letters: messages that were rejected or given up, kept until redriven or purged.",
		.example = "  sealpost queue dead",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	return list("queue dead", &settings, "failed", limit, json);
}

/* --- queue redrive, queue purge --- */

struct selection {
	struct settings settings;
	const char *client, *domain, *error, *before;
	bool all, dry_run, json;
};

/* NULL when not every filter could be taken (invalid UTF-8, no memory): without one, more would be changed.
 */
static json_t *selection_body(const struct selection *s, const struct args *a)
{
	const struct {
		const char *key, *value;
	} filters[] = {{"client", s->client}, {"domain", s->domain}, {"reason_has", s->error},
		{"accepted_before", s->before}};
	AUTO(json_auto) json_t *body = json_object();
	AUTO(json_auto) json_t *ids = json_array();
	bool whole = body && ids;
	for (size_t i = 0; whole && i < ARRAY_LEN(filters); i++)
		if (filters[i].value)
			whole = json_object_set_new(body, filters[i].key, json_string(filters[i].value)) == 0;
	for (unsigned i = 0; whole && i < a->rest_count; i++)
		whole = json_array_append_new(ids, json_string(a->rest[i])) == 0;
	if (whole && a->rest_count)
		whole = json_object_set(body, "ids", ids) == 0;
	if (whole && s->all)
		whole = json_object_set_new(body, "all", json_true()) == 0;
	if (whole && s->dry_run)
		whole = json_object_set_new(body, "dry_run", json_true()) == 0;
	return whole ? TAKE(body) : NULL;
}

/* Repeats the request while the server says that more match: each call is one bounded transaction. */
static int change_dead(
	const char *command, const char *path, const char *done, struct selection *s, const struct args *a)
{
	struct err e = ERR_INIT;
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *body = selection_body(s, a);
	int64_t matched = 0;
	bool more = true;
	int rc = body ? admin_open(&s->settings, &admin, &e)
		      : err_set(&e, ERR_REJECT, "ids and filters must be valid UTF-8");
	while (rc >= 0 && more) {
		AUTO(json_auto) json_t *answer = NULL;
		rc = admin_call(admin, "POST", path, body, &answer, &e);
		if (rc < 0)
			break;
		matched += json_number(answer, "matched");
		more = !s->dry_run && json_is_true(json_object_get(answer, "more"));
		term_progress("%lld messages %s", (long long)matched, done);
	}
	term_progress_clear();
	admin_close(admin);
	settings_clear(&s->settings);
	if (rc < 0)
		return cli_fail(command, &e);
	if (s->json)
		printf("{\"matched\":%lld,\"dry_run\":%s}\n", (long long)matched,
			s->dry_run ? "true" : "false");
	else if (s->dry_run)
		printf("%lld messages would be %s\n", (long long)matched, done);
	else
		printf("%lld messages %s\n", (long long)matched, done);
	return EXIT_DONE;
}

static int cmd_change(int argc, char **argv, const char *command, const char *path, const char *done,
	const char *summary, const char *example)
{
	struct selection s = {.all = false};
	const struct arg options[] = {
		ADMIN_OPTIONS(s.settings),
		{"client", ARG_TEXT, &s.client, "NAME", "only this client's"},
		{"domain", ARG_TEXT, &s.domain, "D", "only this domain's"},
		{"error", ARG_TEXT, &s.error, "TEXT", "only those whose last error has this text"},
		{"before", ARG_TEXT, &s.before, "TIME", "only those accepted before, RFC 3339"},
		{"all", ARG_FLAG, &s.all, NULL, "every dead letter"},
		{"dry-run", ARG_FLAG, &s.dry_run, NULL, "only count"},
		{"json", ARG_FLAG, &s.json, NULL, "as JSON"},
		{0},
	};
	struct args a = {.command = command,
		.usage =
			"ID… | --client NAME | --domain D | --error TEXT | --before TIME | --all [--dry-run]",
		.summary = summary,
		.example = example,
		.options = options,
		.rest_max = ARG_REST_MAX};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (!a.rest_count && !s.client && !s.domain && !s.error && !s.before && !s.all)
		return cli_usage_error(command, "which dead letters? Give ids, a filter or --all");
	return change_dead(command, path, done, &s, &a);
}

static int cmd_redrive(int argc, char **argv)
{
	return cmd_change(argc, argv, "queue redrive", "/admin/queue/redrive", "redriven",
		"Puts dead letters back into the queue; their attempts start again from zero.",
		"  sealpost queue redrive --domain example.com --dry-run");
}

static int cmd_purge(int argc, char **argv)
{
	return cmd_change(argc, argv, "queue purge", "/admin/queue/purge", "purged",
		"Deletes dead letters for good.",
		"  sealpost queue purge --before 2026-01-01T00:00:00Z --dry-run");
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
		{"redrive", NULL, "put dead letters back", cmd_redrive},
		{"purge", NULL, "delete dead letters", cmd_purge},
		{"pause", NULL, "pause accepting or delivery", cmd_pause},
		{"resume", NULL, "end a pause", cmd_resume},
		{0},
	};
	return cli_dispatch("queue", table, argc, argv);
}
