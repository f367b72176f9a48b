/* app.h - the roles put together in one process, from a data directory.
 *
 * `sealpost up` opens everything; `proxy`, `worker` and `server` one role each; `init` only makes what is
 * missing; an administrative command that finds no daemon opens the main server with its admin socket for as
 * long as it runs. Which part belongs to which mode is one table in app.c. Same roles, same code.
 *
 * Threads: from the main thread, before any other thread is started (the signer starts first). */
#ifndef CLI_APP_H
#define CLI_APP_H

#include "base/config.h"
#include "cli/paths.h"
#include "cli/watch.h"

enum app_mode {
	APP_UP = 1 << 0,
	APP_PROXY = 1 << 1,
	APP_WORKER = 1 << 2,
	APP_SERVER = 1 << 3,
	APP_ADMIN = 1 << 4, /* the main server behind its admin socket only */
	APP_INIT = 1 << 5,  /* our own certificates, no listener */
};

struct app;

/* Sockets that listen already, for the listeners to take over; -1: the listener binds its own. */
struct app_sockets {
	int ingest, server, metrics;
};
#define APP_SOCKETS_NONE ((struct app_sockets){-1, -1, -1})

/* ERR_NOT_FOUND: not initialised. ERR_CONFLICT: another process holds the directory. */
MUST_CHECK int app_open(const struct paths *paths, const struct config *config, enum app_mode mode,
	struct app **ret, struct err *e);
MUST_CHECK int app_open_on(const struct paths *paths, const struct config *config, enum app_mode mode,
	const struct app_sockets *sockets, struct app **ret, struct err *e);

/* Bound addresses "127.0.0.1:8001"; NULL for what does not run. */
const char *app_ingest_address(const struct app *a);
const char *app_server_address(const struct app *a);
const char *app_metrics_address(const struct app *a);
const char *app_crl_address(const struct app *a);

/* The CA bundle that clients of this process need. */
const char *app_ca_file(const struct app *a);

/* Once a second: free disk space, long polls. */
void app_tick(struct app *a);

/* Once an hour: issues our own listeners' certificates anew when less than a third of their life is left; the
 * listeners take them when they see that the files have changed. */
MUST_CHECK int app_renew_certs(struct app *a, const struct config *config, struct err *e);

/* Whether the issuing CA was rotated since: then app_renew_certs is due. */
bool app_issuer_changed(const struct app *a);

/* Whether a message can be durably accepted now. */
bool app_ready(const struct app *a);

/* Whether every I/O loop has turned since the last call; to be asked once a second. */
bool app_alive(struct app *a);

/* The files that app_reload reads again; the strings live as long as the app. */
void app_watch_files(const struct app *a, struct watch *w);

/* Certificates and what can change of the configuration. When a certificate cannot be read, nothing of the
 * new configuration is in force, and every listener has either its old certificate or its new one. */
MUST_CHECK int app_reload(struct app *a, const struct config *config, struct err *e);

/* Stops accepting, finishes what was accepted, closes. Takes NULL. */
void app_close(struct app *a, int64_t drain_ms);

#endif
