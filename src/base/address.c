/* address.c - see address.h. */
#include "base/address.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { PREFIX_OCTETS = 8, V4_AT = 12 /* in a mapped address */ };

struct str address_group(const char *address, char out[ADDRESS_GROUP_BYTES])
{
	struct in6_addr v6;
	char text[INET6_ADDRSTRLEN];
	if (inet_pton(AF_INET6, address, &v6) != 1) {
		snprintf(out, ADDRESS_GROUP_BYTES, "%s", address);
	} else if (IN6_IS_ADDR_V4MAPPED(&v6)) {
		inet_ntop(AF_INET, &v6.s6_addr[V4_AT], out, ADDRESS_GROUP_BYTES);
	} else {
		memset(&v6.s6_addr[PREFIX_OCTETS], 0, sizeof(v6.s6_addr) - PREFIX_OCTETS);
		inet_ntop(AF_INET6, &v6, text, sizeof(text));
		snprintf(out, ADDRESS_GROUP_BYTES, "%s/%d", text, 8 * PREFIX_OCTETS);
	}
	return str_of(out);
}
