/* err.h - what went wrong, for whom, and what to do about it.
 *
 * Functions return 0 when done, >0 for an outcome that their header names, and <0 for a failure that
 * is described in *e. A failure has a kind; delivery policy, HTTP status and log level are each one
 * table over kinds. Callers add context on the way up: "open queue: pragma wal: disk I/O error".
 *
 * Ownership: plain value, no heap. Every function takes e == NULL and then only returns.
 * Threads:   none of its own.
 * Security:  never put a body, a phone number or a secret into an error. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"

enum err_kind {
	ERR_NONE,
	ERR_RETRY,     /* may work later, nothing is wrong with the request: peer away, disk full, overload */
	ERR_REJECT,    /* the input is wrong and will stay wrong: malformed, unknown, damaged */
	ERR_FORBIDDEN, /* the caller may not do this */
	ERR_NOT_FOUND, /* what was named does not exist */
	ERR_CONFLICT,  /* what is there contradicts the request: exists already, held by another process */
	ERR_FATAL,     /* the installation or the program is broken and needs a person */
	ERR_KINDS
};

enum { ERR_TEXT_BYTES = 320 };

struct err {
	enum err_kind kind;
	int sys_errno;          /* errno of a failed system call, else 0 */
	int64_t retry_after_ms; /* ERR_RETRY: whoever refused asks to be left alone this long; 0: did not say */
	bool unanswered; /* ERR_RETRY: the peer had the whole request, and then broke off without a word: it may have died of it */
	char text[ERR_TEXT_BYTES]; /* UTF-8, NUL-terminated, truncated with "..." */
};

#define ERR_INIT ((struct err){.kind = ERR_NONE})

/* Each returns -1, so that a failing function can end in `return err_set(e, …)`. */
int err_set(struct err *e, enum err_kind kind, const char *fmt, ...) PRINTF(3, 4);

/* Appends strerror(errno) to the text and keeps errno. */
int err_sys(struct err *e, enum err_kind kind, const char *fmt, ...) PRINTF(3, 4);

/* Out of memory: ERR_RETRY, no formatting. */
int err_oom(struct err *e);

/* Puts "context: " in front of what is there; kind and errno stay. */
int err_context(struct err *e, const char *fmt, ...) PRINTF(2, 3);

/* "retry", "reject", … for logs and metrics. */
const char *err_kind_name(enum err_kind kind);

#endif
