/* sqlite_clients.c - the writer thread's half of the SQLite driver, as far as it is about clients, their certificates
 * and the tokens that these are enrolled with.
 *
 * Every change of a certificate gives it a number of its own, higher than all before, so that whoever follows the
 * registry (read_certs by change) sees each once. */
#include <string.h>

#include "base/auto.h"
#include "store/rules.h"
#include "store/sqlite_writer.h"

/* --- clients and certificates --- */

/* SQ_ROW or SQ_END; *ret_same_domain and *ret_status are set for a row. */
static int find_client(struct sqlite_writer *w, struct str name, struct str domain, bool *ret_same_domain,
	int64_t *ret_status, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, SQL_FIND_CLIENT);
	sq_bind_text(&a, name);
	int found = sq_next(&w->sq, &a, e);
	if (found != SQ_ROW)
		return found;
	struct sq_columns c = sq_columns(&a, NULL);
	char there[DOMAIN_NAME_BYTES];
	unsigned n = sq_column_upto(&c, there, sizeof(there));
	*ret_same_domain = str_eq(str_mem(there, n), domain);
	*ret_status = sq_column_int(&c);
	return SQ_ROW;
}

static int other_domain(struct err *e)
{
	return err_set(e, ERR_CONFLICT, "the client exists in another domain");
}

static int add_client(struct sqlite_writer *w, const struct store_client *client, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, SQL_ADD_CLIENT);
	sq_bind_text(&a, client->name);
	sq_bind_text(&a, client->domain);
	sq_bind_int(&a, client->status);
	sq_bind_int(&a, client->created_at.ms ? client->created_at.ms : w->now.ms);
	if (sq_run(&w->sq, &a, NULL, e) < 0)
		return -1;
	w->counters.value[COUNTER_CLIENTS]++;
	return 0;
}

/* Runs a statement that gives change numbers (its ?3 is the last one given out so far), and accounts for
 * them. */
static int run_numbering(struct sqlite_writer *w, const struct sq_args *a, int64_t *ret_changed,
	int64_t *ret_change, struct err *e)
{
	if (sq_run(&w->sq, a, ret_changed, e) < 0)
		return -1;
	w->counters.value[COUNTER_CHANGE] += *ret_changed;
	if (*ret_changed)
		*ret_change = w->counters.value[COUNTER_CHANGE];
	return 0;
}

/* All certificates of a client whose status changed are changed. */
static int renumber_certs(struct sqlite_writer *w, struct str client, int64_t *ret_change, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, SQL_RENUMBER_CERTS);
	sq_bind_text(&a, client);
	sq_bind_text(&a, STR("client"));
	sq_bind_int(&a, w->counters.value[COUNTER_CHANGE]);
	int64_t changed;
	return run_numbering(w, &a, &changed, ret_change, e);
}

static int set_client_status(struct sqlite_writer *w, const struct store_client *client, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, SQL_SET_CLIENT_STATUS);
	sq_bind_text(&a, client->name);
	sq_bind_int(&a, client->status);
	return sq_run(&w->sq, &a, NULL, e);
}

int sqlite_put_client(void *state, struct store_client_put *put, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	const struct store_client *client = &put->client;
	bool same_domain = false;
	int64_t status = 0;
	int found = find_client(w, client->name, client->domain, &same_domain, &status, e);
	if (found < 0)
		return -1;
	if (found == SQ_END) {
		if (add_client(w, client, e) < 0)
			return -1;
		/* Certificates may have been there before their client. */
		return client->status == CLIENT_ACTIVE ? 0 : renumber_certs(w, client->name, &put->change, e);
	}
	if (!same_domain)
		return other_domain(e);
	if (status == client->status)
		return STORE_UNCHANGED;
	return set_client_status(w, client, e) < 0 ? -1 : renumber_certs(w, client->name, &put->change, e);
}

/* Two parameters, NULL both for no certificate. */
static void bind_cert_id(struct sq_args *a, const struct store_cert_id *id)
{
	if (id->serial_bytes) {
		sq_bind_blob(a, id->serial, id->serial_bytes);
		sq_bind_blob(a, id->issuer_key_id, STORE_KEY_ID_BYTES);
	} else {
		sq_bind_null(a);
		sq_bind_null(a);
	}
}

