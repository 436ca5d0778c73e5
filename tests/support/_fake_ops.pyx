# cython: language_level=3
"""The function table of the fake fabric's lanes, called by engine, steps and service.

Built by tests.support.compiled; never part of the package.
"""

from libc.errno cimport ECONNRESET
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from rpmem.wire.lane cimport (
    COMPLETED_FAULT, COMPLETED_RECEIVE, COMPLETED_WRITE, LANE_AGAIN, LANE_LOST, LANE_UP,
    POST_COMMIT, POST_DELIVERED, POST_INLINE, POST_MORE, POST_SIGNAL, completion_t, fabric_ops_t,
    iovec, lane_t, queue_t,
)
from rpmem.wire.messages cimport reply_t
from rpmemd.service cimport Service, served_t
from tests.support._fake_traffic cimport send_back, turn
from tests.support._fake_world cimport (
    BACKS, FAULT_DROP_REPLY, FAULT_GARBLE, FAULT_REFUSE_POST, FLUSH, POSTS, READ, SEND, SLOTS, WORD,
    WRITE, back_t, break_conn, complain, conn_t, draw, end_t, event, fake_queue_t, happens,
    memory_t, post_t, ring_t, world_t,
)

# When a post arrives that waits for another one to follow first.
cdef uint64_t HELD = <uint64_t> -1


# --- posts ---------------------------------------------------------------------------------------

cdef bint covered(world_t *world, const void *place, uint64_t length, void *handle) noexcept nogil:
    """Whether memory that is posted is registered, where it has to be."""
    cdef memory_t *memory = <memory_t *> handle
    cdef const char *start = <const char *> place
    if not world.needs_handles:
        return True
    return (memory != NULL and memory.valid and start >= memory.base
            and start + length <= memory.base + memory.length)


cdef void let_go(conn_t *conn) noexcept nogil:
    """What was held for the last of several posts leaves."""
    cdef post_t *post
    cdef uint32_t i
    for i in range(conn.count):
        post = &conn.posts[(conn.first + i) % POSTS]
        if post.at == HELD:
            post.at = max(conn.last_at, conn.world.clock_ns + draw(
                conn.world, <uint32_t> (conn.world.delay_ns + 1)))
            conn.last_at = post.at


cdef post_t *claim(end_t *end, uint32_t kind, uint32_t flags, int *rc) noexcept nogil:
    """The next post to fill in, or NULL and why not."""
    cdef conn_t *conn = end.conn
    cdef world_t *world
    cdef post_t *post
    rc[0] = end.base.state
    if end.base.state != LANE_UP:
        return NULL
    if conn == NULL:
        rc[0] = end.base.state = LANE_LOST
        return NULL
    world = conn.world
    if conn.broken and conn.notice_at <= world.clock_ns or happens(conn, FAULT_REFUSE_POST):
        break_conn(conn)
        end.base.detail = ECONNRESET
        rc[0] = end.base.state = LANE_LOST
        return NULL
    if conn.count >= world.depth or (
            conn.count and world.again_in and draw(world, world.again_in) == 0):
        let_go(conn)
        world.again = True
        rc[0] = LANE_AGAIN
        return NULL
    rc[0] = 0
    world.posted += 1
    post = &conn.posts[(conn.first + conn.count) % POSTS]
    memset(post, 0, sizeof(post_t))
    post.kind = kind
    post.flags = flags
    return post


cdef int leave(end_t *end, post_t *post) noexcept nogil:
    """A post that is filled in is on its way, or waits for the next."""
    cdef conn_t *conn = end.conn
    cdef world_t *world = conn.world
    cdef char *place
    cdef uint32_t i
    for i in range(post.count):
        if not covered(world, post.pieces[i].iov_base, post.pieces[i].iov_len, post.handles[i]):
            complain(world, b"memory that is not registered was posted")
    if post.flags & POST_INLINE or post.kind == WORD:
        if post.length > max(end.base.inline_limit, <uint32_t> 8):
            complain(world, b"more bytes inline than a post takes")
        post.copy = place = <char *> malloc(max(post.length, <uint64_t> 1))
        for i in range(post.count):
            memcpy(place, post.pieces[i].iov_base, post.pieces[i].iov_len)
            place += post.pieces[i].iov_len
    if conn.broken:
        free(post.copy)  # nobody has noticed yet
        return 0
    if (post.kind == WRITE and post.flags & POST_SIGNAL and world.early
            and not post.flags & (POST_COMMIT | POST_DELIVERED)):
        post.flags &= ~<uint32_t> POST_SIGNAL
        send_back(conn, &conn.dones, COMPLETED_WRITE, NULL, 0, False)
    post.at = HELD
    conn.count += 1
    if not (world.holds and post.flags & POST_MORE):
        let_go(conn)
    return 0


