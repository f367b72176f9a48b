/* redis_server_absent_test.c - stands in for redis_server_test.c in builds without hiredis. */
#include "queue/redis_server_test.h"

bool redis_server_exists(void)
{
	return false;
}

const char *redis_server_url(void)
{
	return NULL;
}

bool redis_server_do(const char *const *words)
{
	(void)words;
	return false;
}
