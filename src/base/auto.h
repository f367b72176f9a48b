/* auto.h - cleanup by scope.
 *
 *	AUTO(fd_auto) int fd = open(path, O_RDONLY | O_CLOEXEC);
 *	AUTO(free_auto) char *copy = strdup(name);
 *	…
 *	*ret_fd = TAKE_FD(fd);      hand over; the cleanup now sees -1
 *	*ret_copy = TAKE(copy);     hand over; the cleanup now sees NULL
 *
 * A type with a destructor x_free(struct x *) declares its cleanup with AUTO_DEFINE(x_free, struct x *). */
#ifndef BASE_AUTO_H
#define BASE_AUTO_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define AUTO(fn) __attribute__((cleanup(fn)))

#define TAKE(ptr)                                                                                            \
	({                                                                                                   \
		__typeof__(ptr) taken_ = (ptr);                                                              \
		(ptr) = NULL;                                                                                \
		taken_;                                                                                      \
	})

#define TAKE_FD(fd)                                                                                          \
	({                                                                                                   \
		int taken_ = (fd);                                                                           \
		(fd) = -1;                                                                                   \
		taken_;                                                                                      \
	})

/* Defines fn_auto(type *), for AUTO(fn_auto). The destructor must take NULL. */
#define AUTO_DEFINE(fn, type)                                                                                \
	static inline __attribute__((unused)) void fn##_auto(type *p_)                                       \
	{                                                                                                    \
		fn(*p_);                                                                                     \
	}

static inline void free_auto(void *pp)
{
	free(*(void **)pp);
}

static inline void fd_auto(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void file_auto(FILE **f)
{
	if (*f)
		fclose(*f);
}

#endif
