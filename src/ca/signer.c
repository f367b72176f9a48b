/* signer.c - the process that holds the issuing key.
 *
 * It lives in this order: give up what is not needed (confine_process); read one setup message; either make
 * one change to the CA's files and end, or load the keys, become a user of no rights (confine_user), lock itself in
 * (confine_system_calls) and answer requests until the owner closes the socket. One request at a time; an answer is DER or an error.
 *
 * It trusts its owner with little: facts are checked where the certificate is built, the lifetime here, and
 * what was signed is judged once more before it leaves. The time is its own unless the setup said that the
 * owner's clock is a fake one. */
#include "ca/signer_protocol.h"

#include <stdio.h>
#include <sys/socket.h>

#include "ca/authority.h"
#include "ca/confine.h"
#include "ca/root.h"

enum {
	DAY_MS = 24 * 60 * 60 * 1000,
	CRL_DAYS_MAX = 3650,
	SECURE_HEAP_BYTES = 64 * 1024,
	SECURE_BLOCK_BYTES = 16
};

struct signer {
	int fd;
	struct authority authority;
	struct authority_options options; /* strings are ours */
	char *user;                       /* whom to become; NULL: nobody else */
	int64_t max_days;
	bool caller_time;
};

static struct wall time_for(const struct signer *s, struct wall callers)
{
	return s->caller_time ? callers : clock_wall(&clock_system);
}

/* --- requests --- */

static int leaf_validity(
	const struct signer *s, struct wall now, int64_t days, struct build_validity *ret, struct err *e)
{
	struct wall end;
	if (days < 1 || days > s->max_days)
		return err_set(e, ERR_REJECT, "a certificate may be valid for 1 to %lld days",
			(long long)s->max_days);
	if (!wall_of_asn1(X509_get0_notAfter(s->authority.issuing.cert), &end) || now.ms >= end.ms)
		return err_set(e, ERR_FATAL, "the issuing CA's certificate has ended");
	struct wall wanted = {now.ms + days * DAY_MS};
	*ret = (struct build_validity){{now.ms - s->options.backdate_ms}, wanted.ms < end.ms ? wanted : end};
	return 0;
}

static int answer_issue(struct signer *s, struct str payload, struct buf *out, struct err *e)
{
	struct signer_issue issue;
	struct build_validity validity = {0};
	if (signer_issue_decode(payload, &issue, e) < 0 ||
		leaf_validity(s, time_for(s, issue.now), issue.request.days, &validity, e) < 0)
		return -1;
	return authority_issue(&s->authority, &s->options, &issue.request, validity, out, e);
}

static int crl_der(struct signer *s, const struct signer_crl *crl, struct buf *out, struct err *e)
{
	struct wall now = time_for(s, crl->now);
	struct wall next = {now.ms + crl->valid_days * DAY_MS};
	uint64_t number;
	const struct build_authority *issuer = authority_find(&s->authority, crl->issuer_key_id);
	AUTO(X509_CRL_free_auto) X509_CRL *made = NULL;
	AUTO(openssl_free_auto) unsigned char *der = NULL;
	if (!issuer)
		return err_set(e, ERR_REJECT, "no issuing CA has this key");
	if (crl_number_next(&s->authority.crl_number, now, &number, e) < 0 ||
		build_crl(issuer, crl->entries, crl->count, number, now, next, &made, e) < 0)
		return -1;
	int n = i2d_X509_CRL(made, &der);
	if (n < 0)
		return err_openssl(e, ERR_FATAL, "write a CRL");
	buf_add(out, der, (size_t)n);
	return buf_check(out, e);
}

static int answer_crl(struct signer *s, struct str payload, struct buf *out, struct err *e)
{
	struct signer_crl crl;
	if (signer_crl_decode(payload, &crl, e) < 0)
		return -1;
	int result;
	if (crl.valid_days < 1 || crl.valid_days > CRL_DAYS_MAX)
		result = err_set(e, ERR_REJECT, "a CRL may be valid for 1 to %d days", CRL_DAYS_MAX);
	else
		result = crl_der(s, &crl, out, e);
	signer_crl_clear(&crl);
	return result;
}

static int (*const answers[SIGNER_TYPES])(
	struct signer *s, struct str payload, struct buf *out, struct err *e) = {
	[SIGNER_ISSUE] = answer_issue,
	[SIGNER_CRL] = answer_crl,
};

/* Sends what `result` says: the answer, or the error. */
static int reply(const struct signer *s, uint32_t id, int result, struct str answer, const struct err *why,
	struct err *e)
{
	if (result == 0)
		return signer_send(s->fd, SIGNER_DONE, id, answer, e);
	AUTO(buf_auto) struct buf text;
	buf_init(&text, SIGNER_FRAME_BYTES);
	signer_error_encode(why, &text);
	return signer_send(s->fd, SIGNER_FAILED, id, buf_str(&text), e);
}

static int answer_one(struct signer *s, const struct signer_message *request, struct err *e)
{
	struct err why = ERR_INIT;
	AUTO(buf_auto) struct buf answer;
	buf_init(&answer, SIGNER_MESSAGE_BYTES_MAX);
	int result = answers[request->type]
			     ? answers[request->type](s, buf_str(&request->payload), &answer, &why)
			     : err_set(&why, ERR_REJECT, "signer: not a request");
	return reply(s, request->id, result, buf_str(&answer), &why, e);
}

static int serve(struct signer *s, struct err *e)
{
	struct signer_message request;
	signer_message_init(&request);
	int result;
	while ((result = signer_receive(s->fd, &request, e)) == 0 && answer_one(s, &request, e) == 0)
		;
	signer_message_clear(&request);
	return result == SIGNER_ENDED ? 0 : -1;
}

