/* address.h - whom a limit by address counts.
 *
 * An IPv4 address is one host, or few behind one. An IPv6 host commonly has a /64 to itself (RFC 8273, RFC 7934)
 * and as many addresses as it likes, so all of a /64 count as one; an IPv4 address in IPv6 form (::ffff:10.0.0.1)
 * counts as what it is.
 *
 * Threads: any. */
#ifndef BASE_ADDRESS_H
#define BASE_ADDRESS_H

#include "base/str.h"

enum { ADDRESS_GROUP_BYTES = 64 };

/* "10.0.0.1" or "2001:db8:0:1::/64" for an address without port or zone; anything else, "unix" say, is a group of
 * its own, cut to fit. The result points into `out`. */
struct str address_group(const char *address, char out[ADDRESS_GROUP_BYTES]);

#endif
