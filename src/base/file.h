/* file.h - whole small files: read with a ceiling, replaced atomically and durably.
 * Errors:   ERR_NOT_FOUND when a path does not exist, ERR_REJECT when larger than the ceiling, ERR_RETRY for
 *           what may pass (disk full, quota, I/O error, memory, too many open files), else ERR_FATAL; the
 *           text names the path.
 * Threads:  any. Blocks on disk: never from an I/O thread.
 * Security: file_replace never leaves a partial file under the final name and never widens `mode`. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <sys/types.h>

#include "base/buf.h"

/* Appends the contents to *out; a file larger than ceiling_bytes is refused. */
MUST_CHECK int file_read(const char *path, size_t ceiling_bytes, struct buf *out, struct err *e);

/* Writes a temporary file beside `path`, gives it exactly `mode` (the umask does not matter), fsyncs it,
 * renames it, fsyncs the directory. A symbolic link at `path` is replaced, not followed. */
MUST_CHECK int file_replace(const char *path, mode_t mode, struct str contents, struct err *e);

/* Creates the directory and its missing parents with `mode` (less the umask), durably; an existing one is
 * fine, ERR_CONFLICT when something else has the name. */
MUST_CHECK int dir_make(const char *path, mode_t mode, struct err *e);

/* fsync of the directory that holds `path`, so that a create or rename in it is durable. */
MUST_CHECK int dir_sync_parent(const char *path, struct err *e);

/* Takes an exclusive lock on `path` (created 0600), held until the fd is closed. ERR_CONFLICT when another
 * process, or another open of this one, holds it; the text names the process's id. */
MUST_CHECK int file_lock(const char *path, int *ret_fd, struct err *e);

/* The same, but a holder gets up to `wait_ms` to let go: one whose parent was killed ends in a moment. */
MUST_CHECK int file_lock_wait(const char *path, int64_t wait_ms, int *ret_fd, struct err *e);

/* "dir/name" in fresh memory; NULL when out of memory. */
MUST_CHECK char *path_join(const char *dir, const char *name);

#endif
