/* post.c - see post.h. libcurl's multi interface: one slot with its own handle for each request that may be
 * under way; connections live in the multi handle and are shared by the slots. */
#include "cli/post.h"

#include <openssl/rand.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

enum {
	BODY_BYTES = 8 << 20,
	KEY_RANDOM_BYTES = 16,
	BACKOFF_FIRST_MS = 500,
	BACKOFF_LIMIT_MS = 30000,
	WAIT_LIMIT_MS = 120000, /* a Retry-After beyond this is for the user to decide */
	TICK_MS = 200,
	UNAVAILABLE = 503,
	TOO_MANY_REQUESTS = 429,
};

struct slot {
	CURL *curl;
	struct curl_slist *headers;
	struct https_failure failure;
	struct buf answer;
	struct post *post; /* NULL: free */
};

struct state {
	const struct poster *o;
	CURLM *multi;
	struct slot *slots;
	unsigned slot_count, active;
	struct post *waiting; /* for another attempt */
	int64_t resume_ms;    /* nothing is sent before */
	bool stopped, exhausted;
};

int post_init(struct post *p, const char *prefix, uint64_t number, struct err *e)
{
	unsigned char random[KEY_RANDOM_BYTES];
	*p = (struct post){.status = 0};
	buf_init(&p->body, BODY_BYTES);
	buf_init(&p->answer, HTTPS_ANSWER_BYTES);
	if (prefix) {
		snprintf(p->key, sizeof(p->key), "%s-%llu", prefix, (unsigned long long)number);
		return 0;
	}
	if (RAND_bytes(random, sizeof(random)) != 1)
		return err_set(e, ERR_FATAL, "no random numbers to be had");
	hex_encode(random, sizeof(random), p->key);
	return 0;
}

void post_clear(struct post *p)
{
	buf_wipe(&p->body);
	buf_clear(&p->answer);
}

static int64_t now_ms(void)
{
	return clock_mono(&clock_system).ns / 1000000;
}

static int set_headers(struct slot *s, const char *content_type, const char *key, struct err *e)
{
	char line[POST_KEY_BYTES + 32];
	curl_slist_free_all(s->headers);
	s->headers = NULL;
	const char *const names[] = {"Content-Type", "Idempotency-Key", "Expect"},
			  *values[] = {content_type, key, ""};
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(line, sizeof(line), "%s:%s%s", names[i], *values[i] ? " " : "", values[i]);
		struct curl_slist *longer = curl_slist_append(s->headers, line);
		if (!longer)
			return err_oom(e);
		s->headers = longer;
	}
	return 0;
}

static int start(struct state *st, struct slot *s, struct post *p, struct err *e)
{
	if (set_headers(s, st->o->content_type, p->key, e) < 0)
		return -1;
	buf_reset(&s->answer);
	s->failure.alert = -1;
	*s->failure.text = 0;
	curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, s->headers);
	curl_easy_setopt(s->curl, CURLOPT_POSTFIELDS, p->body.p);
	curl_easy_setopt(s->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)p->body.n);
	curl_easy_setopt(s->curl, CURLOPT_PRIVATE, s);
	s->post = p;
	p->attempts++;
	if (curl_multi_add_handle(st->multi, s->curl) != CURLM_OK)
		return err_oom(e);
	st->active++;
	return 0;
}

static struct post *take_post(struct state *st)
{
	struct post *p = st->waiting;
	if (p) {
		st->waiting = p->next;
		return p;
	}
	if (!st->exhausted)
		p = st->o->next(st->o->arg);
	st->exhausted = !p;
	return p;
}

static int fill_slots(struct state *st, struct err *e)
{
	for (unsigned i = 0; i < st->slot_count && !st->stopped && now_ms() >= st->resume_ms; i++) {
		struct slot *s = &st->slots[i];
		struct post *p = s->post ? NULL : take_post(st);
		if (p && start(st, s, p, e) < 0)
			return -1;
	}
	return 0;
}

static void finish(struct state *st, struct post *p)
{
	if (!st->o->done(st->o->arg, p))
		st->stopped = true;
}

static int64_t backoff_ms(unsigned attempts)
{
	int64_t ms = BACKOFF_FIRST_MS;
	for (unsigned i = 1; i < attempts && ms < BACKOFF_LIMIT_MS; i++)
		ms *= 2;
	return ms < BACKOFF_LIMIT_MS ? ms : BACKOFF_LIMIT_MS;
}

static bool may_work_later(const struct post *p)
{
	if (!p->status)
		return p->err.kind == ERR_RETRY;
	return p->status == UNAVAILABLE || p->status == TOO_MANY_REQUESTS;
}

/* Puts the post aside for another attempt; false when it has had its chances. */
static bool retry(struct state *st, struct post *p)
{
	if (st->stopped || !may_work_later(p) || p->attempts > st->o->retries ||
		p->retry_after_ms > WAIT_LIMIT_MS)
		return false;
	int64_t at = now_ms() + (p->retry_after_ms > 0 ? p->retry_after_ms : backoff_ms(p->attempts));
	st->resume_ms = at > st->resume_ms ? at : st->resume_ms;
	p->next = st->waiting;
	st->waiting = p;
	return true;
}

