"""Taking frames apart, and waiting for them: the table behind `fabric_ops_t`.

Everything is nogil and allocates nothing. Whatever arrives is checked before a byte of it is
stored: its kind, its length, and that its range lies in the memory that the other side may reach.
"""

from libc.errno cimport ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove, memset

from rpmem.base.bounds cimport is_outside
from rpmem.memory.words cimport rpmem_copy_words
from rpmem.fabric.stream.frames cimport (
    FRAME_ASKS, FRAME_DATA, FRAME_DONE, FRAME_MESSAGE, FRAME_READ, FRAME_WORDS,
    FRAME_WRITE, frame_t,
)
from rpmem.fabric.stream.posts cimport (
    confirm, flush, lost, post, stream_read, stream_send, stream_write,
)
from rpmem.fabric.stream.structs cimport (
    FEW, INBOX, MOST_READS, stream_lane_t, stream_queue_t,
)
from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_AGAIN, LANE_GARBLED,
    LANE_UP, completion_t, iovec, lane_t, queue_t,
)

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN
    enum: EPOLLOUT
    enum: EPOLL_CTL_ADD
    enum: EPOLL_CTL_DEL
    enum: EPOLL_CTL_MOD
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_ctl(int epoll, int what, int descriptor, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds)

cdef extern from "<poll.h>" nogil:
    enum: POLLIN
    enum: POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int poll_descriptors "poll" (pollfd *descriptors, unsigned long count, int milliseconds)

cdef extern from "<sys/eventfd.h>" nogil:
    ctypedef uint64_t eventfd_t
    int eventfd_read(int descriptor, eventfd_t *value)
    int eventfd_write(int descriptor, eventfd_t value)

cdef enum:
    EVENTS = 16
    AT_ONCE = 8                  # receives of a lane before others have their turn
    LOOK_OFTEN = 2               # polls of the hot lane between two looks at all others, at first
    LOOK_SELDOM = 32             # and after looks that have found nothing


# --- what arrives -------------------------------------------------------------------

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
    if (frame.zero or frame.flags & ~(FRAME_ASKS | FRAME_WORDS)
            or (frame.flags and frame.kind != FRAME_WRITE)):
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


cdef int poll_lane(stream_lane_t *own, completion_t *out, int room) noexcept nogil:
    """Completions of one lane, its end included."""
    cdef int n = 0
    if own.dead or own.transport.descriptor < 0:
        return 0
    if own.rest_count:
        flush(own)
    if own.base.state == LANE_UP:
        n = take(own, out, room)
        if own.broken and n == 0:
            lost(own, own.broken)
    if own.confirms and own.base.state == LANE_UP:
        confirm(own)
    if own.base.state == LANE_UP:
        own.more = own.rest_count or own.confirms or is_ready(own)
        if own.full and not own.rest_count:
            # Whoever has more to send tries again now.
            own.full = False
            if own.awaits_room:
                await_room(<stream_queue_t *> own.base.queue, own, False)
        return n
    if n == room:
        return n  # its end comes with the next poll
    own.dead = True
    own.more = False
    unwatch(<stream_queue_t *> own.base.queue, own)
    out[n].lane = &own.base
    out[n].kind = COMPLETED_FAULT
    out[n].slot = 0
    out[n].length = 0
    return n + 1


# --- queues -------------------------------------------------------------------------

cdef void unwatch(stream_queue_t *queue, stream_lane_t *own) noexcept nogil:
    cdef epoll_event event
    if not queue.watched:
        return
    memset(&event, 0, sizeof(event))
    epoll_ctl(queue.epoll, EPOLL_CTL_DEL, own.transport.descriptor, &event)


cdef void await_room(stream_queue_t *queue, stream_lane_t *own, bint awaits) noexcept nogil:
    """Let sleeps end, too, when the lane's socket has room; or no longer."""
    cdef epoll_event event
    if not queue.watched:
        return
    memset(&event, 0, sizeof(event))
    event.events = EPOLLIN | EPOLLOUT if awaits else EPOLLIN
    event.data.ptr = own
    epoll_ctl(queue.epoll, EPOLL_CTL_MOD, own.transport.descriptor, &event)
    own.awaits_room = awaits


cdef int watch(stream_queue_t *queue, stream_lane_t *own) noexcept nogil:
    cdef epoll_event event
    memset(&event, 0, sizeof(event))
    event.events = EPOLLIN
    event.data.ptr = own
    if epoll_ctl(queue.epoll, EPOLL_CTL_ADD, own.transport.descriptor, &event):
        return -errno
    return 0


cdef int queue_add(stream_queue_t *queue, stream_lane_t *own) noexcept nogil:
    cdef stream_lane_t **lanes
    cdef uint32_t i
    cdef int rc
    lanes = <stream_lane_t **> realloc(queue.lanes, (queue.count + 1) * sizeof(stream_lane_t *))
    if lanes == NULL:
        return -ENOMEM
    queue.lanes = lanes
    # What an epoll watches costs the sender of every message, even while nobody sleeps.
    if queue.count == FEW and not queue.watched:
        for i in range(queue.count):
            rc = 0 if lanes[i].dead else watch(queue, lanes[i])
            if rc < 0:
                return rc
        queue.watched = True
    if queue.watched:
        rc = watch(queue, own)
        if rc < 0:
            return rc
    lanes[queue.count] = own
    queue.count += 1
    return 0


