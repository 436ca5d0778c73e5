/* What Linux 6.7 and newer offer to find written pages; the headers installed may be older. */
#ifndef RPMEM_PAGEMAP_H
#define RPMEM_PAGEMAP_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RPMEM_UFFD_API 0xAAull
#define RPMEM_UFFD_USER_MODE_ONLY 1
#define RPMEM_UFFD_WP_HUGETLBFS_SHMEM (1ull << 12)
#define RPMEM_UFFD_WP_UNPOPULATED (1ull << 13)
#define RPMEM_UFFD_WP_ASYNC (1ull << 15)
#define RPMEM_UFFD_MODE_WP 2ull
#define RPMEM_IS_WRITTEN 2ull
#define RPMEM_IS_PRESENT 8ull
#define RPMEM_IS_SWAPPED 16ull
#define RPMEM_IS_HUGE 64ull
#define RPMEM_PROTECT_MATCHING 1ull
#define RPMEM_CHECK_ASYNC 2ull

typedef struct { uint64_t start, end, categories; } rpmem_run;
typedef struct { uint64_t api, features, ioctls; } rpmem_uffdio_api;
typedef struct { uint64_t start, len; } rpmem_uffdio_range;
typedef struct { rpmem_uffdio_range range; uint64_t mode, ioctls; } rpmem_uffdio_register;
typedef struct {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
} rpmem_scan_arg;

#define RPMEM_UFFDIO_API _IOWR(0xAA, 0x3F, rpmem_uffdio_api)
#define RPMEM_UFFDIO_REGISTER _IOWR(0xAA, 0x00, rpmem_uffdio_register)
#define RPMEM_UFFDIO_UNREGISTER _IOR(0xAA, 0x01, rpmem_uffdio_range)
#define RPMEM_PAGEMAP_SCAN _IOWR('f', 16, rpmem_scan_arg)

/* A descriptor whose write protection ends by itself at the first store, or -errno. */
static int rpmem_watch_open(void)
{
#ifdef SYS_userfaultfd
    rpmem_uffdio_api api = {RPMEM_UFFD_API, RPMEM_UFFD_WP_ASYNC | RPMEM_UFFD_WP_UNPOPULATED
                                            | RPMEM_UFFD_WP_HUGETLBFS_SHMEM, 0};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | RPMEM_UFFD_USER_MODE_ONLY);
    int rc;
    if (fd < 0)
        return -errno;
    if (ioctl(fd, RPMEM_UFFDIO_API, &api) == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
#else
    return -ENOSYS;
#endif
}

static int rpmem_pagemap_open(void)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int rpmem_watch(int fd, char *address, size_t length)
{
    rpmem_uffdio_register wanted = {{(uintptr_t)address, length}, RPMEM_UFFD_MODE_WP, 0};
    return ioctl(fd, RPMEM_UFFDIO_REGISTER, &wanted) == 0 ? 0 : errno;
}

static int rpmem_unwatch(int fd, char *address, size_t length)
{
    rpmem_uffdio_range range = {(uintptr_t)address, length};
    return ioctl(fd, RPMEM_UFFDIO_UNREGISTER, &range) == 0 ? 0 : errno;
}

/* Find pages that were stored to since they were protected, and protect them again if wanted.
 *
 * `holes`: what is not mapped at all counts as stored to as well. It does anyway, except where a
 * whole page table is missing, which happens when pages were mapped in 2 MiB.
 * Returns the number of runs, or -errno; the walk goes on at *at. */
static long rpmem_scan(int pagemap, uint64_t *at, uint64_t end, int protect, int holes,
                       rpmem_run *runs, size_t most)
{
    rpmem_scan_arg scan;
    long found;
    memset(&scan, 0, sizeof scan);
    scan.size = sizeof scan;
    scan.flags = RPMEM_CHECK_ASYNC | (protect ? RPMEM_PROTECT_MATCHING : 0);
    scan.start = *at;
    scan.end = end;
    scan.vec = (uintptr_t)runs;
    scan.vec_len = most;
    scan.return_mask = RPMEM_IS_WRITTEN;
    if (holes) {
        scan.category_inverted = RPMEM_IS_PRESENT;
        scan.category_anyof_mask = RPMEM_IS_WRITTEN | RPMEM_IS_PRESENT;
        scan.return_mask = RPMEM_IS_WRITTEN | RPMEM_IS_PRESENT | RPMEM_IS_SWAPPED;
    } else {
        scan.category_mask = RPMEM_IS_WRITTEN;
    }
    found = ioctl(pagemap, RPMEM_PAGEMAP_SCAN, &scan);
    if (found < 0)
        return -errno;
    *at = scan.walk_end;
    return found;
}

/* Whether some of it is mapped in 2 MiB. */
static int rpmem_is_huge(int pagemap, uint64_t start, uint64_t end)
{
    rpmem_scan_arg scan;
    rpmem_run run;
    memset(&scan, 0, sizeof scan);
    scan.size = sizeof scan;
    scan.start = start;
    scan.end = end;
    scan.vec = (uintptr_t)&run;
    scan.vec_len = 1;
    scan.category_mask = RPMEM_IS_HUGE;
    scan.return_mask = RPMEM_IS_HUGE;
    return ioctl(pagemap, RPMEM_PAGEMAP_SCAN, &scan) > 0;
}

/* Whether a run that a scan with `holes` found was stored to: a page that is not present and not
 * swapped either has lost its protection; one that is "swapped" only has a mark that it is kept. */
static int rpmem_is_written(const rpmem_run *run, int holes)
{
    return !holes || run->categories & RPMEM_IS_WRITTEN
        || !(run->categories & (RPMEM_IS_PRESENT | RPMEM_IS_SWAPPED));
}

/* A store that changes nothing. */
static void rpmem_touch(char *address)
{
    __atomic_fetch_add((uint64_t *)address, 0, __ATOMIC_SEQ_CST);
}

#endif
