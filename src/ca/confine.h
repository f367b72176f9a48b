/* confine.h - how the signer gives up everything it does not need.
 *
 * Threads: one; the process must have no other.
 * Errors:  ERR_FATAL: a signer that cannot lock itself in does not run. */
#ifndef CA_CONFINE_H
#define CA_CONFINE_H

#include <stdbool.h>

#include "base/err.h"

/* First thing in the process, before a key is near: closes every file but 0, 1, 2 and `keep_fd`; no core
 * dumps, no ptrace, no new privileges; terminal signals ignored (the owner ends us by closing the socket); no
 * network where permitted. */
MUST_CHECK int confine_process(const char *name, int keep_fd, struct err *e);

/* Once the files are open: becomes this user for good, with no other groups; only for a process of root's. ERR_REJECT
 * for an unknown user, and for root itself. */
MUST_CHECK int confine_user(const char *user, struct err *e);

/* Whether this system has a user of that name. */
bool confine_user_exists(const char *user);

/* Last thing before requests are served: memory locked where permitted, and from here on only system calls
 * that computing, the open socket and the open CRL number need. Any other kills the process. */
MUST_CHECK int confine_system_calls(struct err *e);

#endif
