"""Polling lanes and sleeping on them: the table behind `fabric_ops_t`.

Everything is nogil and allocates nothing but when a lane is added.
"""

from libc.errno cimport EINTR, ENOMEM, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from rpmem.fabric.stream.arrivals cimport is_ready, stream_receive, take
from rpmem.fabric.stream.posts cimport (
    confirm, flush, lost, stream_read, stream_send, stream_write,
)
from rpmem.fabric.stream.structs cimport FEW, INBOX, stream_lane_t, stream_queue_t
from rpmem.fabric.stream.transport cimport NAP_MS
from rpmem.wire.lane cimport COMPLETED_FAULT, LANE_UP, completion_t, iovec, queue_t

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
    LOOK_OFTEN = 2               # polls of the hot lane between two looks at all others, at first
    LOOK_SELDOM = 32             # and after looks that have found nothing


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


cdef int nap(stream_lane_t *own, int milliseconds) noexcept nogil:
    """Sleep by receiving, which wakes up in half the time: 1, 0, or -1 if that ended nothing."""
    cdef iovec vector
    cdef ssize_t n
    if (milliseconds <= NAP_MS or own.full or own.in_body or own.dead
            or own.inbox_begin != own.inbox_end):
        return -1
    vector.iov_base = own.inbox
    vector.iov_len = INBOX
    own.inbox_begin = own.inbox_end = 0
    n = own.transport.nap(&own.transport, &vector)
    if n == 0:
        return -1
    if n == -EINTR:
        return 0
    if n < 0:
        lost(own, n)
    else:
        own.inbox_end = <uint32_t> n
    return 1


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
    cdef int rc
    for i in range(queue.count):
        own = queue.lanes[i]
        if own.dead:
            continue
        if own.base.state != LANE_UP or own.held or is_ready(own):
            return 1
        if own.full and not own.awaits_room:
            await_room(queue, own, True)
    queue.polls = queue.look = LOOK_OFTEN
    if queue.watched:
        return wait_for_many(queue, milliseconds)
    if queue.count == 1:
        rc = nap(queue.lanes[0], milliseconds)
        if rc >= 0:
            return rc
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
