/* watch.h - notices that files were replaced or rewritten, by looking at them now and then.
 *
 * A change is reported one look after the last one was seen: a certificate and its key are two files, and
 * whoever writes them is then done. Polling, because a rename over a file, a mounted secret that is a
 * symbolic link and a network file system all look the same to stat(2), and do not to inotify(7).
 *
 * Threads: one. */
#ifndef CLI_WATCH_H
#define CLI_WATCH_H

#include <stdbool.h>
#include <sys/stat.h>

enum { WATCH_FILES = 8 };

struct watch {
	struct watched {
		const char *path;
		struct stat seen; /* all zero: the file was not there */
	} files[WATCH_FILES];
	unsigned count;
	bool moving; /* there was a change at the last look */
};

/* Watches `path` from now on; the string stays with the caller. NULL is ignored. */
void watch_add(struct watch *w, const char *path);

/* Whether files changed and have been still since the last look. */
bool watch_changed(struct watch *w);

#endif
