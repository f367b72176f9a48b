/* fixture.c - see fixture.h. */
#include "store/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct wall tick_wall(const struct clock *c)
{
	struct fixture *f = container_of(c, struct fixture, clock);
	return (struct wall){atomic_fetch_add(&f->clock_ms, 1) + 1};
}

static struct mono tick_mono(const struct clock *c)
{
	struct fixture *f = container_of(c, struct fixture, clock);
	return (struct mono){(atomic_fetch_add(&f->clock_ms, 1) + 1) * 1000000};
}

/* Names are made once, so that rows can point to them from any thread. */
enum { NAMES = 32, NAME_BYTES = 16 };
static char clients[NAMES][NAME_BYTES], domains[NAMES][NAME_BYTES];

static void make_names(void)
{
	for (unsigned i = 0; i < NAMES; i++) {
		snprintf(clients[i], NAME_BYTES, "client-%u", i);
		snprintf(domains[i], NAME_BYTES, "domain-%u", i);
	}
}

void assert_done(int result, const struct err *e)
{
	if (result < 0)
		fail_msg("%s: %s", err_kind_name(e->kind), e->text);
}

void assert_failed(int result, const struct err *e, enum err_kind kind, const char *text)
{
	assert_int_equal(result, -1);
	if (e->kind != kind || (text && !strstr(e->text, text)))
		fail_msg("%s: %s; not %s: %s", err_kind_name(e->kind), e->text, err_kind_name(kind),
			text ? text : "");
}

void fixture_init(struct fixture *f, const struct fixture_driver *driver)
{
	*f = (struct fixture){
		.driver = driver,
		.plan = {.inner = driver->inner, .kind = ERR_RETRY},
		.sqlite = {.segment_rows = 16, .checkpoint_pages = 40, .readers = 2},
		.clock = {tick_wall, tick_mono},
		.clock_ms = FIXTURE_START_MS,
	};
	f->plan.inner_arg = &f->sqlite;
	make_names();
	arena_init(&f->arena, 64 << 20);
	const char *base = getenv("TMPDIR");
	int n = snprintf(f->dir, sizeof(f->dir), "%s/sealpost-store-XXXXXX", base ? base : "/tmp");
	assert_in_range(n, 1, sizeof(f->dir) - 1);
	assert_non_null(mkdtemp(f->dir));
}

static void remove_directory(const char *path)
{
	DIR *dir = opendir(path);
	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(dir), entry->d_name, 0), 0);
	closedir(dir);
	assert_int_equal(rmdir(path), 0);
}

void fixture_clear(struct fixture *f)
{
	fixture_close(f);
	arena_clear(&f->arena);
	remove_directory(f->dir);
}

int fixture_try_open(struct fixture *f, struct err *e)
{
	struct store_options options = {
		.driver = f->driver->driver,
		.location = f->dir,
		.driver_arg = f->driver->inner ? (void *)&f->plan : &f->sqlite,
		.clock = &f->clock,
		.write_limit = 1024,
		.group_max = 64,
		.probe_ms = 1,
	};
	return store_open(&options, &f->store, e);
}

void fixture_open(struct fixture *f)
{
	struct err e = ERR_INIT;
	assert_done(fixture_try_open(f, &e), &e);
}

void fixture_close(struct fixture *f)
{
	store_close(f->store);
	f->store = NULL;
}

void fixture_reopen(struct fixture *f)
{
	if (!f->driver->durable)
		return;
	fixture_close(f);
	fixture_open(f);
}

/* --- rows --- */

struct uuid fixture_id(unsigned n)
{
	struct uuid id = {{0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, 0x70}};
	for (unsigned i = 0; i < 4; i++)
		id.b[8 + i] = (uint8_t)(n >> (24 - 8 * i));
	id.b[8] |= 0x80;
	return id;
}

