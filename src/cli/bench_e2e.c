/* bench_e2e.c - sealpost bench e2e: from a client's POST to a row in the main server's store.
 *
 * The load is that of bench ingest. What happens behind the 202 is read from the metrics of the processes, before
 * the load, at the begin and the end of the measurement, and then until as many messages are stored as were
 * accepted. Which process has which role does not matter: counters are added up. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/auto.h"
#include "base/config.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/https.h"
#include "cli/load/report.h"
#include "cli/load/scrape.h"
#include "cli/term.h"

enum {
	PLACES_MAX = 16,
	THREADS_MAX = 16, /* kinds of threads in one process */
	METRICS_BYTES = 4 << 20,
	SCRAPE_TIMEOUT_MS = 5000,
	POLL_NS = 100000000,
	DRAIN_MS = 60000,
	FIGURES_MAX = 80,
	NAME_BYTES = 96,
};

static const char command[] = "bench e2e";

/* Where a process shows its metrics, or which process of this machine has none (redis-server). */
struct place {
	struct str name;
	const char *url; /* NULL: look at pid */
	pid_t pid;
};

/* CPU that a place has used, by kind of thread. */
struct cpu {
	unsigned count;
	struct {
		char threads[24];
		double seconds;
	} items[THREADS_MAX];
};

/* All places at one moment. */
struct sample {
	int64_t at_ns;
	double accepted, stored, duplicate, retried, dead, leases_lost;
	struct scrape_histogram latency;
	struct cpu cpu[PLACES_MAX];
};

struct e2e {
	const struct load_options *options;
	struct place places[PLACES_MAX];
	unsigned place_count;
	int64_t drain_ms;
	struct sample before, begin, end, after;
	struct run_result result;
	double left; /* accepted, and not stored when the wait was over */
	char names[FIGURES_MAX][NAME_BYTES];
	struct figure figures[FIGURES_MAX];
	unsigned figure_count;
};

/* --- what the processes say --- */

static const struct {
	size_t offset;
	const char *metric, *label, *value;
} counters[] = {
	{offsetof(struct sample, accepted), "sealpost_messages_accepted_total", NULL, NULL},
	{offsetof(struct sample, stored), "sealpost_messages_stored_total", "result", "stored"},
	{offsetof(struct sample, duplicate), "sealpost_messages_stored_total", "result", "duplicate"},
	{offsetof(struct sample, retried), "sealpost_deliveries_total", "result", "retry"},
	{offsetof(struct sample, dead), "sealpost_dead_letters_total", NULL, NULL},
	{offsetof(struct sample, leases_lost), "sealpost_leases_lost_total", NULL, NULL},
};

static void add_cpu(struct cpu *cpu, struct str threads, double seconds)
{
	if (cpu->count == THREADS_MAX)
		return;
	snprintf(cpu->items[cpu->count].threads, sizeof(cpu->items[0].threads), "%.*s", STR_ARG(threads));
	cpu->items[cpu->count++].seconds = seconds;
}

static void take_text(struct sample *s, struct cpu *cpu, struct str text)
{
	struct scrape_series series;
	for (size_t i = 0; i < ARRAY_LEN(counters); i++) {
		void *count = (char *)s + counters[i].offset;
		*(double *)count +=
			scrape_sum(text, counters[i].metric, counters[i].label, counters[i].value);
	}
	scrape_histogram_add(&s->latency, text, "sealpost_accept_to_stored_seconds", 1);
	while (scrape_next(&text, &series))
		if (str_eq(series.name, STR("sealpost_threads_cpu_seconds")))
			add_cpu(cpu, scrape_label(&series, "threads"), series.value);
}

