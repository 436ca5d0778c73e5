"""The media: the functions of a segment, chosen once when it is mapped.

Nothing looks at a medium's name afterwards. All of this runs without the GIL and returns an errno.
"""

from libc.errno cimport errno
from libc.stdint cimport uint64_t, uintptr_t
from posix.mman cimport MS_SYNC, msync
from posix.unistd cimport _SC_PAGESIZE, sysconf

from rpmem.memory.refusal cimport flight_begin, flight_end, flight_t


cdef extern from "<sys/vfs.h>" nogil:
    struct c_statfs "statfs":
        long f_type
    int fstatfs(int fd, c_statfs *buffer)


cdef extern from "<linux/magic.h>" nogil:
    const long TMPFS_MAGIC
    const long RAMFS_MAGIC
    const long HUGETLBFS_MAGIC


cdef size_t PAGE = <size_t> sysconf(_SC_PAGESIZE)


cdef int volatile_range(segment_t *segment, char *address, size_t length) noexcept nogil:
    return 0


cdef int nothing_to_drain(segment_t *segment) noexcept nogil:
    return 0


cdef int pmem_flush(segment_t *segment, char *address, size_t length) noexcept nogil:
    segment.pmem_flush(address, length)
    return 0


cdef int pmem_persist(segment_t *segment, char *address, size_t length) noexcept nogil:
    segment.pmem_persist(address, length)
    return 0


cdef int pmem_drain(segment_t *segment) noexcept nogil:
    segment.pmem_drain()
    return 0


cdef int pmem_deep(segment_t *segment, char *address, size_t length) noexcept nogil:
    segment.pmem_persist(address, length)
    return errno_of(segment.pmem_deep(segment.map, address, length))


cdef int page_sync(segment_t *segment, char *address, size_t length) noexcept nogil:
    cdef uintptr_t first = <uintptr_t> address & ~(<uintptr_t> PAGE - 1)
    cdef uintptr_t end = (<uintptr_t> address + length + PAGE - 1) & ~(<uintptr_t> PAGE - 1)
    cdef flight_t flight
    cdef int rc
    flight_begin(segment.refusal, &flight)
    rc = 0 if msync(<void *> first, end - first, MS_SYNC) == 0 else errno
    return flight_end(segment.refusal, &flight, rc)


cdef int forced_deep(segment_t *segment, char *address, size_t length) noexcept nogil:
    # Only declared to be pmem, so libpmem2 does not know the medium: flush as told, then safely.
    segment.pmem_persist(address, length)
    return page_sync(segment, address, length)


cdef void set_medium_volatile(segment_t *segment) noexcept nogil:
    segment.flush = segment.persist = segment.deep = volatile_range
    segment.drain = nothing_to_drain


cdef void set_medium_page(segment_t *segment) noexcept nogil:
    # There is no way to wait for a write-back that was only started, so flush waits.
    segment.flush = segment.persist = segment.deep = page_sync
    segment.drain = nothing_to_drain


cdef void set_medium_pmem(segment_t *segment, bint forced) noexcept nogil:
    segment.flush = pmem_flush
    segment.persist = pmem_persist
    segment.drain = pmem_drain
    segment.deep = forced_deep if forced else pmem_deep


cdef int set_medium_of_file(segment_t *segment, int fd) noexcept nogil:
    cdef c_statfs info
    if fstatfs(fd, &info) != 0:
        return errno
    if info.f_type == TMPFS_MAGIC or info.f_type == RAMFS_MAGIC or (
            info.f_type == HUGETLBFS_MAGIC):
        set_medium_volatile(segment)
    else:
        set_medium_page(segment)
    return 0


cdef int unit_of(const segment_t *segment) noexcept nogil:
    if segment.flush == page_sync:
        return <int> PAGE
    return segment.pmem_unit if is_pmem(segment) else 1


cdef bint is_volatile(const segment_t *segment) noexcept nogil:
    return segment.flush == volatile_range


cdef bint is_pmem(const segment_t *segment) noexcept nogil:
    return segment.flush == pmem_flush


cdef int across(
    segment_t *segments, int count, verb_t verb, uint64_t offset, uint64_t length,
) noexcept nogil:
    cdef int low = 0, high = count - 1, middle, rc, first_failure = 0
    cdef segment_t *segment
    cdef uint64_t inside, here
    while low < high:
        middle = (low + high + 1) // 2
        if segments[middle].start <= offset:
            low = middle
        else:
            high = middle - 1
    while length > 0:
        segment = &segments[low]
        inside = offset - segment.start
        here = min(length, segment.length - inside)
        rc = act(segment, verb, segment.base + inside, here)
        if rc != 0 and first_failure == 0:
            first_failure = rc
        offset += here
        length -= here
        low += 1
    return first_failure
