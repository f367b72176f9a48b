/* gate.h - threads that make ready, wait for each other, and start together.
 * Threads: gate_pass from each of them; the others from the owner. */
#ifndef CLI_LOAD_GATE_H
#define CLI_LOAD_GATE_H

#include <pthread.h>
#include <stdbool.h>

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned waiting;
	bool open;
};

void gate_init(struct gate *g);
void gate_clear(struct gate *g);

/* Reports this thread ready and blocks until the gate is open. */
void gate_pass(struct gate *g);

/* Blocks until `count` threads are ready. */
void gate_wait_for(struct gate *g, unsigned count);
void gate_open(struct gate *g);

#endif
