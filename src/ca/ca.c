/* ca.c - the caller's side of the certificate authority: it starts the signer, asks it, and replaces it when
 * it dies. Nothing here ever sees a CA key.
 *
 * The signer is a program started anew (posix_spawn of ca_options.signer_argv), not a fork: it inherits no
 * memory, neither a secret nor the addresses where things are, and it can be started from a process with
 * threads at any time, which is what a restart needs. Only tests and small tools leave signer_argv out and
 * get a fork.
 *
 * The socketpair is the signer's life line: when either end dies, the other sees the end of the stream.
 * Requests take turns under a lock. A signer that is found dead before a request reached it is replaced
 * unnoticed. When it dies over a request, that is asked once more: what the first one may have signed reached
 * nobody. If it dies again, or hangs, the caller gets ERR_RETRY, because a request that kills signers should not
 * go on doing so. */
#include "ca/ca.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/file.h"
#include "ca/public.h"
#include "ca/signer_protocol.h"

enum {
	CERT_BYTES_MAX = 64 * 1024,
	/* RSA-4096 takes seconds to make; a signer that is silent for longer than this hangs. */
	ANSWER_SECONDS = 120,
};

/* A running signer. */
struct child {
	pid_t pid;
	int fd; /* -1: none */
};

struct ca {
	struct ca_public
		*_Atomic public;   /* replaced by a rotation; older ones are kept, as views point into them */
	struct ca_options options; /* strings are ours, but signer_argv */
	pthread_mutex_t change_lock; /* one change at a time */
	pthread_mutex_t lock;        /* guards what follows */
	struct buf setup;            /* what every new signer is told first */
	struct child child;
	uint32_t last_id;
	struct signer_message answer;
};

/* --- starting and ending a signer --- */

static int spawn_program(const char *const *argv, int fd, pid_t *ret_pid, struct err *e)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attributes);
	int rc = posix_spawn_file_actions_adddup2(&files, fd, CA_SIGNER_FD);
	if (rc == 0)
		rc = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (rc == 0)
		rc = posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (rc == 0)
		rc = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
	if (rc == 0)
		rc = posix_spawn(
			ret_pid, argv[0], &files, &attributes, (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attributes);
	errno = rc;
	return rc ? err_sys(e, ERR_RETRY, "start the signer '%s'", argv[0]) : 0;
}

static int spawn_fork(int fd, pid_t *ret_pid, struct err *e)
{
	pid_t pid = fork();
	if (pid < 0)
		return err_sys(e, ERR_RETRY, "start the signer");
	if (pid == 0) {
		if (dup2(fd, CA_SIGNER_FD) < 0)
			_exit(1);
		ca_signer_main();
	}
	*ret_pid = pid;
	return 0;
}

static int set_timeouts(int fd, struct err *e)
{
	const struct timeval limit = {.tv_sec = ANSWER_SECONDS};
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return err_sys(e, ERR_FATAL, "setsockopt");
	return 0;
}

static int child_spawn(const char *const *argv, struct child *ret, struct err *e)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_sys(e, ERR_RETRY, "socketpair");
	AUTO(fd_auto) int ours = ends[0];
	AUTO(fd_auto) int theirs = ends[1];
	if (set_timeouts(ours, e) < 0 ||
		(argv ? spawn_program(argv, theirs, &ret->pid, e) : spawn_fork(theirs, &ret->pid, e)) < 0)
		return -1;
	ret->fd = TAKE_FD(ours);
	return 0;
}

