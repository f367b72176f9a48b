/* memory.c - the reference driver: everything in memory, nothing durable; for tests and for a trial run.
 *
 * Rows are immutable blocks that tables point to: a change replaces the pointer and notes the old one in the
 * undo log, so that abort is a walk backwards through the log. A lock held from begin to commit or abort
 * keeps readers from seeing a group before it is committed. Messages are found by id through a hash table;
 * all else is searched from end to end, which is what a reference may do. */
#include <pthread.h>
#include <stdlib.h>

#include "base/auto.h"
#include "store/driver.h"
#include "store/rules.h"

struct table {
	void **rows;
	size_t n, room;
};

struct undo {
	struct table *table;
	size_t index;
	void *old; /* NULL: the row was added */
};

/* One use of a token. */
struct token_use {
	struct store_token_key key;
	struct store_cert_id cert; /* none: not registered yet */
};

struct memory {
	pthread_rwlock_t lock; /* written by the group that is open, read by everybody else */
	struct table messages, clients, certs, tokens, token_uses, audit;
	size_t *by_id;     /* open addressing: index + 1 into messages, 0 for free */
	size_t by_id_room; /* a power of two, 0 before the first message */

	/* The group that is open. */
	struct wall now;
	struct undo *undo;
	size_t undo_n, undo_room;
	int64_t last_change, change_before;
};

/* --- tables and their undo --- */

static bool grow(void **p, size_t *room, size_t n, size_t item_bytes)
{
	if (n < *room)
		return true;
	size_t wanted = *room ? *room * 2 : 64;
	void *fresh = reallocarray(*p, wanted, item_bytes);
	if (!fresh)
		return false;
	*p = fresh;
	*room = wanted;
	return true;
}

static bool note_undo(struct memory *m, struct table *t, size_t index, void *old)
{
	if (!grow((void **)&m->undo, &m->undo_room, m->undo_n, sizeof(*m->undo)))
		return false;
	m->undo[m->undo_n++] = (struct undo){t, index, old};
	return true;
}

/* Both own `row` from here on, also when they fail. NULL stands for a row that could not be made. */
static int table_add(struct memory *m, struct table *t, void *row, struct err *e)
{
	AUTO(free_auto) void *owned = row;
	if (!owned || !grow((void **)&t->rows, &t->room, t->n, sizeof(*t->rows)) ||
		!note_undo(m, t, t->n, NULL))
		return err_oom(e);
	t->rows[t->n++] = TAKE(owned);
	return 0;
}

static int table_replace(struct memory *m, struct table *t, size_t index, void *row, struct err *e)
{
	AUTO(free_auto) void *owned = row;
	if (!owned || !note_undo(m, t, index, t->rows[index]))
		return err_oom(e);
	t->rows[index] = TAKE(owned);
	return 0;
}

static void table_clear(struct table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->rows[i]);
	free(t->rows);
}

/* --- rows: one block each, texts behind the struct --- */

/* Moves a text into the room behind a row and points the row at it. */
static void keep(struct str *s, char **room)
{
	if (s->n)
		memcpy(*room, s->p, s->n);
	s->p = *room;
	*room += s->n;
}

/* A copy of `row` (bytes long) whose texts, at the offsets given, are its own. */
static void *copy_row(const void *row, size_t bytes, const size_t *texts, size_t text_count)
{
	size_t room = bytes;
	for (size_t i = 0; i < text_count; i++)
		room += ((const struct str *)((uintptr_t)row + texts[i]))->n;
	char *copy = malloc(room);
	if (!copy)
		return NULL;
	memcpy(copy, row, bytes);
	char *at = copy + bytes;
	for (size_t i = 0; i < text_count; i++)
		keep((struct str *)((uintptr_t)copy + texts[i]), &at);
	return copy;
}

static const size_t message_texts[] = {
	offsetof(struct store_row, sealed.client_id),
	offsetof(struct store_row, sealed.domain),
	offsetof(struct store_row, sealed.traceparent),
	offsetof(struct store_row, sealed.envelope),
	offsetof(struct store_row, error_text),
};
static const size_t client_texts[] = {
	offsetof(struct store_client, name),
	offsetof(struct store_client, domain),
};
static const size_t cert_texts[] = {
	offsetof(struct store_cert, role),
	offsetof(struct store_cert, name),
	offsetof(struct store_cert, domain),
	offsetof(struct store_cert, der),
	offsetof(struct store_cert, revoke_reason),
};
static const size_t token_texts[] = {
	offsetof(struct store_token, name),
	offsetof(struct store_token, domain),
	offsetof(struct store_token, role),
	offsetof(struct store_token, names),
};
static const size_t audit_texts[] = {
	offsetof(struct store_audit_row, actor),
	offsetof(struct store_audit_row, origin),
	offsetof(struct store_audit_row, action),
	offsetof(struct store_audit_row, target),
	offsetof(struct store_audit_row, result),
	offsetof(struct store_audit_row, detail),
};

#define COPY_ROW(row, texts) copy_row(row, sizeof(*(row)), texts, ARRAY_LEN(texts))

