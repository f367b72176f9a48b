/* renew.c - sealpost renew: the next certificate, by mutual TLS with the one that is there (RFC 7030
 * simplereenroll). Once by hand or from a timer, or as a service that waits until it is due.
 *
 * The server is believed because a root in ca.pem vouches for it. What it names as its CA's certificates goes
 * into ca.pem as far as a root that was there before vouches for it, so a device follows its CA to a new
 * issuing certificate by itself. */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "ca/ca.h"
#include "cli/cli.h"
#include "cli/est.h"
#include "cli/pair.h"
#include "cli/schedule.h"
#include "tls/certs_only.h"
#include "tls/identity.h"

enum {
	FILE_BYTES = 1 << 20,
	KEY_BYTES = 16 * 1024,
	TIMEOUT_S = 30,
	TIMEOUT_S_MAX = 3600,
	LOOK_MS = 60 * 1000
};

struct renewal {
	const char *cert_path, *key_path, *ca_path, *url, *run, *textfile;
	const char *key_type; /* of a new key; NULL: the usual one */
	int64_t timeout_s;
	bool force, watch, reuse_key;
	bool untold; /* renewed, but the program that sends does not know it yet */

	/* of what is there now */
	struct wall not_before, not_after;
	char name[IDENTITY_NAME_BYTES];

	/* of the service */
	unsigned failures; /* in a row */
	struct wall renewed_at;
};

/* --- what is there --- */

static int look(struct renewal *r, struct err *e)
{
	AUTO(x509_stack_free_auto) STACK_OF(X509) *chain = NULL;
	struct identity id;
	const char *rule;
	if (x509_read_file(r->cert_path, &chain, e) < 0)
		return -1;
	if (identity_of(sk_X509_value(chain, 0), NULL, &id, &rule, e) < 0)
		return err_context(e, "'%s'", r->cert_path);
	r->not_before = id.not_before;
	r->not_after = id.not_after;
	memcpy(r->name, id.name, sizeof(r->name));
	return 0;
}

/* --- renewing, once --- */

struct exchange {
	struct buf anchors, key_pem, chain_pem, ca_pem;
	EVP_PKEY *key;
	STACK_OF(X509) * old, *roots, *shown;
	X509 *cert;
};

static void exchange_clear(struct exchange *x)
{
	buf_clear(&x->anchors);
	buf_wipe(&x->key_pem);
	buf_clear(&x->chain_pem);
	buf_clear(&x->ca_pem);
	EVP_PKEY_free(x->key);
	X509_free(x->cert);
	x509_stack_free(x->old);
	x509_stack_free(x->roots);
	x509_stack_free(x->shown);
}

static int take_key(const struct renewal *r, struct exchange *x, struct err *e)
{
	AUTO(buf_auto) struct buf spki;
	buf_init(&spki, KEY_BYTES);
	const char *type = r->key_type ? r->key_type : "ec:P-256";
	if (r->reuse_key ? file_read(r->key_path, KEY_BYTES, &x->key_pem, e) < 0
			 : ca_generate_key(str_of(type), &x->key_pem, &spki, e) < 0)
		return -1;
	return est_key_read(buf_str(&x->key_pem), &x->key, e);
}

/* Before the server makes what could not be kept: each attempt would cost a certificate. */
static int check_writable(const struct renewal *r, struct err *e)
{
	const char *const paths[] = {r->cert_path, r->key_path};
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		const char *slash = strrchr(paths[i], '/');
		size_t n = slash && slash > paths[i] ? (size_t)(slash - paths[i]) : 1;
		AUTO(free_auto) char *dir = strndup(slash ? paths[i] : ".", n);
		if (!dir)
			return err_oom(e);
		if (access(dir, W_OK | X_OK) < 0)
			return err_sys(e, ERR_FATAL, "write to '%s'", dir);
	}
	return 0;
}

