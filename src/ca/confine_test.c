/* confine_test.c - each forbidden act is tried by a child of its own that has locked itself in, and must die
 * of it. */
#include "ca/confine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEPT_FD = 3, SETUP_FAILED = 99, PAGE_BYTES = 4096, WORK_BYTES = 4 * 1024 * 1024 };

static void open_file(void)
{
	close(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static void make_socket(void)
{
	close(socket(AF_INET, SOCK_STREAM, 0));
}

static void make_pair(void)
{
	int ends[2];
	(void)!socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
}

static void run_program(void)
{
	(void)!execl("/bin/true", "true", NULL);
}

static void start_process(void)
{
	(void)!fork();
}

static void signal_parent(void)
{
	(void)!kill(getppid(), 0);
}

static void trace_parent(void)
{
	(void)!ptrace(PTRACE_ATTACH, 1, NULL, NULL);
}

static void map_code(void)
{
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, 0, 0);
	munmap(page, PAGE_BYTES);
}

static void make_code(void)
{
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, 0, 0);
	(void)!mprotect(page, PAGE_BYTES, PROT_READ | PROT_EXEC);
}

static void remove_file(void)
{
	(void)!unlink("/nonexistent");
}

static void receive_descriptor(void)
{
	struct msghdr message = {0};
	(void)!recvmsg(KEPT_FD, &message, 0);
}

/* What the signer does all day. */
static void work(void)
{
	char byte;
	(void)!getrandom(&byte, 1, 0);
	char *memory = malloc(WORK_BYTES);
	if (!memory)
		_exit(1);
	memset(memory, 1, WORK_BYTES);
	free(memory);
	(void)!recv(KEPT_FD, &byte, 1, MSG_DONTWAIT);
	(void)!send(KEPT_FD, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)!pwrite(KEPT_FD, &byte, 1, 0);
	(void)!fdatasync(KEPT_FD);
}

/* Wait status of a child that locks itself in and then acts. */
static int status_of(void (*act)(void))
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct err e;
		if (dup2(STDERR_FILENO, KEPT_FD) < 0 || confine_process("confined", KEPT_FD, &e) < 0 ||
			confine_system_calls(&e) < 0)
			_exit(SETUP_FAILED);
		act();
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_forbidden(void **state)
{
	static const struct {
		const char *name;
		void (*act)(void);
	} cases[] = {
		{"open a file", open_file},
		{"make a socket", make_socket},
		{"make a pair", make_pair},
		{"run a program", run_program},
		{"start a process", start_process},
		{"signal a process", signal_parent},
		{"trace a process", trace_parent},
		{"map code", map_code},
		{"make memory executable", make_code},
		{"remove a file", remove_file},
		{"receive a descriptor", receive_descriptor},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int status = status_of(cases[i].act);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("%s: status %x", cases[i].name, (unsigned)status);
	}
}

static void test_allowed(void **state)
{
	int status = status_of(work);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void probe_descriptors(void)
{
	/* fcntl is not allowed any more; writing nothing tells the same. */
	if (write(KEPT_FD + 1, "", 0) == 0)
		_exit(1);
	_exit(write(KEPT_FD, "", 0) == 0 ? 0 : 2);
}

static void test_descriptors_are_closed(void **state)
{
	int other = dup(STDERR_FILENO);
	while (other >= 0 && other < KEPT_FD + 1)
		other = dup(STDERR_FILENO);
	int status = status_of(probe_descriptors);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_descriptors_are_closed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