/* Copies a row's texts into the arena; the row itself has been copied to *row. */
static bool lend_texts(void *row, const size_t *texts, size_t text_count, struct arena *arena)
{
	for (size_t i = 0; i < text_count; i++) {
		struct str *s = (struct str *)((uintptr_t)row + texts[i]);
		*s = arena_copy(arena, *s);
		if (!s->p)
			return false;
	}
	return true;
}

#define LEND_TEXTS(row, texts, arena) lend_texts(row, texts, ARRAY_LEN(texts), arena)

/* --- messages by id --- */

/* The slot that holds the id, or the free one where it belongs. */
static size_t *id_slot(const struct memory *m, const struct uuid *id)
{
	uint64_t hash;
	memcpy(&hash, id->b + 8, sizeof(hash)); /* the random half */
	hash ^= uuid_order_key(id) * 0x9e3779b97f4a7c15u;
	for (size_t i = hash;; i++) {
		size_t *slot = &m->by_id[i & (m->by_id_room - 1)];
		if (*slot == 0)
			return slot;
		const struct store_row *row = m->messages.rows[*slot - 1];
		if (uuid_eq(&row->sealed.id, id))
			return slot;
	}
}

static void refill_ids(struct memory *m)
{
	if (m->by_id)
		memset(m->by_id, 0, m->by_id_room * sizeof(*m->by_id));
	for (size_t i = 0; i < m->messages.n; i++) {
		const struct store_row *row = m->messages.rows[i];
		*id_slot(m, &row->sealed.id) = i + 1;
	}
}

/* Keeps the table at most half full with one more message. */
static bool reserve_id(struct memory *m)
{
	if ((m->messages.n + 1) * 2 <= m->by_id_room)
		return true;
	size_t room = m->by_id_room ? m->by_id_room * 2 : 256;
	size_t *fresh = calloc(room, sizeof(*fresh));
	if (!fresh)
		return false;
	free(m->by_id);
	m->by_id = fresh;
	m->by_id_room = room;
	refill_ids(m);
	return true;
}

/* --- open, close, groups --- */

static void memory_close(void *state)
{
	struct memory *m = state;
	if (!m)
		return;
	table_clear(&m->messages);
	table_clear(&m->clients);
	table_clear(&m->certs);
	table_clear(&m->tokens);
	table_clear(&m->token_uses);
	table_clear(&m->audit);
	free(m->by_id);
	free(m->undo);
	pthread_rwlock_destroy(&m->lock);
	free(m);
}

static int memory_open(const struct store_driver_options *o, void **ret_state, struct err *e)
{
	(void)o;
	struct memory *m = calloc(1, sizeof(*m));
	if (!m)
		return err_oom(e);
	/* Readers that keep coming would otherwise keep the writer out. */
	pthread_rwlockattr_t attr;
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&m->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	*ret_state = m;
	return 0;
}

static const char *memory_description(void *state)
{
	(void)state;
	return "memory, nothing is kept";
}

static int memory_begin(void *state, struct wall now, struct err *e)
{
	(void)e;
	struct memory *m = state;
	pthread_rwlock_wrlock(&m->lock);
	m->now = now;
	m->change_before = m->last_change;
	return 0;
}

static int memory_commit(void *state, struct err *e)
{
	(void)e;
	struct memory *m = state;
	for (size_t i = 0; i < m->undo_n; i++)
		free(m->undo[i].old);
	m->undo_n = 0;
	pthread_rwlock_unlock(&m->lock);
	return 0;
}

static void memory_abort(void *state)
{
	struct memory *m = state;
	while (m->undo_n) {
		const struct undo *u = &m->undo[--m->undo_n];
		free(u->table->rows[u->index]);
		if (u->old)
			u->table->rows[u->index] = u->old;
		else
			u->table->n--;
	}
	refill_ids(m);
	m->last_change = m->change_before;
	pthread_rwlock_unlock(&m->lock);
}

/* --- writing messages --- */

/* What was taken out leaves a row behind that nobody sees: places in the table are sequence numbers. */
static const enum message_state removed = MESSAGE_STATES;

/* The visible row with this id: its place + 1, or 0. */
static size_t find_id(const struct memory *m, const struct uuid *id)
{
	size_t at = m->by_id_room ? *id_slot(m, id) : 0;
	return at && ((const struct store_row *)m->messages.rows[at - 1])->state != removed ? at : 0;
}

static int add_message(struct memory *m, const struct store_row *row, struct err *e)
{
	if (!reserve_id(m))
		return err_oom(e);
	size_t *slot = id_slot(m, &row->sealed.id);
	if (table_add(m, &m->messages, COPY_ROW(row, message_texts), e) < 0)
		return -1;
	*slot = m->messages.n;
	return 0;
}

