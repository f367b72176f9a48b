/* context.h - OpenSSL contexts as every listener and every client of ours uses them: TLS 1.3 only, tickets and
 * session cache off (resumption would skip the revocation check), ALPN, strict chain verification.
 *
 * Ownership: new/free; a context in use by connections lives until the last of them is gone.
 * Threads:   tls_server_accept from any; reload swaps the context for new connections only.
 * Errors:    ERR_FATAL: files missing, unreadable, key does not match; the text names the file.
 * Security:  private keys are read once, must not be readable by others (0600 or 0400, or 0640 root:group). */
#ifndef TLS_CONTEXT_H
#define TLS_CONTEXT_H

#include <openssl/ssl.h>

#include "tls/identity.h"
#include "tls/openssl.h"
#include "tls/registry.h"
#include "tls/verify.h"

struct tls_server;

struct tls_server_options {
	const char *cert_file; /* PEM: leaf, then intermediates */
	const char *key_file;
	const char *ca_file; /* PEM: trust anchors (and issuing CAs) for client certificates */
	const char *
		issuers_file; /* PEM that need not be there: more issuing CAs, never trust anchors; NULL: none */
	const char *trust_domain; /* of the identities; NULL: any */
	bool client_cert;         /* request one; a peer without is let through with role none */
	bool http2;               /* offer h2 before http/1.1 */
	int64_t grace_ms; /* a client's certificate may have ended this long ago; whoever serves it must look */
	unsigned roles;   /* ROLE_BIT mask of roles let in at all; others: handshake alert */
	const struct registry
		*registry;         /* checked in the handshake too; NULL: not; outlives every connection */
	const struct clock *clock; /* outlives every connection */

	/* For those who tell what happens; NULL: nobody listens. Called on the thread that shakes hands. */
	SSL_client_hello_cb_fn hello;                            /* with what the client offers */
	void (*each)(void *arg, const struct verify_step *step); /* with each step of the verdict */
	void *arg;
};

MUST_CHECK int tls_server_new(const struct tls_server_options *o, struct tls_server **ret, struct err *e);
void tls_server_free(struct tls_server *s);

/* Reads the files again; on failure the old context stays and the error says why. */
MUST_CHECK int tls_server_reload(struct tls_server *s, struct err *e);

/* A new SSL in accept state for an accepted socket, NULL when out of memory. The verdict on the client's
 * certificate is made in the handshake (verify.h) and each refusal sends its alert. A TLS 1.3 client learns of it
 * after its own Finished: to it the handshake looks done, and its first read brings the alert. */
MUST_CHECK SSL *tls_server_accept(struct tls_server *s);

/* After the handshake: the peer's identity, role none without a certificate. */
const struct identity *tls_peer(const SSL *ssl);

/* What became of the certificate that the peer showed; NULL: it showed none, or it was not looked at. */
const struct verify_result *tls_verdict(const SSL *ssl);

/* How often the peer has changed its keys (RFC 8446 section 4.6.3). It costs us more than the peer, and nothing in TLS
 * bounds it: that is left to whoever reads. */
uint64_t tls_key_updates(const SSL *ssl);

/* After a failed handshake, before anything else touches OpenSSL on this thread: a name from a fixed set for
 * metrics, and for logs *ret_rule (static). A refused certificate: verify_outcome_name and the broken rule. Else
 * "peer_alert" (the client refused us), "reset" (it went away), "protocol"; the rule is then OpenSSL's reason.
 * Empties OpenSSL's error queue. */
const char *tls_failure(const SSL *ssl, const char **ret_rule);

/* When the first of the server's own leaf and its issuing CA ends; for health and metrics. */
struct wall tls_server_not_after(const struct tls_server *s);

/* Client side: an SSL_CTX that trusts ca_file only (NULL: the system's authorities), sends cert_file, TLS 1.3.
 * cert_file may be NULL. Checking the server's name is left to the caller (SSL_set1_host, libcurl). */
MUST_CHECK int tls_client_context(
	const char *cert_file, const char *key_file, const char *ca_file, SSL_CTX **ret, struct err *e);

#endif
