/* redis.h - the queue on a Redis server that several proxies and workers share: its settings. The engine is
 * queue_driver_redis; see doc/decisions for the layout of its keys.
 *
 * queue_options.driver_arg points to a struct redis_options, which is copied.
 * Security:  the password is kept in memory only and wiped on close. */
#ifndef QUEUE_REDIS_H
#define QUEUE_REDIS_H

#include <stdbool.h>
#include <stdint.h>

enum redis_durability {
	REDIS_FSYNC,    /* a commit survives power loss: `appendfsync always` */
	REDIS_EVERYSEC, /* a second may be lost then: `appendfsync everysec` */
};

struct redis_options {
	const char *url; /* redis://HOST[:PORT][/DB], rediss://… with TLS, unix:///PATH[?db=N] */
	const char *user, *password;
	const char *ca_file, *cert_file, *key_file; /* PEM; of rediss:// */
	const char *prefix;                         /* of every key; NULL: "sealpost" */
	unsigned partitions;                        /* key groups with hash slots of their own; 0: 1 */
	int64_t timeout_ms;                         /* for a connection, and for the answer to a group */
	enum redis_durability durability;
	bool trust_settings; /* the operator has verified them: CONFIG is not asked */

	/* Fail-over. */
	const char *sentinels; /* HOST:PORT,…; NULL: connect to the url's host */
	const char *master;    /* the name that the Sentinels know the master by */
	const char *sentinel_password;
	unsigned wait_replicas; /* replicas that have to confirm a commit */

	bool own_clock; /* tests: times come from queue_driver_options.clock, not from the server */
};

#endif