static int put_message(struct memory *m, struct store_message *item, struct err *e)
{
	bool delivered = item->state == MESSAGE_DELIVERED;
	struct store_row row = {
		.sequence = (int64_t)m->messages.n + 1,
		.sealed = item->sealed,
		.state = item->state,
		.stored_at = m->now,
		.updated_at = m->now,
		.delivered_at = {delivered ? m->now.ms : 0},
		.attempt_count = item->attempt_count,
	};
	memcpy(row.sender_index, item->sender_index, sizeof(row.sender_index));
	size_t at = find_id(m, &item->sealed.id);
	if (!at)
		return add_message(m, &row, e);

	const struct store_row *old = m->messages.rows[at - 1];
	item->duplicate = !delivered || old->state == MESSAGE_DELIVERED;
	if (item->duplicate)
		return 0;
	row.sequence = old->sequence;
	row.stored_at = old->stored_at;
	return table_replace(m, &m->messages, at - 1, COPY_ROW(&row, message_texts), e);
}

static int memory_put_messages(void *state, struct store_messages *put, struct err *e)
{
	for (unsigned i = 0; i < put->count; i++) {
		if (put_message(state, &put->items[i], e) < 0)
			return -1;
		put->stored_count += !put->items[i].duplicate;
	}
	return 0;
}

static int memory_put_status(void *state, struct store_status *put, struct err *e)
{
	struct memory *m = state;
	size_t at = find_id(m, &put->id);
	if (!at)
		return err_set(e, ERR_NOT_FOUND, "no message has this id");
	struct store_row row = *(const struct store_row *)m->messages.rows[at - 1];
	if (row.state == MESSAGE_DELIVERED)
		return STORE_UNCHANGED;
	row.state = put->state;
	row.attempt_count = put->attempt_count;
	row.error_text = put->error_text;
	row.updated_at = m->now;
	return table_replace(m, &m->messages, at - 1, COPY_ROW(&row, message_texts), e);
}

static int remove_message(struct memory *m, size_t index, struct err *e)
{
	struct store_row row = {.sequence = (int64_t)index + 1, .state = removed};
	row.sealed.id = ((const struct store_row *)m->messages.rows[index])->sealed.id;
	return table_replace(m, &m->messages, index, COPY_ROW(&row, message_texts), e);
}

static int memory_expire(void *state, struct store_expire *expire, struct err *e)
{
	struct memory *m = state;
	unsigned seen = 0;
	for (size_t i = (size_t)expire->after_sequence; i < m->messages.n; i++) {
		const struct store_row *row = m->messages.rows[i];
		if (row->state != MESSAGE_DELIVERED)
			continue;
		if (row->stored_at.ms >= expire->stored_until.ms)
			return 0;
		if (expire->is_over(expire->arg, row->sealed.domain, row->delivered_at)) {
			if (remove_message(m, i, e) < 0)
				return -1;
			expire->removed_count++;
		}
		if (++seen == expire->max) {
			expire->next_sequence = (int64_t)i + 1;
			return 0;
		}
	}
	return 0;
}

/* --- writing clients and certificates --- */

/* Index of the client, or clients.n. */
static size_t find_client(const struct memory *m, struct str name)
{
	size_t i = 0;
	while (i < m->clients.n && !str_eq(((const struct store_client *)m->clients.rows[i])->name, name))
		i++;
	return i;
}

static bool is_suspended(const struct memory *m, const struct store_cert *cert)
{
	size_t at = find_client(m, cert->name);
	return str_eq(cert->role, STR("client")) && at < m->clients.n &&
	       ((const struct store_client *)m->clients.rows[at])->status != CLIENT_ACTIVE;
}

/* Puts a changed certificate in the place of row `index` and numbers the change. */
static int change_cert(
	struct memory *m, size_t index, struct store_cert cert, int64_t *ret_change, struct err *e)
{
	cert.change = ++m->last_change;
	if (table_replace(m, &m->certs, index, COPY_ROW(&cert, cert_texts), e) < 0)
		return -1;
	*ret_change = cert.change;
	return 0;
}

static int renumber_certs(struct memory *m, struct str client, int64_t *ret_change, struct err *e)
{
	for (size_t i = 0; i < m->certs.n; i++) {
		const struct store_cert *cert = m->certs.rows[i];
		if (str_eq(cert->role, STR("client")) && str_eq(cert->name, client) &&
			change_cert(m, i, *cert, ret_change, e) < 0)
			return -1;
	}
	return 0;
}

static int add_client(struct memory *m, struct store_client client, struct err *e)
{
	if (client.created_at.ms == 0)
		client.created_at = m->now;
	return table_add(m, &m->clients, COPY_ROW(&client, client_texts), e);
}

static int other_domain(struct err *e)
{
	return err_set(e, ERR_CONFLICT, "the client exists in another domain");
}

static int memory_put_client(void *state, struct store_client_put *put, struct err *e)
{
	struct memory *m = state;
	size_t at = find_client(m, put->client.name);
	if (at == m->clients.n) {
		if (add_client(m, put->client, e) < 0)
			return -1;
		/* Certificates may have been there before their client. */
		return put->client.status == CLIENT_ACTIVE
			       ? 0
			       : renumber_certs(m, put->client.name, &put->change, e);
	}
	struct store_client client = *(const struct store_client *)m->clients.rows[at];
	if (!str_eq(client.domain, put->client.domain))
		return other_domain(e);
	if (client.status == put->client.status)
		return STORE_UNCHANGED;
	client.status = put->client.status;
	if (table_replace(m, &m->clients, at, COPY_ROW(&client, client_texts), e) < 0)
		return -1;
	return renumber_certs(m, put->client.name, &put->change, e);
}

