/*
 * A preloaded msync(2) that fails as the first byte of the range says, once, without reaching the
 * file; the next call for the same range passes, as the kernel's does after it dropped a page.
 *
 *   'E'  fails with EIO and leaves 'e'
 *   'W'  waits until another call has come back, then fails with EIO and leaves 'w'
 *
 * msync_calls and msync_bytes count what reached the real call.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

unsigned long msync_calls, msync_bytes, msync_begun, msync_ended;

int
msync(void *address, size_t length, int flags)
{
	volatile char *first = address;
	unsigned long before = __atomic_load_n(&msync_ended, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&msync_begun, 1, __ATOMIC_SEQ_CST);
	if (*first == 'E' || *first == 'W') {
		while (*first == 'W' && __atomic_load_n(&msync_ended, __ATOMIC_SEQ_CST) == before)
			sched_yield();
		*first |= 0x20;
		__atomic_add_fetch(&msync_ended, 1, __ATOMIC_SEQ_CST);
		errno = EIO;
		return -1;
	}
	__atomic_add_fetch(&msync_calls, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&msync_bytes, length, __ATOMIC_SEQ_CST);
	int rc = (int)syscall(SYS_msync, address, length, flags);
	__atomic_add_fetch(&msync_ended, 1, __ATOMIC_SEQ_CST);
	return rc;
}
