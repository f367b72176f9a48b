/* driver.h - what a store engine supplies. Contract of every function, for those who write one.
 *
 * Writing side: open, close, begin … probe run on the store's writer thread (open and close: on the thread
 * that opens and closes the store, while no other call runs), one at a time; they need no locks among
 * themselves. `begin` … `commit` brackets a group of operations: everything put in between takes effect,
 * durably and together, at commit; after `abort`, or a failed commit followed by abort, it is as if nothing
 * had been called, in memory too. The values were checked by store.c: names, sizes, states, counts hold what
 * store.h says.
 *
 * Reading side: read_* and check run on any thread, several at once, also while the writing side is inside a
 * group; they see committed groups only, each call a group entirely or not at all unless said otherwise. What
 * they return lives in the arena. `max` is 1 .. STORE_PAGE_MAX. They check what they read: ERR_FATAL for a
 * damaged row.
 *
 * Errors: <0 with ERR_RETRY when the engine cannot now (disk full, away), ERR_FATAL when it is broken: both
 * end the group. ERR_NOT_FOUND/ERR_REJECT/ERR_CONFLICT for the single operation, which then has changed
 * nothing.
 *
 * The conformance suite (store_conformance_test.c) runs over every driver; a new one is a row in its table, a
 * row in the table of store_driver_find, and its migrations (migrations.h). */
#ifndef STORE_DRIVER_H
#define STORE_DRIVER_H

#include "store/store.h"

struct store_driver_options {
	const char *location; /* NULL: none was given */
	void *arg;            /* store_options.driver_arg */
};

struct store_driver {
	const char *name; /* as the configuration names it */

	/* Opens or creates what is at the location and brings its schema up to date. */
	MUST_CHECK int (*open)(const struct store_driver_options *o, void **ret_state, struct err *e);
	void (*close)(void *state); /* takes NULL */

	/* "sqlite 3.40.1, schema 3", one line; static or owned by the state, any thread. */
	const char *(*description)(void *state);

	/* `now` stamps everything that the group writes: stored, updated, delivered, and times left to the
	 * store. */
	MUST_CHECK int (*begin)(void *state, struct wall now, struct err *e);
	MUST_CHECK int (*commit)(void *state, struct err *e);
	void (*abort)(void *state);

	/* Each fills the results of its operation struct and returns what op.result shall be. */
	MUST_CHECK int (*put_messages)(void *state, struct store_messages *put, struct err *e);
	MUST_CHECK int (*put_status)(void *state, struct store_status *put, struct err *e);
	MUST_CHECK int (*expire)(void *state, struct store_expire *expire, struct err *e);
	MUST_CHECK int (*put_client)(void *state, struct store_client_put *put, struct err *e);
	MUST_CHECK int (*put_cert)(void *state, struct store_cert_put *put, struct err *e);
	MUST_CHECK int (*revoke)(void *state, struct store_revoke *revoke, struct err *e);
	MUST_CHECK int (*put_seen)(void *state, const struct store_seen *seen, struct err *e);
	MUST_CHECK int (*supersede)(void *state, struct store_supersede *supersede, struct err *e);
	MUST_CHECK int (*put_token)(void *state, const struct store_token *token, struct err *e);
	MUST_CHECK int (*use_token)(void *state, struct store_token_use *use, struct err *e);
	MUST_CHECK int (*revoke_tokens)(void *state, struct store_token_revoke *revoke, struct err *e);
	MUST_CHECK int (*restore_token)(
		void *state, const struct store_token_restore *restore, struct err *e);
	MUST_CHECK int (*purge_tokens)(void *state, struct store_token_purge *purge, struct err *e);

	/* The newest audit row as this group sees it: sequence 0 and a zero hash when there is none. */
	MUST_CHECK int (*audit_head)(
		void *state, int64_t *ret_sequence, uint8_t ret_hash[STORE_HASH_BYTES], struct err *e);
	MUST_CHECK int (*put_audit)(void *state, const struct store_audit_row *row, struct err *e);

	/* Inside a group: writes something small that nobody reads, so that the commit shows whether the
	 * engine takes writes (again). */
	MUST_CHECK int (*probe)(void *state, struct err *e);

	/* May see groups committed while it runs in part. */
	MUST_CHECK int (*read_messages)(void *state, const struct store_query *query, struct arena *arena,
		struct store_page *ret, struct err *e);
	MUST_CHECK int (*read_message)(void *state, const struct uuid *id, struct arena *arena,
		struct store_row *ret, struct err *e); /* ERR_NOT_FOUND */
	MUST_CHECK int (*read_counts)(void *state, struct store_counts *ret, struct err *e);
	MUST_CHECK int (*read_clients)(void *state, struct str domain, struct str after_name, unsigned max,
		struct arena *arena, struct store_client **ret, unsigned *ret_count, struct err *e);
	MUST_CHECK int (*read_client)(void *state, struct str name, struct arena *arena,
		struct store_client *ret, struct err *e); /* ERR_NOT_FOUND */
	MUST_CHECK int (*read_certs)(void *state, const struct store_cert_query *query, struct arena *arena,
		struct store_cert **ret, unsigned *ret_count, struct err *e);
	MUST_CHECK int (*read_tokens)(void *state, const struct store_token_query *query, struct arena *arena,
		struct store_token **ret, unsigned *ret_count, struct err *e);
	MUST_CHECK int (*read_audit)(void *state, int64_t after_sequence, unsigned max, struct arena *arena,
		struct store_audit_row **ret, unsigned *ret_count, struct err *e);

	/* See store_check. NULL: the engine has no files to check. */
	MUST_CHECK int (*check)(void *state, bool full, struct err *e);
};

extern const struct store_driver store_driver_memory;
extern const struct store_driver store_driver_sqlite; /* options: sqlite.h */

/* Wraps another driver and fails calls as told; see faulty.h. */
extern const struct store_driver store_driver_faulty;

/* By the configuration's name; NULL when this build does not have it. */
const struct store_driver *store_driver_find(const char *name);

#endif
