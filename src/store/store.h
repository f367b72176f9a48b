/* store.h - what the main server keeps: messages (sealed), clients, certificates, the audit trail.
 *
 * Writes are asynchronous operations of one writer thread that commits them in groups (base/group.h); reads
 * are plain functions that any thread but an event loop may call, on read connections of their own.
 *
 * Exactly once:  UNIQUE(message_id); a message stored again is reported as a duplicate and changes nothing.
 * Durability:    a write completes after its commit is on disk.
 * Ownership:     operation structs and all they point to belong to the caller and stay until completion; read
 *                results live in the arena given (ERR_RETRY when it is too small for them).
 * Threads:       store_submit from any thread; store_read_* and store_*_check from any thread that may block.
 * All reads have returned before store_close. Errors:        ERR_RETRY engine away or disk full; ERR_REJECT
 * breaks a rule named here; ERR_NOT_FOUND, ERR_CONFLICT for the single row; ERR_FATAL corrupt, or a schema
 * newer than this program. An operation that failed changed nothing. Security:      holds ciphertext and
 * blind indexes only; plaintext never comes here. Names, texts and sizes are checked on the way in, and again
 * when read back: a damaged row is an error, not a crash. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/group.h"
#include "message/sealed.h"
#include "message/state.h"

struct store;
struct store_driver;

struct store_options {
	const struct store_driver *driver;
	const char *location; /* directory for sqlite, URL for mysql, NULL for memory */
	void *driver_arg; /* the driver's own options (sqlite.h, faulty.h), kept by the caller; NULL: none */
	const struct clock *clock;
	unsigned write_limit, group_max; /* operations outstanding, operations in one commit */
	unsigned probe_ms;               /* how often a store in trouble tries to write; 0: once a second */
	void (*observe)(void *arg, unsigned ops, int64_t commit_ns);
	void *observe_arg;
};

MUST_CHECK int store_open(const struct store_options *o, struct store **ret, struct err *e);
void store_close(struct store *s); /* finishes what was submitted; takes NULL */

/* "sqlite 3.40.1, schema 3": for the start log and health. */
const char *store_description(const struct store *s);

enum store_kind {
	STORE_MESSAGES,      /* struct store_messages */
	STORE_STATUS,        /* struct store_status */
	STORE_CLIENT,        /* struct store_client_put */
	STORE_CERT,          /* struct store_cert_put */
	STORE_REVOKE,        /* struct store_revoke */
	STORE_AUDIT,         /* struct store_audit */
	STORE_SEEN,          /* struct store_seen */
	STORE_SUPERSEDE,     /* struct store_supersede */
	STORE_TOKEN,         /* struct store_token_put */
	STORE_TOKEN_USE,     /* struct store_token_use */
	STORE_TOKEN_REVOKE,  /* struct store_token_revoke */
	STORE_TOKEN_RESTORE, /* struct store_token_restore */
	STORE_TOKEN_PURGE,   /* struct store_token_purge */
	STORE_EXPIRE,        /* struct store_expire */
	STORE_KINDS
};

/* Sizes that hold on the way in (ERR_REJECT) and on the way out (ERR_FATAL: damaged). */
enum {
	STORE_MESSAGES_MAX = 500, /* items of one struct store_messages */
	STORE_PAGE_MAX = 1000,    /* rows of one read; more are cut to this */
	STORE_TRACEPARENT_BYTES = 255,
	STORE_TEXT_BYTES = 255, /* audit texts, role, reason */
	STORE_ERROR_TEXT_BYTES = 1024,
	STORE_DETAIL_BYTES = 4096,
	STORE_CERT_BYTES = 16 * 1024,
	STORE_INDEX_BYTES = 32,
	STORE_KEY_ID_BYTES = 20,
	STORE_HASH_BYTES = 32,
	STORE_TOKEN_ID_BYTES = 8,
	STORE_TOKEN_USES_MAX = 10000,
	SERIAL_MAX_BYTES = 20,
};