/* The signer keeps nothing that is not on disk, so it is not asked to end. */
static void child_end(struct child *c)
{
	if (c->fd < 0)
		return;
	close(c->fd);
	c->fd = -1;
	kill(c->pid, SIGKILL);
	while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* --- one request, one answer --- */

/* Below it, in *e, is what the signer said. */
static int read_answer(int fd, uint32_t id, struct signer_message *answer, bool *ret_broken, struct err *e)
{
	*ret_broken = true;
	int result = signer_receive(fd, answer, e);
	if (result == SIGNER_ENDED)
		return err_set(e, ERR_RETRY, "the signer ended");
	if (result < 0)
		return -1;
	if (answer->id != id || (answer->type != SIGNER_DONE && answer->type != SIGNER_FAILED))
		return err_set(e, ERR_RETRY, "the signer answered something else");
	*ret_broken = false;
	return answer->type == SIGNER_DONE ? 0 : signer_error_decode(buf_str(&answer->payload), e);
}

/* *ret_broken: the signer must be replaced. */
static int exchange(int fd, enum signer_type type, uint32_t id, struct str payload,
	struct signer_message *answer, bool *ret_broken, struct err *e)
{
	*ret_broken = true;
	if (signer_send(fd, type, id, payload, e) < 0)
		return -1;
	return read_answer(fd, id, answer, ret_broken, e);
}

/* Starts a signer and sets it up; its answer's payload, where wanted, goes to *ret_answer. */
static int child_start(const char *const *argv, enum signer_type type, struct str setup, struct child *ret,
	struct buf *ret_answer, struct err *e)
{
	struct child child = {.fd = -1};
	struct signer_message answer;
	bool broken;
	if (child_spawn(argv, &child, e) < 0)
		return -1;
	signer_message_init(&answer);
	int result = exchange(child.fd, type, 0, setup, &answer, &broken, e);
	if (result == 0 && ret_answer) {
		buf_add_str(ret_answer, buf_str(&answer.payload));
		result = buf_check(ret_answer, e);
	}
	signer_message_clear(&answer);
	if (result < 0) {
		child_end(&child);
		return -1;
	}
	*ret = child;
	return 0;
}

/* An idle signer says nothing: whatever can be read means that it must go. */
static bool has_ended(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT);
	return n >= 0 || (errno != EAGAIN && errno != EINTR);
}

static int need_child(struct ca *ca, struct err *e)
{
	if (ca->child.fd >= 0 && !has_ended(ca->child.fd))
		return 0;
	child_end(&ca->child);
	return child_start(ca->options.signer_argv, SIGNER_OPEN, buf_str(&ca->setup), &ca->child, NULL, e);
}

/* Under the lock. The answer is in ca->answer; *ret_died: the signer ended over this request. */
static int ask_once(struct ca *ca, enum signer_type type, struct str payload, bool *ret_died, struct err *e)
{
	bool broken;
	*ret_died = false;
	if (need_child(ca, e) < 0)
		return -1;
	int result = exchange(ca->child.fd, type, ++ca->last_id, payload, &ca->answer, &broken, e);
	if (result < 0 && broken) {
		*ret_died = has_ended(ca->child.fd);
		child_end(&ca->child);
	}
	return result;
}

static int ask_locked(struct ca *ca, enum signer_type type, struct str payload, struct err *e)
{
	bool died;
	int result = ask_once(ca, type, payload, &died, e);
	return result < 0 && died ? ask_once(ca, type, payload, &died, e) : result;
}

static int ask(
	struct ca *ca, enum signer_type type, struct str payload, struct buf *ret_answer, struct err *e)
{
	pthread_mutex_lock(&ca->lock);
	int result = ask_locked(ca, type, payload, e);
	if (result == 0)
		buf_add_str(ret_answer, buf_str(&ca->answer.payload));
	pthread_mutex_unlock(&ca->lock);
	return result < 0 ? -1 : buf_check(ret_answer, e);
}

/* --- init, open, close --- */

static struct str or_default(const char *text, const char *otherwise)
{
	return str_of(text ? text : otherwise);
}

static bool clock_is_fake(const struct clock *clock)
{
	return clock != &clock_system;
}

/* Only a fake clock's time travels to the signer. */
static struct wall time_to_send(const struct clock *clock)
{
	return clock_is_fake(clock) ? clock_wall(clock) : (struct wall){0};
}

/* What differs between setups. */
struct setup_extra {
	struct ca_root_key root_key;
	struct str issuer;
};

static int encode_setup(
	const struct ca_options *o, const struct setup_extra *extra, struct buf *out, struct err *e)
{
	const struct signer_setup setup = {.dir = str_of(o->dir),
		.trust_domain = str_of(o->trust_domain),
		.public_url = or_default(o->public_url, ""),
		.user = or_default(o->signer_user, ""),
		.passphrase_file = or_default(o->key_passphrase_file, ""),
		.root_key_type = or_default(o->root_key_type, "rsa:4096"),
		.issuing_key_type = or_default(o->issuing_key_type, "ec:P-256"),
		.backdate_ms = o->backdate_ms,
		.max_days = o->max_days,
		.caller_time = clock_is_fake(o->clock),
		.now = time_to_send(o->clock),
		.root_pem = extra->root_key.pem,
		.root_passphrase = extra->root_key.passphrase,
		.issuer = extra->issuer};
	if (setup.dir.n > SIGNER_PATH_BYTES_MAX || setup.passphrase_file.n > SIGNER_PATH_BYTES_MAX ||
		setup.user.n > SIGNER_USER_BYTES_MAX || !identity_name_valid(setup.trust_domain))
		return err_set(e, ERR_REJECT,
			"CA: a path or the signer's user is too long, or the trust domain is malformed");
	if (setup.public_url.n && !build_public_url_valid(setup.public_url))
		return err_set(e, ERR_REJECT,
			"'%s' is not a URL for certificates: http:// or https://, host, maybe port and path; no '/' at the end",
			o->public_url);
	if (setup.root_pem.n > SIGNER_PEM_BYTES_MAX || setup.root_passphrase.n > SIGNER_PASSPHRASE_BYTES_MAX)
		return err_set(e, ERR_REJECT, "the root's key or its passphrase is too long");
	signer_setup_encode(&setup, out);
	return buf_check(out, e);
}

