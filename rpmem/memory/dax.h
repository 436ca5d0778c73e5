/* Whether a file's pages are those of its medium, with no page cache between. */
#ifndef RPMEM_DAX_H
#define RPMEM_DAX_H

#include <fcntl.h>
#include <sys/stat.h>

#ifndef STATX_ATTR_DAX
#define STATX_ATTR_DAX 0x00200000
#endif

/* 1 if so, 0 if not; -1 where the file cannot be examined. An empty path: an open file. */
static int rpmem_is_dax(int folder, const char *path)
{
    struct statx found;
    if (statx(folder, path, *path ? 0 : AT_EMPTY_PATH, STATX_TYPE, &found) != 0)
        return -1;
    return !S_ISREG(found.stx_mode) || found.stx_attributes & STATX_ATTR_DAX;
}

#endif