/* --- setup --- */

/* NULL for an empty text and when out of memory. */
static char *text_copy(struct str s)
{
	return s.n ? strndup(s.p, s.n) : NULL;
}

/* The signer's copies live as long as the process. */
static int take_setup(struct signer *s, const struct signer_setup *setup, struct err *e)
{
	s->max_days = setup->max_days;
	s->caller_time = setup->caller_time;
	s->user = text_copy(setup->user);
	s->options = (struct authority_options){
		.files = {.dir = text_copy(setup->dir), .passphrase_file = text_copy(setup->passphrase_file)},
		.trust_domain = text_copy(setup->trust_domain),
		.public_url = text_copy(setup->public_url),
		.root_key_type = setup->root_key_type,
		.issuing_key_type = setup->issuing_key_type,
		.backdate_ms = setup->backdate_ms,
		.now = time_for(s, setup->now)};
	if (!s->options.files.dir || !s->options.trust_domain)
		return err_set(e, ERR_REJECT, "signer: setup without directory or trust domain");
	if ((setup->passphrase_file.n && !s->options.files.passphrase_file) || (setup->user.n && !s->user) ||
		(setup->public_url.n && !s->options.public_url))
		return err_oom(e);
	return 0;
}

/* --- what each setup does --- */

static struct authority_root_key root_key_of(const struct signer_setup *setup)
{
	return (struct authority_root_key){setup->root_pem, setup->root_passphrase};
}

static int start_init(struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e)
{
	(void)setup, (void)out;
	return authority_init(&s->options, e);
}

static int start_open(struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e)
{
	(void)setup, (void)out;
	if (authority_load(&s->options, &s->authority, e) < 0 || (s->user && confine_user(s->user, e) < 0))
		return -1;
	return confine_system_calls(e);
}

static int start_rotate(struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e)
{
	const struct authority_root_key root_key = root_key_of(setup);
	(void)out;
	return authority_rotate(&s->options, &root_key, e);
}

static int start_retire(struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e)
{
	(void)out;
	return authority_retire(&s->options.files, setup->issuer, e);
}

static int start_rekey(struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e)
{
	(void)setup, (void)out;
	return authority_rekey(&s->options, e);
}

static int start_export(struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e)
{
	return root_export(&s->options.files, setup->root_passphrase, out, e);
}

static int start_remove(struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e)
{
	const struct authority_root_key copy = root_key_of(setup);
	(void)out;
	return root_remove(&s->options.files, &copy, e);
}

static int start_import(struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e)
{
	const struct authority_root_key copy = root_key_of(setup);
	(void)out;
	return root_import(&s->options.files, &copy, e);
}

static int (*const starts[SIGNER_TYPES])(
	struct signer *s, const struct signer_setup *setup, struct buf *out, struct err *e) = {
	[SIGNER_INIT] = start_init,
	[SIGNER_OPEN] = start_open,
	[SIGNER_ROTATE] = start_rotate,
	[SIGNER_RETIRE] = start_retire,
	[SIGNER_REKEY] = start_rekey,
	[SIGNER_EXPORT_ROOT] = start_export,
	[SIGNER_REMOVE_ROOT] = start_remove,
	[SIGNER_IMPORT_ROOT] = start_import,
};

static int start(struct signer *s, const struct signer_message *message, struct buf *out, struct err *e)
{
	struct signer_setup setup;
	if (!starts[message->type])
		return err_set(e, ERR_REJECT, "signer: setup must come first");
	if (signer_setup_decode(buf_str(&message->payload), &setup, e) < 0 || take_setup(s, &setup, e) < 0)
		return -1;
	return starts[message->type](s, &setup, out, e);
}

/* `confined` is what became of confine_process; its error is for the owner, who has not asked anything yet.
 */
static int run(struct signer *s, int confined, const struct err *confine_error, struct err *e)
{
	struct signer_message setup;
	AUTO(buf_auto) struct buf answer;
	signer_message_init(&setup);
	buf_init(&answer, SIGNER_PEM_BYTES_MAX);
	int result = signer_receive(s->fd, &setup, e);
	if (result == 0) {
		struct err why = *confine_error;
		int started = confined < 0 ? -1 : start(s, &setup, &answer, &why);
		result = reply(s, setup.id, started, buf_str(&answer), &why, e);
		if (result == 0 && started == 0 && setup.type == SIGNER_OPEN)
			result = serve(s, e);
	}
	signer_message_clear(&setup);
	return result < 0 ? -1 : 0;
}

static bool is_our_socket(int fd)
{
	int type;
	socklen_t n = sizeof(type);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET;
}

void ca_signer_main(void)
{
	if (!is_our_socket(CA_SIGNER_FD)) {
		fprintf(stderr, "sealpost: the signer is started by sealpost itself\n");
		_exit(2);
	}
	struct signer s = {.fd = CA_SIGNER_FD, .authority.crl_number.fd = -1};
	struct err why = ERR_INIT, e = ERR_INIT;
	int confined = confine_process("sealpost-signer", CA_SIGNER_FD, &why);
	/* Private keys live in pages that are locked, not dumped, and fenced by guard pages. */
	CRYPTO_secure_malloc_init(SECURE_HEAP_BYTES, SECURE_BLOCK_BYTES);
	int result = run(&s, confined, &why, &e);
	if (result < 0)
		fprintf(stderr, "sealpost-signer: %s\n", e.text);
	_exit(result < 0 ? 1 : 0);
}
