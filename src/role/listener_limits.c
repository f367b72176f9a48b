/* listener_limits.c - see listener_limits.h. */
#include "role/listener_limits.h"

void limits_from_config(const struct config *c, struct http_limits *ret)
{
	http_limits_default(ret);
	ret->connections = (unsigned)c->connections_max;
	ret->connections_per_address = (unsigned)c->connections_per_address;
	ret->connections_per_client = (unsigned)c->connections_per_client;
	ret->requests_in_flight = (unsigned)c->requests_in_flight;
	ret->streams = (unsigned)c->streams_max;
	ret->head_bytes = (size_t)c->head_max;
	ret->header_count = (unsigned)c->headers_max;
	ret->target_bytes = (size_t)c->target_max;
	ret->body_bytes = (size_t)c->body_memory;
	ret->answer_bytes = (size_t)c->answer_memory;
	ret->handshake_ms = c->handshake_timeout;
	ret->head_ms = c->head_timeout;
	ret->body_ms = c->body_timeout;
	ret->idle_ms = c->idle_timeout;
	ret->write_ms = c->write_timeout;
	ret->linger_ms = c->linger_timeout;
}