static int scrape_place(
	const struct e2e *b, const struct place *p, struct sample *s, struct cpu *cpu, struct err *e)
{
	const struct load_options *o = b->options;
	const struct https_options options = {.url = p->url,
		.cert = o->cert,
		.key = o->key,
		.ca = o->ca,
		.timeout_ms = SCRAPE_TIMEOUT_MS,
		.plain = true};
	AUTO(buf_auto) struct buf text;
	int status;
	buf_init(&text, METRICS_BYTES);
	if (https_get(&options, "/metrics", &status, &text, e) < 0)
		return err_context(e, "metrics of %.*s", STR_ARG(p->name));
	if (status != 200)
		return err_set(
			e, ERR_REJECT, "metrics of %.*s: %s answered %d", STR_ARG(p->name), p->url, status);
	take_text(s, cpu, buf_str(&text));
	return 0;
}

static int measure_place(
	const struct e2e *b, const struct place *p, struct sample *s, struct cpu *cpu, struct err *e)
{
	struct process_usage usage;
	if (p->url)
		return scrape_place(b, p, s, cpu, e);
	if (process_usage(p->pid, &usage, e) < 0)
		return -1;
	add_cpu(cpu, STR("process"), (double)usage.cpu_ns / 1e9);
	return 0;
}

static int take_sample(const struct e2e *b, struct sample *ret, struct err *e)
{
	*ret = (struct sample){.at_ns = load_now_ns()};
	for (unsigned i = 0; i < b->place_count; i++)
		if (measure_place(b, &b->places[i], ret, &ret->cpu[i], e) < 0)
			return -1;
	return 0;
}

static int on_sample(void *arg, bool at_end, struct err *e)
{
	struct e2e *b = arg;
	return take_sample(b, at_end ? &b->end : &b->begin, e);
}

/* Until all that this run has brought is stored, or the time is over. */
static int wait_until_stored(struct e2e *b, struct err *e)
{
	int64_t give_up_ns = load_now_ns() + b->drain_ms * 1000000;
	const struct timespec pause = {.tv_nsec = POLL_NS};
	do {
		nanosleep(&pause, NULL);
		if (take_sample(b, &b->after, e) < 0)
			return -1;
		b->left = (double)b->result.load.accepted_in_all - (b->after.stored - b->before.stored);
		term_progress("waiting until all are stored: %.0f left", b->left);
	} while (b->left > 0 && load_now_ns() < give_up_ns);
	term_progress_clear();
	return 0;
}

/* --- what that means --- */

static double seconds_between(const struct sample *from, const struct sample *to)
{
	return (double)(to->at_ns - from->at_ns) / 1e9;
}

static double per_second(double n, double seconds)
{
	return seconds > 0 ? n / seconds : 0;
}

/* Accepted since the begin of the run, and not stored at this moment. */
static double backlog(const struct e2e *b, const struct sample *at)
{
	double n = (at->accepted - b->before.accepted) - (at->stored - b->before.stored);
	return n > 0 ? n : 0;
}

static void add_figure(struct e2e *b, double value, bool whole, const char *fmt, ...) PRINTF(4, 5);
static void add_figure(struct e2e *b, double value, bool whole, const char *fmt, ...)
{
	require(b->figure_count < FIGURES_MAX);
	char *name = b->names[b->figure_count];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(name, NAME_BYTES, fmt, ap);
	va_end(ap);
	b->figures[b->figure_count++] = (struct figure){name, value, whole};
}

static void add_delivery(struct e2e *b)
{
	double seconds = seconds_between(&b->begin, &b->end), stored = b->end.stored - b->begin.stored;
	double growth = backlog(b, &b->end) - backlog(b, &b->begin);
	add_figure(b, stored, true, "stored");
	add_figure(b, per_second(stored, seconds), false, "stored_per_second");
	add_figure(b, backlog(b, &b->begin), true, "backlog_at_begin");
	add_figure(b, backlog(b, &b->end), true, "backlog_at_end");
	add_figure(b, per_second(growth, seconds), false, "backlog_growth_per_second");
	add_figure(b, seconds_between(&b->end, &b->after), false, "drain_seconds");
	add_figure(b, per_second(b->after.stored - b->begin.stored, seconds_between(&b->begin, &b->after)),
		false, "stored_per_second_with_drain");
	add_figure(b, b->left > 0 ? b->left : 0, true, "not_stored");
	add_figure(b, b->after.duplicate - b->before.duplicate, true, "stored_duplicates");
	add_figure(b, b->after.retried - b->before.retried, true, "deliveries_retried");
	add_figure(b, b->after.dead - b->before.dead, true, "dead_letters");
	add_figure(b, b->after.leases_lost - b->before.leases_lost, true, "leases_lost");
}

