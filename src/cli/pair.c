/* pair.c - see pair.h.
 *
 *	client.pem → .client.key.live/cert      .client.key.live → .client.key.18f3…
 *	client.key → .client.key.live/key       .client.key.18f3…/{cert,key}
 *
 * A plain pair is first moved under the links as it is: each of those steps leads to the same contents as
 * before. Then the new pair gets a directory of its own, and the rename of the live link puts it in place. */
#include "cli/pair.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"

enum { FILE_BYTES = 1 << 20, LINK_BYTES = 4096 };

struct pair {
	const char *cert_path, *key_path;
	char dir[LINK_BYTES];  /* of the key, and of what we make */
	char base[256];        /* name of the key's file */
	char live[LINK_BYTES]; /* path of the link */
};

static int print_path(char *out, size_t room, struct err *e, const char *fmt, ...) PRINTF(4, 5);

static int print_path(char *out, size_t room, struct err *e, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(out, room, fmt, ap);
	va_end(ap);
	return n >= 0 && (size_t)n < room ? 0 : err_set(e, ERR_REJECT, "a path is too long");
}

static int pair_init(struct pair *p, const char *cert_path, const char *key_path, struct err *e)
{
	const char *slash = strrchr(key_path, '/');
	int n = slash ? (int)(slash - key_path) : 0;
	p->cert_path = cert_path;
	p->key_path = key_path;
	if (print_path(p->dir, sizeof(p->dir), e, "%.*s", n ? n : 1,
		    n       ? key_path
		    : slash ? "/"
			    : ".") < 0 ||
		print_path(p->base, sizeof(p->base), e, "%s", slash ? slash + 1 : key_path) < 0)
		return -1;
	return print_path(p->live, sizeof(p->live), e, "%s/.%s.live", p->dir, p->base);
}

/* --- links --- */

/* Puts a link in the place of whatever file is there, in one step. */
static int link_replace(const char *target, const char *path, struct err *e)
{
	char fresh[LINK_BYTES];
	if (print_path(fresh, sizeof(fresh), e, "%s.link", path) < 0)
		return -1;
	if (unlink(fresh) < 0 && errno != ENOENT)
		return err_sys(e, ERR_FATAL, "remove '%s'", fresh);
	if (symlink(target, fresh) < 0)
		return err_sys(e, ERR_FATAL, "make the link '%s'", fresh);
	if (rename(fresh, path) < 0) {
		err_sys(e, ERR_FATAL, "replace '%s'", path);
		unlink(fresh);
		return -1;
	}
	return dir_sync_parent(path, e);
}

/* Whether the path is a link to `member` of our live link. */
static bool is_linked(const struct pair *p, const char *path, const char *member)
{
	char target[LINK_BYTES], wanted[LINK_BYTES];
	struct err none = ERR_INIT;
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	if (n < 0 || print_path(wanted, sizeof(wanted), &none, ".%s.live/%s", p->base, member) < 0)
		return false;
	target[n] = 0;
	size_t want = strlen(wanted);
	return (size_t)n >= want && strcmp(target + n - want, wanted) == 0;
}

/* A link from `path` to a member: relative where it lies beside the live link, else absolute. */
static int link_member(const struct pair *p, const char *path, const char *member, struct err *e)
{
	char target[LINK_BYTES];
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 1;
	bool beside = strlen(p->dir) == n && memcmp(p->dir, slash ? path : ".", n) == 0;
	AUTO(free_auto) char *absolute = beside ? NULL : realpath(p->dir, NULL);
	if (is_linked(p, path, member))
		return 0;
	if (!beside && !absolute)
		return err_sys(e, ERR_FATAL, "find '%s'", p->dir);
	if (print_path(target, sizeof(target), e, "%s%s.%s.live/%s", beside ? "" : absolute,
		    beside ? "" : "/", p->base, member) < 0)
		return -1;
	return link_replace(target, path, e);
}

/* --- generations --- */

