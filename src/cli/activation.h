/* activation.h - sockets that systemd opened for us (sd_listen_fds(3)), by name: a restart then refuses
 * nobody, and ports below 1024 need no privilege.
 *
 * Threads: before any other is started. */
#ifndef CLI_ACTIVATION_H
#define CLI_ACTIVATION_H

#include "base/err.h"
#include "cli/app.h"

/* Takes what $LISTEN_FDS and $LISTEN_FDNAMES say, if it is meant for this process, and clears the environment
 * so that no child believes that it is meant. A descriptor whose name is not one of a listener of ours, or
 * that is no listening stream socket, is ERR_REJECT. Without any, all are -1. */
MUST_CHECK int activation_take(struct app_sockets *ret, struct err *e);

#endif
