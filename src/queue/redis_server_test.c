/* redis_server_test.c - see redis_server_test.h. */
#include "queue/redis_server_test.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/scratch_test.h"
#include "queue/redis_link.h"

static struct redis_server {
	pid_t pid;
	char directory[32], socket[48], url[56];
} redis_server;

bool redis_server_exists(void)
{
	const char *path = getenv("PATH");
	char file[512];
	for (struct str rest = str_of(path), one; rest.n;) {
		if (!str_cut(&rest, ':', &one))
			one = rest, rest.n = 0;
		snprintf(file, sizeof(file), "%.*s/redis-server", STR_ARG(one));
		if (access(file, X_OK) == 0)
			return true;
	}
	return false;
}

static struct redis_link *connect_to_server(void)
{
	struct redis_place place = {.unix_path = redis_server.socket};
	struct redis_link *link = NULL;
	return redis_link_open(&place, 1000, &link, NULL) == 0 ? link : NULL;
}

bool redis_server_run(const struct buf *command)
{
	struct redis_link *link = connect_to_server();
	redisReply *reply = NULL;
	bool ok = link && redis_link_send(link, buf_str(command), 10000, NULL) == 0 &&
		  redis_link_reply(link, &reply, NULL) == 0 && reply->type != REDIS_REPLY_ERROR;
	freeReplyObject(reply);
	redis_link_close(link);
	return ok;
}

static void end_server(void)
{
	if (!redis_server.pid)
		return;
	kill(redis_server.pid, SIGKILL);
	waitpid(redis_server.pid, NULL, 0);
	redis_server.pid = 0;
	nftw(redis_server.directory, scratch_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static _Noreturn void run_server(void)
{
	int null = open("/dev/null", O_RDWR);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(null, STDOUT_FILENO);
	execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", redis_server.socket, "--dir",
		redis_server.directory, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
		"--enable-debug-command", "yes", NULL);
	_exit(127);
}

bool redis_server_do(const char *const *words)
{
	struct buf command;
	size_t count = 0;
	while (words[count])
		count++;
	buf_init(&command, 1 << 20);
	redis_command(&command, count);
	for (size_t i = 0; i < count; i++)
		redis_word(&command, str_of(words[i]));
	bool ok = redis_server_run(&command);
	buf_clear(&command);
	return ok;
}

const char *redis_server_url(void)
{
	struct redis_server *s = &redis_server;
	if (s->pid)
		return s->url;
	snprintf(s->directory, sizeof(s->directory), "%s/sealpost-redis-XXXXXX",
		access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(s->directory));
	snprintf(s->socket, sizeof(s->socket), "%.31s/socket", s->directory);
	snprintf(s->url, sizeof(s->url), "unix://%.47s", s->socket);
	s->pid = fork();
	if (s->pid == 0)
		run_server();
	assert_true(s->pid > 0);
	atexit(end_server);
	for (unsigned i = 0; !REDIS_SERVER_DO("PING"); i++) {
		assert_true(i < 1000);
		poll(NULL, 0, 10);
	}
	return s->url;
}
