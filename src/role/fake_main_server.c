/* fake_main_server.c - see fake_main_server.h. */
#include "role/fake_main_server.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/metrics.h"
#include "http/server.h"
#include "tls/craft_cert.h"

enum { PUSHED_MAX = 64, SEEN_BYTES = 64 * 1024, WAIT_S = 60, OVER_MS = 3600 * 1000, AGE_MS = 2 * OVER_MS };

struct answer {
	int status;
	char *retry_after, *body;
};

struct route_state {
	struct answer pushed[PUSHED_MAX];
	unsigned first, count;     /* of `pushed`, a ring */
	struct http_request *held; /* the latest one that waits */
	unsigned seen;
	char target[512], body[SEEN_BYTES];
};

struct fake_main_server {
	pthread_mutex_t lock; /* guards routes */
	pthread_cond_t came;
	struct route_state routes[FAKE_ROUTES];
	bool closing;
	struct loop *loop;
	struct tls_server *tls;
	struct http_server *http;
	char dir[40], url[80];
	char server_cert[64], server_key[64], client_cert[64], client_key[64], ca[64];
	struct craft_authority root, issuing, other_root, other_issuing;
};

/* --- answering --- */

/* Takes the next pushed answer; false: none. Under the lock. */
static bool next_answer(struct route_state *s, struct answer *ret)
{
	if (!s->count)
		return false;
	*ret = s->pushed[s->first];
	s->first = (s->first + 1) % PUSHED_MAX;
	s->count--;
	return true;
}

static void reply(struct http_request *r, struct answer *a)
{
	if (a->retry_after)
		http_set_header(r, "Retry-After", str_of(a->retry_after));
	http_reply(r, a->status, "application/json", str_of(a->body));
	free(a->retry_after);
	free(a->body);
}

static void remember(struct route_state *s, const struct http_request *r)
{
	s->seen++;
	snprintf(s->target, sizeof(s->target), "%.*s", STR_ARG(r->target));
	snprintf(s->body, sizeof(s->body), "%.*s", STR_ARG(r->body));
}

static void handle(struct http_request *r, enum fake_route route)
{
	struct fake_main_server *f = r->context;
	struct answer a;
	pthread_mutex_lock(&f->lock);
	struct route_state *s = &f->routes[route];
	remember(s, r);
	bool answered = next_answer(s, &a);
	if (!answered)
		s->held = r;
	pthread_cond_broadcast(&f->came);
	pthread_mutex_unlock(&f->lock);
	if (answered)
		reply(r, &a);
}

/* On the loop: held requests get what has been pushed since. */
static void let_go(void *arg)
{
	struct fake_main_server *f = arg;
	for (unsigned i = 0; i < FAKE_ROUTES; i++) {
		struct http_request *r = NULL;
		struct answer a;
		pthread_mutex_lock(&f->lock);
		struct route_state *s = &f->routes[i];
		if (s->held && next_answer(s, &a)) {
			r = s->held;
			s->held = NULL;
		}
		pthread_mutex_unlock(&f->lock);
		if (r)
			reply(r, &a);
	}
}

#define HANDLER(name, route)                                                                                 \
	static void name(struct http_request *r)                                                             \
	{                                                                                                    \
		handle(r, route);                                                                            \
	}
HANDLER(post_register, FAKE_REGISTER)
HANDLER(post_deliver, FAKE_DELIVER)
HANDLER(put_status, FAKE_STATUS)
HANDLER(get_message, FAKE_MESSAGE)
HANDLER(get_revocations, FAKE_REVOCATIONS)
HANDLER(get_sealing_keys, FAKE_SEALING_KEYS)
HANDLER(post_seen, FAKE_SEEN)

enum { BODY_CEILING = 24 * 1024 * 1024 };

