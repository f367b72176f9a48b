/* kill_at.c - runs a program until it is about to make its N-th change to the world, and kills it there.
 *
 *	kill-at 0 sealpost cert issue …     runs it to its end; prints how many changes there were
 *	kill-at 17 sealpost cert issue …    kills every one of its processes before the 17th; exit code 99
 *	kill-at -17 sealpost cert issue …   kills only the process that is about to make the 17th; the rest goes on
 *
 * A change is a system call that leaves something behind: in a file, in a directory, at another process. Between two of
 * them nothing happens that anybody could find after the end, so to be killed before each of them is to be killed at every
 * system call. All threads and children count together. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/str.h"

enum { EXIT_KILLED = 99, TRACEES_MAX = 1024 };

static const long changing[] = {SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_fsync, SYS_fdatasync,
	SYS_ftruncate, SYS_truncate, SYS_fallocate, SYS_rename, SYS_renameat, SYS_renameat2, SYS_unlink,
	SYS_unlinkat, SYS_mkdir, SYS_mkdirat, SYS_rmdir, SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat,
	SYS_openat, SYS_fchmod, SYS_chmod, SYS_fchmodat, SYS_sendto, SYS_sendmsg, SYS_close, SYS_flock,
	SYS_fcntl, SYS_exit_group};

/* Threads and processes that we trace; `inside` a call, so that its end is not taken for another one. */
static struct tracee {
	pid_t id;
	bool inside;
} tracees[TRACEES_MAX];
static unsigned tracee_count;

static struct tracee *tracee_of(pid_t id)
{
	for (unsigned i = 0; i < tracee_count; i++)
		if (tracees[i].id == id)
			return &tracees[i];
	if (tracee_count == TRACEES_MAX) {
		fputs("kill-at: too many threads\n", stderr);
		exit(2);
	}
	tracees[tracee_count] = (struct tracee){.id = id};
	return &tracees[tracee_count++];
}

static bool is_change(const struct __ptrace_syscall_info *call)
{
	for (size_t i = 0; i < ARRAY_LEN(changing); i++)
		if (call->entry.nr == (unsigned long)changing[i])
			return true;
	return false;
}

static pid_t start(char **argv)
{
	pid_t pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execvp(argv[0], argv);
		perror("kill-at: exec");
		_exit(127);
	}
	return pid;
}

static void kill_all(void)
{
	for (unsigned i = 0; i < tracee_count; i++)
		kill(tracees[i].id, SIGKILL);
}

/* A tracee stopped at a system call; returns whether this is where to kill. */
static bool counts(struct tracee *t, int64_t at, int64_t *count)
{
	struct __ptrace_syscall_info call;
	t->inside = !t->inside;
	if (!t->inside || ptrace(PTRACE_GET_SYSCALL_INFO, t->id, sizeof(call), &call) <= 0 ||
		call.op != PTRACE_SYSCALL_INFO_ENTRY || !is_change(&call))
		return false;
	return ++*count == llabs(at);
}

/* The signal to deliver with the next step. */
static int signal_of(int status)
{
	int got = WSTOPSIG(status);
	bool ours = got == SIGTRAP || got == SIGSTOP || got == (SIGTRAP | 0x80);
	return ours ? 0 : got;
}

/* Until the first process has ended; its exit code. */
static int trace(pid_t first, int64_t at, int64_t *count)
{
	int status, code = EXIT_KILLED;
	for (pid_t id; (id = waitpid(-1, &status, __WALL)) > 0;) {
		struct tracee *t = tracee_of(id);
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			t->inside = false;
			if (id == first)
				code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_KILLED;
			continue;
		}
		if (WSTOPSIG(status) == (SIGTRAP | 0x80) && counts(t, at, count)) {
			if (at < 0)
				kill(id, SIGKILL);
			else
				kill_all();
			continue;
		}
		if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXEC << 8)))
			t->inside = true; /* the end of execve is still to come */
		ptrace(PTRACE_SYSCALL, id, NULL, signal_of(status));
	}
	return code;
}

int main(int argc, char **argv)
{
	int64_t at, count = 0;
	if (argc < 3 || !str_to_i64(str_of(argv[1]), &at)) {
		fputs("usage: kill-at N PROGRAM [ARGUMENT…]\n", stderr);
		return 2;
	}
	pid_t first = start(argv + 2);
	int status;
	if (first < 0 || waitpid(first, &status, 0) != first ||
		ptrace(PTRACE_SETOPTIONS, first, NULL,
			PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
				PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL) < 0) {
		perror("kill-at");
		return 2;
	}
	(void)tracee_of(first);
	ptrace(PTRACE_SYSCALL, first, NULL, 0);
	int code = trace(first, at, &count);
	if (at == 0)
		printf("%lld\n", (long long)count);
	return code;
}
