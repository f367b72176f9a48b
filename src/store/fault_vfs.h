/* fault_vfs.h - a layer under SQLite, for tests, whose k-th write, truncation or sync fails. Syncs are
 * counted and not passed on, which makes tests fast and tells whether a commit asked for one. Threads: any;
 * counters are atomic. */
#ifndef STORE_FAULT_VFS_H
#define STORE_FAULT_VFS_H

#include <stdatomic.h>

struct fault_vfs {
	_Atomic unsigned fail_from,
		fail_count; /* calls fail_from … fail_from + fail_count - 1 fail, from 1 */
	_Atomic int rc;     /* how: SQLITE_FULL, or 0: SQLITE_IOERR with the call's own code */
	_Atomic unsigned call_count, sync_count;
};

extern struct fault_vfs fault_vfs;

/* Makes it the default of all connections opened from now on. */
void fault_vfs_install(void);

/* Starts counting anew; from == 0: nothing fails. */
void fault_vfs_arm(unsigned from, unsigned count, int rc);

#endif
