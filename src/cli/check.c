/* check.c - sealpost check: see check.h. One table of checks; each measures, the rest is common.
 *
 * Numbers come from the running daemon's admin socket, or from the data directory when none runs; certificates
 * and disk space are looked at directly, so that these two also work for a proxy or a worker. */
#include "cli/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/admin.h"
#include "cli/own_certs.h"
#include "tls/openssl.h"

enum {
	TIMEOUT_S = 8, /* monitors give up after ten */
	SECOND_MS = 1000,
	MINUTE_MS = 60 * SECOND_MS,
	HOUR_MS = 60 * MINUTE_MS,
	DAY_MS = 24 * HOUR_MS,
};

struct run {
	struct settings settings;
	struct settings asking; /* the same, as admin_open wants them */
	struct config *config;
	bool issued; /* cert: also what was given out */
	struct check_report report;
};

struct check {
	const char *name, *summary, *example;
	enum check_unit unit;
	bool falling;
	int64_t warning, critical; /* defaults; -1: measured beside the value */
	int (*measure)(struct run *run, struct err *e);
};

/* --- what is found --- */

static void add_reading(struct run *run, const char *name, enum check_unit unit, int64_t value)
{
	require(run->report.count < CHECK_READINGS_MAX);
	run->report.readings[run->report.count++] = (struct check_reading){name, unit, value};
}

static void say(struct run *run, const char *fmt, ...) PRINTF(2, 3);
static void say(struct run *run, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(run->report.text, sizeof(run->report.text), fmt, ap);
	va_end(ap);
}

/* Adds to the sentence; the state is at least this one, whatever the numbers say. */
static void complain(struct run *run, enum check_state state, const char *what, const char *why)
{
	size_t n = strlen(run->report.text);
	snprintf(run->report.text + n, sizeof(run->report.text) - n, "; %s%s%s", what, *why ? ": " : "", why);
	if (state > run->report.state)
		run->report.state = state;
}

/* "3 days", "5 hours": for people; the exact figure is beside it. */
static const char *rough(int64_t ms, char out[40])
{
	static const struct {
		int64_t ms;
		const char *name;
	} units[] = {{DAY_MS, "days"}, {HOUR_MS, "hours"}, {MINUTE_MS, "minutes"}, {SECOND_MS, "seconds"}};
	size_t i = 0;
	while (i < ARRAY_LEN(units) - 1 && ms < 2 * units[i].ms)
		i++;
	snprintf(out, 40, "%lld %s", (long long)(ms / units[i].ms), units[i].name);
	return out;
}

/* --- queue, age, dead --- */

static int open_admin(struct run *run, struct admin **ret, struct err *e)
{
	run->asking = (struct settings){.data = run->settings.data, .file = run->settings.file};
	if (admin_open(&run->asking, ret, e) < 0)
		return -1;
	admin_set_timeout(*ret, TIMEOUT_S);
	return 0;
}

static int ask(struct run *run, const char *path, json_t **ret, struct err *e)
{
	struct admin *admin = NULL;
	if (open_admin(run, &admin, e) < 0)
		return -1;
	int rc = admin_call(admin, "GET", path, NULL, ret, e);
	admin_close(admin);
	return rc;
}

static int ask_queue(struct run *run, json_t **ret, struct err *e)
{
	return ask(run, "/admin/queue/stats", ret, e);
}

/* Somebody wanted it so; a pause that was forgotten looks the same. */
static void mention_pauses(struct run *run, const json_t *stats)
{
	static const struct {
		const char *flag, *reason, *what;
	} pauses[] = {{"accept_paused", "accept_reason", "accepting is paused"},
		{"delivery_paused", "delivery_reason", "delivery is paused"}};
	for (size_t i = 0; i < ARRAY_LEN(pauses); i++)
		if (json_is_true(json_object_get(stats, pauses[i].flag)))
			complain(run, CHECK_WARNING, pauses[i].what, json_text(stats, pauses[i].reason));
}

