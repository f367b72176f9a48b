/* activation.c - see activation.h. The protocol is three environment variables, so it needs no library. */
#include "cli/activation.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/str.h"

enum { FIRST_FD = 3 /* SD_LISTEN_FDS_START */, NAMES_SHOWN = 40 };

static const char *const variables[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"};

/* How many descriptors are meant for us. */
static int64_t count_for_us(void)
{
	const char *pid_text = getenv("LISTEN_PID"), *count_text = getenv("LISTEN_FDS");
	int64_t pid, count;
	if (!pid_text || !count_text || !str_to_i64(str_of(pid_text), &pid) || pid != getpid() ||
		!str_to_i64(str_of(count_text), &count))
		return 0;
	return count;
}

/* Where the descriptor of this name belongs; NULL for an unknown one. */
static int *place_of(struct app_sockets *sockets, struct str name)
{
	const struct {
		struct str name;
		int *fd;
	} places[] = {
		{STR("ingest"), &sockets->ingest},
		{STR("server"), &sockets->server},
		{STR("metrics"), &sockets->metrics},
	};
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		if (str_eq(name, places[i].name))
			return places[i].fd;
	return NULL;
}

static bool listens(int fd)
{
	int on = 0, type = 0;
	socklen_t n = sizeof(on), m = sizeof(type);
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &m) == 0 && type == SOCK_STREAM;
}

static int take_one(int fd, struct str name, struct app_sockets *ret, struct err *e)
{
	int *place = place_of(ret, name);
	if (!place || *place >= 0)
		return err_set(e, ERR_REJECT,
			"socket activation: '%.*s' is no listener or came twice; FileDescriptorName= takes ingest, "
			"server, metrics",
			(int)(name.n < NAMES_SHOWN ? name.n : NAMES_SHOWN), name.p);
	if (!listens(fd))
		return err_set(e, ERR_REJECT, "socket activation: descriptor %d does not listen", fd);
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return err_sys(e, ERR_FATAL, "socket activation");
	*place = fd;
	return 0;
}

int activation_take(struct app_sockets *ret, struct err *e)
{
	struct app_sockets sockets = APP_SOCKETS_NONE;
	int64_t count = count_for_us();
	const char *text = getenv("LISTEN_FDNAMES");
	struct str rest = str_of(text ? text : ""), name;
	for (int64_t i = 0; i < count; i++) {
		if (!str_cut(&rest, ':', &name)) {
			name = rest;
			rest.n = 0;
		}
		if (take_one((int)(FIRST_FD + i), name, &sockets, e) < 0)
			return -1;
	}
	for (size_t i = 0; i < ARRAY_LEN(variables); i++)
		unsetenv(variables[i]);
	*ret = sockets;
	return 0;
}
