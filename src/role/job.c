/* job.c - see job.h. The job lives in the request's arena, so that nothing has to be freed but its body
 * and its own arena. */
#include "role/job.h"

#include <stdio.h>

#include "base/log.h"

static void job_done(struct work *w)
{
	struct job *j = container_of(w, struct job, work);
	struct http_request *r = j->request;
	struct buf body = j->body;
	struct arena arena = j->arena; /* the job ends with the request */
	if (j->failed && j->has_problem) {
		struct http_problem_options o = {.detail = j->err.text[0] ? j->err.text : NULL};
		if (j->field.code) {
			o.fields = &j->field;
			o.field_count = 1;
		}
		http_reply_problem(r, j->problem, &o);
	} else if (j->failed) {
		http_reply_err(r, &j->err);
	} else if (body.failed) {
		struct err e = ERR_INIT;
		err_set(&e, ERR_FATAL, "the answer is larger than %d bytes", JOB_BODY_BYTES);
		http_reply_err(r, &e);
	} else {
		if (j->location[0])
			http_set_header(r, "Location", str_of(j->location));
		http_reply(r, j->status, j->content_type, buf_str(&body));
	}
	buf_wipe(&body);
	arena_clear(&arena);
}

static void job_work(struct work *w)
{
	struct job *j = container_of(w, struct job, work);
	j->run(j);
}

void job_start(struct http_request *r, struct work_pool *pool, void (*run)(struct job *j))
{
	struct job *j = arena_zalloc(r->arena, sizeof(*j));
	if (!j) {
		http_reply_problem(r, PROBLEM_UNAVAILABLE, NULL);
		return;
	}
	j->request = r;
	j->run = run;
	j->status = 200;
	j->content_type = "application/json";
	arena_init(&j->arena, JOB_ARENA_BYTES);
	buf_init(&j->body, JOB_BODY_BYTES);
	j->work = (struct work){.loop = r->loop, .work = job_work, .done = job_done};
	if (work_submit(pool, &j->work) == LOOP_WORK_FULL)
		http_reply_problem(r, PROBLEM_UNAVAILABLE,
			&(struct http_problem_options){.detail = "too many administrative requests at once"});
}

void job_fail(struct job *j, const struct err *e)
{
	j->failed = true;
	j->err = *e;
}

void job_invalid(struct job *j, const char *pointer, const char *code, const char *detail)
{
	j->failed = j->has_problem = true;
	j->problem = PROBLEM_VALIDATION_ERROR;
	j->err = ERR_INIT;
	j->field = (struct http_field_problem){pointer, code, detail};
}

json_t *job_json(struct job *j)
{
	json_t *object = NULL;
	struct err e = ERR_INIT;
	if (json_read(j->request->body, &object, &e) < 0) {
		j->field = (struct http_field_problem){
			"", "malformed_json", arena_strdup(j->request->arena, str_of(e.text))};
		job_invalid(j, "", "malformed_json", j->field.detail);
		return NULL;
	}
	if (!json_is_object(object)) {
		json_decref(object);
		job_invalid(j, "", "wrong_type", "an object is expected");
		return NULL;
	}
	return object;
}

static const char *pointer_of(struct job *j, const char *key)
{
	const char *p = arena_printf(j->request->arena, "/%s", key);
	return p ? p : "";
}

bool job_string(struct job *j, const json_t *object, const char *key, bool required, struct str *ret)
{
	const json_t *value = json_object_get(object, key);
	*ret = (struct str){"", 0};
	if (!value) {
		if (required)
			job_invalid(j, pointer_of(j, key), "required", "this member is required");
		return !required;
	}
	if (!json_is_string(value)) {
		job_invalid(j, pointer_of(j, key), "wrong_type", "a string is expected");
		return false;
	}
	*ret = arena_copy(&j->arena, str_mem(json_string_value(value), json_string_length(value)));
	if (!ret->p) {
		struct err e = ERR_INIT;
		err_oom(&e);
		job_fail(j, &e);
	}
	return ret->p != NULL;
}

bool job_integer(struct job *j, const json_t *object, const char *key, int64_t min, int64_t max, int64_t *ret)
{
	const json_t *value = json_object_get(object, key);
	if (!value)
		return true;
	if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max) {
		job_invalid(j, pointer_of(j, key), "out_of_range",
			arena_printf(j->request->arena, "a whole number from %lld to %lld is expected",
				(long long)min, (long long)max));
		return false;
	}
	*ret = json_integer_value(value);
	return true;
}

bool job_boolean(struct job *j, const json_t *object, const char *key, bool *ret)
{
	const json_t *value = json_object_get(object, key);
	if (!value)
		return true;
	if (!json_is_boolean(value)) {
		job_invalid(j, pointer_of(j, key), "wrong_type", "true or false is expected");
		return false;
	}
	*ret = json_is_true(value);
	return true;
}

bool job_known(struct job *j, const json_t *object, const char *const *known)
{
	/* jansson's iterators take a non-const object but do not change it. */
	json_t *o = (json_t *)(uintptr_t)object;
	for (void *it = json_object_iter(o); it; it = json_object_iter_next(o, it)) {
		const char *key = json_object_iter_key(it);
		bool found = false;
		for (const char *const *k = known; *k && !found; k++)
			found = strcmp(*k, key) == 0;
		if (!found) {
			job_invalid(j, pointer_of(j, key), "unknown_member", "this member is not known here");
			return false;
		}
	}
	return true;
}

bool job_limit(struct job *j, unsigned *ret)
{
	struct str text = http_query(j->request, STR("limit"));
	uint64_t limit = 50;
	if (text.p && (!str_to_u64(text, &limit) || limit < 1 || limit > 500)) {
		job_invalid(j, "?limit", "out_of_range", "a whole number from 1 to 500 is expected");
		return false;
	}
	*ret = (unsigned)limit;
	return true;
}

bool job_query_time(struct job *j, const char *name, struct wall *ret)
{
	struct str text = http_query(j->request, str_of(name));
	ret->ms = 0;
	if (text.p && !wall_parse(text, ret)) {
		const char *where = arena_printf(j->request->arena, "?%s", name);
		job_invalid(j, where ? where : "", "not_a_time",
			"a time such as 2026-01-31T12:00:00Z is expected");
		return false;
	}
	return true;
}

bool job_cursor(struct job *j, int64_t *ret)
{
	struct str text = http_query(j->request, STR("cursor"));
	*ret = 0;
	if (!text.p || !text.n)
		return true;
	if (text.p[0] != 'c' || !str_to_i64(str_mem(text.p + 1, text.n - 1), ret) || *ret < 1) {
		job_invalid(j, "?cursor", "not_a_cursor", "pass next_cursor of the page before");
		return false;
	}
	return true;
}

void job_put_cursor(struct json_out *w, int64_t cursor)
{
	char text[32];
	if (!cursor) {
		json_put_null(w, "next_cursor");
		return;
	}
	snprintf(text, sizeof(text), "c%lld", (long long)cursor);
	json_put_str(w, "next_cursor", str_of(text));
}
