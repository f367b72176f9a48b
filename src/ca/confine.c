/* confine.c - see confine.h.
 *
 * The filter allows by list and by argument: memory may never become executable, no file can be opened, no
 * socket made, no process started or signalled. What is left of a signer that was taken over is a process
 * that can answer on its one socket.
 *
 * Not PR_SET_PDEATHSIG: it fires when the thread that started us ends, not the process; the end of the socket
 * is the reliable sign. */
#include "ca/confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PASSWD_BYTES = 4096 }; /* a line of passwd(5) */

static bool network_left;

static int close_others(int keep_fd, struct err *e)
{
	if (keep_fd > STDERR_FILENO + 1 && close_range(STDERR_FILENO + 1, (unsigned)keep_fd - 1, 0) < 0)
		return err_sys(e, ERR_FATAL, "close_range");
	if (close_range((unsigned)keep_fd + 1, ~0u, 0) < 0)
		return err_sys(e, ERR_FATAL, "close_range");
	return 0;
}

/* What a terminal or a supervisor sends to the whole group: the owner drains first, then closes our socket.
 */
static int ignore_signals(struct err *e)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		if (sigaction(ignored[i], &ignore, NULL) < 0)
			return err_sys(e, ERR_FATAL, "sigaction");
	sigset_t none;
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? err_sys(e, ERR_FATAL, "sigprocmask") : 0;
}

int confine_process(const char *name, int keep_fd, struct err *e)
{
	const struct rlimit none = {0, 0};
	if (close_others(keep_fd, e) < 0 || ignore_signals(e) < 0)
		return -1;
	if (prctl(PR_SET_NAME, name) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 ||
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(e, ERR_FATAL, "prctl");
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return err_sys(e, ERR_FATAL, "setrlimit");
	network_left = unshare(CLONE_NEWNET) == 0;
	return 0;
}

/* As getpwnam_r: *ret_found is false, with 0, for an unknown one. */
static int look_up(const char *user, struct passwd *ret, bool *ret_found)
{
	char text[PASSWD_BYTES]; /* what the pointers of *ret would point to; its numbers are all we want */
	struct passwd *found;
	int error = getpwnam_r(user, ret, text, sizeof(text), &found);
	*ret_found = error == 0 && found;
	return error;
}

bool confine_user_exists(const char *user)
{
	struct passwd entry;
	bool found;
	return look_up(user, &entry, &found) == 0 && found;
}

int confine_user(const char *user, struct err *e)
{
	struct passwd entry = {.pw_uid = 0};
	bool found;
	errno = look_up(user, &entry, &found);
	if (errno)
		return err_sys(e, ERR_FATAL, "look up the user '%s'", user);
	if (!found)
		return err_set(e, ERR_REJECT, "signer_user: there is no user '%s'", user);
	if (entry.pw_uid == 0 || entry.pw_gid == 0)
		return err_set(e, ERR_REJECT, "signer_user: '%s' is root", user);
	if (setgroups(0, NULL) < 0 || setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid) < 0 ||
		setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid) < 0)
		return err_sys(e, ERR_FATAL, "become the user '%s'", user);
	/* Another user's process may be dumpable again. */
	return prctl(PR_SET_DUMPABLE, 0) < 0 ? err_sys(e, ERR_FATAL, "prctl") : 0;
}

static bool drop_capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
	return syscall(SYS_capset, &head, none) == 0;
}

/* For a process that root did not start: an empty network in a user namespace of our own, where the system lets us; where
 * not, the filter alone denies sockets. Late, because in such a namespace files look like nobody's.
 *
 * The namespace comes with every capability within it, which must go. Otherwise there are none but ambient ones, and
 * a supervisor's filter may deny even giving them up. */
static int leave_network(struct err *e)
{
	bool in_namespace = !network_left && unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
	if (drop_capabilities() || !in_namespace)
		return 0;
	return err_sys(e, ERR_FATAL, "drop capabilities");
}

static const int allowed_calls[] = {
	/* the socket */
	SCMP_SYS(recvfrom), SCMP_SYS(sendto),
	/* the CRL number, and the last words of a failed require() */
	SCMP_SYS(pwrite64), SCMP_SYS(fdatasync), SCMP_SYS(write),
	/* memory (sysinfo: glibc's qsort asks how much there is before it sorts a large CRL) */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(madvise), SCMP_SYS(mremap), SCMP_SYS(futex),
	SCMP_SYS(sched_yield), SCMP_SYS(sysinfo),
	/* randomness (OpenSSL asks for the pid to see a fork), and time where the vDSO has none */
	SCMP_SYS(getrandom), SCMP_SYS(getpid), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),
	/* signals that are ignored, and the end (sigaltstack: AddressSanitizer, before anything that does not
	   return) */
	SCMP_SYS(sigaltstack), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(restart_syscall),
	SCMP_SYS(exit), SCMP_SYS(exit_group)};

/* Calls that map memory: only when it does not become executable. */
static const int mapping_calls[] = {SCMP_SYS(mmap), SCMP_SYS(mprotect)};
enum { MAPPING_PROT_ARGUMENT = 2 };

static int add_rules(scmp_filter_ctx filter)
{
	for (size_t i = 0; i < ARRAY_LEN(allowed_calls); i++) {
		int rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 0; i < ARRAY_LEN(mapping_calls); i++) {
		int rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, mapping_calls[i], 1,
			SCMP_CMP(MAPPING_PROT_ARGUMENT, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
		if (rc < 0)
			return rc;
	}
	return 0;
}

int confine_system_calls(struct err *e)
{
	if (leave_network(e) < 0)
		return -1;
	/* What is mapped now, as far as it is in use, the key included; not what will be mapped, as that
	 * would fail at the limit. */
	(void)!mlockall(MCL_CURRENT | MCL_ONFAULT);
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!filter)
		return err_oom(e);
	int rc = add_rules(filter);
	if (rc == 0)
		rc = seccomp_load(filter);
	seccomp_release(filter);
	if (rc == 0)
		return 0;
	errno = -rc;
	return err_sys(e, ERR_FATAL, "system call filter (seccomp)");
}
