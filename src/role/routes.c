/* routes.c - see routes.h. */
#include "role/routes.h"

#include <stdlib.h>

struct http_route *routes_join(const struct http_route *const *tables, unsigned roles)
{
	size_t count = 0;
	for (const struct http_route *const *t = tables; *t; t++)
		for (const struct http_route *row = *t; row->method; row++)
			count++;
	struct http_route *all = calloc(count + 1, sizeof(*all));
	if (!all)
		return NULL;
	size_t i = 0;
	for (const struct http_route *const *t = tables; *t; t++)
		for (const struct http_route *row = *t; row->method; row++) {
			all[i] = *row;
			if (roles)
				all[i].roles = roles;
			i++;
		}
	return all;
}
