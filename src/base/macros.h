/* macros.h - the few compiler helpers that every file uses.
 * Security: require() and ensure() are for our own bugs and stay on in release builds;
 *           nothing that arrives from a network or a file may ever reach one. */
#ifndef BASE_MACROS_H
#define BASE_MACROS_H

#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK      __attribute__((warn_unused_result))
#define PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))
#define likely(x)       __builtin_expect(!!(x), 1)
#define unlikely(x)     __builtin_expect(!!(x), 0)
#define ARRAY_LEN(a)    (sizeof(a) / sizeof((a)[0]))

/* Before a large local that is written before it is read, on a path that many messages take: hardened builds fill every
 * other one with zeros first. */
#define UNFILLED __attribute__((uninitialized))

/* From a pointer to a member to the struct that holds it. */
#define container_of(ptr, type, member) ((type *)((uintptr_t)(ptr)-offsetof(type, member)))

_Noreturn void bug(const char *file, int line, const char *what);

/* A condition that the caller (require) or this function (ensure) guarantees; a violation aborts. */
#define require(cond) (likely(cond) ? (void)0 : bug(__FILE__, __LINE__, "require(" #cond ")"))
#define ensure(cond)  (likely(cond) ? (void)0 : bug(__FILE__, __LINE__, "ensure(" #cond ")"))

#endif
