/* send.c - sealpost send: options, and the single message. */
#include "cli/send.h"

#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "cli/cli.h"
#include "cli/problem.h"
#include "cli/term.h"
#include "message/batch.h"
#include "message/message.h"

enum {
	PARALLEL_MAX = 256,
	RETRIES_MAX = 100,
	RETRIES_SINGLE = 2,
	RETRIES_FILE = 5,
	TIMEOUT_MAX_S = 3600,
	RESUME_KEY_BYTES = 200,
	ACCEPTED = 202
};

static const char command[] = "send";

int send_exit_code(const struct post *p)
{
	static const struct {
		int status, code;
	} codes[] = {{ACCEPTED, EXIT_DONE}, {401, EXIT_REFUSED}, {403, EXIT_REFUSED}, {404, EXIT_NOT_FOUND},
		{429, EXIT_UNAVAILABLE}, {503, EXIT_UNAVAILABLE}};
	if (!p->status)
		return p->err.kind == ERR_FORBIDDEN ? EXIT_REFUSED
		       : p->err.kind == ERR_RETRY   ? EXIT_UNAVAILABLE
						    : EXIT_FAILED;
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (codes[i].status == p->status)
			return codes[i].code;
	return EXIT_FAILED;
}

void send_print_failure(const struct post *p, const char *where, const json_t *answer)
{
	if (p->status)
		problem_print(command, where, p->status, answer);
	else
		term_error(command, "%s%s%s", where, *where ? ": " : "", p->err.text);
	if (p->retry_after_ms)
		fprintf(stderr, "  the server asks to be left alone for %lld s\n",
			(long long)p->retry_after_ms / 1000);
}

/* One message: its post, and the code it ended with. */
struct single {
	const struct send_options *o;
	struct post post;
	bool taken;
	int code;
};

static struct post *next_single(void *arg)
{
	struct single *s = arg;
	struct post *p = s->taken ? NULL : &s->post;
	s->taken = true;
	return p;
}

static void print_accepted(const struct single *s, const json_t *answer)
{
	const char *id = json_string_value(json_object_get(answer, "message_id"));
	struct str text = s->o->json ? buf_str(&s->post.answer) : str_of(id ? id : "");
	term_put_untrusted(stdout, text);
	fputc('\n', stdout);
}

static bool done_single(void *arg, struct post *p)
{
	struct single *s = arg;
	struct err e = ERR_INIT;
	AUTO(json_auto) json_t *answer = NULL;
	s->code = send_exit_code(p);
	/* Without an answer, or with one that is not JSON, there is nothing to quote. */
	if (json_read(buf_str(&p->answer), &answer, &e) < 0)
		answer = NULL;
	term_progress_clear();
	if (s->code == EXIT_DONE)
		print_accepted(s, answer);
	else
		send_print_failure(p, "", answer);
	return true;
}

static void progress_single(void *arg, int64_t wait_ms)
{
	if (wait_ms > 0)
		term_progress("not accepted yet; next attempt in %.1f s", (double)wait_ms / 1000);
}

static int send_single(const struct send_options *o, const char *number, const char *text)
{
	struct err e = ERR_INIT;
	struct single s = {.o = o, .code = EXIT_FAILED};
	struct poster poster = {.https = o->https,
		.path = "/api/v1/messages",
		.content_type = "application/json",
		.parallel = 1,
		.retries = o->retries,
		.arg = &s,
		.next = next_single,
		.done = done_single,
		.progress = progress_single};
	if (post_init(&s.post, o->resume_key, 1, &e) < 0)
		return cli_fail(command, &e);
	struct json_out w = json_out_to(&s.post.body);
	json_open_object(&w, NULL);
	json_put_str(&w, "sender_number", str_of(number));
	json_put_str(&w, "message_body", str_of(text));
	json_close_object(&w);
	if (buf_check(&s.post.body, &e) < 0 || poster_run(&poster, &e) < 0)
		s.code = cli_fail(command, &e);
	post_clear(&s.post);
	return s.code;
}

/* What can be judged here is, before a connection is made; the texts stay out of the errors. */
static int check_message(const char *number, const char *text)
{
	size_t code_points;
	if (!message_number_valid(str_of(number)))
		return cli_usage_error(command, "the number must be in E.164 form: + and 2 to 15 digits");
	if (!utf8_valid(str_of(text), &code_points))
		return cli_usage_error(command, "the text is not valid UTF-8");
	if (code_points < 1 || code_points > MESSAGE_BODY_CODE_POINTS)
		return cli_usage_error(command, "the text must have 1 to %d characters; it has %zu",
			MESSAGE_BODY_CODE_POINTS, code_points);
	return EXIT_DONE;
}

