/* crl_number.c - see crl_number.h.
 *
 * The signer that uses it may open no file once it has locked itself in, so the file cannot be replaced by a
 * rename. It has two slots that are overwritten in turn, each a line with the number written twice: a write
 * that a crash cut short leaves one slot whose halves differ and another that is good. */
#include "ca/crl_number.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/file.h"

enum { SLOTS = 2, DIGITS = 20, SLOT_BYTES = 2 * (DIGITS + 1) };

static void slot_write(char out[SLOT_BYTES + 1], uint64_t number)
{
	snprintf(out, SLOT_BYTES + 1, "%0*" PRIu64 " %0*" PRIu64 "\n", DIGITS, number, DIGITS, number);
}

static bool slot_read(const char *slot, uint64_t *ret)
{
	struct str first = {slot, DIGITS}, second = {slot + DIGITS + 1, DIGITS};
	return str_eq(first, second) && str_to_u64(first, ret);
}

int crl_number_init(const char *path, struct err *e)
{
	if (access(path, F_OK) == 0)
		return 0;
	char slots[SLOTS * SLOT_BYTES + 1];
	for (size_t slot = 0; slot < SLOTS; slot++)
		slot_write(slots + slot * SLOT_BYTES, 0);
	return file_replace(path, 0600, str_mem(slots, sizeof(slots) - 1), e);
}

/* The higher of the good slots. */
static int read_slots(int fd, const char *path, struct crl_number *ret, struct err *e)
{
	char slots[SLOTS * SLOT_BYTES];
	if (pread(fd, slots, sizeof(slots), 0) != sizeof(slots))
		return err_set(e, ERR_FATAL, "'%s' is too short", path);
	bool found = false;
	uint64_t number;
	for (size_t slot = 0; slot < SLOTS; slot++)
		if (slot_read(slots + slot * SLOT_BYTES, &number) && (!found || number > ret->last)) {
			*ret = (struct crl_number){fd, number, slot};
			found = true;
		}
	return found ? 0 : err_set(e, ERR_FATAL, "'%s' is damaged", path);
}

int crl_number_open(const char *path, struct crl_number *ret, struct err *e)
{
	AUTO(fd_auto) int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_FATAL, "open '%s'", path);
	struct crl_number opened;
	if (read_slots(fd, path, &opened, e) < 0)
		return -1;
	TAKE_FD(fd);
	*ret = opened;
	return 0;
}

void crl_number_close(struct crl_number *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}

int crl_number_next(struct crl_number *n, struct wall now, uint64_t *ret, struct err *e)
{
	uint64_t clock_ms = now.ms > 0 ? (uint64_t)now.ms : 0;
	uint64_t number = n->last + 1 > clock_ms ? n->last + 1 : clock_ms;
	size_t slot = (n->slot + 1) % SLOTS;
	char line[SLOT_BYTES + 1];
	slot_write(line, number);
	if (pwrite(n->fd, line, SLOT_BYTES, (off_t)(slot * SLOT_BYTES)) != SLOT_BYTES || fdatasync(n->fd) < 0)
		return err_sys(e, ERR_RETRY, "write the CRL number");
	n->last = number;
	n->slot = slot;
	*ret = number;
	return 0;
}