static bool same_serial(const struct store_cert *cert, const uint8_t *serial, unsigned serial_bytes)
{
	return cert->serial_bytes == serial_bytes && memcmp(cert->serial, serial, serial_bytes) == 0;
}

static bool same_issuer(const struct store_cert *cert, const uint8_t *issuer_key_id)
{
	return memcmp(cert->issuer_key_id, issuer_key_id, STORE_KEY_ID_BYTES) == 0;
}

static struct store_cert_id id_of(const struct store_cert *cert)
{
	struct store_cert_id id = {.serial_bytes = cert->serial_bytes};
	memcpy(id.serial, cert->serial, sizeof(id.serial));
	memcpy(id.issuer_key_id, cert->issuer_key_id, sizeof(id.issuer_key_id));
	return id;
}

static bool is_cert(const struct store_cert *cert, const struct store_cert_id *id)
{
	return same_serial(cert, id->serial, id->serial_bytes) && same_issuer(cert, id->issuer_key_id);
}

static bool same_id(const struct store_cert_id *a, const struct store_cert_id *b)
{
	return a->serial_bytes == b->serial_bytes && memcmp(a->serial, b->serial, a->serial_bytes) == 0 &&
	       memcmp(a->issuer_key_id, b->issuer_key_id, STORE_KEY_ID_BYTES) == 0;
}

static bool has_cert(const struct memory *m, const struct store_cert *cert)
{
	for (size_t i = 0; i < m->certs.n; i++)
		if (same_serial(m->certs.rows[i], cert->serial, cert->serial_bytes) &&
			same_issuer(m->certs.rows[i], cert->issuer_key_id))
			return true;
	return false;
}

/* Index of what was enrolled with this token and key, or token_uses.n. */
static size_t find_token_use(const struct memory *m, const struct store_token_key *key)
{
	size_t i = 0;
	while (i < m->token_uses.n &&
		memcmp(&((const struct token_use *)m->token_uses.rows[i])->key, key, sizeof(*key)) != 0)
		i++;
	return i;
}

static int cert_there(struct err *e)
{
	return err_set(e, ERR_CONFLICT, "what was enrolled with this token has its certificate already");
}

/* Links the certificate to the use of the token that it is for. */
static int give_to_token_use(struct memory *m, size_t at, const struct store_cert *cert, struct err *e)
{
	struct token_use use = *(const struct token_use *)m->token_uses.rows[at];
	use.cert = id_of(cert);
	return table_replace(m, &m->token_uses, at, copy_row(&use, sizeof(use), NULL, 0), e);
}

static bool is_good(const struct memory *m, const struct store_cert_id *id)
{
	for (size_t i = 0; i < m->certs.n; i++) {
		const struct store_cert *cert = m->certs.rows[i];
		if (is_cert(cert, id))
			return !cert->revoked_at.ms;
	}
	return false;
}

/* What stands against a certificate for this client, where it is there already. */
static int check_client(const struct store_client *there, const struct store_cert *cert, struct err *e)
{
	if (!str_eq(there->domain, cert->domain))
		return other_domain(e);
	if (there->status == CLIENT_REMOVED)
		return err_set(e, ERR_CONFLICT, "the client was removed");
	return 0;
}

static int memory_put_cert(void *state, struct store_cert_put *put, struct err *e)
{
	struct memory *m = state;
	size_t use = put->token ? find_token_use(m, put->token) : 0;
	if (put->token && (use == m->token_uses.n ||
				  ((const struct token_use *)m->token_uses.rows[use])->cert.serial_bytes))
		return cert_there(e);
	struct store_cert cert = put->cert;
	size_t at = find_client(m, cert.name);
	bool with_client = put->create_client && str_eq(cert.role, STR("client"));
	if (with_client && at < m->clients.n && check_client(m->clients.rows[at], &cert, e) < 0)
		return -1;
	if (put->while_good && !is_good(m, &cert.renews))
		return err_set(e, ERR_FORBIDDEN, "the certificate was revoked meanwhile");
	if (has_cert(m, &cert))
		return err_set(e, ERR_CONFLICT, "this issuer has used this serial number already");
	struct store_client client = {.name = cert.name, .domain = cert.domain, .status = CLIENT_ACTIVE};
	if (with_client && at == m->clients.n && add_client(m, client, e) < 0)
		return -1;
	cert.revoked_at.ms = 0;
	cert.revoke_reason = (struct str){NULL, 0};
	cert.first_seen_at.ms = cert.seen_at.ms = 0;
	cert.change = put->change = ++m->last_change;
	if (table_add(m, &m->certs, COPY_ROW(&cert, cert_texts), e) < 0)
		return -1;
	return put->token ? give_to_token_use(m, use, &cert, e) : 0;
}