static int check_options(const struct send_options *o, unsigned words)
{
	const struct {
		const char *name, *value;
	} required[] = {
		{"url", o->https.url}, {"cert", o->https.cert}, {"key", o->https.key}, {"ca", o->https.ca}};
	for (size_t i = 0; i < ARRAY_LEN(required); i++)
		if (!required[i].value)
			return cli_usage_error(command, "--%s is missing", required[i].name);
	if (!str_starts(str_of(o->https.url), STR("https://")))
		return cli_usage_error(command, "--url takes https://HOST:PORT");
	if (o->file ? words != 0 : words != 2)
		return cli_usage_error(command, "give a number and a text, or --file FILE");
	if (!o->file && (o->batch || o->ids))
		return cli_usage_error(command, "--batch and --ids go with --file");
	if (o->resume_key &&
		(!*o->resume_key || strlen(o->resume_key) > RESUME_KEY_BYTES ||
			strspn(o->resume_key,
				"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") !=
				strlen(o->resume_key)))
		return cli_usage_error(command,
			"--resume-key takes up to %d letters, digits, '.', '_' and '-'", RESUME_KEY_BYTES);
	return EXIT_DONE;
}

static const char example[] =
	"  sealpost send --url https://127.0.0.1:8001 --cert c.pem --key c.key --ca ca.pem +4915112345678 'Hello'\n"
	"  sealpost send --url https://127.0.0.1:8001 --cert c.pem --key c.key --ca ca.pem --file messages.ndjson --batch 100";

int cmd_send(int argc, char **argv)
{
	struct send_options o = {.https.timeout_ms = 0};
	int64_t batch = 0, parallel = 16, retries = -1, timeout_s = 30;
	const struct arg options[] = {
		{"url", ARG_TEXT, &o.https.url, "URL", "where the proxy listens: https://HOST:PORT"},
		{"cert", ARG_TEXT, &o.https.cert, "FILE", "client certificate, PEM"},
		{"key", ARG_TEXT, &o.https.key, "FILE", "its private key, PEM"},
		{"ca", ARG_TEXT, &o.https.ca, "FILE",
			"the authority that the server's certificate must come from"},
		{"file", ARG_TEXT, &o.file, "FILE", "send each line, a JSON message; - reads standard input"},
		{"batch", ARG_INT, &batch, "N", "with --file: N messages in one request", 1, BATCH_ITEMS},
		{"parallel", ARG_INT, &parallel, "N", "with --file: requests under way at once (16)", 1,
			PARALLEL_MAX},
		{"ids", ARG_FLAG, &o.ids, NULL,
			"with --file: print line number and message id of what was accepted"},
		{"resume-key", ARG_TEXT, &o.resume_key, "NAME",
			"sent again under the same name, the same lines are not accepted twice"},
		{"retries", ARG_INT, &retries, "N",
			"further attempts when the server is unavailable (2; with --file 5)", 0, RETRIES_MAX},
		{"timeout", ARG_INT, &timeout_s, "S", "seconds for one attempt (30)", 1, TIMEOUT_MAX_S},
		{"json", ARG_FLAG, &o.json, NULL, "print the answer, or the counts, as JSON"},
		{0},
	};
	struct args a = {.command = command,
		.usage = "--url URL --cert FILE --key FILE --ca FILE (NUMBER TEXT | --file FILE) [options]",
		.summary = "Sends a message, or a file of messages, and prints what the server made of it.",
		.example = example,
		.options = options,
		.rest_max = 2};
	struct err e = ERR_INIT;
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	o.batch = (unsigned)batch;
	o.parallel = (unsigned)parallel;
	/* A person waits for a single message; a file is worth waiting with. */
	o.retries = retries >= 0 ? (unsigned)retries : o.file ? RETRIES_FILE : RETRIES_SINGLE;
	o.https.timeout_ms = (long)timeout_s * 1000;
	code = check_options(&o, a.rest_count);
	if (code == EXIT_DONE && !o.file)
		code = check_message(a.rest[0], a.rest[1]);
	if (code != EXIT_DONE)
		return code;
	if (https_check(&o.https, &e) < 0)
		return cli_fail(command, &e);
	return o.file ? send_file(&o) : send_single(&o, a.rest[0], a.rest[1]);
}
