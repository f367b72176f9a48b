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
	pthread_mutex_t lock; /* guards what follows */
	void *by_cert;        /* struct journal_entry */
	bool dirty, torn;     /* written and not synced; the file ends within a line */
};

static int compare(const void *a, const void *b)
{
	const struct store_cert_id *x = a, *y = b; /* the first member of an entry */
	int c = memcmp(x->issuer_key_id, y->issuer_key_id, sizeof(x->issuer_key_id));
	if (c)
		return c;
	return str_cmp(str_mem(x->serial, x->serial_bytes), str_mem(y->serial, y->serial_bytes));
}

/* *ret_added: it was not there yet. */
static int remember(struct journal *j, const struct journal_entry *entry, bool *ret_added, struct err *e)
{
	struct journal_entry *fresh = malloc(sizeof(*fresh));
	if (!fresh)
		return err_oom(e);
	*fresh = *entry;
	struct journal_entry **at = tsearch(fresh, &j->by_cert, compare);
	*ret_added = at && *at == fresh;
	if (!*ret_added)
		free(fresh);
	return at ? 0 : err_oom(e);
}

/* --- lines --- */

static int print_line(const struct journal_entry *entry, char out[LINE_BYTES])
{
	char issuer[2 * STORE_KEY_ID_BYTES + 1], serial[2 * SERIAL_MAX_BYTES + 1], at[RFC3339_BYTES];
	hex_encode(entry->cert.issuer_key_id, STORE_KEY_ID_BYTES, issuer);
	hex_encode(entry->cert.serial, entry->cert.serial_bytes, serial);
	wall_format(entry->at, at);
	return snprintf(out, LINE_BYTES, "%s %s %s %s\n", issuer, serial, at, entry->reason);
}

static bool parse_line(struct str line, struct journal_entry *ret)
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

/* --- open, close --- */

static int read_lines(struct journal *j, struct str text, unsigned *ret_unreadable, struct err *e)
{
	struct str line;
	j->torn = text.n && text.p[text.n - 1] != '\n';
	while (str_cut(&text, '\n', &line)) {
		struct journal_entry entry;
		bool added;
		if (!parse_line(line, &entry))
			++*ret_unreadable;
		else if (remember(j, &entry, &added, e) < 0)
			return -1;
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
	pthread_mutex_destroy(&j->lock);
	free(j->path);
	free(j);
}

/* --- use --- */

bool journal_find(struct journal *j, const struct store_cert_id *cert, struct journal_entry *ret)
{
	pthread_mutex_lock(&j->lock);
	struct journal_entry *const *at = tfind(cert, &j->by_cert, compare);
	if (at)
		*ret = **at;
	pthread_mutex_unlock(&j->lock);
	return at;
}

/* Under the lock. */
static int append(struct journal *j, const struct journal_entry *entry, struct err *e)
{
	char line[LINE_BYTES + 1] = "\n";
	/* What was cut off shall not swallow the next line. */
	size_t start = j->torn ? 1 : 0;
	size_t n = start + (size_t)print_line(entry, line + start);
	ssize_t written = write(j->fd, line, n);
	if (written < 0)
		return err_sys(e, ERR_RETRY, "write '%s'", j->path);
	j->torn = (size_t)written != n;
	if (j->torn)
		return err_set(e, ERR_RETRY, "write '%s': the disk is full", j->path);
	j->dirty = true;
	return 0;
}

int journal_add(struct journal *j, const struct journal_entry *entry, struct err *e)
{
	bool added;
	pthread_mutex_lock(&j->lock);
	int rc = remember(j, entry, &added, e);
	if (rc >= 0 && added) {
		rc = append(j, entry, e);
		if (rc < 0) {
			struct journal_entry *forgotten =
				*(struct journal_entry **)tfind(entry, &j->by_cert, compare);
			tdelete(entry, &j->by_cert, compare);
			free(forgotten);
		}
	}
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