/* A signer that does one thing and ends. */
static int run_once(const struct ca_options *o, enum signer_type type, const struct setup_extra *extra,
	struct buf *ret_answer, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf setup;
	struct child child;
	buf_init(&setup, SIGNER_FRAME_BYTES);
	if (encode_setup(o, extra, &setup, e) < 0 ||
		child_start(o->signer_argv, type, buf_str(&setup), &child, ret_answer, e) < 0)
		return -1;
	child_end(&child);
	return 0;
}

static const struct setup_extra nothing_extra;

int ca_init(const struct ca_options *o, struct err *e)
{
	return run_once(o, SIGNER_INIT, &nothing_extra, NULL, e);
}

/* Its strings, but signer_argv. */
static const size_t option_texts[] = {offsetof(struct ca_options, dir),
	offsetof(struct ca_options, trust_domain), offsetof(struct ca_options, key_passphrase_file),
	offsetof(struct ca_options, signer_user), offsetof(struct ca_options, public_url),
	offsetof(struct ca_options, root_key_type), offsetof(struct ca_options, issuing_key_type)};

static const char **option_text(struct ca_options *o, size_t i)
{
	return (const char **)(void *)((char *)o + option_texts[i]);
}

/* On failure, those that were copied can still be freed. */
static int options_copy(struct ca_options *to, const struct ca_options *from, struct err *e)
{
	bool copied = true;
	*to = *from;
	for (size_t i = 0; i < ARRAY_LEN(option_texts); i++) {
		const char **text = option_text(to, i);
		if (*text)
			copied &= (*text = strdup(*text)) != NULL;
	}
	return copied ? 0 : err_oom(e);
}

static void options_clear(struct ca_options *o)
{
	for (size_t i = 0; i < ARRAY_LEN(option_texts); i++)
		free((char *)(uintptr_t)*option_text(o, i));
}

/* Reads the certificates anew. */
static int refresh_public(struct ca *ca, struct err *e)
{
	struct ca_public *fresh;
	if (public_read(ca->options.dir, &fresh, e) < 0)
		return -1;
	fresh->older = atomic_load(&ca->public);
	while (!atomic_compare_exchange_weak(&ca->public, &fresh->older, fresh))
		;
	return 0;
}

int ca_open(const struct ca_options *o, struct ca **ret, struct err *e)
{
	struct ca *ca = calloc(1, sizeof(*ca));
	if (!ca)
		return err_oom(e);
	ca->child.fd = -1;
	buf_init(&ca->setup, SIGNER_FRAME_BYTES);
	signer_message_init(&ca->answer);
	pthread_mutex_init(&ca->change_lock, NULL);
	pthread_mutex_init(&ca->lock, NULL);
	if (options_copy(&ca->options, o, e) < 0 || refresh_public(ca, e) < 0 ||
		encode_setup(o, &nothing_extra, &ca->setup, e) < 0 || need_child(ca, e) < 0) {
		ca_close(ca);
		return -1;
	}
	*ret = ca;
	return 0;
}

void ca_close(struct ca *ca)
{
	if (!ca)
		return;
	child_end(&ca->child);
	signer_message_clear(&ca->answer);
	for (struct ca_public *p = atomic_load(&ca->public), *older; p; p = older) {
		older = p->older;
		public_free(p);
	}
	options_clear(&ca->options);
	buf_clear(&ca->setup);
	pthread_mutex_destroy(&ca->lock);
	pthread_mutex_destroy(&ca->change_lock);
	free(ca);
}

/* Puts another signer in place of the running one. */
static int replace_child(struct ca *ca, struct err *e)
{
	pthread_mutex_lock(&ca->lock);
	child_end(&ca->child);
	int result = need_child(ca, e);
	pthread_mutex_unlock(&ca->lock);
	return result;
}

