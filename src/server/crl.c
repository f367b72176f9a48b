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
	REFRESH_MS = DAY_MS,
	PAGE = 500,
	RETRY_FIRST_MS = 1000,
	RETRY_MAX_MS = 60 * 1000,
	ARENA_BYTES = 16 * 1024 * 1024,
	CRL_BYTES = 64 * 1024 * 1024,
};

/* Everything that is published at one time. */
struct crl_set {
	struct list {
		uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES];
		struct buf der;
	} lists[CA_ISSUERS_MAX]; /* the current issuing CA's first */
	size_t count;
	struct buf pem;
	struct crl_times times; /* the first to be old counts */
};

struct crl {
	struct store *store;
	struct ca *ca;
	const struct clock *clock;
	pthread_mutex_t sign_lock; /* one signature at a time */
	pthread_mutex_t lock;      /* guards what follows */
	uint64_t asked, signed_for;
	int64_t retry_ms; /* wait after the last failure; 0: the last attempt worked */
	struct mono retry_at;
	struct crl_set set; /* count 0: there is none */
};

/* --- sets --- */

static void set_init(struct crl_set *set)
{
	*set = (struct crl_set){0};
	buf_init(&set->pem, CRL_BYTES);
}

static void set_clear(struct crl_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		buf_clear(&set->lists[i].der);
	buf_clear(&set->pem);
	set_init(set);
}

static int add_pem(X509_CRL *list, struct buf *ret, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new(BIO_s_mem());
	if (!bio || !PEM_write_bio_X509_CRL(bio, list))
		return err_openssl(e, ERR_FATAL, "CRL: write");
	buf_add_str(ret, str_of_bio(bio));
	return buf_check(ret, e);
}

static int add_times(X509_CRL *list, struct crl_set *set, struct err *e)
{
	struct crl_times times;
	if (!wall_of_asn1(X509_CRL_get0_lastUpdate(list), &times.this_update) ||
		!wall_of_asn1(X509_CRL_get0_nextUpdate(list), &times.next_update))
		return err_set(e, ERR_FATAL, "CRL: it has no readable times");
	if (set->count == 0 || times.next_update.ms < set->times.next_update.ms)
		set->times = times;
	return 0;
}

static bool is_by(X509_CRL *list, const struct ca_issuer *issuer)
{
	AUTO(AUTHORITY_KEYID_free_auto)
	AUTHORITY_KEYID *id = X509_CRL_get_ext_d2i(list, NID_authority_key_identifier, NULL, NULL);
	return id && id->keyid &&
	       str_eq(str_of_asn1(id->keyid), str_mem(issuer->key_id, sizeof(issuer->key_id)));
}

/* Adds one list to a set that is being made; takes `der` over. */
static int set_add(struct crl_set *set, const struct ca_issuer *issuer, struct buf *der, struct err *e)
{
	const unsigned char *at = (const unsigned char *)der->p;
	AUTO(X509_CRL_free_auto) X509_CRL *list = d2i_X509_CRL(NULL, &at, (long)der->n);
	ERR_clear_error();
	if (!list || !is_by(list, issuer))
		return err_set(e, ERR_REJECT, "'%s' is not a CRL of this issuing CA", issuer->crl_path);
	if (add_times(list, set, e) < 0 || add_pem(list, &set->pem, e) < 0)
		return -1;
	struct list *added = &set->lists[set->count++];
	memcpy(added->issuer_key_id, issuer->key_id, sizeof(added->issuer_key_id));
	added->der = *der;
	buf_init(der, CRL_BYTES);
	return 0;
}

/* Puts the set in place of the one before; takes it over. */
static void publish(struct crl *c, struct crl_set *set)
{
	pthread_mutex_lock(&c->lock);
	struct crl_set old = c->set;
	c->set = *set;
	pthread_mutex_unlock(&c->lock);
	series_set(metric_series1(METRIC_CERT_EXPIRY, "crl"), (double)set->times.next_update.ms / 1000);
	*set = old;
}

/* --- signing --- */

/* Adds a page of one issuing CA's revoked certificates to `entries`; *after is where the next one starts, *ret_count its
 * size. */
