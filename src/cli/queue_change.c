/* queue_change.c - sealpost queue redrive, purge: dead letters put back or deleted.
 *
 * First they are counted, by a dry run. On a terminal the answer to "shall I?" is awaited when they are more
 * than one. Then they are changed in bounded transactions, no more than were counted: what becomes a dead
 * letter meanwhile, because it fails again at once for instance, is not touched. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/queue.h"
#include "cli/term.h"
#include "message/uuid.h"

enum { PART_MAX = 10000, RATE_MAX = 1000000, NOT_CONFIRMED = 1 };

int queue_choice_settle(struct queue_choice *c, struct err *e)
{
	int64_t age_ms[CONFIG_DURATIONS_MAX];
	struct wall before;
	if (c->before && !wall_parse(str_of(c->before), &before))
		return err_set(e, ERR_REJECT, "--before: '%s' is not a time such as 2026-01-31T12:00:00Z",
			c->before);
	if (!c->older_than)
		return 0;
	if (c->before)
		return err_set(e, ERR_REJECT, "--before and --older-than say the same; give one");
	if (config_durations(c->older_than, age_ms) != 1 || strchr(c->older_than, ','))
		return err_set(e, ERR_REJECT, "--older-than: '%s' is not a duration such as 90m or 7d",
			c->older_than);
	_Static_assert(sizeof(c->before_text) >= RFC3339_BYTES, "holds a time");
	wall_format((struct wall){clock_wall(&clock_system).ms - age_ms[0]}, c->before_text);
	c->before = c->before_text;
	return 0;
}

struct change {
	const char *command, *path, *verb, *done; /* "queue purge", route, "purge", "purged" */
	struct settings settings;
	struct queue_choice choice;
	bool all, dry_run, yes, json;
	int64_t rate; /* messages a second; 0: as fast as it goes */
};

/* NULL when not every filter could be taken (invalid UTF-8, no memory): without one, more would be changed.
 */
static json_t *selection_body(const struct change *c, const struct args *a)
{
	const struct {
		const char *key, *value;
	} filters[] = {{"client", c->choice.client}, {"domain", c->choice.domain},
		{"reason_has", c->choice.error}, {"accepted_before", c->choice.before}};
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
	if (whole && c->all)
		whole = json_object_set_new(body, "all", json_true()) == 0;
	return whole ? TAKE(body) : NULL;
}

static int count_them(
	struct admin *admin, const struct change *c, json_t *body, int64_t *ret_count, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	if (json_object_set_new(body, "dry_run", json_true()) < 0)
		return err_oom(e);
	if (admin_call(admin, "POST", c->path, body, &answer, e) < 0)
		return -1;
	json_object_del(body, "dry_run");
	*ret_count = json_number(answer, "matched");
	return 0;
}

