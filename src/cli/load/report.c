/* report.c - see report.h. Numbers are gathered once, as a list of named figures; JSON and CSV print the
 * whole list, the text picks from it. */
#include "cli/load/report.h"

#include <stdlib.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/term.h"

enum { FIGURES_MAX = 128, REPORT_BYTES = 1 << 20 };

struct figures {
	unsigned count;
	struct figure items[FIGURES_MAX];
};

static const struct {
	const char *name, *title;
	double percent;
} percentiles[] = {{"p50", "p50", 50}, {"p90", "p90", 90}, {"p99", "p99", 99}, {"p99_9", "p99.9", 99.9}};

static void add(struct figures *f, const char *name, double value, bool whole)
{
	require(f->count < FIGURES_MAX);
	f->items[f->count++] = (struct figure){name, value, whole};
}

static void add_count(struct figures *f, const char *name, uint64_t value)
{
	add(f, name, (double)value, true);
}

/* To three decimals: more would be noise. */
static double rounded(double value)
{
	return (double)(int64_t)(value * 1000 + 0.5) / 1000;
}

static double per(double value, double divisor)
{
	return divisor > 0 ? value / divisor : 0;
}

static void add_load(struct figures *f, const struct load_options *o)
{
	add_count(f, "connections", o->connections);
	add_count(f, "in_flight_per_connection", o->depth);
	add_count(f, "threads", o->threads);
	add_count(f, "messages_per_request", load_messages_per_request(o));
	add_count(f, "body_bytes", o->body_bytes);
	add(f, "rate", o->rate, false);
	add(f, "churn", o->churn, false);
}

static void add_counts(struct figures *f, const struct run_result *r)
{
	add(f, "seconds", r->seconds, false);
	add_count(f, "requests", r->load.requests);
	add_count(f, "messages", r->load.accepted);
	add(f, "requests_per_second", per((double)r->load.requests, r->seconds), false);
	add(f, "messages_per_second", per((double)r->load.accepted, r->seconds), false);
	add_count(f, "messages_rejected", r->load.rejected);
	add_count(f, "messages_in_all", r->load.accepted_in_all);
	add_count(f, "requests_unanswered", r->load.unanswered);
	add_count(f, "requests_unsent", r->load.unsent);
}

static void add_latency(struct figures *f, const struct histogram *h, const char *const names[])
{
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++)
		add(f, names[i], (double)histogram_percentile(h, percentiles[i].percent) / 1e3, false);
	add(f, names[ARRAY_LEN(percentiles)], (double)h->max_ns / 1e3, false);
}

static void add_cpu(struct figures *f, const struct load_options *o, const struct run_result *r)
{
	double messages = (double)r->load.accepted, requests = (double)r->load.requests;
	add(f, "client_cpu_us_per_request", per((double)r->client_cpu_ns / 1e3, requests), false);
	add(f, "client_cpu_percent", per((double)r->client_cpu_ns / 1e7, r->seconds), false);
	if (!o->server_pid)
		return;
	add(f, "server_cpu_us_per_message", per((double)r->server_cpu_ns / 1e3, messages), false);
	add(f, "server_cpu_percent", per((double)r->server_cpu_ns / 1e7, r->seconds), false);
	add_count(f, "server_rss_bytes", (uint64_t)r->server.rss_bytes);
	add_count(f, "server_peak_rss_bytes", (uint64_t)r->server.peak_rss_bytes);
}

static void add_churn(struct figures *f, const struct load_options *o, const struct run_result *r)
{
	static const char *const names[] = {"handshake_p50_us", "handshake_p90_us", "handshake_p99_us",
		"handshake_p99_9_us", "handshake_max_us"};
	if (!(o->churn > 0))
		return;
	add_count(f, "handshakes", r->churn.count);
	add(f, "handshakes_per_second", per((double)r->churn.count, r->seconds), false);
	add_count(f, "handshakes_failed", r->churn.failed);
	add_latency(f, &r->churn.latency, names);
}

static void gather(struct figures *f, const struct load_options *o, const struct run_result *r,
	const struct report_more *more)
{
	static const char *const latency_names[] = {
		"latency_p50_us", "latency_p90_us", "latency_p99_us", "latency_p99_9_us", "latency_max_us"};
	f->count = 0;
	add_load(f, o);
	add_counts(f, r);
	add_latency(f, &r->load.latency, latency_names);
	add_cpu(f, o, r);
	add_churn(f, o, r);
	for (unsigned i = 0; more && i < more->count; i++)
		add(f, more->figures[i].name, more->figures[i].value, more->figures[i].whole);
}

