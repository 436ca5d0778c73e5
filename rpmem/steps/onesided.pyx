"""One-sided posts of an operation: each range from its beginning, in pieces that the fabric takes.

A post that another follows immediately says so: the fabric may hand them over together.
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.steps.step cimport link_t, operation_t, range_t
from rpmem.wire.lane cimport POST_MORE, POST_SIGNAL, WATCH_POSTS, lane_t

# Limits of one request.
cdef enum:
    MOST_WORDS = 4               # ATOMIC WRITEs of one call; more words go in a message
    MOST_FLUSHED = 1 << 30       # bytes
    FLUSHED_GAP = 256            # bytes between two ranges that one FLUSH may include


cdef int write_ranges(link_t *link, operation_t *operation, uint64_t above, uint64_t most,
                      uint32_t flags, uint32_t last) noexcept nogil:
    """WRITE every range longer than `above` and up to `most`; 0 once all are posted.

    `last` are the flags of the last range's last post, `flags` those of all others.
    """
    cdef lane_t *lane = link.lane
    cdef const range_t *r
    cdef uint64_t n
    cdef uint32_t now
    cdef int rc
    while operation.index < operation.count:
        r = &operation.ranges[operation.index]
        if above < r.length <= most:
            while operation.done < r.length:
                n = part_of(lane, r.length - operation.done)
                now = flags
                if operation.done + n == r.length and operation.index + 1 == operation.count:
                    now = last
                rc = lane.ops.write(lane, operation.source + r.offset + operation.done,
                                    lane.pool_handle, r.offset + operation.done, n, now)
                if rc < 0:
                    return rc
                if now & POST_SIGNAL:
                    link.outstanding += 1
                operation.done += n
        operation.index += 1
        operation.done = 0
    operation.index = 0
    return 0


cdef bint is_words(const operation_t *operation) noexcept nogil:
    """Whether it is only a few aligned 8-byte words: each takes a separate request."""
    cdef size_t i
    if operation.count > MOST_WORDS:
        return False
    for i in range(operation.count):
        if operation.ranges[i].length != 8 or operation.ranges[i].offset & 7:
            return False
    return True


cdef int write_words(link_t *link, operation_t *operation) noexcept nogil:
    cdef uint64_t offset
    cdef int rc
    while operation.index < operation.count:
        offset = operation.ranges[operation.index].offset
        rc = link.lane.ops.write_word(link.lane, operation.source + offset, offset, POST_MORE)
        if rc < 0:
            return rc
        operation.index += 1
    operation.index = 0
    return 0


cdef int post_flush(link_t *link, const range_t *r, uint32_t flags) noexcept nogil:
    cdef int rc = link.lane.ops.flush(link.lane, r.offset, r.length, flags)
    if rc == 0 and flags & POST_SIGNAL:
        link.outstanding += 1
    return rc


cdef range_t hull(const range_t *ranges, size_t count) noexcept nogil:
    """The smallest range that contains all of them."""
    cdef range_t found = ranges[0]
    cdef uint64_t end
    cdef size_t i
    for i in range(1, count):
        end = max(found.offset + found.length, ranges[i].offset + ranges[i].length)
        found.offset = min(found.offset, ranges[i].offset)
        found.length = end - found.offset
    return found


cdef int flush_ranges(link_t *link, operation_t *operation, uint32_t flags) noexcept nogil:
    """FLUSH the written ranges, as one if the gaps are small; `flags` are for the last."""
    cdef range_t whole = hull(operation.ranges, operation.count)
    cdef range_t piece
    cdef const range_t *r
    cdef uint64_t total = 0
    cdef size_t i
    cdef bint last
    cdef int rc
    for i in range(operation.count):
        total += operation.ranges[i].length
    if whole.length <= total + operation.count * FLUSHED_GAP and whole.length <= MOST_FLUSHED:
        return post_flush(link, &whole, flags)
    while operation.index < operation.count:
        r = &operation.ranges[operation.index]
        while operation.done < r.length:
            piece.offset = r.offset + operation.done
            piece.length = min(r.length - operation.done, <uint64_t> MOST_FLUSHED)
            last = (operation.index + 1 == operation.count
                    and operation.done + piece.length == r.length)
            rc = post_flush(link, &piece, flags if last else POST_MORE)
            if rc < 0:
                return rc
            operation.done += piece.length
        operation.index += 1
        operation.done = 0
    operation.index = 0
    return 0


cdef int read_back(link_t *link, const range_t *r) noexcept nogil:
    """READ 8 bytes of a range, which pushes earlier WRITEs out of the target's device."""
    cdef lane_t *lane = link.lane
    cdef int rc
    lane.queue.watch = WATCH_POSTS
    rc = lane.ops.read(lane, lane.scratch, lane.scratch_handle, r.offset,
                       min(r.length, <uint64_t> 8), POST_SIGNAL)
    if rc == 0:
        link.outstanding += 1
    return rc
