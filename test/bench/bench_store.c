/* bench_store.c - how fast the store takes messages and answers questions, and what each kind of index costs.
 *
 *   bench_store [options] DIR          through the store's own interface; DIR must be empty
 *     --rows N        messages in all (1000000)      --batch N     messages in one operation (256)
 *     --in-flight N   operations outstanding (4)     --clients N   (1000)    --senders N   (1000000)
 *     --envelope N    bytes of ciphertext (330)      --segment N   rows of an index segment (8192)
 *     --registered    store each message twice: registered first, then delivered
 *
 *   bench_store --indexes [--rows N] DIR     the same rows through plain SQLite under different indexes
 *
 * Rows/s are of the wall clock, every commit synced; CPU is the whole process's, the making of messages
 * included. The figures are in doc/decisions/0006-store-indexes.md. */
#include <getopt.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "store/driver.h"
#include "store/sqlite.h"

enum {
	PARTS = 10, /* lines of the table: each a tenth of the rows */
	ENVELOPE_MAX = 4096,
	QUERY_RUNS = 50,
	FIRST_MS = 1700000000,
};

static struct settings {
	long rows, batch, in_flight, clients, senders, envelope, segment;
	bool registered, indexes;
	const char *dir;
} settings = {1000000, 256, 4, 1000, 1000000, 330, 0, false, false, NULL};

static _Noreturn void die(const char *what, const struct err *e)
{
	fprintf(stderr, "bench_store: %s: %s\n", what, e ? e->text : "failed");
	exit(1);
}

/* --- measuring --- */

struct usage {
	int64_t wall_ns, cpu_us, written_bytes;
};

/* What the kernel counts as written by this process; 0 where it does not. */
static int64_t written_bytes(void)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, 4096);
	if (file_read("/proc/self/io", 4096, &text, NULL) < 0)
		return 0;
	uint64_t bytes = 0;
	struct str rest = buf_str(&text), line;
	while (str_cut(&rest, '\n', &line)) {
		struct str name;
		if (str_cut(&line, ':', &name) && str_eq(name, STR("wchar")) &&
			str_to_u64(str_trim(line), &bytes))
			break;
	}
	return (int64_t)bytes;
}

static struct usage usage_now(void)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	return (struct usage){
		.wall_ns = clock_mono(&clock_system).ns,
		.cpu_us = (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000LL + r.ru_utime.tv_usec +
			  r.ru_stime.tv_usec,
		.written_bytes = written_bytes(),
	};
}

static void print_header(void)
{
	printf("%-22s %10s %10s %10s %12s %10s\n", "", "table", "rows/s", "CPU us/row", "written B/row",
		"worst ms");
}

static void print_part(
	const char *name, long table, long rows, struct usage from, struct usage to, int64_t worst_ns)
{
	double seconds = (double)(to.wall_ns - from.wall_ns) / 1e9;
	printf("%-22s %10ld %10.0f %10.2f %12.0f %10.1f\n", name, table, (double)rows / seconds,
		(double)(to.cpu_us - from.cpu_us) / (double)rows,
		(double)(to.written_bytes - from.written_bytes) / (double)rows, (double)worst_ns / 1e6);
	fflush(stdout);
}

/* --- messages --- */

static uint64_t random_state = 88172645463325252u;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* The blind index of sender number n: as good as random, the same each time. */
static void sender_index(uint64_t n, uint8_t ret[STORE_INDEX_BYTES])
{
	for (unsigned i = 0; i < STORE_INDEX_BYTES / 8; i++) {
		uint64_t x = (n + 1) * 0x9e3779b97f4a7c15u + i;
		x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
		x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
		x ^= x >> 31;
		memcpy(ret + (size_t)8 * i, &x, sizeof(x));
	}
}

static char envelope[ENVELOPE_MAX];
static char (*client_names)[32];

