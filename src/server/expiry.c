/* expiry.c - how many certificates end soon: a metric, and once a day a line in the log.
 *
 * What is renewed in time never gets here: a certificate is superseded when its successor is used. So what is left
 * in the last days is a device that does not renew, and a person should know before it falls silent. */
#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/internal.h"

enum { PAGE = 500, ARENA_BYTES = 16 * 1024 * 1024, DAY_MS = 24 * 60 * 60 * 1000 };

static const struct bucket {
	const char *within;
	int64_t days;
	bool warn;
} buckets[] = {{"1d", 1, true}, {"7d", 7, true}, {"30d", 30, false}, {"90d", 90, false}};

struct tally {
	unsigned count[ARRAY_LEN(buckets)];
	char first[IDENTITY_NAME_BYTES]; /* the name whose certificate ends first */
	int64_t first_ms;
};

static void add(struct tally *t, const struct store_cert *cert, int64_t now_ms)
{
	int64_t left_ms = cert->not_after.ms - now_ms;
	if (cert->revoked_at.ms || left_ms <= 0)
		return;
	for (size_t i = 0; i < ARRAY_LEN(buckets); i++)
		t->count[i] += left_ms < buckets[i].days * DAY_MS;
	if (!t->first_ms || cert->not_after.ms < t->first_ms) {
		t->first_ms = cert->not_after.ms;
		snprintf(t->first, sizeof(t->first), "%.*s", STR_ARG(cert->name));
	}
}

static int count_all(struct server *s, struct tally *ret, struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	int64_t now_ms = clock_wall(s->clock).ms;
	struct store_cert_query query = {
		.expires_before = {now_ms + buckets[ARRAY_LEN(buckets) - 1].days * DAY_MS}, .max = PAGE};
	struct store_cert *certs;
	unsigned count = PAGE;
	arena_init(&arena, ARENA_BYTES);
	while (count == PAGE) {
		arena_reset(&arena);
		if (store_read_certs(s->store, &query, &arena, &certs, &count, e) < 0)
			return -1;
		for (unsigned i = 0; i < count; i++) {
			query.after_change = certs[i].change;
			add(ret, &certs[i], now_ms);
		}
	}
	return 0;
}

/* The narrowest bucket that has any, and only that. */
static void warn(const struct tally *t)
{
	char until[RFC3339_BYTES];
	wall_format((struct wall){t->first_ms}, until);
	for (size_t i = 0; i < ARRAY_LEN(buckets); i++) {
		if (!buckets[i].warn || !t->count[i])
			continue;
		log_event(LOG_WARN, "certificates.expiring", LF_STR("within", buckets[i].within),
			LF_UINT("count", t->count[i]), LF_STR("first", t->first), LF_STR("ends", until),
			LF_STR("see", "sealpost cert expiring"));
		return;
	}
}

int server_look_at_expiry(struct server *s, struct err *e)
{
	struct tally t = {.first_ms = 0};
	if (count_all(s, &t, e) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(buckets); i++)
		series_set(metric_series1(METRIC_CERTS_EXPIRING, buckets[i].within), t.count[i]);
	struct mono now = clock_mono(s->clock);
	if (s->expiry_warned_at.ns && mono_diff_ms(now, s->expiry_warned_at) < DAY_MS)
		return 0;
	s->expiry_warned_at = now;
	warn(&t);
	return 0;
}
