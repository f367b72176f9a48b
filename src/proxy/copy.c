/* copy.c - see copy.h. When it was last confirmed is the file's time of modification. */
#include "proxy/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "role/wire.h"

enum {
	LOG_BYTES = 512 * 1024 * 1024,
	PAGE_BYTES = 16 * 1024 * 1024,
	COMPACT_MIN_LINES = 10000,
};

struct copy {
	char *path;
	struct registry *registry;
	int fd;
	size_t lines;
	bool behind; /* rows are in force that it does not have, or it holds what cannot be read */
	struct copy_mark mark;
};

/* --- lines --- */

static void put_row(struct buf *text, const struct registry_row *row)
{
	struct json_out w = json_out_to(text);
	wire_put_row(&w, row);
	buf_add_char(text, '\n');
}

static void put_mark(struct buf *text, const struct copy_mark *mark)
{
	struct json_out w = json_out_to(text);
	json_open_object(&w, NULL);
	json_put_str(&w, "epoch", str_of(mark->epoch));
	json_put_int(&w, "change", mark->change);
	json_close_object(&w);
	buf_add_char(text, '\n');
}

static bool take_mark(const json_t *in, struct copy_mark *ret)
{
	const char *epoch = json_string_value(json_object_get(in, "epoch"));
	const json_t *change = json_object_get(in, "change");
	if (!epoch || strlen(epoch) > COPY_EPOCH_BYTES || !json_is_integer(change) ||
		json_integer_value(change) < 0)
		return false;
	snprintf(ret->epoch, sizeof(ret->epoch), "%s", epoch);
	ret->change = json_integer_value(change);
	return true;
}

/* --- reading --- */

/* False when the line makes no sense. */
static bool replay_line(struct copy *c, struct str line, struct arena *arena)
{
	AUTO(json_auto) json_t *in = NULL;
	struct registry_row row;
	arena_reset(arena);
	if (json_read(line, &in, NULL) < 0)
		return false;
	if (json_object_get(in, "epoch"))
		return take_mark(in, &c->mark);
	return wire_take_row(in, arena, &row, NULL) == 0 && registry_merge(c->registry, &row, 1, NULL) == 0;
}

/* *ret_whole is where the last whole line ends, *ret_torn whether something follows it. */
static int replay(struct copy *c, size_t *ret_whole, bool *ret_torn, size_t *ret_damaged, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	AUTO(arena_auto) struct arena arena;
	struct err why = ERR_INIT;
	buf_init(&text, LOG_BYTES);
	arena_init(&arena, PAGE_BYTES);
	*ret_whole = *ret_damaged = 0;
	*ret_torn = false;
	if (file_read(c->path, LOG_BYTES, &text, &why) < 0) {
		if (why.kind == ERR_NOT_FOUND)
			return 0;
		*e = why;
		return -1;
	}
	struct str rest = buf_str(&text), line;
	while (str_cut(&rest, '\n', &line)) {
		*ret_damaged += !replay_line(c, line, &arena);
		c->lines++;
	}
	*ret_whole = text.n - rest.n;
	*ret_torn = rest.n > 0;
	return 0;
}

int copy_open(
	const char *path, struct registry *registry, struct copy **ret, size_t *ret_damaged, struct err *e)
{
	struct copy *c = calloc(1, sizeof(*c));
	size_t whole;
	bool torn;
	if (!c)
		return err_oom(e);
	c->fd = -1;
	c->registry = registry;
	c->path = strdup(path);
	int rc = c->path ? replay(c, &whole, &torn, ret_damaged, e) : err_oom(e);
	if (rc >= 0) {
		c->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		/* To truncate is to modify, and the time of that is when the list was confirmed. */
		if (c->fd < 0 || (torn && ftruncate(c->fd, (off_t)whole) < 0))
			rc = err_sys(e, ERR_FATAL, "open '%s'", path);
	}
	if (rc < 0) {
		copy_close(c);
		return -1;
	}
	if (*ret_damaged) {
		c->behind = true;
		c->mark = (struct copy_mark){.change = 0};
	}
	*ret = c;
	return 0;
}

void copy_close(struct copy *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	free(c->path);
	free(c);
}

const struct copy_mark *copy_mark(const struct copy *c)
{
	return &c->mark;
}

/* --- writing --- */

static int append(struct copy *c, const struct registry_row *rows, size_t count, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, PAGE_BYTES);
	for (size_t i = 0; i < count; i++)
		put_row(&text, &rows[i]);
	put_mark(&text, &c->mark);
	if (buf_check(&text, e) < 0)
		return -1;
	for (size_t done = 0; done < text.n;) {
		ssize_t n = write(c->fd, text.p + done, text.n - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, ERR_RETRY, "write '%s'", c->path);
		done += (size_t)n;
	}
	if (fdatasync(c->fd) < 0)
		return err_sys(e, ERR_RETRY, "sync '%s'", c->path);
	c->lines += count + 1;
	return 0;
}

static void add_row(void *arg, const struct registry_row *row)
{
	put_row(arg, row);
}

/* One line a certificate, and the mark. */
static int rewrite(struct copy *c, struct err *e)
{
	AUTO(buf_auto) struct buf text;
	buf_init(&text, LOG_BYTES);
	registry_each(c->registry, add_row, &text);
	put_mark(&text, &c->mark);
	if (buf_check(&text, e) < 0 || file_replace(c->path, 0600, buf_str(&text), e) < 0)
		return -1;
	int fd = open(c->path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, ERR_RETRY, "open '%s'", c->path);
	close(c->fd);
	c->fd = fd;
	c->lines = registry_count(c->registry) + 1;
	c->behind = false;
	return 0;
}

int copy_add(struct copy *c, const struct registry_row *rows, size_t count, const struct copy_mark *mark,
	struct err *e)
{
	bool news = count || strcmp(c->mark.epoch, mark->epoch) != 0 || c->mark.change != mark->change;
	c->mark = *mark;
	if (!news && !c->behind) {
		/* A time that cannot be set makes the copy look older than it is, no worse. */
		(void)futimens(c->fd, NULL);
		return 0;
	}
	if (!c->behind && append(c, rows, count, e) < 0) {
		c->behind = true;
		return -1;
	}
	bool grown = c->lines >= COMPACT_MIN_LINES && c->lines >= 2 * registry_count(c->registry);
	return c->behind || grown ? rewrite(c, e) : 0;
}

struct wall copy_confirmed_at(const struct copy *c)
{
	struct stat st;
	if (!c->mark.epoch[0] || fstat(c->fd, &st) < 0)
		return (struct wall){0};
	return (struct wall){st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000};
}