/* SQ_ROW or SQ_END; *ret: the certificate of what was enrolled with this token and key, none if there is none yet. */
static int find_token_use(
	struct sqlite_writer *w, const struct store_token_key *key, struct store_cert_id *ret, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, SQL_FIND_TOKEN_USE);
	sq_bind_blob(&a, key->id, sizeof(key->id));
	sq_bind_blob(&a, key->key_hash, sizeof(key->key_hash));
	int found = sq_next(&w->sq, &a, e);
	if (found != SQ_ROW)
		return found;
	struct sq_columns c = sq_columns(&a, NULL);
	struct store_cert_id cert = {0};
	cert.serial_bytes = sq_column_upto(&c, cert.serial, sizeof(cert.serial));
	sq_column_exact_or_null(&c, cert.issuer_key_id, sizeof(cert.issuer_key_id));
	if (sq_columns_check(&c, NULL, "use of token", 0, e) < 0)
		return -1;
	*ret = cert;
	return SQ_ROW;
}

static int check_token_use(struct sqlite_writer *w, const struct store_token_key *key, struct err *e)
{
	struct store_cert_id cert = {0};
	int found = find_token_use(w, key, &cert, e);
	if (found < 0)
		return -1;
	return found == SQ_ROW && !cert.serial_bytes
		       ? 0
		       : err_set(e, ERR_CONFLICT,
				 "what was enrolled with this token has its certificate already");
}

static int give_token_use(struct sqlite_writer *w, const struct store_cert_put *put, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, SQL_GIVE_TOKEN_USE);
	sq_bind_blob(&a, put->token->id, sizeof(put->token->id));
	sq_bind_blob(&a, put->token->key_hash, sizeof(put->token->key_hash));
	sq_bind_blob(&a, put->cert.serial, put->cert.serial_bytes);
	sq_bind_blob(&a, put->cert.issuer_key_id, STORE_KEY_ID_BYTES);
	return sq_run(&w->sq, &a, NULL, e);
}

/* In the transaction that adds its successor: whoever revokes a name means what is being renewed too. */
static int check_is_good(struct sqlite_writer *w, const struct store_cert_id *id, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, SQL_FIND_GOOD_CERT);
	bind_cert_id(&a, id);
	int found = sq_next(&w->sq, &a, e);
	if (found < 0)
		return -1;
	return found == SQ_ROW ? 0 : err_set(e, ERR_FORBIDDEN, "the certificate was revoked meanwhile");
}

/* *ret_added is false when this issuer has the serial already. */
static int add_cert(struct sqlite_writer *w, const struct store_cert *cert, bool *ret_added, struct err *e)
{
	struct sq_args a = sq_args(&w->sq, SQL_ADD_CERT);
	sq_bind_blob(&a, cert->serial, cert->serial_bytes);
	sq_bind_blob(&a, cert->issuer_key_id, STORE_KEY_ID_BYTES);
	sq_bind_text(&a, cert->role);
	sq_bind_text(&a, cert->name);
	sq_bind_text(&a, cert->domain);
	sq_bind_int(&a, cert->not_before.ms);
	sq_bind_int(&a, cert->not_after.ms);
	sq_bind_int(&a, cert->issued_at.ms);
	sq_bind_int(&a, w->counters.value[COUNTER_CHANGE] + 1);
	sq_bind_blob(&a, cert->der.p, cert->der.n);
	bind_cert_id(&a, &cert->renews);
	int64_t changed;
	if (sq_run(&w->sq, &a, &changed, e) < 0)
		return -1;
	*ret_added = changed != 0;
	w->counters.value[COUNTER_CHANGE] += changed;
	w->counters.value[COUNTER_CERTS] += changed;
	return 0;
}

int sqlite_put_cert(void *state, struct store_cert_put *put, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	const struct store_cert *cert = &put->cert;
	int client = SQ_ROW;
	if (put->create_client && str_eq(cert->role, STR("client"))) {
		bool same_domain = false;
		int64_t status = 0;
		client = find_client(w, cert->name, cert->domain, &same_domain, &status, e);
		if (client < 0)
			return -1;
		if (client == SQ_ROW && !same_domain)
			return other_domain(e);
		if (client == SQ_ROW && status == CLIENT_REMOVED)
			return err_set(e, ERR_CONFLICT, "the client was removed");
	}
	if (put->while_good && check_is_good(w, &cert->renews, e) < 0)
		return -1;
	if (put->token && check_token_use(w, put->token, e) < 0)
		return -1;
	bool added;
	if (add_cert(w, cert, &added, e) < 0)
		return -1;
	if (!added)
		return err_set(e, ERR_CONFLICT, "this issuer has used this serial number already");
	put->change = w->counters.value[COUNTER_CHANGE];
	if (put->token && give_token_use(w, put, e) < 0)
		return -1;
	struct store_client fresh = {.name = cert->name, .domain = cert->domain, .status = CLIENT_ACTIVE};
	return client == SQ_END ? add_client(w, &fresh, e) : 0;
}

