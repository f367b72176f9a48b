/* own_certs.h - the certificates of our own listeners: issued at the first start, and anew when less than a
 * third of their life is left. For localhost, this host's name, and what `tls_names` adds. Each renews the one before it,
 * which ends once the new one is in use. */
#ifndef CLI_OWN_CERTS_H
#define CLI_OWN_CERTS_H

#include "base/config.h"
#include "cli/paths.h"
#include "server/server.h"
#include "tls/registry.h"

MUST_CHECK int own_certs_ensure(struct server *server, const struct ca *ca, const struct paths *paths,
	const struct config *config, struct err *e);

/* Notes that a listener uses this file's certificate now. */
void own_cert_in_use(const struct registry *registry, const char *cert_file);

/* tls/NAME.SUFFIX in fresh memory; NULL when out of memory. */
char *own_cert_path(const struct paths *paths, const char *name, const char *suffix);

#endif
