/* sealed.h - a message on its way: the envelope (ciphertext) and the few facts that stand outside it.
 *
 * This is what the queue holds, what travels to the main server and what the store keeps. The facts outside
 * are bound to the ciphertext as additional data: change or swap one and the envelope does not open.
 *
 * Format:    doc/protocol.md. Versioned; a decoder refuses versions it does not know.
 * Ownership: views into the buffer that was decoded.
 * Errors:    ERR_REJECT for anything malformed. An encoder is given valid facts; what it encodes is
 *            at most SEALED_MAX_BYTES (the largest payload makes less than 9 KiB).
 * Threads:   none of its own. */
#ifndef MESSAGE_SEALED_H
#define MESSAGE_SEALED_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "message/uuid.h"

enum {
	ENVELOPE_VERSION = 1,
	ENVELOPE_KEY_ID_BYTES = 8,
	ENVELOPE_ENC_BYTES = 32, /* X25519 encapsulated key */
	ENVELOPE_TAG_BYTES = 16,
	ENVELOPE_HEADER_BYTES = 1 + ENVELOPE_KEY_ID_BYTES + ENVELOPE_ENC_BYTES + 8,
	SEALED_MAX_BYTES = 24 * 1024,
	SEALED_CLIENT_BYTES = 1 + 16 + 8 + 1 + 64, /* from the beginning to the end of the client's name */
};

struct envelope {
	uint8_t key_id[ENVELOPE_KEY_ID_BYTES];
	uint8_t enc[ENVELOPE_ENC_BYTES];
	uint64_t sequence;     /* HPKE sequence number within this enc */
	struct str ciphertext; /* with the tag at its end */
};

struct sealed {
	struct uuid id;
	struct wall accepted_at;
	struct str client_id; /* [A-Za-z0-9][A-Za-z0-9._-]{0,63} */
	struct str domain;
	struct str traceparent; /* W3C trace context as accepted, .n == 0 when absent */
	struct str envelope;    /* an encoded struct envelope */
};

/* W3C Trace Context level 1 section 3.2.2: the 55 characters of version 00: what the proxy may accept into
 * .traceparent. */
MUST_CHECK bool traceparent_valid(struct str s);

void envelope_encode(const struct envelope *env, struct buf *out);
MUST_CHECK int envelope_decode(struct str bytes, struct envelope *ret, struct err *e);

void sealed_encode(const struct sealed *s, struct buf *out);
MUST_CHECK int sealed_decode(struct str bytes, struct sealed *ret, struct err *e);

/* The client of an encoded message, from its first SEALED_CLIENT_BYTES; .n == 0 when they are damaged. For who
 * gets a turn: nothing else of the message is looked at. */
struct str sealed_client(struct str beginning);

/* The additional data that binds id, client, domain and accepted-at to the ciphertext. */
void sealed_additional_data(const struct sealed *s, struct buf *out);

#endif
