/* redis_session.c - see redis_session.h.
 *
 * Connecting is a row of steps (open_steps), each an exchange of its own: slow, but rare, and each can say
 * what is wrong. After the last one the server is known to be a master that keeps the promise that the
 * configuration makes in its name. */
#include "queue/redis_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/auto.h"
#include "base/metrics.h"
#include "queue/redis_answer.h"
#include "queue/redis_url.h"

enum {
	BACKOFF_FIRST_MS = 50,
	BACKOFF_MAX_MS = 5000,
	SENTINEL_TIMEOUT_MS = 1000,
	SENTINELS_MAX = 16,
	SETUP_BYTES = 1 << 20,
	VERSION_MIN = 7, /* flags of scripts: older servers refuse to drain a full queue */
};

struct redis_session {
	const struct clock *clock;
	struct redis_url url;
	char *user, *password, *sentinel_password;
	char *ca_file, *cert_file, *key_file, *master;
	char *state_key; /* the hash that keeps what belongs to the queue as a whole */
	unsigned partitions;
	struct redis_address sentinels[SENTINELS_MAX], server;
	unsigned sentinel_count, wait_replicas;
	int timeout_ms;
	enum redis_durability durability;
	bool trust_settings;
	struct redis_shas shas;

	struct redis_link *link; /* NULL: not connected */
	struct mono next_try;
	int64_t backoff_ms;
	struct err why_not; /* the last failed attempt */
	struct buf scratch;
};

AUTO_DEFINE(redis_session_close, struct redis_session *)

/* --- one command --- */

static void reply_auto(redisReply **reply)
{
	freeReplyObject(*reply);
}

/* Runs what is in the scratch buffer as one command. */
static int ask(
	struct redis_session *s, struct redis_link *link, int timeout_ms, redisReply **ret, struct err *e)
{
	AUTO(reply_auto) redisReply *reply = NULL;
	if (buf_check(&s->scratch, e) < 0 || redis_link_send(link, buf_str(&s->scratch), timeout_ms, e) < 0 ||
		redis_link_reply(link, &reply, e) < 0)
		return -1;
	if (reply->type == REDIS_REPLY_ERROR) {
		redis_answer(str_mem(reply->str, reply->len), e);
		return -1;
	}
	*ret = TAKE(reply);
	return 0;
}

#define ASK(s, link, ret, e, ...)                                                                            \
	(buf_reset(&(s)->scratch), redis_text_command(&(s)->scratch, __VA_ARGS__, NULL),                     \
		ask(s, link, (s)->timeout_ms, ret, e))

static struct str text_of(const redisReply *r)
{
	return r && (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS) ? str_mem(r->str, r->len)
										     : STR("");
}

/* --- who is master --- */

static struct redis_place place_of(const struct redis_session *s, const struct redis_address *address)
{
	return (struct redis_place){
		.host = address->host,
		.port = address->port,
		.unix_path = s->url.unix_path[0] ? s->url.unix_path : NULL,
		.tls = s->url.tls,
		.ca_file = s->ca_file,
		.cert_file = s->cert_file,
		.key_file = s->key_file,
	};
}

AUTO_DEFINE(redis_link_close, struct redis_link *)

static int ask_sentinel(struct redis_session *s, const struct redis_address *sentinel, struct err *e)
{
	AUTO(redis_link_close_auto) struct redis_link *link = NULL;
	AUTO(reply_auto) redisReply *ok = NULL, *answer = NULL;
	struct redis_place place = place_of(s, sentinel);
	if (redis_link_open(&place, SENTINEL_TIMEOUT_MS, &link, e) < 0)
		return -1;
	if (s->sentinel_password && ASK(s, link, &ok, e, "AUTH", s->sentinel_password) < 0)
		return -1;
	if (ASK(s, link, &answer, e, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s->master) < 0)
		return -1;
	if (answer->type != REDIS_REPLY_ARRAY || answer->elements != 2)
		return err_set(e, ERR_RETRY, "it knows no master '%s': see redis_master", s->master);
	struct str host = text_of(answer->element[0]), port = text_of(answer->element[1]);
	if (host.n >= sizeof(s->server.host) || port.n >= sizeof(s->server.port))
		return err_set(e, ERR_RETRY, "its answer is no address");
	snprintf(s->server.host, sizeof(s->server.host), "%.*s", STR_ARG(host));
	snprintf(s->server.port, sizeof(s->server.port), "%.*s", STR_ARG(port));
	return 0;
}

