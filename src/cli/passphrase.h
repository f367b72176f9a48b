/* passphrase.h - a passphrase from a file or from whoever sits at the terminal.
 *
 * Errors:   ERR_REJECT none, or not twice the same; ERR_FATAL the file or the terminal cannot be read.
 * Threads:  the main thread.
 * Security: never from the command line or the environment, where others could see it; not shown while it is typed; wipe
 *           the buffer. */
#ifndef CLI_PASSPHRASE_H
#define CLI_PASSPHRASE_H

#include "base/buf.h"

enum { PASSPHRASE_BYTES_MAX = 1024 };

/* The first line of `file`, or, where that is NULL, what is typed; asked for twice when it is a `fresh` one. `what` says what
 * it is for. */
MUST_CHECK int passphrase_get(const char *file, const char *what, bool fresh, struct buf *ret, struct err *e);

#endif
