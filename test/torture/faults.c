/* faults.c - bad disks, full disks, no memory, power cuts and wrong clocks for a daemon that knows nothing of it.
 *
 * Loaded with LD_PRELOAD. The test and the daemon share one page, struct control, mapped from the file named
 * by FAULTS_CONTROL: the test arms a fault there while the daemon runs, and sees how many calls went by. Only
 * regular files under FAULTS_DIR are touched. test/torture/faults.py is the other side; the layout is theirs
 * together.
 *
 * A power cut keeps what was synced and loses the rest. Every write to a file is noted with what it replaced
 * until that file is synced; the cut takes the noted writes back, newest first, each 512-byte sector of them
 * with even odds (a disk reorders and tears), and then kills the process. With `ignore_sync` a sync does
 * nothing and says it did: a test of durability has to fail then.
 *
 * The real calls are made as system calls, so that nothing here depends on the order of symbol resolution. */
#undef _FILE_OFFSET_BITS /* would rename pwrite to pwrite64, and both are wanted here */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum call { CALL_NONE, CALL_WRITE, CALL_SYNC, CALL_TRUNCATE, CALL_ALLOC, CALL_READ, CALLS };
enum { SECTOR = 512 };

struct control {
	_Atomic uint32_t call;        /* enum call: armed; CALL_NONE: nothing */
	_Atomic uint32_t error;       /* errno to fail with; 0: cut the power instead */
	_Atomic uint32_t skip;        /* calls of that kind to let through first */
	_Atomic uint32_t repeat;      /* calls to fail then */
	_Atomic uint32_t ignore_sync; /* a sync is a lie */
	_Atomic uint32_t seed;        /* of the sectors that a cut keeps; 0: it keeps none */
	_Atomic uint32_t slow_ms;     /* how long every sync takes, at least */
	uint32_t reserved;
	_Atomic uint64_t failed;      /* faults given out */
	_Atomic uint64_t seen[CALLS]; /* calls that went by */
	_Atomic int64_t clock_step_s; /* by which the wall clock is wrong; the monotonic one is right */
};

/* One write that no sync has covered yet. */
struct note {
	struct note *older;
	dev_t dev;
	ino_t ino;
	off_t size_before, offset;
	size_t replaced_bytes;
	char *replaced;
	char path[512];
};

static struct control *control;
static bool
	confined; /* the signer has locked itself in, and what is_ours asks for is forbidden: no faults there */
static const char *directory;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct note *notes; /* newest first; under lock */

/* glibc's own, so that the notes do not count as the daemon's allocations. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void __libc_free(void *p);

__attribute__((constructor)) static void map_control(void)
{
	const char *path = getenv("FAULTS_CONTROL");
	directory = getenv("FAULTS_DIR");
	int fd = path && directory ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	struct control *page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page != MAP_FAILED)
		control = page;
	close(fd);
}

EXPORT int seccomp_load(const scmp_filter_ctx filter)
{
	int (*real)(const scmp_filter_ctx) = (int (*)(const scmp_filter_ctx))dlsym(RTLD_NEXT, "seccomp_load");
	if (!real)
		return -ENOSYS;
	confined = true;
	return real(filter);
}

/* --- power cut --- */

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

static void take_back(const struct note *n, uint32_t *random_state)
{
	int fd = (int)syscall(SYS_open, n->path, O_RDWR | O_CLOEXEC);
	struct stat st;
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && st.st_dev == n->dev && st.st_ino == n->ino) {
		for (size_t at = 0; at < n->replaced_bytes; at += SECTOR) {
			size_t left = n->replaced_bytes - at;
			if (*random_state && next_random(random_state) & 1)
				continue;
			syscall(SYS_pwrite64, fd, n->replaced + at, left < SECTOR ? left : SECTOR,
				n->offset + (off_t)at);
		}
		if (st.st_size > n->size_before && !(*random_state && next_random(random_state) & 1))
			syscall(SYS_ftruncate, fd, n->size_before);
	}
	close(fd);
}

/* Under lock, which is never given back: no other thread writes to a file any more. */
static void cut_power(void)
{
	uint32_t random_state = control->seed;
	for (const struct note *n = notes; n; n = n->older)
		take_back(n, &random_state);
	kill(getpid(), SIGKILL);
	pause();
}

/* --- what is noted --- */

/* True for a regular file under the directory; fills in the file and its path. */
static bool is_ours(int fd, struct stat *st, char *path, size_t size)
{
	char link[64];
	if (!control || confined || fstat(fd, st) < 0 || !S_ISREG(st->st_mode))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, size - 1);
	if (n < 0)
		return false;
	path[n] = '\0';
	return strncmp(path, directory, strlen(directory)) == 0;
}

/* Notes what [offset, offset + bytes) holds now. Under lock. */
static void note_range(int fd, const struct stat *st, const char *path, off_t offset, size_t bytes)
{
	struct note *n = __libc_calloc(1, sizeof(*n));
	if (!n)
		return;
	n->dev = st->st_dev;
	n->ino = st->st_ino;
	n->size_before = st->st_size;
	n->offset = offset;
	if (offset < st->st_size)
		n->replaced_bytes =
			bytes < (size_t)(st->st_size - offset) ? bytes : (size_t)(st->st_size - offset);
	n->replaced = __libc_malloc(n->replaced_bytes + 1);
	ssize_t got = n->replaced ? syscall(SYS_pread64, fd, n->replaced, n->replaced_bytes, offset) : -1;
	n->replaced_bytes = got > 0 ? (size_t)got : 0;
	snprintf(n->path, sizeof(n->path), "%s", path);
	n->older = notes;
	notes = n;
}