cdef int post_one(lane_t *lane, uint32_t kind, const void *place, void *handle, uint64_t offset,
                  uint64_t length, uint32_t flags) noexcept nogil:
    cdef end_t *end = <end_t *> lane
    cdef int rc = 0
    cdef post_t *post = claim(end, kind, flags, &rc)
    if post == NULL:
        return rc
    if length > lane.operation_limit and kind != FLUSH:
        complain(end.conn.world, b"one operation has more bytes than the fabric takes")
    post.offset, post.length = offset, length
    if kind != FLUSH:
        post.count = 1
        post.pieces[0].iov_base, post.pieces[0].iov_len = <void *> place, length
        post.handles[0] = handle
    return leave(end, post)


cdef int fake_write(lane_t *lane, const void *source, void *handle, uint64_t offset,
                    uint64_t length, uint32_t flags) noexcept nogil:
    return post_one(lane, WRITE, source, handle, offset, length, flags)


cdef int fake_read(lane_t *lane, void *destination, void *handle, uint64_t offset,
                   uint64_t length, uint32_t flags) noexcept nogil:
    return post_one(lane, READ, destination, handle, offset, length, flags)


cdef int fake_flush(lane_t *lane, uint64_t offset, uint64_t length, uint32_t flags) noexcept nogil:
    return post_one(lane, FLUSH, NULL, NULL, offset, length, flags)


cdef int fake_write_word(lane_t *lane, const void *source, uint64_t offset,
                         uint32_t flags) noexcept nogil:
    cdef world_t *world = (<end_t *> lane).conn.world
    if offset & 7:
        complain(world, b"a word that is not aligned")
    # Its 8 bytes travel in the request itself: they need not be registered.
    return post_one(lane, WORD, source, &world.memories[0], offset, 8, flags)


cdef int fake_send(lane_t *lane, const iovec *vector, void **handles, size_t count,
                   uint32_t flags) noexcept nogil:
    cdef end_t *end = <end_t *> lane
    cdef conn_t *conn = end.conn
    cdef post_t *post
    cdef int rc = 0
    cdef size_t i
    if end.passive:
        if conn.broken:
            lane.state = LANE_LOST
            return LANE_LOST
        if conn.world.again_in and draw(conn.world, conn.world.again_in) == 0:
            return LANE_AGAIN
        if not happens(conn, FAULT_DROP_REPLY):
            send_back(conn, &conn.replies, COMPLETED_RECEIVE, <const char *> vector.iov_base,
                      vector.iov_len, flags & POST_INLINE != 0)
        return 0
    post = claim(end, SEND, flags, &rc)
    if post == NULL:
        return rc
    post.count = <uint32_t> count
    for i in range(count):
        post.pieces[i] = vector[i]
        post.handles[i] = handles[i]
        post.length += vector[i].iov_len
    return leave(end, post)


cdef int fake_receive(lane_t *lane, uint32_t slot) noexcept nogil:
    cdef end_t *end = <end_t *> lane
    if lane.state != LANE_UP:
        return lane.state
    if end.count == SLOTS:
        return 0  # a buffer that came back twice
    end.slots[(end.first + end.count) % SLOTS] = slot
    end.count += 1
    return 0


# --- completions ---------------------------------------------------------------------------------

cdef uint64_t fill_answer(conn_t *conn, back_t *item, char *place) noexcept nogil:
    """Put an answer into its buffer, as it was sent or not."""
    cdef reply_t *reply = <reply_t *> place
    memcpy(place, item.place if item.place != NULL else item.copy, item.length)
    if happens(conn, FAULT_GARBLE):
        if draw(conn.world, 2) and item.length == sizeof(reply_t):
            reply.sequence += 1000
        else:
            return item.length + 1
    return item.length


cdef int take_back(conn_t *conn, ring_t *ring, completion_t *out) noexcept nogil:
    """The next of one kind, if it is due: 1, else 0."""
    cdef world_t *world = conn.world
    cdef end_t *here = conn.here
    cdef back_t *item = &ring.items[ring.first]
    if ring.count == 0 or item.at > world.clock_ns or conn.target.silent:
        return 0
    out.lane = &here.base
    out.kind = item.kind
    out.slot = 0
    out.length = 0
    if item.kind == COMPLETED_RECEIVE:
        if here.count == 0:
            return 0
        out.slot = here.slots[here.first]
        here.first = (here.first + 1) % SLOTS
        here.count -= 1
        out.length = fill_answer(
            conn, item, here.base.receive_area + <size_t> out.slot * here.base.receive_size)
    if ((item.kind == COMPLETED_RECEIVE or world.doubles_posts) and not item.again
            and world.double_in and draw(world, world.double_in) == 0):
        item.again = True
        return 1
    ring.first = (ring.first + 1) % BACKS
    ring.count -= 1
    event(conn)
    return 1


