/* crl_number.h - the number of the last CRL, on disk, so that the next one is always higher (RFC 5280 section
 * 5.2.3). The next number is on disk before it is used.
 *
 * Errors:  ERR_NOT_FOUND no file, ERR_FATAL damaged, ERR_RETRY cannot be written now.
 * Threads: one. */
#ifndef CA_CRL_NUMBER_H
#define CA_CRL_NUMBER_H

#include "base/clock.h"
#include "base/err.h"

struct crl_number {
	int fd;
	uint64_t last;
	size_t slot; /* that holds it */
};

/* Makes the file unless it is there. */
MUST_CHECK int crl_number_init(const char *path, struct err *e);
MUST_CHECK int crl_number_open(const char *path, struct crl_number *ret, struct err *e);
void crl_number_close(struct crl_number *n);

/* One more, but at least the time in milliseconds, which is faster than anybody signs: an old copy of the file that was
 * restored does not bring back old numbers. */
MUST_CHECK int crl_number_next(struct crl_number *n, struct wall now, uint64_t *ret, struct err *e);

#endif
