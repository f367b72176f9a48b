/* store.h - what the main server keeps: messages (sealed), clients, certificates, the audit trail.
 *
 * Writes are asynchronous operations of one writer thread that commits them in groups (base/group.h); reads are
 * plain functions that any thread but an event loop may call, on read connections of their own.
 *
 * Exactly once:  UNIQUE(message_id); a message stored again is reported as a duplicate and changes nothing.
 * Durability:    a write completes after its commit is on disk.
 * Ownership:     operation structs belong to the caller until completion; read results live in the arena given.
 * Threads:       store_submit from any thread; store_read_* from any thread that may block.
 * Errors:        ERR_RETRY engine away or disk full; ERR_NOT_FOUND, ERR_CONFLICT for the single row; ERR_FATAL
 *                corrupt, or a schema newer than this program.
 * Security:      holds ciphertext and blind indexes only; plaintext never comes here. */
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
	const struct clock *clock;
	unsigned write_limit, group_max;
	void (*observe)(void *arg, unsigned ops, int64_t commit_ns);
	void *observe_arg;
};

MUST_CHECK int store_open(const struct store_options *o, struct store **ret, struct err *e);
void store_close(struct store *s);

/* "sqlite 3.40.1, schema 3": for the start log and health. */
const char *store_description(const struct store *s);

enum store_kind {
	STORE_MESSAGES, /* struct store_messages */
	STORE_STATUS,   /* struct store_status */
	STORE_CLIENT,   /* struct store_client_put */
	STORE_CERT,     /* struct store_cert_put */
	STORE_REVOKE,   /* struct store_revoke */
	STORE_AUDIT,    /* struct store_audit */
	STORE_KINDS
};

/* --- messages --- */

enum { STORE_INDEX_BYTES = 32 };

struct store_message {
	struct sealed sealed;                       /* .traceparent is kept too */
	uint8_t sender_index[STORE_INDEX_BYTES];    /* blind index of the number; all zero: not known yet */
	enum message_state state;                   /* DELIVERED, or QUEUED when only registered */
	unsigned attempt_count;
	bool duplicate;                             /* result */
};

/* Stores a batch in one go. A registered (QUEUED) row becomes DELIVERED when the delivery comes; a delivered
 * row never changes. */
struct store_messages {
	struct group_op op;
	struct store_message *items;
	unsigned count;
	unsigned stored_count; /* result */
};

/* Status reported by a worker for a message that is not delivered. ERR_NOT_FOUND when unknown. */
struct store_status {
	struct group_op op;
	struct uuid id;
	enum message_state state;
	unsigned attempt_count;
	struct str error_text;
};

/* One row as read back. */
struct store_row {
	int64_t sequence;
	struct sealed sealed;
	enum message_state state;
	struct wall stored_at, updated_at;
	struct wall delivered_at; /* .ms == 0 while not delivered */
	unsigned attempt_count;
	struct str error_text;
};

struct store_query {
	struct str client_id, domain;        /* .n == 0: any */
	int state;                           /* -1: any */
	const uint8_t *sender_index;         /* NULL: any */
	struct wall since, until;            /* accepted at, [since, until); .ms == 0: open */
	int64_t before_sequence;             /* keyset: rows older than this; 0 to start at the newest */
	unsigned max;
};

struct store_page {
	struct store_row *rows; /* newest first */
	unsigned count;
	int64_t next_sequence;  /* pass as before_sequence; 0: no more */
};

MUST_CHECK int store_read_messages(struct store *s, const struct store_query *query, struct arena *arena,
	struct store_page *ret, struct err *e);
MUST_CHECK int store_read_message(struct store *s, const struct uuid *id, struct arena *arena,
	struct store_row *ret, struct err *e);

struct store_counts {
	uint64_t messages, by_state[MESSAGE_STATES];
	uint64_t clients, certificates, audit_rows;
};
MUST_CHECK int store_read_counts(struct store *s, struct store_counts *ret, struct err *e);

