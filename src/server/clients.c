/* clients.c - see clients.h. A tree by name, of the C library's (tsearch(3)); readers share the lock. */
#include "server/clients.h"

#include <search.h>
#include <stdlib.h>

#include "base/auto.h"
#include "message/message.h"

enum { PAGE = 500, PAGE_ARENA_BYTES = 1024 * 1024 };

struct client {
	char name[CLIENT_NAME_BYTES + 1], domain[DOMAIN_NAME_BYTES + 1];
};

struct clients {
	pthread_rwlock_t lock;
	void *by_name;
};

static void copy_name(char *out, size_t room, struct str s)
{
	size_t n = s.n < room - 1 ? s.n : room - 1;
	memcpy(out, s.p, n);
	out[n] = 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct client *)a)->name, ((const struct client *)b)->name);
}

int clients_set(struct clients *c, struct str name, struct str domain, struct err *e)
{
	if (!message_name_valid(name) || !message_name_valid(domain))
		return err_set(e, ERR_FATAL, "the store holds a client with an impossible name");
	struct client *fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return err_oom(e);
	copy_name(fresh->name, sizeof(fresh->name), name);
	pthread_rwlock_wrlock(&c->lock);
	struct client **at = tsearch(fresh, &c->by_name, compare);
	if (at)
		copy_name((*at)->domain, sizeof((*at)->domain), domain);
	bool added = at && *at == fresh;
	pthread_rwlock_unlock(&c->lock);
	if (!added)
		free(fresh);
	return at ? 0 : err_oom(e);
}

bool clients_known(struct clients *c, struct str name, struct str domain)
{
	struct client key;
	if (name.n >= sizeof(key.name))
		return false;
	copy_name(key.name, sizeof(key.name), name);
	pthread_rwlock_rdlock(&c->lock);
	struct client *const *at = tfind(&key, &c->by_name, compare);
	bool known = at && str_eq(str_of((*at)->domain), domain);
	pthread_rwlock_unlock(&c->lock);
	return known;
}

int clients_load(struct store *store, struct clients **ret, struct err *e)
{
	struct clients *c = calloc(1, sizeof(*c));
	if (!c)
		return err_oom(e);
	pthread_rwlock_init(&c->lock, NULL);
	AUTO(arena_auto) struct arena arena;
	arena_init(&arena, PAGE_ARENA_BYTES);
	char last[CLIENT_NAME_BYTES + 1] = "";
	unsigned count = PAGE;
	while (count == PAGE) {
		struct store_client *rows;
		arena_reset(&arena);
		int rc = store_read_clients(
			store, (struct str){"", 0}, str_of(last), PAGE, &arena, &rows, &count, e);
		for (unsigned i = 0; rc >= 0 && i < count; i++)
			rc = clients_set(c, rows[i].name, rows[i].domain, e);
		if (rc < 0) {
			clients_free(c);
			return -1;
		}
		if (count)
			copy_name(last, sizeof(last), rows[count - 1].name);
	}
	*ret = c;
	return 0;
}

void clients_free(struct clients *c)
{
	if (!c)
		return;
	tdestroy(c->by_name, free);
	pthread_rwlock_destroy(&c->lock);
	free(c);
}