static const char *protocol_name(const struct load_options *o)
{
	return o->http2 ? load_protocol_h2.name : load_protocol_h1.name;
}

static void put_counts(struct json_out *w, const struct load_result *r)
{
	json_open_object(w, "statuses");
	for (int status = 0; status < STATUS_LIMIT; status++) {
		char key[16];
		snprintf(key, sizeof(key), "%d", status);
		if (r->statuses[status])
			json_put_int(w, key, (int64_t)r->statuses[status]);
	}
	json_close_object(w);
	json_open_object(w, "failures");
	for (unsigned i = 0; i < FAILURES; i++)
		json_put_int(w, failure_name(i), (int64_t)r->failures[i]);
	json_close_object(w);
}

static int write_json(const struct load_options *o, const struct run_result *r, const char *durability,
	const struct report_more *more, FILE *f, struct err *e)
{
	struct figures figures;
	AUTO(buf_auto) struct buf out;
	buf_init(&out, REPORT_BYTES);
	struct json_out w = json_out_to(&out);
	gather(&figures, o, r, more);
	json_open_object(&w, NULL);
	json_put_str(&w, "url", str_of(o->url));
	json_put_str(&w, "protocol", str_of(protocol_name(o)));
	json_put_str(&w, "loop", str_of(o->rate > 0 ? "open" : "closed"));
	json_put_str(&w, "durability", str_of(durability));
	json_put_bool(&w, "interrupted", r->interrupted);
	for (unsigned i = 0; i < figures.count; i++) {
		const struct figure *at = &figures.items[i];
		if (at->whole)
			json_put_int(&w, at->name, (int64_t)at->value);
		else
			json_put_double(&w, at->name, rounded(at->value));
	}
	put_counts(&w, &r->load);
	json_close_object(&w);
	buf_add_char(&out, '\n');
	if (buf_check(&out, e) < 0)
		return -1;
	fwrite(out.p, 1, out.n, f);
	return 0;
}

/* RFC 4180: in quotes, and a quote twice. */
static void put_csv_text(FILE *f, const char *text)
{
	fputc('"', f);
	for (; *text; text++)
		fputs(*text == '"' ? "\"\"" : (char[]){*text, 0}, f);
	fputc('"', f);
}

static void write_csv(const struct load_options *o, const struct run_result *r, const char *durability,
	const struct report_more *more, FILE *f)
{
	struct figures figures;
	gather(&figures, o, r, more);
	fputs("protocol,loop,durability", f);
	for (unsigned i = 0; i < figures.count; i++)
		fprintf(f, ",%s", figures.items[i].name);
	for (unsigned i = 0; i < FAILURES; i++)
		fprintf(f, ",failed_%s", failure_name(i));
	fprintf(f, "\n%s,%s,", protocol_name(o), o->rate > 0 ? "open" : "closed");
	put_csv_text(f, durability);
	for (unsigned i = 0; i < figures.count; i++)
		fprintf(f, ",%.*f", figures.items[i].whole ? 0 : 3, figures.items[i].value);
	for (unsigned i = 0; i < FAILURES; i++)
		fprintf(f, ",%llu", (unsigned long long)r->load.failures[i]);
	fputc('\n', f);
}

static void print_setup(
	const struct load_options *o, const struct run_result *r, const char *durability, FILE *f)
{
	term_styled(f, TERM_BOLD, "%s", o->url);
	fprintf(f, "  %s, %u connections", protocol_name(o), o->connections);
	if (o->depth > 1)
		fprintf(f, " with %u requests in flight each", o->depth);
	if (o->batch)
		fprintf(f, ", batches of %u", o->batch);
	fprintf(f, ", texts of %u bytes\ndurability: ", o->body_bytes);
	term_put_untrusted(f, str_of(durability));
	fputc('\n', f);
	if (o->rate > 0)
		fprintf(f, "open loop, %.0f requests/s: latency counts from when each request was due\n",
			o->rate);
	else
		fprintf(f,
			"closed loop: latency counts from when each request was sent; a stall shows in few of them, "
			"see --rate\n");
	fprintf(f, "%.1f s measured after %.1f s of warm-up%s\n\n", r->seconds, (double)o->warmup_ns / 1e9,
		r->interrupted ? ", interrupted" : "");
}

static void row_rate(struct term_table *t, const char *what, uint64_t count, double seconds)
{
	term_table_cell(t, "%s", what);
	term_table_cell(t, "%llu", (unsigned long long)count);
	term_table_cell(t, "%.0f/s", per((double)count, seconds));
}

static void row_bad(struct term_table *t, const char *what, uint64_t count, const char *remark)
{
	if (!count)
		return;
	term_table_cell(t, "%s", what);
	term_table_cell(t, "%llu", (unsigned long long)count);
	term_table_style(t, TERM_RED);
	term_table_cell(t, "%s", remark);
}