static bool revoke_names(const struct store_revoke *revoke, const struct store_cert *cert)
{
	if (revoke->serial_bytes)
		return same_serial(cert, revoke->serial, revoke->serial_bytes) &&
		       (!revoke->issuer_key_id || same_issuer(cert, revoke->issuer_key_id));
	return str_eq(cert->name, revoke->name) && (!revoke->role.n || str_eq(cert->role, revoke->role));
}

static int memory_revoke(void *state, struct store_revoke *revoke, struct err *e)
{
	struct memory *m = state;
	bool any = false;
	for (size_t i = 0; i < m->certs.n; i++) {
		struct store_cert cert = *(const struct store_cert *)m->certs.rows[i];
		if (!revoke_names(revoke, &cert))
			continue;
		any = true;
		if (cert.revoked_at.ms)
			continue;
		cert.revoked_at = revoke->at.ms ? revoke->at : m->now;
		cert.revoke_reason = revoke->reason.n ? revoke->reason : STR("unspecified");
		if (change_cert(m, i, cert, &revoke->change, e) < 0)
			return -1;
		revoke->revoked_count++;
	}
	if (!any)
		return err_set(e, ERR_NOT_FOUND, "no certificate matches");
	return revoke->revoked_count ? 0 : STORE_UNCHANGED;
}

static int memory_put_seen(void *state, const struct store_seen *seen, struct err *e)
{
	struct memory *m = state;
	for (unsigned n = 0; n < seen->count; n++)
		for (size_t i = 0; i < m->certs.n; i++) {
			struct store_cert cert = *(const struct store_cert *)m->certs.rows[i];
			const struct store_seen_item *item = &seen->items[n];
			if (!is_cert(&cert, &item->cert) || cert.seen_at.ms >= item->at.ms)
				continue;
			if (!cert.first_seen_at.ms)
				cert.first_seen_at = item->at;
			cert.seen_at = item->at;
			if (table_replace(m, &m->certs, i, COPY_ROW(&cert, cert_texts), e) < 0)
				return -1;
		}
	return 0;
}

/* Whether `successor`, first seen in time, replaces `old`. */
static bool replaces(
	const struct store_supersede *s, const struct store_cert *successor, const struct store_cert *old)
{
	if (!successor->renews.serial_bytes || !successor->first_seen_at.ms ||
		successor->first_seen_at.ms <= s->after.ms || successor->first_seen_at.ms > s->until.ms)
		return false;
	if (is_cert(old, &successor->renews))
		return true;
	return same_id(&old->renews, &successor->renews) && old->issued_at.ms < successor->issued_at.ms &&
	       !old->first_seen_at.ms;
}

static bool is_replaced(const struct memory *m, const struct store_supersede *s, const struct store_cert *old)
{
	for (size_t i = 0; i < m->certs.n; i++)
		if (replaces(s, m->certs.rows[i], old))
			return true;
	return false;
}

static int memory_supersede(void *state, struct store_supersede *supersede, struct err *e)
{
	struct memory *m = state;
	for (size_t i = 0; i < m->certs.n; i++) {
		struct store_cert cert = *(const struct store_cert *)m->certs.rows[i];
		if (cert.revoked_at.ms || !is_replaced(m, supersede, &cert))
			continue;
		cert.revoked_at = m->now;
		cert.revoke_reason = STR("superseded");
		if (change_cert(m, i, cert, &supersede->change, e) < 0)
			return -1;
		supersede->revoked_count++;
	}
	return supersede->revoked_count ? 0 : STORE_UNCHANGED;
}

/* --- writing tokens --- */

/* What was taken out leaves a row of zeroes behind, as no token and no use has: places are sequence numbers. */
static bool is_removed(const struct store_token *token)
{
	return token->uses_max == 0;
}

/* Index of the token, or tokens.n. */
static size_t find_token(const struct memory *m, const uint8_t *id)
{
	size_t i = 0;
	while (i < m->tokens.n &&
		memcmp(((const struct store_token *)m->tokens.rows[i])->hash, id, STORE_TOKEN_ID_BYTES) != 0)
		i++;
	return i;
}

static int memory_put_token(void *state, const struct store_token *token, struct err *e)
{
	struct memory *m = state;
	if (find_token(m, token->hash) < m->tokens.n)
		return err_set(e, ERR_CONFLICT, "there is a token of this id");
	struct store_token row = *token;
	row.sequence = (int64_t)m->tokens.n + 1;
	row.used_at.ms = row.revoked_at.ms = 0;
	return table_add(m, &m->tokens, COPY_ROW(&row, token_texts), e);
}

static int memory_use_token(void *state, struct store_token_use *use, struct err *e)
{
	struct memory *m = state;
	size_t at = find_token(m, use->key.id), before = find_token_use(m, &use->key);
	if (at == m->tokens.n)
		return err_set(e, ERR_NOT_FOUND, "no such token");
	struct store_token token = *(const struct store_token *)m->tokens.rows[at];
	int outcome = rules_token_outcome(&token, m->now, before < m->token_uses.n);
	if (outcome == STORE_TOKEN_AGAIN)
		use->cert = ((const struct token_use *)m->token_uses.rows[before])->cert;
	if (outcome != STORE_TOKEN_CONSUMED)
		return outcome;
	struct token_use fresh = {.key = use->key};
	token.uses++;
	token.used_at = m->now;
	if (table_add(m, &m->token_uses, copy_row(&fresh, sizeof(fresh), NULL, 0), e) < 0)
		return -1;
	return table_replace(m, &m->tokens, at, COPY_ROW(&token, token_texts), e);
}

