/* paths.h - where everything lies in a data directory. */
#ifndef CLI_PATHS_H
#define CLI_PATHS_H

#include "base/err.h"

struct paths {
	char *data;
	char *config; /* sealpost.yaml */
	char *lock;
	char *admin_socket; /* admin.sock */
	char *ca;           /* ca/: root and issuing CA */
	char *ca_bundle;    /* ca/ca.pem */
	char *keys;         /* keys/: sealing and index keys */
	char *tls;          /* tls/: our own certificates */
	char *queue;        /* queue/ */
	char *store;        /* store/ */
	char *cache;        /* cache/: a proxy's copy of registry and sealing key */
	char *revoked; /* DIR.revoked, which a backup that is restored to DIR leaves alone; else ca/revoked */
};

/* `data` NULL: $SEALPOST_DATA, else /var/lib/sealpost for root where it exists, else $XDG_DATA_HOME/sealpost,
 * else
 * ~/.local/share/sealpost. The path is made absolute. */
MUST_CHECK int paths_init(const char *data, struct paths *ret, struct err *e);
void paths_clear(struct paths *p);

#endif
