/* audit.c - sealpost audit: who did what, whether the trail is whole, and its head to keep elsewhere. */
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/term.h"

enum { LIMIT_DEFAULT = 50, LIMIT_MAX = 1000000, HEAD_BYTES = 4096 };

/* --- reading pages --- */

/* Hands the rows of every page to `each`, which says whether it wants more. */
static int each_page(struct admin *admin, const char *path, bool (*each)(void *arg, json_t *rows), void *arg,
	struct err *e)
{
	char cursor[64] = "";
	bool more = true;
	do {
		AUTO(free_auto) char *page_path = admin_path(path, "cursor", cursor, (char *)NULL);
		AUTO(json_auto) json_t *answer = NULL;
		if (!page_path)
			return err_oom(e);
		if (admin_call(admin, "GET", page_path, NULL, &answer, e) < 0)
			return -1;
		more = each(arg, json_object_get(answer, "rows"));
		snprintf(cursor, sizeof(cursor), "%s", json_text(answer, "next_cursor"));
	} while (more && *cursor);
	return 0;
}

/* The same with a connection of its own; takes `path` over, which may be NULL. */
static int each_row(struct settings *settings, char *path, bool (*each)(void *arg, json_t *rows), void *arg,
	struct err *e)
{
	AUTO(free_auto) char *own = path;
	struct admin *admin = NULL;
	int rc = own ? admin_open(settings, &admin, e) : err_oom(e);
	if (rc >= 0)
		rc = each_page(admin, own, each, arg, e);
	admin_close(admin);
	settings_clear(settings);
	return rc;
}

/* --- audit list --- */

struct listing {
	json_t *rows;
	size_t limit;
};

static bool add_rows(void *arg, json_t *rows)
{
	struct listing *l = arg;
	size_t i;
	json_t *row;
	json_array_foreach(rows, i, row)
	{
		if (json_array_size(l->rows) < l->limit)
			json_array_append(l->rows, row);
	}
	return json_array_size(l->rows) < l->limit;
}

static void print_detail(struct term_table *t, const json_t *row)
{
	AUTO(free_auto)
	char *text = json_dumps(json_object_get(row, "detail"), JSON_COMPACT | JSON_PRESERVE_ORDER);
	term_table_cell(t, "%s", text ? text : "");
}

static void print_rows(const json_t *rows)
{
	static const char *const members[] = {"at", "actor", "origin", "action", "target", "result"};
	static const struct term_column columns[] = {{"ROW", true}, {"AT", false}, {"WHO", false},
		{"FROM", false}, {"WHAT", false}, {"TARGET", false}, {"RESULT", false}, {"DETAIL", false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	struct err e = ERR_INIT;
	size_t i;
	const json_t *row;
	if (!t)
		return;
	json_array_foreach(rows, i, row)
	{
		term_table_cell(t, "%lld", (long long)json_number(row, "sequence"));
		for (size_t m = 0; m < ARRAY_LEN(members); m++)
			term_table_cell(t, "%s", json_text(row, members[m]));
		print_detail(t, row);
	}
	if (term_table_print(t, stdout, &e) < 0)
		term_error("audit list", "%s", e.text);
}

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
			"audit list", "--since and --until take a time such as 2026-01-31T12:00:00Z");
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *rows = json_array();
	struct listing listing = {rows, (size_t)limit};
	char *path = admin_path("/admin/audit?order=newest&limit=500", "actor", actor, "action", action,
		"target", target, "since", since, "until", until, (char *)NULL);
	if (each_row(&settings, path, add_rows, &listing, &e) < 0)
		return cli_fail("audit list", &e);
	if (json)
		print_json(rows);
	else
		print_rows(rows);
	return EXIT_DONE;
}

/* --- audit export --- */

static bool write_rows(void *arg, json_t *rows)
{
	size_t i;
	const json_t *row;
	(void)arg;
	json_array_foreach(rows, i, row)
	{
		json_dumpf(row, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		putchar('\n');
	}
	return !ferror(stdout);
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
	int rc = head ? export_head(&settings, &e)
		      : each_row(&settings, admin_path("/admin/audit?limit=500", (char *)NULL), write_rows,
				NULL, &e);
	return rc < 0 ? cli_fail("audit export", &e) : EXIT_DONE;
}

/* --- audit verify --- */

/* The route with the head of that file. NULL: see *e. */
static char *path_with_head(const char *file, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	AUTO(json_auto) json_t *head = NULL;
	char sequence[24];
	buf_init(&text, HEAD_BYTES);
	if (file_read(file, HEAD_BYTES, &text, e) < 0)
		return NULL;
	if (json_read(buf_str(&text), &head, e) < 0 || json_number(head, "sequence") < 1 ||
		!*json_text(head, "hash")) {
		err_set(e, ERR_REJECT, "'%s' is not what 'audit export --head' writes", file);
		return NULL;
	}
	snprintf(sequence, sizeof(sequence), "%lld", (long long)json_number(head, "sequence"));
	char *path = admin_path(
		"/admin/audit/verify", "sequence", sequence, "hash", json_text(head, "hash"), (char *)NULL);
	if (!path)
		err_oom(e);
	return path;
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
	AUTO(free_auto)
	char *path = head ? path_with_head(head, &e) : admin_path("/admin/audit/verify", (char *)NULL);
	AUTO(json_auto) json_t *verdict = NULL;
	if (!path && e.kind == ERR_NONE)
		err_oom(&e);
	if (!path || admin_once(&settings, "GET", path, NULL, &verdict, &e) < 0)
		return cli_fail("audit verify", &e);
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
