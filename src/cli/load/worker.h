/* worker.h - one thread of the load generator: its connections, its share of the load, its counts.
 *
 * Life: load_worker_start → every connection is opened → the owner sets the times and opens
 * the gate → load until end_ns (or until its share of --messages is answered) → load_worker_join.
 *
 * Latency is counted for requests that were due at or after measure_ns and accepted. With a rate (open loop)
 * it starts when the request was due, sent or not, so a stall of the server shows in every request that it
 * delayed; without one (closed loop) it starts when the request is written.
 *
 * Threads: results may be read after load_worker_join; the live counters at any time. */
#ifndef CLI_LOAD_WORKER_H
#define CLI_LOAD_WORKER_H

#include <stdatomic.h>

#include "cli/load/connection.h"
#include "cli/load/gate.h"
#include "cli/load/histogram.h"

/* What all threads of a run share. Times are of load_now_ns. */
struct load {
	const struct load_options *options;
	struct target target;
	SSL_CTX *tls;
	int ledger_fd;                        /* -1: none */
	struct gate gate;                     /* opens when the times are set */
	int64_t start_ns, measure_ns, end_ns; /* end_ns INT64_MAX: until all messages are answered */
	_Atomic bool stop;                    /* no new requests */
};

enum { STATUS_LIMIT = 1000 };

struct load_result {
	struct histogram latency;
	uint64_t requests, accepted,
		rejected;         /* answered between measure_ns and end_ns; the latter two count messages */
	uint64_t accepted_in_all; /* warm-up and tail included */
	uint64_t statuses[STATUS_LIMIT]; /* between measure_ns and end_ns */
	uint64_t failures[FAILURES];     /* connections that ended so */
	uint64_t unanswered;             /* requests sent whose answer never came */
	uint64_t unsent;                 /* open loop: due, but no connection was free until the end */
	unsigned opened;                 /* connections that were open when the load began */
	int64_t last_answer_ns;
	struct err first_failure;
};

struct load_worker;

/* `index` of `load->options->threads`. */
MUST_CHECK int load_worker_start(struct load *load, unsigned index, struct load_worker **ret, struct err *e);
void load_worker_join(struct load_worker *w);
void load_worker_free(struct load_worker *w);

const struct load_result *load_worker_result(const struct load_worker *w);

/* Live: messages accepted so far, requests failed or refused so far, whether the thread is done. */
uint64_t load_worker_accepted(const struct load_worker *w);
uint64_t load_worker_failed(const struct load_worker *w);
bool load_worker_done(const struct load_worker *w);

#endif
