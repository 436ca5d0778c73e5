"""Which pages of a region were stored to, as the kernel saw it (Linux 6.7 and newer).

Pages are write-protected; the first store to one ends its protection, without anybody being told;
a scan finds those that are not protected any more, and protects them again. Stores by system calls
(read, recv) are seen like others. Stores that do not go through this mapping are not: those of a
forked child, of another process, of pwrite, or of a device that has been given the memory's
physical address.

A store to a protected page costs a fault, about a microsecond. So memory that is rewritten as a
whole between any two scans stays unprotected, but for a small sample: while that was stored to, the
whole block counts as stored to. Pages of a file that are mapped in 2 MiB cannot be told apart, so
they are mapped one by one; that alone makes a store to a page after it was written back cost 10
microseconds. So of a row of such blocks one is watched for all, and files that were mapped in 2 MiB
are mapped so again there.
"""

import os

from libc.stdint cimport uint16_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from posix.mman cimport madvise
from posix.unistd cimport close

from rpmem.memory.changes.pageset cimport (
    PageSet, page_at, page_behind, pages_add, pageset_t,
)
from rpmem.memory.region cimport Region

from rpmem.base.handles import refuse_copy
from rpmem.errors import ClosedError, UsageError
from rpmem.memory.changes.mappings import files_at, is_shared

cdef extern from "<fcntl.h>" nogil:
    const int AT_FDCWD

cdef extern from "../dax.h" nogil:
    int rpmem_is_dax(int folder, const char *path)

cdef extern from "<sys/mman.h>" nogil:
    const int MADV_DONTNEED
    const int MADV_HUGEPAGE
    const int MADV_NOHUGEPAGE

cdef enum:
    RUNS = 2048              # of one scan
    BLOCK = 512              # pages
    NEARLY_ALL = 448         # pages of a block: it was rewritten as a whole
    SAMPLE = 4               # pages of a hot block that are protected
    ROUNDS = 2               # full scans in a row that make a block hot
    FEWEST = 4
    FEW = 8                  # hot blocks of which one is watched for all,
    GROUP = 64               # and where the others are mapped in 2 MiB then
    MOST_GROUPS = 1024
    MOST_AGE = 16            # scans in a row for which the same one is, there

# From this version on, a mapping with MADV_NOHUGEPAGE is never mapped in 2 MiB.
cdef object EXACT = (6, 12)


def try_on(Region region not None):
    """Find out whether the kernel tells which pages of this region's memory are stored to.

    It is tried on the first whole page of each segment, with a store that changes nothing.

    Raises
    ------
    UsageError
        It does not; the text says why.
    """
    cdef int watch = rpmem_watch_open()
    cdef int pagemap, index
    cdef uint64_t size = PageSet(1).page_size
    if watch < 0:
        raise unusable("userfaultfd", -watch)
    pagemap = rpmem_pagemap_open()
    try:
        if pagemap < 0:
            raise unusable("/proc/self/pagemap", -pagemap)
        if not region.writable:
            raise UsageError("memory that is only read has no stores to find", where=region.label)
        check_mapping(region)
        shared = is_shared(<uintptr_t> region.base, region.size)
        for index in range(region.mapped.count):
            first = (<uint64_t> <uintptr_t> region.mapped.segments[index].base + size - 1) & -size
            end = (<uint64_t> <uintptr_t> region.mapped.segments[index].base
                   + region.mapped.segments[index].length)
            if first + size <= end:
                try_page(watch, pagemap, <char *> <uintptr_t> first, size, shared)
    finally:
        close(watch)
        if pagemap >= 0:
            close(pagemap)


