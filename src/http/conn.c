/* conn.c - see conn.h. Poll events drive everything, level-triggered, and are changed only when reading stops
 * or writing blocks, so that an ordinary request costs no epoll_ctl.
 *
 * Reading: one SSL_read takes a request in the usual case. TLS reads ahead, so a second one is made only when
 * OpenSSL holds more; asking the kernel in vain would cost a system call a request. All connections of a
 * shard receive into one buffer; only what a protocol could not take yet is copied to the connection, so an
 * idle connection owns no buffer.
 *
 * Writing: conn_send hands bytes straight to the transport and keeps what it does not take.
 *
 * Protocols never see a connection disappear under them: conn_break and conn_finish only mark it, and
 * settle() acts at the end of each event. */
#include "http/conn.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "http/request.h"
#include "tls/context.h"

enum {
	TURN_BYTES = 256 * 1024, /* read from one connection before others get a turn */
	REFUSALS_LOGGED_PER_S = 10,
	OUT_CEILING_BYTES = 256 << 20,    /* answers are ours, protocols stop far below */
	KEY_UPDATES_FREE = 16,            /* that a TLS peer may make without sending anything */
	BYTES_PER_KEY_UPDATE = 64 * 1024, /* buys one more; AES-GCM asks for one in 2^24 records */
};

static const struct identity nobody = {.role = ROLE_NONE};

static void on_poll(uv_poll_t *poll, int status, int events);

/* close_notify, so that the peer can tell the end from an attack (RFC 8446 section 6.1). */
static void say_goodbye(struct conn *c)
{
	if (c->ssl && c->state == CONN_OPEN)
		SSL_shutdown(c->ssl);
}

/* --- deadlines --- */

struct mono conn_deadline_at(const struct conn *c, enum deadline_class class)
{
	const struct http_limits *l = &c->shard->limits;
	const int64_t ms[DEADLINE_CLASSES] = {
		[DEADLINE_HANDSHAKE] = l->handshake_ms,
		[DEADLINE_HEAD] = l->head_ms,
		[DEADLINE_BODY] = l->body_ms,
		[DEADLINE_IDLE] = l->idle_ms,
		[DEADLINE_WRITE] = l->write_ms,
		[DEADLINE_LINGER] = l->linger_ms,
	};
	return mono_add_ms(shard_now(c->shard), ms[class]);
}

void conn_expect(struct conn *c, enum deadline_class class)
{
	if (deadline_is_set(&c->read_deadline) && c->read_deadline.class == class)
		return;
	deadline_set(&c->shard->deadlines, &c->read_deadline, class, conn_deadline_at(c, class));
}

void conn_expect_nothing(struct conn *c)
{
	deadline_clear(&c->read_deadline);
}

void conn_count_timeout(struct conn *c, enum deadline_class class)
{
	static const enum reject reasons[DEADLINE_CLASSES] = {
		[DEADLINE_HEAD] = REJECT_HEAD_TIMEOUT,
		[DEADLINE_BODY] = REJECT_BODY_TIMEOUT,
		[DEADLINE_WRITE] = REJECT_WRITE_TIMEOUT,
	};
	if (class == DEADLINE_HANDSHAKE)
		stats_handshake(c->shard->server->stats, "timeout");
	else if (class != DEADLINE_IDLE && class != DEADLINE_LINGER)
		stats_reject(c->shard->server->stats, reasons[class]);
}

static void on_read_deadline(struct deadline *d)
{
	struct conn *c = container_of(d, struct conn, read_deadline);
	conn_count_timeout(c, d->class);
	if (d->class == DEADLINE_IDLE)
		say_goodbye(c);
	conn_cut(c);
}

static void on_write_deadline(struct deadline *d)
{
	struct conn *c = container_of(d, struct conn, write_deadline);
	conn_count_timeout(c, d->class);
	conn_cut(c);
}

/* --- life and death --- */