cdef int poll_here(conn_t *conn, completion_t *out, int room) noexcept nogil:
    """What the initiator finds on a lane."""
    cdef world_t *world = conn.world
    cdef bint swapped = draw(world, 2)
    cdef ring_t *one = &conn.replies if swapped else &conn.dones
    cdef ring_t *other = &conn.dones if swapped else &conn.replies
    cdef int n = 0
    while n < room and take_back(conn, one, &out[n]):
        n += 1
    while n < room and take_back(conn, other, &out[n]):
        n += 1
    if n == 0 and conn.broken and conn.notice_at <= world.clock_ns and not conn.here.told:
        conn.here.told = True
        if conn.here.base.state == LANE_UP:
            conn.here.base.state = LANE_LOST
            conn.here.base.detail = ECONNRESET
        if world.fails_polls:
            return LANE_LOST
        out.lane = &conn.here.base
        out.kind = COMPLETED_FAULT
        return 1
    return n


cdef int poll_there(conn_t *conn, completion_t *out) noexcept nogil:
    """What the service finds on a lane: one thing at a time."""
    if conn.arrived:
        out.lane = &conn.there.base
        out.kind = COMPLETED_RECEIVE
        out.slot = conn.arrived_slots[conn.arrived_first]
        out.length = conn.arrived_sizes[conn.arrived_first]
        conn.arrived_first = (conn.arrived_first + 1) % SLOTS
        conn.arrived -= 1
        return 1
    if conn.broken and not conn.there.told:
        conn.there.told = True
        conn.there.base.state = LANE_LOST
        out.lane = &conn.there.base
        out.kind = COMPLETED_FAULT
        return 1
    return 0


cdef int fake_poll(queue_t *base, completion_t *out, int room) noexcept nogil:
    cdef fake_queue_t *queue = <fake_queue_t *> base
    cdef world_t *world = queue.world
    cdef const served_t *served
    cdef conn_t *conn
    cdef uint32_t i
    cdef int n = 0
    cdef bint owing = False
    if queue.target == NULL:
        turn(world)
    for i in range(world.conn_count):
        conn = world.conns[i]
        if queue.target == NULL:
            if conn.here != NULL and conn.here.base.queue == base:
                return poll_here(conn, out, room)
        elif conn.there != NULL and conn.there.base.queue == base and n < room:
            n += poll_there(conn, &out[n])
            served = <const served_t *> conn.there.base.user
            owing = owing or (served.owes_reply and not served.dropped)
    if queue.target != NULL and n == 0 and not owing:
        # In its thread it would wait here; but there is one thread only.
        with gil:
            (<Service> queue.target.service).stopping = 1
    return n


cdef int fake_wait(queue_t *base, int milliseconds) noexcept nogil:
    """Sleep until something is to happen: that time has come at once."""
    cdef world_t *world = (<fake_queue_t *> base).world
    cdef uint64_t now = world.clock_ns
    cdef uint64_t end = now + <uint64_t> milliseconds * 1000000
    cdef uint64_t next_ns = end
    cdef conn_t *conn
    cdef uint32_t i
    if (<fake_queue_t *> base).target != NULL:
        return 0  # in its thread it would sleep, and nobody else
    if base.calls and world.again:
        # There is room, or a poll makes some.
        world.again = False
        return 1
    for i in range(world.conn_count):
        conn = world.conns[i]
        if conn.broken and conn.here != NULL and not conn.here.told:
            next_ns = min(next_ns, conn.notice_at)
        if conn.target.silent:
            continue
        if conn.count:
            next_ns = min(next_ns, conn.posts[conn.first].at)
        if conn.replies.count:
            next_ns = min(next_ns, conn.replies.items[conn.replies.first].at)
        if conn.dones.count:
            next_ns = min(next_ns, conn.dones.items[conn.dones.first].at)
    for i in range(world.target_count):
        if world.targets[i].serve_at:
            next_ns = min(next_ns, world.targets[i].serve_at)
        if world.targets[i].end_at:
            next_ns = min(next_ns, world.targets[i].end_at)
    if next_ns >= end:
        world.clock_ns = end
        return 0
    # What is due already may wait for something else: then time goes by in polls.
    world.clock_ns = max(now, next_ns)
    return 1


cdef void fake_wake(queue_t *base) noexcept nogil:
    pass


cdef fabric_ops_t OPS
OPS.write = fake_write
OPS.read = fake_read
OPS.send = fake_send
OPS.receive = fake_receive
OPS.poll = fake_poll
OPS.wait = fake_wait
OPS.wake = fake_wake
OPS.flush = fake_flush
OPS.write_word = fake_write_word


cdef const fabric_ops_t *fake_ops() noexcept nogil:
    return &OPS