cdef int try_page(int watch, int pagemap, char *page, uint64_t size, bint shared) except -1:
    """Protect a page, store to it, have it unmapped: each has to be seen."""
    cdef int rc = rpmem_watch(watch, page, size)
    if rc:
        raise unusable("its mapping", rc)
    try:
        found_after(pagemap, page, size, True)
        if found_after(pagemap, page, size, True):
            raise UsageError("the kernel does not protect its pages")
        rpmem_touch(page)
        if not found_after(pagemap, page, size, False):
            raise UsageError("the kernel does not see a store")
        if shared and madvise(page, size, MADV_DONTNEED) == 0:
            if not found_after(pagemap, page, size, False):
                raise UsageError("the kernel forgets a store when the page is unmapped")
        found_after(pagemap, page, size, True)
        rpmem_touch(page)
        if not found_after(pagemap, page, size, False):
            raise UsageError("the kernel does not see a store to an unmapped page")
    finally:
        rpmem_unwatch(watch, page, size)
    return 0


cdef long found_after(int pagemap, char *page, uint64_t size, bint protect) except -1:
    cdef rpmem_run runs[2]
    cdef uint64_t at = <uint64_t> <uintptr_t> page
    cdef long found = rpmem_scan(pagemap, &at, at + size, protect, False, runs, 2)
    if found < 0:
        raise unusable("PAGEMAP_SCAN", <int> -found)
    return found


cdef int check_mapping(Region region) except -1:
    """Raise UsageError where a fault would go on for ever: DAX does not know protected pages.

    Linux 6.12 warns of it and lets the program hang.
    """
    cdef int index
    for index in range(region.mapped.count):
        if region.mapped.segments[index].direct:
            raise UsageError("its pages are those of its medium (DAX), which cannot be protected")
    if region.has_source:
        # Nobody knows what is mapped there.
        for path in files_at(<uintptr_t> region.base, region.size):
            if rpmem_is_dax(AT_FDCWD, path):
                raise UsageError(f"{os.fsdecode(path)}: it is on DAX, or cannot be examined")
    return 0


cdef unusable(str what, int rc):
    return UsageError(f"{what}: {os.strerror(rc)}", errno=rc)