static int memory_revoke_tokens(void *state, struct store_token_revoke *revoke, struct err *e)
{
	struct memory *m = state;
	bool any = !revoke->id;
	for (size_t i = 0; i < m->tokens.n; i++) {
		struct store_token token = *(const struct store_token *)m->tokens.rows[i];
		if (revoke->id ? memcmp(token.hash, revoke->id, STORE_TOKEN_ID_BYTES) != 0
			       : !str_eq(token.name, revoke->name))
			continue;
		any = true;
		if (rules_token_outcome(&token, m->now, false) != STORE_TOKEN_CONSUMED)
			continue;
		token.revoked_at = m->now;
		if (table_replace(m, &m->tokens, i, COPY_ROW(&token, token_texts), e) < 0)
			return -1;
		revoke->revoked_count++;
	}
	if (!any)
		return err_set(e, ERR_NOT_FOUND, "no such token");
	return revoke->revoked_count ? 0 : STORE_UNCHANGED;
}

static int memory_restore_token(void *state, const struct store_token_restore *restore, struct err *e)
{
	struct memory *m = state;
	size_t at = find_token(m, restore->id);
	if (at == m->tokens.n)
		return err_set(e, ERR_NOT_FOUND, "no such token");
	struct store_token token = *(const struct store_token *)m->tokens.rows[at];
	if (!rules_token_restore(&token, restore))
		return STORE_UNCHANGED;
	return table_replace(m, &m->tokens, at, COPY_ROW(&token, token_texts), e);
}

static int remove_token(struct memory *m, size_t at, struct err *e)
{
	const uint8_t *id = ((const struct store_token *)m->tokens.rows[at])->hash;
	const struct token_use no_use = {.key = {.id = {0}}};
	for (size_t i = 0; i < m->token_uses.n; i++)
		if (memcmp(((const struct token_use *)m->token_uses.rows[i])->key.id, id,
			    STORE_TOKEN_ID_BYTES) == 0 &&
			table_replace(m, &m->token_uses, i, copy_row(&no_use, sizeof(no_use), NULL, 0), e) <
				0)
			return -1;
	const struct store_token none = {.sequence = (int64_t)at + 1};
	return table_replace(m, &m->tokens, at, COPY_ROW(&none, token_texts), e);
}

static int memory_purge_tokens(void *state, struct store_token_purge *purge, struct err *e)
{
	struct memory *m = state;
	for (size_t i = 0; i < m->tokens.n && purge->removed_count < purge->max; i++) {
		const struct store_token *token = m->tokens.rows[i];
		if (is_removed(token) || !rules_token_ended(token, purge->ended_before))
			continue;
		if (remove_token(m, i, e) < 0)
			return -1;
		purge->removed_count++;
	}
	return 0;
}

/* --- writing the audit trail --- */

static int memory_audit_head(
	void *state, int64_t *ret_sequence, uint8_t ret_hash[STORE_HASH_BYTES], struct err *e)
{
	(void)e;
	struct memory *m = state;
	*ret_sequence = (int64_t)m->audit.n;
	if (m->audit.n)
		memcpy(ret_hash, ((const struct store_audit_row *)m->audit.rows[m->audit.n - 1])->hash,
			STORE_HASH_BYTES);
	else
		memset(ret_hash, 0, STORE_HASH_BYTES);
	return 0;
}

static int memory_put_audit(void *state, const struct store_audit_row *row, struct err *e)
{
	struct memory *m = state;
	return table_add(m, &m->audit, COPY_ROW(row, audit_texts), e);
}

/* There is nothing that could stop taking writes. */
static int memory_probe(void *state, struct err *e)
{
	(void)state;
	(void)e;
	return 0;
}

/* --- reading --- */

static void read_unlock(pthread_rwlock_t **lock)
{
	pthread_rwlock_unlock(*lock);
}

/* Holds the lock for the rest of the scope. */
#define READ_LOCK(m)                                                                                         \
	AUTO(read_unlock) pthread_rwlock_t *read_lock_ = &(m)->lock;                                         \
	pthread_rwlock_rdlock(read_lock_)

static bool query_wants(const struct store_query *q, const struct store_row *row)
{
	if (row->state == removed)
		return false;
	if (q->client_id.n && !str_eq(q->client_id, row->sealed.client_id))
		return false;
	if (q->domain.n && !str_eq(q->domain, row->sealed.domain))
		return false;
	if (q->state >= 0 && row->state != (enum message_state)q->state)
		return false;
	if (q->sender_index && memcmp(q->sender_index, row->sender_index, STORE_INDEX_BYTES) != 0)
		return false;
	if (q->since.ms && row->sealed.accepted_at.ms < q->since.ms)
		return false;
	if (q->until.ms && row->sealed.accepted_at.ms >= q->until.ms)
		return false;
	return true;
}