/* --- clients and certificates --- */

enum client_status { CLIENT_ACTIVE, CLIENT_SUSPENDED };

struct store_client {
	struct str name, domain;
	enum client_status status;
	struct wall created_at;
};

/* Creates the client, or sets its status when it exists with the same domain; ERR_CONFLICT: other domain. */
struct store_client_put {
	struct group_op op;
	struct store_client client;
};

enum { SERIAL_MAX_BYTES = 20 };

/* A certificate is registered before it is handed out; the row is what authorises its bearer. */
struct store_cert {
	uint8_t serial[SERIAL_MAX_BYTES]; /* big-endian, no leading zero byte */
	unsigned serial_bytes;
	uint8_t issuer_key_id[20];        /* SHA-1 subject key identifier of the issuing CA */
	struct str role;                  /* "client", "proxy", … */
	struct str name, domain;          /* CN = client_id */
	struct wall not_before, not_after, issued_at;
	struct str der;                   /* the certificate */
	struct wall revoked_at;           /* .ms == 0: not revoked */
	struct str revoke_reason;         /* RFC 5280 name: "keyCompromise", … */
	int64_t change;                   /* number of the last change to this row, from 1, increasing over all rows */
};

struct store_cert_put {
	struct group_op op;
	struct store_cert cert;
	bool create_client; /* role client: create the client row too if missing */
	int64_t change;     /* result */
};

struct store_revoke {
	struct group_op op;
	uint8_t serial[SERIAL_MAX_BYTES];
	unsigned serial_bytes; /* 0: all of `name` */
	struct str name;
	struct str reason;
	struct wall at;
	unsigned revoked_count; /* result: newly revoked */
	int64_t change;
};

MUST_CHECK int store_read_clients(struct store *s, struct str domain, struct str after_name, unsigned max,
	struct arena *arena, struct store_client **ret, unsigned *ret_count, struct err *e);
MUST_CHECK int store_read_client(struct store *s, struct str name, struct arena *arena, struct store_client *ret,
	struct err *e);

struct store_cert_query {
	struct str name, domain, role;
	struct wall expires_before;   /* .ms == 0: any */
	bool revoked_only;
	int64_t after_change;         /* rows changed after this number, in order of change: the feed for proxies */
	unsigned max;
};
MUST_CHECK int store_read_certs(struct store *s, const struct store_cert_query *query, struct arena *arena,
	struct store_cert **ret, unsigned *ret_count, struct err *e);
MUST_CHECK int store_read_cert(struct store *s, const uint8_t *serial, unsigned serial_bytes, struct arena *arena,
	struct store_cert *ret, struct err *e);

/* --- audit --- */

/* Who did what to what, from where, and how it ended. Rows are chained by hash: each covers the one before. */
struct store_audit_row {
	int64_t sequence;
	struct wall at;
	struct str actor, origin, action, target, result; /* text, no payload, at most 255 bytes each */
	struct str detail;                                /* a JSON object or empty */
	uint8_t hash[32];                                 /* SHA-256(previous hash, this row's fields) */
};
struct store_audit {
	struct group_op op;
	struct store_audit_row row; /* sequence, at and hash are set by the store */
};
MUST_CHECK int store_read_audit(struct store *s, int64_t after_sequence, unsigned max, struct arena *arena,
	struct store_audit_row **ret, unsigned *ret_count, struct err *e);

/* --- submitting --- */

MUST_CHECK int store_submit(struct store *s, enum store_kind kind, struct group_op *op); /* 0 or GROUP_FULL */
MUST_CHECK int store_wait(struct store *s, enum store_kind kind, struct group_op *op, struct err *e);

struct store_glance {
	bool healthy;
	char trouble[160];
	struct group_stats group;
};
void store_glance(const struct store *s, struct store_glance *ret);

#endif