/* op.result of an operation that is done but had nothing to change (see the operation). */
enum { STORE_UNCHANGED = 1 };

/* --- messages --- */

struct store_message {
	struct sealed sealed;                    /* .traceparent is kept too */
	uint8_t sender_index[STORE_INDEX_BYTES]; /* blind index of the number; all zero: not known yet */
	enum message_state state;                /* DELIVERED, or QUEUED when only registered */
	unsigned attempt_count;
	bool duplicate; /* result: was there already, nothing changed */
};

/* Stores a batch in one go, all or none. A registered row (QUEUED, or what a status made of it) becomes
 * DELIVERED when the delivery comes, and takes everything from it: only the delivery was opened and checked.
 * A delivered row never changes. The same id twice in one batch: the second is a duplicate. */
struct store_messages {
	struct group_op op;
	struct store_message *items;
	unsigned count;        /* 1 .. STORE_MESSAGES_MAX */
	unsigned stored_count; /* result: items that are not duplicates */
};

/* Status reported by a worker for a message that is not delivered (state: any but DELIVERED). ERR_NOT_FOUND
 * when unknown; STORE_UNCHANGED when the message was delivered meanwhile. */
struct store_status {
	struct group_op op;
	struct uuid id;
	enum message_state state;
	unsigned attempt_count;
	struct str error_text; /* UTF-8 */
};

/* Takes delivered messages out of the store whose time is over, in small steps from the oldest to the newest, so
 * that others get their turn in between. An id that was taken out counts as new when it comes again. */
struct store_expire {
	struct group_op op;
	int64_t after_sequence;   /* where the step before ended; 0: starts */
	struct wall stored_until; /* the walk ends at the first row that was stored at or after this */
	unsigned max;             /* rows to look at in this step, 1 .. STORE_PAGE_MAX */
	/* Whether a message of this domain, delivered then, goes. Called on the writer's thread, also for a group that
	 * then fails. */
	bool (*is_over)(void *arg, struct str domain, struct wall delivered_at);
	void *arg;
	unsigned removed_count; /* result */
	int64_t next_sequence;  /* result: after_sequence of the next step; 0: the walk has ended */
};

/* One row as read back. */
struct store_row {
	int64_t sequence; /* in the order of arrival here, from 1, never used twice */
	struct sealed sealed;
	uint8_t sender_index[STORE_INDEX_BYTES]; /* all zero: not known */
	enum message_state state;
	struct wall stored_at, updated_at;
	struct wall delivered_at; /* .ms == 0 while not delivered */
	unsigned attempt_count;
	struct str error_text;
};

struct store_query {
	struct str client_id, domain; /* .n == 0: any */
	int state;                    /* -1: any */
	const uint8_t *sender_index;  /* NULL: any */
	struct wall since, until;     /* accepted at, [since, until); .ms == 0: open */
	int64_t before_sequence;      /* keyset: rows older than this; 0 to start at the newest */
	unsigned max;                 /* at least 1 */
};

struct store_page {
	struct store_row *rows; /* newest first */
	unsigned count;
	int64_t next_sequence; /* pass as before_sequence; 0: no more */
};

MUST_CHECK int store_read_messages(struct store *s, const struct store_query *query, struct arena *arena,
	struct store_page *ret, struct err *e);
MUST_CHECK int store_read_message(
	struct store *s, const struct uuid *id, struct arena *arena, struct store_row *ret, struct err *e);

struct store_counts {
	uint64_t messages, by_state[MESSAGE_STATES];
	uint64_t clients, certificates, audit_rows;
};
/* Kept up to date by the writer: costs the same however much is stored. */
MUST_CHECK int store_read_counts(struct store *s, struct store_counts *ret, struct err *e);

/* --- clients and certificates --- */

