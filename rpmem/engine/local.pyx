"""Making a call's ranges durable in the local copy."""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.memory.region cimport Region
from rpmem.steps.step cimport OPERATION_DEEP, range_t

cdef enum:
    FEW = 4
    FAR = 1 << 20  # bytes from the first to the last


cdef int local_durable(Region region, const range_t *ranges, size_t count,
                       uint32_t flags) noexcept nogil:
    """Flush the ranges in the local medium: 0 or an errno."""
    cdef uint64_t low, high
    cdef size_t i
    cdef int rc
    if count == 1:
        if flags & OPERATION_DEEP:
            return region.c_deep(ranges[0].offset, ranges[0].length)
        return region.c_persist(ranges[0].offset, ranges[0].length)
    if region.spans or flags & OPERATION_DEEP:
        # One write-back over all: the medium writes only dirty pages. But what lies between two
        # ranges may be dirty, too, and is nobody's wish; so a few that are far apart go one by one.
        low, high = ranges[0].offset, ranges[0].offset + ranges[0].length
        for i in range(1, count):
            low = min(low, ranges[i].offset)
            high = max(high, ranges[i].offset + ranges[i].length)
        if count <= FEW and high - low > FAR:
            for i in range(count):
                rc = local_durable(region, &ranges[i], 1, flags)
                if rc:
                    return rc
            return 0
        if flags & OPERATION_DEEP:
            return region.c_deep(low, high - low)
        return region.c_persist(low, high - low)
    for i in range(count):
        rc = region.c_flush(ranges[i].offset, ranges[i].length)
        if rc:
            return rc
    # Now, even for a flush: a fence orders only the flushes of its own thread, and the later drain
    # may run in another one.
    return region.c_drain()
