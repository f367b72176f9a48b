/* app.h - the roles put together in one process, from a data directory.
 *
 * `sealpost up` opens everything; `sealpost init` only makes what is missing; an administrative command that
 * finds no daemon opens the main server with its admin socket for as long as it runs. Same roles, same code.
 *
 * Threads: from the main thread, before any other thread is started (the signer is forked first). */
#ifndef CLI_APP_H
#define CLI_APP_H

#include "base/config.h"
#include "cli/paths.h"

enum app_part {
	APP_ADMIN = 1 << 0,    /* admin socket */
	APP_TLS = 1 << 1,      /* main server's TLS listener, metrics listener */
	APP_INGEST = 1 << 2,   /* proxy */
	APP_DELIVERY = 1 << 3, /* worker */
	APP_ALL = APP_ADMIN | APP_TLS | APP_INGEST | APP_DELIVERY,
};

struct app;

/* Makes data directory, configuration file, keys and CA where they are missing. Takes and frees the lock. */
MUST_CHECK int app_init(const struct paths *paths, const struct config *config, struct err *e);

/* ERR_NOT_FOUND: not initialised. ERR_CONFLICT: another process holds the directory. */
MUST_CHECK int app_open(const struct paths *paths, const struct config *config, unsigned parts,
	struct app **ret, struct err *e);

/* Bound addresses "127.0.0.1:8001"; NULL for what does not run. */
const char *app_ingest_address(const struct app *a);
const char *app_server_address(const struct app *a);
const char *app_metrics_address(const struct app *a);

/* Once a second: free disk space. */
void app_tick(struct app *a);
MUST_CHECK int app_reload(struct app *a, const struct config *config, struct err *e);

/* Stops accepting, finishes what was accepted, closes. Takes NULL. */
void app_close(struct app *a, int64_t drain_ms);

#endif