/* A removed client keeps its row: its messages stay, and its name stays in its domain. */
enum client_status { CLIENT_ACTIVE, CLIENT_SUSPENDED, CLIENT_REMOVED, CLIENT_STATUSES };

struct store_client {
	struct str name, domain;
	enum client_status status;
	struct wall created_at; /* .ms == 0 in a put: now */
};

/* Creates the client, or sets its status when it exists with the same domain; ERR_CONFLICT: other domain. A
 * change of status is a change of all certificates of role "client" under that name: each gets a new number
 * in the feed. STORE_UNCHANGED: exists, and has that status already. */
struct store_client_put {
	struct group_op op;
	struct store_client client;
	int64_t change; /* result: highest change number given out, 0: none */
};

/* What names a certificate: two issuers may use the same serial number. */
struct store_cert_id {
	uint8_t serial[SERIAL_MAX_BYTES]; /* big-endian, no leading zero byte */
	unsigned serial_bytes;            /* 0: no certificate */
	uint8_t issuer_key_id[STORE_KEY_ID_BYTES];
};

/* A certificate is registered before it is handed out; the row is what authorises its bearer. */
struct store_cert {
	uint8_t serial[SERIAL_MAX_BYTES]; /* big-endian, no leading zero byte */
	unsigned serial_bytes;
	uint8_t issuer_key_id[STORE_KEY_ID_BYTES]; /* SHA-1 subject key identifier of the issuing CA */
	struct str role;                           /* "client", "proxy", … */
	struct str name, domain;                   /* CN = client_id; domain may be empty for other roles */
	struct wall not_before, not_after, issued_at;
	struct str der;                     /* the certificate */
	struct wall revoked_at;             /* .ms == 0: not revoked */
	struct str revoke_reason;           /* RFC 5280 name: "keyCompromise", … */
	struct store_cert_id renews;        /* the one before it in its lineage; none: it is the first */
	struct wall first_seen_at, seen_at; /* when its bearer came with it; .ms == 0: never */
	bool suspended;                     /* read only: role "client" and its client is not CLIENT_ACTIVE */
	int64_t change; /* number of the last change to this row, from 1, increasing over all rows */
};

/* Registers a certificate that is not revoked (its .revoked_at, .suspended, .change and when it was seen are
 * ignored). ERR_CONFLICT: this issuer has that serial already, (create_client) the client exists in another
 * domain or was removed, or (token) what was enrolled with this token and key has its certificate already.
 * ERR_FORBIDDEN: (while_good) the one that it renews was revoked. */
struct store_cert_put {
	struct group_op op;
	struct store_cert cert;
	bool create_client;                  /* role client: create the client row too if missing */
	bool while_good;                     /* only while the one that it renews is not revoked */
	const struct store_token_key *token; /* NULL: not enrolled with a token */
	int64_t change;                      /* result */
};

/* Revokes what is not revoked yet among the matching certificates. ERR_NOT_FOUND: nothing matches at all;
 * STORE_UNCHANGED: all that match were revoked before (their time and reason stay). */
struct store_revoke {
	struct group_op op;
	uint8_t serial[SERIAL_MAX_BYTES];
	unsigned serial_bytes;        /* 0: all of `name` */
	const uint8_t *issuer_key_id; /* with a serial: of this issuer only; NULL: of any */
	struct str name;
	struct str role;        /* with a name: of this role only; .n == 0: of any */
	struct str reason;      /* .n == 0: "unspecified" */
	struct wall at;         /* .ms == 0: now */
	unsigned revoked_count; /* result: newly revoked */
	int64_t change;         /* result: highest change number given out, 0: none */
};

/* Notes that bearers of these certificates came with them: the newest time counts. Unknown ones are skipped. */
struct store_seen_item {
	struct store_cert_id cert;
	struct wall at;
};
struct store_seen {
	struct group_op op;
	const struct store_seen_item *items;
	unsigned count; /* 1 .. STORE_SEEN_MAX */
};
enum { STORE_SEEN_MAX = 1000 };

