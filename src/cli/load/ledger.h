/* ledger.h - the ids of acknowledged messages, one a line, for tests that compare them with what was stored.
 * Threads: lines belong to one thread; several may write to one file (opened for appending). */
#ifndef CLI_LOAD_LEDGER_H
#define CLI_LOAD_LEDGER_H

#include "base/buf.h"

/* Adds every "message_id" of an answer's body. */
void ledger_note(struct buf *lines, struct str body);

/* Appends the lines to the file in one write and empties them. */
MUST_CHECK int ledger_write(int fd, struct buf *lines, struct err *e);

#endif