static int gather_page(const struct crl *c, const struct ca_issuer *issuer, struct arena *arena,
	int64_t *after, struct buf *entries, unsigned *ret_count, struct err *e)
{
	const struct store_cert_query query = {
		.issuer_key_id = issuer->key_id, .revoked_only = true, .after_change = *after, .max = PAGE};
	struct store_cert *certs;
	int64_t kept_since = clock_wall(c->clock).ms - CRL_VALID_DAYS * (int64_t)DAY_MS;
	if (store_read_certs(c->store, &query, arena, &certs, ret_count, e) < 0)
		return -1;
	for (unsigned i = 0; i < *ret_count; i++) {
		struct ca_revoked entry = {.serial_bytes = certs[i].serial_bytes,
			.at = certs[i].revoked_at,
			.reason = server_revoke_reason(certs[i].revoke_reason)};
		*after = certs[i].change;
		if (certs[i].not_after.ms < kept_since)
			continue;
		memcpy(entry.serial, certs[i].serial, sizeof(entry.serial));
		buf_add(entries, &entry, sizeof(entry));
	}
	return 0;
}

/* All of them, as an array of struct ca_revoked. */
static int gather(const struct crl *c, const struct ca_issuer *issuer, struct buf *entries, struct err *e)
{
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, ARENA_BYTES);
	int64_t after = 0;
	unsigned count = PAGE;
	while (count == PAGE) {
		arena_reset(&arena);
		if (gather_page(c, issuer, &arena, &after, entries, &count, e) < 0)
			return -1;
	}
	return buf_check(entries, e);
}

static int sign_one(struct crl *c, const struct ca_issuer *issuer, struct crl_set *set, struct err *e)
{
	AUTO(buf_auto) struct buf entries, der;
	buf_init(&entries, CRL_BYTES);
	buf_init(&der, CRL_BYTES);
	if (gather(c, issuer, &entries, e) < 0 ||
		ca_crl(c->ca, issuer->key_id, (const struct ca_revoked *)(const void *)entries.p,
			entries.n / sizeof(struct ca_revoked), CRL_VALID_DAYS, &der, e) < 0 ||
		file_replace(issuer->crl_path, 0644, buf_str(&der), e) < 0)
		return -1;
	return set_add(set, issuer, &der, e);
}

/* Under the signing lock. */
static int sign(struct crl *c, struct err *e)
{
	const struct ca_issuer *issuers;
	size_t count = ca_issuers(c->ca, &issuers);
	struct crl_set set;
	int rc = 0;
	set_init(&set);
	for (size_t i = 0; rc >= 0 && i < count; i++)
		rc = sign_one(c, &issuers[i], &set, e);
	if (rc >= 0)
		publish(c, &set);
	set_clear(&set);
	return rc;
}

/* What became of a signature for all that was `asked` by then. */
static void note_signed(struct crl *c, uint64_t asked, bool signed_it)
{
	pthread_mutex_lock(&c->lock);
	if (signed_it) {
		c->signed_for = asked;
		c->retry_ms = 0;
	} else {
		c->retry_ms = c->retry_ms ? 2 * c->retry_ms : RETRY_FIRST_MS;
		if (c->retry_ms > RETRY_MAX_MS)
			c->retry_ms = RETRY_MAX_MS;
		c->retry_at = mono_add_ms(clock_mono(c->clock), c->retry_ms);
	}
	pthread_mutex_unlock(&c->lock);
	if (!signed_it)
		metric_add(METRIC_CRL_FAILURES, 1);
}

int crl_sign(struct crl *c, struct err *e)
{
	pthread_mutex_lock(&c->lock);
	uint64_t mine = ++c->asked;
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_lock(&c->sign_lock);
	pthread_mutex_lock(&c->lock);
	uint64_t all = c->asked;
	bool done = c->signed_for >= mine;
	pthread_mutex_unlock(&c->lock);
	int rc = 0;
	if (!done) {
		rc = sign(c, e);
		note_signed(c, all, rc >= 0);
	}
	pthread_mutex_unlock(&c->sign_lock);
	return rc < 0 ? err_context(e, "sign the CRL") : 0;
}

