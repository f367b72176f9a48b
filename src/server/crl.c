/* crl.c - see crl.h.
 *
 * Callers that revoke at the same time share a signature: each takes a number, and whoever gets the signing
 * lock signs for all numbers given out by then. The list is replaced under a second lock, which is never held
 * while something blocks.
 *
 * A revoked certificate stays on the list until a week after it has expired; RFC 5280 section 3.3 asks for
 * one list beyond its end. */
#include "server/crl.h"

#include <openssl/pem.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/metrics.h"
#include "server/internal.h"
#include "tls/openssl.h"

enum {
	DAY_MS = 24 * 60 * 60 * 1000,
	VALID_DAYS = 7,
	REFRESH_MS = DAY_MS,
	PAGE = 500,
	ARENA_BYTES = 16 * 1024 * 1024,
	CRL_BYTES = 64 * 1024 * 1024,
};

struct crl {
	struct store *store;
	struct ca *ca;
	const struct clock *clock;
	pthread_mutex_t sign_lock; /* one signature at a time; guards the next */
	uint64_t signed_for;
	pthread_mutex_t lock; /* guards what follows */
	uint64_t asked;
	struct buf forms[CRL_FORMS];
	struct crl_times times; /* all 0: there is none */
};

/* --- publishing --- */

static int read_times(X509_CRL *list, struct crl_times *ret, struct err *e)
{
	if (wall_of_asn1(X509_CRL_get0_lastUpdate(list), &ret->this_update) &&
		wall_of_asn1(X509_CRL_get0_nextUpdate(list), &ret->next_update))
		return 0;
	return err_set(e, ERR_FATAL, "CRL: it has no readable times");
}

static int to_pem(X509_CRL *list, struct buf *ret, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new(BIO_s_mem());
	if (!bio || !PEM_write_bio_X509_CRL(bio, list))
		return err_openssl(e, ERR_FATAL, "CRL: write");
	char *text;
	long n = BIO_get_mem_data(bio, &text);
	buf_add(ret, text, (size_t)n);
	return buf_check(ret, e);
}

/* Puts the list in place of the one before; takes `der` over. */
static int publish(struct crl *c, struct buf *der, struct err *e)
{
	const unsigned char *at = (const unsigned char *)der->p;
	AUTO(X509_CRL_free_auto) X509_CRL *list = d2i_X509_CRL(NULL, &at, (long)der->n);
	AUTO(buf_auto) struct buf pem;
	struct crl_times times;
	buf_init(&pem, CRL_BYTES);
	if (!list)
		return err_openssl(e, ERR_FATAL, "CRL: read");
	if (read_times(list, &times, e) < 0 || to_pem(list, &pem, e) < 0)
		return -1;
	pthread_mutex_lock(&c->lock);
	struct buf old_der = c->forms[CRL_DER], old_pem = c->forms[CRL_PEM];
	c->forms[CRL_DER] = *der;
	c->forms[CRL_PEM] = pem;
	c->times = times;
	pthread_mutex_unlock(&c->lock);
	*der = old_der;
	pem = old_pem;
	series_set(metric_series1(METRIC_CERT_EXPIRY, "crl"), (double)times.next_update.ms / 1000);
	return 0;
}

/* --- signing --- */

/* Adds a page of revoked certificates to `entries`; *after is where the next one starts, *ret_count its size.
 */
static int gather_page(const struct crl *c, struct arena *arena, int64_t *after, struct buf *entries,
	unsigned *ret_count, struct err *e)
{
	const struct store_cert_query query = {.revoked_only = true, .after_change = *after, .max = PAGE};
	struct store_cert *certs;
	int64_t kept_since = clock_wall(c->clock).ms - VALID_DAYS * (int64_t)DAY_MS;
	if (store_read_certs(c->store, &query, arena, &certs, ret_count, e) < 0)
		return -1;
	for (unsigned i = 0; i < *ret_count; i++) {
		struct ca_revoked entry = {.serial_bytes = certs[i].serial_bytes,
			.at = certs[i].revoked_at,
			.reason = server_revoke_reason(certs[i].revoke_reason)};
		*after = certs[i].change;
		if (certs[i].not_after.ms < kept_since ||
			memcmp(certs[i].issuer_key_id, ca_issuing_key_id(c->ca), IDENTITY_KEY_ID_BYTES) != 0)
			continue;
		memcpy(entry.serial, certs[i].serial, sizeof(entry.serial));
		buf_add(entries, &entry, sizeof(entry));
	}
	return 0;
}

/* All of them, as an array of struct ca_revoked. */
static int gather(const struct crl *c, struct buf *entries, struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, ARENA_BYTES);
	int64_t after = 0;
	unsigned count = PAGE;
	while (count == PAGE) {
		arena_reset(&arena);
		if (gather_page(c, &arena, &after, entries, &count, e) < 0)
			return -1;
	}
	return buf_check(entries, e);
}

