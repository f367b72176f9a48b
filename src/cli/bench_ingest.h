/* bench_ingest.h - sealpost bench ingest: load on a proxy's POST route over real mutual TLS. */
#ifndef CLI_BENCH_INGEST_H
#define CLI_BENCH_INGEST_H

/* Exit codes: 0 measured and at least one message accepted · 1 none accepted · 2 usage · 4 the server lets
 * us in neither with a handshake nor with a request · 5 it cannot be reached. */
int cmd_bench_ingest(int argc, char **argv);

#endif