/* Binds what a revocation names, as OF_SERIAL and OF_NAME want it. */
static void bind_named(struct sq_args *a, const struct store_revoke *revoke)
{
	if (!revoke->serial_bytes) {
		sq_bind_text(a, revoke->name);
		sq_bind_text_or_null(a, revoke->role);
		return;
	}
	sq_bind_blob(a, revoke->serial, revoke->serial_bytes);
	if (revoke->issuer_key_id)
		sq_bind_blob(a, revoke->issuer_key_id, STORE_KEY_ID_BYTES);
	else
		sq_bind_null(a);
}

int sqlite_revoke(void *state, struct store_revoke *revoke, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	struct sq_args a = sq_args(&w->sq, revoke->serial_bytes ? SQL_REVOKE_SERIAL : SQL_REVOKE_NAME);
	bind_named(&a, revoke);
	sq_bind_int(&a, w->counters.value[COUNTER_CHANGE]);
	sq_bind_int(&a, revoke->at.ms ? revoke->at.ms : w->now.ms);
	sq_bind_text(&a, revoke->reason.n ? revoke->reason : STR("unspecified"));
	int64_t changed;
	if (run_numbering(w, &a, &changed, &revoke->change, e) < 0)
		return -1;
	revoke->revoked_count = (unsigned)changed;
	if (changed)
		return 0;
	unsigned matching = revoke->serial_bytes ? SQL_ANY_SERIAL : SQL_ANY_NAME;
	AUTO(sq_reset_auto) struct sq_args any = sq_args(&w->sq, matching);
	bind_named(&any, revoke);
	int found = sq_next(&w->sq, &any, e);
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no certificate matches");
	return found == SQ_ROW ? STORE_UNCHANGED : -1;
}

int sqlite_put_seen(void *state, const struct store_seen *seen, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	for (unsigned i = 0; i < seen->count; i++) {
		const struct store_seen_item *item = &seen->items[i];
		struct sq_args a = sq_args(&w->sq, SQL_SEE_CERT);
		sq_bind_blob(&a, item->cert.serial, item->cert.serial_bytes);
		sq_bind_blob(&a, item->cert.issuer_key_id, STORE_KEY_ID_BYTES);
		sq_bind_int(&a, item->at.ms);
		if (sq_run(&w->sq, &a, NULL, e) < 0)
			return -1;
	}
	return 0;
}

int sqlite_supersede(void *state, struct store_supersede *supersede, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	struct sq_args a = sq_args(&w->sq, SQL_SUPERSEDE);
	sq_bind_int(&a, supersede->after.ms);
	sq_bind_int(&a, supersede->until.ms);
	sq_bind_int(&a, w->counters.value[COUNTER_CHANGE]);
	sq_bind_int(&a, w->now.ms);
	sq_bind_text(&a, STR("superseded"));
	int64_t changed;
	if (run_numbering(w, &a, &changed, &supersede->change, e) < 0)
		return -1;
	supersede->revoked_count = (unsigned)changed;
	return changed ? 0 : STORE_UNCHANGED;
}

/* --- tokens --- */

int sqlite_put_token(void *state, const struct store_token *token, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	struct sq_args a = sq_args(&w->sq, SQL_ADD_TOKEN);
	sq_bind_blob(&a, token->hash, STORE_TOKEN_ID_BYTES);
	sq_bind_blob(&a, token->hash, STORE_HASH_BYTES);
	sq_bind_text(&a, token->name);
	sq_bind_text(&a, token->domain);
	sq_bind_text(&a, token->role);
	sq_bind_text(&a, token->names);
	sq_bind_int(&a, token->days);
	sq_bind_int(&a, token->created_at.ms);
	sq_bind_int(&a, token->expires_at.ms);
	sq_bind_int(&a, token->uses_max);
	int64_t changed;
	if (sq_run(&w->sq, &a, &changed, e) < 0)
		return -1;
	return changed ? 0 : err_set(e, ERR_CONFLICT, "there is a token of this id");
}

