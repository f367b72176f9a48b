/* listen.c - see listen.h. */
#include "http/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/address.h"
#include "base/auto.h"
#include "http/conn.h"

enum {
	BACKLOG = 4096, /* the kernel cuts it to net.core.somaxconn */
	ACCEPTS_PER_TURN = 64,
	PAUSE_MS = 100, /* after an error of accept that would only repeat itself */
	ADDRESS_BYTES = 128,
	SEND_BUFFER_BYTES = 64 * 1024, /* an answer of ours is far smaller; the kernel doubles it */
};

struct listener {
	struct http_server *server;
	struct tls_server *tls;
	struct shard *home; /* NULL: not started */
	uv_poll_t poll;
	uv_timer_t pause;
	int fd, reserve_fd;
	char *unix_path; /* to be removed in the end */
	char address[ADDRESS_BYTES];
};

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un un;
	struct sockaddr_storage storage;
};

static const char unix_prefix[] = "unix:";

/* --- addresses --- */

static bool v6_is_mapped(const struct in6_addr *a)
{
	return IN6_IS_ADDR_V4MAPPED(a);
}

static bool is_loopback_v4(const void *octets)
{
	return *(const unsigned char *)octets == 127;
}

/* From this machine and nobody else's: loopback or a unix socket. */
static bool is_local(const union address *a)
{
	switch (a->any.sa_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return is_loopback_v4(&a->v4.sin_addr);
	case AF_INET6:
		if (v6_is_mapped(&a->v6.sin6_addr))
			return is_loopback_v4(&a->v6.sin6_addr.s6_addr[12]);
		return IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
	default:
		return false;
	}
}

/* The address without port, an IPv4 one behind a dual socket in its own form; "unix" for unix sockets. */
static void format_host(const union address *a, char *out, socklen_t room)
{
	snprintf(out, room, "unix");
	if (a->any.sa_family == AF_INET)
		inet_ntop(AF_INET, &a->v4.sin_addr, out, room);
	else if (a->any.sa_family == AF_INET6 && v6_is_mapped(&a->v6.sin6_addr))
		inet_ntop(AF_INET, &a->v6.sin6_addr.s6_addr[12], out, room);
	else if (a->any.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &a->v6.sin6_addr, out, room);
}

static void format_address(const union address *a, char *out, size_t room)
{
	char host[INET6_ADDRSTRLEN];
	format_host(a, host, sizeof(host));
	if (a->any.sa_family == AF_UNIX)
		snprintf(out, room, "%s%.*s", unix_prefix, (int)sizeof(a->un.sun_path), a->un.sun_path);
	else if (a->any.sa_family == AF_INET6)
		snprintf(out, room, "[%s]:%u", host, ntohs(a->v6.sin6_port));
	else
		snprintf(out, room, "%s:%u", host, ntohs(a->v4.sin_port));
}

/* "HOST:PORT", "[HOST]:PORT" or ":PORT", into two strings; false when it is neither. */
static bool split_address(const char *address, char *host, size_t room, const char **ret_port)
{
	const char *colon = strrchr(address, ':');
	if (!colon || !colon[1])
		return false;
	struct str h = {address, (size_t)(colon - address)};
	bool bracketed = h.n > 2 && h.p[0] == '[' && h.p[h.n - 1] == ']';
	if (bracketed)
		h = (struct str){h.p + 1, h.n - 2};
	else if (h.n && memchr(h.p, ':', h.n))
		return false;
	if (h.n >= room)
		return false;
	memcpy(host, h.p, h.n);
	host[h.n] = 0;
	*ret_port = colon + 1;
	return true;
}

/* --- making sockets --- */

static int err_bind(struct err *e, const char *address)
{
	return err_sys(e, errno == EADDRINUSE ? ERR_CONFLICT : ERR_FATAL, "listen on '%s'", address);
}