static int put_file(
	const char *dir, const char *member, const struct stat *like, struct str contents, struct err *e)
{
	AUTO(free_auto) char *path = path_join(dir, member);
	if (!path)
		return err_oom(e);
	if (file_replace(path, like->st_mode & 07777, contents, e) < 0)
		return -1;
	/* Only root may; then a service's own user goes on reading its key. */
	if (geteuid() == 0 && chown(path, like->st_uid, like->st_gid) < 0)
		return err_sys(e, ERR_FATAL, "give '%s' its owner", path);
	return 0;
}

/* Writes a pair into a directory of its own, and makes the live link lead there. */
static int go_live(const struct pair *p, struct str cert_pem, struct str key_pem, struct err *e)
{
	char dir[LINK_BYTES], name[320];
	struct stat cert, key;
	if (stat(p->cert_path, &cert) < 0 || stat(p->key_path, &key) < 0)
		return err_sys(e, ERR_FATAL, "look at '%s' and '%s'", p->cert_path, p->key_path);
	uint64_t n = (uint64_t)clock_wall(&clock_system).ms;
	do {
		if (print_path(name, sizeof(name), e, ".%s.%llx", p->base, (unsigned long long)n++) < 0 ||
			print_path(dir, sizeof(dir), e, "%s/%s", p->dir, name) < 0)
			return -1;
	} while (mkdir(dir, 0755) < 0 && errno == EEXIST);
	if (put_file(dir, "key", &key, key_pem, e) < 0 || put_file(dir, "cert", &cert, cert_pem, e) < 0)
		return -1;
	return dir_sync_parent(dir, e) < 0 ? -1 : link_replace(name, p->live, e);
}

/* With whatever a crash left half written in it. */
static void remove_generation(const char *path)
{
	DIR *dir = opendir(path);
	if (!dir)
		return;
	for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
	rmdir(path);
}

/* Removes generations that are not live: the one before, and what a crash left. Nothing depends on it. */
static void sweep(const struct pair *p)
{
	char prefix[264], live[LINK_BYTES];
	ssize_t n = readlink(p->live, live, sizeof(live) - 1);
	DIR *dir = n > 0 ? opendir(p->dir) : NULL;
	if (!dir)
		return;
	live[n] = 0;
	snprintf(prefix, sizeof(prefix), ".%s.", p->base);
	for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		AUTO(free_auto) char *path = path_join(p->dir, entry->d_name);
		struct stat st;
		if (path && strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
			strcmp(entry->d_name, live) != 0 && lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			remove_generation(path);
	}
	closedir(dir);
}

/* --- replacing --- */

/* Moves the plain pair that is there under the links. */
static int adopt(const struct pair *p, struct err *e)
{
	AUTO(buf_auto) struct buf cert;
	AUTO(buf_wipe_auto) struct buf key;
	buf_init(&cert, FILE_BYTES);
	buf_init(&key, FILE_BYTES);
	if (is_linked(p, p->cert_path, "cert") && is_linked(p, p->key_path, "key"))
		return 0;
	if (file_read(p->cert_path, FILE_BYTES, &cert, e) < 0 ||
		file_read(p->key_path, FILE_BYTES, &key, e) < 0 ||
		go_live(p, buf_str(&cert), buf_str(&key), e) < 0 ||
		link_member(p, p->cert_path, "cert", e) < 0)
		return -1;
	return link_member(p, p->key_path, "key", e);
}

int pair_replace(
	const char *cert_path, const char *key_path, struct str cert_pem, struct str key_pem, struct err *e)
{
	struct pair p;
	struct stat st;
	if (pair_init(&p, cert_path, key_path, e) < 0)
		return -1;
	if (stat(cert_path, &st) < 0 || stat(key_path, &st) < 0)
		return file_replace(key_path, 0600, key_pem, e) < 0
			       ? -1
			       : file_replace(cert_path, 0644, cert_pem, e);
	if (adopt(&p, e) < 0 || go_live(&p, cert_pem, key_pem, e) < 0)
		return -1;
	sweep(&p);
	return 0;
}