/* What decides about a use; ERR_NOT_FOUND. */
static int find_token(struct sqlite_writer *w, const uint8_t *id, struct store_token *ret, struct err *e)
{
	AUTO(sq_reset_auto) struct sq_args a = sq_args(&w->sq, SQL_FIND_TOKEN);
	sq_bind_blob(&a, id, STORE_TOKEN_ID_BYTES);
	int found = sq_next(&w->sq, &a, e);
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no such token");
	if (found < 0)
		return -1;
	struct sq_columns c = sq_columns(&a, NULL);
	struct store_token token = {.expires_at.ms = sq_column_int(&c)};
	token.uses_max = sq_column_unsigned(&c);
	token.uses = sq_column_unsigned(&c);
	token.used_at.ms = sq_column_int(&c);
	token.revoked_at.ms = sq_column_int(&c);
	*ret = token;
	return sq_columns_check(&c, NULL, "token", 0, e);
}

static int add_token_use(struct sqlite_writer *w, const struct store_token_key *key, struct err *e)
{
	struct sq_args add = sq_args(&w->sq, SQL_ADD_TOKEN_USE);
	sq_bind_blob(&add, key->id, sizeof(key->id));
	sq_bind_blob(&add, key->key_hash, sizeof(key->key_hash));
	if (sq_run(&w->sq, &add, NULL, e) < 0)
		return -1;
	struct sq_args count = sq_args(&w->sq, SQL_COUNT_TOKEN_USE);
	sq_bind_blob(&count, key->id, sizeof(key->id));
	sq_bind_int(&count, w->now.ms);
	return sq_run(&w->sq, &count, NULL, e);
}

int sqlite_use_token(void *state, struct store_token_use *use, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	struct store_token token = {0};
	if (find_token(w, use->key.id, &token, e) < 0)
		return -1;
	int before = find_token_use(w, &use->key, &use->cert, e);
	if (before < 0)
		return -1;
	int outcome = rules_token_outcome(&token, w->now, before == SQ_ROW);
	return outcome != STORE_TOKEN_CONSUMED ? outcome : add_token_use(w, &use->key, e);
}

int sqlite_revoke_tokens(void *state, struct store_token_revoke *revoke, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	struct sq_args a = sq_args(&w->sq, revoke->id ? SQL_REVOKE_TOKEN : SQL_REVOKE_TOKENS);
	if (revoke->id)
		sq_bind_blob(&a, revoke->id, STORE_TOKEN_ID_BYTES);
	else
		sq_bind_text(&a, revoke->name);
	sq_bind_int(&a, w->now.ms);
	int64_t changed;
	if (sq_run(&w->sq, &a, &changed, e) < 0)
		return -1;
	revoke->revoked_count = (unsigned)changed;
	if (changed)
		return 0;
	if (!revoke->id)
		return STORE_UNCHANGED;
	AUTO(sq_reset_auto) struct sq_args any = sq_args(&w->sq, SQL_ANY_TOKEN);
	sq_bind_blob(&any, revoke->id, STORE_TOKEN_ID_BYTES);
	int found = sq_next(&w->sq, &any, e);
	if (found == SQ_END)
		return err_set(e, ERR_NOT_FOUND, "no such token");
	return found == SQ_ROW ? STORE_UNCHANGED : -1;
}

int sqlite_restore_token(void *state, const struct store_token_restore *restore, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	struct store_token token = {0};
	if (find_token(w, restore->id, &token, e) < 0)
		return -1;
	if (!rules_token_restore(&token, restore))
		return STORE_UNCHANGED;
	struct sq_args a = sq_args(&w->sq, SQL_RESTORE_TOKEN);
	sq_bind_blob(&a, restore->id, STORE_TOKEN_ID_BYTES);
	sq_bind_int(&a, token.uses);
	sq_bind_int_or_null(&a, token.used_at.ms);
	sq_bind_int_or_null(&a, token.revoked_at.ms);
	return sq_run(&w->sq, &a, NULL, e);
}

int sqlite_purge_tokens(void *state, struct store_token_purge *purge, struct err *e)
{
	struct sqlite_writer *w = sqlite_writer_of(state);
	int64_t changed = 0;
	static const unsigned steps[] = {SQL_PURGE_TOKEN_USES, SQL_PURGE_TOKENS};
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		struct sq_args a = sq_args(&w->sq, steps[i]);
		sq_bind_int(&a, purge->ended_before.ms);
		sq_bind_int(&a, purge->max);
		if (sq_run(&w->sq, &a, &changed, e) < 0)
			return -1;
	}
	purge->removed_count = (unsigned)changed;
	return 0;
}
