"""Posting frames: what the socket does not take at once is kept, and sent by later polls."""

from libc.errno cimport EPIPE
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from rpmem.fabric.stream.frames cimport (
    FRAME_ASKS, FRAME_DONE, FRAME_MESSAGE, FRAME_READ, FRAME_WORDS, FRAME_WRITE, frame_t,
)
from rpmem.fabric.stream.structs cimport MOST_READS, MOST_REST, stream_lane_t, wanted_t
from rpmem.wire.lane cimport (
    LANE_AGAIN, LANE_LOST, LANE_UP, POST_INLINE, POST_MORE, POST_SIGNAL, POST_WORDS, iovec,
    lane_t,
)

cdef extern from "<sched.h>" nogil:
    int sched_getcpu()


cdef int lost(stream_lane_t *own, ssize_t rc) noexcept nogil:
    """The connection is gone, for the reason in `rc`."""
    if rc == -EPIPE and own.broken:
        rc = own.broken  # the kernel tells the cause only once
    if own.base.state == LANE_UP:
        own.base.state = LANE_LOST
        own.base.detail = 0 if rc == -EPIPE else <int> -rc
    return LANE_LOST


cdef int refused(stream_lane_t *own, ssize_t rc) noexcept nogil:
    """The socket takes nothing any more. What has arrived may say why: that is looked at first."""
    own.broken = <int> rc
    own.rest_count = 0
    own.more = True
    return LANE_AGAIN


cdef int flush(stream_lane_t *own) noexcept nogil:
    """Send what is left of the last post: 0 or LANE_AGAIN."""
    cdef iovec *part
    cdef ssize_t n
    own.held = False
    while own.rest_count:
        n = own.transport.send(&own.transport, &own.rest[own.rest_first], own.rest_count)
        if n < 0:
            return refused(own, n)
        if n == 0:
            own.full = True
            return LANE_AGAIN
        while n:
            part = &own.rest[own.rest_first]
            if <size_t> n < part.iov_len:
                part.iov_base = <char *> part.iov_base + n
                part.iov_len -= n
                break
            n -= part.iov_len
            own.rest_first += 1
            own.rest_count -= 1
    return 0


cdef void keep(stream_lane_t *own, const iovec *parts, size_t count, size_t header, size_t taken,
               bint copies) noexcept nogil:
    """Keep what the socket has not taken of a post: copied if its memory may be reused."""
    cdef size_t spilled = 0
    cdef size_t n
    cdef size_t i
    own.rest_first = own.rest_count = 0
    for i in range(count):
        n = parts[i].iov_len
        if taken >= n:
            taken -= n
            continue
        own.rest[own.rest_count].iov_base = <char *> parts[i].iov_base + taken
        own.rest[own.rest_count].iov_len = n - taken
        n -= taken
        taken = 0
        if i == header:
            # It is on the stack of whoever posts.
            memcpy(&own.header, own.rest[own.rest_count].iov_base, n)
            own.rest[own.rest_count].iov_base = &own.header
        elif copies and i > header:
            memcpy(own.spill + spilled, own.rest[own.rest_count].iov_base, n)
            own.rest[own.rest_count].iov_base = own.spill + spilled
            spilled += n
        own.rest_count += 1


cdef inline void fill_header(frame_t *frame, uint32_t kind, uint32_t flags, uint64_t offset,
                             uint64_t length) noexcept nogil:
    frame.length = <uint32_t> length
    frame.kind = <unsigned char> kind
    frame.flags = <unsigned char> flags
    frame.processor = <uint16_t> (1 + sched_getcpu()) if kind == FRAME_MESSAGE else 0
    frame.offset = offset


cdef void hold(stream_lane_t *own, uint32_t flags, uint64_t offset,
               const iovec *source) noexcept nogil:
    """Let a WRITE leave with the post that follows it, or with the next poll."""
    fill_header(&own.held_header, FRAME_WRITE, flags, offset, source.iov_len)
    own.rest[0].iov_base = &own.held_header
    own.rest[0].iov_len = sizeof(frame_t)
    own.rest[1] = source[0]
    own.rest_first = 0
    own.rest_count = 2
    own.held = own.more = True