/* Under the signing lock. */
static int sign(struct crl *c, struct err *e)
{
	AUTO(buf_auto) struct buf entries, der;
	buf_init(&entries, CRL_BYTES);
	buf_init(&der, CRL_BYTES);
	if (gather(c, &entries, e) < 0 ||
		ca_crl(c->ca, (const struct ca_revoked *)(const void *)entries.p,
			entries.n / sizeof(struct ca_revoked), VALID_DAYS, &der, e) < 0 ||
		file_replace(ca_crl_path(c->ca), 0644, buf_str(&der), e) < 0)
		return -1;
	return publish(c, &der, e);
}

int crl_sign(struct crl *c, struct err *e)
{
	pthread_mutex_lock(&c->lock);
	uint64_t mine = ++c->asked;
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_lock(&c->sign_lock);
	int rc = 0;
	if (c->signed_for < mine) {
		pthread_mutex_lock(&c->lock);
		uint64_t all = c->asked;
		pthread_mutex_unlock(&c->lock);
		rc = sign(c, e);
		if (rc >= 0)
			c->signed_for = all;
	}
	pthread_mutex_unlock(&c->sign_lock);
	return rc < 0 ? err_context(e, "sign the CRL") : 0;
}

/* Old, or from the future: then the clock went back, and nobody would take the list for current. */
static bool is_due(struct crl *c)
{
	int64_t now = clock_wall(c->clock).ms;
	pthread_mutex_lock(&c->lock);
	int64_t age_ms = now - c->times.this_update.ms;
	pthread_mutex_unlock(&c->lock);
	return age_ms >= REFRESH_MS || age_ms < 0;
}

int crl_refresh(struct crl *c, struct err *e)
{
	return is_due(c) ? crl_sign(c, e) : 0;
}

/* --- open, close --- */

/* Whether a certificate was revoked since the list on disk was made: the program ended in between. */
static bool lacks_revocations(const struct crl *c)
{
	AUTO(buf_auto) struct buf entries;
	struct err ignored = ERR_INIT; /* signing will tell */
	buf_init(&entries, CRL_BYTES);
	if (gather(c, &entries, &ignored) < 0)
		return true;
	const struct ca_revoked *entry = (const struct ca_revoked *)(const void *)entries.p;
	for (size_t left = entries.n / sizeof(*entry); left; left--, entry++)
		if (entry->at.ms >= c->times.this_update.ms)
			return true;
	return false;
}

/* The list on disk, unless it is another issuing CA's. */
static int load(struct crl *c, struct err *e)
{
	AUTO(buf_auto) struct buf der;
	buf_init(&der, CRL_BYTES);
	if (file_read(ca_crl_path(c->ca), CRL_BYTES, &der, e) < 0)
		return -1;
	const unsigned char *at = (const unsigned char *)der.p;
	AUTO(X509_CRL_free_auto) X509_CRL *list = d2i_X509_CRL(NULL, &at, (long)der.n);
	AUTHORITY_KEYID *id =
		list ? X509_CRL_get_ext_d2i(list, NID_authority_key_identifier, NULL, NULL) : NULL;
	bool ours = id && id->keyid &&
		    str_eq(str_of_asn1(id->keyid), str_mem(ca_issuing_key_id(c->ca), IDENTITY_KEY_ID_BYTES));
	AUTHORITY_KEYID_free(id);
	ERR_clear_error();
	return ours ? publish(c, &der, e) : err_set(e, ERR_REJECT, "'%s' is not our CRL", ca_crl_path(c->ca));
}

int crl_open(struct store *store, struct ca *ca, const struct clock *clock, struct crl **ret, struct err *e)
{
	struct crl *c = calloc(1, sizeof(*c));
	struct err why = ERR_INIT;
	if (!c)
		return err_oom(e);
	c->store = store;
	c->ca = ca;
	c->clock = clock;
	pthread_mutex_init(&c->sign_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	for (size_t i = 0; i < CRL_FORMS; i++)
		buf_init(&c->forms[i], CRL_BYTES);
	bool fresh = load(c, &why) >= 0 && !is_due(c) && !lacks_revocations(c);
	if (!fresh && crl_sign(c, &why) < 0)
		log_event(LOG_WARN, "crl.not_signed", LF_ERR(&why));
	*ret = c;
	return 0;
}

void crl_free(struct crl *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < CRL_FORMS; i++)
		buf_clear(&c->forms[i]);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->sign_lock);
	free(c);
}

int crl_copy(struct crl *c, enum crl_form form, struct buf *ret, struct crl_times *ret_times, struct err *e)
{
	pthread_mutex_lock(&c->lock);
	bool there = c->forms[form].n > 0;
	buf_add_str(ret, buf_str(&c->forms[form]));
	if (ret_times)
		*ret_times = c->times;
	pthread_mutex_unlock(&c->lock);
	return there ? buf_check(ret, e) : err_set(e, ERR_RETRY, "there is no CRL yet");
}