struct store_message fixture_message(
	unsigned n, unsigned client, unsigned domain, unsigned sender, enum message_state state)
{
	static const char envelope[] = "an envelope, sealed, of which the store knows nothing";
	struct store_message m = {
		.sealed =
			{
				.id = fixture_id(n),
				.accepted_at = {FIXTURE_START_MS + n},
				.client_id = str_of(clients[client]),
				.domain = str_of(domains[domain]),
				.traceparent =
					n % 2 ? STR("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
					      : STR(""),
				.envelope = {envelope, 1 + n % (sizeof(envelope) - 1)},
			},
		.state = state,
		.attempt_count = n % 3,
	};
	/* Two senders that share the first 16 bytes, as far as any index may look, are told apart all the
	 * same. */
	if (sender)
		memset(m.sender_index, 0x40 + (int)(sender / 2), sizeof(m.sender_index));
	if (sender)
		m.sender_index[31] = (uint8_t)sender;
	return m;
}

struct store_cert fixture_cert(
	unsigned serial, unsigned issuer, const char *role, const char *name, const char *domain)
{
	struct store_cert cert = {
		.serial = {0x5e, (uint8_t)(serial >> 8), (uint8_t)serial},
		.serial_bytes = 3,
		.role = str_of(role),
		.name = str_of(name),
		.domain = str_of(domain),
		.not_before = {FIXTURE_START_MS},
		.not_after = {FIXTURE_START_MS + 1000 * serial},
		.issued_at = {FIXTURE_START_MS + serial},
		.der = STR("\x30\x03\x02\x01\x00"),
	};
	memset(cert.issuer_key_id, 0xa0 + (int)issuer, sizeof(cert.issuer_key_id));
	return cert;
}

/* --- operations --- */

static int waited(struct fixture *f, enum store_kind kind, struct group_op *op, struct err *e)
{
	struct err own = ERR_INIT;
	int result = store_wait(f->store, kind, op, e ? e : &own);
	if (!e)
		assert_done(result, &own);
	return result;
}

int fixture_store(struct fixture *f, struct store_message *items, unsigned count, struct err *e)
{
	struct store_messages put = {.items = items, .count = count};
	int result = waited(f, STORE_MESSAGES, &put.op, e);
	unsigned stored = 0;
	for (unsigned i = 0; i < count && result >= 0; i++)
		stored += !items[i].duplicate;
	if (result >= 0)
		assert_int_equal(put.stored_count, stored);
	return result;
}

int fixture_status(struct fixture *f, struct uuid id, enum message_state state, unsigned attempts,
	const char *error, struct err *e)
{
	struct store_status put = {
		.id = id, .state = state, .attempt_count = attempts, .error_text = str_of(error)};
	return waited(f, STORE_STATUS, &put.op, e);
}

int fixture_put_client(
	struct fixture *f, const char *name, const char *domain, enum client_status status, struct err *e)
{
	struct store_client_put put = {.client = {str_of(name), str_of(domain), status, {0}}};
	return waited(f, STORE_CLIENT, &put.op, e);
}

int fixture_put_cert(struct fixture *f, const struct store_cert *cert, bool create_client, struct err *e)
{
	struct store_cert_put put = {.cert = *cert, .create_client = create_client};
	int result = waited(f, STORE_CERT, &put.op, e);
	if (result >= 0)
		assert_true(put.change > 0);
	return result;
}

int fixture_audit(struct fixture *f, const char *actor, const char *action, struct err *e)
{
	struct store_audit put = {.row = {
					  .actor = str_of(actor),
					  .origin = STR("127.0.0.1"),
					  .action = str_of(action),
					  .target = STR("client-1"),
					  .result = STR("ok"),
					  .detail = STR("{\"serial\":\"5e0001\"}"),
				  }};
	return waited(f, STORE_AUDIT, &put.op, e);
}

struct store_row fixture_read(struct fixture *f, struct uuid id)
{
	struct store_row row;
	struct err e = ERR_INIT;
	assert_done(store_read_message(f->store, &id, &f->arena, &row, &e), &e);
	return row;
}

struct store_counts fixture_counts(struct fixture *f)
{
	struct store_counts counts;
	struct err e = ERR_INIT;
	assert_done(store_read_counts(f->store, &counts, &e), &e);
	return counts;
}

/* --- a history --- */

bool fixture_history_step(struct fixture *f, unsigned step, unsigned round)
{
	unsigned n = round * 10;
	char name[32];
	snprintf(name, sizeof(name), "name-%u", round);
	struct store_message batch[] = {
		fixture_message(n + 1, 1, 1, 1, MESSAGE_QUEUED),
		fixture_message(n + 2, 2, 1, 2, MESSAGE_DELIVERED),
		fixture_message(n + 3, 3, 1, 3, MESSAGE_DELIVERED),
	};
	struct store_message delivery = fixture_message(n + 1, 1, 1, 5, MESSAGE_DELIVERED);
	struct store_cert cert = fixture_cert(round + 1, 0, "client", name, "north");
	struct store_revoke revoke = {.name = str_of(name)};
	struct err e = ERR_INIT;
	switch (step) {
	case 0:
		return fixture_store(f, batch, ARRAY_LEN(batch), &e) >= 0;
	case 1:
		return fixture_status(f, batch[0].sealed.id, MESSAGE_FAILED, 2, "no", &e) >= 0;
	case 2:
	case 8:
		return fixture_audit(f, name, "step", &e) >= 0;
	case 3:
		return fixture_put_cert(f, &cert, true, &e) >= 0;
	case 4:
		return fixture_put_client(f, name, "north", CLIENT_SUSPENDED, &e) >= 0;
	case 5:
		return store_wait(f->store, STORE_REVOKE, &revoke.op, &e) >= 0;
	case 6:
		return fixture_store(f, &delivery, 1, &e) >= 0;
	default:
		return fixture_status(f, delivery.sealed.id, MESSAGE_QUEUED, 0, "", &e) == STORE_UNCHANGED;
	}
}

void fixture_history_check(struct fixture *f, unsigned rounds)
{
	struct err e = ERR_INIT;
	uint64_t checked;
	int64_t bad;
	struct store_counts counts = fixture_counts(f);
	assert_int_equal(counts.messages, 3 * rounds);
	assert_int_equal(counts.by_state[MESSAGE_DELIVERED], 3 * rounds);
	assert_int_equal(counts.clients, rounds);
	assert_int_equal(counts.certificates, rounds);
	assert_int_equal(store_audit_check(f->store, &checked, &bad, &e), 0);
	assert_int_equal(checked, 2 * rounds);
	assert_done(store_check(f->store, true, &e), &e);

	/* Three changes per certificate and no number lost: the last row's number is their count. */
	struct store_cert_query query = {.max = STORE_PAGE_MAX};
	struct store_cert *rows;
	unsigned count;
	assert_done(store_read_certs(f->store, &query, &f->arena, &rows, &count, &e), &e);
	assert_int_equal(count, rounds);
	assert_int_equal(rows[count - 1].change, 3 * rounds);
}

/* --- numbers --- */

uint64_t fixture_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

unsigned fixture_below(uint64_t *state, unsigned limit)
{
	return (unsigned)(fixture_random(state) % limit);
}
