/* file.c - see file.h.
 *
 * Durability follows one pattern: write beside, fsync the file, rename over, fsync the directory. Before the
 * rename a crash leaves the old file and a stray temporary one; after it the new file. Locks are flock(2):
 * they belong to the open file, so that two opens in one process exclude each other as well. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"

enum { LOCK_RETRY_NS = 10 * 1000 * 1000 };

static enum err_kind kind_of(int sys_errno)
{
	switch (sys_errno) {
	case ENOENT:
	case ENOTDIR:
		return ERR_NOT_FOUND;
	case ENOSPC:
	case EDQUOT:
	case EIO:
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return ERR_RETRY;
	default:
		return ERR_FATAL;
	}
}

static int file_err(struct err *e, const char *verb, const char *path)
{
	return err_sys(e, kind_of(errno), "%s '%s'", verb, path);
}

char *path_join(const char *dir, const char *name)
{
	size_t n = strlen(dir);
	const char *slash = n && dir[n - 1] == '/' ? "" : "/";
	char *path;
	return asprintf(&path, "%s%s%s", dir, slash, name) < 0 ? NULL : path;
}

/* The directory that holds `path`, in fresh memory. */
static char *parent_of(const char *path)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n && path[n - 1] != '/')
		n--;
	if (!n)
		return strdup(".");
	while (n > 1 && path[n - 1] == '/')
		n--;
	return strndup(path, n);
}

static ssize_t read_retry(int fd, void *p, size_t n)
{
	ssize_t got;
	do {
		got = read(fd, p, n);
	} while (got < 0 && errno == EINTR);
	return got;
}

/* How much to make room for: a whole regular file at once, as growing would leave copies of a key in freed
 * memory, and one byte more to see its end. */
static size_t room_for(int fd)
{
	enum { UNKNOWN_BYTES = 16384 };
	struct stat st;
	bool known = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	return known ? (size_t)st.st_size + 1 : UNKNOWN_BYTES;
}

/* Tells a file that fills its ceiling exactly from a larger one. */
static int must_end(int fd, const char *path, size_t ceiling_bytes, struct err *e)
{
	char more;
	ssize_t n = read_retry(fd, &more, sizeof(more));
	if (n < 0)
		return file_err(e, "read", path);
	return n ? err_set(e, ERR_REJECT, "'%s' is larger than %zu bytes", path, ceiling_bytes) : 0;
}

static int read_all(int fd, const char *path, size_t ceiling_bytes, struct buf *out, struct err *e)
{
	size_t step = room_for(fd), left = ceiling_bytes;
	while (left) {
		size_t room = step < left ? step : left;
		char *at = buf_reserve(out, room);
		if (!at && buf_check(out, e) < 0)
			return err_context(e, "read '%s'", path);
		ssize_t n = read_retry(fd, at, room);
		if (n < 0)
			return file_err(e, "read", path);
		if (n == 0)
			return 0;
		buf_commit(out, (size_t)n);
		left -= (size_t)n;
		step = out->room > out->n ? out->room - out->n : out->room;
	}
	return must_end(fd, path, ceiling_bytes, e);
}

int file_read(const char *path, size_t ceiling_bytes, struct buf *out, struct err *e)
{
	AUTO(fd_auto) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return file_err(e, "open", path);
	size_t before = out->n, room = out->ceiling_bytes - before;
	int rc = read_all(fd, path, ceiling_bytes < room ? ceiling_bytes : room, out, e);
	if (rc < 0)
		out->n = before;
	return rc;
}

int dir_sync_parent(const char *path, struct err *e)
{
	AUTO(free_auto) char *dir = parent_of(path);
	if (!dir)
		return err_oom(e);
	AUTO(fd_auto) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return file_err(e, "open directory", dir);
	/* Some network file systems cannot sync a directory and say EINVAL; theirs is synchronous. */
	if (fsync(fd) < 0 && errno != EINVAL)
		return file_err(e, "sync directory", dir);
	return 0;
}

