/* admit.c - what stands before every message, single or batched: room, rates, content type, idempotency key.
 */
#include <openssl/evp.h>
#include <stdio.h>

#include "base/log.h"
#include "base/metrics.h"
#include "proxy/internal.h"

/* Keys are forgotten one by one, as each comes of age. */
enum { KEYS_FULL_RETRY_S = 30 };

void proxy_refuse_messages(struct http_request *r, unsigned count, enum http_problem problem,
	const struct http_problem_options *o)
{
	series_add(metric_series1(METRIC_REJECTED, http_problem_code(problem)), count);
	http_reply_problem(r, problem, o);
}

void proxy_refuse(struct http_request *r, enum http_problem problem, const struct http_problem_options *o)
{
	proxy_refuse_messages(r, 1, problem, o);
}

void proxy_reply_failed(struct http_request *r, const struct err *e)
{
	struct err told = *e;
	if (e->kind == ERR_RETRY) {
		log_event(LOG_DEBUG, "ingest.unavailable", LF_STR("request_id", r->request_id), LF_ERR(e));
		snprintf(told.text, sizeof(told.text), "the queue cannot be used now");
	}
	http_reply_err(r, &told);
}

void proxy_refuse_key(struct http_request *r, unsigned count)
{
	proxy_refuse_messages(r, count, PROBLEM_IDEMPOTENCY_FULL,
		&(struct http_problem_options){
			.detail =
				"no further Idempotency-Key can be remembered until older ones are forgotten",
			.retry_after_s = KEYS_FULL_RETRY_S});
}

bool proxy_can_accept(struct proxy *p, struct http_request *r)
{
	if (unlikely(atomic_load_explicit(&p->disk_free_bytes, memory_order_relaxed) <
		     atomic_load_explicit(&p->disk_free_min_bytes, memory_order_relaxed))) {
		proxy_refuse(r, PROBLEM_UNAVAILABLE,
			&(struct http_problem_options){
				.detail = "the disk is nearly full", .retry_after_s = 5});
		return false;
	}
	return true;
}

bool proxy_content_type_is(const struct http_request *r, struct str media_type)
{
	struct str rest, type;
	if (!http_header_once(r, STR("content-type"), &rest) || !rest.p)
		return false;
	bool has_parameters = str_cut(&rest, ';', &type);
	if (!has_parameters)
		type = rest;
	if (!str_eq_nocase(str_trim(type), media_type))
		return false;
	while (has_parameters) {
		struct str parameter, name;
		has_parameters = str_cut(&rest, ';', &parameter);
		if (!has_parameters)
			parameter = rest;
		struct str value = str_trim(parameter);
		if (!str_cut(&value, '=', &name) || !str_eq_nocase(str_trim(name), STR("charset")))
			continue;
		if (!str_eq_nocase(value, STR("utf-8")) && !str_eq_nocase(value, STR("\"utf-8\"")))
			return false;
	}
	return true;
}

/* What is not sane is dropped, as W3C Trace Context asks. */
struct str proxy_traceparent(const struct http_request *r)
{
	struct str value;
	bool sane = http_header_once(r, STR("traceparent"), &value) && value.p && traceparent_valid(value);
	return sane ? value : (struct str){"", 0};
}

void proxy_refuse_invalid(struct http_request *r, const struct message_problems *problems)
{
	struct http_field_problem fields[MESSAGE_PROBLEMS];
	for (unsigned i = 0; i < problems->count; i++)
		fields[i] = (struct http_field_problem){
			problems->items[i].pointer, problems->items[i].code, problems->items[i].detail};
	proxy_refuse(r, PROBLEM_VALIDATION_ERROR,
		&(struct http_problem_options){.detail = "the message was not accepted; see errors",
			.fields = fields,
			.field_count = problems->count});
}

bool proxy_is_plain(struct http_request *r)
{
	struct str coding;
	if (http_header_once(r, STR("content-encoding"), &coding) &&
		(!coding.p || str_eq_nocase(coding, STR("identity"))))
		return true;
	http_set_header(r, "Accept-Encoding", STR("identity")); /* RFC 9110 section 15.5.16 */
	proxy_refuse(r, PROBLEM_UNSUPPORTED_MEDIA_TYPE,
		&(struct http_problem_options){.detail = "send the body as it is, without Content-Encoding"});
	return false;
}