struct conn *conn_new(struct http_server *server, int fd, const struct conn_origin *origin)
{
	struct conn *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	require(strlen(origin->address) < sizeof(c->address));
	memcpy(c->address, origin->address, strlen(origin->address) + 1);
	c->refs = 1;
	c->fd = fd;
	c->tls = origin->tls;
	c->local = origin->local;
	c->address_entry = origin->address_entry;
	c->peer = &nobody;
	link_init(&c->link);
	link_init(&c->dirty);
	deadline_init(&c->read_deadline, on_read_deadline);
	deadline_init(&c->write_deadline, on_write_deadline);
	buf_init(&c->out, OUT_CEILING_BYTES);
	server_alive(server);
	return c;
}

void conn_ref(struct conn *c)
{
	c->refs++;
}

void conn_unref(struct conn *c)
{
	if (--c->refs)
		return;
	struct http_server *server = c->shard->server;
	/* Requests look at the peer's identity until the last of them is gone. */
	SSL_free(c->ssl);
	free(c);
	server_gone(server);
}

static void on_poll_closed(uv_handle_t *handle)
{
	conn_unref(container_of((uv_poll_t *)handle, struct conn, poll));
}

static bool is_io(const struct shard *s)
{
	return s->index < s->server->io_count;
}

static void uncount(struct conn *c)
{
	struct http_server *server = c->shard->server;
	tally_remove(server->addresses, c->address_entry);
	tally_remove(server->clients, c->client_entry);
	if (is_io(c->shard))
		atomic_fetch_sub(&c->shard->conn_count, 1);
	atomic_fetch_sub(&server->open, 1);
}

static void let_go(struct conn *c)
{
	link_remove(&c->dirty);
	deadline_clear(&c->read_deadline);
	deadline_clear(&c->write_deadline);
	buf_wipe(&c->in);
	c->shard->answer_bytes -= conn_unsent(c);
	c->out_sent = 0;
	buf_wipe(&c->out);
	if (c->protocol)
		c->protocol->closed(c);
}

void conn_cut(struct conn *c)
{
	bool lingering = c->state == CONN_LINGER;
	if (c->state == CONN_CLOSED)
		return;
	c->state = CONN_CLOSED;
	link_remove(&c->link);
	if (lingering)
		deadline_clear(&c->read_deadline);
	else
		let_go(c);
	uncount(c);
	uv_close((uv_handle_t *)&c->poll, on_poll_closed);
	close(c->fd);
}

/* Waits, for a short while, until the peer has heard our last words: closing with bytes unread would send a
 * reset, which may destroy them on their way (RFC 9112 section 9.6). */
static void start_lingering(struct conn *c)
{
	say_goodbye(c);
	if (c->input_ended || shutdown(c->fd, SHUT_WR) < 0) {
		conn_cut(c);
		return;
	}
	let_go(c);
	c->state = CONN_LINGER;
	conn_expect(c, DEADLINE_LINGER);
}

static bool wants_reading(const struct conn *c)
{
	if (c->state != CONN_OPEN)
		return true;
	return !c->input_ended && !c->finishing && !c->broken && c->protocol->wants_input(c);
}

static void update_poll(struct conn *c)
{
	int wanted =
		(wants_reading(c) ? UV_READABLE : 0) | (conn_unsent(c) || c->write_blocked ? UV_WRITABLE : 0);
	if (wanted == c->polled)
		return;
	c->polled = wanted;
	uv_poll_start(&c->poll, wanted, on_poll);
}

/* Acts on what happened during an event. */
static void settle(struct conn *c)
{
	if (c->state == CONN_OPEN && !c->broken && c->finishing && !conn_unsent(c))
		start_lingering(c);
	if (c->leaving)
		say_goodbye(c);
	if (c->broken || c->leaving)
		conn_cut(c);
	if (c->state != CONN_CLOSED)
		update_poll(c);
}

void conn_finish(struct conn *c)
{
	c->finishing = true;
}

void conn_leave(struct conn *c)
{
	/* The end of an answer may still be on its way. */
	if (conn_unsent(c))
		c->finishing = true;
	else
		c->leaving = true;
}

