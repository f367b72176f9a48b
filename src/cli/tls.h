/* tls.h - what the subcommands of sealpost tls share: certificates in words, steps for people and machines.
 *
 * A step is a JSON object {"verdict", "name", "detail"}; a report is an array of them, printed as a table or
 * as it is. What a peer sent goes through a table's cells or JSON, which show control characters.
 *
 * Ownership: json_t as jansson's own functions.
 * Threads:   one. */
#ifndef CLI_TLS_H
#define CLI_TLS_H

#include <jansson.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "base/err.h"

int cmd_tls_check(int argc, char **argv);
int cmd_tls_serve(int argc, char **argv);

enum step_verdict { STEP_OK, STEP_NOTE, STEP_WARNING, STEP_FAILED, STEP_VERDICTS };

/* Adds one; a report that ran out of memory lacks it. */
void steps_add(json_t *steps, enum step_verdict verdict, const char *name, const char *fmt, ...) PRINTF(4, 5);
MUST_CHECK int steps_print(const json_t *steps, struct err *e);

/* Subject, issuer, serial, dates, days left, names; NULL when out of memory. */
json_t *tls_cert_json(X509 *cert, struct wall now);

/* "CN=…, issued by CN=…, until 2027-01-31, 69 days left" from that. */
void tls_cert_words(const json_t *cert, char *out, size_t room);

/* "CN=x,O=y" (RFC 2253). */
json_t *tls_name_json(const X509_NAME *name);

/* Days until then, rounded down: negative when it is over. */
int64_t tls_days_left(struct wall end, struct wall now);

/* Below this many days a certificate is worth a warning. */
enum { TLS_DAYS_SOON = 30 };

/* "ecdsa_secp256r1_sha256 rsa_pss_rsae_sha256 …": what the peer can verify, as far as OpenSSL has kept it. */
json_t *tls_peer_algorithms(SSL *ssl);

/* An array of texts as one text, at most `max` of them, with their count when there are more. */
void tls_join(const json_t *texts, size_t max, char *out, size_t room);

#endif
