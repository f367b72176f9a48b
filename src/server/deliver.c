/* deliver.c - a batch from a worker to the store: open every envelope, compute its blind index, store the
 * sealed row.
 *
 * Opening proves that the message was sealed for us and that nobody changed or swapped its facts; the
 * plaintext is wiped at once. The row keeps the envelope as it came. A message that does not open, or that
 * names a client we do not have, is rejected for good; one batch is one store operation, so one commit makes
 * all of it durable. */
#include <stdlib.h>

#include "base/auto.h"
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
	series_t stored, duplicate, rejected;
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

/* Fills one row, or rejects the item. <0: nothing can be opened now (no memory, OpenSSL failed). */
static int take_item(
	struct session *session, struct delivery_item *item, struct store_message *row, struct err *e)
{
	const struct server *s = session->server;
	if (!clients_known(s->clients, item->sealed->client_id, item->sealed->domain)) {
		reject(session, item, "unknown_client");
		return 0;
	}
	struct message message;
	buf_reset(&session->plaintext);
	int rc = opener_open(session->opener, item->sealed, &session->plaintext, &message, e);
	if (rc >= 0) {
		*row = (struct store_message){
			.sealed = *item->sealed,
			.state = MESSAGE_DELIVERED,
			.attempt_count = item->attempt_count + 1,
		};
		rc = keyring_blind_index(s->keyring, message.sender_number, row->sender_index, e);
	} else if (e->kind == ERR_REJECT) {
		reject(session, item, "does_not_open");
		rc = 0;
		row = NULL;
	}
	if (session->plaintext.n)
		explicit_bzero(session->plaintext.p, session->plaintext.n);
	if (rc < 0)
		return -1;
	return row ? 1 : 0;
}

int deliver_batch(void *arg, struct delivery_item *items, unsigned count, struct err *e)
{
	struct session *session = arg;
	unsigned rows = 0;
	if (count > BATCH_MAX)
		return err_set(e, ERR_REJECT, "a batch holds at most %d messages", BATCH_MAX);
	for (unsigned i = 0; i < count; i++) {
		struct err why = ERR_INIT;
		int rc = take_item(session, &items[i], &session->rows[rows], &why);
		if (rc < 0) {
			if (e)
				*e = why;
			return err_context(e, "open a message");
		}
		if (rc > 0)
			session->items[rows++] = &items[i];
	}
	if (!rows)
		return 0;
	struct store_messages op = {.items = session->rows, .count = rows};
	if (store_wait(session->server->store, STORE_MESSAGES, &op.op, e) < 0)
		return err_context(e, "store");
	for (unsigned i = 0; i < rows; i++)
		session->items[i]->outcome =
			session->rows[i].duplicate ? DELIVERY_DUPLICATE : DELIVERY_STORED;
	series_add(session->stored, op.stored_count);
	if (rows > op.stored_count)
		series_add(session->duplicate, rows - op.stored_count);
	return 0;
}

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
