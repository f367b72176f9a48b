/* watch.c - see watch.h. */
#include "cli/watch.h"

#include <string.h>

#include "base/macros.h"

static void look(const char *path, struct stat *ret)
{
	if (stat(path, ret) < 0)
		memset(ret, 0, sizeof(*ret));
}

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

void watch_add(struct watch *w, const char *path)
{
	if (!path)
		return;
	require(w->count < WATCH_FILES);
	struct watched *file = &w->files[w->count++];
	file->path = path;
	look(path, &file->seen);
}

bool watch_changed(struct watch *w)
{
	bool moved = false;
	for (unsigned i = 0; i < w->count; i++) {
		struct stat now;
		look(w->files[i].path, &now);
		moved |= !same(&now, &w->files[i].seen);
		w->files[i].seen = now;
	}
	bool settled = w->moving && !moved;
	w->moving = moved;
	return settled;
}
