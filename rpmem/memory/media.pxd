"""Contents of media: the segments of a region, and how the bytes of each are made durable."""

from libc.stdint cimport uint64_t

from rpmem.memory.refusal cimport refusal_t


# One operation on [address, address + length) of a segment: 0, or an errno.
ctypedef int (*segment_range_fn)(segment_t *segment, char *address, size_t length) noexcept nogil
ctypedef int (*segment_drain_fn)(segment_t *segment) noexcept nogil
ctypedef void (*pmem_range_fn)(const void *address, size_t length) noexcept nogil
ctypedef void (*pmem_drain_fn)() noexcept nogil
# libpmem2's return value, see errno_of
ctypedef int (*pmem_deep_fn)(void *map, void *address, size_t length) noexcept nogil


cdef struct segment_t:
    char *base                      # first byte in memory, page aligned for mapped files
    uint64_t start                  # its offset in the region
    uint64_t length
    segment_range_fn flush          # start write-back
    segment_range_fn persist        # write back and wait
    segment_range_fn deep           # down to the lowest domain software can reach
    segment_drain_fn drain          # wait for earlier flushes
    # used by the functions above
    pmem_range_fn pmem_flush
    pmem_range_fn pmem_persist
    pmem_drain_fn pmem_drain
    pmem_deep_fn pmem_deep
    int pmem_unit                   # bytes that are written back together
    void *map                       # struct pmem2_map *, or NULL
    refusal_t *refusal              # the region's
    bint direct                     # its pages are the medium itself: DAX
    uint64_t file_offset


cdef enum verb_t:
    FLUSH
    PERSIST
    DEEP


# Fill in a segment's functions, once; those for pmem follow the pointers that it has from libpmem2.
cdef void set_medium_volatile(segment_t *segment) noexcept nogil
cdef void set_medium_page(segment_t *segment) noexcept nogil
cdef void set_medium_pmem(segment_t *segment, bint forced) noexcept nogil
# Choose volatile or page by the file system of an open file: 0 or an errno.
cdef int set_medium_of_file(segment_t *segment, int fd) noexcept nogil

# Bytes that are written back together: 1, 64 or the page size.
cdef int unit_of(const segment_t *segment) noexcept nogil
cdef bint is_volatile(const segment_t *segment) noexcept nogil
cdef bint is_pmem(const segment_t *segment) noexcept nogil

# The same for a range over several segments: tries all, returns the first failure.
cdef int across(
    segment_t *segments, int count, verb_t verb, uint64_t offset, uint64_t length) noexcept nogil


cdef inline int act(segment_t *segment, verb_t verb, char *address, size_t length) noexcept nogil:
    if verb == FLUSH:
        return segment.flush(segment, address, length)
    if verb == PERSIST:
        return segment.persist(segment, address, length)
    return segment.deep(segment, address, length)


cdef inline int errno_of(int rc) noexcept nogil:
    """libpmem2 returns a negative errno, or a far lower number of its own; here 5 is EIO."""
    if rc == 0:
        return 0
    return -rc if -4096 < rc < 0 else 5
