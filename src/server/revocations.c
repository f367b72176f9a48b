/* revocations.c - the journal beside the store: a restored backup never lets anybody in again, and makes no enrolment
 * token good again. */
#include <stdio.h>

#include "base/auto.h"
#include "base/log.h"
#include "server/internal.h"

enum { TOKEN_PAGE = 500, ARENA_BYTES = 16 * 1024 * 1024 };

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
	struct store_revoke op = {.serial_bytes = cert->serial_bytes,
		.issuer_key_id = cert->issuer_key_id,
		.reason = server_revoke_reason(str_of(entry->reason)),
		.at = entry->at};
	char serial[2 * SERIAL_MAX_BYTES + 1];
	memcpy(op.serial, cert->serial, sizeof(op.serial));
	hex_encode(cert->serial, cert->serial_bytes, serial);
	if (store_wait(s->store, STORE_REVOKE, &op.op, e) < 0 ||
		server_audit(s, &server_itself, "certificate.revoke", str_of(serial), "ok",
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

/* --- enrolment tokens --- */

static struct journal_token entry_of(const struct store_token *token)
{
	struct journal_token entry = {
		.uses = token->uses, .used_at = token->used_at, .revoked_at = token->revoked_at};
	memcpy(entry.id, token->hash, sizeof(entry.id));
	return entry;
}

static void note_token(struct server *s, const struct store_token *token)
{
	struct journal_token entry = entry_of(token);
	struct err why = ERR_INIT;
	if (journal_add_token(s->journal, &entry, &why) < 0)
		log_event(LOG_ERROR, "enroll.not_in_journal", LF_ERR(&why));
}

/* What the journal knows of a token and the store has forgotten; then the other way round. */
static int compare_token(struct server *s, const struct store_token *token, struct err *e)
{
	struct journal_token known;
	char id[2 * STORE_TOKEN_ID_BYTES + 1], detail[96];
	if (!journal_find_token(s->journal, token->hash, &known)) {
		note_token(s, token);
		return 0;
	}
	struct store_token_restore op = {
		.uses = known.uses, .used_at = known.used_at, .revoked_at = known.revoked_at};
	memcpy(op.id, known.id, sizeof(op.id));
	int rc = store_wait(s->store, STORE_TOKEN_RESTORE, &op.op, e);
	note_token(s, token);
	if (rc < 0 || rc == STORE_UNCHANGED)
		return rc < 0 ? -1 : 0;
	hex_encode(known.id, sizeof(known.id), id);
	snprintf(detail, sizeof(detail), "{\"from\":\"revocation journal\",\"uses\":%u,\"revoked\":%s}",
		known.uses, known.revoked_at.ms ? "true" : "false");
	log_event(LOG_WARN, "enroll.token_restored", LF_VIEW("name", token->name), LF_STR("token", id),
		LF_UINT("uses", known.uses));
	return server_audit(s, &server_itself, "token.restore", str_of(id), "ok", str_of(detail), e);
}

static int each_token(struct server *s, struct store_token_query query,
	int (*run)(struct server *s, const struct store_token *token, struct err *e), struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, ARENA_BYTES);
	query.max = TOKEN_PAGE;
	unsigned count = TOKEN_PAGE;
	while (count == TOKEN_PAGE) {
		struct store_token *tokens;
		arena_reset(&arena);
		if (store_read_tokens(s->store, &query, &arena, &tokens, &count, e) < 0)
			return -1;
		for (unsigned i = 0; i < count; i++) {
			query.before_sequence = tokens[i].sequence;
			if (run(s, &tokens[i], e) < 0)
				return -1;
		}
	}
	return 0;
}

static int note_one(struct server *s, const struct store_token *token, struct err *e)
{
	(void)e;
	note_token(s, token);
	return 0;
}

static void sync_journal(struct server *s)
{
	struct err why = ERR_INIT;
	if (journal_sync(s->journal, &why) < 0)
		log_event(LOG_ERROR, "enroll.not_in_journal", LF_ERR(&why));
}

void server_note_tokens(struct server *s, const struct store_token_query *which)
{
	struct err why = ERR_INIT;
	if (!s->journal)
		return;
	if (each_token(s, *which, note_one, &why) < 0)
		log_event(LOG_ERROR, "enroll.not_in_journal", LF_ERR(&why));
	sync_journal(s);
}

int server_compare_tokens(struct server *s, struct err *e)
{
	struct store_token_query all = {.max = 0};
	if (!s->journal)
		return 0;
	if (each_token(s, all, compare_token, e) < 0)
		return err_context(e, "hold enrolment tokens against the journal");
	sync_journal(s);
	return 0;
}
