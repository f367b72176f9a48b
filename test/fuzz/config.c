/* config - the configuration file, from YAML to the struct and back.
 *
 * Holds: no file harms the reader; a refusal says where; what was accepted prints as a file that is accepted
 * again with the same values. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/config.h"

enum { TEXT_BYTES = 4 * 1024 * 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Loads a file with these contents; NULL and *e when it is refused. */
static struct config *load(const void *bytes, size_t size, struct err *e)
{
	AUTO(fd_auto) int fd = memfd_create("config", MFD_CLOEXEC);
	char path[64];
	struct config *config = NULL;
	require(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	struct config_source source = {.file = path};
	return config_load(&source, &config, e) < 0 ? NULL : config;
}

static void show(const struct config *config, struct buf *out)
{
	buf_init(out, TEXT_BYTES);
	require(config_show_json(config, out, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = ERR_INIT;
	struct config *first = load(data, size, &e);
	if (!first) {
		require(e.kind != ERR_NONE && e.text[0]);
		return 0;
	}
	AUTO(buf_auto) struct buf yaml, before, after;
	buf_init(&yaml, TEXT_BYTES);
	require(config_show(first, &yaml, NULL) == 0);
	struct config *second = load(yaml.p, yaml.n, &e);
	require(second != NULL);
	show(first, &before);
	show(second, &after);
	require(str_eq(buf_str(&before), buf_str(&after)));
	config_free(first);
	config_free(second);
	return 0;
}
