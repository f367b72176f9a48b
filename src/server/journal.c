/* journal.c - see journal.h. What the file holds is kept in one of the C library's trees (tsearch(3)). Lines are
 * written by one write each to a file opened for appending, so that two never mix. */
#include "server/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"

enum { FILE_BYTES_MAX = 1 << 30, LINE_BYTES = 256 };

struct journal {
	char *path;
	int fd;
	pthread_mutex_t lock;     /* guards what follows */
	void *by_cert, *by_token; /* struct journal_entry, struct journal_token */
	bool dirty, torn;         /* written and not synced; the file ends within a line */
};

static int compare_certs(const void *a, const void *b)
{
	const struct store_cert_id *x = a, *y = b; /* the first member of an entry */
	int c = memcmp(x->issuer_key_id, y->issuer_key_id, sizeof(x->issuer_key_id));
	if (c)
		return c;
	return str_cmp(str_mem(x->serial, x->serial_bytes), str_mem(y->serial, y->serial_bytes));
}

static int compare_tokens(const void *a, const void *b)
{
	return memcmp(a, b, STORE_TOKEN_ID_BYTES); /* the first member of a token */
}

/* A revocation stays what it was at first. */
static int remember_cert(struct journal *j, const struct journal_entry *entry, struct err *e)
{
	struct journal_entry *fresh = malloc(sizeof(*fresh));
	if (!fresh)
		return err_oom(e);
	*fresh = *entry;
	struct journal_entry **at = tsearch(fresh, &j->by_cert, compare_certs);
	if (!at || *at != fresh)
		free(fresh);
	return at ? 0 : err_oom(e);
}

/* The newest uses, the first revocation. */
static void merge(struct journal_token *into, const struct journal_token *from)
{
	if (from->uses > into->uses) {
		into->uses = from->uses;
		into->used_at = from->used_at;
	}
	if (!into->revoked_at.ms)
		into->revoked_at = from->revoked_at;
}

static int remember_token(struct journal *j, const struct journal_token *token, struct err *e)
{
	struct journal_token *fresh = malloc(sizeof(*fresh));
	if (!fresh)
		return err_oom(e);
	*fresh = *token;
	struct journal_token **at = tsearch(fresh, &j->by_token, compare_tokens);
	if (!at || *at != fresh)
		free(fresh);
	if (!at)
		return err_oom(e);
	merge(*at, token);
	return 0;
}

/* --- lines --- */

static const char token_word[] = "token";

static int print_cert(const struct journal_entry *entry, char out[LINE_BYTES])
{
	char issuer[2 * STORE_KEY_ID_BYTES + 1], serial[2 * SERIAL_MAX_BYTES + 1], at[RFC3339_BYTES];
	hex_encode(entry->cert.issuer_key_id, STORE_KEY_ID_BYTES, issuer);
	hex_encode(entry->cert.serial, entry->cert.serial_bytes, serial);
	wall_format(entry->at, at);
	return snprintf(out, LINE_BYTES, "%s %s %s %s\n", issuer, serial, at, entry->reason);
}

static bool parse_cert(struct str line, struct journal_entry *ret)
{
	struct str issuer, serial, at;
	*ret = (struct journal_entry){.at = {0}};
	if (!str_cut(&line, ' ', &issuer) || !str_cut(&line, ' ', &serial) || !str_cut(&line, ' ', &at))
		return false;
	ret->cert.serial_bytes = (unsigned)(serial.n / 2);
	if (!serial.n || serial.n / 2 > SERIAL_MAX_BYTES || !line.n || line.n >= sizeof(ret->reason))
		return false;
	memcpy(ret->reason, line.p, line.n);
	return hex_decode(issuer, ret->cert.issuer_key_id, STORE_KEY_ID_BYTES) &&
	       hex_decode(serial, ret->cert.serial, ret->cert.serial_bytes) && wall_parse(at, &ret->at);
}

/* What `token` has more than `known`, a line each. */
static void print_token(const struct journal_token *token, const struct journal_token *known, struct buf *out)
{
	char id[2 * STORE_TOKEN_ID_BYTES + 1], at[RFC3339_BYTES];
	hex_encode(token->id, STORE_TOKEN_ID_BYTES, id);
	if (token->uses > known->uses) {
		wall_format(token->used_at, at);
		buf_addf(out, "%s %s %s used %u\n", token_word, id, at, token->uses);
	}
	if (token->revoked_at.ms && !known->revoked_at.ms) {
		wall_format(token->revoked_at, at);
		buf_addf(out, "%s %s %s revoked\n", token_word, id, at);
	}
}

/* The line after its first word. */
static bool parse_token(struct str line, struct journal_token *ret)
{
	struct str id, at, word;
	struct wall time;
	uint64_t uses;
	*ret = (struct journal_token){.uses = 0};
	if (!str_cut(&line, ' ', &id) || !str_cut(&line, ' ', &at) ||
		!hex_decode(id, ret->id, STORE_TOKEN_ID_BYTES) || !wall_parse(at, &time))
		return false;
	if (str_eq(line, STR("revoked"))) {
		ret->revoked_at = time;
		return true;
	}
	if (!str_cut(&line, ' ', &word) || !str_eq(word, STR("used")) || !str_to_u64(line, &uses) ||
		uses == 0 || uses > STORE_TOKEN_USES_MAX)
		return false;
	ret->uses = (unsigned)uses;
	ret->used_at = time;
	return true;
}

