/* sqlite.c - the embedded engine: opening, closing, connections. The writer's half is sqlite_write.c, the
 * readers' half sqlite_read.c, the tables sqlite_schema.c.
 *
 * One connection writes and checkpoints, and only it: SQLite before 3.51.3 can corrupt the file when two
 * connections write or checkpoint at once (the WAL-reset bug). So a lock file keeps a second process out,
 * readers are opened read only, never checkpoint, and are closed before the writer. synchronous=FULL makes
 * every commit an fsync of the write-ahead log: a commit that returned survives power loss. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/file.h"
#include "store/sqlite_schema.h"
#include "store/sqlite_store.h"

enum {
	APPLICATION_ID = 0x5ea1b057, /* in the file's header, against opening something else */
	PAGE_BYTES = 4096,
	WRITER_CACHE_KIB = 8192,
	READER_CACHE_KIB = 1024,
	DEFAULT_SEGMENT_ROWS = 8192,
	DEFAULT_CHECKPOINT_PAGES = 4096,
	DEFAULT_READERS = 4,
};

static unsigned or_default(unsigned value, unsigned fallback)
{
	return value ? value : fallback;
}

static int set_pragma(const struct sq *s, const char *name, int64_t value, struct err *e)
{
	char sql[80];
	snprintf(sql, sizeof(sql), "PRAGMA %s = %lld", name, (long long)value);
	return sq_exec(s, sql, e);
}

/* --- the file --- */

/* SQLite would create the file with the umask's mode; its -wal and -shm take theirs from it. */
static int make_private_file(const char *path, struct err *e)
{
	AUTO(fd_auto) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		return 0;
	return err_sys(e, errno == ENOSPC || errno == EIO ? ERR_RETRY : ERR_FATAL, "open '%s'", path);
}

/* Marks a file that is new; any other must carry our mark. */
static int claim_file(const struct sq *s, struct err *e)
{
	int64_t application_id, objects;
	if (sq_exec_int(s, "PRAGMA application_id", &application_id, e) < 0 ||
		sq_exec_int(s, "SELECT count(*) FROM sqlite_schema", &objects, e) < 0)
		return -1;
	if (application_id == APPLICATION_ID)
		return 0;
	if (application_id != 0 || objects != 0)
		return err_set(e, ERR_FATAL, "this database belongs to another program");
	return set_pragma(s, "application_id", APPLICATION_ID, e);
}

static int schema_version(void *db, unsigned *ret, struct err *e)
{
	int64_t version;
	if (sq_exec_int(db, "PRAGMA user_version", &version, e) < 0)
		return -1;
	if (version < 0)
		return err_set(e, ERR_FATAL, "schema version %lld", (long long)version);
	*ret = (unsigned)version;
	return 0;
}

static int schema_apply(void *db, const struct migration *m, struct err *e)
{
	const struct sq *s = db;
	if (sq_exec(s, "BEGIN IMMEDIATE", e) < 0)
		return -1;
	/* A failure ends with the connection closed, which rolls back. */
	if (sq_exec(s, m->sql, e) < 0 || set_pragma(s, "user_version", m->number, e) < 0)
		return -1;
	return sq_exec(s, "COMMIT", e);
}

static const struct migration_engine schema_engine = {
	.version = schema_version,
	.apply = schema_apply,
};

/* The page size of a new file must be set before anything else touches it. */
static int set_up_writer(struct sq *s, struct err *e)
{
	if (set_pragma(s, "page_size", PAGE_BYTES, e) < 0 || claim_file(s, e) < 0 ||
		sq_exec_expect(s, "PRAGMA journal_mode = WAL", "wal", e) < 0 ||
		set_pragma(s, "synchronous", 2, e) < 0 ||
		sq_exec_expect(s, "PRAGMA synchronous", "2", e) < 0 ||
		set_pragma(s, "cache_size", -WRITER_CACHE_KIB, e) < 0)
		return -1;
	return migrations_run(sqlite_migrations, sqlite_migration_count, &schema_engine, s, e);
}

/* --- readers --- */

static void reader_free(struct sqlite_reader *r)
{
	if (!r)
		return;
	sq_close(&r->sq);
	free(r);
}

AUTO_DEFINE(reader_free, struct sqlite_reader *)