int ca_reload(struct ca *ca, const struct ca_options *o, struct err *e)
{
	AUTO(buf_auto) struct buf setup;
	buf_init(&setup, SIGNER_FRAME_BYTES);
	if (encode_setup(o, &nothing_extra, &setup, e) < 0)
		return -1;
	pthread_mutex_lock(&ca->lock);
	bool same = str_eq(buf_str(&setup), buf_str(&ca->setup));
	if (!same) {
		struct buf old = ca->setup;
		ca->setup = setup;
		setup = old;
		child_end(&ca->child);
	}
	int result = need_child(ca, e);
	pthread_mutex_unlock(&ca->lock);
	return result;
}

/* --- what is public --- */

size_t ca_issuers(const struct ca *ca, const struct ca_issuer **ret)
{
	const struct ca_public *public = atomic_load(&ca->public);
	*ret = public->issuers;
	return public->issuer_count;
}

const struct ca_issuer *ca_issuer_find(const struct ca *ca, const uint8_t key_id[IDENTITY_KEY_ID_BYTES])
{
	return public_find(atomic_load(&ca->public), key_id);
}

struct str ca_bundle(const struct ca *ca)
{
	return buf_str(&atomic_load(&ca->public)->bundle);
}

struct str ca_issuing_pem(const struct ca *ca)
{
	return atomic_load(&ca->public)->issuers[0].pem;
}

const uint8_t *ca_issuing_key_id(const struct ca *ca)
{
	return atomic_load(&ca->public)->issuers[0].key_id;
}

struct wall ca_issuing_not_after(const struct ca *ca)
{
	return atomic_load(&ca->public)->issuers[0].not_after;
}

struct wall ca_root_not_after(const struct ca *ca)
{
	return atomic_load(&ca->public)->root_not_after;
}

bool ca_has_root_key(const struct ca *ca)
{
	const struct ca_files files = {.dir = ca->options.dir};
	return files_has(&files, ca_root_key);
}

int ca_signer_pid(struct ca *ca)
{
	pthread_mutex_lock(&ca->lock);
	int pid = ca->child.pid;
	pthread_mutex_unlock(&ca->lock);
	return pid;
}

/* --- changes --- */

/* A change of issuing CAs. Where the child was stopped half way, what is on disk is still whole, and may be the new
 * state: it is taken over in any case. */
static int change_issuers(
	struct ca *ca, enum signer_type type, const struct setup_extra *extra, struct err *e)
{
	struct err ignored = ERR_INIT;
	pthread_mutex_lock(&ca->change_lock);
	int result = run_once(&ca->options, type, extra, NULL, e);
	bool taken = refresh_public(ca, result < 0 ? &ignored : e) == 0 &&
		     replace_child(ca, result < 0 ? &ignored : e) == 0;
	pthread_mutex_unlock(&ca->change_lock);
	return result == 0 && taken ? 0 : -1;
}

int ca_rotate(struct ca *ca, const struct ca_root_key *root_key, struct err *e)
{
	const struct setup_extra extra = {.root_key = root_key ? *root_key : (struct ca_root_key){{0}, {0}}};
	return change_issuers(ca, SIGNER_ROTATE, &extra, e);
}

int ca_retire(struct ca *ca, const uint8_t key_id[IDENTITY_KEY_ID_BYTES], struct err *e)
{
	char id[CA_ID_BYTES];
	hex_encode(key_id, IDENTITY_KEY_ID_BYTES, id);
	const struct setup_extra extra = {.issuer = str_of(id)};
	return change_issuers(ca, SIGNER_RETIRE, &extra, e);
}

static int change_keys(struct ca *ca, enum signer_type type, const struct setup_extra *extra,
	struct buf *ret_answer, struct err *e)
{
	pthread_mutex_lock(&ca->change_lock);
	int result = run_once(&ca->options, type, extra, ret_answer, e);
	pthread_mutex_unlock(&ca->change_lock);
	return result;
}

int ca_rekey(struct ca *ca, struct err *e)
{
	return change_keys(ca, SIGNER_REKEY, &nothing_extra, NULL, e);
}

int ca_export_root(struct ca *ca, struct str passphrase, struct buf *ret_pem, struct err *e)
{
	const struct setup_extra extra = {.root_key.passphrase = passphrase};
	return change_keys(ca, SIGNER_EXPORT_ROOT, &extra, ret_pem, e);
}

int ca_remove_root(struct ca *ca, const struct ca_root_key *copy, struct err *e)
{
	const struct setup_extra extra = {.root_key = *copy};
	return change_keys(ca, SIGNER_REMOVE_ROOT, &extra, NULL, e);
}