void conn_break(struct conn *c)
{
	c->broken = true;
}

void conn_mark_dirty(struct conn *c)
{
	if (link_alone(&c->dirty))
		link_append(&c->shard->dirty, &c->dirty);
}

/* --- the transport --- */

/* An error that somebody else left behind on this thread would be taken for ours. */
static void clear_errors(void)
{
	if (ERR_peek_error())
		ERR_clear_error();
}

/* Each takes us several times as long as a small record; too many are no protection but an attack. */
static void check_key_updates(struct conn *c)
{
	if (tls_key_updates(c->ssl) <= KEY_UPDATES_FREE + c->received_bytes / BYTES_PER_KEY_UPDATE)
		return;
	stats_reject(c->shard->server->stats, REJECT_FLOOD);
	c->broken = true;
}

/* > 0: that many bytes; 0: nothing now. Marks the end of input and a broken connection. */
static size_t tls_receive(struct conn *c, char *to, size_t room)
{
	clear_errors();
	int n = SSL_read(c->ssl, to, (int)room);
	c->received_bytes += n > 0 ? (size_t)n : 0;
	check_key_updates(c);
	if (n > 0 && !c->broken)
		return (size_t)n;
	switch (SSL_get_error(c->ssl, n)) {
	case SSL_ERROR_WANT_READ:
		break;
	case SSL_ERROR_WANT_WRITE:
		c->write_blocked = true;
		break;
	case SSL_ERROR_ZERO_RETURN:
		c->input_ended = true;
		break;
	default:
		c->broken = true;
	}
	return 0;
}

static size_t plain_receive(struct conn *c, char *to, size_t room)
{
	ssize_t n = recv(c->fd, to, room, 0);
	if (n > 0)
		return (size_t)n;
	if (n == 0)
		c->input_ended = true;
	else if (errno != EAGAIN && errno != EINTR)
		c->broken = true;
	return 0;
}

static size_t tls_transmit(struct conn *c, struct str bytes)
{
	clear_errors();
	int n = SSL_write(c->ssl, bytes.p, bytes.n < INT32_MAX ? (int)bytes.n : INT32_MAX);
	if (n > 0)
		return (size_t)n;
	int error = SSL_get_error(c->ssl, n);
	if (error != SSL_ERROR_WANT_WRITE && error != SSL_ERROR_WANT_READ)
		c->broken = true;
	return 0;
}

static size_t plain_transmit(struct conn *c, struct str bytes)
{
	ssize_t n = send(c->fd, bytes.p, bytes.n, MSG_NOSIGNAL);
	if (n > 0)
		return (size_t)n;
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		c->broken = true;
	return 0;
}

/* How many of the bytes the kernel took. */
static size_t transmit(struct conn *c, struct str bytes)
{
	size_t sent = 0;
	for (size_t n = 1; n && sent < bytes.n; sent += n) {
		struct str rest = {bytes.p + sent, bytes.n - sent};
		n = c->ssl ? tls_transmit(c, rest) : plain_transmit(c, rest);
	}
	return sent;
}

/* --- writing --- */

static void start_write_deadline(struct conn *c)
{
	c->out_mark = conn_unsent(c);
	deadline_set(&c->shard->deadlines, &c->write_deadline, DEADLINE_WRITE,
		conn_deadline_at(c, DEADLINE_WRITE));
}

void conn_send(struct conn *c, struct str bytes)
{
	if (c->broken)
		return;
	bool waiting = conn_unsent(c) > 0;
	size_t sent = waiting ? 0 : transmit(c, bytes);
	if (sent == bytes.n || c->broken)
		return;
	/* Forgets what was sent, in large enough steps that copying stays cheap. */
	if (c->out_sent > c->out.n / 2) {
		buf_consume(&c->out, c->out_sent);
		c->out_sent = 0;
	}
	size_t before = conn_unsent(c);
	buf_add(&c->out, bytes.p + sent, bytes.n - sent);
	c->shard->answer_bytes += conn_unsent(c) - before;
	c->broken |= c->out.failed;
	if (!waiting)
		start_write_deadline(c);
}

