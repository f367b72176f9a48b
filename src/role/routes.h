/* routes.h - one listener's route table out of several. */
#ifndef ROLE_ROUTES_H
#define ROLE_ROUTES_H

#include "http/http.h"

/* All rows of `tables` (ends with NULL) in one fresh table that ends with method NULL; `roles`, unless 0,
 * replaces every row's required roles (the admin socket lets its owner do everything). Free with free();
 * NULL: no memory. */
MUST_CHECK struct http_route *routes_join(const struct http_route *const *tables, unsigned roles);

#endif
