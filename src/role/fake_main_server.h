/* fake_main_server.h - the main server's internal API with answers given by hand, over real mutual TLS; for
 * tests, not part of the product.
 *
 * Each route answers what was pushed for it, in order; with nothing pushed a request is held until something
 * is, or until the server closes.
 *
 * Ownership: open/close; a directory with certificates goes with it.
 * Threads:   any; one loop of its own. */
#ifndef ROLE_FAKE_MAIN_SERVER_H
#define ROLE_FAKE_MAIN_SERVER_H

#include "role/client.h"

struct fake_main_server;

enum fake_route {
	FAKE_REGISTER,
	FAKE_DELIVER,
	FAKE_STATUS,
	FAKE_MESSAGE,
	FAKE_REVOCATIONS,
	FAKE_SEALING_KEYS,
	FAKE_SEEN,
	FAKE_ROUTES
};

/* What certificate the server shows. */
enum fake_certificate { FAKE_GOOD, FAKE_WRONG_ROLE, FAKE_WRONG_NAME, FAKE_EXPIRED, FAKE_OTHER_CA };

MUST_CHECK int fake_open(enum fake_certificate certificate, struct fake_main_server **ret, struct err *e);
void fake_close(struct fake_main_server *f);

/* How to reach it, with a good certificate of role proxy; valid until fake_close. */
struct client_options fake_client_options(const struct fake_main_server *f);

/* The directory, for files of the test's own, which the test removes. */
const char *fake_dir(const struct fake_main_server *f);

/* The next answer of a route, copied. retry_after NULL: no such header. */
void fake_push(struct fake_main_server *f, enum fake_route route, int status, const char *retry_after,
	const char *body);

/* Waits, at most 10 s, until `count` requests have come to the route since it was opened; false: they did
 * not. Target and body of the latest into `target` and `body` (of `room` bytes each, may be NULL). */
MUST_CHECK bool fake_wait(struct fake_main_server *f, enum fake_route route, unsigned count, char *target,
	char *body, size_t room);

/* How many connections were made so far. */
unsigned fake_connections(struct fake_main_server *f);

#endif