static void rows_failures(struct term_table *t, const struct load_result *r)
{
	static const char *const meanings[FAILURES] = {
#define FAILURE(id, name, meaning) [id] = meaning,
#include "cli/load/failure.def"
#undef FAILURE
	};
	for (int status = 0; status < STATUS_LIMIT; status++) {
		char what[32];
		snprintf(what, sizeof(what), "answers %d", status);
		if (status < 200 || status > 299)
			row_bad(t, what, r->statuses[status], "");
	}
	for (unsigned i = 0; i < FAILURES; i++)
		row_bad(t, failure_name(i), r->failures[i], meanings[i]);
	row_bad(t, "unanswered", r->unanswered, "requests whose connection ended first");
	row_bad(t, "unsent", r->unsent, "requests that were due while no connection was free");
}

static int print_counts(const struct load_options *o, const struct run_result *r, FILE *f, struct err *e)
{
	static const struct term_column columns[] = {{NULL, false}, {NULL, true}, {NULL, false}};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	if (!t)
		return err_oom(e);
	row_rate(t, "messages accepted", r->load.accepted, r->seconds);
	if (o->batch)
		row_rate(t, "requests", r->load.requests, r->seconds);
	if (o->churn > 0)
		row_rate(t, "handshakes", r->churn.count, r->seconds);
	row_bad(t, "messages rejected", r->load.rejected, "");
	row_bad(t, "handshakes failed", r->churn.failed, r->churn.first_failure.text);
	rows_failures(t, &r->load);
	return term_table_print(t, f, e);
}

static void row_latency(struct term_table *t, const char *what, const struct histogram *h)
{
	term_table_cell(t, "%s", what);
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++)
		term_table_cell(t, "%.3f", (double)histogram_percentile(h, percentiles[i].percent) / 1e6);
	term_table_cell(t, "%.3f", (double)h->max_ns / 1e6);
}

static int print_latency(const struct load_options *o, const struct run_result *r, FILE *f, struct err *e)
{
	struct term_column columns[ARRAY_LEN(percentiles) + 2] = {{"latency, ms", false}};
	for (size_t i = 0; i < ARRAY_LEN(percentiles); i++)
		columns[i + 1] = (struct term_column){percentiles[i].title, true};
	columns[ARRAY_LEN(columns) - 1] = (struct term_column){"max", true};
	AUTO(term_table_free_auto) struct term_table *t = term_table_new(columns, ARRAY_LEN(columns));
	if (!t)
		return err_oom(e);
	row_latency(t, "request", &r->load.latency);
	if (o->churn > 0)
		row_latency(t, "connect, handshake, GET", &r->churn.latency);
	return term_table_print(t, f, e);
}

static void print_cpu(const struct load_options *o, const struct run_result *r, FILE *f)
{
	double client = per((double)r->client_cpu_ns / 1e7, r->seconds);
	if (o->server_pid)
		fprintf(f, "server     %.2f us CPU per message (%.0f %%), %.1f MiB resident at most\n",
			per((double)r->server_cpu_ns / 1e3, (double)r->load.accepted),
			per((double)r->server_cpu_ns / 1e7, r->seconds),
			(double)r->server.peak_rss_bytes / 1048576.0);
	fprintf(f, "generator  %.2f us CPU per request (%.0f %%)%s\n",
		per((double)r->client_cpu_ns / 1e3, (double)r->load.requests), client,
		client > 95.0 * o->threads ? ": it is the limit here, not the server; try --threads" : "");
}

static int write_text(const struct load_options *o, const struct run_result *r, const char *durability,
	const struct report_more *more, FILE *f, struct err *e)
{
	print_setup(o, r, durability, f);
	if (print_counts(o, r, f, e) < 0)
		return -1;
	fputc('\n', f);
	if (print_latency(o, r, f, e) < 0)
		return -1;
	fputc('\n', f);
	print_cpu(o, r, f);
	if (r->load.first_failure.kind != ERR_NONE)
		fprintf(f, "first failure: %s\n", r->load.first_failure.text);
	return more ? more->print(more->arg, f, e) : 0;
}

int report_print(const struct load_options *o, const struct run_result *r, const char *durability,
	const struct report_more *more, FILE *f, struct err *e)
{
	switch (o->format) {
	case LOAD_JSON:
		return write_json(o, r, durability, more, f, e);
	case LOAD_CSV:
		write_csv(o, r, durability, more, f);
		return 0;
	case LOAD_TEXT:
		return write_text(o, r, durability, more, f, e);
	}
	return 0;
}
