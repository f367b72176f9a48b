/* audit.c - sealpost audit: who did what, whether the trail is whole, and its head to keep elsewhere. */
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/term.h"

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 1000000, HEAD_BYTES = 4096 };

/* --- audit list --- */

static void fill_detail(struct term_table *t, const json_t *row)
{
	AUTO(free_auto)
	char *text = json_dumps(json_object_get(row, "detail"), JSON_COMPACT | JSON_PRESERVE_ORDER);
	term_table_cell(t, "%s", text ? text : "");
}

static const struct answer_column row_columns[] = {
	{"ROW", "sequence", ANSWER_NUMBER},
	{"AT", "at"},
	{"WHO", "actor"},
	{"FROM", "origin"},
	{"WHAT", "action"},
	{"TARGET", "target"},
	{"RESULT", "result"},
	{"DETAIL", NULL, .fill = fill_detail},
	{0},
};

static int cmd_list(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *actor = NULL, *action = NULL, *target = NULL, *since = NULL, *until = NULL;
	int64_t limit = LIMIT_DEFAULT;
	bool json = false;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"limit", ARG_INT, &limit, "N", "at most N; default 50", 1, LIMIT_MAX},
		{"actor", ARG_TEXT, &actor, "WHO", "only what this one did"},
		{"action", ARG_TEXT, &action, "WHAT", "only this, such as certificate.revoke"},
		{"target", ARG_TEXT, &target, "T", "only what was done to this one"},
		{"since", ARG_TEXT, &since, "TIME", "at or after, RFC 3339"},
		{"until", ARG_TEXT, &until, "TIME", "before, RFC 3339"},
		{"json", ARG_FLAG, &json, NULL, "as one JSON array"},
		{0},
	};
	struct args a = {.command = "audit list",
		.usage =
			"[--limit N] [--actor WHO] [--action WHAT] [--target T] [--since T] [--until T] [--json]",
		.summary = "Lists who did what, from where and with what result, newest first.",
		.example = "  sealpost audit list --action certificate.revoke --since 2026-01-01T00:00:00Z",
		.options = options};
	int code;
	struct wall time;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if ((since && !wall_parse(str_of(since), &time)) || (until && !wall_parse(str_of(until), &time)))
		return cli_usage_error(
			a.command, "--since and --until take a time such as 2026-01-31T12:00:00Z");
	struct err e = ERR_INIT;
	AUTO(free_auto)
	char *path = admin_path("/admin/audit?order=newest", "actor", actor, "action", action, "target",
		target, "since", since, "until", until, (char *)NULL);
	AUTO(json_auto) json_t *rows = NULL;
	if (admin_rows_once(&settings, path, "rows", limit, &rows, &e) < 0)
		return cli_fail(a.command, &e);
	return admin_show_rows(a.command, rows, json, row_columns);
}

/* --- audit export --- */

