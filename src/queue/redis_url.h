/* redis_url.h - redis://HOST[:PORT][/DB], rediss://…, unix:///PATH[?db=N], and lists of HOST:PORT.
 * Security: a URL that carries a user or a password is refused: URLs are shown, in `config show` and logs. */
#ifndef QUEUE_REDIS_URL_H
#define QUEUE_REDIS_URL_H

#include "base/err.h"
#include "base/str.h"

enum { REDIS_HOST_BYTES = 256, REDIS_PORT_BYTES = 6, REDIS_PATH_BYTES = 108 };

struct redis_address {
	char host[REDIS_HOST_BYTES], port[REDIS_PORT_BYTES];
};

struct redis_url {
	bool tls;
	struct redis_address address;     /* of redis:// and rediss:// */
	char unix_path[REDIS_PATH_BYTES]; /* or this */
	char database[8];
};

/* ERR_REJECT says what is wrong. An empty host is "localhost". */
MUST_CHECK int redis_url_parse(struct str url, struct redis_url *ret, struct err *e);

/* HOST, HOST:PORT, [V6], [V6]:PORT. */
MUST_CHECK int redis_address_parse(
	struct str s, const char *default_port, struct redis_address *ret, struct err *e);

#endif