cdef int queue_ring(stream_queue_t *queue) noexcept nogil:
    cdef epoll_event event
    memset(&event, 0, sizeof(event))
    event.events = EPOLLIN
    return -errno if epoll_ctl(queue.epoll, EPOLL_CTL_ADD, queue.bell, &event) else 0


cdef void queue_remove(stream_queue_t *queue, stream_lane_t *own) noexcept nogil:
    cdef uint32_t i
    for i in range(queue.count):
        if queue.lanes[i] == own:
            queue.count -= 1
            queue.lanes[i] = queue.lanes[queue.count]
            queue.hot = 0
            if not own.dead:
                unwatch(queue, own)
            return


cdef int poll_others(stream_queue_t *queue, completion_t *out, int room) noexcept nogil:
    """Look at all lanes that have something, or are left with something."""
    cdef epoll_event events[EVENTS]
    cdef stream_lane_t *own
    cdef uint32_t i
    cdef int used = 0
    cdef int found
    cdef int n
    cdef int k
    for i in range(queue.count):
        if queue.lanes[i].more and used < room:
            used += poll_lane(queue.lanes[i], out + used, room - used)
    if used == room:
        return used
    if not queue.watched:
        for i in range(queue.count):
            n = poll_lane(queue.lanes[i], out + used, room - used) if used < room else 0
            used += n
            if n:
                queue.hot = i
        return used
    found = epoll_wait(queue.epoll, events, EVENTS, 0)
    for k in range(found):
        own = <stream_lane_t *> events[k].data.ptr
        if own == NULL or used == room:
            continue
        n = poll_lane(own, out + used, room - used)
        used += n
        if n:
            for i in range(queue.count):
                if queue.lanes[i] == own:
                    queue.hot = i
    return used


cdef int stream_poll(queue_t *base, completion_t *out, int room) noexcept nogil:
    cdef stream_queue_t *queue = <stream_queue_t *> base
    cdef int n, found
    if queue.count == 0:
        return 0
    n = poll_lane(queue.lanes[queue.hot], out, room)
    if queue.count == 1 or n == room:
        return n
    queue.polls += 1
    if queue.polls < queue.look:
        return n
    queue.polls = 0
    found = poll_others(queue, out + n, room - n)
    queue.look = LOOK_OFTEN if found else min(2 * queue.look, <uint32_t> LOOK_SELDOM)
    return n + found


cdef int wait_for_few(stream_queue_t *queue, int milliseconds) noexcept nogil:
    cdef pollfd awaited[FEW + 1]
    cdef uint32_t which[FEW + 1]
    cdef eventfd_t rung
    cdef uint32_t count = 1
    cdef uint32_t i
    cdef int n
    awaited[0].fd = queue.bell
    awaited[0].events = POLLIN
    for i in range(queue.count):
        if queue.lanes[i].dead:
            continue
        awaited[count].fd = queue.lanes[i].transport.descriptor
        awaited[count].events = POLLIN | POLLOUT if queue.lanes[i].full else POLLIN
        which[count] = i
        count += 1
    n = poll_descriptors(awaited, count, milliseconds)
    if n <= 0:
        return 0
    if awaited[0].revents:
        eventfd_read(queue.bell, &rung)
    for i in range(1, count):
        if awaited[i].revents:
            queue.hot = which[i]
    return 1


cdef int wait_for_many(stream_queue_t *queue, int milliseconds) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef eventfd_t rung
    cdef uint32_t i
    cdef int k
    cdef int n = epoll_wait(queue.epoll, events, EVENTS, milliseconds)
    for k in range(n):
        if events[k].data.ptr == NULL:
            eventfd_read(queue.bell, &rung)
        else:
            for i in range(queue.count):
                if <void *> queue.lanes[i] == events[k].data.ptr:
                    queue.hot = i
    return n > 0


cdef int stream_wait(queue_t *base, int milliseconds) noexcept nogil:
    cdef stream_queue_t *queue = <stream_queue_t *> base
    cdef stream_lane_t *own
    cdef uint32_t i
    for i in range(queue.count):
        own = queue.lanes[i]
        if own.dead:
            continue
        if own.base.state != LANE_UP or is_ready(own):
            return 1
        if own.full and not own.awaits_room:
            await_room(queue, own, True)
    queue.polls = queue.look = LOOK_OFTEN
    if queue.watched:
        return wait_for_many(queue, milliseconds)
    return wait_for_few(queue, milliseconds)


cdef void stream_wake(queue_t *base) noexcept nogil:
    eventfd_write((<stream_queue_t *> base).bell, 1)


STREAM_OPS.write = stream_write
STREAM_OPS.read = stream_read
STREAM_OPS.send = stream_send
STREAM_OPS.receive = stream_receive
STREAM_OPS.poll = stream_poll
STREAM_OPS.wait = stream_wait
STREAM_OPS.wake = stream_wake
