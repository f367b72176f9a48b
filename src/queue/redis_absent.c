/* redis_absent.c - stands in for redis.c in builds without hiredis. */
#include "queue/driver.h"

const struct queue_driver queue_driver_redis = {.name = "redis"};
