/* messages_follow.c - sealpost messages follow: what arrives at the main server, and what becomes of it.
 *
 * Once a second the newest messages are asked for, newest first, back to one that was there before; what is new
 * and what has another status than before is shown, oldest first. The last answers are kept to compare with
 * (struct view.known), never less than a page of them: a change to a message that so many newer ones have
 * followed since is not seen. The daemon may be restarted meanwhile. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/messages.h"
#include "cli/term.h"
#include "message/state.h"

enum { PAGE = 500, SHOWN_FIRST = 10, INTERVAL_S = 1, TIMEOUT_S = 10 };

static const char command[] = "messages follow";

struct view {
	struct admin *admin;
	const char *path;   /* with the filters that the server applies */
	const char *status; /* NULL: any; applied here, because it changes */
	bool json;
	json_t *known; /* id → status */
	bool away;     /* the daemon did not answer last time */
};

static void show_line(const json_t *m)
{
	const char *error = json_text(m, "error_message");
	printf("%s  %s  %-10s  %s  %s", json_text(m, "queued_at"), json_text(m, "message_id"),
		json_text(m, "status"), json_text(m, "client_id"), json_text(m, "domain"));
	int64_t attempts = json_number(m, "attempt_count");
	if (attempts > 1 || *error)
		printf("  attempt %lld", (long long)attempts);
	if (*error) {
		fputs(": ", stdout);
		term_put_untrusted(stdout, str_of(error));
	}
	putchar('\n');
}

static void show(const struct view *v, const json_t *m)
{
	if (v->status && strcmp(json_text(m, "status"), v->status) != 0)
		return;
	if (v->json) {
		json_dumpf(m, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
		putchar('\n');
	} else {
		show_line(m);
	}
}

static const char *known_status(const struct view *v, const json_t *m)
{
	return json_string_value(json_object_get(v->known, json_text(m, "message_id")));
}

/* How many of them, from the newest, nobody has seen yet. What follows a known one is older. */
static size_t count_new(const struct view *v, const json_t *messages)
{
	size_t i;
	const json_t *m;
	json_array_foreach(messages, i, m)
	{
		if (known_status(v, m))
			return i;
	}
	return json_array_size(messages);
}

/* Newest first, at least back to one that is known. The first time a page is enough. */
static int fetch(struct view *v, json_t *messages, struct err *e)
{
	char cursor[ADMIN_CURSOR_BYTES] = "";
	bool met = json_object_size(v->known) == 0;
	do {
		if (admin_page(v->admin, v->path, "messages", PAGE, cursor, messages, e) < 0)
			return -1;
		met = met || count_new(v, messages) < json_array_size(messages);
	} while (!met && *cursor);
	return 0;
}

static int remember(struct view *v, const json_t *messages, struct err *e)
{
	AUTO(json_auto) json_t *known = json_object();
	size_t i;
	json_t *m;
	if (!known)
		return err_oom(e);
	json_array_foreach(messages, i, m)
	{
		if (json_object_set(known, json_text(m, "message_id"), json_object_get(m, "status")) < 0)
			return err_oom(e);
	}
	json_decref(v->known);
	v->known = TAKE(known);
	return 0;
}

/* `first`: nothing is known yet, and of what is there only the newest few are shown. */
static void show_changes(const struct view *v, const json_t *messages, bool first, int64_t limit)
{
	size_t fresh = count_new(v, messages);
	for (size_t i = json_array_size(messages); i-- > 0;) {
		const json_t *m = json_array_get(messages, i);
		const char *before = known_status(v, m);
		bool changed = before && strcmp(before, json_text(m, "status")) != 0;
		if (first ? (int64_t)i < limit : changed || i < fresh)
			show(v, m);
	}
	fflush(stdout);
}

static int look(struct view *v, bool first, int64_t limit, struct err *e)
{
	AUTO(json_auto) json_t *messages = json_array();
	if (!messages)
		return err_oom(e);
	if (fetch(v, messages, e) < 0)
		return -1;
	show_changes(v, messages, first, limit);
	return remember(v, messages, e);
}

/* Until interrupted, or what is asked for cannot be answered at all. Said once when the daemon goes. */
static int follow(struct view *v, int64_t limit, struct err *e)
{
	bool first = true;
	while (!ferror(stdout)) {
		const struct timespec interval = {.tv_sec = INTERVAL_S};
		int rc = look(v, first, limit, e);
		if (rc < 0 && (first || e->kind != ERR_RETRY))
			return -1;
		if (rc < 0 && !v->away)
			term_error(command, "%s; waiting for it", e->text);
		v->away = rc < 0;
		first = false;
		nanosleep(&interval, NULL);
	}
	return 0;
}

static int run(struct settings *settings, struct view *v, int64_t limit)
{
	struct err e = ERR_INIT;
	int rc = v->path && v->known ? admin_open(settings, &v->admin, &e) : err_oom(&e);
	if (rc >= 0 && !admin_has_daemon(v->admin))
		rc = err_set(&e, ERR_RETRY,
			"no daemon runs here, so that nothing arrives; see: sealpost messages list");
	if (rc >= 0) {
		admin_set_timeout(v->admin, TIMEOUT_S);
		rc = follow(v, limit, &e);
	}
	admin_close(v->admin);
	settings_clear(settings);
	json_decref(v->known);
	return rc < 0 ? cli_fail(command, &e) : EXIT_DONE;
}

int cmd_messages_follow(int argc, char **argv)
{
	struct settings settings = {.data = NULL};
	const char *client = NULL, *domain = NULL, *sender = NULL;
	struct view v = {.status = NULL};
	int64_t limit = SHOWN_FIRST;
	const struct arg options[] = {
		ADMIN_OPTIONS(settings),
		{"limit", ARG_INT, &limit, "N", "begin with the newest N; default 10", 0, PAGE},
		{"status", ARG_TEXT, &v.status, "S",
			"only what becomes queued, processing, delivered or failed"},
		{"client", ARG_TEXT, &client, "NAME", "only this client's"},
		{"domain", ARG_TEXT, &domain, "D", "only this domain's"},
		{"sender", ARG_TEXT, &sender, "NUMBER", "only from this phone number"},
		{"json", ARG_FLAG, &v.json, NULL, "one JSON object a line"},
		{0},
	};
	struct args a = {.command = command,
		.usage = "[--limit N] [--status S] [--client NAME] [--domain D] [--sender NUMBER] [--json]",
		.summary =
			"Shows messages as they reach the main server and when their status changes, without their\n"
			"text, until interrupted.",
		.example = "  sealpost messages follow --status failed",
		.options = options};
	int code;
	enum message_state state;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (v.status && !message_state_parse(str_of(v.status), &state))
		return cli_usage_error(command, "--status takes queued, processing, delivered or failed");
	AUTO(free_auto)
	char *path = admin_path(
		"/admin/messages", "client", client, "domain", domain, "sender", sender, (char *)NULL);
	v.path = path;
	v.known = json_object();
	return run(&settings, &v, limit);
}
