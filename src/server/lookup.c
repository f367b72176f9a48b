/* lookup.c - answers a proxy in this process that asks what became of a message (role/lookup.h). */
#include <stdio.h>

#include "base/auto.h"
#include "role/lookup.h"
#include "server/internal.h"

enum { ROW_BYTES = 64 * 1024 };

static void copy_text(char *out, size_t room, struct str s)
{
	size_t n = s.n < room - 1 ? s.n : room - 1;
	memcpy(out, s.p, n);
	out[n] = 0;
}

static void run(struct work *w)
{
	struct lookup *l = container_of(w, struct lookup, work);
	const struct server *s = l->server;
	AUTO(arena_auto) struct arena arena;
	struct store_row row;
	arena_init(&arena, ROW_BYTES);
	l->result = store_read_message(s->store, &l->id, &arena, &row, &l->err);
	if (l->result < 0)
		return;
	if (!str_eq(row.sealed.client_id, str_of(l->client_id))) {
		l->result = err_set(&l->err, ERR_NOT_FOUND, "this message belongs to another client");
		return;
	}
	l->state = row.state;
	l->accepted_at = row.sealed.accepted_at;
	l->delivered_at = row.delivered_at;
	l->attempt_count = row.attempt_count;
	copy_text(l->error_text, sizeof(l->error_text), row.error_text);
	copy_text(l->domain, sizeof(l->domain), row.sealed.domain);
}

static void done(struct work *w)
{
	struct lookup *l = container_of(w, struct lookup, work);
	l->done(l);
}

void server_lookup(void *arg, struct lookup *l)
{
	struct server *s = arg;
	l->server = s;
	l->work = (struct work){.loop = l->loop, .work = run, .done = done};
	if (work_submit(s->pool, &l->work) == 0)
		return;
	l->result = err_set(&l->err, ERR_RETRY, "too many questions at once");
	l->done(l);
}
