/* faulty.c - see faulty.h. One forwarding function per slot of the driver; description, abort and close
 * cannot fail and are not counted. */
#include "store/faulty.h"

#include <stdlib.h>

struct faulty {
	struct faulty_plan *plan;
	const struct store_driver *inner;
	void *state;
};

static int fails(struct faulty_plan *plan, const char *slot, struct err *e)
{
	unsigned call = atomic_fetch_add(&plan->call_count, 1) + 1;
	unsigned from = atomic_load(&plan->fail_from);
	if (call < from || call - from >= atomic_load(&plan->fail_count))
		return 0;
	return err_set(e, atomic_load(&plan->kind), "injected failure in %s, call %u", slot, call);
}

static void faulty_close(void *state)
{
	struct faulty *f = state;
	if (!f)
		return;
	f->inner->close(f->state);
	free(f);
}

static int faulty_open(const struct store_driver_options *o, void **ret_state, struct err *e)
{
	struct faulty_plan *plan = o->arg;
	struct store_driver_options inner_options = {.location = o->location, .arg = plan->inner_arg};
	struct faulty *f = calloc(1, sizeof(*f));
	if (!f)
		return err_oom(e);
	*f = (struct faulty){.plan = plan, .inner = plan->inner};
	if (fails(plan, "open", e) < 0 || f->inner->open(&inner_options, &f->state, e) < 0) {
		free(f);
		return -1;
	}
	*ret_state = f;
	return 0;
}

static const char *faulty_description(void *state)
{
	struct faulty *f = state;
	return f->inner->description(f->state);
}

static void faulty_abort(void *state)
{
	struct faulty *f = state;
	f->inner->abort(f->state);
}

/* Defines faulty_SLOT with the parameters given, forwarding the arguments given. */
#define FORWARD(slot, params, args)                                                                          \
	static int faulty_##slot params                                                                      \
	{                                                                                                    \
		struct faulty *f = state;                                                                    \
		return fails(f->plan, #slot, e) < 0 ? -1 : f->inner->slot args;                              \
	}

FORWARD(begin, (void *state, struct wall now, struct err *e), (f->state, now, e))
FORWARD(commit, (void *state, struct err *e), (f->state, e))
FORWARD(put_messages, (void *state, struct store_messages *put, struct err *e), (f->state, put, e))
FORWARD(put_status, (void *state, struct store_status *put, struct err *e), (f->state, put, e))
FORWARD(expire, (void *state, struct store_expire *expire, struct err *e), (f->state, expire, e))
FORWARD(put_client, (void *state, struct store_client_put *put, struct err *e), (f->state, put, e))
FORWARD(put_cert, (void *state, struct store_cert_put *put, struct err *e), (f->state, put, e))
FORWARD(revoke, (void *state, struct store_revoke *revoke, struct err *e), (f->state, revoke, e))
FORWARD(put_seen, (void *state, const struct store_seen *seen, struct err *e), (f->state, seen, e))
FORWARD(supersede, (void *state, struct store_supersede *supersede, struct err *e), (f->state, supersede, e))
FORWARD(put_token, (void *state, const struct store_token *token, struct err *e), (f->state, token, e))
FORWARD(use_token, (void *state, struct store_token_use *use, struct err *e), (f->state, use, e))
FORWARD(revoke_tokens, (void *state, struct store_token_revoke *revoke, struct err *e), (f->state, revoke, e))
FORWARD(restore_token, (void *state, const struct store_token_restore *restore, struct err *e),
	(f->state, restore, e))
FORWARD(purge_tokens, (void *state, struct store_token_purge *purge, struct err *e), (f->state, purge, e))
FORWARD(audit_head, (void *state, int64_t *ret_sequence, uint8_t ret_hash[STORE_HASH_BYTES], struct err *e),
	(f->state, ret_sequence, ret_hash, e))
FORWARD(put_audit, (void *state, const struct store_audit_row *row, struct err *e), (f->state, row, e))
FORWARD(probe, (void *state, struct err *e), (f->state, e))
FORWARD(read_messages,
	(void *state, const struct store_query *query, struct arena *arena, struct store_page *ret,
		struct err *e),
	(f->state, query, arena, ret, e))
FORWARD(read_message,
	(void *state, const struct uuid *id, struct arena *arena, struct store_row *ret, struct err *e),
	(f->state, id, arena, ret, e))
FORWARD(read_counts, (void *state, struct store_counts *ret, struct err *e), (f->state, ret, e))
FORWARD(read_clients,
	(void *state, struct str domain, struct str after_name, unsigned max, struct arena *arena,
		struct store_client **ret, unsigned *ret_count, struct err *e),
	(f->state, domain, after_name, max, arena, ret, ret_count, e))
FORWARD(read_client,
	(void *state, struct str name, struct arena *arena, struct store_client *ret, struct err *e),
	(f->state, name, arena, ret, e))
FORWARD(read_certs,
	(void *state, const struct store_cert_query *query, struct arena *arena, struct store_cert **ret,
		unsigned *ret_count, struct err *e),
	(f->state, query, arena, ret, ret_count, e))
FORWARD(read_tokens,
	(void *state, const struct store_token_query *query, struct arena *arena, struct store_token **ret,
		unsigned *ret_count, struct err *e),
	(f->state, query, arena, ret, ret_count, e))
FORWARD(read_audit,
	(void *state, int64_t after_sequence, unsigned max, struct arena *arena, struct store_audit_row **ret,
		unsigned *ret_count, struct err *e),
	(f->state, after_sequence, max, arena, ret, ret_count, e))

static int faulty_check(void *state, bool full, struct err *e)
{
	struct faulty *f = state;
	if (fails(f->plan, "check", e) < 0)
		return -1;
	return f->inner->check ? f->inner->check(f->state, full, e) : 0;
}

const struct store_driver store_driver_faulty = {
	.name = "faulty",
	.open = faulty_open,
	.close = faulty_close,
	.description = faulty_description,
	.begin = faulty_begin,
	.commit = faulty_commit,
	.abort = faulty_abort,
	.put_messages = faulty_put_messages,
	.put_status = faulty_put_status,
	.expire = faulty_expire,
	.put_client = faulty_put_client,
	.put_cert = faulty_put_cert,
	.revoke = faulty_revoke,
	.put_seen = faulty_put_seen,
	.supersede = faulty_supersede,
	.put_token = faulty_put_token,
	.use_token = faulty_use_token,
	.revoke_tokens = faulty_revoke_tokens,
	.restore_token = faulty_restore_token,
	.purge_tokens = faulty_purge_tokens,
	.audit_head = faulty_audit_head,
	.put_audit = faulty_put_audit,
	.probe = faulty_probe,
	.read_messages = faulty_read_messages,
	.read_message = faulty_read_message,
	.read_counts = faulty_read_counts,
	.read_clients = faulty_read_clients,
	.read_client = faulty_read_client,
	.read_certs = faulty_read_certs,
	.read_tokens = faulty_read_tokens,
	.read_audit = faulty_read_audit,
	.check = faulty_check,
};
