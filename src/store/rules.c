/* rules.c - see rules.h. */
#include "store/rules.h"

#include "message/message.h"

static bool text_fits(struct str s, size_t max_bytes)
{
	return s.n <= max_bytes && utf8_valid(s, NULL);
}

static const char *sealed_fault(const struct sealed *s)
{
	if (!message_name_valid(s->client_id))
		return "client id";
	if (!message_name_valid(s->domain))
		return "domain";
	if (s->accepted_at.ms <= 0)
		return "time of acceptance";
	if (!text_fits(s->traceparent, STORE_TRACEPARENT_BYTES))
		return "trace context";
	if (s->envelope.n == 0 || s->envelope.n > SEALED_MAX_BYTES)
		return "size of the envelope";
	return NULL;
}

const char *rules_message(const struct store_message *m)
{
	if (m->state != MESSAGE_QUEUED && m->state != MESSAGE_DELIVERED)
		return "state";
	return sealed_fault(&m->sealed);
}

const char *rules_status(const struct store_status *s)
{
	if ((unsigned)s->state >= MESSAGE_STATES || s->state == MESSAGE_DELIVERED)
		return "state";
	if (!text_fits(s->error_text, STORE_ERROR_TEXT_BYTES))
		return "error text";
	return NULL;
}

const char *rules_row(const struct store_row *row)
{
	if (row->sequence <= 0)
		return "sequence";
	if ((unsigned)row->state >= MESSAGE_STATES)
		return "state";
	if ((row->state == MESSAGE_DELIVERED) != (row->delivered_at.ms != 0))
		return "time of delivery";
	if (!text_fits(row->error_text, STORE_ERROR_TEXT_BYTES))
		return "error text";
	return sealed_fault(&row->sealed);
}

const char *rules_client(const struct store_client *c)
{
	if (!message_name_valid(c->name))
		return "name";
	if (!message_name_valid(c->domain))
		return "domain";
	if ((unsigned)c->status >= CLIENT_STATUSES)
		return "status";
	return NULL;
}

bool rules_serial(const uint8_t *serial, unsigned serial_bytes)
{
	return serial_bytes >= 1 && serial_bytes <= SERIAL_MAX_BYTES && serial[0] != 0;
}

const char *rules_cert(const struct store_cert *c)
{
	if (!rules_serial(c->serial, c->serial_bytes))
		return "serial number";
	if (c->role.n == 0 || !text_fits(c->role, STORE_TEXT_BYTES))
		return "role";
	if (!message_name_valid(c->name))
		return "name";
	if (!message_name_valid(c->domain) && (c->domain.n || str_eq(c->role, STR("client"))))
		return "domain";
	if (c->der.n == 0 || c->der.n > STORE_CERT_BYTES)
		return "size of the certificate";
	if (!text_fits(c->revoke_reason, STORE_TEXT_BYTES))
		return "reason";
	if (c->renews.serial_bytes && !rules_serial(c->renews.serial, c->renews.serial_bytes))
		return "serial number of the one before";
	return NULL;
}

const char *rules_seen(const struct store_seen *s)
{
	if (s->count == 0 || s->count > STORE_SEEN_MAX)
		return "count";
	for (unsigned i = 0; i < s->count; i++)
		if (!rules_serial(s->items[i].cert.serial, s->items[i].cert.serial_bytes))
			return "serial number";
	return NULL;
}

const char *rules_token(const struct store_token *t)
{
	if (!message_name_valid(t->name))
		return "name";
	if (!message_name_valid(t->domain))
		return "domain";
	if (t->role.n == 0 || !text_fits(t->role, STORE_TEXT_BYTES))
		return "role";
	if (!text_fits(t->names, STORE_DETAIL_BYTES))
		return "names";
	if (t->days < 0)
		return "lifetime";
	if (t->uses_max == 0 || t->uses_max > STORE_TOKEN_USES_MAX || t->uses > t->uses_max)
		return "number of uses";
	if (t->expires_at.ms <= 0)
		return "end";
	return NULL;
}

enum store_token_outcome rules_token_outcome(const struct store_token *t, struct wall now, bool again)
{
	if (t->revoked_at.ms)
		return STORE_TOKEN_REVOKED;
	if (t->expires_at.ms <= now.ms)
		return STORE_TOKEN_EXPIRED;
	if (again)
		return STORE_TOKEN_AGAIN;
	return t->uses < t->uses_max ? STORE_TOKEN_CONSUMED : STORE_TOKEN_USED_UP;
}

bool rules_token_ended(const struct store_token *t, struct wall before)
{
	return (t->revoked_at.ms && t->revoked_at.ms < before.ms) || t->expires_at.ms < before.ms ||
	       (t->uses >= t->uses_max && t->used_at.ms < before.ms);
}

bool rules_token_restore(struct store_token *t, const struct store_token_restore *known)
{
	unsigned uses = known->uses < t->uses_max ? known->uses : t->uses_max;
	bool more_uses = uses > t->uses, revoke = known->revoked_at.ms && !t->revoked_at.ms;
	if (more_uses) {
		t->uses = uses;
		t->used_at = known->used_at;
	}
	if (revoke)
		t->revoked_at = known->revoked_at;
	return more_uses || revoke;
}

const char *rules_revoke(const struct store_revoke *r)
{
	if (r->serial_bytes ? !rules_serial(r->serial, r->serial_bytes) : !message_name_valid(r->name))
		return r->serial_bytes ? "serial number" : "name";
	if (!text_fits(r->role, STORE_TEXT_BYTES))
		return "role";
	if (!text_fits(r->reason, STORE_TEXT_BYTES))
		return "reason";
	return NULL;
}

const char *rules_audit(const struct store_audit_row *row)
{
	const struct str texts[] = {row->actor, row->origin, row->action, row->target, row->result};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (!text_fits(texts[i], STORE_TEXT_BYTES))
			return "text";
	if (!text_fits(row->detail, STORE_DETAIL_BYTES))
		return "detail";
	return NULL;
}

bool rules_index_known(const uint8_t index[STORE_INDEX_BYTES])
{
	uint8_t any = 0;
	for (unsigned i = 0; i < STORE_INDEX_BYTES; i++)
		any |= index[i];
	return any != 0;
}