/* The deadline is about the bytes that were there when it began; a peer that takes them gets a new one. */
static void count_sent(struct conn *c, size_t sent)
{
	c->out_sent += sent;
	c->shard->answer_bytes -= sent;
	if (!conn_unsent(c)) {
		deadline_clear(&c->write_deadline);
		buf_wipe(&c->out);
		c->out_sent = 0;
	} else if (sent >= c->out_mark) {
		start_write_deadline(c);
	} else {
		c->out_mark -= sent;
	}
}

static void write_on(struct conn *c)
{
	size_t sent = transmit(c, (struct str){c->out.p + c->out_sent, conn_unsent(c)});
	if (sent)
		count_sent(c, sent);
	if (!conn_unsent(c) && !c->broken)
		c->protocol->output(c);
}

/* --- reading --- */

static void take_kept(struct conn *c)
{
	size_t taken = c->protocol->input(c, buf_str(&c->in));
	if (taken == c->in.n)
		buf_wipe(&c->in);
	else
		buf_consume(&c->in, taken);
}

static void take(struct conn *c, struct str bytes)
{
	if (c->in.n) {
		buf_add_str(&c->in, bytes);
		take_kept(c);
	} else {
		size_t taken = c->protocol->input(c, bytes);
		buf_add(&c->in, bytes.p + taken, bytes.n - taken);
	}
	c->broken |= c->in.failed;
}

static void read_on(struct conn *c);

static void on_next_turn(struct task *task)
{
	struct conn *c = container_of(task, struct conn, task);
	c->reading_on = false;
	if (c->state == CONN_OPEN) {
		read_on(c);
		settle(c);
	}
	conn_unref(c);
}

static void read_on_next_turn(struct conn *c)
{
	if (c->reading_on)
		return;
	c->reading_on = true;
	conn_ref(c);
	c->task.run = on_next_turn;
	inbox_push(loop_inbox(c->shard->loop), &c->task);
}

static bool has_more(const struct conn *c, size_t last)
{
	return c->ssl ? SSL_has_pending(c->ssl) : last == RECEIVE_BYTES;
}

static void read_on(struct conn *c)
{
	char *to = c->shard->received;
	size_t total = 0, n = 1;
	while (n && wants_reading(c) && total < TURN_BYTES) {
		n = c->ssl ? tls_receive(c, to, RECEIVE_BYTES) : plain_receive(c, to, RECEIVE_BYTES);
		if (!n)
			break;
		take(c, (struct str){to, n});
		total += n;
		if (!has_more(c, n))
			return;
	}
	/* Only the kernel's bytes wake us again, not those that OpenSSL holds already. */
	if (total >= TURN_BYTES && wants_reading(c))
		read_on_next_turn(c);
	if (c->input_ended && !c->broken && c->protocol->wants_input(c))
		c->protocol->end_of_input(c);
}

/* After output was made, input that had to wait may go on. */
static void resume(struct conn *c)
{
	if (c->in.n && c->protocol->wants_input(c))
		take_kept(c);
	if (!(c->polled & UV_READABLE) && wants_reading(c))
		read_on(c);
	else if (c->input_ended && c->protocol->wants_input(c))
		c->protocol->end_of_input(c);
}

void conn_flush(struct conn *c)
{
	link_remove(&c->dirty);
	c->protocol->output(c);
	if (!c->broken && !c->finishing)
		resume(c);
	settle(c);
}

void conn_drain(struct conn *c)
{
	if (c->state == CONN_HANDSHAKE) {
		conn_cut(c);
	} else if (c->state == CONN_OPEN) {
		c->protocol->drain(c);
		settle(c);
	}
}

/* --- handshake and hand-over --- */

static void arrive(struct task *task);

void conn_hand_over(struct conn *c, struct shard *to)
{
	c->shard = to;
	if (is_io(to))
		atomic_fetch_add(&to->conn_count, 1);
	c->task.run = arrive;
	inbox_push(loop_inbox(to->loop), &c->task);
}