/* What is there, and whether it belongs together: libcurl would blame the server. */
static int read_old(const struct renewal *r, struct exchange *x, struct err *e)
{
	AUTO(buf_wipe_auto) struct buf pem;
	AUTO(EVP_PKEY_free_auto) EVP_PKEY *key = NULL;
	buf_init(&pem, KEY_BYTES);
	if (x509_read_file(r->cert_path, &x->old, e) < 0 || file_read(r->key_path, KEY_BYTES, &pem, e) < 0 ||
		file_read(r->ca_path, FILE_BYTES, &x->anchors, e) < 0)
		return -1;
	if (est_key_read(buf_str(&pem), &key, e) < 0)
		return err_context(e, "'%s'", r->key_path);
	if (x509_read_pem(buf_str(&x->anchors), &x->roots, e) < 0)
		return err_context(e, "'%s'", r->ca_path);
	bool fits = X509_check_private_key(sk_X509_value(x->old, 0), key) == 1;
	ERR_clear_error();
	return fits ? 0
		    : err_set(e, ERR_REJECT, "'%s' is not the private key of '%s'", r->key_path,
			      r->cert_path);
}

/* New trust first: the new certificate may be by an issuer that ca.pem does not have yet. */
static int fetch(const struct renewal *r, struct exchange *x, struct err *e)
{
	struct est_peer peer = {.url = r->url, .timeout_ms = (long)r->timeout_s * 1000};
	peer.anchors = buf_str(&x->anchors);
	if (est_cacerts(&peer, &x->shown, e) < 0 || est_trusted(x->shown, x->roots, &x->ca_pem, e) < 0)
		return -1;
	peer.cert = r->cert_path;
	peer.key = r->key_path;
	const X509_NAME *subject = X509_get_subject_name(sk_X509_value(x->old, 0));
	if (est_enroll(&peer, "simplereenroll", x->key, subject, &x->cert, e) < 0)
		return -1;
	return est_chain(x->cert, x->shown, &x->chain_pem, e);
}

static int keep(const struct renewal *r, struct exchange *x, struct err *e)
{
	if (!str_eq(buf_str(&x->ca_pem), buf_str(&x->anchors)) &&
		file_replace(r->ca_path, 0644, buf_str(&x->ca_pem), e) < 0)
		return -1;
	return pair_replace(r->cert_path, r->key_path, buf_str(&x->chain_pem), buf_str(&x->key_pem), e);
}