static const struct http_route routes[] = {
	{"POST", "/internal/messages/register", ROLE_BIT(ROLE_PROXY), false, post_register, "", BODY_CEILING},
	{"POST", "/internal/messages/deliver", ROLE_BIT(ROLE_PROXY), false, post_deliver, "", BODY_CEILING},
	{"PUT", "/internal/messages/{id}/status", ROLE_BIT(ROLE_PROXY), false, put_status, "", BODY_CEILING},
	{"GET", "/internal/messages/{id}", ROLE_BIT(ROLE_PROXY), false, get_message, "", 0},
	{"GET", "/internal/revocations", ROLE_BIT(ROLE_PROXY), false, get_revocations, "", 0},
	{"GET", "/internal/sealing-keys", ROLE_BIT(ROLE_PROXY), false, get_sealing_keys, "", 0},
	{"POST", "/internal/certificates/seen", ROLE_BIT(ROLE_PROXY), false, post_seen, "", BODY_CEILING},
	{0},
};

/* --- certificates --- */

static int write_leaf(const struct craft_spec *spec, const struct craft_authority *issuing,
	const char *cert_path, const char *key_path, struct err *e)
{
	X509 *cert = NULL;
	EVP_PKEY *key = NULL;
	int rc = craft_cert(spec, &cert, &key, e);
	if (rc >= 0)
		rc = craft_write_cert(cert_path, "w", cert, e);
	if (rc >= 0)
		rc = craft_write_cert(cert_path, "a", issuing->cert, e);
	if (rc >= 0)
		rc = craft_write_key(key_path, key, e);
	X509_free(cert);
	EVP_PKEY_free(key);
	return rc;
}

static int write_server_leaf(struct fake_main_server *f, enum fake_certificate which, struct err *e)
{
	struct wall now = clock_wall(&clock_system);
	const struct craft_authority *issuing = which == FAKE_OTHER_CA ? &f->other_issuing : &f->issuing;
	const char *uri = which == FAKE_WRONG_ROLE ? "spiffe://td/proxy/example.com/main"
						   : "spiffe://td/server/example.com/main";
	struct craft_spec spec;
	craft_leaf(&spec, issuing, uri, "main", now);
	spec.alternative_names[1] = (struct craft_string){
		GEN_DNS, which == FAKE_WRONG_NAME ? STR("elsewhere.example") : STR("localhost")};
	spec.usages[0] = NID_server_auth;
	spec.usages[1] = which == FAKE_WRONG_ROLE ? NID_client_auth : 0;
	if (which == FAKE_EXPIRED) {
		spec.not_before.ms = now.ms - AGE_MS;
		spec.not_after.ms = now.ms - OVER_MS;
	}
	return write_leaf(&spec, issuing, f->server_cert, f->server_key, e);
}

static int make_certificates(struct fake_main_server *f, enum fake_certificate which, struct err *e)
{
	struct wall now = clock_wall(&clock_system);
	struct craft_spec spec;
	if (craft_authorities(now, &f->root, &f->issuing, e) < 0 ||
		craft_authorities(now, &f->other_root, &f->other_issuing, e) < 0 ||
		craft_write_cert(f->ca, "w", f->root.cert, e) < 0 ||
		craft_write_cert(f->ca, "a", f->issuing.cert, e) < 0 || write_server_leaf(f, which, e) < 0)
		return -1;
	craft_leaf(&spec, &f->issuing, "spiffe://td/proxy/example.com/proxy_1", "proxy_1", now);
	spec.usages[1] = NID_server_auth;
	return write_leaf(&spec, &f->issuing, f->client_cert, f->client_key, e);
}

/* --- life --- */

static int name_files(struct fake_main_server *f, struct err *e)
{
	const struct {
		char *out;
		const char *name;
	} files[] = {{f->server_cert, "server.pem"}, {f->server_key, "server.key"},
		{f->client_cert, "proxy.pem"}, {f->client_key, "proxy.key"}, {f->ca, "ca.pem"}};
	snprintf(f->dir, sizeof(f->dir), "/tmp/sealpost-fake-XXXXXX");
	if (!mkdtemp(f->dir))
		return err_sys(e, ERR_FATAL, "make '%s'", f->dir);
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		snprintf(files[i].out, 64, "%s/%s", f->dir, files[i].name);
	return 0;
}

