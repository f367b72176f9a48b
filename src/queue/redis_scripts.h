/* redis_scripts.h - the Lua scripts of the Redis engine (src/queue/redis/): one for each change or look that has
 * to be atomic. What they do and which keys there are: redis/common.lua.
 * Threads: none of its own. */
#ifndef QUEUE_REDIS_SCRIPTS_H
#define QUEUE_REDIS_SCRIPTS_H

#include "base/buf.h"

enum redis_script {
#define SCRIPT(id, name) REDIS_##id,
#include "queue/redis_scripts.def"
#undef SCRIPT
	REDIS_SCRIPTS
};

/* What EVALSHA knows a script by: SHA-1 in hexadecimal. */
enum { REDIS_SHA_BYTES = 40 };
struct redis_shas {
	char of[REDIS_SCRIPTS][REDIS_SHA_BYTES + 1];
};
MUST_CHECK int redis_scripts_name(struct redis_shas *ret, struct err *e);

/* Appends the commands that load all of them, REDIS_SCRIPTS in number. */
void redis_scripts_load(struct buf *out);

#endif
