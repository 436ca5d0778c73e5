"""PMDK's persistency methods, on the initiator's side.

GPSPM ("general purpose"): WRITE, SEND that names the range, reply; or SEND with the data,
reply. APM ("appliance"): WRITE, READ of 8 bytes. A lane has one outstanding request, and a
message names one range. Strict data up to `put_limit`, and all that is lent, travels inside
messages, cut into pieces that fit the target's buffer.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_READ, COMPLETED_RECEIVE, LANE_AGAIN, LANE_GARBLED, POST_INLINE,
    WATCH_RECEIVES, completion_t, iovec, lane_t,
)
from rpmem.wire.pmdk_messages cimport (
    PMDK_DEEP_PERSIST, PMDK_FLUSH_WRITE, PMDK_PERSIST_SEND, pmdk_reply_t, pmdk_request_t,
)
from rpmem.steps.onesided cimport read_back
from rpmem.steps.step cimport (
    OPERATION_DEEP, OPERATION_DONE, OPERATION_DRAIN, OPERATION_FLUSH, OPERATION_PENDING,
    OPERATION_RELAXED, is_lent, link_t, operation_t, pending_or, range_t, step_t,
)

cdef enum:
    PHASE_RANGES = 0
    PHASE_READ = 1
    PHASE_WAIT = 2


cdef inline bint is_put(const link_t *link, const operation_t *operation,
                        const range_t *r) noexcept nogil:
    """Whether a range of a call that is not deep travels inside messages."""
    if operation.flags & OPERATION_RELAXED:
        return False
    return r.length <= link.limits.put_limit or is_lent(link, operation)


cdef int write_piece(link_t *link, operation_t *operation, const range_t *r) noexcept nogil:
    """WRITE the rest of a range."""
    cdef lane_t *lane = link.lane
    cdef uint64_t n
    cdef int rc
    while operation.done < r.length:
        n = min(r.length - operation.done, lane.operation_limit)
        rc = lane.ops.write(lane, operation.source + r.offset + operation.done, lane.pool_handle,
                            r.offset + operation.done, n, 0)
        if rc < 0:
            return rc
        operation.done += n
    return 0


cdef int send_request(link_t *link, operation_t *operation, uint32_t mode, uint64_t offset,
                      uint64_t length) noexcept nogil:
    """SEND one request; the next one has to wait for its reply."""
    cdef lane_t *lane = link.lane
    cdef pmdk_request_t *request = <pmdk_request_t *> lane.send_area
    cdef iovec vector
    cdef int rc
    lane.queue.watch = WATCH_RECEIVES
    request.flags = mode
    request.lane = lane.index
    request.address = link.remote_base + offset
    request.size = length
    vector.iov_base = lane.send_area
    vector.iov_len = sizeof(pmdk_request_t)
    if mode == PMDK_PERSIST_SEND:
        memcpy(lane.send_area + sizeof(pmdk_request_t), operation.source + offset, length)
        vector.iov_len += length
    rc = lane.ops.send(lane, &vector, &lane.send_handle, 1,
                       POST_INLINE if vector.iov_len <= lane.inline_limit else 0)
    if rc < 0:
        return rc
    link.sequence += 1
    operation.last_sequence = link.sequence
    return 0


cdef int put_range(link_t *link, operation_t *operation, const range_t *r) noexcept nogil:
    """Send a range inside messages, each piece after the answer to the one before."""
    cdef uint64_t room = link.limits.message_size - sizeof(pmdk_request_t)
    cdef uint64_t n
    cdef int rc
    while operation.done < r.length:
        if link.sequence != link.answered:
            return LANE_AGAIN
        n = r.length - operation.done
        if n > room:
            # A piece ends at the end of a word: no word may arrive in two halves.
            n = room - (r.offset + operation.done + room) % 8
        rc = send_request(link, operation, PMDK_PERSIST_SEND, r.offset + operation.done, n)
        if rc < 0:
            return rc
        operation.done += n
    return 0


cdef int general_ranges(link_t *link, operation_t *operation) noexcept nogil:
    """Send every range: as data in messages, or WRITTEN and then named."""
    cdef const range_t *r
    cdef uint32_t mode = PMDK_FLUSH_WRITE
    cdef bint deep = operation.flags & OPERATION_DEEP != 0
    cdef int rc
    if deep:
        mode = PMDK_DEEP_PERSIST
    while operation.index < operation.count:
        r = &operation.ranges[operation.index]
        if not deep and is_put(link, operation, r):
            rc = put_range(link, operation, r)
        else:
            rc = write_piece(link, operation, r)
            if rc == 0:
                if link.sequence != link.answered:
                    return LANE_AGAIN
                rc = send_request(link, operation, mode, r.offset, r.length)
        if rc < 0:
            return rc
        operation.index += 1
        operation.done = 0
    return 0


cdef int waiting(link_t *link) noexcept nogil:
    if link.outstanding or link.answered != link.sequence:
        return OPERATION_PENDING
    return OPERATION_DONE


cdef int general(link_t *link, operation_t *operation) noexcept nogil:
    """GPSPM.  A flush is a complete persist; a drain has nothing left to do."""
    cdef int rc
    if operation.flags & OPERATION_DRAIN and link.adrift.length:
        # An answer comes after every WRITE that was posted before its request.
        if link.sequence != link.answered:
            return OPERATION_PENDING
        rc = send_request(link, operation, PMDK_FLUSH_WRITE, link.adrift.offset,
                          link.adrift.length)
        if rc < 0:
            return pending_or(rc)
        link.adrift.length = 0
    if operation.phase == PHASE_RANGES:
        rc = general_ranges(link, operation)
        if rc < 0:
            return pending_or(rc)
        operation.phase = PHASE_WAIT
    return waiting(link)


cdef int appliance(link_t *link, operation_t *operation) noexcept nogil:
    """APM.  The target can be asked to flush WRITTEN data deeply, but not normally."""
    cdef const range_t *r
    cdef int rc = 0
    if operation.flags & OPERATION_DEEP:
        return general(link, operation)
    if operation.phase == PHASE_RANGES:
        while operation.index < operation.count:
            r = &operation.ranges[operation.index]
            if is_put(link, operation, r):
                rc = put_range(link, operation, r)
            else:
                rc = write_piece(link, operation, r)
                link.last_flushed = r[0]
            if rc < 0:
                return pending_or(rc)
            operation.index += 1
            operation.done = 0
        operation.phase = PHASE_READ
    if operation.phase == PHASE_READ:
        if link.last_flushed.length and not operation.flags & OPERATION_FLUSH:
            rc = read_back(link, &link.last_flushed)
            if rc < 0:
                return pending_or(rc)
            link.last_flushed.length = 0
        operation.phase = PHASE_WAIT
    return waiting(link)


cdef int pmdk_complete(link_t *link, const completion_t *completion) noexcept nogil:
    cdef lane_t *lane = link.lane
    if completion.kind == COMPLETED_RECEIVE:
        if completion.length != sizeof(pmdk_reply_t) or link.answered == link.sequence:
            lane.state = LANE_GARBLED
            return LANE_GARBLED
        link.answered += 1
        return lane.ops.receive(lane, completion.slot)
    if completion.kind == COMPLETED_READ:
        link.outstanding -= 1
        return 0
    if completion.kind == COMPLETED_FAULT:
        return lane.state
    return 0


cdef step_t GENERAL
cdef step_t APPLIANCE
GENERAL.name = b"send-after-write"
GENERAL.advance = general
GENERAL.complete = pmdk_complete
APPLIANCE.name = b"read-after-write"
APPLIANCE.advance = appliance
APPLIANCE.complete = pmdk_complete


cdef const step_t *pmdk_step_named(str name) except NULL:
    if name == "send-after-write":
        return &GENERAL
    if name == "read-after-write":
        return &APPLIANCE
    raise ValueError(f"PMDK's protocol has no durability step {name!r}")