static int memory_read_messages(void *state, const struct store_query *query, struct arena *arena,
	struct store_page *ret, struct err *e)
{
	struct memory *m = state;
	READ_LOCK(m);
	struct store_page page = {.rows = arena_alloc(arena, query->max * sizeof(*page.rows))};
	if (!page.rows)
		return err_oom(e);
	size_t i = m->messages.n;
	if (query->before_sequence && (uint64_t)query->before_sequence <= i)
		i = (size_t)query->before_sequence - 1;
	while (i > 0 && !page.next_sequence) {
		const struct store_row *row = m->messages.rows[--i];
		if (!query_wants(query, row))
			continue;
		if (page.count == query->max) {
			page.next_sequence = page.rows[page.count - 1].sequence;
			break;
		}
		page.rows[page.count] = *row;
		if (!LEND_TEXTS(&page.rows[page.count], message_texts, arena))
			return err_oom(e);
		page.count++;
	}
	*ret = page;
	return 0;
}

static int memory_read_message(
	void *state, const struct uuid *id, struct arena *arena, struct store_row *ret, struct err *e)
{
	struct memory *m = state;
	READ_LOCK(m);
	size_t at = find_id(m, id);
	if (!at)
		return err_set(e, ERR_NOT_FOUND, "no message has this id");
	struct store_row row = *(const struct store_row *)m->messages.rows[at - 1];
	if (!LEND_TEXTS(&row, message_texts, arena))
		return err_oom(e);
	*ret = row;
	return 0;
}

static int memory_read_counts(void *state, struct store_counts *ret, struct err *e)
{
	(void)e;
	struct memory *m = state;
	READ_LOCK(m);
	*ret = (struct store_counts){
		.clients = m->clients.n,
		.certificates = m->certs.n,
		.audit_rows = m->audit.n,
	};
	for (size_t i = 0; i < m->messages.n; i++) {
		enum message_state state_of = ((const struct store_row *)m->messages.rows[i])->state;
		if (state_of == removed)
			continue;
		ret->by_state[state_of]++;
		ret->messages++;
	}
	return 0;
}

/* Picks the rows that `wants` accepts, sorts them, and copies the first `max` of `bytes` each into the arena.
 */
struct pick {
	const struct table *table;
	bool (*wants)(const void *query, const void *row);
	const void *query;
	int (*compare)(const void *a, const void *b); /* of const void * elements, for qsort */
	size_t row_bytes;
	const size_t *texts;
	size_t text_count;
};

static int pick_rows(const struct pick *pick, unsigned max, struct arena *arena, void **ret,
	unsigned *ret_count, struct err *e)
{
	size_t n = 0;
	AUTO(free_auto) const void **found = calloc(pick->table->n + 1, sizeof(*found));
	if (!found)
		return err_oom(e);
	for (size_t i = 0; i < pick->table->n; i++)
		if (pick->wants(pick->query, pick->table->rows[i]))
			found[n++] = pick->table->rows[i];
	qsort(found, n, sizeof(*found), pick->compare);
	if (n > max)
		n = max;
	char *rows = arena_alloc(arena, n * pick->row_bytes);
	if (!rows)
		return err_oom(e);
	for (size_t i = 0; i < n; i++) {
		char *row = rows + i * pick->row_bytes;
		memcpy(row, found[i], pick->row_bytes);
		if (!lend_texts(row, pick->texts, pick->text_count, arena))
			return err_oom(e);
	}
	*ret = rows;
	*ret_count = (unsigned)n;
	return 0;
}

struct client_query {
	struct str domain, after_name;
};

static bool wants_client(const void *query, const void *row)
{
	const struct client_query *q = query;
	const struct store_client *c = row;
	return (!q->domain.n || str_eq(q->domain, c->domain)) && str_cmp(c->name, q->after_name) > 0;
}

static int compare_clients(const void *a, const void *b)
{
	const struct store_client *const *left = a, *const *right = b;
	return str_cmp((*left)->name, (*right)->name);
}

static int memory_read_clients(void *state, struct str domain, struct str after_name, unsigned max,
	struct arena *arena, struct store_client **ret, unsigned *ret_count, struct err *e)
{
	struct memory *m = state;
	READ_LOCK(m);
	struct pick pick = {
		.table = &m->clients,
		.wants = wants_client,
		.query = &(struct client_query){domain, after_name},
		.compare = compare_clients,
		.row_bytes = sizeof(**ret),
		.texts = client_texts,
		.text_count = ARRAY_LEN(client_texts),
	};
	return pick_rows(&pick, max, arena, (void **)ret, ret_count, e);
}

static int memory_read_client(
	void *state, struct str name, struct arena *arena, struct store_client *ret, struct err *e)
{
	struct memory *m = state;
	READ_LOCK(m);
	size_t at = find_client(m, name);
	if (at == m->clients.n)
		return err_set(e, ERR_NOT_FOUND, "no client has this name");
	struct store_client client = *(const struct store_client *)m->clients.rows[at];
	if (!LEND_TEXTS(&client, client_texts, arena))
		return err_oom(e);
	*ret = client;
	return 0;
}

