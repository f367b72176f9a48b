/* sqlite_store.h - inside the SQLite driver: its state, shared by sqlite.c (opening, closing, connections),
 * sqlite_write.c and sqlite_clients.c (the writer thread's half) and sqlite_read.c (the readers' half). */
#ifndef STORE_SQLITE_STORE_H
#define STORE_SQLITE_STORE_H

#include <pthread.h>

#include "message/message.h"
#include "store/driver.h"
#include "store/sqlite.h"
#include "store/sqlite_db.h"

/* Length of a by_sender key: enough to tell senders apart within a segment, half the pages of the whole. */
#define SENDER_KEY_BYTES "8"

/* Numbers that the writer keeps in memory while a group is open and writes with it. */
enum sqlite_counter {
	COUNTER_SEQUENCE, /* last messages.seq given out */
	COUNTER_INDEXED,  /* messages up to this are in segments */
	COUNTER_CHANGE,   /* last certs.change given out */
	COUNTER_CLIENTS,
	COUNTER_CERTS,
	COUNTER_AUDIT, /* last audit.sequence given out */
	COUNTER_PROBES,
	COUNTER_STATE, /* COUNTER_STATE + state: messages in that state */
	SQLITE_COUNTERS = COUNTER_STATE + MESSAGE_STATES
};

/* The names of counters in the database. */
extern const char *const sqlite_counter_names[SQLITE_COUNTERS];

struct sqlite_counters {
	int64_t value[SQLITE_COUNTERS];
};

/* Reads all of them; one that is not there is 0. */
MUST_CHECK int sqlite_counters_read(
	const struct sq *s, unsigned statement, struct sqlite_counters *ret, struct err *e);
#define SQLITE_COUNTERS_SQL "SELECT name, value FROM counters"

/* A (client, domain) pair met lately and its number. */
struct origin_slot {
	char client[CLIENT_NAME_BYTES], domain[DOMAIN_NAME_BYTES];
	unsigned char client_bytes, domain_bytes; /* 0: free */
	int64_t ref;
};
enum { ORIGIN_SLOTS = 1024 };

/* The one connection that writes and checkpoints. */
struct sqlite_writer {
	struct sq sq;
	struct wall now; /* of the group that is open */
	struct sqlite_counters counters, committed;
	int wal_pages; /* in the write-ahead log after the last commit */
	unsigned checkpoint_pages, segment_rows;
	struct origin_slot *origins; /* ORIGIN_SLOTS, by hash */
};

struct sqlite_reader {
	struct sqlite_reader *next;
	struct sq sq;
};

struct sqlite_store {
	int lock_fd;
	char *path;
	char description[64];
	struct sqlite_writer writer;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t reader_back;
	struct sqlite_reader *idle;
	unsigned reader_count, reader_limit;
};

/* Prepares the writer's statements and loads its counters; the schema is there. */
MUST_CHECK int sqlite_writer_start(struct sqlite_writer *w, struct err *e);
void sqlite_writer_stop(struct sqlite_writer *w);

int sqlite_begin(void *state, struct wall now, struct err *e);
int sqlite_commit(void *state, struct err *e);
void sqlite_abort(void *state);
int sqlite_put_messages(void *state, struct store_messages *put, struct err *e);
int sqlite_put_status(void *state, struct store_status *put, struct err *e);
int sqlite_expire(void *state, struct store_expire *expire, struct err *e);
int sqlite_put_client(void *state, struct store_client_put *put, struct err *e);
int sqlite_put_cert(void *state, struct store_cert_put *put, struct err *e);
int sqlite_revoke(void *state, struct store_revoke *revoke, struct err *e);
int sqlite_put_seen(void *state, const struct store_seen *seen, struct err *e);
int sqlite_supersede(void *state, struct store_supersede *supersede, struct err *e);
int sqlite_put_token(void *state, const struct store_token *token, struct err *e);
int sqlite_use_token(void *state, struct store_token_use *use, struct err *e);
int sqlite_revoke_tokens(void *state, struct store_token_revoke *revoke, struct err *e);
int sqlite_restore_token(void *state, const struct store_token_restore *restore, struct err *e);
int sqlite_purge_tokens(void *state, struct store_token_purge *purge, struct err *e);
int sqlite_audit_head(void *state, int64_t *ret_sequence, uint8_t ret_hash[STORE_HASH_BYTES], struct err *e);
int sqlite_put_audit(void *state, const struct store_audit_row *row, struct err *e);
int sqlite_probe(void *state, struct err *e);

/* Takes a read connection out of the pool, opening one or waiting for one when none is idle. */
MUST_CHECK int sqlite_reader_take(struct sqlite_store *s, struct sqlite_reader **ret, struct err *e);
void sqlite_reader_give(struct sqlite_store *s, struct sqlite_reader *r);

/* Prepares a reader's statements. */
MUST_CHECK int sqlite_reader_start(struct sqlite_reader *r, struct err *e);

int sqlite_read_messages(void *state, const struct store_query *query, struct arena *arena,
	struct store_page *ret, struct err *e);
int sqlite_read_message(
	void *state, const struct uuid *id, struct arena *arena, struct store_row *ret, struct err *e);
int sqlite_read_counts(void *state, struct store_counts *ret, struct err *e);
int sqlite_read_clients(void *state, struct str domain, struct str after_name, unsigned max,
	struct arena *arena, struct store_client **ret, unsigned *ret_count, struct err *e);
int sqlite_read_client(
	void *state, struct str name, struct arena *arena, struct store_client *ret, struct err *e);
int sqlite_read_certs(void *state, const struct store_cert_query *query, struct arena *arena,
	struct store_cert **ret, unsigned *ret_count, struct err *e);
int sqlite_read_tokens(void *state, const struct store_token_query *query, struct arena *arena,
	struct store_token **ret, unsigned *ret_count, struct err *e);
int sqlite_read_audit(void *state, int64_t after_sequence, unsigned max, struct arena *arena,
	struct store_audit_row **ret, unsigned *ret_count, struct err *e);
int sqlite_check(void *state, bool full, struct err *e);

#endif
