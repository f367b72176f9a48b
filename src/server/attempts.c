/* attempts.c - see attempts.h. */
#include "server/attempts.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/address.h"

enum { SLOTS = 4096 };

struct slot {
	struct mono opened; /* while count > 0 */
	int64_t count;
};

struct attempts {
	const struct clock *clock;
	uint64_t seed;
	pthread_mutex_t lock; /* guards what follows */
	struct slot slots[SLOTS];
};

int attempts_new(const struct clock *clock, struct attempts **ret, struct err *e)
{
	struct attempts *a = calloc(1, sizeof(*a));
	if (!a)
		return err_oom(e);
	a->clock = clock;
	if (getrandom(&a->seed, sizeof(a->seed), 0) != sizeof(a->seed)) {
		free(a);
		return err_set(e, ERR_FATAL, "no random numbers");
	}
	pthread_mutex_init(&a->lock, NULL);
	*ret = a;
	return 0;
}

void attempts_free(struct attempts *a)
{
	if (!a)
		return;
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* FNV-1a from a secret start, folded at the end. Under the lock: empty when its window is over. */
static struct slot *slot_of(struct attempts *a, const char *address)
{
	uint64_t hash = a->seed ^ 0xcbf29ce484222325u;
	char out[ADDRESS_GROUP_BYTES];
	struct str group = address_group(address, out);
	for (size_t i = 0; i < group.n; i++)
		hash = (hash ^ (unsigned char)group.p[i]) * 0x100000001b3u;
	struct slot *slot = &a->slots[(hash ^ hash >> 32) % SLOTS];
	if (slot->count && mono_reached(clock_mono(a->clock), mono_add_ms(slot->opened, ATTEMPTS_WINDOW_MS)))
		slot->count = 0;
	return slot;
}

void attempts_refused(struct attempts *a, const char *address)
{
	pthread_mutex_lock(&a->lock);
	struct slot *slot = slot_of(a, address);
	if (slot->count++ == 0)
		slot->opened = clock_mono(a->clock);
	pthread_mutex_unlock(&a->lock);
}

bool attempts_allowed(struct attempts *a, const char *address, int64_t max)
{
	pthread_mutex_lock(&a->lock);
	bool allowed = slot_of(a, address)->count < max;
	pthread_mutex_unlock(&a->lock);
	return allowed;
}