enum { UNREADABLE = 1 };

static int take_line(struct journal *j, struct str line, struct err *e)
{
	struct journal_entry entry;
	struct journal_token token;
	struct str rest = line, word;
	if (str_cut(&rest, ' ', &word) && str_eq(word, str_of(token_word)))
		return parse_token(rest, &token) ? remember_token(j, &token, e) : UNREADABLE;
	return parse_cert(line, &entry) ? remember_cert(j, &entry, e) : UNREADABLE;
}

/* --- open, close --- */

static int read_lines(struct journal *j, struct str text, unsigned *ret_unreadable, struct err *e)
{
	struct str line;
	j->torn = text.n && text.p[text.n - 1] != '\n';
	while (str_cut(&text, '\n', &line)) {
		int rc = take_line(j, line, e);
		if (rc < 0)
			return -1;
		*ret_unreadable += rc == UNREADABLE;
	}
	*ret_unreadable += j->torn;
	return 0;
}

static int open_file(struct journal *j, unsigned *ret_unreadable, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, FILE_BYTES_MAX);
	j->fd = open(j->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (j->fd < 0)
		return err_sys(e, ERR_FATAL, "open '%s'", j->path);
	if (file_read(j->path, FILE_BYTES_MAX, &text, e) < 0 || dir_sync_parent(j->path, e) < 0)
		return -1;
	return read_lines(j, buf_str(&text), ret_unreadable, e);
}

int journal_open(const char *path, struct journal **ret, unsigned *ret_unreadable, struct err *e)
{
	struct journal *j = calloc(1, sizeof(*j));
	if (!j)
		return err_oom(e);
	j->fd = -1;
	*ret_unreadable = 0;
	pthread_mutex_init(&j->lock, NULL);
	j->path = strdup(path);
	if (!j->path || open_file(j, ret_unreadable, e) < 0) {
		int rc = j->path ? -1 : err_oom(e);
		journal_close(j);
		return rc;
	}
	*ret = j;
	return 0;
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	if (j->fd >= 0)
		close(j->fd);
	tdestroy(j->by_cert, free);
	tdestroy(j->by_token, free);
	pthread_mutex_destroy(&j->lock);
	free(j->path);
	free(j);
}

/* --- use --- */

bool journal_find(struct journal *j, const struct store_cert_id *cert, struct journal_entry *ret)
{
	pthread_mutex_lock(&j->lock);
	struct journal_entry *const *at = tfind(cert, &j->by_cert, compare_certs);
	if (at)
		*ret = **at;
	pthread_mutex_unlock(&j->lock);
	return at;
}

bool journal_find_token(struct journal *j, const uint8_t *id, struct journal_token *ret)
{
	pthread_mutex_lock(&j->lock);
	struct journal_token *const *at = tfind(id, &j->by_token, compare_tokens);
	if (at)
		*ret = **at;
	pthread_mutex_unlock(&j->lock);
	return at;
}

/* Under the lock. */
static int append(struct journal *j, struct str lines, struct err *e)
{
	char text[LINE_BYTES + 1] = "\n";
	/* What was cut off shall not swallow the next line. */
	size_t start = j->torn ? 1 : 0;
	require(start + lines.n <= sizeof(text));
	memcpy(text + start, lines.p, lines.n);
	size_t n = start + lines.n;
	ssize_t written = write(j->fd, text, n);
	if (written < 0)
		return err_sys(e, ERR_RETRY, "write '%s'", j->path);
	j->torn = (size_t)written != n;
	if (j->torn)
		return err_set(e, ERR_RETRY, "write '%s': the disk is full", j->path);
	j->dirty = true;
	return 0;
}

static int add_cert(struct journal *j, const struct journal_entry *entry, struct err *e)
{
	char line[LINE_BYTES];
	if (tfind(entry, &j->by_cert, compare_certs))
		return 0;
	int n = print_cert(entry, line);
	return append(j, str_mem(line, (size_t)n), e) < 0 ? -1 : remember_cert(j, entry, e);
}

int journal_add(struct journal *j, const struct journal_entry *entry, struct err *e)
{
	pthread_mutex_lock(&j->lock);
	int rc = add_cert(j, entry, e);
	pthread_mutex_unlock(&j->lock);
	return rc;
}

static int add_token(struct journal *j, const struct journal_token *token, struct err *e)
{
	static const struct journal_token unknown;
	struct journal_token *const *at = tfind(token, &j->by_token, compare_tokens);
	char text[LINE_BYTES];
	struct buf lines = {.p = text, .room = sizeof(text), .ceiling_bytes = sizeof(text)};
	print_token(token, at ? *at : &unknown, &lines);
	if (!lines.n)
		return 0;
	return append(j, buf_str(&lines), e) < 0 ? -1 : remember_token(j, token, e);
}

int journal_add_token(struct journal *j, const struct journal_token *token, struct err *e)
{
	pthread_mutex_lock(&j->lock);
	int rc = add_token(j, token, e);
	pthread_mutex_unlock(&j->lock);
	return rc;
}

int journal_sync(struct journal *j, struct err *e)
{
	pthread_mutex_lock(&j->lock);
	int rc = j->dirty && fdatasync(j->fd) < 0 ? err_sys(e, ERR_RETRY, "sync '%s'", j->path) : 0;
	if (rc >= 0)
		j->dirty = false;
	pthread_mutex_unlock(&j->lock);
	return rc;
}