/* Revokes, as "superseded", what certificates first seen in (after, until] replace: the one that each renews,
 * and older ones that renew the same and were never seen (an answer that got lost). STORE_UNCHANGED: none. */
struct store_supersede {
	struct group_op op;
	struct wall after, until;
	unsigned revoked_count; /* result */
	int64_t change;         /* result: highest change number given out, 0: none */
};

/* In the order of names; .n == 0: any domain, from the start. */
MUST_CHECK int store_read_clients(struct store *s, struct str domain, struct str after_name, unsigned max,
	struct arena *arena, struct store_client **ret, unsigned *ret_count, struct err *e);
MUST_CHECK int store_read_client(
	struct store *s, struct str name, struct arena *arena, struct store_client *ret, struct err *e);

/* Always in the order of change, so that any list can be paged with after_change. */
struct store_cert_query {
	struct str name, domain, role;
	struct wall expires_before; /* .ms == 0: any */
	bool revoked_only;
	const uint8_t *serial; /* NULL: any */
	unsigned serial_bytes;
	const uint8_t *issuer_key_id; /* NULL: any */
	int64_t after_change; /* rows changed after this number, in order of change: the feed for proxies */
	unsigned max;
};
MUST_CHECK int store_read_certs(struct store *s, const struct store_cert_query *query, struct arena *arena,
	struct store_cert **ret, unsigned *ret_count, struct err *e);

/* ERR_CONFLICT when two issuers used this serial: ask store_read_certs with the issuer. */
MUST_CHECK int store_read_cert(struct store *s, const uint8_t *serial, unsigned serial_bytes,
	struct arena *arena, struct store_cert *ret, struct err *e);

/* --- enrolment tokens: what lets a device fetch its first certificate --- */

/* Of the secret only its hash is kept. The hash begins with the id, which is no secret. */
struct store_token {
	int64_t sequence; /* from 1, in the order in which they were made; set by the store */
	uint8_t hash[STORE_HASH_BYTES];
	struct str name, domain, role; /* of the certificates */
	struct str names;              /* DNS names and addresses in them, comma separated; may be empty */
	int64_t days;                  /* their lifetime; 0: the default */
	struct wall created_at, expires_at;
	unsigned uses_max;      /* 1 .. STORE_TOKEN_USES_MAX */
	unsigned uses;          /* set by the store, as what follows */
	struct wall used_at;    /* last; .ms == 0: never */
	struct wall revoked_at; /* .ms == 0: not revoked */
};

/* ERR_CONFLICT: there is one of this id. */
struct store_token_put {
	struct group_op op;
	struct store_token token;
};

/* A token and the hash of a public key that was enrolled with it. */
struct store_token_key {
	uint8_t id[STORE_TOKEN_ID_BYTES];
	uint8_t key_hash[STORE_HASH_BYTES];
};

/* Consumes one use of a token for a key; ERR_NOT_FOUND: no such token. A key that has consumed one may come
 * again while the token lasts: it gets what it had, never a second certificate. */
struct store_token_use {
	struct group_op op;
	struct store_token_key key;
	struct store_cert_id
		cert; /* result, STORE_TOKEN_AGAIN: registered for it; none: signing was interrupted */
};
/* op.result of a use. */
enum store_token_outcome {
	STORE_TOKEN_CONSUMED,
	STORE_TOKEN_AGAIN, /* by this key before */
	STORE_TOKEN_USED_UP,
	STORE_TOKEN_EXPIRED,
	STORE_TOKEN_REVOKED,
	STORE_TOKEN_OUTCOMES
};

/* Revokes one token, or all of a name that can still be used; ERR_NOT_FOUND: no such token. STORE_UNCHANGED:
 * there was nothing left to revoke. */
