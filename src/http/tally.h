/* tally.h - how many of something each key has: connections by address and by client.
 * Bounds:   as many entries as counted things; a key whose count falls to zero is forgotten.
 * Threads:  any. */
#ifndef HTTP_TALLY_H
#define HTTP_TALLY_H

#include "base/err.h"
#include "base/str.h"

struct tally;
struct tally_entry;

MUST_CHECK int tally_new(struct tally **ret, struct err *e);
void tally_free(struct tally *t);

/* Counts one more and returns the key's entry; NULL when it already has `limit`, or when out of memory. */
MUST_CHECK struct tally_entry *tally_add(struct tally *t, struct str key, unsigned limit);

/* One less. Takes NULL. */
void tally_remove(struct tally *t, struct tally_entry *entry);

#endif
