/* clients.h - which clients exist and in which domain, in memory: every delivered message is checked against
 * it. Threads: clients_known from any thread (read lock); clients_set from one at a time. */
#ifndef SERVER_CLIENTS_H
#define SERVER_CLIENTS_H

#include "store/store.h"

struct clients;

/* Loads all clients of the store. */
MUST_CHECK int clients_load(struct store *store, struct clients **ret, struct err *e);
void clients_free(struct clients *c);

MUST_CHECK int clients_set(struct clients *c, struct str name, struct str domain, struct err *e);

/* Whether this client exists in this domain. */
bool clients_known(struct clients *c, struct str name, struct str domain);

#endif
