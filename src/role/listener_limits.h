/* listener_limits.h - a listener's bounds, from the configuration. */
#ifndef ROLE_LISTENER_LIMITS_H
#define ROLE_LISTENER_LIMITS_H

#include "base/config.h"
#include "http/server.h"

void limits_from_config(const struct config *c, struct http_limits *ret);

#endif