static int write_all(int fd, struct str s)
{
	while (s.n) {
		ssize_t n = write(fd, s.p, s.n);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		s = str_mem(s.p + n, s.n - (size_t)n);
	}
	return 0;
}

/* Fills the fresh file `temp`, so that a rename can make it `path`. */
static int fill(int fd, const char *path, mode_t mode, struct str contents, struct err *e)
{
	/* mkostemp made it 0600: whatever `mode` is, nobody else could open it so far. */
	if (write_all(fd, contents) < 0)
		return file_err(e, "write", path);
	if (fchmod(fd, mode) < 0)
		return file_err(e, "set mode of", path);
	if (fsync(fd) < 0)
		return file_err(e, "sync", path);
	return 0;
}

int file_replace(const char *path, mode_t mode, struct str contents, struct err *e)
{
	AUTO(free_auto) char *temp = NULL;
	if (asprintf(&temp, "%s.XXXXXX", path) < 0) {
		temp = NULL;
		return err_oom(e);
	}
	AUTO(fd_auto) int fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return file_err(e, "create a file beside", path);
	int rc = fill(fd, path, mode, contents, e);
	if (rc == 0 && rename(temp, path) < 0)
		rc = file_err(e, "replace", path);
	if (rc < 0) {
		unlink(temp);
		return rc;
	}
	return dir_sync_parent(path, e);
}

static int must_be_directory(const char *path, struct err *e)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return file_err(e, "look at", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, ERR_CONFLICT, "'%s' exists and is not a directory", path);
	return 0;
}

int dir_make(const char *path, mode_t mode, struct err *e)
{
	int rc = mkdir(path, mode);
	if (rc < 0 && errno == ENOENT) {
		AUTO(free_auto) char *parent = parent_of(path);
		if (!parent)
			return err_oom(e);
		if (dir_make(parent, mode, e) < 0)
			return -1;
		rc = mkdir(path, mode);
	}
	if (rc < 0 && errno == EEXIST)
		return must_be_directory(path, e);
	if (rc < 0)
		return file_err(e, "create directory", path);
	return dir_sync_parent(path, e);
}

/* The process id in the first line of a lock file; false when there is none. */
static bool lock_holder(int fd, uint64_t *ret_pid)
{
	char text[24];
	ssize_t n = pread(fd, text, sizeof(text), 0);
	struct str rest = str_mem(text, n > 0 ? (size_t)n : 0), line;
	return str_cut(&rest, '\n', &line) && str_to_u64(line, ret_pid);
}

static int locked_by_other(int fd, const char *path, struct err *e)
{
	uint64_t pid;
	if (!lock_holder(fd, &pid))
		return err_set(e, ERR_CONFLICT, "'%s' is in use by another process", path);
	return err_set(e, ERR_CONFLICT, "'%s' is in use by process %llu", path, (unsigned long long)pid);
}

/* As flock without waiting, until the deadline. */
static int lock_until(int fd, struct mono deadline)
{
	const struct timespec pause = {0, LOCK_RETRY_NS};
	int rc = flock(fd, LOCK_EX | LOCK_NB);
	while (rc < 0 && errno == EWOULDBLOCK && !mono_reached(clock_mono(&clock_system), deadline)) {
		nanosleep(&pause, NULL);
		rc = flock(fd, LOCK_EX | LOCK_NB);
	}
	return rc;
}

int file_lock_wait(const char *path, int64_t wait_ms, int *ret_fd, struct err *e)
{
	AUTO(fd_auto) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return file_err(e, "open", path);
	if (lock_until(fd, mono_add_ms(clock_mono(&clock_system), wait_ms)) < 0) {
		if (errno != EWOULDBLOCK)
			return file_err(e, "lock", path);
		return locked_by_other(fd, path, e);
	}
	/* Only for the next one's error message: on a full disk the lock holds without it. */
	dprintf(fd, "%ld\n", (long)getpid());
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int file_lock(const char *path, int *ret_fd, struct err *e)
{
	return file_lock_wait(path, 0, ret_fd, e);
}
