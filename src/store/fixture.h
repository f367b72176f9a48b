/* fixture.h - what the store's tests share: a store of any driver in a directory of its own, a clock moved by
 * hand, and rows that are easy to make and to tell apart. Errors end the test. */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include "store/driver.h"
#include "store/faulty.h"
#include "store/sqlite.h"

/* One row per driver under test. */
struct fixture_driver {
	const char *name;
	const struct store_driver *driver;
	const struct store_driver *inner; /* what faulty wraps, else NULL */
	bool durable;                     /* what is stored is there after a reopen */
};

struct fixture {
	const struct fixture_driver *driver;
	struct store *store;
	struct arena arena;
	char dir[256];
	struct faulty_plan plan;
	struct store_sqlite_options sqlite;

	struct clock clock; /* &fixture->clock: moves by 1 ms with every look at it */
	_Atomic int64_t clock_ms;
};

enum { FIXTURE_START_MS = 1700000000 };

void fixture_init(struct fixture *f, const struct fixture_driver *driver);
void fixture_clear(struct fixture *f); /* removes the directory */

void fixture_open(struct fixture *f);
int fixture_try_open(struct fixture *f, struct err *e);
void fixture_close(struct fixture *f);

/* For drivers that are durable: closes and opens again. Nothing for others. */
void fixture_reopen(struct fixture *f);

/* An id made of a number: ordered like the number. */
struct uuid fixture_id(unsigned n);

/* A message with that id, of client "client-C" in "domain-D", sender index made of `sender` (0: not known).
 */
struct store_message fixture_message(
	unsigned n, unsigned client, unsigned domain, unsigned sender, enum message_state state);

/* A certificate with that serial number and name. Issuer 0 or 1. */
struct store_cert fixture_cert(
	unsigned serial, unsigned issuer, const char *role, const char *name, const char *domain);

/* Submit, wait, and return the operation's result; a failure is left in *e, and ends the test when e is NULL.
 */
int fixture_store(struct fixture *f, struct store_message *items, unsigned count, struct err *e);
int fixture_status(struct fixture *f, struct uuid id, enum message_state state, unsigned attempts,
	const char *error, struct err *e);
int fixture_put_client(
	struct fixture *f, const char *name, const char *domain, enum client_status status, struct err *e);
int fixture_put_cert(struct fixture *f, const struct store_cert *cert, bool create_client, struct err *e);
int fixture_audit(struct fixture *f, const char *actor, const char *action, struct err *e);

struct store_row fixture_read(struct fixture *f, struct uuid id);
struct store_counts fixture_counts(struct fixture *f);

/* The steps of a small history, each depending on those before it: true when the step was done. After
 * `rounds` complete ones, with any steps repeated because they had failed, everything must be there exactly
 * once. */
enum { HISTORY_STEPS = 9 };
bool fixture_history_step(struct fixture *f, unsigned step, unsigned round);
void fixture_history_check(struct fixture *f, unsigned rounds);

/* Numbers that look random and are the same in every run. */
uint64_t fixture_random(uint64_t *state);
unsigned fixture_below(uint64_t *state, unsigned limit);

/* A failure that must be there: its kind and a part of its text (NULL: any). */
void assert_failed(int result, const struct err *e, enum err_kind kind, const char *text);
void assert_done(int result, const struct err *e);

#endif