/* Into s->server; the first Sentinel that knows it is believed: the server itself is asked next. */
static int find_master(struct redis_session *s, struct err *e)
{
	if (!s->sentinel_count) {
		s->server = s->url.address;
		return 0;
	}
	for (unsigned i = 0; i < s->sentinel_count; i++) {
		if (ask_sentinel(s, &s->sentinels[i], e) == 0)
			return 0;
		err_context(e, "sentinel %s:%s", s->sentinels[i].host, s->sentinels[i].port);
	}
	return -1;
}

/* --- the steps of opening a connection --- */

static int step_authenticate(struct redis_session *s, struct err *e)
{
	AUTO(reply_auto) redisReply *ok = NULL;
	if (!s->password)
		return 0;
	return s->user ? ASK(s, s->link, &ok, e, "AUTH", s->user, s->password)
		       : ASK(s, s->link, &ok, e, "AUTH", s->password);
}

static int step_select(struct redis_session *s, struct err *e)
{
	AUTO(reply_auto) redisReply *ok = NULL;
	if (strcmp(s->url.database, "0") == 0)
		return 0;
	return ASK(s, s->link, &ok, e, "SELECT", s->url.database);
}

/* The value of a line "name:value" of INFO; .n == 0 when there is none. */
static struct str info_line(struct str info, struct str name)
{
	struct str line;
	while (str_cut(&info, '\n', &line)) {
		struct str value = line, head;
		if (line.n && line.p[line.n - 1] == '\r')
			value.n--;
		if (str_cut(&value, ':', &head) && str_eq(head, name))
			return value;
	}
	return STR("");
}

static int step_identify(struct redis_session *s, struct err *e)
{
	AUTO(reply_auto) redisReply *reply = NULL;
	if (ASK(s, s->link, &reply, e, "INFO") < 0)
		return -1;
	struct str info = text_of(reply), version = info_line(info, STR("redis_version")), rest = version,
		   head;
	uint64_t major = 0;
	if (!str_cut(&rest, '.', &head) || !str_to_u64(head, &major) || major < VERSION_MIN)
		return err_set(e, ERR_RETRY, "the server's version is %.*s: it has to be %d.0 or later",
			STR_ARG(version), VERSION_MIN);
	if (str_eq(info_line(info, STR("redis_mode")), STR("cluster")))
		return redis_answer(STR("MOVED"), e), -1;
	if (str_eq(info_line(info, STR("loading")), STR("1")))
		return redis_answer(STR("LOADING"), e), -1;
	if (!str_eq(info_line(info, STR("role")), STR("master")))
		return redis_answer(STR("READONLY"), e), -1;
	return 0;
}

/* What the promise needs of the server's configuration. */
static const struct demand {
	const char *name, *wanted, *or_wanted, *why;
	bool fsync_only;
} demands[] = {
	{"appendonly", "yes", NULL, "else a restart of the server loses accepted messages", false},
	{"appendfsync", "always", NULL, "or promise less with `durability: everysec`", true},
	{"appendfsync", "everysec", "always", "else power loss costs more than a second", false},
	{"no-appendfsync-on-rewrite", "no", NULL, "else nothing is synced during a rewrite", true},
	{"maxmemory-policy", "noeviction", NULL, "else the server drops accepted messages", false},
};

/* The value that CONFIG GET has answered for this name. */
static struct str setting(const redisReply *settings, const char *name)
{
	for (size_t i = 0; i + 1 < settings->elements; i += 2)
		if (str_eq(text_of(settings->element[i]), str_of(name)))
			return text_of(settings->element[i + 1]);
	return STR("");
}

static int check_demand(const struct demand *d, struct str is, struct err *e)
{
	if (str_eq(is, str_of(d->wanted)) || (d->or_wanted && str_eq(is, str_of(d->or_wanted))))
		return 0;
	return err_set(e, ERR_RETRY, "`%s` is '%.*s': set `%s %s`, %s", d->name, STR_ARG(is), d->name,
		d->wanted, d->why);
}

/* A master that fails takes with it what no replica has. */
static int check_replicas(const struct redis_session *s, const redisReply *settings, struct err *e)
{
	if (!s->sentinel_count || s->wait_replicas ||
		!str_eq(setting(settings, "min-replicas-to-write"), STR("0")))
		return 0;
	return err_set(e, ERR_RETRY,
		"`min-replicas-to-write` is 0: set it to 1, or redis_wait_replicas, else a fail-over loses "
		"accepted messages");
}