/* Only people are asked: a script has said what it wants. */
static bool confirmed(const struct change *c, int64_t count)
{
	char answer[16];
	if (c->yes || count <= 1 || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return true;
	fprintf(stderr, "%s %lld dead letters? [y/N] ", c->verb, (long long)count);
	return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/* Waits until `done` messages may have been changed at the rate. */
static void keep_rate(const struct change *c, struct mono start, int64_t done)
{
	if (!c->rate)
		return;
	struct mono due = mono_add_ms(start, done * 1000 / c->rate);
	struct timespec until = {due.ns / 1000000000, due.ns % 1000000000};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

/* Each request is one bounded transaction. */
static int change_them(struct admin *admin, const struct change *c, json_t *body, int64_t count,
	int64_t *ret_done, struct err *e)
{
	struct mono start = clock_mono(&clock_system);
	bool more = count > 0;
	*ret_done = 0;
	while (more) {
		AUTO(json_auto) json_t *answer = NULL;
		int64_t part = count - *ret_done < PART_MAX ? count - *ret_done : PART_MAX;
		if (c->rate && part > c->rate)
			part = c->rate;
		if (json_object_set_new(body, "max", json_integer(part)) < 0)
			return err_oom(e);
		if (admin_call(admin, "POST", c->path, body, &answer, e) < 0)
			return -1;
		*ret_done += json_number(answer, "matched");
		more = *ret_done < count && json_is_true(json_object_get(answer, "more"));
		term_progress("%lld of %lld messages %s", (long long)*ret_done, (long long)count, c->done);
		if (more)
			keep_rate(c, start, *ret_done);
	}
	return 0;
}

static int count_and_change(struct change *c, const struct args *a, int64_t *ret_done, struct err *e)
{
	struct admin *admin = NULL;
	AUTO(json_auto) json_t *body = selection_body(c, a);
	int64_t count = 0;
	int rc = body ? admin_open(&c->settings, &admin, e)
		      : err_set(e, ERR_REJECT, "ids and filters must be valid UTF-8");
	if (rc >= 0)
		rc = count_them(admin, c, body, &count, e);
	if (rc >= 0 && a->rest_count && !count)
		rc = err_set(e, ERR_NOT_FOUND, "no dead letter has %s",
			a->rest_count == 1 ? "this id" : "one of these ids");
	if (rc >= 0 && c->dry_run)
		*ret_done = count;
	else if (rc >= 0 && !confirmed(c, count))
		rc = NOT_CONFIRMED;
	else if (rc >= 0)
		rc = change_them(admin, c, body, count, ret_done, e);
	term_progress_clear();
	admin_close(admin);
	settings_clear(&c->settings);
	return rc;
}

static int run_change(struct change *c, const struct args *a)
{
	struct err e = ERR_INIT;
	int64_t done = 0;
	int rc = count_and_change(c, a, &done, &e);
	if (rc < 0) {
		if (done)
			term_error(
				c->command, "%lld messages were %s before this:", (long long)done, c->done);
		return cli_fail(c->command, &e);
	}
	if (rc == NOT_CONFIRMED) {
		term_error(c->command, "nothing was %s", c->done);
		return EXIT_FAILED;
	}
	if (c->json)
		printf("{\"matched\":%lld,\"dry_run\":%s}\n", (long long)done, c->dry_run ? "true" : "false");
	else
		printf("%lld messages %s%s\n", (long long)done, c->dry_run ? "would be " : "", c->done);
	return EXIT_DONE;
}

/* Ids, or filters, or all of them: together they could mean more than was meant. */
static int check_choice(const struct change *c, const struct args *a, struct err *e)
{
	const struct queue_choice *choice = &c->choice;
	bool filtered = choice->client || choice->domain || choice->error || choice->before;
	struct uuid id;
	if ((a->rest_count > 0) + filtered + c->all != 1)
		return err_set(e, ERR_REJECT, "which dead letters? Give ids, or filters, or --all");
	for (unsigned i = 0; i < a->rest_count; i++)
		if (!uuid_parse(str_of(a->rest[i]), &id))
			return err_set(e, ERR_REJECT, "'%s' is not a message id", a->rest[i]);
	return 0;
}

static int cmd_change(int argc, char **argv, struct change *c, const char *summary, const char *example)
{
	const struct arg options[] = {
		ADMIN_OPTIONS(c->settings),
		QUEUE_CHOICE_OPTIONS(c->choice),
		{"all", ARG_FLAG, &c->all, NULL, "every dead letter"},
		{"dry-run", ARG_FLAG, &c->dry_run, NULL, "only count"},
		{"yes", ARG_FLAG, &c->yes, NULL, "do not ask, on a terminal"},
		{"rate", ARG_INT, &c->rate, "N", "at most N messages a second", 1, RATE_MAX},
		{"json", ARG_FLAG, &c->json, NULL, "as JSON"},
		{0},
	};
	struct args a = {.command = c->command,
		.usage =
			"ID… | --client NAME | --domain D | --error TEXT | --before TIME | --older-than DURATION | --all\n"
			"                             [--dry-run] [--yes] [--rate N] [--json]",
		.summary = summary,
		.example = example,
		.options = options,
		.rest_max = ARG_REST_MAX};
	int code;
	struct err e = ERR_INIT;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (queue_choice_settle(&c->choice, &e) < 0 || check_choice(c, &a, &e) < 0)
		return cli_usage_error(c->command, "%s", e.text);
	return run_change(c, &a);
}

int cmd_queue_redrive(int argc, char **argv)
{
	struct change c = {.command = "queue redrive",
		.path = "/admin/queue/redrive",
		.verb = "redrive",
		.done = "redriven"};
	return cmd_change(argc, argv, &c,
		"Puts dead letters back into the queue; their attempts start again from zero.",
		"  sealpost queue redrive --domain example.com --dry-run\n"
		"  sealpost queue redrive --error not_stored --rate 100");
}

int cmd_queue_purge(int argc, char **argv)
{
	struct change c = {
		.command = "queue purge", .path = "/admin/queue/purge", .verb = "purge", .done = "purged"};
	return cmd_change(argc, argv, &c, "Deletes dead letters for good.",
		"  sealpost queue purge --older-than 90d --dry-run\n  sealpost queue purge --older-than 90d --yes");
}
