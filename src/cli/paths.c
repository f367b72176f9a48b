/* paths.c - see paths.h. */
#include "cli/paths.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/macros.h"

static const char system_data[] = "/var/lib/sealpost";

static char *default_data(void)
{
	const char *named = getenv("SEALPOST_DATA");
	if (named && *named)
		return strdup(named);
	struct stat st;
	if (geteuid() == 0 && stat(system_data, &st) == 0 && S_ISDIR(st.st_mode))
		return strdup(system_data);
	const char *xdg = getenv("XDG_DATA_HOME");
	if (xdg && *xdg)
		return path_join(xdg, "sealpost");
	const char *home = getenv("HOME");
	return path_join(home && *home ? home : "/root", ".local/share/sealpost");
}

static char *absolute(const char *path)
{
	if (path[0] == '/')
		return strdup(path);
	AUTO(free_auto) char *here = getcwd(NULL, 0);
	return here ? path_join(here, path) : NULL;
}

/* Beside the data directory where it can be written there, else within. */
static char *revoked_path(const struct paths *p)
{
	AUTO(free_auto) char *beside = NULL, *parent = strdup(p->data);
	char *slash = parent ? strrchr(parent, '/') : NULL;
	if (!slash || asprintf(&beside, "%s.revoked", p->data) < 0) {
		beside = NULL;
		return NULL;
	}
	slash[slash == parent] = 0; /* the path is absolute */
	bool can_write = access(beside, W_OK) == 0 || (errno == ENOENT && access(parent, W_OK) == 0);
	return can_write ? TAKE(beside) : path_join(p->ca, "revoked");
}

int paths_init(const char *data, struct paths *ret, struct err *e)
{
	AUTO(free_auto) char *named = data ? strdup(data) : default_data();
	struct paths p = {.data = named ? absolute(named) : NULL};
	if (!p.data)
		return err_oom(e);
	for (size_t n = strlen(p.data); n > 1 && p.data[n - 1] == '/'; n--)
		p.data[n - 1] = 0;
	const struct {
		char **path;
		const char *name;
	} parts[] = {
		{&p.config, "sealpost.yaml"},
		{&p.lock, "lock"},
		{&p.admin_socket, "admin.sock"},
		{&p.ca, "ca"},
		{&p.ca_bundle, "ca/ca.pem"},
		{&p.keys, "keys"},
		{&p.tls, "tls"},
		{&p.queue, "queue"},
		{&p.store, "store"},
		{&p.cache, "cache"},
	};
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		*parts[i].path = path_join(p.data, parts[i].name);
		if (!*parts[i].path) {
			paths_clear(&p);
			return err_oom(e);
		}
	}
	p.revoked = revoked_path(&p);
	if (!p.revoked) {
		paths_clear(&p);
		return err_oom(e);
	}
	if (strlen(p.admin_socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		err_set(e, ERR_REJECT, "the data directory's path is too long for a unix socket in it: '%s'",
			p.data);
		paths_clear(&p);
		return -1;
	}
	*ret = p;
	return 0;
}

void paths_clear(struct paths *p)
{
	char **all[] = {&p->data, &p->config, &p->lock, &p->admin_socket, &p->ca, &p->ca_bundle, &p->keys,
		&p->tls, &p->queue, &p->store, &p->cache, &p->revoked};
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		free(*all[i]);
		*all[i] = NULL;
	}
}