static void make_names(void)
{
	client_names = calloc((size_t)settings.clients, sizeof(*client_names));
	if (!client_names)
		die("names", NULL);
	for (long i = 0; i < settings.clients; i++)
		snprintf(client_names[i], sizeof(client_names[i]), "client-%ld", i);
	for (unsigned i = 0; i < sizeof(envelope); i++)
		envelope[i] = (char)next_random();
}

/* An id like a UUIDv7: time first, the same for the same n, about 100 a millisecond. */
static struct uuid id_of(uint64_t n)
{
	uint64_t key = (uint64_t)(FIRST_MS + n / 100) << 16 | 0x7000 | (n % 100);
	uint64_t tail = (n + 1) * 0x9e3779b97f4a7c15u;
	struct uuid id;
	for (unsigned i = 0; i < 8; i++) {
		id.b[i] = (uint8_t)(key >> (56 - 8 * i));
		id.b[8 + i] = (uint8_t)(tail >> (56 - 8 * i));
	}
	id.b[8] = (uint8_t)(0x80 | (id.b[8] & 0x3f));
	return id;
}

static void make_message(uint64_t n, enum message_state state, struct store_message *ret)
{
	*ret = (struct store_message){
		.sealed =
			{
				.id = id_of(n),
				.accepted_at = {FIRST_MS + (int64_t)n / 100},
				.client_id = str_of(
					client_names[n * 0x9e3779b97f4a7c15u % (uint64_t)settings.clients]),
				.domain = STR("default"),
				.envelope = {envelope, (size_t)settings.envelope},
			},
		.state = state,
		.attempt_count = 1,
	};
	if (state == MESSAGE_DELIVERED)
		sender_index(n * 2654435761u % (uint64_t)settings.senders, ret->sender_index);
}

/* --- the store --- */

struct flight {
	struct store_messages put;
	struct store_message *items;
	sem_t landed;
};

static _Atomic int64_t worst_commit_ns;

static void observe(void *arg, unsigned ops, int64_t commit_ns)
{
	(void)arg;
	(void)ops;
	if (commit_ns > atomic_load(&worst_commit_ns))
		atomic_store(&worst_commit_ns, commit_ns);
}

static void landed(struct group_op *op)
{
	sem_post(&container_of(op, struct flight, put.op)->landed);
}

static void await(struct flight *f)
{
	while (sem_wait(&f->landed))
		;
	if (f->put.op.result < 0)
		die("store", &f->put.op.err);
}

static void launch(struct store *store, struct flight *f, uint64_t first, enum message_state state)
{
	for (long i = 0; i < settings.batch; i++)
		make_message(first + (uint64_t)i, state, &f->items[i]);
	f->put = (struct store_messages){.items = f->items, .count = (unsigned)settings.batch};
	f->put.op.complete = landed;
	if (store_submit(store, STORE_MESSAGES, &f->put.op) != 0)
		die("submit", NULL);
}

/* Stores messages first … end - 1, `in_flight` operations at a time. */
static void store_part(struct store *store, struct flight *flights, uint64_t first, uint64_t end)
{
	uint64_t launches = 0;
	for (uint64_t n = first; n < end; n += (uint64_t)settings.batch) {
		for (int pass = settings.registered ? 0 : 1; pass < 2; pass++) {
			struct flight *f = &flights[launches++ % (uint64_t)settings.in_flight];
			await(f);
			launch(store, f, n, pass ? MESSAGE_DELIVERED : MESSAGE_QUEUED);
		}
	}
	for (long i = 0; i < settings.in_flight; i++) {
		await(&flights[i]);
		sem_post(&flights[i].landed);
	}
}

