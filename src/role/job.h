/* job.h - a request whose answer needs to block (database, signer): runs on the work pool, answers on its
 *loop.
 *
 *	static void get_thing(struct http_request *r) { job_start(r, pool, run_thing); }
 *	static void run_thing(struct job *j) { … fill j->body or j->err … }
 *
 * The request belongs to the job from job_start until the answer: run() may use its arena and everything in
 *it. That arena is as small as the request; what is read from a store goes to the job's own. Overload: when
 *the pool is full the request is answered 503 at once. Threads:  job_start on the request's loop; run on a
 *pool thread; the answer on the loop again. */
#ifndef ROLE_JOB_H
#define ROLE_JOB_H

#include "base/json.h"
#include "http/http.h"

struct job {
	struct work work;
	struct http_request *request;
	struct arena arena; /* for rows; holds a page of the largest */
	void (*run)(struct job *j);
	/* What run leaves behind: an answer, or a failure. */
	int status;               /* preset to 200 */
	const char *content_type; /* preset to application/json */
	struct buf body;
	bool failed;
	struct err err;
	enum http_problem problem; /* when has_problem: instead of the table over err.kind */
	bool has_problem;
	struct http_field_problem field; /* when .code is set: shown in errors[] */
	char location[160];              /* Location header, "" for none */
};

enum {
	JOB_ARENA_BYTES = 32 * 1024 * 1024,
	JOB_BODY_BYTES = 16 * 1024 * 1024,
};

void job_start(struct http_request *r, struct work_pool *pool, void (*run)(struct job *j));

/* Ends the job as failed with what *e says; for `return job_fail(j, e)`. */
void job_fail(struct job *j, const struct err *e);

/* 400 validation_error with one field. Strings static or in the request's arena. */
void job_invalid(struct job *j, const char *pointer, const char *code, const char *detail);

/* Parses the request's body as a JSON object; NULL when the job has failed. Free with json_decref. */
json_t *job_json(struct job *j);

/* A string member, in the job's arena: required or not; false when the job has failed. Absent: *ret is empty.
 */
bool job_string(struct job *j, const json_t *object, const char *key, bool required, struct str *ret);

/* An integer member within [min, max]; absent: *ret keeps its value. */
bool job_integer(
	struct job *j, const json_t *object, const char *key, int64_t min, int64_t max, int64_t *ret);
bool job_boolean(struct job *j, const json_t *object, const char *key, bool *ret);

/* Refuses members not in `known` (ends with NULL). */
bool job_known(struct job *j, const json_t *object, const char *const *known);

/* Query parameters: ?limit= within [1, 500], default 50; RFC 3339 times; false when the job has failed. */
bool job_limit(struct job *j, unsigned *ret);
bool job_query_time(struct job *j, const char *name, struct wall *ret);

/* Opaque keyset cursor: "c" and digits; absent: 0. */
bool job_cursor(struct job *j, int64_t *ret);
void job_put_cursor(struct json_out *w, int64_t cursor); /* "next_cursor": … or null for 0 */

#endif