/* Page by page: there is no end to how long a trail grows. */
static int write_trail(struct admin *admin, struct err *e)
{
	AUTO(json_auto) json_t *rows = json_array();
	char cursor[ADMIN_CURSOR_BYTES] = "";
	if (!rows)
		return err_oom(e);
	do {
		size_t i;
		const json_t *row;
		json_array_clear(rows);
		if (admin_page(admin, "/admin/audit", "rows", ADMIN_ALL, cursor, rows, e) < 0)
			return -1;
		json_array_foreach(rows, i, row)
		{
			json_dumpf(row, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
			putchar('\n');
		}
	} while (*cursor && !ferror(stdout));
	return 0;
}

static int export_trail(struct settings *settings, struct err *e)
{
	struct admin *admin = NULL;
	int rc = admin_open(settings, &admin, e);
	if (rc >= 0)
		rc = write_trail(admin, e);
	admin_close(admin);
	settings_clear(settings);
	return rc;
}

static int export_head(struct settings *settings, struct err *e)
{
	AUTO(json_auto) json_t *head = NULL;
	if (admin_once(settings, "GET", "/admin/audit/head", NULL, &head, e) < 0)
		return -1;
	print_json(head);
	return 0;
}

static int cmd_export(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	bool head = false;
	const struct arg options[] = {ADMIN_OPTIONS(settings),
		{"head", ARG_FLAG, &head, NULL,
			"only sequence and hash of the newest row, for 'audit verify --head'"},
		{0}};
	struct args a = {.command = "audit export",
		.usage = "[--head]",
		.summary =
			"Writes the whole trail, oldest first, one JSON object a line; or its head. Keep the head where\n"
			"nobody who can write the store can reach it: it shows later that nothing was rewritten.",
		.example = "  sealpost audit export --head > /mnt/elsewhere/audit-head.json",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	int rc = (head ? export_head : export_trail)(&settings, &e);
	return rc < 0 ? cli_fail(a.command, &e) : EXIT_DONE;
}

/* --- audit verify --- */

/* The route, with the head of that file where one is given. */
static int verify_path(const char *file, char **ret, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	AUTO(json_auto) json_t *head = NULL;
	char sequence[24] = "";
	buf_init(&text, HEAD_BYTES);
	if (file && file_read(file, HEAD_BYTES, &text, e) < 0)
		return -1;
	if (file && (json_read(buf_str(&text), &head, e) < 0 || json_number(head, "sequence") < 1 ||
			    !*json_text(head, "hash")))
		return err_set(e, ERR_REJECT, "'%s' is not what 'audit export --head' writes", file);
	if (file)
		snprintf(sequence, sizeof(sequence), "%lld", (long long)json_number(head, "sequence"));
	*ret = admin_path(
		"/admin/audit/verify", "sequence", sequence, "hash", json_text(head, "hash"), (char *)NULL);
	return *ret ? 0 : err_oom(e);
}

static void print_verdict(const json_t *verdict, bool with_head)
{
	static const struct {
		const char *fault, *text;
	} faults[] = {{"missing", "is missing"},
		{"changed", "does not fit the one before: it was changed or moved"},
		{"rewritten", "fits its neighbours but not the head: the trail was rewritten"}};
	const char *fault = json_text(verdict, "fault");
	if (!*fault)
		printf("intact: %lld row(s)%s\n", (long long)json_number(verdict, "checked"),
			with_head ? ", and the head fits" : "");
	for (size_t i = 0; i < ARRAY_LEN(faults); i++)
		if (strcmp(faults[i].fault, fault) == 0)
			printf("broken: row %lld %s\n", (long long)json_number(verdict, "sequence"),
				faults[i].text);
}

static int cmd_verify(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *head = NULL;
	bool json = false;
	const struct arg options[] = {ADMIN_OPTIONS(settings),
		{"head", ARG_TEXT, &head, "FILE", "also hold this exported head against the trail"},
		{"json", ARG_FLAG, &json, NULL, "as JSON"}, {0}};
	struct args a = {.command = "audit verify",
		.usage = "[--head FILE] [--json]",
		.summary =
			"Follows the chain of hashes and names the first row that is missing, was changed or moved.\n"
			"Exit code 0: intact, 1: broken.",
		.example = "  sealpost audit verify --head /mnt/elsewhere/audit-head.json",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	struct err e = ERR_INIT;
	AUTO(free_auto) char *path = NULL;
	AUTO(json_auto) json_t *verdict = NULL;
	if (verify_path(head, &path, &e) < 0 || admin_once(&settings, "GET", path, NULL, &verdict, &e) < 0)
		return cli_fail(a.command, &e);
	if (json)
		print_json(verdict);
	else
		print_verdict(verdict, head != NULL);
	return json_is_true(json_object_get(verdict, "intact")) ? EXIT_DONE : EXIT_FAILED;
}

int cmd_audit(int argc, char **argv)
{
	static const struct command table[] = {
		{"list", NULL, "who did what, newest first", cmd_list},
		{"verify", NULL, "whether the trail is whole", cmd_verify},
		{"export", NULL, "write the trail, or its head", cmd_export},
		{0},
	};
	return cli_dispatch("audit", table, argc, argv);
}