static int reader_new(const struct sqlite_store *s, struct sqlite_reader **ret, struct err *e)
{
	AUTO(reader_free_auto) struct sqlite_reader *r = calloc(1, sizeof(*r));
	if (!r)
		return err_oom(e);
	if (sq_open(&r->sq, s->path, SQLITE_OPEN_READONLY, e) < 0)
		return -1;
	sqlite3_db_config(r->sq.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	if (sq_exec_expect(&r->sq, "PRAGMA wal_autocheckpoint = 0", "0", e) < 0 ||
		set_pragma(&r->sq, "query_only", 1, e) < 0 ||
		set_pragma(&r->sq, "cache_size", -READER_CACHE_KIB, e) < 0 || sqlite_reader_start(r, e) < 0)
		return -1;
	*ret = TAKE(r);
	return 0;
}

int sqlite_reader_take(struct sqlite_store *s, struct sqlite_reader **ret, struct err *e)
{
	pthread_mutex_lock(&s->lock);
	while (!s->idle && s->reader_count == s->reader_limit)
		pthread_cond_wait(&s->reader_back, &s->lock);
	struct sqlite_reader *r = s->idle;
	if (r)
		s->idle = r->next;
	else
		s->reader_count++; /* the place is ours; the connection follows, without the lock */
	pthread_mutex_unlock(&s->lock);
	if (r || reader_new(s, &r, e) == 0) {
		*ret = r;
		return 0;
	}
	pthread_mutex_lock(&s->lock);
	s->reader_count--;
	pthread_cond_signal(&s->reader_back);
	pthread_mutex_unlock(&s->lock);
	return err_context(e, "open '%s' for reading", s->path);
}

void sqlite_reader_give(struct sqlite_store *s, struct sqlite_reader *r)
{
	pthread_mutex_lock(&s->lock);
	r->next = s->idle;
	s->idle = r;
	pthread_cond_signal(&s->reader_back);
	pthread_mutex_unlock(&s->lock);
}

/* --- open and close --- */

static void sqlite_close(void *state)
{
	struct sqlite_store *s = state;
	if (!s)
		return;
	while (s->idle) {
		struct sqlite_reader *r = s->idle;
		s->idle = r->next;
		reader_free(r);
	}
	sqlite_writer_stop(&s->writer);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	pthread_cond_destroy(&s->reader_back);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s);
}

AUTO_DEFINE(sqlite_close, struct sqlite_store *)

static int take_lock(struct sqlite_store *s, const char *dir, struct err *e)
{
	AUTO(free_auto) char *path = path_join(dir, "store.lock");
	return path ? file_lock(path, &s->lock_fd, e) : err_oom(e);
}

static int open_writer(struct sqlite_store *s, struct err *e)
{
	if (make_private_file(s->path, e) < 0)
		return -1;
	if (sq_open(&s->writer.sq, s->path, SQLITE_OPEN_READWRITE, e) < 0 ||
		set_up_writer(&s->writer.sq, e) < 0 || sqlite_writer_start(&s->writer, e) < 0)
		return err_context(e, "open '%s'", s->path);
	return 0;
}

static int sqlite_open(const struct store_driver_options *o, void **ret_state, struct err *e)
{
	static const struct store_sqlite_options defaults;
	const struct store_sqlite_options *options = o->arg ? o->arg : &defaults;
	if (!o->location)
		return err_set(e, ERR_REJECT, "the sqlite store needs a directory");
	AUTO(sqlite_close_auto) struct sqlite_store *s = calloc(1, sizeof(*s));
	if (!s)
		return err_oom(e);
	s->lock_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->reader_back, NULL);
	s->reader_limit = or_default(options->readers, DEFAULT_READERS);
	s->writer.segment_rows = or_default(options->segment_rows, DEFAULT_SEGMENT_ROWS);
	s->writer.checkpoint_pages = or_default(options->checkpoint_pages, DEFAULT_CHECKPOINT_PAGES);
	s->path = path_join(o->location, "store.db");
	if (!s->path)
		return err_oom(e);
	if (take_lock(s, o->location, e) < 0 || open_writer(s, e) < 0)
		return -1;
	snprintf(s->description, sizeof(s->description), "sqlite %s, schema %u", sqlite3_libversion(),
		sqlite_migration_count);
	*ret_state = TAKE(s);
	return 0;
}

static const char *sqlite_description(void *state)
{
	const struct sqlite_store *s = state;
	return s->description;
}

const struct store_driver store_driver_sqlite = {
	.name = "sqlite",
	.open = sqlite_open,
	.close = sqlite_close,
	.description = sqlite_description,
	.begin = sqlite_begin,
	.commit = sqlite_commit,
	.abort = sqlite_abort,
	.put_messages = sqlite_put_messages,
	.put_status = sqlite_put_status,
	.expire = sqlite_expire,
	.put_client = sqlite_put_client,
	.put_cert = sqlite_put_cert,
	.revoke = sqlite_revoke,
	.put_seen = sqlite_put_seen,
	.supersede = sqlite_supersede,
	.put_token = sqlite_put_token,
	.use_token = sqlite_use_token,
	.revoke_tokens = sqlite_revoke_tokens,
	.restore_token = sqlite_restore_token,
	.purge_tokens = sqlite_purge_tokens,
	.audit_head = sqlite_audit_head,
	.put_audit = sqlite_put_audit,
	.probe = sqlite_probe,
	.read_messages = sqlite_read_messages,
	.read_message = sqlite_read_message,
	.read_counts = sqlite_read_counts,
	.read_clients = sqlite_read_clients,
	.read_client = sqlite_read_client,
	.read_certs = sqlite_read_certs,
	.read_tokens = sqlite_read_tokens,
	.read_audit = sqlite_read_audit,
	.check = sqlite_check,
};
