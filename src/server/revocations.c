/* revocations.c - the journal beside the store: a restored backup never lets anybody in again. */
#include <stdio.h>

#include "base/log.h"
#include "server/internal.h"

int server_open_journal(struct server *s, const char *path, struct err *e)
{
	unsigned unreadable;
	if (!path)
		return 0;
	if (journal_open(path, &s->journal, &unreadable, e) < 0)
		return err_context(e, "revocation journal");
	if (unreadable)
		log_event(LOG_WARN, "revocation.journal_damaged", LF_STR("file", path),
			LF_UINT("lines", unreadable));
	return 0;
}

/* The row of a certificate that the journal says is revoked becomes what it was. */
static int revoke_again(
	struct server *s, struct store_cert *cert, const struct journal_entry *entry, struct err *e)
{
	static const struct server_actor us = {"sealpost", ""};
	struct store_revoke op = {.serial_bytes = cert->serial_bytes,
		.issuer_key_id = cert->issuer_key_id,
		.reason = server_revoke_reason(str_of(entry->reason)),
		.at = entry->at};
	char serial[2 * SERIAL_MAX_BYTES + 1];
	memcpy(op.serial, cert->serial, sizeof(op.serial));
	hex_encode(cert->serial, cert->serial_bytes, serial);
	if (store_wait(s->store, STORE_REVOKE, &op.op, e) < 0 ||
		server_audit(s, &us, "certificate.revoke", str_of(serial), "ok",
			STR("{\"from\":\"revocation journal\"}"), e) < 0)
		return err_context(e, "revoke again what the journal knows as revoked");
	log_event(LOG_WARN, "revocation.restored", LF_VIEW("name", cert->name), LF_STR("serial", serial));
	cert->revoked_at = entry->at;
	return 0;
}

int server_compare_with_journal(struct server *s, struct store_cert *cert, struct err *e)
{
	struct journal_entry entry = {.cert = {.serial_bytes = cert->serial_bytes}, .at = cert->revoked_at};
	memcpy(entry.cert.serial, cert->serial, sizeof(entry.cert.serial));
	memcpy(entry.cert.issuer_key_id, cert->issuer_key_id, sizeof(entry.cert.issuer_key_id));
	if (!cert->revoked_at.ms)
		return journal_find(s->journal, &entry.cert, &entry) ? revoke_again(s, cert, &entry, e) : 0;
	struct err why = ERR_INIT;
	snprintf(entry.reason, sizeof(entry.reason), "%.*s", STR_ARG(cert->revoke_reason));
	if (journal_add(s->journal, &entry, &why) < 0)
		log_event(LOG_ERROR, "revocation.not_in_journal", LF_ERR(&why));
	return 0;
}
