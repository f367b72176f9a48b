/* wire.h - the JSON forms that travel between roles: sealed messages and rows of the certificate registry.
 *
 * Writers append to a json_out, readers take a parsed value and copy what they keep into an arena. Readers
 * trust nothing: names, lengths and numbers are checked as if a stranger had sent them.
 *
 * Errors: ERR_REJECT names the member that is wrong. */
#ifndef ROLE_WIRE_H
#define ROLE_WIRE_H

#include "base/arena.h"
#include "base/json.h"
#include "crypto/keyring.h"
#include "message/sealed.h"
#include "tls/registry.h"

/* {"message_id","client_id","domain","queued_at","attempt_count","traceparent"?,"envelope":base64} */
void wire_put_sealed(struct json_out *w, const struct sealed *s, unsigned attempt_count);
MUST_CHECK int wire_take_sealed(const json_t *in, struct arena *arena, struct sealed *ret,
	unsigned *ret_attempt_count, struct err *e);

/* {"serial","issuer_key_id","status","role","name","domain","not_after","change"} */
void wire_put_row(struct json_out *w, const struct registry_row *row);
MUST_CHECK int wire_take_row(const json_t *in, struct arena *arena, struct registry_row *ret, struct err *e);

/* {"serial","issuer_key_id","at"} */
void wire_put_seen(struct json_out *w, const struct registry_seen *seen);
MUST_CHECK int wire_take_seen(const json_t *in, struct registry_seen *ret, struct err *e);

/* {"key_id","public_key"}, both hexadecimal */
void wire_put_key(struct json_out *w, const char *name, const struct sealing_public *key);
MUST_CHECK int wire_take_key(const json_t *in, struct sealing_public *ret, struct err *e);

#endif
