/* place.h - under which URL others reach a listener of ours.
 * Threads: any. */
#ifndef SERVER_PLACE_H
#define SERVER_PLACE_H

#include <stddef.h>

enum { PLACE_URL_BYTES = 512 };

struct place {
	const char *public_url; /* as configured; NULL: found out */
	const char *listen;     /* as configured: "127.0.0.1:8000", ":8000", "[::]:0"; may be NULL */
	const char *names;      /* in our certificates, comma separated; may be NULL */
};

/* "https://HOST:PORT"; empty when it cannot be known (a free port, and nothing bound). `bound`: the listener's
 * address, with its real port; NULL when it does not run here. For a listener on all addresses the host is the
 * first of `names`, else this machine's name. */
void place_url(const struct place *p, const char *bound, char ret[PLACE_URL_BYTES]);

#endif