static void on_poll_moved(uv_handle_t *handle)
{
	struct conn *c = container_of((uv_poll_t *)handle, struct conn, poll);
	c->polled = 0;
	conn_hand_over(c, server_pick_io(c->shard->server));
}

static void move_to_io(struct conn *c)
{
	link_remove(&c->link);
	deadline_clear(&c->read_deadline);
	uv_close((uv_handle_t *)&c->poll, on_poll_moved);
}

static const struct protocol *negotiated(const struct conn *c)
{
	const unsigned char *name = NULL;
	unsigned n = 0;
	if (c->ssl)
		SSL_get0_alpn_selected(c->ssl, &name, &n);
	return str_eq(str_mem(name, n), STR("h2")) ? &protocol_h2 : &protocol_h1;
}

static void open_protocol(struct conn *c)
{
	c->state = CONN_OPEN;
	buf_init(&c->in, c->shard->limits.head_bytes + (size_t)2 * RECEIVE_BYTES);
	conn_expect_nothing(c);
	c->protocol = negotiated(c);
	if (c->protocol->open(c) < 0) {
		stats_reject(c->shard->server->stats, REJECT_MEMORY);
		c->protocol = NULL;
		c->broken = true;
	} else {
		/* The first request may have come with the end of the handshake. */
		read_on(c);
	}
	settle(c);
}

static void count_client(struct conn *c)
{
	struct http_server *server = c->shard->server;
	c->peer = tls_peer(c->ssl);
	if (c->peer->role == ROLE_NONE)
		return;
	if (server->options.registry)
		registry_note_seen(server->options.registry, c->peer, clock_wall(server->options.clock));
	c->client_entry =
		tally_add(server->clients, str_of(c->peer->name), c->shard->limits.connections_per_client);
	if (!c->client_entry) {
		/* Told with the first answer: a client that leaks connections should learn why it is refused.
		 */
		c->over_client_limit = true;
		stats_reject(server->stats, REJECT_CONNECTIONS_PER_CLIENT);
	}
}

/* Anybody can have certificates refused, as often as they like: the log takes some a second, the metric counts all. */
static bool refusal_is_logged(struct http_server *server)
{
	int64_t second = clock_mono(server->options.clock).ns / 1000000000;
	if (atomic_exchange(&server->refusal_second, second) != second)
		atomic_store(&server->refusals, 0);
	return atomic_fetch_add(&server->refusals, 1) < REFUSALS_LOGGED_PER_S;
}

static void certificate_refused(struct conn *c, const struct verify_result *verdict, const char *rule)
{
	struct http_server *server = c->shard->server;
	const char *reason = verify_reason(verdict);
	stats_certificate_refused(server->stats, reason);
	if (refusal_is_logged(server))
		log_event(LOG_WARN, "tls.certificate_refused", LF_STR("listener", server->options.name),
			LF_STR("address", c->address), LF_STR("reason", reason), LF_STR("rule", rule),
			LF_STR("name", verdict->identity.name), LF_STR("domain", verdict->identity.domain));
}

static void handshake_failed(struct conn *c)
{
	const char *rule;
	const struct verify_result *verdict = tls_verdict(c->ssl);
	stats_handshake(c->shard->server->stats, tls_failure(c->ssl, &rule));
	if (verdict && verdict->outcome != VERIFY_ACCEPTED)
		certificate_refused(c, verdict, rule);
	ERR_clear_error();
	start_lingering(c); /* the last words are the alert */
	if (c->state != CONN_CLOSED)
		update_poll(c);
}

static void handshake_on(struct conn *c)
{
	clear_errors();
	c->write_blocked = false;
	int n = SSL_do_handshake(c->ssl);
	int error = n == 1 ? SSL_ERROR_NONE : SSL_get_error(c->ssl, n);
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
		c->write_blocked = error == SSL_ERROR_WANT_WRITE;
		update_poll(c);
		return;
	}
	if (n != 1) {
		handshake_failed(c);
		return;
	}
	stats_handshake(c->shard->server->stats, "ok");
	count_client(c);
	if (is_io(c->shard))
		open_protocol(c);
	else
		move_to_io(c);
}

