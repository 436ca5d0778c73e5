/*
 * In front of the C library: /proc/kallsyms is not there. libfabric reads all of it when a process
 * first asks it something (see rpmem/fabric/__init__.py), which costs the originals 100 ms a start.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

FILE *fopen(const char *path, const char *mode)
{
	FILE *(*real)(const char *, const char *) =
		(FILE * (*)(const char *, const char *))dlsym(RTLD_NEXT, "fopen");

	if (strcmp(path, "/proc/kallsyms") == 0) {
		errno = ENOENT;
		return NULL;
	}
	return real(path, mode);
}
