/* send_file.c - sealpost send --file: every line of a file of JSON messages, one by one or in batches.
 *
 * Lines go out as they are; the server judges them. What is not accepted is reported by its line number and
 * the server's problem, never by its contents. A refused certificate or a server that stays away ends the
 * run: the lines after that would fare no better. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/problem.h"
#include "cli/send.h"
#include "cli/term.h"

enum { LINE_BYTES = 64 << 10, BATCH_BYTES = 4 << 20, REPORT_BYTES = 64 << 20, ACCEPTED = 202 };

static const char command[] = "send";

/* One request, and the lines it is made of. */
struct group {
	struct post post;
	unsigned count;
	uint64_t lines[];
};

struct sending {
	const struct send_options *o;
	FILE *file;
	struct buf line;      /* the last one read */
	bool held;            /* it did not fit into its batch and goes into the next */
	uint64_t line_number; /* of the last one read */
	uint64_t accepted, failed;
	bool stopped, unreadable;
	int code;          /* the gravest so far */
	struct buf report; /* --json: the failures */
	struct json_out out;
	struct err err; /* what went wrong here, not at the server */
};

/* Refused before unavailable before failed: the user mends them in this order. */
static int gravest(int a, int b)
{
	static const int order[] = {EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_FAILED};
	for (size_t i = 0; i < ARRAY_LEN(order); i++)
		if (a == order[i] || b == order[i])
			return order[i];
	return EXIT_DONE;
}

/* Reads on to the next line end without keeping more than LINE_BYTES. False at the end of the file. */
static bool read_line(struct sending *s)
{
	int c;
	buf_reset(&s->line);
	while ((c = getc_unlocked(s->file)) != EOF && c != '\n')
		buf_add_char(&s->line, (char)c);
	if (c == EOF && !s->line.n && !s->line.failed)
		return false;
	s->line_number++;
	return true;
}

static void note_failure(struct sending *s, uint64_t line, int status, const char *code)
{
	s->failed++;
	if (!s->o->json)
		return;
	json_open_object(&s->out, NULL);
	json_put_int(&s->out, "line", (int64_t)line);
	json_put_int(&s->out, "status", status);
	json_put_str(&s->out, "code", str_of(code));
	json_close_object(&s->out);
}

static void fail_line_here(struct sending *s, const char *why)
{
	term_error(command, "line %llu: %s", (unsigned long long)s->line_number, why);
	note_failure(s, s->line_number, 0, "too_long");
	s->code = gravest(s->code, EXIT_FAILED);
}

/* The next line that holds something, in s->line. False at the end. */
static bool next_line(struct sending *s)
{
	if (s->held) {
		s->held = false;
		return true;
	}
	while (read_line(s)) {
		struct str text = buf_str(&s->line);
		while (text.n && strchr(" \t\r", text.p[text.n - 1]))
			text.n--;
		if (s->line.failed)
			fail_line_here(s, "longer than 64 KiB, not sent");
		else if (text.n)
			return true;
	}
	s->unreadable = ferror(s->file);
	return false;
}

static bool fits(const struct sending *s, const struct group *g)
{
	return g->count < (s->o->batch ? s->o->batch : 1) && g->post.body.n + s->line.n + 1 <= BATCH_BYTES;
}

static void add_line(struct sending *s, struct group *g)
{
	g->lines[g->count++] = s->line_number;
	buf_add_str(&g->post.body, buf_str(&s->line));
	if (s->o->batch)
		buf_add_char(&g->post.body, '\n');
}

static void group_free(struct group *g)
{
	post_clear(&g->post);
	free(g);
}

/* Lines until the request is full or the file ends. */
static void fill_group(struct sending *s, struct group *g)
{
	do {
		add_line(s, g);
		if (!fits(s, g))
			return;
		if (!next_line(s))
			return;
		s->held = !fits(s, g);
	} while (!s->held);
}

static struct post *next_group(void *arg)
{
	struct sending *s = arg;
	unsigned room = s->o->batch ? s->o->batch : 1;
	if (!next_line(s))
		return NULL;
	struct group *g = calloc(1, sizeof(*g) + room * sizeof(g->lines[0]));
	if (!g || post_init(&g->post, s->o->resume_key, s->line_number, &s->err) < 0) {
		free(g);
		if (s->err.kind == ERR_NONE)
			err_oom(&s->err);
		return NULL;
	}
	fill_group(s, g);
	if (buf_check(&g->post.body, &s->err) == 0)
		return &g->post;
	group_free(g);
	return NULL;
}

static void print_id(const struct sending *s, uint64_t line, const json_t *answer)
{
	const json_t *id = json_object_get(answer, "message_id");
	if (!s->o->ids)
		return;
	term_progress_clear();
	printf("%llu\t", (unsigned long long)line);
	term_put_untrusted(stdout, str_mem(json_string_value(id), json_string_length(id)));
	fputc('\n', stdout);
}

static void accept_line(struct sending *s, uint64_t line, const json_t *answer)
{
	s->accepted++;
	print_id(s, line, answer);
}

/* "line 17", or "lines 17 to 116" for a request that failed as a whole. */
static void name_lines(const struct group *g, char *out, size_t room)
{
	if (g->count == 1)
		snprintf(out, room, "line %llu", (unsigned long long)g->lines[0]);
	else
		snprintf(out, room, "lines %llu to %llu", (unsigned long long)g->lines[0],
			(unsigned long long)g->lines[g->count - 1]);
}

static void fail_group(struct sending *s, const struct group *g, const json_t *answer)
{
	char where[64];
	const char *code = g->post.status ? problem_code(answer) : "no_answer";
	name_lines(g, where, sizeof(where));
	send_print_failure(&g->post, where, answer);
	for (unsigned i = 0; i < g->count; i++)
		note_failure(s, g->lines[i], g->post.status, code);
	s->code = gravest(s->code, send_exit_code(&g->post));
}

static void judge_result(struct sending *s, const struct group *g, const json_t *result)
{
	json_int_t index = json_integer_value(json_object_get(result, "index"));
	const json_t *problem = json_object_get(result, "problem");
	char where[64];
	if (index < 0 || index >= g->count)
		return;
	if (!problem) {
		accept_line(s, g->lines[index], result);
		return;
	}
	json_int_t status = json_integer_value(json_object_get(problem, "status"));
	snprintf(where, sizeof(where), "line %llu", (unsigned long long)g->lines[index]);
	problem_print(command, where, (int)status, problem);
	note_failure(s, g->lines[index], (int)status, problem_code(problem));
	s->code = gravest(s->code, EXIT_FAILED);
}

static void judge(struct sending *s, const struct group *g, const json_t *answer)
{
	size_t i;
	const json_t *result, *results = json_object_get(answer, "results");
	if (s->o->batch && json_array_size(results) == g->count)
		json_array_foreach(results, i, result)
		{
			judge_result(s, g, result);
		}
	else if (g->post.status == ACCEPTED && !s->o->batch)
		accept_line(s, g->lines[0], answer);
	else
		fail_group(s, g, answer);
}

static bool done_group(void *arg, struct post *p)
{
	struct sending *s = arg;
	struct group *g = container_of(p, struct group, post);
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	if (json_read(buf_str(&p->answer), &answer, &e) < 0)
		answer = NULL;
	judge(s, g, answer);
	int code = send_exit_code(p);
	if (code == EXIT_REFUSED || code == EXIT_UNAVAILABLE)
		s->stopped = true;
	group_free(g);
	return !s->stopped;
}

static void show_progress(void *arg, int64_t wait_ms)
{
	const struct sending *s = arg;
	if (wait_ms > 0)
		term_progress("%llu accepted, %llu failed; the server is unavailable, next attempt in %.1f s",
			(unsigned long long)s->accepted, (unsigned long long)s->failed,
			(double)wait_ms / 1000);
	else
		term_progress("%llu accepted, %llu failed", (unsigned long long)s->accepted,
			(unsigned long long)s->failed);
}

/* Whether lines are left that were never sent. */
static bool has_rest(struct sending *s)
{
	return s->stopped && next_line(s);
}

static void print_summary_json(struct sending *s, bool rest)
{
	json_close_array(&s->out);
	json_put_int(&s->out, "accepted", (int64_t)s->accepted);
	json_put_int(&s->out, "failed", (int64_t)s->failed);
	if (rest)
		json_put_int(&s->out, "unsent_from_line", (int64_t)s->line_number);
	json_close_object(&s->out);
	fwrite(s->report.p, 1, s->report.n, stdout);
	fputc('\n', stdout);
}

static void print_summary(struct sending *s)
{
	bool rest = has_rest(s);
	term_progress_clear();
	if (s->o->json)
		print_summary_json(s, rest);
	else
		printf("%llu accepted, %llu failed\n", (unsigned long long)s->accepted,
			(unsigned long long)s->failed);
	if (rest)
		term_error(command, "stopped; line %llu and what follows it were not sent",
			(unsigned long long)s->line_number);
}

static int send_lines(struct sending *s)
{
	struct err e = ERR_INIT;
	struct poster poster = {.https = s->o->https,
		.path = s->o->batch ? "/api/v1/messages/batch" : "/api/v1/messages",
		.content_type = s->o->batch ? "application/x-ndjson" : "application/json",
		.parallel = s->o->parallel,
		.retries = s->o->retries,
		.arg = s,
		.next = next_group,
		.done = done_group,
		.progress = show_progress};
	int rc = poster_run(&poster, &e);
	if (rc == 0 && s->err.kind == ERR_NONE && s->unreadable)
		rc = err_set(&e, ERR_FATAL, "read '%s': input error", s->o->file);
	else if (rc == 0 && s->err.kind != ERR_NONE) {
		e = s->err;
		rc = -1;
	}
	print_summary(s);
	if (buf_check(&s->report, &e) < 0)
		rc = err_context(&e, "list the failures");
	return rc < 0 ? gravest(s->code, cli_fail(command, &e)) : s->code;
}

int send_file(const struct send_options *o)
{
	struct err e = ERR_INIT;
	bool standard_input = strcmp(o->file, "-") == 0;
	struct sending s = {.o = o, .file = standard_input ? stdin : fopen(o->file, "re"), .code = EXIT_DONE};
	if (!s.file) {
		err_sys(&e, errno == ENOENT ? ERR_NOT_FOUND : ERR_FATAL, "open '%s'", o->file);
		return cli_fail(command, &e);
	}
	buf_init(&s.line, LINE_BYTES);
	buf_init(&s.report, REPORT_BYTES);
	s.out = json_out_to(&s.report);
	json_open_object(&s.out, NULL);
	json_open_array(&s.out, "failures");
	int code = send_lines(&s);
	buf_wipe(&s.line);
	buf_clear(&s.report);
	if (!standard_input)
		fclose(s.file);
	return code;
}