static int measure_queue(struct run *run, struct err *e)
{
	AUTO(json_auto) json_t *stats = NULL;
	if (ask_queue(run, &stats, e) < 0)
		return -1;
	int64_t queued = json_number(stats, "queued"), processing = json_number(stats, "processing");
	int64_t waiting = queued + processing;
	add_reading(run, "waiting", CHECK_COUNT, waiting);
	add_reading(run, "queued", CHECK_COUNT, queued);
	add_reading(run, "retrying", CHECK_COUNT, json_number(stats, "retrying"));
	add_reading(run, "processing", CHECK_COUNT, processing);
	say(run, "%lld messages wait for delivery", (long long)waiting);
	mention_pauses(run, stats);
	return 0;
}

static int64_t seconds_to_ms(const json_t *object, const char *key)
{
	return (int64_t)(json_number_value(json_object_get(object, key)) * SECOND_MS);
}

static int measure_age(struct run *run, struct err *e)
{
	AUTO(json_auto) json_t *stats = NULL;
	if (ask_queue(run, &stats, e) < 0)
		return -1;
	add_reading(run, "oldest", CHECK_MS, seconds_to_ms(stats, "oldest_age_seconds"));
	add_reading(run, "overdue", CHECK_MS, seconds_to_ms(stats, "oldest_due_seconds"));
	if (json_number(stats, "queued") + json_number(stats, "processing")) {
		char age[40];
		say(run, "the oldest message has waited for %s", rough(run->report.readings[0].value, age));
	} else {
		say(run, "no message waits");
	}
	return 0;
}

static int measure_dead(struct run *run, struct err *e)
{
	AUTO(json_auto) json_t *stats = NULL;
	if (ask_queue(run, &stats, e) < 0)
		return -1;
	int64_t failed = json_number(stats, "failed");
	add_reading(run, "dead", CHECK_COUNT, failed);
	say(run, "%lld dead letters%s", (long long)failed,
		failed ? "; 'sealpost queue dead' lists them with reasons" : "");
	return 0;
}

/* --- cert --- */

/* The certificate that ends first. */
struct first_end {
	struct wall at;
	char name[200];
	unsigned seen;
};

static void consider(struct first_end *first, struct wall not_after, const char *kind, struct str name)
{
	if (!first->seen || not_after.ms < first->at.ms) {
		first->at = not_after;
		snprintf(first->name, sizeof(first->name), "%s %.*s", kind, STR_ARG(name));
	}
	first->seen++;
}

/* Our own chain's leaf; or, of the CA's file, all. */
static int consider_file(struct first_end *first, const char *path, bool all, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *certs = NULL;
	if (x509_read_file(path, &certs, e) < 0)
		return -1;
	for (int i = 0; i < (all ? sk_X509_num(certs) : 1); i++) {
		struct wall not_after;
		if (!wall_of_asn1(X509_get0_notAfter(sk_X509_value(certs, i)), &not_after))
			return err_set(e, ERR_FATAL, "'%s' ends at a time that is none", path);
		consider(first, not_after, all ? "a certificate of" : "the certificate", str_of(path));
	}
	return 0;
}

/* Those of this directory, or the ones that the configuration names. */
static int consider_own(struct run *run, struct first_end *first, struct err *e)
{
	static const char *const names[] = {"server", "proxy", "worker"};
	const struct paths *paths = &run->settings.paths;
	const char *ca = run->config->ca_file ? run->config->ca_file : paths->ca_bundle;
	if (consider_file(first, ca, true, e) < 0)
		return -1;
	if (run->config->cert_file && consider_file(first, run->config->cert_file, false, e) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		AUTO(free_auto) char *path = own_cert_path(paths, names[i], "pem");
		if (!path)
			return err_oom(e);
		if (access(path, F_OK) == 0 && consider_file(first, path, false, e) < 0)
			return -1;
	}
	return 0;
}

/* Whether its bearer has one that lasts longer. */
static bool has_successor(const json_t *cert, const json_t *all)
{
	size_t i;
	const json_t *other;
	json_array_foreach(all, i, other)
	{
		if (strcmp(json_text(other, "name"), json_text(cert, "name")) == 0 &&
			strcmp(json_text(other, "role"), json_text(cert, "role")) == 0 &&
			strcmp(json_text(other, "status"), "valid") == 0 &&
			strcmp(json_text(other, "not_after"), json_text(cert, "not_after")) > 0)
			return true;
	}
	return false;
}

