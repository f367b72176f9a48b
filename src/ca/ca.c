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
 * unnoticed; when it dies over a request, the caller gets ERR_RETRY, because a request that kills signers
 * should not do so twice. */
#include "ca/ca.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/file.h"
#include "ca/signer_protocol.h"

enum {
	BUNDLE_BYTES_MAX = 64 * 1024,
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
	struct buf bundle, issuing_pem;
	uint8_t issuing_key_id[IDENTITY_KEY_ID_BYTES];
	struct wall issuing_not_after, root_not_after;
	char *crl_path;
	const struct clock *clock;
	const char *const *signer_argv;
	struct buf setup;     /* what every new signer is told first */
	pthread_mutex_t lock; /* guards what follows */
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

/* Starts a signer and sets it up; `type` is SIGNER_INIT or SIGNER_OPEN. */
static int child_start(
	const char *const *argv, enum signer_type type, struct str setup, struct child *ret, struct err *e)
{
	struct child child = {.fd = -1};
	struct signer_message answer;
	bool broken;
	if (child_spawn(argv, &child, e) < 0)
		return -1;
	signer_message_init(&answer);
	int result = exchange(child.fd, type, 0, setup, &answer, &broken, e);
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
	return child_start(ca->signer_argv, SIGNER_OPEN, buf_str(&ca->setup), &ca->child, e);
}

/* Under the lock. The answer is in ca->answer. */
static int ask_locked(struct ca *ca, enum signer_type type, struct str payload, struct err *e)
{
	bool broken;
	if (need_child(ca, e) < 0)
		return -1;
	int result = exchange(ca->child.fd, type, ++ca->last_id, payload, &ca->answer, &broken, e);
	if (result < 0 && broken)
		child_end(&ca->child);
	return result;
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

static int encode_setup(const struct ca_options *o, struct buf *out, struct err *e)
{
	const struct signer_setup setup = {.dir = str_of(o->dir),
		.trust_domain = str_of(o->trust_domain),
		.passphrase_file = or_default(o->key_passphrase_file, ""),
		.root_key_type = or_default(o->root_key_type, "rsa:4096"),
		.issuing_key_type = or_default(o->issuing_key_type, "ec:P-256"),
		.backdate_ms = o->backdate_ms,
		.max_days = o->max_days,
		.caller_time = clock_is_fake(o->clock),
		.now = time_to_send(o->clock)};
	if (setup.dir.n > SIGNER_PATH_BYTES_MAX || setup.passphrase_file.n > SIGNER_PATH_BYTES_MAX ||
		!identity_name_valid(setup.trust_domain))
		return err_set(e, ERR_REJECT, "CA: a path is too long, or the trust domain is malformed");
	signer_setup_encode(&setup, out);
	return buf_check(out, e);
}

int ca_init(const struct ca_options *o, struct err *e)
{
	AUTO(buf_auto) struct buf setup;
	struct child child;
	buf_init(&setup, SIGNER_FRAME_BYTES);
	if (encode_setup(o, &setup, e) < 0 ||
		child_start(o->signer_argv, SIGNER_INIT, buf_str(&setup), &child, e) < 0)
		return -1;
	child_end(&child);
	return 0;
}

static int read_text(const char *dir, const char *name, struct buf *ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(dir, name);
	return path ? file_read(path, BUNDLE_BYTES_MAX, ret, e) : err_oom(e);
}

static int read_cert(const char *dir, const char *name, X509 **ret, struct err *e)
{
	AUTO(free_auto) char *path = path_join(dir, name);
	AUTO(x509_stack_free_auto) STACK_OF(X509) *found = NULL;
	if (!path)
		return err_oom(e);
	if (x509_read_file(path, &found, e) < 0)
		return -1;
	*ret = sk_X509_shift(found);
	return 0;
}

static int key_id_of(X509 *cert, uint8_t ret[IDENTITY_KEY_ID_BYTES], struct err *e)
{
	const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(cert);
	if (!id || ASN1_STRING_length(id) != IDENTITY_KEY_ID_BYTES)
		return err_set(e, ERR_FATAL, "CA: issuing.pem has no subject key identifier of %d octets",
			IDENTITY_KEY_ID_BYTES);
	memcpy(ret, ASN1_STRING_get0_data(id), IDENTITY_KEY_ID_BYTES);
	return 0;
}

/* What may be read without the signer. */
static int read_public(struct ca *ca, const char *dir, struct err *e)
{
	AUTO(X509_free_auto) X509 *root = NULL;
	AUTO(X509_free_auto) X509 *issuing = NULL;
	if (read_text(dir, "ca.pem", &ca->bundle, e) < 0 ||
		read_text(dir, "issuing.pem", &ca->issuing_pem, e) < 0 ||
		read_cert(dir, "root.pem", &root, e) < 0 || read_cert(dir, "issuing.pem", &issuing, e) < 0 ||
		key_id_of(issuing, ca->issuing_key_id, e) < 0)
		return -1;
	if (!wall_of_asn1(X509_get0_notAfter(root), &ca->root_not_after) ||
		!wall_of_asn1(X509_get0_notAfter(issuing), &ca->issuing_not_after))
		return err_set(e, ERR_FATAL, "CA: a certificate in '%s' has no readable end", dir);
	return 0;
}

int ca_open(const struct ca_options *o, struct ca **ret, struct err *e)
{
	struct ca *ca = calloc(1, sizeof(*ca));
	if (!ca)
		return err_oom(e);
	ca->clock = o->clock;
	ca->signer_argv = o->signer_argv;
	ca->child.fd = -1;
	buf_init(&ca->bundle, BUNDLE_BYTES_MAX);
	buf_init(&ca->issuing_pem, BUNDLE_BYTES_MAX);
	buf_init(&ca->setup, SIGNER_FRAME_BYTES);
	signer_message_init(&ca->answer);
	pthread_mutex_init(&ca->lock, NULL);
	ca->crl_path = path_join(o->dir, "crl.der");
	if (!ca->crl_path) {
		ca_close(ca);
		return err_oom(e);
	}
	if (read_public(ca, o->dir, e) < 0 || encode_setup(o, &ca->setup, e) < 0 || need_child(ca, e) < 0) {
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
	buf_clear(&ca->bundle);
	buf_clear(&ca->issuing_pem);
	buf_clear(&ca->setup);
	free(ca->crl_path);
	pthread_mutex_destroy(&ca->lock);
	free(ca);
}

struct str ca_bundle(const struct ca *ca)
{
	return buf_str(&ca->bundle);
}

struct str ca_issuing_pem(const struct ca *ca)
{
	return buf_str(&ca->issuing_pem);
}

const uint8_t *ca_issuing_key_id(const struct ca *ca)
{
	return ca->issuing_key_id;
}

struct wall ca_issuing_not_after(const struct ca *ca)
{
	return ca->issuing_not_after;
}

struct wall ca_root_not_after(const struct ca *ca)
{
	return ca->root_not_after;
}

const char *ca_crl_path(const struct ca *ca)
{
	return ca->crl_path;
}

int ca_signer_pid(struct ca *ca)
{
	pthread_mutex_lock(&ca->lock);
	int pid = ca->child.pid;
	pthread_mutex_unlock(&ca->lock);
	return pid;
}

/* --- requests --- */

static int write_pem(X509 *cert, struct buf *out, struct err *e)
{
	AUTO(BIO_free_all_auto) BIO *bio = BIO_new(BIO_s_mem());
	if (!bio || !PEM_write_bio_X509(bio, cert))
		return err_openssl(e, ERR_FATAL, "write a certificate");
	char *text;
	long n = BIO_get_mem_data(bio, &text);
	buf_add(out, text, (size_t)n);
	return buf_check(out, e);
}

/* From the DER: PEM and the identity. */
static int fill_issued(struct ca_issued *issued, struct err *e)
{
	const unsigned char *at = (const unsigned char *)issued->der.p;
	AUTO(X509_free_auto) X509 *cert = d2i_X509(NULL, &at, (long)issued->der.n);
	const char *rule;
	if (!cert)
		return err_openssl(e, ERR_FATAL, "read the signer's certificate");
	if (identity_of(cert, NULL, &issued->identity, &rule, e) < 0)
		return -1;
	return write_pem(cert, &issued->pem, e);
}

int ca_issue(struct ca *ca, const struct ca_request *request, struct ca_issued *ret, struct err *e)
{
	struct ca_issued issued = {0};
	AUTO(buf_auto) struct buf payload;
	buf_init(&payload, SIGNER_MESSAGE_BYTES_MAX);
	buf_init(&issued.der, CERT_BYTES_MAX);
	buf_init(&issued.pem, CERT_BYTES_MAX);
	if (signer_issue_encode(request, time_to_send(ca->clock), &payload, e) < 0 ||
		ask(ca, SIGNER_ISSUE, buf_str(&payload), &issued.der, e) < 0 || fill_issued(&issued, e) < 0) {
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

int ca_crl(struct ca *ca, const struct ca_revoked *entries, size_t count, int64_t valid_days,
	struct buf *ret_der, struct err *e)
{
	AUTO(buf_auto) struct buf payload;
	struct signer_crl crl = {
		time_to_send(ca->clock), valid_days, calloc(count ? count : 1, sizeof(*crl.entries)), count};
	buf_init(&payload, SIGNER_MESSAGE_BYTES_MAX);
	int result = crl.entries ? encode_crl(&crl, entries, &payload, e) : err_oom(e);
	signer_crl_clear(&crl);
	return result < 0 ? -1 : ask(ca, SIGNER_CRL, buf_str(&payload), ret_der, e);
}