static const struct {
	const char *name, *title;
	double percent;
} percentiles[] = {{"p50", "p50", 50}, {"p90", "p90", 90}, {"p99", "p99", 99}, {"p99_9", "p99.9", 99.9}};

/* Of the messages stored from the begin of the measurement on. */
static double latency_of(const struct e2e *b, double percent)
{
	struct scrape_histogram h = b->after.latency;
	for (unsigned i = 0; i < h.count && i < b->begin.latency.count; i++)
		h.upto[i] -= b->begin.latency.upto[i];
	return scrape_percentile(&h, percent);
}

static void add_latency(struct e2e *b)
{
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++)
		add_figure(b, latency_of(b, percentiles[i].percent) * 1e6, false, "accept_to_stored_%s_us",
			percentiles[i].name);
}

/* What a kind of thread had used before; 0 when there was none. */
static double used_before(const struct cpu *cpu, const char *threads)
{
	for (unsigned i = 0; i < cpu->count; i++)
		if (str_eq(str_of(cpu->items[i].threads), str_of(threads)))
			return cpu->items[i].seconds;
	return 0;
}

static double used(const struct e2e *b, unsigned place, unsigned item)
{
	const struct cpu *end = &b->end.cpu[place];
	return end->items[item].seconds - used_before(&b->begin.cpu[place], end->items[item].threads);
}

static double used_in_all(const struct e2e *b, unsigned place)
{
	double seconds = 0;
	for (unsigned i = 0; i < b->end.cpu[place].count; i++)
		seconds += used(b, place, i);
	return seconds;
}

/* Per message that was accepted in the same time: also when the backlog grows, each was worked on once or is. */
static double cpu_us(const struct e2e *b, double seconds)
{
	double accepted = b->end.accepted - b->begin.accepted;
	return accepted > 0 ? seconds * 1e6 / accepted : 0;
}

static void add_cpu_figures(struct e2e *b)
{
	for (unsigned p = 0; p < b->place_count; p++) {
		const struct place *place = &b->places[p];
		add_figure(b, cpu_us(b, used_in_all(b, p)), false, "cpu_%.*s_us_per_message",
			STR_ARG(place->name));
		for (unsigned i = 0; place->url && i < b->end.cpu[p].count; i++)
			if (b->figure_count < FIGURES_MAX)
				add_figure(b, cpu_us(b, used(b, p, i)), false, "cpu_%.*s_%s_us_per_message",
					STR_ARG(place->name), b->end.cpu[p].items[i].threads);
	}
}

/* --- for people --- */

static void row(struct term_table *t, const char *what, double count, const char *remark)
{
	term_table_cell(t, "%s", what);
	term_table_cell(t, "%.0f", count);
	term_table_cell(t, "%s", remark);
}

static void row_bad(struct term_table *t, const char *what, double count)
{
	if (count > 0) {
		row(t, what, count, "");
		term_table_style(t, TERM_RED);
	}
}