static bool wants_cert(const void *query, const void *row)
{
	const struct store_cert_query *q = query;
	const struct store_cert *c = row;
	return c->change > q->after_change && (!q->name.n || str_eq(q->name, c->name)) &&
	       (!q->domain.n || str_eq(q->domain, c->domain)) && (!q->role.n || str_eq(q->role, c->role)) &&
	       (!q->expires_before.ms || c->not_after.ms < q->expires_before.ms) &&
	       (!q->revoked_only || c->revoked_at.ms) &&
	       (!q->serial || same_serial(c, q->serial, q->serial_bytes)) &&
	       (!q->issuer_key_id || same_issuer(c, q->issuer_key_id));
}

static int compare_certs(const void *a, const void *b)
{
	const struct store_cert *const *left = a, *const *right = b;
	return ((*left)->change > (*right)->change) - ((*left)->change < (*right)->change);
}

static int memory_read_certs(void *state, const struct store_cert_query *query, struct arena *arena,
	struct store_cert **ret, unsigned *ret_count, struct err *e)
{
	struct memory *m = state;
	READ_LOCK(m);
	struct pick pick = {
		.table = &m->certs,
		.wants = wants_cert,
		.query = query,
		.compare = compare_certs,
		.row_bytes = sizeof(**ret),
		.texts = cert_texts,
		.text_count = ARRAY_LEN(cert_texts),
	};
	if (pick_rows(&pick, query->max, arena, (void **)ret, ret_count, e) < 0)
		return -1;
	for (unsigned i = 0; i < *ret_count; i++)
		(*ret)[i].suspended = is_suspended(m, &(*ret)[i]);
	return 0;
}

static bool wants_token(const void *query, const void *row)
{
	const struct store_token_query *q = query;
	const struct store_token *t = row;
	return !is_removed(t) && (!q->before_sequence || t->sequence < q->before_sequence) &&
	       (!q->name.n || str_eq(q->name, t->name)) &&
	       (!q->id || memcmp(q->id, t->hash, STORE_TOKEN_ID_BYTES) == 0);
}

static int compare_tokens(const void *a, const void *b)
{
	const struct store_token *const *left = a, *const *right = b;
	return ((*right)->sequence > (*left)->sequence) - ((*right)->sequence < (*left)->sequence);
}

static int memory_read_tokens(void *state, const struct store_token_query *query, struct arena *arena,
	struct store_token **ret, unsigned *ret_count, struct err *e)
{
	struct memory *m = state;
	READ_LOCK(m);
	struct pick pick = {
		.table = &m->tokens,
		.wants = wants_token,
		.query = query,
		.compare = compare_tokens,
		.row_bytes = sizeof(**ret),
		.texts = token_texts,
		.text_count = ARRAY_LEN(token_texts),
	};
	return pick_rows(&pick, query->max, arena, (void **)ret, ret_count, e);
}

static bool wants_audit(const void *query, const void *row)
{
	const int64_t *after_sequence = query;
	return ((const struct store_audit_row *)row)->sequence > *after_sequence;
}

static int compare_audit(const void *a, const void *b)
{
	const struct store_audit_row *const *left = a, *const *right = b;
	return ((*left)->sequence > (*right)->sequence) - ((*left)->sequence < (*right)->sequence);
}

static int memory_read_audit(void *state, int64_t after_sequence, unsigned max, struct arena *arena,
	struct store_audit_row **ret, unsigned *ret_count, struct err *e)
{
	struct memory *m = state;
	READ_LOCK(m);
	struct pick pick = {
		.table = &m->audit,
		.wants = wants_audit,
		.query = &after_sequence,
		.compare = compare_audit,
		.row_bytes = sizeof(**ret),
		.texts = audit_texts,
		.text_count = ARRAY_LEN(audit_texts),
	};
	return pick_rows(&pick, max, arena, (void **)ret, ret_count, e);
}

const struct store_driver store_driver_memory = {
	.name = "memory",
	.open = memory_open,
	.close = memory_close,
	.description = memory_description,
	.begin = memory_begin,
	.commit = memory_commit,
	.abort = memory_abort,
	.put_messages = memory_put_messages,
	.put_status = memory_put_status,
	.expire = memory_expire,
	.put_client = memory_put_client,
	.put_cert = memory_put_cert,
	.revoke = memory_revoke,
	.put_seen = memory_put_seen,
	.supersede = memory_supersede,
	.put_token = memory_put_token,
	.use_token = memory_use_token,
	.revoke_tokens = memory_revoke_tokens,
	.restore_token = memory_restore_token,
	.purge_tokens = memory_purge_tokens,
	.audit_head = memory_audit_head,
	.put_audit = memory_put_audit,
	.probe = memory_probe,
	.read_messages = memory_read_messages,
	.read_message = memory_read_message,
	.read_counts = memory_read_counts,
	.read_clients = memory_read_clients,
	.read_client = memory_read_client,
	.read_certs = memory_read_certs,
	.read_tokens = memory_read_tokens,
	.read_audit = memory_read_audit,
};