static int bind_tcp(const struct addrinfo *ai, const char *address, int *ret_fd, struct err *e)
{
	AUTO(fd_auto) int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_bind(e, address);
	int on = 1, off = 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return err_bind(e, address);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int listen_tcp(const char *address, int *ret_fd, struct err *e)
{
	char host[256];
	const char *port;
	if (!split_address(address, host, sizeof(host), &port))
		return err_set(e, ERR_FATAL, "'%s' is not ADDRESS:PORT", address);
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE},
			*list;
	if (!*host)
		hints.ai_family = AF_INET6; /* all addresses: one socket for both families */
	int code = getaddrinfo(*host ? host : NULL, port, &hints, &list);
	if (code)
		return err_set(e, ERR_FATAL, "listen on '%s': %s", address, gai_strerror(code));
	int result = bind_tcp(list, address, ret_fd, e);
	freeaddrinfo(list);
	if (result < 0 && !*host && e && e->sys_errno == EAFNOSUPPORT) {
		char v4[32];
		snprintf(v4, sizeof(v4), "0.0.0.0:%s", port);
		return listen_tcp(v4, ret_fd, e);
	}
	return result;
}

/* A socket file that nobody listens on is left over from a process that was killed. */
static int remove_stale(const struct sockaddr_un *un, struct err *e)
{
	struct stat st;
	if (lstat(un->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_CONFLICT, "'%s' exists and is not a socket", un->sun_path);
	AUTO(fd_auto) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_bind(e, un->sun_path);
	if (connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 || errno != ECONNREFUSED)
		return err_set(e, ERR_CONFLICT, "another process listens on '%s'", un->sun_path);
	return unlink(un->sun_path) < 0 ? err_bind(e, un->sun_path) : 0;
}

static int listen_unix(const char *path, int *ret_fd, struct err *e)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(un.sun_path))
		return err_set(e, ERR_FATAL, "'%s' is too long for a socket's path", path);
	memcpy(un.sun_path, path, strlen(path) + 1);
	if (remove_stale(&un, e) < 0)
		return -1;
	AUTO(fd_auto) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Nobody can connect before listen, so the mode is right in time. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || chmod(path, 0600) < 0 ||
		listen(fd, BACKLOG) < 0)
		return err_bind(e, path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int open_socket(struct listener *l, const struct http_listen *o, struct err *e)
{
	if (o->fd >= 0) {
		l->fd = o->fd;
		return 0;
	}
	if (strncmp(o->address, unix_prefix, sizeof(unix_prefix) - 1) != 0)
		return listen_tcp(o->address, &l->fd, e);
	const char *path = o->address + sizeof(unix_prefix) - 1;
	if (listen_unix(path, &l->fd, e) < 0)
		return -1;
	l->unix_path = strdup(path);
	return l->unix_path ? 0 : err_oom(e);
}

static int check_socket(struct listener *l, const struct http_listen *o, struct err *e)
{
	union address a = {.any.sa_family = AF_UNSPEC};
	socklen_t n = sizeof(a);
	if (getsockname(l->fd, &a.any, &n) < 0)
		return err_sys(e, ERR_FATAL, "listen");
	format_address(&a, l->address, sizeof(l->address));
	if (!o->tls && !o->allow_plain && !is_local(&a))
		return err_set(
			e, ERR_FATAL, "'%s': without TLS only on loopback or a unix socket", l->address);
	return 0;
}

int listener_open(
	struct http_server *server, const struct http_listen *o, struct listener **ret, struct err *e)
{
	struct listener *l = calloc(1, sizeof(*l));
	if (!l)
		return err_oom(e);
	*l = (struct listener){.server = server, .tls = o->tls, .fd = -1, .reserve_fd = -1};
	if (open_socket(l, o, e) < 0 || check_socket(l, o, e) < 0) {
		listener_stop(l);
		listener_free(l);
		return -1;
	}
	l->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	*ret = l;
	return 0;
}

/* --- accepting --- */

static void refuse(struct listener *l, int fd, enum reject reason)
{
	stats_reject(l->server->stats, reason);
	close(fd);
}

static struct shard *pick_shard(struct listener *l)
{
	struct http_server *s = l->server;
	unsigned handshakes = s->shard_count - s->io_count;
	if (!l->tls || !handshakes)
		return server_pick_io(s);
	return &s->shards[s->io_count + atomic_fetch_add(&s->next_handshake, 1) % handshakes];
}

static void take_socket(struct listener *l, int fd, const union address *peer)
{
	struct http_server *s = l->server;
	const struct http_limits *limits = &l->home->limits;
	if (atomic_load(&s->open) >= limits->connections) {
		refuse(l, fd, REJECT_CONNECTIONS);
		return;
	}
	char host[INET6_ADDRSTRLEN];
	format_host(peer, host, sizeof(host));
	struct conn_origin origin = {.address = host, .local = is_local(peer), .tls = l->tls};
	bool counted = peer->any.sa_family != AF_UNIX;
	char group[ADDRESS_GROUP_BYTES];
	if (counted)
		origin.address_entry =
			tally_add(s->addresses, address_group(host, group), limits->connections_per_address);
	if (counted && !origin.address_entry) {
		refuse(l, fd, REJECT_CONNECTIONS_PER_ADDRESS);
		return;
	}
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	/* The kernel would take megabytes of answers for a peer that reads none, and we would encrypt them all. */
	int send_bytes = SEND_BUFFER_BYTES;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes));
	struct conn *c = conn_new(s, fd, &origin);
	if (!c) {
		tally_remove(s->addresses, origin.address_entry);
		refuse(l, fd, REJECT_MEMORY);
		return;
	}
	atomic_fetch_add(&s->open, 1);
	conn_hand_over(c, pick_shard(l));
}