static int print_flow(const struct e2e *b, FILE *f, struct err *e)
{
	static const struct term_column columns[] = {{NULL, false}, {NULL, true}, {NULL, false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	double seconds = seconds_between(&b->begin, &b->end);
	char text[80];
	if (!t)
		return err_oom(e);
	snprintf(text, sizeof(text), "%.0f/s", per_second(b->end.stored - b->begin.stored, seconds));
	row(t, "messages stored", b->end.stored - b->begin.stored, text);
	snprintf(text, sizeof(text), "%+.0f/s; %.0f at the begin",
		per_second(backlog(b, &b->end) - backlog(b, &b->begin), seconds), backlog(b, &b->begin));
	row(t, "backlog at the end", backlog(b, &b->end), text);
	row_bad(t, "not stored when the wait was over", b->left);
	row_bad(t, "stored more than once", b->after.duplicate - b->before.duplicate);
	row_bad(t, "deliveries retried", b->after.retried - b->before.retried);
	row_bad(t, "dead letters", b->after.dead - b->before.dead);
	row_bad(t, "leases lost", b->after.leases_lost - b->before.leases_lost);
	if (term_table_print(t, f, e) < 0)
		return -1;
	fprintf(f, "all stored %.1f s after the load, %.0f/s from begin to there\n",
		seconds_between(&b->end, &b->after),
		per_second(b->after.stored - b->begin.stored, seconds_between(&b->begin, &b->after)));
	return 0;
}

static int print_stored_latency(const struct e2e *b, FILE *f, struct err *e)
{
	struct term_column columns[ARRAY_LEN(percentiles) + 1] = {{"accepted to stored, ms", false}};
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++)
		columns[i + 1] = (struct term_column){percentiles[i].title, true};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	if (!t)
		return err_oom(e);
	term_table_cell(t, "within the buckets of the metric");
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++)
		term_table_cell(t, "%.1f", latency_of(b, percentiles[i].percent) * 1e3);
	return term_table_print(t, f, e);
}

