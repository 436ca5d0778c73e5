"""The durability steps of the native protocol.

send-after-write
    Small data travels inside an UPDATE message that the target stores word by word; large data is
    WRITTEN one-sided and then named in an UPDATE, strict data only if the fabric's WRITEs store
    words whole.  The reply means that it is durable.
read-after-write
    WRITE, then an 8-byte READ inside the range. For targets where a WRITE reaches the persistence
    domain once a READ has pushed it out of the device. If there is no device and the target
    answers WRITEs itself, the last WRITE asks for that answer instead.
commit
    WRITE with commit-complete: the fabric answers once the bytes are in the persistence
    domain.
flush
    WRITE, then RDMA FLUSH of the same bytes, which completes once the bytes are in the
    persistence domain. An aligned 8-byte word is stored by ATOMIC WRITE.

With the other steps strict data goes through UPDATE messages: only the target, or ATOMIC WRITE, can
guarantee that an aligned 8-byte word is stored whole.

A target whose pool the fabric cannot reach gives each lane a staging buffer instead: then all data
travels inside UPDATE messages.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from rpmem.steps.onesided cimport (
    flush_ranges, is_words, post_flush, read_back, write_ranges, write_words,
)
from rpmem.steps.step cimport (
    MOST_DEFERRED, OPERATION_DEEP, OPERATION_DONE, OPERATION_DRAIN, OPERATION_FLUSH,
    OPERATION_PENDING, OPERATION_RELAXED, is_lent, link_t, operation_t, pending_or, step_t,
)
from rpmem.steps.updates cimport send_updates
from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_GARBLED,
    LANE_REFUSED, POST_COMMIT, POST_DELIVERED, POST_MORE, POST_SIGNAL, POST_WORDS, WATCH_POSTS,
    completion_t, lane_t, message_at,
)
from rpmem.wire.messages cimport MESSAGE_REPLY, REPLY_DONE, descriptor_t, header_t, reply_t

cdef enum:
    PHASE_BEGIN = 0
    PHASE_WRITE = 1
    PHASE_MESSAGE = 2
    PHASE_READ = 3
    PHASE_WAIT = 4

cdef uint64_t EVERY = <uint64_t> -1


cdef int waiting(link_t *link, operation_t *operation) noexcept nogil:
    """The last phase of an operation: done once its request has been answered."""
    if operation.flags & OPERATION_FLUSH:
        return OPERATION_DONE
    if link.outstanding:
        return OPERATION_PENDING
    if <int>(link.answered - operation.last_sequence) < 0:
        return OPERATION_PENDING
    if operation.flags & OPERATION_DRAIN:
        link.adrift.length = 0
        link.deferred_count = 0
        link.deferred_bytes = 0
    return OPERATION_DONE


cdef bint defer(link_t *link, const operation_t *operation) noexcept nogil:
    """Hold a small flush back for the drain, which sends all of them in one message."""
    cdef uint64_t most = (link.limits.message_size - sizeof(header_t)
                          - MOST_DEFERRED * sizeof(descriptor_t))
    cdef uint64_t total = link.deferred_bytes
    cdef size_t i
    if link.deferred_count + operation.count > MOST_DEFERRED:
        return False
    for i in range(operation.count):
        if operation.ranges[i].length > most - total:
            return False
        total += operation.ranges[i].length
    for i in range(operation.count):
        link.deferred[link.deferred_count + i] = operation.ranges[i]
    link.deferred_count += <uint32_t> operation.count
    link.deferred_bytes = total
    return True


cdef int send_deferred(link_t *link) noexcept nogil:
    """Send the deferred flushes, without asking for an answer."""
    cdef int rc
    if link.deferred_count == 0:
        return 0
    if link.backlog.count == 0:
        memset(&link.backlog, 0, sizeof(operation_t))
        link.backlog.ranges = link.deferred
        link.backlog.count = link.deferred_count
        link.backlog.flags = OPERATION_FLUSH
        link.backlog.source = link.pool
    rc = send_updates(link, &link.backlog, <uint64_t> -1)
    if rc == 0:
        link.backlog.count = 0
        link.deferred_count = 0
        link.deferred_bytes = 0
    return rc


cdef int begin_flush_or_drain(link_t *link, operation_t *operation) noexcept nogil:
    """DONE if the flush could be deferred, PENDING to go on, LANE_AGAIN or a fault."""
    cdef int rc
    if operation.flags & OPERATION_DRAIN:
        operation.ranges = link.deferred
        operation.count = link.deferred_count
        return OPERATION_PENDING
    if operation.flags & OPERATION_FLUSH:
        if link.backlog.count == 0 and defer(link, operation):
            return OPERATION_DONE
        rc = send_deferred(link)
        if rc < 0:
            return rc
        if defer(link, operation):
            return OPERATION_DONE
    return OPERATION_PENDING


cdef inline bint is_written(const link_t *link, const operation_t *operation) noexcept nogil:
    """Whether long ranges of an operation may travel as WRITEs."""
    if operation.flags & OPERATION_RELAXED:
        return True
    return link.lane.words and not is_lent(link, operation)


cdef int send_after_write(link_t *link, operation_t *operation) noexcept nogil:
    cdef uint64_t written_above = <uint64_t> -1
    cdef uint32_t flags = POST_MORE
    cdef bint writes = is_written(link, operation)
    cdef int rc
    if operation.phase == PHASE_BEGIN:
        rc = begin_flush_or_drain(link, operation)
        if rc:
            return OPERATION_DONE if rc == OPERATION_DONE else pending_or(rc)
        operation.phase = PHASE_WRITE
    if writes:
        written_above = link.limits.put_limit
    if operation.phase == PHASE_WRITE:
        if writes:
            if not operation.flags & OPERATION_RELAXED:
                flags |= POST_WORDS
            rc = write_ranges(link, operation, written_above, link.limits.put_most, flags, flags)
            if rc < 0:
                return pending_or(rc)
        operation.phase = PHASE_MESSAGE
    if operation.phase == PHASE_MESSAGE:
        # An answer comes after every WRITE that was posted before its request.
        if (operation.flags & OPERATION_DRAIN and operation.count == 0
                and link.sequence == link.answered and link.adrift.length == 0):
            operation.last_sequence = link.answered
            operation.phase = PHASE_WAIT
            return waiting(link, operation)
        rc = send_updates(link, operation, written_above)
        if rc < 0:
            return pending_or(rc)
        operation.phase = PHASE_WAIT
    return waiting(link, operation)


cdef inline int drain_after_posts(link_t *link, operation_t *operation) noexcept nogil:
    """What was posted comes first: a message says nothing about it."""
    if link.outstanding:
        return OPERATION_PENDING
    return send_after_write(link, operation)


cdef int commit(link_t *link, operation_t *operation) noexcept nogil:
    cdef int rc
    if operation.flags & OPERATION_DRAIN:
        link.lane.queue.watch = WATCH_POSTS
        return drain_after_posts(link, operation)
    if operation.flags & OPERATION_DEEP or not operation.flags & OPERATION_RELAXED:
        return send_after_write(link, operation)
    if operation.phase == PHASE_BEGIN:
        link.lane.queue.watch = WATCH_POSTS
        rc = write_ranges(link, operation, 0, EVERY, POST_SIGNAL | POST_COMMIT,
                          POST_SIGNAL | POST_COMMIT)
        if rc < 0:
            return pending_or(rc)
        operation.last_sequence = link.answered
        operation.phase = PHASE_WAIT
    return waiting(link, operation)


cdef int read_after_write(link_t *link, operation_t *operation) noexcept nogil:
    cdef uint32_t more
    cdef int rc
    if operation.flags & OPERATION_DRAIN:
        if link.last_flushed.length:
            rc = read_back(link, &link.last_flushed)
            if rc < 0:
                return pending_or(rc)
            link.last_flushed.length = 0
        return drain_after_posts(link, operation)
    if operation.flags & OPERATION_DEEP or not operation.flags & OPERATION_RELAXED:
        return send_after_write(link, operation)
    if operation.phase == PHASE_BEGIN:
        more = 0 if operation.flags & OPERATION_FLUSH else POST_MORE
        rc = write_ranges(link, operation, 0, EVERY, more, more)
        if rc < 0:
            return pending_or(rc)
        operation.last_sequence = link.answered
        if operation.flags & OPERATION_FLUSH:
            link.last_flushed = operation.ranges[operation.count - 1]
            operation.phase = PHASE_WAIT
        else:
            operation.phase = PHASE_READ
    if operation.phase == PHASE_READ:
        rc = read_back(link, &operation.ranges[operation.count - 1])
        if rc < 0:
            return pending_or(rc)
        operation.phase = PHASE_WAIT
    return waiting(link, operation)


cdef int delivered_write(link_t *link, operation_t *operation) noexcept nogil:
    """Read-after-write where the target's answer to a WRITE proves what the READ would."""
    cdef int rc
    if (operation.flags & (OPERATION_DRAIN | OPERATION_DEEP | OPERATION_FLUSH)
            or not operation.flags & OPERATION_RELAXED
            or operation.ranges[operation.count - 1].length == 0):
        return read_after_write(link, operation)
    if operation.phase == PHASE_BEGIN:
        link.lane.queue.watch = WATCH_POSTS
        # The target handles a lane's WRITEs in order: its answer to the last covers all.
        rc = write_ranges(link, operation, 0, EVERY, POST_MORE, POST_SIGNAL | POST_DELIVERED)
        if rc < 0:
            return pending_or(rc)
        operation.last_sequence = link.answered
        operation.phase = PHASE_WAIT
    return waiting(link, operation)


cdef int flush(link_t *link, operation_t *operation) noexcept nogil:
    cdef bint starts = (operation.flags & OPERATION_FLUSH) != 0
    cdef int rc
    if operation.flags & OPERATION_DRAIN:
        if link.last_flushed.length:
            # A FLUSH completes after all those before it.
            link.lane.queue.watch = WATCH_POSTS
            rc = post_flush(link, &link.last_flushed, POST_SIGNAL)
            if rc < 0:
                return pending_or(rc)
            link.last_flushed.length = 0
        return drain_after_posts(link, operation)
    if operation.flags & OPERATION_DEEP:
        return send_after_write(link, operation)
    if (not operation.flags & OPERATION_RELAXED
            and (starts or not is_words(operation) or is_lent(link, operation))):
        return send_after_write(link, operation)
    if operation.phase == PHASE_BEGIN:
        if operation.flags & OPERATION_RELAXED:
            rc = write_ranges(link, operation, 0, EVERY, POST_MORE, POST_MORE)
        else:
            rc = write_words(link, operation)
        if rc < 0:
            return pending_or(rc)
        operation.last_sequence = link.answered
        operation.phase = PHASE_READ
    if operation.phase == PHASE_READ:
        link.lane.queue.watch = WATCH_POSTS
        rc = flush_ranges(link, operation, 0 if starts else POST_SIGNAL)
        if rc < 0:
            return pending_or(rc)
        if starts:
            link.last_flushed = operation.ranges[operation.count - 1]
            link.last_flushed.length = min(link.last_flushed.length, <uint64_t> 8)
        operation.phase = PHASE_WAIT
    return waiting(link, operation)


# --- completions -------------------------------------------------------------------

cdef int native_complete(link_t *link, const completion_t *completion) noexcept nogil:
    cdef lane_t *lane = link.lane
    cdef const reply_t *reply
    if completion.kind == COMPLETED_RECEIVE:
        reply = <const reply_t *> message_at(lane, completion.slot)
        if (completion.length != sizeof(reply_t) or reply.kind != MESSAGE_REPLY
                or reply.sequence - link.answered > link.sequence - link.answered):
            lane.state = LANE_GARBLED
            return LANE_GARBLED
        if reply.status != REPLY_DONE:
            lane.state = LANE_REFUSED
            lane.detail = <int> reply.number
            lane.refusal = reply.status
            return LANE_REFUSED
        link.answered = reply.sequence
        return lane.ops.receive(lane, completion.slot)
    if completion.kind == COMPLETED_WRITE or completion.kind == COMPLETED_READ:
        link.outstanding -= 1
        return 0
    if completion.kind == COMPLETED_FAULT:
        return lane.state
    return 0


cdef int link_prepare(link_t *link) noexcept nogil:
    cdef uint32_t slot
    cdef int rc
    for slot in range(link.lane.receive_slots):
        rc = link.lane.ops.receive(link.lane, slot)
        if rc < 0:
            return rc
    return 0


cdef step_t SEND_AFTER_WRITE
cdef step_t READ_AFTER_WRITE
cdef step_t DELIVERED_WRITE
cdef step_t COMMIT
cdef step_t FLUSH
SEND_AFTER_WRITE.name = b"send-after-write"
SEND_AFTER_WRITE.advance = send_after_write
SEND_AFTER_WRITE.complete = native_complete
READ_AFTER_WRITE.name = b"read-after-write"
READ_AFTER_WRITE.advance = read_after_write
READ_AFTER_WRITE.complete = native_complete
DELIVERED_WRITE.name = b"read-after-write"
DELIVERED_WRITE.advance = delivered_write
DELIVERED_WRITE.complete = native_complete
COMMIT.name = b"commit"
COMMIT.advance = commit
COMMIT.complete = native_complete
FLUSH.name = b"flush"
FLUSH.advance = flush
FLUSH.complete = native_complete


cdef const step_t *step_named(str name, const lane_t *lane) except NULL:
    """The step of that name, in the variant for such a lane."""
    if name == "send-after-write":
        return &SEND_AFTER_WRITE
    if name == "read-after-write":
        return &DELIVERED_WRITE if lane.delivers else &READ_AFTER_WRITE
    if name == "commit":
        return &COMMIT
    if name == "flush":
        return &FLUSH
    raise ValueError(f"no durability step is called {name!r}")
