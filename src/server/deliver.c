/* deliver.c - a batch from a worker to the store: open every envelope, compute its blind index, store the
 * sealed row.
 *
 * Opening proves that the message was sealed for us and that nobody changed or swapped its facts; the
 * plaintext is wiped at once. The row keeps the envelope as it came. A message that does not open, or that
 * names a client we do not have, is rejected for good; one batch is one store operation, so one commit makes
 * all of it durable. When the store refuses the batch, its rows are stored one by one, so that the one at
 * fault fails alone. */
#include <stdlib.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/metrics.h"
#include "crypto/seal.h"
#include "server/internal.h"

enum { BATCH_MAX = 500, PLAINTEXT_BYTES = SEALED_MAX_BYTES };

struct session {
	struct server *server;
	struct opener *opener;
	struct buf plaintext;
	struct store_message rows[BATCH_MAX];
	struct delivery_item *items[BATCH_MAX]; /* rows[i] belongs to *items[i] */
	series_t stored, duplicate, rejected, retry;
};

int deliver_open(void *arg, void **ret_session, struct err *e)
{
	struct server *s = arg;
	struct session *session = calloc(1, sizeof(*session));
	if (!session)
		return err_oom(e);
	session->server = s;
	buf_init(&session->plaintext, PLAINTEXT_BYTES);
	session->stored = metric_series1(METRIC_STORED, "stored");
	session->duplicate = metric_series1(METRIC_STORED, "duplicate");
	session->rejected = metric_series1(METRIC_STORED, "rejected");
	session->retry = metric_series1(METRIC_STORED, "retry");
	if (opener_new(s->keyring, &session->opener, e) < 0) {
		free(session);
		return -1;
	}
	*ret_session = session;
	return 0;
}

void deliver_close(void *arg)
{
	struct session *session = arg;
	if (!session)
		return;
	opener_free(session->opener);
	buf_wipe(&session->plaintext);
	free(session);
}

static void reject(struct session *session, struct delivery_item *item, const char *reason)
{
	item->outcome = DELIVERY_REJECTED;
	item->reason = reason;
	series_add(session->rejected, 1);
}

static void retry(struct session *session, struct delivery_item *item, const char *reason)
{
	item->outcome = DELIVERY_RETRY;
	item->reason = reason;
	series_add(session->retry, 1);
}

/* --- opening --- */

/* Fills one row. 1: done; 0: the item was rejected. <0: it cannot be opened now (no memory, OpenSSL failed). */
static int open_item(
	struct session *session, struct delivery_item *item, struct store_message *row, struct err *e)
{
	const struct server *s = session->server;
	struct message message;
	if (!clients_known(s->clients, item->sealed->client_id, item->sealed->domain)) {
		reject(session, item, "unknown_client");
		return 0;
	}
	buf_reset(&session->plaintext);
	int rc = opener_open(session->opener, item->sealed, &session->plaintext, &message, e);
	if (rc >= 0) {
		*row = (struct store_message){
			.sealed = *item->sealed,
			.state = MESSAGE_DELIVERED,
			.attempt_count = item->attempt_count + 1,
		};
		rc = keyring_blind_index(s->keyring, message.sender_number, row->sender_index, e);
		rc = rc < 0 ? rc : 1;
	} else if (e->kind == ERR_REJECT) {
		reject(session, item, "does_not_open");
		rc = 0;
	}
	if (session->plaintext.p)
		explicit_bzero(session->plaintext.p, session->plaintext.n);
	return rc;
}

/* Fills the rows to store; <0: nothing at all could be opened, which is no fault of any message. */
static int open_items(struct session *session, struct delivery_item *items, unsigned count,
	unsigned *ret_rows, struct err *e)
{
	unsigned rows = 0, failed = 0;
	struct err last = ERR_INIT;
	for (unsigned i = 0; i < count; i++) {
		struct err why = ERR_INIT;
		int rc = open_item(session, &items[i], &session->rows[rows], &why);
		if (rc > 0)
			session->items[rows++] = &items[i];
		if (rc < 0) {
			items[i].outcome = DELIVERY_OUTCOMES; /* none yet */
			last = why;
			failed++;
		}
	}
	if (failed && failed == count) {
		if (e)
			*e = last;
		return err_context(e, "open a message");
	}
	for (unsigned i = 0; failed && i < count; i++)
		if (items[i].outcome == DELIVERY_OUTCOMES)
			retry(session, &items[i], "not_opened_now");
	*ret_rows = rows;
	return 0;
}

/* --- storing --- */

static int store_rows(struct session *session, unsigned from, unsigned count, struct err *e)
{
	struct store_messages op = {.items = &session->rows[from], .count = count};
	if (store_wait(session->server->store, STORE_MESSAGES, &op.op, e) < 0)
		return err_context(e, "store");
	for (unsigned i = from; i < from + count; i++)
		session->items[i]->outcome =
			session->rows[i].duplicate ? DELIVERY_DUPLICATE : DELIVERY_STORED;
	series_add(session->stored, op.stored_count);
	if (count > op.stored_count)
		series_add(session->duplicate, count - op.stored_count);
	return 0;
}

/* The store has refused the batch: each row for itself. <0: it takes none of them, or nothing now, which is no
 * fault of any message. */
static int store_one_by_one(struct session *session, unsigned rows, struct err *e)
{
	unsigned failed = 0;
	for (unsigned i = 0; i < rows; i++) {
		struct err why = ERR_INIT;
		if (store_rows(session, i, 1, &why) >= 0)
			continue;
		log_event(LOG_ERROR, "deliver.not_stored", LF_ERR(&why));
		if (why.kind == ERR_REJECT) {
			reject(session, session->items[i], "invalid");
			continue;
		}
		retry(session, session->items[i], "not_stored");
		if (++failed < rows && why.kind != ERR_RETRY)
			continue;
		if (why.kind != ERR_FATAL)
			why.kind = ERR_RETRY; /* the request itself is not what is wrong */
		if (e)
			*e = why;
		return -1;
	}
	return 0;
}

int deliver_batch(void *arg, struct delivery_item *items, unsigned count, struct err *e)
{
	struct session *session = arg;
	struct err why = ERR_INIT;
	unsigned rows = 0;
	if (count > BATCH_MAX)
		return err_set(e, ERR_REJECT, "a batch holds at most %d messages", BATCH_MAX);
	if (open_items(session, items, count, &rows, e) < 0)
		return -1;
	if (!rows || store_rows(session, 0, rows, &why) >= 0)
		return 0;
	if (why.kind != ERR_RETRY)
		return store_one_by_one(session, rows, e);
	if (e)
		*e = why;
	return -1;
}

/* --- sessions of deliveries over the network --- */

void *server_take_session(struct server *s, struct err *e)
{
	void *session = NULL;
	pthread_mutex_lock(&s->session_lock);
	if (s->session_count)
		session = s->sessions[--s->session_count];
	pthread_mutex_unlock(&s->session_lock);
	return session || deliver_open(s, &session, e) >= 0 ? session : NULL;
}

void server_put_session(struct server *s, void *session)
{
	if (!session)
		return;
	pthread_mutex_lock(&s->session_lock);
	bool kept = s->session_count < SESSIONS_MAX;
	if (kept)
		s->sessions[s->session_count++] = session;
	pthread_mutex_unlock(&s->session_lock);
	if (!kept)
		deliver_close(session);
}
