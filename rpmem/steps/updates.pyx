"""UPDATE and FETCH: how a message is filled and sent.

A message is built in one of the lane's send buffers: a header, a table of descriptors, the data.
The data of a long last range is gathered from the pool instead of copied, unless it is lent. A
buffer is free again once its message is answered, so the window limits how many are under way.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from rpmem.steps.step cimport OPERATION_DEEP, OPERATION_FLUSH, is_lent, link_t, operation_t
from rpmem.wire.lane cimport LANE_AGAIN, POST_INLINE, WATCH_RECEIVES, iovec, lane_t
from rpmem.wire.messages cimport (
    MESSAGE_FETCH, MESSAGE_UPDATE, UPDATE_ANSWER, UPDATE_DEEP, WRITTEN_SHIFT, descriptor_t,
    header_t,
)

cdef enum:
    # Pieces of one range end on this boundary, so no aligned word is cut in two.
    PIECE_ALIGNMENT = 64
    # Copying this much of one range costs less than a separate message, if other ranges follow.
    MOST_COPIED = 1 << 14

cdef uint64_t EVERY = <uint64_t> -1

# How far an operation has got.
ctypedef struct progress_t:
    size_t index              # the next range
    uint64_t done             # bytes of it already in a message


cdef inline header_t *next_message(const link_t *link) noexcept nogil:
    """The send buffer of the next message."""
    cdef const lane_t *lane = link.lane
    return <header_t *> (lane.send_area
                         + <size_t> (link.sequence % lane.send_slots) * lane.send_size)


cdef uint64_t piece_length(uint64_t offset, uint64_t left, uint64_t room) noexcept nogil:
    """How much of a range's remaining `left` bytes fits into `room`."""
    cdef uint64_t end
    if left <= room:
        return left
    end = (offset + room) & ~<uint64_t>(PIECE_ALIGNMENT - 1)
    return end - offset if end > offset else 0


cdef inline uint64_t most_copied(const link_t *link, const operation_t *operation) noexcept nogil:
    """The longest last range of a message that is copied, not gathered."""
    return EVERY if is_lent(link, operation) else link.limits.copy_limit


cdef size_t describe(const link_t *link, const operation_t *operation, uint64_t written_above,
                     descriptor_t *descriptors, progress_t *progress) noexcept nogil:
    """Fill the table of one message, which precedes the data; return its length.

    Ranges already WRITTEN, those above `written_above` and up to `put_most`, are only named.
    """
    cdef uint64_t room = link.limits.message_size - sizeof(header_t)
    cdef uint64_t done = operation.done, left, n
    cdef size_t index = operation.index, count = 0
    cdef bint put
    while index < operation.count and room > sizeof(descriptor_t) and count < 0xffff:
        left = operation.ranges[index].length - done
        put = written_above < operation.ranges[index].length <= link.limits.put_most
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
        if n > max(most_copied(link, operation), <uint64_t> MOST_COPIED) and not put:
            break
    progress.index = index
    progress.done = done
    return count


cdef char *copy_data(const char *source, descriptor_t *descriptors, size_t count, uint64_t most,
                     iovec *tail) noexcept nogil:
    """Copy the data that is not WRITTEN behind the table; return its end.

    A last range longer than `most` becomes `tail`.
    """
    cdef char *fill = <char *> (descriptors + count)
    cdef uint64_t n
    cdef size_t k
    tail.iov_base = NULL
    tail.iov_len = 0
    for k in range(count):
        n = descriptors[k].length
        if n >> WRITTEN_SHIFT:
            continue
        if k + 1 == count and n > most:
            tail.iov_base = <void *> (source + descriptors[k].offset)
            tail.iov_len = n
        else:
            memcpy(fill, source + descriptors[k].offset, n)
            fill += n
    return fill


cdef int send_update(link_t *link, operation_t *operation, uint64_t written_above) noexcept nogil:
    """Send one UPDATE with as many of the operation's ranges as fit, and advance past them."""
    cdef lane_t *lane = link.lane
    cdef header_t *header = next_message(link)
    cdef descriptor_t *descriptors = <descriptor_t *> (header + 1)
    cdef progress_t progress
    cdef size_t count = describe(link, operation, written_above, descriptors, &progress)
    cdef iovec vector[2]
    cdef void *handles[2]
    cdef uint32_t flags = 0
    cdef int rc
    header.kind = MESSAGE_UPDATE
    header.flags = UPDATE_DEEP if operation.flags & OPERATION_DEEP else 0
    header.count = <uint16_t> count
    header.sequence = link.sequence + 1
    if ((progress.index == operation.count and not operation.flags & OPERATION_FLUSH)
            or link.sequence + 1 - link.asked >= (link.limits.window + 1) // 2):
        header.flags |= UPDATE_ANSWER

    vector[0].iov_base = header
    vector[0].iov_len = copy_data(operation.source, descriptors, count,
                                  most_copied(link, operation), &vector[1]) - <char *> header
    handles[0] = lane.send_handle
    handles[1] = lane.pool_handle
    if vector[1].iov_base == NULL and vector[0].iov_len <= lane.inline_limit:
        flags |= POST_INLINE
    rc = lane.ops.send(lane, vector, handles, 1 if vector[1].iov_base == NULL else 2, flags)
    if rc < 0:
        return rc
    link.sequence += 1
    if header.flags & UPDATE_ANSWER:
        link.asked = link.sequence
    operation.last_sequence = link.sequence
    operation.index = progress.index
    operation.done = progress.done
    return 0


cdef int send_updates(link_t *link, operation_t *operation, uint64_t written_above) noexcept nogil:
    """Send all messages of the operation; without ranges that is one empty message."""
    cdef bint more = True
    cdef int rc
    link.lane.queue.watch = WATCH_RECEIVES
    while more:
        # A send buffer is free again once its message is answered.
        if link.sequence - link.answered >= link.limits.window:
            return LANE_AGAIN
        rc = send_update(link, operation, written_above)
        if rc < 0:
            return rc
        more = operation.index < operation.count
    return 0


cdef int send_fetch(link_t *link, uint64_t offset, uint64_t length) noexcept nogil:
    """Ask the target to copy a range to the lane's staging buffer."""
    cdef lane_t *lane = link.lane
    cdef header_t *header = next_message(link)
    cdef descriptor_t *descriptor = <descriptor_t *> (header + 1)
    cdef iovec vector
    cdef int rc
    if link.sequence - link.answered >= link.limits.window:
        return LANE_AGAIN
    header.kind = MESSAGE_FETCH
    header.flags = UPDATE_ANSWER
    header.count = 1
    header.sequence = link.sequence + 1
    descriptor.offset = offset
    descriptor.length = length
    vector.iov_base = header
    vector.iov_len = sizeof(header_t) + sizeof(descriptor_t)
    rc = lane.ops.send(lane, &vector, &lane.send_handle, 1,
                       POST_INLINE if vector.iov_len <= lane.inline_limit else 0)
    if rc < 0:
        return rc
    link.sequence += 1
    link.asked = link.sequence
    return 0
