/*
 * record_msync.so: preloaded into a program, writes a line "ADDRESS LENGTH" (hexadecimal) to
 * the file $MSYNC_RECORD for every msync(2) that has succeeded.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int
msync(void *address, size_t length, int flags)
{
	int result = (int)syscall(SYS_msync, address, length, flags);
	const char *path = getenv("MSYNC_RECORD");
	char line[64];
	int file, n;

	if (result || !path)
		return result;
	file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	n = snprintf(line, sizeof(line), "%lx %zx\n", (unsigned long)address, length);
	if (file < 0 || write(file, line, (size_t)n) != n)
		abort();
	close(file);
	return 0;
}