/* The alert may have been noted by another slot: that one opened the connection. */
static const struct https_failure *failure_of(const struct state *st, const struct slot *s)
{
	for (unsigned i = 0; i < st->slot_count; i++)
		if (st->slots[i].failure.alert >= 0)
			return &st->slots[i].failure;
	return &s->failure;
}

static void complete(struct state *st, struct slot *s, CURLcode code)
{
	struct post *p = s->post;
	long status = 0;
	curl_off_t retry_after_s = 0;
	curl_multi_remove_handle(st->multi, s->curl);
	s->post = NULL;
	st->active--;
	buf_reset(&p->answer);
	p->err = ERR_INIT;
	if (code == CURLE_OK) {
		curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
		curl_easy_getinfo(s->curl, CURLINFO_RETRY_AFTER, &retry_after_s);
		buf_add_str(&p->answer, buf_str(&s->answer));
	} else {
		https_error(code, failure_of(st, s), st->o->https.url, &p->err);
	}
	p->status = (int)status;
	p->retry_after_ms = retry_after_s < INT32_MAX ? (int64_t)retry_after_s * 1000 : INT64_MAX;
	if (!retry(st, p))
		finish(st, p);
}

/* True when there was anything: then there are free slots. */
static bool complete_all(struct state *st)
{
	CURLMsg *m;
	int left;
	bool any = false;
	while ((m = curl_multi_info_read(st->multi, &left))) {
		struct slot *s;
		if (m->msg != CURLMSG_DONE)
			continue;
		CURLcode code = m->data.result;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
		complete(st, s, code);
		any = true;
	}
	return any;
}

/* After a stop: nothing will be tried again. */
static void give_back_waiting(struct state *st)
{
	while (st->stopped && st->waiting) {
		struct post *p = st->waiting;
		st->waiting = p->next;
		finish(st, p);
	}
}

static int turn(struct state *st, struct err *e)
{
	int running;
	int64_t wait = st->resume_ms - now_ms();
	CURLMcode code = curl_multi_perform(st->multi, &running);
	bool any = complete_all(st);
	give_back_waiting(st);
	if (st->o->progress)
		st->o->progress(st->o->arg, st->waiting && wait > 0 ? wait : 0);
	if (code == CURLM_OK && !any && (st->active || st->waiting))
		code = curl_multi_poll(
			st->multi, NULL, 0, wait > 0 && wait < TICK_MS ? (int)wait : TICK_MS, NULL);
	return code == CURLM_OK ? 0 : err_set(e, ERR_FATAL, "libcurl: %s", curl_multi_strerror(code));
}

static bool is_finished(const struct state *st)
{
	return !st->active && !st->waiting && (st->stopped || st->exhausted);
}

static int run(struct state *st, struct err *e)
{
	do {
		if (fill_slots(st, e) < 0 || turn(st, e) < 0)
			return -1;
	} while (!is_finished(st));
	return 0;
}

static int init(struct state *st, struct err *e)
{
	st->multi = curl_multi_init();
	st->slots = calloc(st->o->parallel, sizeof(*st->slots));
	if (!st->multi || !st->slots)
		return err_oom(e);
	curl_multi_setopt(st->multi, CURLMOPT_MAXCONNECTS, (long)st->o->parallel);
	for (; st->slot_count < st->o->parallel; st->slot_count++) {
		struct slot *s = &st->slots[st->slot_count];
		buf_init(&s->answer, HTTPS_ANSWER_BYTES);
		if (https_handle(&st->o->https, st->o->path, &s->answer, &s->failure, &s->curl, e) < 0)
			return -1;
	}
	return 0;
}

/* Posts still under way when the run ends in an error go back to their owner. */
static void abandon(struct state *st, const struct err *why)
{
	st->stopped = true;
	give_back_waiting(st);
	for (unsigned i = 0; i < st->slot_count; i++) {
		struct post *p = st->slots[i].post;
		if (!p)
			continue;
		curl_multi_remove_handle(st->multi, st->slots[i].curl);
		p->status = 0;
		p->err = *why;
		finish(st, p);
	}
}

/* The multi handle's connections refer to the slots, so it goes before them. */
static void clear(struct state *st)
{
	curl_multi_cleanup(st->multi);
	for (unsigned i = 0; i < st->slot_count; i++) {
		curl_easy_cleanup(st->slots[i].curl);
		curl_slist_free_all(st->slots[i].headers);
		buf_clear(&st->slots[i].answer);
	}
	free(st->slots);
}

int poster_run(const struct poster *o, struct err *e)
{
	struct state st = {.o = o};
	int rc = init(&st, e);
	if (rc == 0)
		rc = run(&st, e);
	if (rc < 0)
		abandon(&st, e);
	clear(&st);
	return rc;
}
