/* sqlite_schema.c - the schema of store.db, as the sequence of changes that made it.
 *
 * Times are milliseconds since 1970 (…_ms). States and statuses are the numbers of the enums; they are pinned
 * here because they are on disk.
 *
 * messages    one row each; seq is the order of arrival, id the sender's time-ordered UUID. The envelope is
 * the last column, so that reading the facts before it touches no overflow page. origins     (client, domain)
 * pairs as small numbers: what rows and indexes carry instead of two names. segments    stretches of messages
 * that are indexed, with the range of times in them. Messages after the last one are the tail: found by
 * looking at each. Why: doc/decisions/0006-store-indexes.md. by_sender,  the index entries of each segment:
 * seq by the first eight bytes of the sender's blind index (the row by_origin   has all of it), and by
 * origin. counters    numbers that the writer keeps: sequence, what is indexed, change numbers, rows by table
 * and state. audit       the chain of store.h. */
#include "store/sqlite_schema.h"

#include "store/store.h"

_Static_assert(
	MESSAGE_QUEUED == 0 && MESSAGE_PROCESSING == 1 && MESSAGE_DELIVERED == 2 && MESSAGE_FAILED == 3,
	"states are on disk: a new one goes to the end");
_Static_assert(CLIENT_ACTIVE == 0 && CLIENT_SUSPENDED == 1 && CLIENT_REMOVED == 2,
	"statuses are on disk: a new one goes to the end");

static const char first_schema[] =
	"CREATE TABLE messages ("
	"  seq INTEGER PRIMARY KEY,"
	"  id BLOB NOT NULL,"
	"  origin INTEGER NOT NULL,"
	"  accepted_ms INTEGER NOT NULL,"
	"  state INTEGER NOT NULL,"
	"  attempts INTEGER NOT NULL,"
	"  stored_ms INTEGER NOT NULL,"
	"  updated_ms INTEGER NOT NULL,"
	"  delivered_ms INTEGER," /* NULL: not delivered */
	"  sender BLOB,"          /* NULL: not known */
	"  error TEXT,"
	"  traceparent TEXT,"
	"  envelope BLOB NOT NULL"
	") STRICT;"
	"CREATE UNIQUE INDEX messages_by_id ON messages (id);"
	"CREATE INDEX messages_undelivered ON messages (state) WHERE state <> 2;" /* and, as in any index, by
										     seq */

	"CREATE TABLE origins ("
	"  ref INTEGER PRIMARY KEY,"
	"  client TEXT NOT NULL,"
	"  domain TEXT NOT NULL"
	") STRICT;"
	"CREATE UNIQUE INDEX origins_by_client ON origins (client, domain);"
	"CREATE INDEX origins_by_domain ON origins (domain);"

	"CREATE TABLE segments ("
	"  first_seq INTEGER PRIMARY KEY,"
	"  last_seq INTEGER NOT NULL,"
	"  min_accepted_ms INTEGER NOT NULL,"
	"  max_accepted_ms INTEGER NOT NULL"
	") STRICT;"
	"CREATE TABLE by_sender ("
	"  segment INTEGER NOT NULL," /* segments.first_seq */
	"  sender BLOB NOT NULL,"
	"  seq INTEGER NOT NULL,"
	"  PRIMARY KEY (segment, sender, seq)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE by_origin ("
	"  segment INTEGER NOT NULL,"
	"  origin INTEGER NOT NULL,"
	"  seq INTEGER NOT NULL,"
	"  PRIMARY KEY (segment, origin, seq)"
	") STRICT, WITHOUT ROWID;"

	"CREATE TABLE clients ("
	"  name TEXT PRIMARY KEY,"
	"  domain TEXT NOT NULL,"
	"  status INTEGER NOT NULL,"
	"  created_ms INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX clients_by_domain ON clients (domain, name);"

	"CREATE TABLE certs ("
	"  ref INTEGER PRIMARY KEY,"
	"  serial BLOB NOT NULL,"
	"  issuer BLOB NOT NULL,"
	"  role TEXT NOT NULL,"
	"  name TEXT NOT NULL,"
	"  domain TEXT NOT NULL,"
	"  not_before_ms INTEGER NOT NULL,"
	"  not_after_ms INTEGER NOT NULL,"
	"  issued_ms INTEGER NOT NULL,"
	"  revoked_ms INTEGER," /* NULL: not revoked */
	"  reason TEXT,"
	"  change INTEGER NOT NULL,"
	"  der BLOB NOT NULL"
	") STRICT;"
	"CREATE UNIQUE INDEX certs_by_serial ON certs (serial, issuer);"
	"CREATE UNIQUE INDEX certs_by_change ON certs (change);"
	"CREATE INDEX certs_by_name ON certs (name);"

	"CREATE TABLE audit ("
	"  sequence INTEGER PRIMARY KEY,"
	"  at_ms INTEGER NOT NULL,"
	"  actor TEXT NOT NULL,"
	"  origin TEXT NOT NULL,"
	"  action TEXT NOT NULL,"
	"  target TEXT NOT NULL,"
	"  result TEXT NOT NULL,"
	"  detail TEXT NOT NULL,"
	"  hash BLOB NOT NULL"
	") STRICT;"

	"CREATE TABLE counters ("
	"  name TEXT PRIMARY KEY,"
	"  value INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;";

/* Columns of a certificate: the one that it renews, and when its bearer came with it. */
static const char enrolment[] =
	"ALTER TABLE certs ADD COLUMN renews BLOB;"
	"ALTER TABLE certs ADD COLUMN renews_issuer BLOB;"
	"ALTER TABLE certs ADD COLUMN first_seen_ms INTEGER;"
	"ALTER TABLE certs ADD COLUMN seen_ms INTEGER;"
	"CREATE INDEX certs_by_renewal ON certs (renews, renews_issuer) WHERE renews IS NOT NULL;"
	"CREATE INDEX certs_renewed_by_use ON certs (first_seen_ms) WHERE renews IS NOT NULL;"

	"CREATE TABLE tokens ("
	"  ref INTEGER PRIMARY KEY,"
	"  id BLOB NOT NULL," /* the first bytes of the hash */
	"  hash BLOB NOT NULL,"
	"  name TEXT NOT NULL,"
	"  domain TEXT NOT NULL,"
	"  role TEXT NOT NULL,"
	"  names TEXT NOT NULL,"
	"  days INTEGER NOT NULL,"
	"  created_ms INTEGER NOT NULL,"
	"  expires_ms INTEGER NOT NULL,"
	"  uses_max INTEGER NOT NULL,"
	"  uses INTEGER NOT NULL,"
	"  used_ms INTEGER,"
	"  revoked_ms INTEGER"
	") STRICT;"
	"CREATE UNIQUE INDEX tokens_by_id ON tokens (id);"
	"CREATE INDEX tokens_by_name ON tokens (name);"
	"CREATE TABLE token_uses ("
	"  token BLOB NOT NULL,"
	"  key BLOB NOT NULL,"
	"  serial BLOB," /* NULL: no certificate yet */
	"  issuer BLOB,"
	"  PRIMARY KEY (token, key)"
	") STRICT, WITHOUT ROWID;";

const struct migration sqlite_migrations[] = {
	{1, "first schema", first_schema},
	{2, "enrolment", enrolment},
};
const unsigned sqlite_migration_count = ARRAY_LEN(sqlite_migrations);
