/* domains.h - the domains that the configuration lists, for the main server.
 *
 * A new client must belong to one of them; as long as none is listed, to any (`unlisted_domains` says otherwise). What was
 * issued before stays as it is, and can be renewed.
 *
 * Ownership: new/free; texts are copied out.
 * Threads:   any; domains_reload from one at a time. */
#ifndef SERVER_DOMAINS_H
#define SERVER_DOMAINS_H

#include "base/config.h"

struct domains;

MUST_CHECK int domains_new(const struct config *config, struct domains **ret, struct err *e);
void domains_free(struct domains *d); /* takes NULL */

/* On failure the old ones stay. */
MUST_CHECK int domains_reload(struct domains *d, const struct config *config, struct err *e);

/* Whether a new client may belong to it; ERR_REJECT names those that are known. */
MUST_CHECK int domains_check(struct domains *d, struct str name, struct err *e);

bool domains_listed(struct domains *d, struct str name);

/* The name for people; false when it has none. `out` holds DOMAINS_DISPLAY_BYTES. */
enum { DOMAINS_DISPLAY_BYTES = 256 };
bool domains_display_name(struct domains *d, struct str name, char *out);

/* How long a delivered message of this domain is kept; 0: for good. */
int64_t domains_retention_ms(struct domains *d, struct str name);

/* The shortest of all retentions; 0: everything is kept for good. */
int64_t domains_shortest_retention_ms(struct domains *d);

#endif
