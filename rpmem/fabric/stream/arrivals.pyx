"""Taking apart what arrives: frames, each checked before a byte of it is stored.

A frame's kind, its length, and that its range lies in the memory that the other side may reach.
Everything is nogil and allocates nothing.
"""

from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memmove

from rpmem.base.bounds cimport is_outside
from rpmem.base.words cimport rpmem_copy_words
from rpmem.fabric.stream.frames cimport (
    FRAME_ASKS, FRAME_DATA, FRAME_DONE, FRAME_MESSAGE, FRAME_READ, FRAME_WORDS, FRAME_WRITE,
    frame_t,
)
from rpmem.fabric.stream.posts cimport lost, post
from rpmem.fabric.stream.structs cimport INBOX, MOST_READS, stream_lane_t
from rpmem.wire.lane cimport (
    COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_AGAIN, LANE_GARBLED, completion_t,
    iovec, lane_t,
)

cdef enum:
    AT_ONCE = 8                  # receives of a lane before others have their turn


cdef int stream_receive(lane_t *lane, uint32_t slot) noexcept nogil:
    cdef stream_lane_t *own = <stream_lane_t *> lane
    if own.posted_count == lane.receive_slots:
        return lost(own, -ENOMEM)
    own.posted[(own.posted_first + own.posted_count) % lane.receive_slots] = slot
    own.posted_count += 1
    own.stuck = False
    return 0


cdef inline int garbled(stream_lane_t *own) noexcept nogil:
    own.base.state = LANE_GARBLED
    return LANE_GARBLED


cdef int answer_read(stream_lane_t *own) noexcept nogil:
    """Send what a READ wants; LANE_AGAIN if there is no room for it now."""
    cdef iovec vector
    if own.rest_count or own.confirms:
        return LANE_AGAIN
    vector.iov_base = own.exposed + own.frame.offset
    vector.iov_len = own.frame.length
    return post(own, FRAME_DATA, 0, 0, own.frame.length, &vector, 1, False)


cdef inline bint is_whole(const stream_lane_t *own) noexcept nogil:
    """Whether the inbox has all of the frame whose header was looked at."""
    return own.inbox_end - own.inbox_begin - sizeof(frame_t) >= own.frame.length


cdef int begin(stream_lane_t *own) noexcept nogil:
    """Check a frame's header, and find the place of its body; LANE_AGAIN: there is none now."""
    cdef lane_t *lane = &own.base
    cdef frame_t *frame = &own.frame
    cdef bint ranged = frame.kind == FRAME_WRITE or frame.kind == FRAME_READ
    cdef char *here
    if (frame.flags & ~(FRAME_ASKS | FRAME_WORDS)
            or (frame.flags and frame.kind != FRAME_WRITE)
            or (frame.processor and frame.kind != FRAME_MESSAGE)):
        return garbled(own)
    if ranged:
        if (frame.length > lane.operation_limit or own.exposed == NULL
                or is_outside(frame.offset, frame.length, 0, own.exposed_size)):
            return garbled(own)
    elif frame.offset:
        return garbled(own)
    own.left = frame.length
    if frame.kind == FRAME_MESSAGE:
        if frame.length > lane.receive_size:
            return garbled(own)
        if own.posted_count == 0:
            return LANE_AGAIN
        own.slot = own.posted[own.posted_first]
        own.posted_first = (own.posted_first + 1) % lane.receive_slots
        own.posted_count -= 1
        own.into = lane.receive_area + <size_t> own.slot * lane.receive_size
        here = own.inbox + own.inbox_begin + sizeof(frame_t)
        if is_whole(own) and (<uintptr_t> here & 7) == 0:
            # Whoever takes it reads it here.
            own.into = here
            own.inbox_begin += frame.length
            own.left = 0
        lane.messages[own.slot] = own.into
        if own.near:
            lane.queue.neighbour = frame.processor
    elif frame.kind == FRAME_WRITE:
        own.into = own.exposed + frame.offset
    elif frame.kind == FRAME_READ:
        own.left = 0
        return answer_read(own)
    elif frame.kind == FRAME_DATA:
        if not own.reads_count or own.reads[own.reads_first].length != frame.length:
            return garbled(own)
        own.into = own.reads[own.reads_first].destination
    elif frame.kind == FRAME_DONE:
        if frame.length or not own.unconfirmed:
            return garbled(own)
    else:
        return garbled(own)
    return 0


