/* shard.c - see shard.h. */
#include "http/shard.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/conn.h"
#include "http/request.h"

enum { ANSWERS_CEILING_BYTES = 256 << 20, ANSWERS_KEPT_BYTES = 256 * 1024 };

/* --- Date --- */

/* "Sun, 06 Nov 1994 08:49:37 GMT", from "1994-11-06T08:49:37.000Z". */
static void format_date(struct wall t, char *out)
{
	static const char days[] = "ThuFriSatSunMonTueWed"; /* 1970-01-01 was a Thursday */
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	enum { DAY_MS = 24 * 3600 * 1000 };
	char stamp[RFC3339_BYTES];
	wall_format(t, stamp);
	unsigned month = (unsigned)(stamp[5] - '0') * 10 + (unsigned)(stamp[6] - '0');
	memcpy(out, "Www, DD Mmm YYYY HH:MM:SS GMT", DATE_BYTES);
	memcpy(out, days + t.ms / DAY_MS % 7 * 3, 3);
	memcpy(out + 5, stamp + 8, 2);
	memcpy(out + 8, months + (size_t)3 * (month - 1), 3);
	memcpy(out + 12, stamp, 4);
	memcpy(out + 17, stamp + 11, 8);
}

const char *shard_date(struct shard *s)
{
	struct wall now = clock_wall(s->server->options.clock);
	if (now.ms / 1000 != s->date_second) {
		s->date_second = now.ms / 1000;
		format_date(now, s->date);
	}
	return s->date;
}

/* --- events --- */

/* A loop with an active idle handle looks for events without waiting for any. */
static void on_again(uv_idle_t *again)
{
}

/* Who has something to send again after its flush waits for the next turn: a peer that sends requests as fast as they
 * are answered would keep the loop from all others. */
static void on_turn_end(uv_prepare_t *turn_end)
{
	struct shard *s = container_of(turn_end, struct shard, turn_end);
	struct link end;
	link_init(&end);
	link_append(&s->dirty, &end);
	while (s->dirty.next != &end)
		conn_flush(container_of(s->dirty.next, struct conn, dirty));
	link_remove(&end);
	if (link_alone(&s->dirty))
		uv_idle_stop(&s->again);
	else
		uv_idle_start(&s->again, on_again);
	if (s->answers.room > ANSWERS_KEPT_BYTES)
		buf_clear(&s->answers);
}

static void on_tick(uv_timer_t *tick)
{
	struct shard *s = container_of(tick, struct shard, tick);
	deadlines_run(&s->deadlines, shard_now(s));
	if (link_alone(&s->conns))
		uv_timer_stop(tick);
}

/* --- life --- */

static void open_handles(void *arg)
{
	struct shard *s = arg;
	uv_loop_t *loop = loop_uv(s->loop);
	uv_prepare_init(loop, &s->turn_end);
	uv_prepare_start(&s->turn_end, on_turn_end);
	uv_idle_init(loop, &s->again);
	uv_timer_init(loop, &s->tick);
}

void shard_add(struct shard *s, struct link *conn)
{
	/* At rest nothing ticks. */
	if (!uv_is_active((uv_handle_t *)&s->tick))
		uv_timer_start(&s->tick, on_tick, TICK_MS, TICK_MS);
	link_append(&s->conns, conn);
}

int shard_start(struct shard *s, struct http_server *server, struct loop *loop, unsigned index, struct err *e)
{
	*s = (struct shard){.server = server, .loop = loop, .index = index, .limits = server->options.limits};
	s->date_second = -1;
	link_init(&s->conns);
	link_init(&s->dirty);
	deadlines_init(&s->deadlines);
	buf_init(&s->answers, ANSWERS_CEILING_BYTES);
	unsigned char random[(sizeof(s->id_prefix) - 1) / 2];
	if (RAND_bytes(random, sizeof(random)) != 1)
		return err_set(e, ERR_FATAL, "no random numbers");
	hex_encode(random, sizeof(random), s->id_prefix);
	s->received = malloc(RECEIVE_BYTES);
	if (!s->received)
		return err_oom(e);
	for (unsigned i = 0; i < SHARD_HANDLES; i++)
		server_alive(server);
	loop_call(loop, open_handles, s);
	return 0;
}

static void on_prepare_closed(uv_handle_t *handle)
{
	server_gone(container_of((uv_prepare_t *)handle, struct shard, turn_end)->server);
}

static void on_idle_closed(uv_handle_t *handle)
{
	server_gone(container_of((uv_idle_t *)handle, struct shard, again)->server);
}

static void on_timer_closed(uv_handle_t *handle)
{
	server_gone(container_of((uv_timer_t *)handle, struct shard, tick)->server);
}

static void close_handles(void *arg)
{
	struct shard *s = arg;
	request_pool_clear(s);
	buf_wipe(&s->answers);
	explicit_bzero(s->received, RECEIVE_BYTES);
	free(s->received);
	uv_close((uv_handle_t *)&s->turn_end, on_prepare_closed);
	uv_close((uv_handle_t *)&s->again, on_idle_closed);
	uv_close((uv_handle_t *)&s->tick, on_timer_closed);
}

void shard_stop(struct shard *s)
{
	loop_call(s->loop, close_handles, s);
}