cdef class WrittenPages:
    """Finds the pages of a region that were stored to.

    Parameters
    ----------
    region : Region
        Writable; its memory has to stay until `close`.
    holes : bool, optional
        What is not mapped at all counts as stored to; None: where the kernel may map in 2 MiB.
    huge : bool, optional
        The memory is better mapped in 2 MiB where that does not matter; None: if some of it is.

    Notes
    -----
    Only stores after it was made are found, and the first `take` finds every page. It is not made
    for two threads at once. It must not be used after a fork.
    """

    def __cinit__(self, Region region not None, *, holes=None, huge=None):
        cdef uint64_t size = PageSet(1).page_size
        cdef uint64_t begin = <uint64_t> <uintptr_t> region.base
        cdef uint64_t blocks
        cdef int rc
        self.watch = self.pagemap = -1
        self.region = region
        self.holes = kernel_version() < EXACT if holes is None else holes
        self.page_size = size
        self.grid = begin & -size
        self.low = (begin - self.grid + size - 1) // size
        self.high = (begin + region.size - self.grid) // size
        blocks = self.high // BLOCK + 1
        self.watch = rpmem_watch_open()
        if self.watch < 0:
            raise unusable("userfaultfd", -self.watch)
        self.pagemap = rpmem_pagemap_open()
        if self.pagemap < 0:
            raise unusable("/proc/self/pagemap", -self.pagemap)
        if is_shared(begin, region.size):
            self.huge = (rpmem_is_huge(self.pagemap, begin, begin + region.size) if huge is None
                         else huge)
            # Otherwise a store marks all of a large folio, 512 pages: map in pages, from now on.
            madvise(region.base, region.size, MADV_NOHUGEPAGE)
            madvise(region.base, region.size, MADV_DONTNEED)
        self.group = FEW
        if self.huge:
            # Each of them may cost two mappings, of which a process has 65,530.
            self.group = max(min(blocks // 8, <uint64_t> GROUP), <uint64_t> 4,
                             blocks // MOST_GROUPS)
        self.blocks = <block_t *> calloc(blocks, sizeof(block_t))
        self.groups = <group_t *> calloc(blocks // self.group + 1, sizeof(group_t))
        self.runs = <rpmem_run *> malloc(RUNS * sizeof(rpmem_run))
        if self.blocks == NULL or self.groups == NULL or self.runs == NULL:
            raise MemoryError("no memory to find changed pages")
        if self.low < self.high:
            rc = rpmem_watch(self.watch, <char *> <uintptr_t> (self.grid + self.low * size),
                             (self.high - self.low) * size)
            if rc:
                raise unusable("its mapping", rc)

    def __dealloc__(self):
        if self.watch >= 0:
            close(self.watch)
        if self.pagemap >= 0:
            close(self.pagemap)
        free(self.blocks)
        free(self.groups)
        free(self.runs)

    def __reduce__(self):
        refuse_copy(self, "It belongs to one pool.")

    def take(self, PageSet pages not None, uint64_t offset, uint64_t length):
        """Add the pages of a range that were stored to since the last call, and protect them again.

        Raises
        ------
        OSError
            The kernel refused; every page of the range is in the set then.
        """
        cdef uint64_t first, end
        cdef int rc
        if self.region.base == NULL or self.watch < 0:
            raise ClosedError("the region is closed", where=self.region.label)
        if length == 0:
            return
        pages.check(offset, length)
        first = page_at(&pages.c, offset)
        end = page_behind(&pages.c, offset + length)
        with nogil:
            rc = self.take_all(&pages.c, first, end)
        self.begun = True
        if rc:
            pages_add(&pages.c, first, end)
            raise OSError(rc, f"PAGEMAP_SCAN: {os.strerror(rc)}")

    cdef int take_all(self, pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil:
        cdef uint64_t at, stop
        cdef group_t *group
        cdef int rc = 0
        # Pages that only partly belong to the region cannot be watched.
        pages_add(pages, first, min(end, self.low))
        pages_add(pages, max(first, self.high), end)
        at = first = max(first, self.low)
        end = min(end, self.high)
        while at < end:
            if self.is_released(at):
                group = &self.groups[at // BLOCK // self.group]
                stop = min(group.end * BLOCK, end)
                if at == group.first * BLOCK and stop == group.end * BLOCK:
                    rc = self.take_group(pages, at // BLOCK // self.group)
                else:
                    pages_add(pages, at, stop)
            elif self.is_apart(at, end):
                stop = at + BLOCK
                rc = self.take_hot(pages, at // BLOCK)
            else:
                stop = at
                while stop < end and not self.is_apart(stop, end):
                    stop = min((stop // BLOCK + 1) * BLOCK, end)
                rc = self.take_run(pages, at, stop)
            if rc:
                return rc
            at = stop
        return self.release_groups(first, end)

    cdef bint is_apart(self, uint64_t at, uint64_t end) noexcept nogil:
        """Whether the block that begins at a page, if one does, is not looked at page by page."""
        if self.is_released(at):
            return True
        return at % BLOCK == 0 and at + BLOCK <= end and self.blocks[at // BLOCK].hot

    cdef bint is_released(self, uint64_t at) noexcept nogil:
        """Whether another block is watched for that of a page."""
        cdef uint64_t block = at // BLOCK
        cdef const group_t *group = &self.groups[block // self.group]
        return group.released and group.first <= block < group.end

    cdef int take_run(self, pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil:
        """Take what was stored to of pages that are watched one by one."""
        cdef uint64_t at = self.grid + first * pages.page_size
        cdef uint64_t stop = self.grid + end * pages.page_size
        cdef uint64_t block
        cdef long found, k
        for block in range(first // BLOCK, (end - 1) // BLOCK + 1):
            self.blocks[block].stored = 0
        while at < stop:
            found = rpmem_scan(self.pagemap, &at, stop, True, self.holes, self.runs, RUNS)
            if found < 0:
                return <int> -found
            for k in range(found):
                if rpmem_is_written(&self.runs[k], self.holes):
                    self.note(pages, (self.runs[k].start - self.grid) // pages.page_size,
                              (self.runs[k].end - self.grid) // pages.page_size)
        self.judge(first, end)
        return 0

    cdef void note(self, pageset_t *pages, uint64_t first, uint64_t end) noexcept nogil:
        """Pages were stored to."""
        cdef uint64_t stop
        pages_add(pages, first, end)
        while first < end:
            stop = min((first // BLOCK + 1) * BLOCK, end)
            self.blocks[first // BLOCK].stored += <uint16_t> (stop - first)
            first = stop

    cdef void judge(self, uint64_t first, uint64_t end) noexcept nogil:
        """Find the blocks, of those that were scanned as a whole, that are always rewritten."""
        cdef uint64_t k
        cdef block_t *block
        for k in range((first + BLOCK - 1) // BLOCK, end // BLOCK):
            block = &self.blocks[k]
            # The first scan finds every page, whatever was stored to.
            if block.stored < NEARLY_ALL or not self.begun:
                block.full = 0
            else:
                block.full += 1
                # Its pages have just been protected; from now on only the sample will be.
                block.hot = block.full >= ROUNDS

    cdef int take_hot(self, pageset_t *pages, uint64_t block) noexcept nogil:
        """Take a whole block while its sample was stored to; watch its pages again if not."""
        cdef uint64_t first = block * BLOCK
        cdef uint64_t sample = first + self.blocks[block].sample
        cdef long found = self.stored(sample, sample + SAMPLE)
        if found < 0:
            return <int> -found
        if found == 0:
            self.blocks[block].hot = self.blocks[block].full = 0
            return self.take_run(pages, first, first + BLOCK)
        pages_add(pages, first, first + BLOCK)
        return self.protect_sample(block)

    cdef int protect_sample(self, uint64_t block) noexcept nogil:
        """Another one each time: a program may leave out some pages."""
        cdef uint64_t at, sample
        cdef long found
        self.blocks[block].sample = (self.blocks[block].sample + SAMPLE) % BLOCK
        sample = block * BLOCK + self.blocks[block].sample
        at = self.grid + sample * self.page_size
        found = rpmem_scan(self.pagemap, &at, at + SAMPLE * self.page_size, True, self.holes,
                           self.runs, SAMPLE)
        return <int> -found if found < 0 else 0

    cdef int release_groups(self, uint64_t first, uint64_t end) noexcept nogil:
        """Watch one block for each group all of whose blocks are hot."""
        cdef uint64_t number, block
        cdef group_t *group
        cdef bint hot
        cdef int rc
        for number in range(first // BLOCK // self.group, end // BLOCK // self.group + 1):
            group = &self.groups[number]
            if group.released:
                continue
            # Blocks that are only partly looked at are never hot.
            group.first = max(number * self.group, (first + BLOCK - 1) // BLOCK)
            group.end = min((number + 1) * self.group, end // BLOCK)
            hot = group.first + FEWEST <= group.end
            for block in range(group.first, group.end):
                hot = hot and self.blocks[block].hot
            if hot:
                rc = self.keep(number, group.first)
                if rc:
                    return rc
        return 0

    cdef int keep(self, uint64_t number, uint64_t kept) noexcept nogil:
        """Watch one block for its whole group, whose pages all count as stored to in this scan."""
        cdef group_t *group = &self.groups[number]
        cdef uint64_t former = group.first + group.kept
        cdef int rc
        if group.released:
            rc = self.watch_again(kept * BLOCK, (kept + 1) * BLOCK)
            if rc == 0:
                rc = self.release(former * BLOCK, (former + 1) * BLOCK)
        else:
            rc = self.release(group.first * BLOCK, kept * BLOCK)
            if rc == 0:
                rc = self.release((kept + 1) * BLOCK, group.end * BLOCK)
        if rc:
            return rc
        group.released = True
        group.kept = <uint16_t> (kept - group.first)
        group.age = 0
        return self.protect_sample(kept)

    cdef int take_group(self, pageset_t *pages, uint64_t number) noexcept nogil:
        """Take a released group as the block behaves that is watched for it."""
        cdef group_t *group = &self.groups[number]
        cdef uint64_t kept = group.first + group.kept
        cdef int rc = self.take_hot(pages, kept)
        pages_add(pages, group.first * BLOCK, group.end * BLOCK)
        if rc:
            return rc
        if not self.blocks[kept].hot:
            return self.cool(pages, number)
        group.age += 1
        if self.huge and group.age < MOST_AGE:
            return 0
        kept += 1
        return self.keep(number, kept if kept < group.end else group.first)

    cdef int cool(self, pageset_t *pages, uint64_t number) noexcept nogil:
        """Watch every page of a group again; all of them count as stored to in this scan."""
        cdef group_t *group = &self.groups[number]
        cdef uint64_t block
        cdef int rc
        for block in range(group.first, group.end):
            self.blocks[block].hot = self.blocks[block].full = 0
        rc = self.watch_again(group.first * BLOCK, group.end * BLOCK)
        if rc:
            return rc
        group.released = False
        return self.take_run(pages, group.first * BLOCK, group.end * BLOCK)

    cdef int release(self, uint64_t first, uint64_t end) noexcept nogil:
        """Watch no longer, and have the pages mapped in 2 MiB, if that is better."""
        cdef char *address = <char *> <uintptr_t> (self.grid + first * self.page_size)
        cdef int rc
        if first == end or not self.huge:
            return 0
        rc = rpmem_unwatch(self.watch, address, (end - first) * self.page_size)
        if rc == 0:
            madvise(address, (end - first) * self.page_size, MADV_HUGEPAGE)
            madvise(address, (end - first) * self.page_size, MADV_DONTNEED)
        return rc

    cdef int watch_again(self, uint64_t first, uint64_t end) noexcept nogil:
        cdef char *address = <char *> <uintptr_t> (self.grid + first * self.page_size)
        if not self.huge:
            return 0
        madvise(address, (end - first) * self.page_size, MADV_NOHUGEPAGE)
        madvise(address, (end - first) * self.page_size, MADV_DONTNEED)
        return rpmem_watch(self.watch, address, (end - first) * self.page_size)

    cdef long stored(self, uint64_t first, uint64_t end) noexcept nogil:
        """Return whether pages were stored to, or -errno; protect nothing."""
        cdef uint64_t size = self.page_size
        cdef uint64_t at = self.grid + first * size
        cdef long found, k
        found = rpmem_scan(self.pagemap, &at, self.grid + end * size, False, self.holes,
                           self.runs, end - first)
        for k in range(found):
            if rpmem_is_written(&self.runs[k], self.holes):
                return 1
        return min(found, 0)

    @property
    def hot(self):
        """Blocks of 512 pages that are left unprotected, as they are rewritten as a whole."""
        cdef uint64_t block, found = 0
        for block in range(self.high // BLOCK + 1):
            found += self.blocks[block].hot
        return found

    @property
    def released(self):
        """Pages that are not watched, as another block is watched for them."""
        cdef uint64_t number, found = 0
        for number in range((self.high // BLOCK + 1) // self.group + 1):
            if self.groups[number].released:
                found += (self.groups[number].end - self.groups[number].first - 1) * BLOCK
        return found

    def close(self):
        """End the protection. Closing again is harmless."""
        if self.watch >= 0:
            # A forked child may still have the descriptor, which alone would go on with it.
            if self.region.base != NULL and self.low < self.high:
                rpmem_unwatch(self.watch,
                              <char *> <uintptr_t> (self.grid + self.low * self.page_size),
                              (self.high - self.low) * self.page_size)
            close(self.watch)
            close(self.pagemap)
        self.watch = self.pagemap = -1


cdef tuple kernel_version():
    """Its first two numbers."""
    numbers = os.uname().release.split("-")[0].split(".")
    return tuple(int(number) for number in numbers[:2] if number.isdecimal())