bool proxy_take_key(struct http_request *r, struct queue_put *put)
{
	struct str key = {NULL, 0};
	bool sane = http_header_once(r, STR("idempotency-key"), &key);
	put->has_key = key.p != NULL;
	put->key_promised = false;
	if (sane && !put->has_key)
		return true;
	sane &= key.n >= 1 && key.n <= 255;
	for (size_t i = 0; sane && i < key.n; i++)
		sane = key.p[i] > ' ' && key.p[i] < 0x7f;
	if (!sane) {
		proxy_refuse(r, PROBLEM_VALIDATION_ERROR,
			&(struct http_problem_options){
				.detail = "Idempotency-Key takes 1 to 255 visible ASCII characters, once"});
		return false;
	}
	/* Names cannot hold a NUL, so client and key cannot run into each other. */
	char scoped[IDENTITY_NAME_BYTES + 256];
	size_t name = strlen(r->peer->name);
	memcpy(scoped, r->peer->name, name + 1);
	memcpy(scoped + name + 1, key.p, key.n);
	if (EVP_Q_digest(NULL, "SHA256", NULL, scoped, name + 1 + key.n, put->key_hash, NULL) == 1 &&
		EVP_Q_digest(NULL, "SHA256", NULL, r->body.p, r->body.n, put->payload_hash, NULL) == 1)
		return true;
	proxy_refuse(r, PROBLEM_UNAVAILABLE, NULL);
	return false;
}

/* The client's limit and the domain's, from the configuration or from the domain's own settings. */
static void limits_of(const struct proxy *p, const struct http_request *r, struct rate_limit *client,
	struct rate_limit *domain)
{
	const struct proxy_rates *rates = atomic_load_explicit(&p->rates, memory_order_acquire);
	*client = rates->client;
	*domain = rates->domain;
	for (size_t i = 0; i < rates->own_count; i++) {
		if (strcmp(rates->own[i].domain, r->peer->domain) != 0)
			continue;
		if (rates->own[i].client.per_second)
			*client = rates->own[i].client;
		if (rates->own[i].whole.per_second)
			*domain = rates->own[i].whole;
	}
}

void proxy_give_rate_back(struct proxy *p, const struct http_request *r, unsigned count)
{
	struct rate_limit client, domain;
	if (likely(!atomic_load_explicit(&p->rates, memory_order_acquire)->any))
		return;
	limits_of(p, r, &client, &domain);
	if (client.per_second)
		rate_give_back(p->client_rates, str_of(r->peer->name), &client, count);
	if (domain.per_second)
		rate_give_back(p->domain_rates, str_of(r->peer->domain), &domain, count);
}

/* "client";q=100;w=1 - appended to what is there. */
static void add_policy(char *policy, char *state, size_t room, const char *name, const struct rate_state *s)
{
	size_t p = strlen(policy), t = strlen(state);
	const char *comma = p ? ", " : "";
	snprintf(policy + p, room - p, "%s\"%s\";q=%lld;w=%lld", comma, name, (long long)s->quota,
		(long long)s->window_s);
	snprintf(state + t, room - t, "%s\"%s\";r=%lld;t=%lld", comma, name, (long long)s->left,
		(long long)s->reset_s);
}

bool proxy_take_rate(struct proxy *p, struct http_request *r, unsigned count)
{
	struct rate_limit client, domain;
	struct rate_state client_state = {0}, domain_state = {0};
	char policy[160] = "", state[160] = "";
	if (likely(!atomic_load_explicit(&p->rates, memory_order_acquire)->any))
		return true;
	limits_of(p, r, &client, &domain);
	bool taken = true;
	if (client.per_second) {
		taken = rate_take(p->client_rates, str_of(r->peer->name), &client, count, &client_state);
		add_policy(policy, state, sizeof(policy), "client", &client_state);
	}
	if (taken && domain.per_second) {
		taken = rate_take(p->domain_rates, str_of(r->peer->domain), &domain, count, &domain_state);
		add_policy(policy, state, sizeof(policy), "domain", &domain_state);
		if (!taken && client.per_second)
			rate_give_back(p->client_rates, str_of(r->peer->name), &client, count);
	}
	if (!policy[0])
		return true;
	http_set_header(r, "RateLimit-Policy", str_of(policy));
	http_set_header(r, "RateLimit", str_of(state));
	if (taken)
		return true;
	int64_t wait_s = client_state.retry_after_s > domain_state.retry_after_s ? client_state.retry_after_s
										 : domain_state.retry_after_s;
	proxy_refuse_messages(r, count, PROBLEM_TOO_MANY_REQUESTS,
		&(struct http_problem_options){
			.detail = "the rate limit is reached", .retry_after_s = (unsigned)wait_s});
	return false;
}