/* Of every bearer the one that lasts longest; asked for only among those that end soon. */
static int consider_bearer(struct admin *admin, const json_t *cert, struct first_end *first, struct err *e)
{
	AUTO(free_auto)
	char *path = admin_path("/admin/certificates", "name", json_text(cert, "name"), (char *)NULL);
	AUTO(json_auto) json_t *named = NULL;
	struct wall not_after;
	if (admin_rows(admin, path, "certificates", ADMIN_ALL, &named, e) < 0)
		return -1;
	if (!has_successor(cert, named) && wall_parse(str_of(json_text(cert, "not_after")), &not_after))
		consider(first, not_after, json_text(cert, "role"), str_of(json_text(cert, "name")));
	return 0;
}

/* What was given out and ends before the warning would come. */
static int consider_issued(struct run *run, struct first_end *first, struct err *e)
{
	char before[RFC3339_BYTES];
	wall_format((struct wall){clock_wall(&clock_system).ms + run->report.warning}, before);
	AUTO(free_auto)
	char *path = admin_path("/admin/certificates/expiring", "before", before, (char *)NULL);
	AUTO(json_auto) json_t *ending = NULL;
	struct admin *admin = NULL;
	int rc = open_admin(run, &admin, e);
	if (rc >= 0)
		rc = admin_rows(admin, path, "certificates", ADMIN_ALL, &ending, e);
	for (size_t i = 0; rc >= 0 && i < json_array_size(ending); i++)
		rc = consider_bearer(admin, json_array_get(ending, i), first, e);
	admin_close(admin);
	return rc;
}

static int measure_cert(struct run *run, struct err *e)
{
	struct first_end first = {.seen = 0};
	char left[40];
	if (consider_own(run, &first, e) < 0 || (run->issued && consider_issued(run, &first, e) < 0))
		return -1;
	int64_t ms = first.at.ms - clock_wall(&clock_system).ms;
	add_reading(run, "left", CHECK_MS, ms);
	add_reading(run, "certificates", CHECK_COUNT, first.seen);
	if (ms < 0)
		say(run, "%s has ended %s ago", first.name, rough(-ms, left));
	else
		say(run, "%s ends first, in %s", first.name, rough(ms, left));
	return 0;
}

/* --- crl --- */

static int measure_crl(struct run *run, struct err *e)
{
	AUTO(json_auto) json_t *answer = NULL;
	struct wall made, next;
	char age[40], left[40];
	if (ask(run, "/admin/ca/crl", &answer, e) < 0)
		return -1;
	if (!wall_parse(str_of(json_text(answer, "this_update")), &made) ||
		!wall_parse(str_of(json_text(answer, "next_update")), &next))
		return err_set(e, ERR_FATAL, "the revocation list does not say how long it holds");
	int64_t now = clock_wall(&clock_system).ms;
	add_reading(run, "left", CHECK_MS, next.ms - now);
	add_reading(run, "age", CHECK_MS, now - made.ms);
	say(run, "the revocation list was signed %s ago and %s %s", rough(now - made.ms, age),
		next.ms < now ? "does not hold any more since" : "holds for another",
		rough(next.ms < now ? now - next.ms : next.ms - now, left));
	return 0;
}

/* --- disk --- */

/* The emptier of data, queue and store may be on another file system each. */
static int measure_disk(struct run *run, struct err *e)
{
	const struct paths *paths = &run->settings.paths;
	const char *const directories[] = {paths->data, paths->queue, paths->store};
	int64_t least = INT64_MAX, size = 0;
	const char *where = paths->data;
	for (size_t i = 0; i < ARRAY_LEN(directories); i++) {
		struct statvfs fs;
		if (i > 0 && access(directories[i], F_OK) < 0)
			continue; /* a worker has neither */
		if (statvfs(directories[i], &fs) < 0)
			return err_sys(e, ERR_FATAL, "free space of '%s'", directories[i]);
		int64_t left = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
		if (left >= least)
			continue;
		least = left;
		size = (int64_t)fs.f_blocks * (int64_t)fs.f_frsize;
		where = directories[i];
	}
	add_reading(run, "free", CHECK_BYTES, least);
	add_reading(run, "size", CHECK_BYTES, size);
	say(run, "%lld MiB free at %s; below %lld MiB no message is accepted", (long long)(least >> 20),
		where, (long long)(run->config->disk_free_min >> 20));
	return 0;
}