cdef int finish(stream_lane_t *own, completion_t *out) noexcept nogil:
    """A frame has arrived: 1 if it is a completion, else 0."""
    own.in_body = False
    out.lane = &own.base
    out.slot = 0
    out.length = own.frame.length
    if own.frame.kind == FRAME_MESSAGE:
        out.kind = COMPLETED_RECEIVE
        out.slot = own.slot
        return 1
    if own.frame.kind == FRAME_DATA:
        own.reads_first = (own.reads_first + 1) % MOST_READS
        own.reads_count -= 1
        out.kind = COMPLETED_READ
        return 1
    if own.frame.kind == FRAME_DONE:
        own.unconfirmed -= 1
        out.kind = COMPLETED_WRITE
        return 1
    if own.frame.flags & FRAME_ASKS:
        own.confirms += 1
    return 0


cdef int fill_inbox(stream_lane_t *own) noexcept nogil:
    """Receive behind what the inbox has: 1, or 0 if nothing has come, or LANE_LOST."""
    cdef iovec vector
    cdef ssize_t n
    cdef uint32_t have = own.inbox_end - own.inbox_begin
    if have and own.inbox_begin:
        memmove(own.inbox, own.inbox + own.inbox_begin, have)
    own.inbox_begin = 0
    own.inbox_end = have
    vector.iov_base = own.inbox + have
    vector.iov_len = INBOX - have
    n = own.transport.receive(&own.transport, &vector, 1)
    if n < 0:
        return lost(own, n)
    own.inbox_end += <uint32_t> n
    return n > 0


cdef int take_words(stream_lane_t *own) noexcept nogil:
    """As `take_body`, but no aligned 8-byte word is stored before all of it is there."""
    cdef uint64_t have = min(own.left, <uint64_t> (own.inbox_end - own.inbox_begin))
    cdef uint64_t n = have
    cdef uint64_t behind
    if have < own.left:
        behind = <uint64_t> own.into + have & 7
        n = have - behind if have > behind else 0
    if n:
        rpmem_copy_words(own.into, own.inbox + own.inbox_begin, n)
        own.inbox_begin += <uint32_t> n
        own.into += n
        own.left -= n
    return fill_inbox(own) if own.left else 1


cdef int take_body(stream_lane_t *own) noexcept nogil:
    """Move bytes of the body to their place: 1 if something came, 0 if not, or LANE_LOST."""
    cdef uint64_t n = min(own.left, <uint64_t> (own.inbox_end - own.inbox_begin))
    cdef iovec vector[2]
    cdef ssize_t came
    if n:
        memcpy(own.into, own.inbox + own.inbox_begin, n)
        own.inbox_begin += <uint32_t> n
        own.into += n
        own.left -= n
    if own.left == 0:
        return 1
    own.inbox_begin = own.inbox_end = 0
    vector[0].iov_base = own.into
    vector[0].iov_len = own.left
    # What follows comes with the same call.
    vector[1].iov_base = own.inbox
    vector[1].iov_len = INBOX
    came = own.transport.receive(&own.transport, vector, 2)
    if came < 0:
        return lost(own, came)
    n = min(<uint64_t> came, own.left)
    own.into += n
    own.left -= n
    own.inbox_end = <uint32_t> (came - n)
    return came > 0


cdef int take(stream_lane_t *own, completion_t *out, int room) noexcept nogil:
    """Take what has arrived apart; the number of completions. The lane's state has any fault."""
    cdef int used = 0
    cdef int turns = 0
    own.stuck = False
    while used < room:
        if not own.in_body:
            if own.inbox_end - own.inbox_begin < sizeof(frame_t):
                # What is handed out lies in the inbox.
                if used or turns == AT_ONCE:
                    break
                turns += 1
                if fill_inbox(own) <= 0:
                    break
                continue
            memcpy(&own.frame, own.inbox + own.inbox_begin, sizeof(frame_t))
            if begin(own) < 0:
                own.stuck = True
                break
            own.inbox_begin += <uint32_t> sizeof(frame_t)
            own.in_body = True
        if own.left:
            if turns == AT_ONCE or (used and own.left > own.inbox_end - own.inbox_begin):
                break
            turns += 1
            if (take_words(own) if own.frame.flags & FRAME_WORDS else take_body(own)) <= 0:
                break
            if own.left:
                continue
        used += finish(own, &out[used])
    return used


cdef bint is_ready(const stream_lane_t *own) noexcept nogil:
    """Whether a poll gets further although nothing arrives."""
    cdef uint32_t least = 1 if own.in_body else <uint32_t> sizeof(frame_t)
    return (own.broken != 0 or own.transport.pending(&own.transport)
            or (own.inbox_end - own.inbox_begin >= least and not own.stuck))