/* The file is synced: what was written to it stays. Under lock. */
static void forget_notes(const struct stat *st)
{
	for (struct note **at = &notes; *at;) {
		struct note *n = *at;
		if (n->dev != st->st_dev || n->ino != st->st_ino) {
			at = &n->older;
			continue;
		}
		*at = n->older;
		__libc_free(n->replaced);
		__libc_free(n);
	}
}

/* --- faults --- */

/* Counts the call; true when it is to fail, with errno set. Power is cut in here. */
static bool fault_now(enum call call)
{
	control->seen[call]++;
	if (control->call != (uint32_t)call)
		return false;
	uint32_t skip = control->skip;
	while (skip > 0)
		if (atomic_compare_exchange_weak(&control->skip, &skip, skip - 1))
			return false;
	if (control->error == 0)
		cut_power();
	uint32_t repeat = control->repeat;
	while (repeat > 0) {
		if (atomic_compare_exchange_weak(&control->repeat, &repeat, repeat - 1)) {
			control->failed++;
			errno = (int)control->error;
			return true;
		}
	}
	return false;
}

/* A write of `bytes` at `offset` (-1: where the file stands), done by the system call given. */
static ssize_t file_write(int fd, off_t offset, size_t bytes, long number, const void *data, size_t count)
{
	struct stat st;
	char path[512];
	if (!is_ours(fd, &st, path, sizeof(path)))
		return syscall(number, fd, data, count, offset, 0);
	pthread_mutex_lock(&lock);
	ssize_t n = -1;
	if (!fault_now(CALL_WRITE) && fstat(fd, &st) == 0) {
		off_t at = offset >= 0 ? offset : lseek(fd, 0, SEEK_CUR);
		if (offset < 0 && fcntl(fd, F_GETFL) & O_APPEND)
			at = st.st_size;
		note_range(fd, &st, path, at, bytes);
		n = syscall(number, fd, data, count, offset, 0);
	}
	pthread_mutex_unlock(&lock);
	return n;
}

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
	return file_write(fd, -1, size, SYS_write, data, size);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
	return file_write(fd, offset, size, SYS_pwrite64, data, size);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
	return pwrite(fd, data, size, offset);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
	size_t bytes = 0;
	for (int i = 0; i < count; i++)
		bytes += parts[i].iov_len;
	return file_write(fd, -1, bytes, SYS_writev, parts, (size_t)count);
}

static ssize_t file_read(int fd, long number, void *out, size_t size, off_t offset)
{
	struct stat st;
	char path[512];
	if (is_ours(fd, &st, path, sizeof(path)) && fault_now(CALL_READ))
		return -1;
	return syscall(number, fd, out, size, offset);
}

EXPORT ssize_t read(int fd, void *out, size_t size)
{
	return file_read(fd, SYS_read, out, size, 0);
}

EXPORT ssize_t pread(int fd, void *out, size_t size, off_t offset)
{
	return file_read(fd, SYS_pread64, out, size, offset);
}

EXPORT ssize_t pread64(int fd, void *out, size_t size, off_t offset)
{
	return pread(fd, out, size, offset);
}

static int file_sync(int fd, long number)
{
	struct stat st;
	char path[512];
	if (!is_ours(fd, &st, path, sizeof(path)))
		return (int)syscall(number, fd);
	poll(NULL, 0, (int)control->slow_ms);
	pthread_mutex_lock(&lock);
	int r = -1;
	if (!fault_now(CALL_SYNC)) {
		r = control->ignore_sync ? 0 : (int)syscall(number, fd);
		if (r == 0 && !control->ignore_sync)
			forget_notes(&st);
	}
	pthread_mutex_unlock(&lock);
	return r;
}

EXPORT int fdatasync(int fd)
{
	return file_sync(fd, SYS_fdatasync);
}

EXPORT int fsync(int fd)
{
	return file_sync(fd, SYS_fsync);
}

EXPORT int ftruncate(int fd, off_t size)
{
	struct stat st;
	char path[512];
	if (!is_ours(fd, &st, path, sizeof(path)))
		return (int)syscall(SYS_ftruncate, fd, size);
	pthread_mutex_lock(&lock);
	int r = -1;
	if (!fault_now(CALL_TRUNCATE) && fstat(fd, &st) == 0) {
		note_range(fd, &st, path, size, SIZE_MAX);
		r = (int)syscall(SYS_ftruncate, fd, size);
	}
	pthread_mutex_unlock(&lock);
	return r;
}

EXPORT int ftruncate64(int fd, off_t size)
{
	return ftruncate(fd, size);
}

EXPORT void *malloc(size_t size)
{
	return control && fault_now(CALL_ALLOC) ? NULL : __libc_malloc(size);
}

EXPORT void *calloc(size_t count, size_t size)
{
	return control && fault_now(CALL_ALLOC) ? NULL : __libc_calloc(count, size);
}

EXPORT void *realloc(void *p, size_t size)
{
	return control && fault_now(CALL_ALLOC) ? NULL : __libc_realloc(p, size);
}

/* --- the clock --- */

static bool is_wall(clockid_t id)
{
	return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
}

EXPORT int clock_gettime(clockid_t id, struct timespec *ret)
{
	int r = (int)syscall(SYS_clock_gettime, id, ret);
	if (r == 0 && control && is_wall(id))
		ret->tv_sec += control->clock_step_s;
	return r;
}

EXPORT int gettimeofday(struct timeval *restrict ret, void *restrict zone)
{
	(void)zone;
	struct timespec now;
	int r = clock_gettime(CLOCK_REALTIME, &now);
	*ret = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
	return r;
}

EXPORT time_t time(time_t *ret)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (ret)
		*ret = now.tv_sec;
	return now.tv_sec;
}