static int listen_on_loop(struct fake_main_server *f, struct err *e)
{
	struct tls_server_options tls = {.cert_file = f->server_cert,
		.key_file = f->server_key,
		.ca_file = f->ca,
		.trust_domain = "td",
		.client_cert = true,
		.roles = ~0u,
		.clock = &clock_system};
	if (tls_server_new(&tls, &f->tls, e) < 0 || loop_start("fake", &f->loop, e) < 0)
		return -1;
	struct http_server_options o = {.name = "fake",
		.listens = &(struct http_listen){.address = "127.0.0.1:0", .fd = -1, .tls = f->tls},
		.listen_count = 1,
		.loops = &f->loop,
		.loop_count = 1,
		.routes = routes,
		.context = f,
		.clock = &clock_system};
	http_limits_default(&o.limits);
	if (http_server_start(&o, &f->http, e) < 0)
		return -1;
	const char *port = strrchr(http_server_address(f->http, 0), ':');
	snprintf(f->url, sizeof(f->url), "https://localhost%s", port);
	return 0;
}

int fake_open(enum fake_certificate certificate, struct fake_main_server **ret, struct err *e)
{
	struct fake_main_server *f = calloc(1, sizeof(*f));
	if (!f)
		return err_oom(e);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->came, NULL);
	if (name_files(f, e) < 0 || make_certificates(f, certificate, e) < 0 || listen_on_loop(f, e) < 0) {
		fake_close(f);
		return -1;
	}
	*ret = f;
	return 0;
}

void fake_close(struct fake_main_server *f)
{
	if (!f)
		return;
	for (unsigned i = 0; f->http && i < FAKE_ROUTES; i++)
		fake_push(f, i, 503, NULL, "{}");
	http_server_drain(f->http, 1000);
	http_server_free(f->http);
	loop_stop(f->loop);
	tls_server_free(f->tls);
	struct answer left;
	for (unsigned i = 0; i < FAKE_ROUTES; i++)
		while (next_answer(&f->routes[i], &left)) {
			free(left.retry_after);
			free(left.body);
		}
	const char *const files[] = {f->server_cert, f->server_key, f->client_cert, f->client_key, f->ca};
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		unlink(files[i]);
	rmdir(f->dir);
	craft_authority_clear(&f->issuing);
	craft_authority_clear(&f->root);
	craft_authority_clear(&f->other_issuing);
	craft_authority_clear(&f->other_root);
	pthread_cond_destroy(&f->came);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

struct client_options fake_client_options(const struct fake_main_server *f)
{
	return (struct client_options){.url = f->url,
		.cert_file = f->client_cert,
		.key_file = f->client_key,
		.ca_file = f->ca,
		.trust_domain = "td",
		.clock = &clock_system,
		.connect_ms = 5000};
}

const char *fake_dir(const struct fake_main_server *f)
{
	return f->dir;
}

void fake_push(struct fake_main_server *f, enum fake_route route, int status, const char *retry_after,
	const char *body)
{
	pthread_mutex_lock(&f->lock);
	struct route_state *s = &f->routes[route];
	require(s->count < PUSHED_MAX);
	s->pushed[(s->first + s->count++) % PUSHED_MAX] =
		(struct answer){status, retry_after ? strdup(retry_after) : NULL, strdup(body)};
	pthread_mutex_unlock(&f->lock);
	loop_call(f->loop, let_go, f);
}

bool fake_wait(struct fake_main_server *f, enum fake_route route, unsigned count, char *target, char *body,
	size_t room)
{
	const struct route_state *s = &f->routes[route];
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&f->lock);
	while (s->seen < count && pthread_cond_timedwait(&f->came, &f->lock, &until) == 0)
		;
	bool came = s->seen >= count;
	if (target)
		snprintf(target, room, "%s", s->target);
	if (body)
		snprintf(body, room, "%s", s->body);
	pthread_mutex_unlock(&f->lock);
	return came;
}

unsigned fake_connections(struct fake_main_server *f)
{
	return (unsigned)series_value(
		metric_series(METRIC_TLS_HANDSHAKES, (const char *const[]){"fake", "ok", NULL}));
}
