/* redis_link.h - one connection to a Redis server: bytes out, replies in (RESP2), over TCP, TLS or a unix
 * socket. Debian's hiredis has no TLS, so its reply reader is used over sockets of our own.
 *
 * Every exchange has one deadline for all of it. After any failure the connection is unusable and has to be
 * closed: nobody knows which replies are still to come.
 *
 * Units:     timeouts in milliseconds of real time.
 * Errors:    ERR_RETRY, and errno ETIMEDOUT when the deadline passed; ERR_FATAL for files that cannot be
 *            read.
 * Threads:   one at a time.
 * Security:  with `tls` the server's certificate and its name or address are checked; TLS 1.2 at least. */
#ifndef QUEUE_REDIS_LINK_H
#define QUEUE_REDIS_LINK_H

#include <hiredis/hiredis.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

struct redis_link;

/* Where to and how; strings stay the caller's and are needed during redis_link_open only. */
struct redis_place {
	const char *host, *port; /* or */
	const char *unix_path;
	bool tls;
	const char *ca_file, *cert_file, *key_file; /* ca_file NULL: the system's; cert_file NULL: none */
};

MUST_CHECK int redis_link_open(
	const struct redis_place *place, int timeout_ms, struct redis_link **ret, struct err *e);
void redis_link_close(struct redis_link *link); /* takes NULL */

/* Sends all of `commands`; the replies are read with redis_link_reply, each within what is left of the
 * time. */
MUST_CHECK int redis_link_send(struct redis_link *link, struct str commands, int timeout_ms, struct err *e);

/* The next reply, freed with freeReplyObject; an error reply is a reply too. */
MUST_CHECK int redis_link_reply(struct redis_link *link, redisReply **ret, struct err *e);

/* --- commands --- */

/* Appends the head of a command of `count` words, then each word. */
void redis_command(struct buf *out, size_t count);
void redis_word(struct buf *out, struct str word);
void redis_number(struct buf *out, int64_t number);

/* A whole command of text words, NULL at the end. */
void redis_text_command(struct buf *out, ...) __attribute__((sentinel));

#endif
