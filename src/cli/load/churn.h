/* churn.h - clients that come and go beside the load: so many new connections a second, each with a full
 * handshake, one GET /livez (which proves that the server took the handshake) and a close.
 *
 * Runs on a thread of its own: the client's side of a handshake costs half a millisecond too, and must not
 * hold up the connections whose latency is measured.
 *
 * Threads: results may be read after churn_join. */
#ifndef CLI_LOAD_CHURN_H
#define CLI_LOAD_CHURN_H

#include "cli/load/worker.h"

struct churn_result {
	struct histogram latency; /* from when the connection was due to the answer */
	uint64_t count;           /* answered between measure_ns and end_ns */
	uint64_t failed;
	struct err first_failure;
};

struct churn;

/* options->churn connections a second, from when the gate opens until end_ns or stop. */
MUST_CHECK int churn_start(struct load *load, struct churn **ret, struct err *e);
void churn_join(struct churn *c);
void churn_free(struct churn *c);

const struct churn_result *churn_result(const struct churn *c);

#endif
