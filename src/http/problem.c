/* problem.c - problem details (RFC 9457), by the table problems.def. The type is a URN made of the code, so
 * that it can be told apart by programs without being an address that somebody has to serve. */
#include <stdio.h>

#include "base/json.h"
#include "base/log.h"
#include "http/http.h"

static const struct {
	const char *code, *title;
	int status;
} problems[] = {
#define PROBLEM(id, code_, status_, title_) {code_, title_, status_},
#include "http/problems.def"
#undef PROBLEM
};

enum { TYPE_BYTES = 64, RETRY_AFTER_S = 1 };

const char *http_problem_code(enum http_problem problem)
{
	return problems[problem].code;
}

int http_problem_status(enum http_problem problem)
{
	return problems[problem].status;
}

unsigned http_problem_retry_after_s(enum http_problem problem)
{
	int status = problems[problem].status;
	return status == 429 || status == 503 ? RETRY_AFTER_S : 0;
}

/* "urn:sealpost:problem:validation-error": codes have '_' where URNs commonly have '-'. */
static struct str type_of(enum http_problem problem, char *out)
{
	int n = snprintf(out, TYPE_BYTES, "urn:sealpost:problem:%s", problems[problem].code);
	ensure(n > 0 && n < TYPE_BYTES);
	for (char *p = out; (p = strchr(p, '_'));)
		*p = '-';
	return str_mem(out, (size_t)n);
}

static void write_fields(struct json_out *w, const struct http_problem_options *o)
{
	json_open_array(w, "errors");
	for (unsigned i = 0; i < o->field_count; i++) {
		const struct http_field_problem *f = &o->fields[i];
		json_open_object(w, NULL);
		json_put_str(w, "pointer", str_of(f->pointer));
		json_put_str(w, "code", str_of(f->code));
		if (f->detail)
			json_put_str(w, "detail", str_of(f->detail));
		json_close_object(w);
	}
	json_close_array(w);
}

void http_problem_write(struct buf *out, enum http_problem problem, const struct http_problem_options *o,
	const char *request_id)
{
	struct json_out w = json_out_to(out);
	char type[TYPE_BYTES];
	json_open_object(&w, NULL);
	json_put_str(&w, "type", type_of(problem, type));
	json_put_str(&w, "title", str_of(problems[problem].title));
	json_put_int(&w, "status", problems[problem].status);
	json_put_str(&w, "code", str_of(problems[problem].code));
	if (o && o->detail)
		json_put_str(&w, "detail", str_of(o->detail));
	if (o && o->field_count)
		write_fields(&w, o);
	if (request_id)
		json_put_str(&w, "request_id", str_of(request_id));
	json_close_object(&w);
}

static const enum http_problem by_kind[ERR_KINDS] = {
	[ERR_NONE] = PROBLEM_INTERNAL_ERROR,
	[ERR_RETRY] = PROBLEM_UNAVAILABLE,
	[ERR_REJECT] = PROBLEM_VALIDATION_ERROR,
	[ERR_FORBIDDEN] = PROBLEM_FORBIDDEN,
	[ERR_NOT_FOUND] = PROBLEM_NOT_FOUND,
	[ERR_CONFLICT] = PROBLEM_CONFLICT,
	[ERR_FATAL] = PROBLEM_INTERNAL_ERROR,
};

/* Rounded up: who comes back early has come in vain. */
static unsigned retry_after_s(const struct err *e)
{
	if (e->retry_after_ms <= 0)
		return 0;
	return e->retry_after_ms < INT32_MAX ? (unsigned)((e->retry_after_ms + 999) / 1000)
					     : INT32_MAX / 1000;
}

void http_reply_err(struct http_request *r, const struct err *e)
{
	enum http_problem problem = by_kind[e->kind];
	bool tell = problem != PROBLEM_INTERNAL_ERROR;
	struct http_problem_options o = {
		.detail = tell && e->text[0] ? e->text : NULL, .retry_after_s = retry_after_s(e)};
	if (!tell)
		log_event(LOG_ERROR, "http.internal_error", LF_STR("request_id", r->request_id), LF_ERR(e));
	http_reply_problem(r, problem, &o);
}
