/* deliver_test.c - what becomes of each message of a batch: opened, stored, rejected, or to be tried again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/must_test.h"
#include "base/scratch_test.h"
#include "crypto/seal.h"
#include "server/internal.h"
#include "store/faulty.h"

enum { MESSAGES = 4 };

struct fixture {
	struct faulty_plan plan;
	struct server server; /* only what deliveries look at */
	struct keyring *keyring;
	struct sealer *sealer;
	void *session;
	struct buf envelopes[MESSAGES];
	struct sealed sealed[MESSAGES];
	struct delivery_item items[MESSAGES];
};

static void seal_one(struct fixture *f, struct uuid_source *ids, unsigned i, struct wall accepted_at)
{
	const struct message message = {.sender_number = STR("+4915112345678"), .body = STR("hello")};
	struct err e = ERR_INIT;
	f->sealed[i] = (struct sealed){.accepted_at = accepted_at,
		.client_id = STR("client_1"),
		.domain = STR("example.com"),
		.traceparent = STR("")};
	must(uuid_next(ids, &f->sealed[i].id, &e), &e);
	buf_init(&f->envelopes[i], SEALED_MAX_BYTES);
	must(sealer_seal(f->sealer, &f->sealed[i], &message, &f->envelopes[i], &e), &e);
	f->sealed[i].envelope = buf_str(&f->envelopes[i]);
	f->items[i] = (struct delivery_item){.sealed = &f->sealed[i]};
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct uuid_source ids;
	struct sealing_public key;
	struct err e = ERR_INIT;
	if (scratch_enter(state) < 0)
		return -1;
	f->plan.inner = &store_driver_memory;
	const struct store_options store = {.driver = &store_driver_faulty,
		.driver_arg = &f->plan,
		.clock = &clock_system,
		.write_limit = 64,
		.group_max = 64,
		.probe_ms = 1};
	must(store_open(&store, &f->server.store, &e), &e);
	must(clients_load(f->server.store, &f->server.clients, &e), &e);
	must(clients_set(f->server.clients, STR("client_1"), STR("example.com"), &e), &e);
	must(keyring_init("keys", &clock_system, &e), &e);
	must(keyring_load("keys", &f->keyring, &e), &e);
	f->server.keyring = f->keyring;
	must(sealer_new(&clock_system, &f->sealer, &e), &e);
	keyring_active(f->keyring, &key);
	sealer_set_key(f->sealer, &key);
	must(deliver_open(&f->server, &f->session, &e), &e);
	uuid_source_init(&ids, &clock_system, 0);
	for (unsigned i = 0; i < MESSAGES; i++)
		seal_one(f, &ids, i, clock_wall(&clock_system));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	deliver_close(f->session);
	sealer_free(f->sealer);
	keyring_free(f->keyring);
	clients_free(f->server.clients);
	store_close(f->server.store);
	for (unsigned i = 0; i < MESSAGES; i++)
		buf_clear(&f->envelopes[i]);
	free(f);
	return scratch_leave(state);
}

static void deliver_all(struct fixture *f)
{
	struct err e = ERR_INIT;
	must(deliver_batch(f->session, f->items, MESSAGES, &e), &e);
}

static void assert_outcome(
	const struct delivery_item *item, enum delivery_outcome outcome, const char *reason)
{
	assert_int_equal(item->outcome, outcome);
	if (reason)
		assert_string_equal(item->reason, reason);
}

static void what_comes_again_is_a_duplicate(void **state)
{
	struct fixture *f = *state;
	deliver_all(f);
	for (unsigned i = 0; i < MESSAGES; i++)
		assert_outcome(&f->items[i], DELIVERY_STORED, NULL);
	deliver_all(f);
	for (unsigned i = 0; i < MESSAGES; i++)
		assert_outcome(&f->items[i], DELIVERY_DUPLICATE, NULL);
}

static void what_is_wrong_is_rejected_alone(void **state)
{
	struct fixture *f = *state;
	f->sealed[1].domain = STR("example.org"); /* not this client's */
	f->sealed[2].accepted_at.ms++;            /* not what was sealed */
	deliver_all(f);
	assert_outcome(&f->items[0], DELIVERY_STORED, NULL);
	assert_outcome(&f->items[1], DELIVERY_REJECTED, "unknown_client");
	assert_outcome(&f->items[2], DELIVERY_REJECTED, "does_not_open");
	assert_outcome(&f->items[3], DELIVERY_STORED, NULL);
}

/* It opens, but breaks a rule of the store, which refuses the whole batch for it. */
static void what_the_store_refuses_is_rejected_alone(void **state)
{
	struct fixture *f = *state;
	struct uuid_source ids;
	uuid_source_init(&ids, &clock_system, 0);
	buf_clear(&f->envelopes[2]);
	seal_one(f, &ids, 2, (struct wall){0});
	deliver_all(f);
	for (unsigned i = 0; i < MESSAGES; i++)
		assert_outcome(&f->items[i], i == 2 ? DELIVERY_REJECTED : DELIVERY_STORED,
			i == 2 ? "invalid" : NULL);
}

/* The batch fails, then its first row alone: that one is a retry, the others are stored. */
static void what_cannot_be_stored_is_tried_again_alone(void **state)
{
	struct fixture *f = *state;
	f->plan.kind = ERR_CONFLICT;
	f->plan.fail_from = f->plan.call_count + 1;
	f->plan.fail_count = 2;
	deliver_all(f);
	assert_outcome(&f->items[0], DELIVERY_RETRY, "not_stored");
	for (unsigned i = 1; i < MESSAGES; i++)
		assert_outcome(&f->items[i], DELIVERY_STORED, NULL);
}

/* A store that takes nothing at all is an outage, whatever it says of the single row. */
static void a_store_that_is_away_is_an_outage(void **state)
{
	struct fixture *f = *state;
	static const enum err_kind kinds[] = {ERR_RETRY, ERR_CONFLICT};
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct err e = ERR_INIT;
		f->plan.kind = kinds[i];
		f->plan.fail_from = f->plan.call_count + 1;
		f->plan.fail_count = UINT32_MAX;
		assert_true(deliver_batch(f->session, f->items, MESSAGES, &e) < 0);
		assert_int_equal(e.kind, ERR_RETRY);
	}
	f->plan.fail_count = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_comes_again_is_a_duplicate, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_wrong_is_rejected_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(what_the_store_refuses_is_rejected_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_stored_is_tried_again_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(a_store_that_is_away_is_an_outage, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