static int step_verify(struct redis_session *s, struct err *e)
{
	AUTO(reply_auto) redisReply *settings = NULL;
	if (s->trust_settings)
		return 0;
	if (ASK(s, s->link, &settings, e, "CONFIG", "GET", "appendonly", "appendfsync",
		    "no-appendfsync-on-rewrite", "maxmemory-policy", "min-replicas-to-write") < 0)
		return err_context(e,
			"reading its settings (CONFIG GET; if it may not be allowed, verify them "
			"yourself and set redis_settings: trusted)");
	for (size_t i = 0; i < ARRAY_LEN(demands); i++) {
		if (demands[i].fsync_only && s->durability != REDIS_FSYNC)
			continue;
		if (check_demand(&demands[i], setting(settings, demands[i].name), e) < 0)
			return -1;
	}
	return check_replicas(s, settings, e);
}

static int load_scripts(struct redis_session *s, struct err *e)
{
	buf_reset(&s->scratch);
	redis_scripts_load(&s->scratch);
	if (buf_check(&s->scratch, e) < 0 ||
		redis_link_send(s->link, buf_str(&s->scratch), s->timeout_ms, e) < 0)
		return -1;
	for (unsigned i = 0; i < REDIS_SCRIPTS; i++) {
		AUTO(reply_auto) redisReply *reply = NULL;
		if (redis_link_reply(s->link, &reply, e) < 0)
			return -1;
		if (reply->type == REDIS_REPLY_ERROR)
			return redis_answer(str_mem(reply->str, reply->len), e), -1;
	}
	return 0;
}

static int step_connect(struct redis_session *s, struct err *e)
{
	struct redis_place place = place_of(s, &s->server);
	return redis_link_open(&place, s->timeout_ms, &s->link, e);
}

static int partitions_of_queue(struct redis_session *s, redisReply **ret, struct err *e)
{
	return ASK(s, s->link, ret, e, "HGET", s->state_key, "partitions");
}

/* The queue remembers how many partitions it was made with: a process that counts otherwise would put messages
 * where nobody looks for them, and leave others lying. Asked first, because a server that is full takes no write,
 * and has to be drained. */
static int step_partitions(struct redis_session *s, struct err *e)
{
	AUTO(reply_auto) redisReply *known = NULL, *claimed = NULL, *first = NULL;
	char ours[16];
	snprintf(ours, sizeof(ours), "%u", s->partitions);
	if (partitions_of_queue(s, &known, e) < 0)
		return -1;
	bool is_new = known->type == REDIS_REPLY_NIL;
	if (is_new && (ASK(s, s->link, &claimed, e, "HSETNX", s->state_key, "partitions", ours) < 0 ||
			      partitions_of_queue(s, &first, e) < 0))
		return -1;
	struct str theirs = text_of(is_new ? first : known);
	if (str_eq(theirs, str_of(ours)))
		return 0;
	return err_set(e, ERR_RETRY,
		"redis_partitions is %s here, but the queue has %.*s: set it to %.*s (doc/operations.md says how "
		"to change it)",
		ours, STR_ARG(theirs), STR_ARG(theirs));
}

static int (*const open_steps[])(struct redis_session *s, struct err *e) = {step_connect, step_authenticate,
	step_select, step_identify, step_verify, load_scripts, step_partitions};

/* --- connecting again --- */

static void disconnect(struct redis_session *s)
{
	redis_link_close(s->link);
	s->link = NULL;
}

/* "redis HOST:PORT: ", in front of every error. */
static int name_server(const struct redis_session *s, struct err *e)
{
	if (s->url.unix_path[0])
		return err_context(e, "redis %s", s->url.unix_path);
	return err_context(e, "redis %s:%s", s->server.host, s->server.port);
}

/* Half of the wait is by chance, so that those who lost a server together do not come back together. */
static void back_off(struct redis_session *s)
{
	unsigned char chance = 0;
	if (getrandom(&chance, sizeof(chance), GRND_NONBLOCK) < 0)
		chance = UINT8_MAX / 2;
	s->backoff_ms = s->backoff_ms ? s->backoff_ms * 2 : BACKOFF_FIRST_MS;
	if (s->backoff_ms > BACKOFF_MAX_MS)
		s->backoff_ms = BACKOFF_MAX_MS;
	s->next_try =
		mono_add_ms(clock_mono(s->clock), s->backoff_ms / 2 + s->backoff_ms * chance / UINT8_MAX / 2);
}

static int try_steps(struct redis_session *s, struct err *e)
{
	if (find_master(s, e) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(open_steps); i++)
		if (open_steps[i](s, e) < 0)
			return name_server(s, e);
	return 0;
}