struct store_token_revoke {
	struct group_op op;
	const uint8_t *id; /* NULL: all of `name` */
	struct str name;
	unsigned revoked_count; /* result */
};

/* Brings a token up to what is known of it elsewhere, where a backup has taken this store back: at least so many
 * uses, and revoked if it was. ERR_NOT_FOUND: no such token; STORE_UNCHANGED: it is as far already. */
struct store_token_restore {
	struct group_op op;
	uint8_t id[STORE_TOKEN_ID_BYTES];
	unsigned uses; /* more than it allows count as all */
	struct wall used_at;
	struct wall revoked_at; /* .ms == 0: not revoked */
};

/* Takes out tokens that ended before `ended_before`: revoked, expired, or used for the last time by then. What was
 * enrolled with them stays. */
struct store_token_purge {
	struct group_op op;
	struct wall ended_before;
	unsigned max;           /* tokens in this step, 1 .. STORE_PAGE_MAX */
	unsigned removed_count; /* result; less than max: there are no more */
};

struct store_token_query {
	struct str name;         /* .n == 0: any */
	const uint8_t *id;       /* NULL: any */
	int64_t before_sequence; /* keyset: older than this; 0: from the newest */
	unsigned max;
};
/* Newest first. */
MUST_CHECK int store_read_tokens(struct store *s, const struct store_token_query *query, struct arena *arena,
	struct store_token **ret, unsigned *ret_count, struct err *e);

/* --- audit --- */

/* Who did what to what, from where, and how it ended. Rows are chained by hash: each covers the one before.
 *
 * hash = SHA-256 over "sealpost audit 1" and a zero byte (17 bytes), the previous row's hash (32 bytes, zero
 * for the first row), sequence and at (milliseconds) as 64-bit big-endian integers, then actor, origin,
 * action, target, result, detail, each as a 32-bit big-endian length and that many bytes. */
struct store_audit_row {
	int64_t sequence; /* from 1, without gaps */
	struct wall at;
	struct str actor, origin, action, target,
		result;    /* UTF-8, no payload, at most STORE_TEXT_BYTES each */
	struct str detail; /* a JSON object or empty, at most STORE_DETAIL_BYTES */
	uint8_t hash[STORE_HASH_BYTES];
};
struct store_audit {
	struct group_op op;
	struct store_audit_row row; /* sequence, at and hash are set by the store */
};
MUST_CHECK int store_read_audit(struct store *s, int64_t after_sequence, unsigned max, struct arena *arena,
	struct store_audit_row **ret, unsigned *ret_count, struct err *e);

/* Walks the whole chain. 0: intact, *ret_checked rows. STORE_AUDIT_BROKEN: *ret_bad_sequence is the first row
 * that is missing or does not fit the one before (rows cut off at the end count as missing). */
enum { STORE_AUDIT_BROKEN = 1 };
MUST_CHECK int store_audit_check(
	struct store *s, uint64_t *ret_checked, int64_t *ret_bad_sequence, struct err *e);

/* --- looking after it --- */

/* Has the engine check its files, and the driver its own bookkeeping. `full` reads and compares every index
 * too (minutes on a large store; writes go on, but the log that they are kept in grows meanwhile). ERR_FATAL
 * names the first thing found. */
MUST_CHECK int store_check(struct store *s, bool full, struct err *e);

/* --- submitting --- */

MUST_CHECK int store_submit(struct store *s, enum store_kind kind, struct group_op *op); /* 0 or GROUP_FULL */
MUST_CHECK int store_wait(struct store *s, enum store_kind kind, struct group_op *op, struct err *e);

/* healthy: the last commit, or the last probe after a failed one, succeeded. While it is not, the store tries
 * once a second whether the engine takes writes again. */
struct store_glance {
	bool healthy;
	char trouble[ERR_TEXT_BYTES]; /* empty while healthy */
	struct group_stats group;
};
void store_glance(struct store *s, struct store_glance *ret);

#endif