int ca_import_root(struct ca *ca, const struct ca_root_key *copy, struct err *e)
{
	const struct setup_extra extra = {.root_key = *copy};
	return change_keys(ca, SIGNER_IMPORT_ROOT, &extra, NULL, e);
}

/* --- requests --- */

/* A signer that was started in the middle of a rotation may know an issuing CA that we have not read yet. */
static int find_issuer(struct ca *ca, struct ca_issued *issued, struct err *e)
{
	const uint8_t *key_id = issued->identity.issuer_key_id;
	const struct ca_issuer *issuer = ca_issuer_find(ca, key_id);
	if (!issuer) {
		if (refresh_public(ca, e) < 0)
			return -1;
		issuer = ca_issuer_find(ca, key_id);
	}
	if (!issuer)
		return err_set(e, ERR_FATAL, "the signer's certificate has an unknown issuer");
	issued->issuer_pem = issuer->pem;
	return 0;
}

/* From the DER: PEM, the identity, the issuer. */
static int fill_issued(struct ca *ca, struct ca_issued *issued, struct err *e)
{
	const unsigned char *at = (const unsigned char *)issued->der.p;
	AUTO(X509_free_auto) X509 *cert = d2i_X509(NULL, &at, (long)issued->der.n);
	const char *rule;
	if (!cert)
		return err_openssl(e, ERR_FATAL, "read the signer's certificate");
	if (identity_of(cert, NULL, &issued->identity, &rule, e) < 0 || find_issuer(ca, issued, e) < 0)
		return -1;
	return x509_write_pem(cert, &issued->pem, e);
}

int ca_issue(struct ca *ca, const struct ca_request *request, struct ca_issued *ret, struct err *e)
{
	struct ca_issued issued = {0};
	AUTO(buf_auto) struct buf payload;
	buf_init(&payload, SIGNER_MESSAGE_BYTES_MAX);
	buf_init(&issued.der, CERT_BYTES_MAX);
	buf_init(&issued.pem, CERT_BYTES_MAX);
	if (signer_issue_encode(request, time_to_send(ca->options.clock), &payload, e) < 0 ||
		ask(ca, SIGNER_ISSUE, buf_str(&payload), &issued.der, e) < 0 ||
		fill_issued(ca, &issued, e) < 0) {
		ca_issued_clear(&issued);
		return -1;
	}
	*ret = issued;
	return 0;
}

void ca_issued_clear(struct ca_issued *i)
{
	buf_clear(&i->der);
	buf_clear(&i->pem);
}

static int revoked_of(const struct ca_revoked *from, struct build_revoked *ret, struct err *e)
{
	if (from->serial_bytes == 0 || from->serial_bytes > IDENTITY_SERIAL_BYTES || from->serial[0] == 0)
		return err_set(e, ERR_REJECT, "CRL: malformed serial number");
	if (!ca_reason_parse(from->reason, &ret->reason))
		return err_set(e, ERR_REJECT, "CRL: unknown reason '%.*s'", STR_ARG(from->reason));
	memcpy(ret->serial, from->serial, sizeof(ret->serial));
	ret->serial_bytes = from->serial_bytes;
	ret->at = from->at;
	return 0;
}

static int encode_crl(
	const struct signer_crl *crl, const struct ca_revoked *entries, struct buf *out, struct err *e)
{
	for (size_t i = 0; i < crl->count; i++)
		if (revoked_of(&entries[i], &crl->entries[i], e) < 0)
			return -1;
	return signer_crl_encode(crl, out, e);
}

int ca_crl(struct ca *ca, const uint8_t issuer_key_id[IDENTITY_KEY_ID_BYTES],
	const struct ca_revoked *entries, size_t count, int64_t valid_days, struct buf *ret_der,
	struct err *e)
{
	AUTO(buf_auto) struct buf payload;
	struct signer_crl crl = {.now = time_to_send(ca->options.clock),
		.valid_days = valid_days,
		.entries = calloc(count ? count : 1, sizeof(*crl.entries)),
		.count = count};
	memcpy(crl.issuer_key_id, issuer_key_id, sizeof(crl.issuer_key_id));
	buf_init(&payload, SIGNER_MESSAGE_BYTES_MAX);
	int result = crl.entries ? encode_crl(&crl, entries, &payload, e) : err_oom(e);
	signer_crl_clear(&crl);
	return result < 0 ? -1 : ask(ca, SIGNER_CRL, buf_str(&payload), ret_der, e);
}