/* --- store --- */

static int measure_store(struct run *run, struct err *e)
{
	AUTO(json_auto) json_t *stats = NULL;
	struct admin *admin = NULL;
	if (open_admin(run, &admin, e) < 0)
		return -1;
	struct mono before = clock_mono(&clock_system);
	int rc = admin_call(admin, "GET", "/admin/stats", NULL, &stats, e);
	int64_t took_ms = mono_diff_ms(clock_mono(&clock_system), before);
	admin_close(admin);
	if (rc < 0)
		return -1;
	add_reading(run, "answer", CHECK_MS, took_ms);
	add_reading(run, "messages", CHECK_COUNT, json_number(stats, "messages"));
	add_reading(run, "audit_rows", CHECK_COUNT, json_number(stats, "audit_rows"));
	say(run, "%lld messages stored; %s", (long long)json_number(stats, "messages"),
		json_text(stats, "store"));
	if (*json_text(stats, "store_trouble"))
		complain(run, CHECK_CRITICAL, "it does not take writes", json_text(stats, "store_trouble"));
	return 0;
}

/* --- the table --- */

static const struct check checks[] = {
	{"queue", "How many messages wait for delivery, and whether something is paused.",
		"  sealpost check queue --warning 10000 --critical 100000", CHECK_COUNT, false, 10000, 100000,
		measure_queue},
	{"age", "How long the oldest message has been waiting since it was accepted.",
		"  sealpost check age --warning 5m --critical 1h", CHECK_MS, false, 5 * (int64_t)MINUTE_MS,
		HOUR_MS, measure_age},
	{"dead", "How many dead letters wait for somebody to look at them.",
		"  sealpost check dead --critical 10", CHECK_COUNT, false, 0, 100, measure_dead},
	{"cert",
		"How long the certificates of this data directory last: the CA's, and those of its listeners.",
		"  sealpost check cert --issued --warning 21d", CHECK_MS, true, 14 * (int64_t)DAY_MS,
		3 * (int64_t)DAY_MS, measure_cert},
	{"crl", "How long the revocation list still holds. It is signed anew every day.",
		"  sealpost check crl --warning 3d", CHECK_MS, true, 4 * (int64_t)DAY_MS, DAY_MS,
		measure_crl},
	{"disk", "Free space on the file systems of the data directory.",
		"  sealpost check disk --warning 10GiB --critical 1GiB", CHECK_BYTES, true, -1, -1,
		measure_disk},
	{"store", "Whether the main server's store answers, how fast, and whether it takes writes.",
		"  sealpost check store --format json", CHECK_MS, false, SECOND_MS, 5 * (int64_t)SECOND_MS,
		measure_store},
};

/* --- running one --- */

struct words {
	const char *warning, *critical, *format;
};

static bool parse_quantity(enum check_unit unit, const char *text, int64_t *ret)
{
	switch (unit) {
	case CHECK_COUNT:
		return str_to_i64(str_of(text), ret) && *ret >= 0;
	case CHECK_MS:
		return config_parse_duration(str_of(text), ret);
	case CHECK_BYTES:
		return config_parse_bytes(str_of(text), ret);
	case CHECK_UNITS:
		break;
	}
	return false;
}

static int refuse(const struct check *c, const char *why)
{
	char command[24];
	snprintf(command, sizeof(command), "check %s", c->name);
	(void)cli_usage_error(command, "%s", why);
	return CHECK_UNKNOWN;
}

static bool take_words(const struct check *c, const struct words *w, struct run *run,
	enum check_format *ret_format, int *ret)
{
	static const char *const expected[CHECK_UNITS] = {
		[CHECK_COUNT] = "--warning and --critical take whole numbers",
		[CHECK_MS] = "--warning and --critical take durations such as 30s, 5m or 14d",
		[CHECK_BYTES] = "--warning and --critical take sizes such as 512MiB or 10GiB",
	};
	struct check_report *r = &run->report;
	*ret = CHECK_UNKNOWN;
	if ((w->warning && !parse_quantity(c->unit, w->warning, &r->warning)) ||
		(w->critical && !parse_quantity(c->unit, w->critical, &r->critical))) {
		*ret = refuse(c, expected[c->unit]);
		return false;
	}
	if (!check_format_parse(w->format, ret_format)) {
		*ret = refuse(c, "--format takes nagios, text, json or prometheus");
		return false;
	}
	return true;
}

