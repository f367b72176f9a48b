/* redis_server_test.h - a Redis server for the tests of one program: on a unix socket in a directory of its own,
 * started when first asked for, ended with the program. In builds without hiredis there is none. */
#ifndef QUEUE_REDIS_SERVER_TEST_H
#define QUEUE_REDIS_SERVER_TEST_H

#include <stdbool.h>

#include "base/buf.h"

/* Whether there is such a program; tests that need it are skipped otherwise. */
bool redis_server_exists(void);

/* Its URL. */
const char *redis_server_url(void);

/* Runs one command, encoded or of text words with NULL at the end; false when it is refused or the server is not
 * there. */
bool redis_server_run(const struct buf *command);
bool redis_server_do(const char *const *words);

#define REDIS_SERVER_DO(...) redis_server_do((const char *const[]){__VA_ARGS__, NULL})

#endif
