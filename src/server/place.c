/* place.c - see place.h. */
#include "server/place.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/str.h"

enum { HOST_BYTES = 256 };

static bool is_every_address(struct str host)
{
	static const char *const all[] = {"", "0.0.0.0", "[::]", "*"};
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (str_eq(host, str_of(all[i])))
			return true;
	return false;
}

/* A name of this machine that others may use. */
static void public_host(const char *names, char ret[HOST_BYTES])
{
	struct str rest = str_of(names ? names : ""), first;
	if (!str_cut(&rest, ',', &first))
		first = rest;
	first = str_trim(first);
	if (first.n)
		snprintf(ret, HOST_BYTES, memchr(first.p, ':', first.n) ? "[%.*s]" : "%.*s", STR_ARG(first));
	else if (gethostname(ret, HOST_BYTES - 1) < 0)
		snprintf(ret, HOST_BYTES, "localhost");
	ret[HOST_BYTES - 1] = 0;
}

void place_url(const struct place *p, const char *bound, char ret[PLACE_URL_BYTES])
{
	ret[0] = 0;
	if (p->public_url) {
		snprintf(ret, PLACE_URL_BYTES, "%s", p->public_url);
		return;
	}
	const char *address = bound ? bound : p->listen, *port = address ? strrchr(address, ':') : NULL;
	if (!port || strcmp(port, ":0") == 0)
		return;
	char host[HOST_BYTES];
	struct str own = str_mem(address, (size_t)(port - address));
	if (is_every_address(own))
		public_host(p->names, host);
	else
		snprintf(host, sizeof(host), "%.*s", STR_ARG(own));
	snprintf(ret, PLACE_URL_BYTES, "https://%s%s", host, port);
}