cdef int post(stream_lane_t *own, uint32_t kind, uint32_t flags, uint64_t offset, uint64_t length,
              const iovec *vector, size_t count, bint copies) noexcept nogil:
    """Send a frame with the bytes of a vector: 0, LANE_AGAIN if nothing was sent, or a fault."""
    cdef frame_t frame
    cdef iovec parts[MOST_REST]
    cdef size_t total = sizeof(frame_t)
    cdef size_t header = 0
    cdef size_t i
    cdef ssize_t n
    cdef int rc
    if own.base.state != LANE_UP:
        return own.base.state
    if own.broken:
        return LANE_AGAIN
    if own.held:
        header = own.rest_count
        for i in range(header):
            parts[i] = own.rest[i]
            total += own.rest[i].iov_len
    elif own.rest_count:
        rc = flush(own)
        if rc < 0:
            return rc
    fill_header(&frame, kind, flags, offset, length)
    parts[header].iov_base = &frame
    parts[header].iov_len = sizeof(frame_t)
    for i in range(count):
        parts[header + 1 + i] = vector[i]
        total += vector[i].iov_len
    n = own.transport.send(&own.transport, parts, header + 1 + count)
    if n < 0:
        return refused(own, n)
    own.full = <size_t> n < total
    if n == 0:
        return LANE_AGAIN
    own.held = False
    own.rest_count = 0
    if own.full:
        keep(own, parts, header + 1 + count, header, n, copies)
        own.more = True
    return 0


cdef int stream_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                     uint32_t flags) noexcept nogil:
    cdef uint64_t length = 0
    cdef size_t i
    for i in range(count):
        length += vector[i].iov_len
    return post(<stream_lane_t *> lane, FRAME_MESSAGE, 0, 0, length, vector, count,
                flags & POST_INLINE != 0)


cdef int stream_write(lane_t *lane, const void *source, void *handle, uint64_t offset,
                      uint64_t length, uint32_t flags) noexcept nogil:
    cdef stream_lane_t *own = <stream_lane_t *> lane
    cdef bint asks = flags & POST_SIGNAL != 0
    cdef uint32_t how = (FRAME_ASKS if asks else 0) | (FRAME_WORDS if flags & POST_WORDS else 0)
    cdef iovec vector
    cdef int rc = 0
    vector.iov_base = <void *> source
    vector.iov_len = length
    if (flags & POST_MORE and not flags & POST_INLINE and own.rest_count == 0
            and own.base.state == LANE_UP and own.broken == 0):
        hold(own, how, offset, &vector)
    else:
        rc = post(own, FRAME_WRITE, how, offset, length, &vector, 1, flags & POST_INLINE != 0)
    if rc == 0 and asks:
        own.unconfirmed += 1
    return rc


cdef int stream_read(lane_t *lane, void *destination, void *handle, uint64_t offset,
                     uint64_t length, uint32_t flags) noexcept nogil:
    cdef stream_lane_t *own = <stream_lane_t *> lane
    cdef wanted_t *wanted
    cdef int rc
    if own.reads_count == MOST_READS:
        return LANE_AGAIN
    rc = post(own, FRAME_READ, 0, offset, length, NULL, 0, False)
    if rc == 0:
        wanted = &own.reads[(own.reads_first + own.reads_count) % MOST_READS]
        wanted.destination = <char *> destination
        wanted.length = length
        own.reads_count += 1
    return rc


cdef int confirm(stream_lane_t *own) noexcept nogil:
    """Send the DONEs that are owed: 0 or LANE_AGAIN."""
    cdef int rc
    while own.confirms:
        rc = post(own, FRAME_DONE, 0, 0, 0, NULL, 0, False)
        if rc < 0:
            return rc
        own.confirms -= 1
    return 0