static int print_cpu(const struct e2e *b, FILE *f, struct err *e)
{
	static const struct term_column columns[] = {
		{"CPU", false}, {"threads", false}, {"us per message", true}, {"%", true}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	double seconds = seconds_between(&b->begin, &b->end);
	if (!t)
		return err_oom(e);
	for (unsigned p = 0; p < b->place_count; p++) {
		term_table_cell(t, "%.*s", STR_ARG(b->places[p].name));
		term_table_cell(t, "%s", b->places[p].url ? "all" : "");
		term_table_cell(t, "%.2f", cpu_us(b, used_in_all(b, p)));
		term_table_cell(t, "%.0f", per_second(used_in_all(b, p) * 100, seconds));
		for (unsigned i = 0; b->places[p].url && i < b->end.cpu[p].count; i++) {
			term_table_cell(t, "%s", "");
			term_table_cell(t, "%s", b->end.cpu[p].items[i].threads);
			term_table_cell(t, "%.2f", cpu_us(b, used(b, p, i)));
			term_table_cell(t, "%.0f", per_second(used(b, p, i) * 100, seconds));
		}
	}
	return term_table_print(t, f, e);
}

static int print_more(void *arg, FILE *f, struct err *e)
{
	const struct e2e *b = arg;
	fputc('\n', f);
	if (print_flow(b, f, e) < 0)
		return -1;
	fputc('\n', f);
	if (print_stored_latency(b, f, e) < 0)
		return -1;
	fputc('\n', f);
	return print_cpu(b, f, e);
}

/* --- the command --- */

static int measure(struct e2e *b, struct err *e)
{
	const struct run_watch watch = {on_sample, b};
	if (take_sample(b, &b->before, e) < 0 || run_load_test(b->options, &watch, &b->result, e) < 0 ||
		wait_until_stored(b, e) < 0)
		return -1;
	add_delivery(b);
	add_latency(b);
	add_cpu_figures(b);
	return 0;
}

static int run(struct e2e *b)
{
	struct err e = ERR_INIT;
	char durability[BENCH_DURABILITY_BYTES];
	if (measure(b, &e) < 0)
		return cli_fail(command, &e);
	bench_ask_durability(b->options, durability);
	const struct report_more more = {b->figures, b->figure_count, print_more, b};
	if (report_print(b->options, &b->result, durability, &more, stdout, &e) < 0)
		return cli_fail(command, &e);
	int code = bench_exit_code(&b->result);
	return code == EXIT_DONE && b->left > 0 ? EXIT_FAILED : code;
}

/* "NAME=URL", or a URL alone, named after its place in the list. */
static bool take_url(struct e2e *b, const char *word)
{
	static const char *const numbers[PLACES_MAX] = {
		"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"};
	struct str rest = str_of(word), name;
	if (b->place_count == PLACES_MAX)
		return false;
	bool named = str_cut(&rest, '=', &name) && name.n && !memchr(name.p, ':', name.n);
	b->places[b->place_count] = (struct place){
		.name = named ? name : str_of(numbers[b->place_count]), .url = named ? rest.p : word};
	b->place_count++;
	return true;
}

/* "NAME=PID". */
static bool take_pid(struct e2e *b, const char *word)
{
	struct str rest = str_of(word), name;
	int64_t pid;
	if (b->place_count == PLACES_MAX || !str_cut(&rest, '=', &name) || !name.n ||
		!str_to_i64(rest, &pid) || pid <= 0 || pid > INT32_MAX)
		return false;
	b->places[b->place_count++] = (struct place){.name = name, .pid = (pid_t)pid};
	return true;
}

static int take_places(
	struct e2e *b, const struct arg_list *urls, const struct arg_list *pids, const char *drain)
{
	b->drain_ms = DRAIN_MS;
	if (drain && !config_parse_duration(str_of(drain), &b->drain_ms))
		return cli_usage_error(command, "--drain takes a time such as 500ms, 10s or 2m");
	if (!urls->count)
		return cli_usage_error(command, "--metrics is missing: where do the processes show theirs?");
	for (unsigned i = 0; i < urls->count; i++)
		if (!take_url(b, urls->items[i]))
			return cli_usage_error(command, "at most %d processes", (int)PLACES_MAX);
	for (unsigned i = 0; i < pids->count; i++)
		if (!take_pid(b, pids->items[i]))
			return cli_usage_error(command, "--pid takes NAME=PID; at most %d processes in all",
				(int)PLACES_MAX);
	return EXIT_DONE;
}

int cmd_bench_e2e(int argc, char **argv)
{
	struct arg_list urls = {.count = 0}, pids = {.count = 0};
	const char *drain = NULL;
	const struct arg own[] = {
		{"metrics", ARG_LIST, &urls, "[NAME=]URL",
			"a process's metrics, http://127.0.0.1:9100; once for each process"},
		{"pid", ARG_LIST, &pids, "NAME=PID", "also report the CPU of this local process (Redis)"},
		{"drain", ARG_TEXT, &drain, "TIME", "wait so long until all are stored (60s)"},
		{0},
	};
	const struct load_command e2e = {
		.name = command,
		.usage = "--url URL --cert FILE --key FILE --ca FILE --metrics URL [options]",
		.summary =
			"Posts messages and measures until the main server has stored them: throughput of both, what piles\n"
			"up in between, how long a message takes, and which threads need how much CPU for it.",
		.example =
			"  sealpost bench e2e --url https://127.0.0.1:8001 --cert c.pem --key c.key --ca ca.pem \\\n"
			"      --metrics http://127.0.0.1:9100 --batch 100 --connections 16\n"
			"  sealpost bench e2e … --metrics proxy=http://127.0.0.1:9101 --metrics worker=http://127.0.0.1:9102 \\\n"
			"      --metrics server=http://127.0.0.1:9103 --pid redis=4711",
		.options = own,
	};
	struct load_options options;
	int code;
	if (!load_options_read(&e2e, argc, argv, &options, &code))
		return code;
	AUTO(free_auto) struct e2e *b = calloc(1, sizeof(*b));
	struct err e = ERR_INIT;
	if (!b) {
		err_oom(&e);
		code = cli_fail(command, &e);
	} else {
		b->options = &options;
		code = take_places(b, &urls, &pids, drain);
	}
	if (code == EXIT_DONE)
		code = run(b);
	load_options_clear(&options);
	return code;
}