static void fill_store(struct store *store)
{
	struct flight *flights = calloc((size_t)settings.in_flight, sizeof(*flights));
	if (!flights)
		die("operations", NULL);
	for (long i = 0; i < settings.in_flight; i++) {
		flights[i].items = calloc((size_t)settings.batch, sizeof(*flights[i].items));
		sem_init(&flights[i].landed, 0, 1);
	}
	print_header();
	for (int part = 0; part < PARTS; part++) {
		long first = settings.rows / PARTS * part / settings.batch * settings.batch;
		long end = settings.rows / PARTS * (part + 1) / settings.batch * settings.batch;
		atomic_store(&worst_commit_ns, 0);
		struct usage from = usage_now();
		store_part(store, flights, (uint64_t)first, (uint64_t)end);
		print_part(settings.registered ? "registered, delivered" : "delivered", first, end - first,
			from, usage_now(), atomic_load(&worst_commit_ns));
	}
	for (long i = 0; i < settings.in_flight; i++)
		free(flights[i].items);
	free(flights);
}

static void time_query(struct store *store, const char *name, struct store_query query)
{
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, 32 << 20);
	int64_t total_ns = 0, worst_ns = 0;
	struct store_page page = {0};
	query.max = 50;
	for (int i = 0; i < QUERY_RUNS; i++) {
		struct err e = ERR_INIT;
		arena_reset(&arena);
		int64_t from = clock_mono(&clock_system).ns;
		if (store_read_messages(store, &query, &arena, &page, &e) < 0)
			die(name, &e);
		int64_t took = clock_mono(&clock_system).ns - from;
		total_ns += took;
		worst_ns = took > worst_ns ? took : worst_ns;
	}
	printf("%-44s %4u rows %10.3f ms %10.3f ms\n", name, page.count, (double)total_ns / QUERY_RUNS / 1e6,
		(double)worst_ns / 1e6);
}

static void time_queries(struct store *store)
{
	uint8_t known[STORE_INDEX_BYTES], unknown[STORE_INDEX_BYTES];
	sender_index(1, known);
	memset(unknown, 1, sizeof(unknown));
	int64_t middle = FIRST_MS + settings.rows / 200;
	const struct {
		const char *name;
		struct store_query query;
	} queries[] = {
		{"newest", {.state = -1}},
		{"of a client", {.state = -1, .client_id = STR("client-1")}},
		{"of a client that sent nothing", {.state = -1, .client_id = STR("nobody")}},
		{"of a domain", {.state = -1, .domain = STR("default")}},
		{"of a sender", {.state = -1, .sender_index = known}},
		{"of a sender that sent nothing", {.state = -1, .sender_index = unknown}},
		{"of a sender and another client",
			{.state = -1, .sender_index = known, .client_id = STR("nobody")}},
		{"failed", {.state = MESSAGE_FAILED}},
		{"ten milliseconds in the middle", {.state = -1, .since = {middle}, .until = {middle + 10}}},
		{"before all", {.state = -1, .until = {1}}},
	};
	printf("\n%-44s %9s %13s %13s\n", "a page of up to 50 messages", "", "mean", "worst");
	for (unsigned i = 0; i < ARRAY_LEN(queries); i++)
		time_query(store, queries[i].name, queries[i].query);
}

static void bench_store(void)
{
	struct store_sqlite_options sqlite = {.segment_rows = (unsigned)settings.segment};
	struct store_options options = {
		.driver = &store_driver_sqlite,
		.location = settings.dir,
		.driver_arg = &sqlite,
		.clock = &clock_system,
		.write_limit = (unsigned)settings.in_flight,
		.group_max = (unsigned)settings.in_flight,
		.observe = observe,
	};
	struct store *store;
	struct err e = ERR_INIT;
	if (store_open(&options, &store, &e) < 0)
		die("open", &e);
	printf("%s; %ld messages in batches of %ld, %ld in flight, %ld clients, %ld senders, envelopes of %ld bytes\n",
		store_description(store), settings.rows, settings.batch, settings.in_flight, settings.clients,
		settings.senders, settings.envelope);
	fill_store(store);
	time_queries(store);
	store_close(store);
}

/* --- plain SQLite under different indexes --- */

