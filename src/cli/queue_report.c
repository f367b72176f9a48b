/* queue_report.c - see queue_report.h. */
#include "cli/queue_report.h"

#include "base/log.h"
#include "base/metrics.h"

/* --- metrics --- */

static double age_seconds(struct wall since)
{
	return since.ms ? (double)(clock_wall(&clock_system).ms - since.ms) / 1000 : 0;
}

void queue_report_collect(const struct queue *queue)
{
	struct queue_glance glance;
	queue_glance(queue, &glance);
	const struct {
		enum message_state state;
		uint64_t count;
	} counts[] = {{MESSAGE_QUEUED, glance.queued}, {MESSAGE_PROCESSING, glance.processing},
		{MESSAGE_FAILED, glance.failed}};
	for (size_t i = 0; i < ARRAY_LEN(counts); i++)
		series_set(metric_series1(METRIC_QUEUE_MESSAGES, message_state_name(counts[i].state)),
			(double)counts[i].count);
	metric_set(METRIC_IDEMPOTENCY_KEYS, (double)glance.keys);
	metric_set(METRIC_IDEMPOTENCY_KEYS_MAX, (double)glance.keys_max);
	metric_set(METRIC_QUEUE_WAITING, glance.group.waiting);
	metric_set(METRIC_QUEUE_OLDEST, age_seconds(glance.oldest_accepted_at));
	metric_set(METRIC_QUEUE_OLDEST_DUE, age_seconds(glance.oldest_due_at));
	metric_set(METRIC_SPOOL_ACTIVE, glance.spooling);
	metric_set(METRIC_SPOOL_MESSAGES, (double)glance.spooled);
	metric_set(METRIC_SPOOL_OLDEST, age_seconds(glance.spooled_accepted_at));
}

/* --- log --- */

/* Says once that the queue takes and gives nothing, and why; and once that it does again. */
static void log_health(struct queue_report *r, const struct queue_glance *glance)
{
	if (r->away == !glance->healthy)
		return;
	r->away = !glance->healthy;
	if (r->away)
		log_event(LOG_WARN, "queue.unavailable", LF_STR("why", glance->trouble));
	else
		log_event(LOG_INFO, "queue.available");
}

/* Says once that the queue is away, and once that all is as it was; also when that took no second. */
static void log_spooling(struct queue_report *r, const struct queue_glance *glance)
{
	uint64_t outages = glance->spool_outages - r->outages;
	bool spooling = glance->spooling || glance->spooled;
	if (outages)
		log_event(LOG_WARN, "queue.spooling", LF_STR("why", glance->spool_reason));
	if (!spooling && (r->spooling || outages))
		log_event(LOG_INFO, "queue.spool_drained");
	metric_add(METRIC_SPOOL_OUTAGES, outages);
	r->spooling = spooling;
	r->outages = glance->spool_outages;
}

/* Says once that the room for idempotency keys runs out, and once that a quarter of it is free again. */
static void log_keys(struct queue_report *r, const struct queue_glance *glance)
{
	bool scarce = queue_keys_scarce(glance),
	     plenty = glance->keys < glance->keys_max - glance->keys_max / 4;
	if (r->keys_scarce ? !plenty : !scarce)
		return;
	r->keys_scarce = scarce;
	log_event(scarce ? LOG_WARN : LOG_INFO, scarce ? "queue.keys_scarce" : "queue.keys_plenty",
		LF_UINT("keys", glance->keys), LF_UINT("idempotency_max", glance->keys_max));
}

void queue_report_log(struct queue_report *r, const struct queue *queue)
{
	struct queue_glance glance;
	queue_glance(queue, &glance);
	log_health(r, &glance);
	log_spooling(r, &glance);
	log_keys(r, &glance);
}
