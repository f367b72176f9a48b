/* signer_protocol.h - what the CA and its signer say to each other over a socketpair (SOCK_SEQPACKET).
 *
 * A message is one or more frames: version (u8, 1), type (u8), more follows (u8, 0 or 1), zero (u8), request
 * id (u32), then up to SIGNER_FRAME_BYTES of its payload; integers are big-endian. An answer carries its
 * request's id. Lengths in a payload are u16. Decoding is strict: bounded, nothing missing, nothing left
 * over, no other encoding of the same thing.
 *
 * Ownership: decoded messages point into the payload.
 * Errors:    ERR_REJECT malformed or too large; ERR_RETRY the other end is gone or late.
 * Threads:   one at a time per end. */
#ifndef CA_SIGNER_PROTOCOL_H
#define CA_SIGNER_PROTOCOL_H

#include "ca/build.h"

enum {
	SIGNER_VERSION = 1,
	SIGNER_FRAME_HEAD_BYTES = 8,
	SIGNER_FRAME_BYTES = 32 * 1024, /* payload of one frame; well below any socket buffer */
	SIGNER_MESSAGE_BYTES_MAX = 64 * 1024 * 1024,
	SIGNER_KEY_BYTES_MAX = 2048, /* SubjectPublicKeyInfo; RSA-4096 takes 550 */
	SIGNER_PATH_BYTES_MAX = 4096,
	SIGNER_PEM_BYTES_MAX = 16 * 1024, /* a private key, encrypted; RSA-4096 takes 3500 */
	SIGNER_PASSPHRASE_BYTES_MAX = 1024,
	SIGNER_URL_BYTES_MAX = 255,
	SIGNER_USER_BYTES_MAX = 255,
};

enum signer_type {
	SIGNER_INIT = 1, /* setup: make what is missing on disk, then end */
	SIGNER_OPEN,     /* setup: load the issuing key and wait for requests */
	SIGNER_ISSUE,
	SIGNER_CRL,
	SIGNER_DONE,   /* answer: DER of what was asked for, or nothing */
	SIGNER_FAILED, /* answer: error kind and text */
	/* Setups too: one change on disk, then the end. */
	SIGNER_ROTATE,      /* another issuing CA */
	SIGNER_RETIRE,      /* an old one less */
	SIGNER_REKEY,       /* keys encrypted anew */
	SIGNER_EXPORT_ROOT, /* answered by the root's key, encrypted */
	SIGNER_REMOVE_ROOT,
	SIGNER_IMPORT_ROOT,
	SIGNER_TYPES
};

struct signer_message {
	enum signer_type type;
	uint32_t id;
	struct buf payload;
};

MUST_CHECK int signer_send(int fd, enum signer_type type, uint32_t id, struct str payload, struct err *e);

/* Into an initialised message, whose payload is emptied first. SIGNER_ENDED: the other end closed in between
 * two messages. */
enum { SIGNER_ENDED = 1 };
MUST_CHECK int signer_receive(int fd, struct signer_message *ret, struct err *e);

void signer_message_init(struct signer_message *m);
void signer_message_clear(struct signer_message *m);

/* One frame, as it travels. */
struct signer_frame {
	enum signer_type type;
	bool more;
	uint32_t id;
	struct str payload;
};
void signer_frame_encode(const struct signer_frame *frame, struct buf *out);
MUST_CHECK int signer_frame_decode(struct str bytes, struct signer_frame *ret, struct err *e);

/* Payload of every setup: the ca_options that matter to the signer. */
struct signer_setup {
	struct str dir, trust_domain;
	struct str public_url;      /* empty: none */
	struct str user;            /* empty: stays who it is */
	struct str passphrase_file; /* empty: none */
	struct str root_key_type, issuing_key_type;
	int64_t backdate_ms, max_days;
	bool caller_time; /* requests carry the time to use (tests with a fake clock); else the signer's own
			     clock */
	struct wall now;  /* zero unless caller_time */
	/* A copy of the root's key, encrypted, and its passphrase; for those setups that take them, else empty. */
	struct str root_pem, root_passphrase;
	struct str issuer; /* SIGNER_RETIRE: subject key identifier in hex; else empty */
};
void signer_setup_encode(const struct signer_setup *setup, struct buf *out);
MUST_CHECK int signer_setup_decode(struct str payload, struct signer_setup *ret, struct err *e);

/* Payload of SIGNER_ISSUE. */
struct signer_issue {
	struct wall now; /* zero unless caller_time */
	struct ca_request request;
	struct str names[2 * CA_NAMES_MAX]; /* what the request's lists point to */
};
MUST_CHECK int signer_issue_encode(
	const struct ca_request *request, struct wall now, struct buf *out, struct err *e);
MUST_CHECK int signer_issue_decode(struct str payload, struct signer_issue *ret, struct err *e);

/* Payload of SIGNER_CRL; entries are fresh memory when decoded. */
struct signer_crl {
	struct wall now;
	uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES]; /* whose list */
	int64_t valid_days;
	struct build_revoked *entries;
	size_t count;
};
MUST_CHECK int signer_crl_encode(const struct signer_crl *crl, struct buf *out, struct err *e);
MUST_CHECK int signer_crl_decode(struct str payload, struct signer_crl *ret, struct err *e);
void signer_crl_clear(struct signer_crl *crl);

/* Payload of SIGNER_FAILED. Decoding puts the error into *e and returns -1. */
void signer_error_encode(const struct err *error, struct buf *out);
int signer_error_decode(struct str payload, struct err *e);

#endif