int redis_session_ensure(struct redis_session *s, struct err *e)
{
	if (s->link)
		return 0;
	if (!mono_reached(clock_mono(s->clock), s->next_try)) {
		if (e)
			*e = s->why_not;
		return -1;
	}
	s->why_not = ERR_INIT;
	bool ok = try_steps(s, &s->why_not) == 0;
	series_add(metric_series1(METRIC_REDIS_CONNECTIONS, ok ? "ok" : "failed"), 1);
	if (ok) {
		s->backoff_ms = 0;
		return 0;
	}
	disconnect(s);
	back_off(s);
	if (e)
		*e = s->why_not;
	return -1;
}

struct mono redis_session_next_try(const struct redis_session *s)
{
	static const struct mono never = {INT64_MAX};
	return s->link ? never : s->next_try;
}

/* The connection broke, or is better opened anew: at once, for the first time. */
static void reopen(struct redis_session *s)
{
	disconnect(s);
	s->next_try = clock_mono(s->clock);
}

/* --- exchanges --- */

/* Of the replies to an exchange. */
struct outcome {
	struct err error; /* the first one */
	enum redis_remedy remedy;
	bool broken; /* the connection */
};

static void note_error(struct outcome *o, const redisReply *reply)
{
	struct err e = ERR_INIT;
	enum redis_remedy remedy = redis_answer(str_mem(reply->str, reply->len), &e);
	if (o->error.kind == ERR_NONE)
		o->error = e;
	if (remedy > o->remedy)
		o->remedy = remedy;
}

static void add_wait(struct redis_session *s)
{
	redis_command(&s->scratch, 3);
	redis_word(&s->scratch, STR("WAIT"));
	redis_number(&s->scratch, s->wait_replicas);
	redis_number(&s->scratch, s->timeout_ms);
}

static int check_wait(const struct redis_session *s, const redisReply *reply, struct err *e)
{
	if (reply->type == REDIS_REPLY_INTEGER && reply->integer >= s->wait_replicas)
		return 0;
	return err_set(e, ERR_RETRY, "%lld of %u replicas have confirmed: see redis_wait_replicas",
		reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0, s->wait_replicas);
}

static int send_exchange(struct redis_session *s, const struct redis_exchange *x, bool wait, struct err *e)
{
	if (redis_link_send(s->link, x->commands, s->timeout_ms, e) < 0)
		return -1;
	if (!wait)
		return 0;
	buf_reset(&s->scratch);
	add_wait(s);
	if (buf_check(&s->scratch, e) < 0)
		return -1;
	/* What WAIT waits for is the server's business: more time than for the answer itself. */
	return redis_link_send(s->link, buf_str(&s->scratch), 2 * s->timeout_ms, e);
}

static int take_reply(struct redis_session *s, const struct redis_exchange *x, unsigned number,
	struct outcome *o, struct err *e)
{
	AUTO(reply_auto) redisReply *reply = NULL;
	if (redis_link_reply(s->link, &reply, e) < 0)
		return -1;
	if (reply->type == REDIS_REPLY_ERROR) {
		note_error(o, reply);
		return 0;
	}
	struct err why = ERR_INIT;
	int rc = number == x->count ? check_wait(s, reply, &why)
		 : x->reply         ? x->reply(x->arg, number, reply, &why)
				    : 0;
	if (rc < 0 && o->error.kind == ERR_NONE)
		o->error = why;
	if (x->keep && number < x->count) {
		freeReplyObject(x->keep[number]);
		x->keep[number] = TAKE(reply);
	}
	return 0;
}

/* Once through the connection there is. */
static void pass(struct redis_session *s, const struct redis_exchange *x, struct outcome *o)
{
	struct err e = ERR_INIT;
	bool wait = x->writes && s->wait_replicas;
	*o = (struct outcome){.error = ERR_INIT};
	int rc = send_exchange(s, x, wait, &e);
	for (unsigned i = 0; rc == 0 && i < x->count + wait; i++)
		rc = take_reply(s, x, i, o, &e);
	if (rc < 0) {
		o->broken = true;
		o->error = e;
	}
}

/* Whether sending it again makes sense; the connection is ready for that then. */
static bool prepare_again(struct redis_session *s, const struct redis_exchange *x, const struct outcome *o)
{
	if (o->remedy == REDIS_RELOAD && !o->broken)
		return load_scripts(s, NULL) == 0;
	/* After a timeout the server may be about to do it. */
	if (!o->broken || !x->again || o->error.sys_errno == ETIMEDOUT)
		return false;
	reopen(s);
	return redis_session_ensure(s, NULL) == 0;
}