bool crl_is_overdue(struct crl *c)
{
	pthread_mutex_lock(&c->lock);
	bool overdue = c->retry_ms && mono_reached(clock_mono(c->clock), c->retry_at);
	pthread_mutex_unlock(&c->lock);
	return overdue;
}

/* Old, or from the future: then the clock went back, and nobody would take the list for current. */
static bool is_due(struct crl *c)
{
	int64_t now = clock_wall(c->clock).ms;
	pthread_mutex_lock(&c->lock);
	int64_t age_ms = now - c->set.times.this_update.ms;
	pthread_mutex_unlock(&c->lock);
	return age_ms >= REFRESH_MS || age_ms < 0;
}

int crl_refresh(struct crl *c, struct err *e)
{
	return is_due(c) || crl_is_overdue(c) ? crl_sign(c, e) : 0;
}

/* --- open, close --- */

/* Whether a certificate was revoked since the list on disk was made: the program ended in between. */
static bool lacks_revocations(const struct crl *c, const struct ca_issuer *issuer)
{
	AUTO(buf_auto) struct buf entries;
	struct err ignored = ERR_INIT; /* signing will tell */
	buf_init(&entries, CRL_BYTES);
	if (gather(c, issuer, &entries, &ignored) < 0)
		return true;
	const struct ca_revoked *entry = (const struct ca_revoked *)(const void *)entries.p;
	for (size_t left = entries.n / sizeof(*entry); left; left--, entry++)
		if (entry->at.ms >= c->set.times.this_update.ms)
			return true;
	return false;
}

static int load_one(const struct ca_issuer *issuer, struct crl_set *set, struct err *e)
{
	AUTO(buf_auto) struct buf der;
	buf_init(&der, CRL_BYTES);
	return file_read(issuer->crl_path, CRL_BYTES, &der, e) < 0 ? -1 : set_add(set, issuer, &der, e);
}

/* Whether the lists on disk can be published as they are; they are, also when they are old. */
static bool load(struct crl *c)
{
	const struct ca_issuer *issuers;
	size_t count = ca_issuers(c->ca, &issuers);
	struct err ignored = ERR_INIT; /* signing will tell */
	struct crl_set set;
	int rc = 0;
	set_init(&set);
	for (size_t i = 0; rc >= 0 && i < count; i++)
		rc = load_one(&issuers[i], &set, &ignored);
	if (rc >= 0)
		publish(c, &set);
	set_clear(&set);
	bool fresh = rc >= 0 && !is_due(c);
	for (size_t i = 0; fresh && i < count; i++)
		fresh = !lacks_revocations(c, &issuers[i]);
	return fresh;
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
	set_init(&c->set);
	if (!load(c) && crl_sign(c, &why) < 0)
		log_event(LOG_WARN, "crl.not_signed", LF_ERR(&why));
	*ret = c;
	return 0;
}

void crl_free(struct crl *c)
{
	if (!c)
		return;
	set_clear(&c->set);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->sign_lock);
	free(c);
}

int crl_copy(struct crl *c, enum crl_form form, struct buf *ret, struct crl_times *ret_times, struct err *e)
{
	pthread_mutex_lock(&c->lock);
	bool there = c->set.count > 0;
	if (there)
		buf_add_str(ret, buf_str(form == CRL_PEM ? &c->set.pem : &c->set.lists[0].der));
	if (ret_times)
		*ret_times = c->set.times;
	pthread_mutex_unlock(&c->lock);
	return there ? buf_check(ret, e) : err_set(e, ERR_RETRY, "there is no CRL yet");
}

int crl_copy_of(
	struct crl *c, const uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES], struct buf *ret, struct err *e)
{
	bool found = false;
	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; !found && i < c->set.count; i++) {
		found = memcmp(c->set.lists[i].issuer_key_id, issuer_key_id, IDENTITY_KEY_ID_BYTES) == 0;
		if (found)
			buf_add_str(ret, buf_str(&c->set.lists[i].der));
	}
	pthread_mutex_unlock(&c->lock);
	return found ? buf_check(ret, e) : err_set(e, ERR_NOT_FOUND, "no issuing CA has this key");
}
