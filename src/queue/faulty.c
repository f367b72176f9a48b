/* faulty.c - see faulty.h. The plan itself is the driver's state. */
#include "queue/faulty.h"

#include <string.h>

void faulty_fail(struct faulty *f, const char *only, unsigned at, unsigned count)
{
	f->fail_at = 0;
	f->only = only;
	f->calls = 0;
	f->fail_count = count;
	f->fail_at = at;
}

/* Whether this call fails. */
static bool hit(struct faulty *f, const char *name, struct err *e)
{
	const char *only = f->only;
	if (only && strcmp(only, name) != 0)
		return false;
	unsigned call = ++f->calls, fail_at = f->fail_at;
	if (!fail_at || call < fail_at || call - fail_at >= f->fail_count)
		return false;
	err_set(e, f->kind, "injected fault: %s, call %u", name, call);
	return true;
}

static int faulty_open(const struct queue_driver_options *o, void **ret_state, struct err *e)
{
	struct faulty *f = o->arg;
	struct queue_driver_options inner = *o;
	inner.arg = f->inner_arg;
	if (hit(f, "open", e) || f->inner->open(&inner, &f->inner_state, e) < 0)
		return -1;
	*ret_state = f;
	return 0;
}

static void faulty_close(void *state)
{
	struct faulty *f = state;
	if (f)
		f->inner->close(f->inner_state);
}

static const char *faulty_durability(void *state)
{
	struct faulty *f = state;
	return f->inner->durability(f->inner_state);
}

static uint64_t faulty_floor_key(void *state)
{
	struct faulty *f = state;
	return f->inner->floor_key(f->inner_state);
}

static int faulty_begin(void *state, struct err *e)
{
	struct faulty *f = state;
	return hit(f, "begin", e) ? -1 : f->inner->begin(f->inner_state, e);
}

static int faulty_commit(void *state, struct err *e)
{
	struct faulty *f = state;
	return hit(f, "commit", e) ? -1 : f->inner->commit(f->inner_state, e);
}

static void faulty_abort(void *state)
{
	struct faulty *f = state;
	f->inner->abort(f->inner_state);
}

static int faulty_probe(void *state, struct err *e)
{
	struct faulty *f = state;
	return hit(f, "probe", e) ? -1 : f->inner->probe(f->inner_state, e);
}

static bool faulty_tick(void *state, struct mono now, struct mono *ret_next)
{
	struct faulty *f = state;
	return f->inner->tick(f->inner_state, now, ret_next);
}

#define FAULTY_OPERATION(name, type)                                                                         \
	static int faulty_##name(void *state, struct type *op, struct err *e)                                \
	{                                                                                                    \
		struct faulty *f = state;                                                                    \
		int rc = f->inner->name(f->inner_state, op, e);                                              \
		return hit(f, #name, e) ? -1 : rc;                                                           \
	}

FAULTY_OPERATION(put, queue_put)
FAULTY_OPERATION(lease, queue_lease)
FAULTY_OPERATION(settle, queue_settle)
FAULTY_OPERATION(renew, queue_renew)
FAULTY_OPERATION(find, queue_find)
FAULTY_OPERATION(list, queue_list)
FAULTY_OPERATION(stats, queue_stats)
FAULTY_OPERATION(redrive, queue_redrive)
FAULTY_OPERATION(purge, queue_purge)
FAULTY_OPERATION(pause, queue_pause)

const struct queue_driver queue_driver_faulty = {
	.name = "faulty",
	.open = faulty_open,
	.close = faulty_close,
	.durability = faulty_durability,
	.floor_key = faulty_floor_key,
	.begin = faulty_begin,
	.commit = faulty_commit,
	.abort = faulty_abort,
	.put = faulty_put,
	.lease = faulty_lease,
	.settle = faulty_settle,
	.renew = faulty_renew,
	.find = faulty_find,
	.list = faulty_list,
	.stats = faulty_stats,
	.redrive = faulty_redrive,
	.purge = faulty_purge,
	.pause = faulty_pause,
	.tick = faulty_tick,
	.probe = faulty_probe,
};