/* Where messages begin to be refused, and a little before: as in the proxy's own health check. */
static void default_thresholds(struct run *run)
{
	struct check_report *r = &run->report;
	if (r->critical < 0)
		r->critical = run->config->disk_free_min;
	if (r->warning < 0)
		r->warning = 4 * run->config->disk_free_min;
}

/* What does not answer is down; what cannot be asked is unknown. */
static void take_failure(struct check_report *r, const struct err *e)
{
	r->state = e->kind == ERR_RETRY ? CHECK_CRITICAL : CHECK_UNKNOWN;
	r->count = 0;
	snprintf(r->text, sizeof(r->text), "%s", e->text);
}

static void measure(const struct check *c, struct run *run)
{
	struct check_report *r = &run->report;
	struct err e = ERR_INIT;
	int rc = settings_open(&run->settings, &run->config, &e);
	if (rc >= 0) {
		default_thresholds(run);
		rc = c->measure(run, &e);
	}
	if (rc < 0) {
		take_failure(r, &e);
		return;
	}
	enum check_state judged = check_judge(r->readings[0].value, r->falling, r->warning, r->critical);
	if (judged > r->state)
		r->state = judged;
}

static int run_check(const struct check *c, int argc, char **argv)
{
	struct run run = {
		.report = {c->name, .falling = c->falling, .warning = c->warning, .critical = c->critical}};
	struct words w = {.format = "nagios"};
	const struct arg options[] = {
		ADMIN_OPTIONS(run.settings),
		{"warning", ARG_TEXT, &w.warning, "N", c->falling ? "warn below this" : "warn above this"},
		{"critical", ARG_TEXT, &w.critical, "N",
			c->falling ? "critical below this" : "critical above this"},
		{"format", ARG_TEXT, &w.format, "F", "nagios (default), text, json or prometheus"},
		/* The last row that only one check has. */
		{c->measure == measure_cert ? "issued" : NULL, ARG_FLAG, &run.issued, NULL,
			"also every certificate that was issued and has no successor"},
		{0},
	};
	char command[24];
	snprintf(command, sizeof(command), "check %s", c->name);
	struct args a = {.command = command,
		.usage = "[--warning N] [--critical N] [--format F]",
		.summary = c->summary,
		.example = c->example,
		.options = options};
	enum check_format format;
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code == EXIT_USAGE ? (int)CHECK_UNKNOWN : code;
	if (!take_words(c, &w, &run, &format, &code))
		return code;
	measure(c, &run);
	config_free(run.config);
	settings_clear(&run.settings);
	settings_clear(&run.asking);
	struct err e = ERR_INIT;
	if (check_print(&run.report, format, stdout, &e) < 0) {
		(void)cli_fail(command, &e);
		return CHECK_UNKNOWN;
	}
	return (int)run.report.state;
}

static int print_overview(FILE *out)
{
	fprintf(out, "usage: sealpost check WHAT [--warning N] [--critical N] [--format F]\n\n");
	for (size_t i = 0; i < ARRAY_LEN(checks); i++)
		fprintf(out, "  %-10s %s\n", checks[i].name, checks[i].summary);
	fprintf(out, "\nExit codes: 0 ok, 1 warning, 2 critical, 3 unknown.\n"
		     "'sealpost check WHAT --help' explains one and shows an example.\n");
	return out == stdout ? CHECK_OK : CHECK_UNKNOWN;
}

int cmd_check(int argc, char **argv)
{
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
		return print_overview(stdout);
	for (size_t i = 0; argc >= 2 && i < ARRAY_LEN(checks); i++)
		if (strcmp(checks[i].name, argv[1]) == 0)
			return run_check(&checks[i], argc - 1, argv + 1);
	if (argc >= 2)
		fprintf(stderr, "sealpost check: there is no '%s'\n", argv[1]);
	return print_overview(stderr);
}