int redis_session_exchange(struct redis_session *s, struct redis_exchange *x, struct err *e)
{
	struct outcome o;
	x->was_sent_again = false;
	if (redis_session_ensure(s, e) < 0)
		return -1;
	pass(s, x, &o);
	if (prepare_again(s, x, &o)) {
		x->was_sent_again = true;
		pass(s, x, &o);
	}
	if (o.broken || o.remedy == REDIS_REOPEN)
		reopen(s);
	if (o.error.kind == ERR_NONE)
		return 0;
	if (e)
		*e = o.error;
	return name_server(s, e);
}

/* --- open, close --- */

static bool copy_text(char **to, const char *from)
{
	*to = from && *from ? strdup(from) : NULL;
	return *to || !from || !*from;
}

static bool copy_texts(struct redis_session *s, const struct redis_options *o)
{
	return copy_text(&s->user, o->user) && copy_text(&s->password, o->password) &&
	       copy_text(&s->ca_file, o->ca_file) && copy_text(&s->cert_file, o->cert_file) &&
	       copy_text(&s->key_file, o->key_file) && copy_text(&s->master, o->master) &&
	       copy_text(&s->sentinel_password, o->sentinel_password);
}

static int parse_sentinels(struct redis_session *s, struct str list, struct err *e)
{
	struct str one;
	for (bool more = list.n > 0; more;) {
		more = str_cut(&list, ',', &one);
		if (!more)
			one = list;
		if (s->sentinel_count == SENTINELS_MAX)
			return err_set(e, ERR_REJECT, "redis_sentinels: more than %d", (int)SENTINELS_MAX);
		if (redis_address_parse(str_trim(one), "26379", &s->sentinels[s->sentinel_count++], e) < 0)
			return err_context(e, "redis_sentinels");
	}
	return 0;
}

static int check_options(const struct redis_session *s, struct err *e)
{
	if (s->user && !s->password)
		return err_set(e, ERR_REJECT, "redis_user needs redis_password");
	if (!s->cert_file != !s->key_file)
		return err_set(e, ERR_REJECT, "redis_cert_file and redis_key_file belong together");
	if (!s->url.tls && (s->ca_file || s->cert_file))
		return err_set(
			e, ERR_REJECT, "redis_ca_file and redis_cert_file want a redis_url with rediss://");
	if (s->sentinel_count && !s->master)
		return err_set(e, ERR_REJECT, "redis_sentinels needs redis_master");
	if (s->sentinel_count && s->url.unix_path[0])
		return err_set(e, ERR_REJECT, "redis_sentinels and a unix socket exclude each other");
	return 0;
}

int redis_session_open(
	const struct redis_options *o, const struct clock *clock, struct redis_session **ret, struct err *e)
{
	AUTO(redis_session_close_auto) struct redis_session *s = calloc(1, sizeof(*s));
	if (!s || !copy_texts(s, o))
		return err_oom(e);
	s->clock = clock;
	s->timeout_ms = (int)o->timeout_ms;
	s->durability = o->durability;
	s->trust_settings = o->trust_settings;
	s->wait_replicas = o->wait_replicas;
	s->partitions = o->partitions;
	if (asprintf(&s->state_key, "%s:{0}:state", o->prefix) < 0) {
		s->state_key = NULL;
		return err_oom(e);
	}
	s->next_try = clock_mono(clock);
	buf_init(&s->scratch, SETUP_BYTES);
	if (redis_url_parse(str_of(o->url), &s->url, e) < 0 ||
		parse_sentinels(s, str_of(o->sentinels), e) < 0 || check_options(s, e) < 0 ||
		redis_scripts_name(&s->shas, e) < 0)
		return -1;
	s->server = s->url.address;
	*ret = TAKE(s);
	return 0;
}

static void free_secret(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void redis_session_close(struct redis_session *s)
{
	if (!s)
		return;
	disconnect(s);
	free_secret(s->password);
	free_secret(s->sentinel_password);
	free(s->user);
	free(s->ca_file);
	free(s->cert_file);
	free(s->key_file);
	free(s->master);
	free(s->state_key);
	buf_wipe(&s->scratch);
	free(s);
}

const struct redis_shas *redis_session_shas(const struct redis_session *s)
{
	return &s->shas;
}

const char *redis_session_durability(const struct redis_session *s)
{
	static const char *const promises[] = {
		[REDIS_FSYNC] =
			"redis: appendonly, appendfsync=always: a commit survives the end of the server "
			"and power loss",
		[REDIS_EVERYSEC] =
			"redis: appendonly, appendfsync=everysec: a commit survives the end of the "
			"server; power loss may cost a second of them",
	};
	return promises[s->durability];
}
