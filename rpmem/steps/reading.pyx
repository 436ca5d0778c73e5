"""Reading: straight from the pool, or by way of a buffer on one or both sides.

A target whose pool the fabric cannot reach gives each lane a staging buffer: data is FETCHed into
it first. If the fabric needs registered memory and the destination is not registered, data is read
into the lane's scratch and copied.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from rpmem.steps.onesided cimport part_of
from rpmem.steps.step cimport (
    OPERATION_DONE, OPERATION_PENDING, link_t, operation_t, pending_or, range_t,
)
from rpmem.steps.updates cimport send_fetch
from rpmem.wire.lane cimport POST_SIGNAL, WATCH_POSTS, WATCH_RECEIVES, lane_t

# Phases of one piece.
cdef enum:
    PHASE_BEGIN = 0
    PHASE_MESSAGE = 1
    PHASE_WAIT = 2


cdef int read_direct(link_t *link, operation_t *operation) noexcept nogil:
    """READ from the pool straight into the destination, all pieces at once."""
    cdef lane_t *lane = link.lane
    cdef const range_t *r = operation.ranges
    cdef uint64_t n
    cdef int rc
    lane.queue.watch = WATCH_POSTS
    while operation.done < r.length:
        n = part_of(lane, r.length - operation.done)
        rc = lane.ops.read(lane, operation.destination + operation.done, operation.handle,
                           r.offset + operation.done, n, POST_SIGNAL)
        if rc < 0:
            return pending_or(rc)
        link.outstanding += 1
        operation.done += n
    return OPERATION_DONE if link.outstanding == 0 else OPERATION_PENDING


cdef int read_in_pieces(link_t *link, operation_t *operation, bint bounced) noexcept nogil:
    """READ by way of the target's staging buffer, the lane's scratch, or both."""
    cdef lane_t *lane = link.lane
    cdef const range_t *r = operation.ranges
    cdef uint64_t n, at
    cdef char *landing
    cdef int rc
    while operation.done < r.length:
        n = r.length - operation.done
        at = r.offset + operation.done
        if bounced:
            n = min(n, <uint64_t> lane.scratch_size)
        if link.limits.staging:
            n = min(n, link.limits.staging)
            if operation.phase == PHASE_BEGIN:
                rc = send_fetch(link, at, n)
                if rc < 0:
                    return pending_or(rc)
                operation.last_sequence = link.sequence
                operation.phase = PHASE_MESSAGE
            if operation.phase == PHASE_MESSAGE:
                lane.queue.watch = WATCH_RECEIVES
                if <int>(link.answered - operation.last_sequence) < 0:
                    return OPERATION_PENDING
            at = 0
        if operation.phase != PHASE_WAIT:
            lane.queue.watch = WATCH_POSTS
            landing = lane.scratch if bounced else operation.destination + operation.done
            rc = lane.ops.read(lane, landing,
                               lane.scratch_handle if bounced else operation.handle,
                               at, n, POST_SIGNAL)
            if rc < 0:
                return pending_or(rc)
            link.outstanding += 1
            operation.phase = PHASE_WAIT
        if link.outstanding:
            return OPERATION_PENDING
        if bounced:
            memcpy(operation.destination + operation.done, lane.scratch, n)
        operation.done += n
        operation.phase = PHASE_BEGIN
    return OPERATION_DONE


cdef int read_advance(link_t *link, operation_t *operation) noexcept nogil:
    """READ the operation's single range into its destination."""
    cdef bint bounced = link.lane.needs_handles and operation.handle == NULL
    if link.limits.staging or bounced:
        return read_in_pieces(link, operation, bounced)
    return read_direct(link, operation)