struct design {
	const char *name;
	const char *schema; /* besides the table */
	const char
		*segment; /* run after every SEGMENT_ROWS rows, with the last row's seq for ?1; NULL: none */
	bool random_id;
};

enum { SEGMENT_ROWS = 8192 };
#define SEGMENT_ROWS_TEXT "8192"

#define BY_ID     "CREATE UNIQUE INDEX by_id ON m (id);"
#define BY_ORIGIN "CREATE INDEX by_origin ON m (origin);"
#define BY_SENDER "CREATE INDEX by_sender ON m (substr(sender, 1, 8));"
#define SEGMENTED                                                                                            \
	"CREATE TABLE by_key (segment INT, key, seq INT, PRIMARY KEY (segment, key, seq)) WITHOUT ROWID;"

static const struct design designs[] = {
	{"no index", "", NULL, false},
	{"id", BY_ID, NULL, false},
	{"random id", BY_ID, NULL, true},
	{"id, origin", BY_ID BY_ORIGIN, NULL, false},
	{"id, sender", BY_ID BY_SENDER, NULL, false},
	{"id, origin, sender", BY_ID BY_ORIGIN BY_SENDER, NULL, false},
	{"id, both in segments", BY_ID SEGMENTED,
		"INSERT INTO by_key SELECT ?1, k, seq FROM (SELECT substr(sender, 1, 8) AS k, seq FROM m"
		" WHERE seq > ?1 - " SEGMENT_ROWS_TEXT
		" UNION ALL SELECT origin, seq FROM m WHERE seq > ?1 - " SEGMENT_ROWS_TEXT
		") ORDER BY k, seq",
		false},
};

static void check_sqlite(sqlite3 *db, int rc)
{
	if (rc != SQLITE_OK && rc != SQLITE_DONE) {
		fprintf(stderr, "bench_store: %s\n", sqlite3_errmsg(db));
		exit(1);
	}
}

