# cython: language_level=3
"""Contents of pagemap: which pages of a region were stored to, as the kernel saw it."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from rpmem.memory.changes.pageset cimport PageSet, pageset_t
from rpmem.memory.region cimport Region


cdef extern from "rpmem/memory/changes/pagemap.h" nogil:
    ctypedef struct rpmem_run:
        uint64_t start
        uint64_t end
        uint64_t categories
    # each returns a descriptor or -errno
    int rpmem_watch_open()
    int rpmem_pagemap_open()
    # each returns 0 or an errno
    int rpmem_watch(int fd, char *address, size_t length)
    int rpmem_unwatch(int fd, char *address, size_t length)
    long rpmem_scan(int pagemap, uint64_t *at, uint64_t end, int protect, int holes,
                    rpmem_run *runs, size_t most)
    int rpmem_is_huge(int pagemap, uint64_t start, uint64_t end)
    int rpmem_is_written(const rpmem_run *run, int holes)
    void rpmem_touch(char *address)


# How a block of pages has behaved.
ctypedef struct block_t:
    uint16_t stored           # pages of it found in the scan under way
    uint16_t sample           # hot: which of its pages are protected
    uint8_t full              # scans in a row that found nearly all of its pages
    bint hot                  # all of it counts as stored to while its sample was

# Blocks in a row: once all are hot, only one is watched.
ctypedef struct group_t:
    bint released
    uint64_t first, end       # the blocks, which may be fewer than a group has
    uint16_t kept             # the one, counted from the first
    uint16_t age              # scans since it was chosen


cdef class WrittenPages:
    cdef Region region
    cdef int watch            # userfaultfd, or -1
    cdef int pagemap          # /proc/self/pagemap, or -1
    cdef bint holes
    cdef uint64_t page_size
    cdef uint64_t grid        # address of page 0
    cdef uint64_t low, high   # pages that are watched; those beside always count as stored to
    cdef bint begun           # it has been scanned once
    cdef bint huge            # some of it was mapped in 2 MiB when the watch began
    cdef block_t *blocks
    cdef group_t *groups
    cdef uint64_t group       # blocks of a group
    cdef rpmem_run *runs
    cdef int take_all(self, pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil
    cdef int take_run(self, pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil
    cdef int take_hot(self, pageset_t *pages, uint64_t block) noexcept nogil
    cdef int protect_sample(self, uint64_t block) noexcept nogil
    cdef bint is_released(self, uint64_t at) noexcept nogil
    cdef int take_group(self, pageset_t *pages, uint64_t number) noexcept nogil
    cdef int keep(self, uint64_t number, uint64_t kept) noexcept nogil
    cdef int release(self, uint64_t first, uint64_t end) noexcept nogil
    cdef int watch_again(self, uint64_t first, uint64_t end) noexcept nogil
    cdef int release_groups(self, uint64_t first, uint64_t end) noexcept nogil
    cdef int cool(self, pageset_t *pages, uint64_t number) noexcept nogil
    cdef bint is_apart(self, uint64_t at, uint64_t end) noexcept nogil
    cdef long stored(self, uint64_t first, uint64_t end) noexcept nogil
    cdef void judge(self, uint64_t first, uint64_t end) noexcept nogil
    cdef void note(self, pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil
