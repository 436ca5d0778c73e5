"""The durability steps of the native protocol.

send-after-write
    Small or strict data travel inside an UPDATE message that the target stores word by
    word; large relaxed data are WRITTEN one-sided and then named in an UPDATE.  The reply
    means durable.
read-after-write
    WRITE, then an 8-byte READ inside the range.  For targets whose persistence domain is
    reached by every WRITE that a READ has pushed out of the device.  Where there is no device,
    and the target answers WRITEs itself, the last WRITE asks for that answer instead.
commit
    WRITE with commit-complete: the fabric answers once the bytes are in the persistence
    domain.
flush
    WRITE, then RDMA FLUSH of what was written, which completes once the bytes are in the
    persistence domain.  An aligned 8-byte word is stored by ATOMIC WRITE.

Strict data go through UPDATE messages: only the target, or ATOMIC WRITE, can promise that
an aligned 8-byte word is stored whole.

Posts that another follows at once say so: a fabric may hand them over together.

A target whose pool the fabric cannot reach gives each lane a staging buffer instead: all data
then travel inside UPDATE messages, and what is to be read is first FETCHed into that buffer.

What is read into memory that the fabric does not know, where it has to, lands in the lane's scratch
and is copied.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_AGAIN,
    LANE_GARBLED, LANE_REFUSED, POST_COMMIT, POST_DELIVERED, POST_INLINE, POST_MORE, POST_SIGNAL,
    WATCH_POSTS, WATCH_RECEIVES, completion_t, iovec, lane_t,
)
from rpmem.wire.messages cimport (
    MESSAGE_FETCH, MESSAGE_REPLY, MESSAGE_UPDATE, REPLY_DONE, UPDATE_ANSWER, UPDATE_DEEP,
    WRITTEN_SHIFT, descriptor_t, header_t, reply_t,
)

cdef enum:
    PHASE_BEGIN = 0
    PHASE_WRITE = 1
    PHASE_MESSAGE = 2
    PHASE_READ = 3
    PHASE_WAIT = 4

# Pieces of one range end on this boundary, so no aligned word is cut in two.
cdef enum:
    PIECE_ALIGNMENT = 64


cdef uint64_t EVERY = <uint64_t> -1

# What one request may do.
cdef enum:
    MOST_WORDS = 4               # ATOMIC WRITEs of one call; more go in a message
    MOST_FLUSHED = 1 << 30       # bytes
    FLUSHED_GAP = 256            # bytes between two ranges that one FLUSH may cover as well

# Copying so much of one range costs less than a message of its own, if other ranges follow.
cdef enum:
    MOST_COPIED = 1 << 14

cdef inline uint64_t smaller(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


cdef inline uint64_t part_of(const lane_t *lane, uint64_t left) noexcept nogil:
    """How much of a range's remaining bytes the next one-sided operation takes."""
    return left if left <= lane.operation_limit else lane.piece


# --- one-sided posts ---------------------------------------------------------------

cdef int write_ranges(link_t *link, operation_t *operation, uint64_t above, uint64_t most,
                      uint32_t flags, uint32_t last) noexcept nogil:
    """WRITE every range longer than `above` and not longer than `most`; 0 when all are posted.

    `last` are the flags of the last range's end, `flags` those of all before.
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


# --- messages ----------------------------------------------------------------------

cdef uint64_t piece_length(uint64_t offset, uint64_t left, uint64_t room) noexcept nogil:
    """How much of a range's remaining `left` bytes fits into `room`."""
    cdef uint64_t end
    if left <= room:
        return left
    end = (offset + room) & ~<uint64_t>(PIECE_ALIGNMENT - 1)
    return end - offset if end > offset else 0


cdef int send_update(link_t *link, operation_t *operation, uint64_t written_above) noexcept nogil:
    """Send one UPDATE with as many of the operation's ranges as fit, and move past them.

    Ranges that were WRITTEN before, those longer than `written_above` but for the longest, are only
    named.
    """
    cdef lane_t *lane = link.lane
    cdef char *message = lane.send_area + <size_t>(link.sequence % lane.send_slots) * lane.send_size
    cdef header_t *header = <header_t *> message
    cdef descriptor_t *descriptors = <descriptor_t *> (message + sizeof(header_t))
    cdef uint64_t room = link.message_size - sizeof(header_t)
    cdef uint64_t done = operation.done, offset, left, n
    cdef size_t index = operation.index, count = 0, k
    cdef const char *tail = NULL
    cdef uint64_t tail_length = 0
    cdef char *fill
    cdef iovec vector[2]
    cdef void *handles[2]
    cdef uint32_t flags = 0
    cdef bint put
    cdef int rc

    # How many descriptors: their table comes before the data.
    while index < operation.count and room > sizeof(descriptor_t) and count < 0xffff:
        left = operation.ranges[index].length - done
        put = written_above < operation.ranges[index].length <= link.put_most
        if put:
            n = left
            descriptors[count].length = n | (<uint64_t> 1 << WRITTEN_SHIFT)
            room -= sizeof(descriptor_t)
        else:
            n = piece_length(operation.ranges[index].offset + done, left,
                             room - sizeof(descriptor_t))
            if n == 0 and left > 0:
                break
            descriptors[count].length = n
            room -= sizeof(descriptor_t) + n
        descriptors[count].offset = operation.ranges[index].offset + done
        count += 1
        if n < left:
            done += n
            break
        index += 1
        done = 0
        if n > max(link.copy_limit, <uint32_t> MOST_COPIED) and not put:
            break

    fill = <char *> (descriptors + count)
    for k in range(count):
        n = descriptors[k].length
        if n >> WRITTEN_SHIFT:
            continue
        offset = descriptors[k].offset
        if k + 1 == count and n > link.copy_limit:
            tail = operation.source + offset
            tail_length = n
        else:
            memcpy(fill, operation.source + offset, n)
            fill += n

    header.kind = MESSAGE_UPDATE
    header.flags = UPDATE_DEEP if operation.flags & OPERATION_DEEP else 0
    header.count = <uint16_t> count
    header.sequence = link.sequence + 1
    if ((index == operation.count and not operation.flags & OPERATION_FLUSH)
            or link.sequence + 1 - link.asked >= (link.window + 1) // 2):
        header.flags |= UPDATE_ANSWER

    vector[0].iov_base = message
    vector[0].iov_len = fill - message
    handles[0] = lane.send_handle
    vector[1].iov_base = <void *> tail
    vector[1].iov_len = tail_length
    handles[1] = lane.pool_handle
    if tail == NULL and vector[0].iov_len <= lane.inline_limit:
        flags |= POST_INLINE
    rc = lane.ops.send(lane, vector, handles, 1 if tail == NULL else 2, flags)
    if rc < 0:
        return rc
    link.sequence += 1
    if header.flags & UPDATE_ANSWER:
        link.asked = link.sequence
    operation.last_sequence = link.sequence
    operation.index = index
    operation.done = done
    return 0


cdef int send_updates(link_t *link, operation_t *operation, uint64_t written_above) noexcept nogil:
    """All messages of the operation; an operation without ranges is one empty message."""
    cdef bint more = True
    cdef int rc
    link.lane.queue.watch = WATCH_RECEIVES
    while more:
        # A send buffer is free again once its message is answered.
        if link.sequence - link.answered >= link.window:
            return LANE_AGAIN
        rc = send_update(link, operation, written_above)
        if rc < 0:
            return rc
        more = operation.index < operation.count
    return 0


cdef int send_fetch(link_t *link, uint64_t offset, uint64_t length) noexcept nogil:
    """Have the target copy a range to the lane's staging buffer."""
    cdef lane_t *lane = link.lane
    cdef char *message = lane.send_area + <size_t>(link.sequence % lane.send_slots) * lane.send_size
    cdef header_t *header = <header_t *> message
    cdef descriptor_t *descriptor = <descriptor_t *> (message + sizeof(header_t))
    cdef iovec vector
    cdef int rc
    if link.sequence - link.answered >= link.window:
        return LANE_AGAIN
    header.kind = MESSAGE_FETCH
    header.flags = UPDATE_ANSWER
    header.count = 1
    header.sequence = link.sequence + 1
    descriptor.offset = offset
    descriptor.length = length
    vector.iov_base = message
    vector.iov_len = sizeof(header_t) + sizeof(descriptor_t)
    rc = lane.ops.send(lane, &vector, &lane.send_handle, 1,
                       POST_INLINE if vector.iov_len <= lane.inline_limit else 0)
    if rc < 0:
        return rc
    link.sequence += 1
    link.asked = link.sequence
    return 0


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
            n = smaller(n, lane.scratch_size)
        if link.staging:
            n = smaller(n, link.staging)
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
    if link.staging or bounced:
        return read_in_pieces(link, operation, bounced)
    return read_direct(link, operation)


# --- the steps ---------------------------------------------------------------------

cdef int waiting(link_t *link, operation_t *operation) noexcept nogil:
    """The end of an operation: what was asked for has been answered."""
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


cdef int pending_or(int rc) noexcept nogil:
    return OPERATION_PENDING if rc == LANE_AGAIN else rc


cdef bint defer(link_t *link, const operation_t *operation) noexcept nogil:
    """Keep a small flush for the drain, which sends all of them in one message."""
    cdef uint64_t most = link.message_size - sizeof(header_t) - MOST_DEFERRED * sizeof(descriptor_t)
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
    """Send the flushes that wait, without asking for an answer."""
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
    """Done when the flush could be deferred, pending to go on, LANE_AGAIN or a fault."""
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


cdef int send_after_write(link_t *link, operation_t *operation) noexcept nogil:
    cdef uint64_t written_above = <uint64_t> -1
    cdef int rc
    if operation.phase == PHASE_BEGIN:
        rc = begin_flush_or_drain(link, operation)
        if rc:
            return OPERATION_DONE if rc == OPERATION_DONE else pending_or(rc)
        operation.phase = PHASE_WRITE
    if operation.flags & OPERATION_RELAXED:
        written_above = link.put_limit
    if operation.phase == PHASE_WRITE:
        if operation.flags & OPERATION_RELAXED:
            rc = write_ranges(link, operation, written_above, link.put_most, POST_MORE,
                              POST_MORE)
            if rc < 0:
                return pending_or(rc)
        operation.phase = PHASE_MESSAGE
    if operation.phase == PHASE_MESSAGE:
        # What is answered comes after every WRITE that was posted before it.
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


cdef int commit(link_t *link, operation_t *operation) noexcept nogil:
    cdef int rc
    if operation.flags & OPERATION_DRAIN:
        link.lane.queue.watch = WATCH_POSTS
        if link.outstanding:
            return OPERATION_PENDING
        return send_after_write(link, operation)
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


cdef int post_read_after(link_t *link, const range_t *r) noexcept nogil:
    cdef lane_t *lane = link.lane
    cdef int rc
    lane.queue.watch = WATCH_POSTS
    rc = lane.ops.read(lane, lane.scratch, lane.scratch_handle, r.offset,
                       smaller(r.length, 8), POST_SIGNAL)
    if rc == 0:
        link.outstanding += 1
    return rc


cdef int read_after_write(link_t *link, operation_t *operation) noexcept nogil:
    cdef uint32_t more
    cdef int rc
    if operation.flags & OPERATION_DRAIN:
        if link.last_flushed.length:
            rc = post_read_after(link, &link.last_flushed)
            if rc < 0:
                return pending_or(rc)
            link.last_flushed.length = 0
        if link.outstanding:
            return OPERATION_PENDING
        return send_after_write(link, operation)
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
        rc = post_read_after(link, &operation.ranges[operation.count - 1])
        if rc < 0:
            return pending_or(rc)
        operation.phase = PHASE_WAIT
    return waiting(link, operation)


cdef int delivered_write(link_t *link, operation_t *operation) noexcept nogil:
    """Read-after-write where the target's answer to a WRITE says what the READ would."""
    cdef int rc
    if (operation.flags & (OPERATION_DRAIN | OPERATION_DEEP | OPERATION_FLUSH)
            or not operation.flags & OPERATION_RELAXED
            or operation.ranges[operation.count - 1].length == 0):
        return read_after_write(link, operation)
    if operation.phase == PHASE_BEGIN:
        link.lane.queue.watch = WATCH_POSTS
        # The target takes a lane's WRITEs in order: its answer to the last is one to all.
        rc = write_ranges(link, operation, 0, EVERY, POST_MORE, POST_SIGNAL | POST_DELIVERED)
        if rc < 0:
            return pending_or(rc)
        operation.last_sequence = link.answered
        operation.phase = PHASE_WAIT
    return waiting(link, operation)


cdef int post_flush(link_t *link, const range_t *r, uint32_t flags) noexcept nogil:
    cdef int rc = link.lane.ops.flush(link.lane, r.offset, r.length, flags)
    if rc == 0 and flags & POST_SIGNAL:
        link.outstanding += 1
    return rc


cdef range_t hull(const range_t *ranges, size_t count) noexcept nogil:
    """The smallest range that has all of them in it."""
    cdef range_t found = ranges[0]
    cdef uint64_t end
    cdef size_t i
    for i in range(1, count):
        end = max(found.offset + found.length, ranges[i].offset + ranges[i].length)
        found.offset = smaller(found.offset, ranges[i].offset)
        found.length = end - found.offset
    return found


cdef bint is_words(const operation_t *operation) noexcept nogil:
    """Only aligned 8-byte words, and few of them: each takes a request of its own."""
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


cdef int flush_ranges(link_t *link, operation_t *operation, uint32_t flags) noexcept nogil:
    """FLUSH what was written, in one piece if the gaps are small; `flags` are the last one's."""
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
            piece.length = smaller(r.length - operation.done, MOST_FLUSHED)
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


cdef int flush(link_t *link, operation_t *operation) noexcept nogil:
    cdef bint starts = (operation.flags & OPERATION_FLUSH) != 0
    cdef int rc
    if operation.flags & OPERATION_DRAIN:
        if link.last_flushed.length:
            # One FLUSH completes after all those before it.
            link.lane.queue.watch = WATCH_POSTS
            rc = post_flush(link, &link.last_flushed, POST_SIGNAL)
            if rc < 0:
                return pending_or(rc)
            link.last_flushed.length = 0
        if link.outstanding:
            return OPERATION_PENDING
        return send_after_write(link, operation)
    if operation.flags & OPERATION_DEEP:
        return send_after_write(link, operation)
    if not operation.flags & OPERATION_RELAXED and (starts or not is_words(operation)):
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
            link.last_flushed.offset = operation.ranges[operation.count - 1].offset
            link.last_flushed.length = smaller(operation.ranges[operation.count - 1].length, 8)
        operation.phase = PHASE_WAIT
    return waiting(link, operation)


# --- completions -------------------------------------------------------------------

cdef int native_complete(link_t *link, const completion_t *completion) noexcept nogil:
    cdef lane_t *lane = link.lane
    cdef const reply_t *reply
    cdef int rc
    if completion.kind == COMPLETED_RECEIVE:
        reply = <const reply_t *> (lane.receive_area
                                   + <size_t> completion.slot * lane.receive_size)
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
        rc = lane.ops.receive(lane, completion.slot)
        return rc
    if completion.kind == COMPLETED_WRITE or completion.kind == COMPLETED_READ:
        link.outstanding -= 1
        return 0
    if completion.kind == COMPLETED_FAULT:
        return lane.state
    return 0


cdef int link_prepare(link_t *link) noexcept nogil:
    """Post the lane's receive buffers; once, before the first operation."""
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
    """The step of that name, as it is done on such a lane."""
    if name == "send-after-write":
        return &SEND_AFTER_WRITE
    if name == "read-after-write":
        return &DELIVERED_WRITE if lane.delivers else &READ_AFTER_WRITE
    if name == "commit":
        return &COMMIT
    if name == "flush":
        return &FLUSH
    raise ValueError(f"no durability step is called {name!r}")