static int start_tls(struct conn *c)
{
	c->ssl = tls_server_accept(c->tls);
	if (!c->ssl || SSL_set_fd(c->ssl, c->fd) != 1)
		return -1;
	/* A TCP FIN without close_notify is an end of input like any other: requests carry their own length.
	 */
	SSL_set_options(c->ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
	conn_expect(c, DEADLINE_HANDSHAKE);
	return 0;
}

/* A connection that the loop could not take in. */
static void turn_away(struct conn *c)
{
	stats_reject(c->shard->server->stats, REJECT_MEMORY);
	uncount(c);
	close(c->fd);
	conn_unref(c);
}

static void arrive(struct task *task)
{
	struct conn *c = container_of(task, struct conn, task);
	if (uv_poll_init(loop_uv(c->shard->loop), &c->poll, c->fd) != 0) {
		turn_away(c);
		return;
	}
	shard_add(c->shard, &c->link);
	bool fresh = c->tls && !c->ssl;
	if (fresh && start_tls(c) < 0) {
		stats_reject(c->shard->server->stats, REJECT_MEMORY);
		conn_cut(c);
	} else if (c->shard->draining) {
		conn_cut(c);
	} else if (fresh) {
		update_poll(c);
	} else {
		open_protocol(c);
	}
}

/* --- events --- */

static void linger_on(struct conn *c)
{
	ssize_t n = recv(c->fd, c->shard->received, RECEIVE_BYTES, 0);
	if (n > 0)
		c->lingered_bytes += (size_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || c->lingered_bytes > LINGER_BYTES)
		conn_cut(c);
}

static void serve(struct conn *c, int events)
{
	bool was_blocked = c->write_blocked;
	c->write_blocked = false;
	if (events & UV_WRITABLE && conn_unsent(c))
		write_on(c);
	if (!c->broken && (events & UV_READABLE || was_blocked))
		read_on(c);
	if (events & UV_WRITABLE && !c->broken && !c->finishing)
		resume(c);
	settle(c);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct conn *c = container_of(poll, struct conn, poll);
	if (status < 0)
		conn_cut(c);
	else if (c->state == CONN_HANDSHAKE)
		handshake_on(c);
	else if (c->state == CONN_OPEN)
		serve(c, events);
	else if (c->state == CONN_LINGER)
		linger_on(c);
}

/* --- the peer's standing --- */

static enum conn_verdict check_registry(const struct registry *registry, const struct identity *peer)
{
	static const enum conn_verdict verdicts[] = {
		[REGISTRY_ACTIVE] = CONN_GOOD,
		[REGISTRY_REVOKED] = CONN_REVOKED,
		[REGISTRY_SUSPENDED] = CONN_SUSPENDED,
		[REGISTRY_UNKNOWN] = CONN_UNKNOWN,
	};
	return verdicts[registry_check(registry, peer)];
}

enum conn_verdict conn_check_peer(struct conn *c)
{
	const struct http_server_options *o = &c->shard->server->options;
	if (c->over_client_limit)
		return CONN_OVER_LIMIT;
	if (c->peer->role == ROLE_NONE)
		return CONN_GOOD;
	int64_t over_ms = clock_wall(o->clock).ms - c->peer->not_after.ms;
	if (over_ms > o->grace_ms)
		return CONN_EXPIRED;
	enum conn_verdict good = over_ms > 0 ? CONN_LATE : CONN_GOOD;
	if (!o->registry)
		return good;
	/* Read before the check: a change in between is then seen by the next request. */
	uint64_t generation = registry_generation(o->registry);
	if (!c->registry_checked || generation != c->registry_generation) {
		c->registry_verdict = check_registry(o->registry, c->peer);
		c->registry_generation = generation;
		c->registry_checked = true;
	}
	return c->registry_verdict == CONN_GOOD ? good : c->registry_verdict;
}