/* Tells the program that uses the certificate. */
static int run_hook(struct renewal *r, struct err *e)
{
	if (!r->run)
		return 0;
	char shell[] = "/bin/sh", option[] = "-c";
	char *const argv[] = {shell, option, (char *)(uintptr_t)r->run, NULL};
	sigset_t none;
	posix_spawnattr_t attributes;
	pid_t child;
	int status;
	sigemptyset(&none); /* the service blocks the signals that end it */
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	errno = posix_spawn(&child, argv[0], NULL, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	if (errno)
		return err_sys(e, ERR_FATAL, "run '%s'", r->run);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return err_sys(e, ERR_FATAL, "wait for '%s'", r->run);
	if (status != 0)
		return err_set(e, ERR_FATAL, "renewed, but '%s' failed", r->run);
	r->untold = false;
	return 0;
}

static int renew(struct renewal *r, struct err *e)
{
	struct exchange x = {.key = NULL};
	buf_init(&x.anchors, FILE_BYTES);
	buf_init(&x.key_pem, KEY_BYTES);
	buf_init(&x.chain_pem, FILE_BYTES);
	buf_init(&x.ca_pem, FILE_BYTES);
	int rc = read_old(r, &x, e);
	if (rc >= 0)
		rc = check_writable(r, e);
	if (rc >= 0)
		rc = take_key(r, &x, e);
	if (rc >= 0)
		rc = fetch(r, &x, e);
	if (rc >= 0)
		rc = keep(r, &x, e);
	exchange_clear(&x);
	if (rc < 0)
		return -1;
	r->renewed_at = clock_wall(&clock_system);
	r->untold = r->run != NULL;
	return look(r, e) < 0 ? -1 : run_hook(r, e);
}

static bool is_due(const struct renewal *r)
{
	return clock_wall(&clock_system).ms >= renewal_due(r->not_before, r->not_after).ms;
}

static int once(struct renewal *r, struct err *e)
{
	char text[RFC3339_BYTES];
	if (!r->force && !is_due(r)) {
		wall_format(renewal_due(r->not_before, r->not_after), text);
		printf("%s is not due before %s; --force renews it now\n", r->name, text);
		return 0;
	}
	if (renew(r, e) < 0)
		return -1;
	wall_format(r->not_after, text);
	printf("renewed %s until %s\n", r->name, text);
	return 0;
}

/* --- as a service --- */

/* For the textfile collector of Prometheus's node exporter; what it cannot say must not stop a renewal. */
static void write_textfile(const struct renewal *r)
{
	AUTO(buf_auto) struct buf text;
	struct err e = ERR_INIT;
	buf_init(&text, FILE_BYTES);
	if (!r->textfile)
		return;
	buf_addf(&text,
		"# HELP sealpost_renew_certificate_expiry_timestamp_seconds Unix time at which the certificate ends\n"
		"# TYPE sealpost_renew_certificate_expiry_timestamp_seconds gauge\n"
		"sealpost_renew_certificate_expiry_timestamp_seconds{name=\"%s\"} %lld\n"
		"# HELP sealpost_renew_failures Attempts to renew that failed in a row\n"
		"# TYPE sealpost_renew_failures gauge\n"
		"sealpost_renew_failures{name=\"%s\"} %u\n"
		"# HELP sealpost_renew_last_success_timestamp_seconds Unix time of the last renewal by this process, 0: none yet\n"
		"# TYPE sealpost_renew_last_success_timestamp_seconds gauge\n"
		"sealpost_renew_last_success_timestamp_seconds{name=\"%s\"} %lld\n",
		r->name, (long long)r->not_after.ms / 1000, r->name, r->failures, r->name,
		(long long)r->renewed_at.ms / 1000);
	if (buf_check(&text, &e) < 0 || file_replace(r->textfile, 0644, buf_str(&text), &e) < 0)
		log_event(LOG_WARN, "renew.textfile", LF_ERR(&e));
}

static uint64_t random_number(void)
{
	uint64_t n;
	return getrandom(&n, sizeof(n), 0) == sizeof(n) ? n : (uint64_t)clock_mono(&clock_system).ns;
}

/* Sleeps until then, in short turns: a clock that was set right, or a machine that slept, must not make it late.
 * False: told to end. */
static bool sleep_until(struct wall until, const sigset_t *ends)
{
	for (int64_t left; (left = until.ms - clock_wall(&clock_system).ms) > 0;) {
		int64_t turn = left < LOOK_MS ? left : LOOK_MS;
		struct timespec wait = {turn / 1000, turn % 1000 * 1000000};
		if (sigtimedwait(ends, NULL, &wait) > 0)
			return false;
	}
	return true;
}

/* One attempt, told to the log: the louder, the less time is left. */
static struct wall attempt(struct renewal *r)
{
	struct err e = ERR_INIT;
	char until[RFC3339_BYTES];
	/* A command that fails must not cost a certificate each time that it is tried again. */
	bool done = (r->untold && !is_due(r) ? run_hook(r, &e) : renew(r, &e)) >= 0;
	struct wall now = clock_wall(&clock_system);
	bool urgent = renewal_urgent(r->not_before, r->not_after, now);
	wall_format(r->not_after, until);
	r->force = false;
	r->failures = done ? 0 : r->failures + 1;
	if (done)
		log_event(LOG_INFO, "renew.done", LF_STR("name", r->name), LF_STR("until", until));
	else
		log_event(urgent ? LOG_ERROR : LOG_WARN, "renew.failed", LF_STR("name", r->name), LF_ERR(&e),
			LF_UINT("failures", r->failures), LF_STR("ends", until));
	return done ? renewal_start(r->not_before, r->not_after, random_number())
		    : (struct wall){now.ms + renewal_retry_ms(r->failures, random_number())};
}

/* Ends with SIGTERM or SIGINT only: what it cannot do now it may do later. */
static void watch(struct renewal *r)
{
	sigset_t ends;
	char text[RFC3339_BYTES];
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	struct wall next = renewal_start(r->not_before, r->not_after, random_number());
	if (r->force)
		next = clock_wall(&clock_system);
	do {
		write_textfile(r);
		wall_format(next, text);
		log_event(LOG_INFO, "renew.next", LF_STR("name", r->name), LF_STR("at", text));
		if (!sleep_until(next, &ends))
			break;
		next = attempt(r);
	} while (true);
	log_event(LOG_INFO, "renew.ended", LF_STR("name", r->name));
}

static int open_log(struct err *e)
{
	struct log_options o = {.level = LOG_INFO, .to_stderr = true, .clock = &clock_system};
	return log_open(&o, e);
}

int cmd_renew(int argc, char **argv)
{
	struct renewal r = {.timeout_s = TIMEOUT_S};
	const struct arg options[] = {
		{"url", ARG_TEXT, &r.url, "U", "the main server: https://HOST:8000"},
		{"cert", ARG_TEXT, &r.cert_path, "FILE", "the certificate to renew"},
		{"key", ARG_TEXT, &r.key_path, "FILE", "its private key"},
		{"ca", ARG_TEXT, &r.ca_path, "FILE", "whom to trust; brought up to date too"},
		{"force", ARG_FLAG, &r.force, NULL, "now, though it is not due"},
		{"watch", ARG_FLAG, &r.watch, NULL, "stay, and renew whenever it is due"},
		{"reuse-key", ARG_FLAG, &r.reuse_key, NULL, "keep the private key; default: a new one"},
		{"key-type", ARG_TEXT, &r.key_type, "TYPE",
			"of the new key: ec:P-256 (default), ec:P-384, ed25519, rsa:2048, …"},
		{"run", ARG_TEXT, &r.run, "COMMAND",
			"after a renewal, by the shell: tell the program that sends"},
		{"textfile", ARG_TEXT, &r.textfile, "FILE", "with --watch: metrics for a node exporter"},
		{"timeout", ARG_INT, &r.timeout_s, "SECONDS", "for each request; default 30", 1,
			TIMEOUT_S_MAX},
		{0},
	};
	struct args a = {.command = "renew",
		.usage = "--url U --cert FILE --key FILE --ca FILE [--watch] [--force]",
		.summary =
			"On a device: replaces certificate and private key by new ones when two thirds of the lifetime are\n"
			"over. Both files change in one step. The old certificate ends when the new one is first used.",
		.example = "  sealpost renew --url https://broker.example.com:8000 --cert client_001.pem \\\n"
			   "    --key client_001.key --ca ca.pem --watch",
		.options = options};
	int code;
	if (!args_parse(&a, argc, argv, &code))
		return code;
	if (!r.url || !r.cert_path || !r.key_path || !r.ca_path)
		return cli_usage_error("renew", "--url, --cert, --key and --ca are needed");
	if (r.reuse_key && r.key_type)
		return cli_usage_error("renew", "--key-type is for a new key, --reuse-key keeps the old one");
	if (r.textfile && !r.watch)
		return cli_usage_error("renew", "--textfile needs --watch");
	struct err e = ERR_INIT;
	if (look(&r, &e) < 0)
		return cli_fail("renew", &e);
	if (!r.watch)
		return once(&r, &e) < 0 ? cli_fail("renew", &e) : EXIT_DONE;
	if (open_log(&e) < 0)
		return cli_fail("renew", &e);
	watch(&r);
	log_close();
	return EXIT_DONE;
}