/* No descriptor is left: frees the one in reserve, to accept and close with it. */
static void shed(struct listener *l)
{
	close(l->reserve_fd);
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		refuse(l, fd, REJECT_DESCRIPTORS);
	l->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_ready(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
	struct listener *l = container_of(timer, struct listener, pause);
	uv_poll_start(&l->poll, UV_READABLE, on_ready);
}

static void pause_accepting(struct listener *l)
{
	uv_poll_stop(&l->poll);
	uv_timer_start(&l->pause, on_pause_over, PAUSE_MS, 0);
}

/* False when there is nothing more to accept now. */
static bool accept_one(struct listener *l)
{
	union address peer = {.any.sa_family = AF_UNSPEC};
	socklen_t n = sizeof(peer);
	int fd = accept4(l->fd, &peer.any, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		take_socket(l, fd, &peer);
		return true;
	}
	switch (errno) {
	case EAGAIN:
		return false;
	case EMFILE:
	case ENFILE:
		if (l->reserve_fd >= 0)
			shed(l);
		else
			pause_accepting(l);
		return false;
	case ENOMEM:
	case ENOBUFS:
		pause_accepting(l);
		return false;
	default:
		return true; /* that connection's own trouble: aborted, network down, filtered */
	}
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
	struct listener *l = container_of(poll, struct listener, poll);
	for (unsigned i = 0; i < ACCEPTS_PER_TURN && accept_one(l); i++)
		;
}

/* --- starting and stopping --- */

struct start_call {
	struct listener *listener;
	int code;
};

static void start_polling(void *arg)
{
	struct start_call *call = arg;
	struct listener *l = call->listener;
	uv_loop_t *loop = loop_uv(l->home->loop);
	call->code = uv_poll_init(loop, &l->poll, l->fd);
	if (call->code)
		return;
	uv_timer_init(loop, &l->pause);
	uv_poll_start(&l->poll, UV_READABLE, on_ready);
}

int listener_start(struct listener *l, struct shard *home, struct err *e)
{
	struct start_call call = {.listener = l};
	l->home = home;
	loop_call(home->loop, start_polling, &call);
	if (call.code) {
		l->home = NULL;
		return err_set(e, ERR_FATAL, "listen on '%s': %s", l->address, uv_strerror(call.code));
	}
	server_alive(l->server);
	server_alive(l->server);
	return 0;
}

static void on_poll_closed(uv_handle_t *handle)
{
	server_gone(container_of((uv_poll_t *)handle, struct listener, poll)->server);
}

static void on_timer_closed(uv_handle_t *handle)
{
	server_gone(container_of((uv_timer_t *)handle, struct listener, pause)->server);
}

static void stop_polling(void *arg)
{
	struct listener *l = arg;
	uv_close((uv_handle_t *)&l->poll, on_poll_closed);
	uv_close((uv_handle_t *)&l->pause, on_timer_closed);
}

void listener_stop(struct listener *l)
{
	if (l->home)
		loop_call(l->home->loop, stop_polling, l);
	l->home = NULL;
	if (l->fd >= 0)
		close(TAKE_FD(l->fd));
	if (l->reserve_fd >= 0)
		close(TAKE_FD(l->reserve_fd));
	if (l->unix_path)
		unlink(l->unix_path);
	free(TAKE(l->unix_path));
}

void listener_free(struct listener *l)
{
	free(l);
}

const char *listener_address(const struct listener *l)
{
	return l->address;
}

bool listener_is_tls(const struct listener *l)
{
	return l->tls;
}
