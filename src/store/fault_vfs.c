/* fault_vfs.c - see fault_vfs.h. Each file is a wrapper with the real file behind it in the same block. */
#include "store/fault_vfs.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/macros.h"

struct fault_vfs fault_vfs;

struct fault_file {
	sqlite3_file base;
	sqlite3_file *real;
};

static sqlite3_vfs *real_vfs;

static sqlite3_file *real_of(sqlite3_file *file)
{
	return container_of(file, struct fault_file, base)->real;
}

/* Counts a call; true when it is to fail. */
static bool fails(void)
{
	unsigned call = atomic_fetch_add(&fault_vfs.call_count, 1) + 1;
	unsigned from = atomic_load(&fault_vfs.fail_from);
	return from && call >= from && call - from < atomic_load(&fault_vfs.fail_count);
}

static int failure(int own_rc)
{
	int rc = atomic_load(&fault_vfs.rc);
	return rc ? rc : own_rc;
}

static int fault_close(sqlite3_file *file)
{
	return real_of(file)->pMethods->xClose(real_of(file));
}

static int fault_read(sqlite3_file *file, void *p, int n, sqlite3_int64 offset)
{
	return real_of(file)->pMethods->xRead(real_of(file), p, n, offset);
}

/* A write that fails has written half: so does a disk that is full. */
static int fault_write(sqlite3_file *file, const void *p, int n, sqlite3_int64 offset)
{
	if (!fails())
		return real_of(file)->pMethods->xWrite(real_of(file), p, n, offset);
	real_of(file)->pMethods->xWrite(real_of(file), p, n / 2, offset);
	return failure(SQLITE_IOERR_WRITE);
}

static int fault_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	return fails() ? failure(SQLITE_IOERR_TRUNCATE)
		       : real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int fault_sync(sqlite3_file *file, int flags)
{
	(void)file;
	(void)flags;
	atomic_fetch_add(&fault_vfs.sync_count, 1);
	return fails() ? failure(SQLITE_IOERR_FSYNC) : SQLITE_OK;
}

static int fault_size(sqlite3_file *file, sqlite3_int64 *size)
{
	return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int fault_lock(sqlite3_file *file, int level)
{
	return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int fault_unlock(sqlite3_file *file, int level)
{
	return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int fault_reserved(sqlite3_file *file, int *ret)
{
	return real_of(file)->pMethods->xCheckReservedLock(real_of(file), ret);
}

static int fault_control(sqlite3_file *file, int op, void *arg)
{
	return real_of(file)->pMethods->xFileControl(real_of(file), op, arg);
}

static int fault_sector(sqlite3_file *file)
{
	return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int fault_traits(sqlite3_file *file)
{
	return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int fault_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **ret)
{
	return real_of(file)->pMethods->xShmMap(real_of(file), region, size, extend, ret);
}

static int fault_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
	return real_of(file)->pMethods->xShmLock(real_of(file), offset, n, flags);
}

static void fault_shm_barrier(sqlite3_file *file)
{
	real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int fault_shm_unmap(sqlite3_file *file, int delete_it)
{
	return real_of(file)->pMethods->xShmUnmap(real_of(file), delete_it);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2, /* no memory-mapped reads */
	.xClose = fault_close,
	.xRead = fault_read,
	.xWrite = fault_write,
	.xTruncate = fault_truncate,
	.xSync = fault_sync,
	.xFileSize = fault_size,
	.xLock = fault_lock,
	.xUnlock = fault_unlock,
	.xCheckReservedLock = fault_reserved,
	.xFileControl = fault_control,
	.xSectorSize = fault_sector,
	.xDeviceCharacteristics = fault_traits,
	.xShmMap = fault_shm_map,
	.xShmLock = fault_shm_lock,
	.xShmBarrier = fault_shm_barrier,
	.xShmUnmap = fault_shm_unmap,
};

static int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	(void)vfs;
	struct fault_file *f = container_of(file, struct fault_file, base);
	f->real = (sqlite3_file *)(f + 1);
	int rc = real_vfs->xOpen(real_vfs, name, f->real, flags, ret_flags);
	f->base.pMethods = rc == SQLITE_OK ? &methods : NULL;
	return rc;
}

void fault_vfs_install(void)
{
	static sqlite3_vfs vfs;
	real_vfs = sqlite3_vfs_find(NULL);
	vfs = *real_vfs; /* all but opening is the real one's, which looks at nothing of `vfs` */
	vfs.pNext = NULL;
	vfs.zName = "fault";
	vfs.szOsFile = (int)sizeof(struct fault_file) + real_vfs->szOsFile;
	vfs.xOpen = fault_open;
	sqlite3_vfs_register(&vfs, 1);
}

void fault_vfs_arm(unsigned from, unsigned count, int rc)
{
	atomic_store(&fault_vfs.fail_count, 0);
	atomic_store(&fault_vfs.call_count, 0);
	atomic_store(&fault_vfs.rc, rc);
	atomic_store(&fault_vfs.fail_from, from);
	atomic_store(&fault_vfs.fail_count, count);
}