static sqlite3_stmt *prepared(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *statement;
	check_sqlite(db, sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
	return statement;
}

static void step(sqlite3 *db, sqlite3_stmt *statement)
{
	check_sqlite(db, sqlite3_step(statement));
	sqlite3_reset(statement);
}

static void insert_row(sqlite3 *db, sqlite3_stmt *insert, long n, bool random_id)
{
	struct store_message m;
	make_message((uint64_t)n, MESSAGE_DELIVERED, &m);
	for (unsigned i = 0; i < 8 && random_id; i++)
		m.sealed.id.b[i] = m.sender_index[i];
	sqlite3_bind_int64(insert, 1, n + 1);
	sqlite3_bind_blob(insert, 2, m.sealed.id.b, sizeof(m.sealed.id.b), SQLITE_STATIC);
	sqlite3_bind_int64(
		insert, 3, (int64_t)((uint64_t)n * 0x9e3779b97f4a7c15u % (uint64_t)settings.clients));
	sqlite3_bind_int64(insert, 4, m.sealed.accepted_at.ms);
	sqlite3_bind_blob(insert, 5, m.sender_index, sizeof(m.sender_index), SQLITE_STATIC);
	sqlite3_bind_blob(insert, 6, m.sealed.envelope.p, (int)m.sealed.envelope.n, SQLITE_STATIC);
	step(db, insert);
}

static void run_design(const struct design *design)
{
	AUTO(free_auto) char *path = path_join(settings.dir, "indexes.db");
	sqlite3 *db;
	if (!path || sqlite3_open(path, &db) != SQLITE_OK)
		die("open", NULL);
	check_sqlite(db,
		sqlite3_exec(db,
			"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4096;"
			"PRAGMA cache_size = -8192; CREATE TABLE m (seq INTEGER PRIMARY KEY, id BLOB, origin INT,"
			" accepted_ms INT, sender BLOB, envelope BLOB)",
			NULL, NULL, NULL));
	check_sqlite(db, sqlite3_exec(db, design->schema, NULL, NULL, NULL));
	sqlite3_stmt *insert =
		prepared(db, "INSERT INTO m VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING");
	sqlite3_stmt *begin = prepared(db, "BEGIN IMMEDIATE"), *commit = prepared(db, "COMMIT");
	sqlite3_stmt *segment = design->segment ? prepared(db, design->segment) : NULL;
	struct usage from = usage_now();
	int64_t worst_ns = 0;
	long part = settings.rows / PARTS / settings.batch * settings.batch;
	for (long n = 0; n < part * PARTS;) {
		int64_t group_from = clock_mono(&clock_system).ns;
		step(db, begin);
		for (long i = 0; i < settings.batch; i++)
			insert_row(db, insert, n++, design->random_id);
		if (segment && n % SEGMENT_ROWS == 0) {
			sqlite3_bind_int64(segment, 1, n);
			step(db, segment);
		}
		step(db, commit);
		int64_t took = clock_mono(&clock_system).ns - group_from;
		worst_ns = took > worst_ns ? took : worst_ns;
		if (n % part)
			continue;
		/* The first and the last tenth tell enough. */
		if (n == part || n == part * PARTS)
			print_part(design->name, n - part, part, from, usage_now(), worst_ns);
		from = usage_now();
		worst_ns = 0;
	}
	sqlite3_stmt *statements[] = {insert, begin, commit, segment};
	for (unsigned i = 0; i < ARRAY_LEN(statements); i++)
		sqlite3_finalize(statements[i]);
	sqlite3_close(db);
	unlink(path);
}

static void bench_indexes(void)
{
	printf("sqlite %s; %ld rows in batches of %ld, one synced commit each\n", sqlite3_libversion(),
		settings.rows, settings.batch);
	print_header();
	for (unsigned i = 0; i < ARRAY_LEN(designs); i++)
		run_design(&designs[i]);
}

/* --- options --- */

static bool parse_number(const char *text, long *ret)
{
	uint64_t v;
	if (!str_to_u64(str_of(text), &v) || v > INT32_MAX)
		return false;
	*ret = (long)v;
	return true;
}

static void parse(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"rows", required_argument, NULL, 'r'},
		{"batch", required_argument, NULL, 'b'},
		{"in-flight", required_argument, NULL, 'f'},
		{"clients", required_argument, NULL, 'c'},
		{"senders", required_argument, NULL, 's'},
		{"envelope", required_argument, NULL, 'e'},
		{"segment", required_argument, NULL, 'm'},
		{"registered", no_argument, NULL, 'g'},
		{"indexes", no_argument, NULL, 'i'},
		{NULL, 0, NULL, 0},
	};
	long *const numbers[] = {['r'] = &settings.rows,
		['b'] = &settings.batch,
		['f'] = &settings.in_flight,
		['c'] = &settings.clients,
		['s'] = &settings.senders,
		['e'] = &settings.envelope,
		['m'] = &settings.segment};
	bool good = true;
	for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
		if (option == '?')
			good = false;
		else if (option == 'g')
			settings.registered = true;
		else if (option == 'i')
			settings.indexes = true;
		else
			good = parse_number(optarg, numbers[option]) && good;
	}
	settings.dir = argv[optind];
	good = good && optind + 1 == argc && settings.batch >= 1 && settings.batch <= STORE_MESSAGES_MAX &&
	       settings.rows >= settings.batch * PARTS && settings.in_flight >= 1 && settings.clients >= 1 &&
	       settings.senders >= 1 && settings.envelope >= 1 && settings.envelope <= ENVELOPE_MAX &&
	       (!settings.indexes || SEGMENT_ROWS % settings.batch == 0);
	if (!good) {
		fputs("usage: bench_store [--indexes] [--rows N] [--batch N] [--in-flight N] [--clients N] [--senders N]\n"
		      "                   [--envelope N] [--segment N] [--registered] DIR\n",
			stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	make_names();
	if (settings.indexes)
		bench_indexes();
	else
		bench_store();
	free(client_names);
	return 0;
}
