# cython: language_level=3
"""How posts and answers move in the world of the fake fabric, as time goes by.

A post is under way for a random time, and arrives in the order that a fabric promises: in order on
one lane, in any order between lanes, or between answers and completions. Memory is read when a post
arrives and not when it is made, unless the post says that it may change. The target's service runs
while the initiator polls.

Built by tests.support.compiled; never part of the package.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from rpmem.wire.lane cimport (
    COMPLETED_READ, COMPLETED_WRITE, LANE_UP, POST_COMMIT, POST_SIGNAL, queue_t,
)
from rpmemd.service cimport Service, served_t
from tests.support._fake_world cimport (
    BACKS, FAULT_DOUBLE_MESSAGE, FAULT_DROP_MESSAGE, LANES, POLL_NS, POSTS, READ, SEND, SLOTS,
    WORD, WRITE, World, back_t, break_all, complain, conn_t, draw, end_t, event, happens, memory_t,
    post_t, ring_t, target_t, world_t,
)


cdef void send_back(conn_t *conn, ring_t *ring, uint32_t kind, const char *place, uint64_t length,
                    bint copied) noexcept nogil:
    """Something that the initiator will find, in the order of its kind."""
    cdef back_t *item
    if ring.count == BACKS:
        complain(conn.world, b"more completions than posts")
        return
    item = &ring.items[(ring.first + ring.count) % BACKS]
    item.at = max(ring.last_at, conn.world.clock_ns + draw(conn.world, <uint32_t> (
        conn.world.delay_ns + 1)))
    ring.last_at = item.at
    item.kind = kind
    item.length = length
    item.place = place
    item.again = False
    if copied:
        memcpy(item.copy, place, length)
        item.place = NULL
    ring.count += 1


cdef void make_durable(target_t *target, uint64_t offset, const char *source,
                       uint64_t length) noexcept nogil:
    """Bytes become durable by an operation of the device.

    A flush by the service that is not drained yet cannot bring older ones back: caches are coherent.
    """
    memcpy(target.image + offset, source, length)
    memcpy(target.flushed + offset, source, length)


cdef void store(conn_t *conn, const post_t *post, bint durable) noexcept nogil:
    """The bytes of a WRITE are in memory; they may be durable with that."""
    cdef target_t *target = conn.target
    cdef const char *source = post.copy if post.copy != NULL else <char *> post.pieces[0].iov_base
    memcpy(conn.reach + post.offset, source, post.length)
    if (durable or target.reaches_domain) and conn.reach == target.memory and not target.forgets:
        make_durable(target, post.offset, source, post.length)


cdef bint arrive(conn_t *conn, const post_t *post) noexcept nogil:
    """A message: False when there is no buffer for it yet."""
    cdef end_t *there = conn.there
    cdef char *place
    cdef const char *source = post.copy
    cdef uint32_t slot, i, at
    if there.count == 0 or conn.arrived == SLOTS:
        return False
    if happens(conn, FAULT_DROP_MESSAGE):
        return True
    slot = there.slots[there.first]
    there.first = (there.first + 1) % SLOTS
    there.count -= 1
    place = there.base.receive_area + <size_t> slot * there.base.receive_size
    if post.length > there.base.receive_size:
        complain(conn.world, b"a message is longer than the buffer of the target")
        return True
    if source != NULL:
        memcpy(place, source, post.length)
    else:
        for i in range(post.count):
            memcpy(place, post.pieces[i].iov_base, post.pieces[i].iov_len)
            place += post.pieces[i].iov_len
    at = (conn.arrived_first + conn.arrived) % SLOTS
    conn.arrived_slots[at] = slot
    conn.arrived_sizes[at] = post.length
    conn.arrived += 1
    if conn.target.serve_at == 0:
        conn.target.serve_at = conn.world.clock_ns + draw(
            conn.world, <uint32_t> (conn.world.delay_ns + 1))
    return not happens(conn, FAULT_DOUBLE_MESSAGE)


cdef bint still_registered(const post_t *post) noexcept nogil:
    cdef uint32_t i
    for i in range(post.count):
        if post.handles[i] != NULL and not (<memory_t *> post.handles[i]).valid:
            return False
    return True


cdef bint carry_out(conn_t *conn) noexcept nogil:
    """The next post of a lane arrives at the target: False when it cannot yet."""
    cdef post_t *post = &conn.posts[conn.first]
    cdef target_t *target = conn.target
    if conn.broken or target.silent or conn.count == 0 or post.at > conn.world.clock_ns:
        return False
    if post.copy == NULL and not still_registered(post):
        # A device refuses: which matters where somebody still waits for it.
        if conn.here != NULL and conn.here.base.state == LANE_UP:
            complain(conn.world, b"memory was deregistered while a post had it")
    elif post.kind == SEND:
        if not arrive(conn, post):
            return False
    elif post.offset > conn.reach_size or post.length > conn.reach_size - post.offset:
        complain(conn.world, b"a post reaches beyond what is registered")
    elif post.kind == WRITE or post.kind == WORD:
        store(conn, post, post.flags & POST_COMMIT != 0)
    elif post.kind == READ:
        memcpy(post.pieces[0].iov_base, conn.reach + post.offset, post.length)
    elif not target.forgets:
        make_durable(target, post.offset, target.memory + post.offset, post.length)
    if post.flags & POST_SIGNAL:
        send_back(conn, &conn.dones, COMPLETED_READ if post.kind == READ else COMPLETED_WRITE,
                  NULL, 0, False)
    free(post.copy)
    conn.first = (conn.first + 1) % POSTS
    conn.count -= 1
    event(conn)
    return True


cdef void run_service(target_t *target) noexcept nogil:
    """Have the real service take what has arrived, on each of its queues."""
    cdef world_t *world = target.world
    cdef queue_t *queue
    cdef queue_t *done[LANES]
    cdef uint32_t i, k, alive, seen = 0
    target.serve_at = 0
    if target.silent or target.service == NULL:
        return
    for i in range(world.conn_count):
        if world.conns[i].target != target or world.conns[i].there == NULL:
            continue
        queue = world.conns[i].there.base.queue
        for k in range(seen):
            if done[k] == queue:
                queue = NULL
                break
        if queue == NULL:
            continue
        done[seen] = queue
        seen += 1
        alive = 0
        for k in range(world.conn_count):
            if (world.conns[k].there != NULL and world.conns[k].there.base.queue == queue
                    and not (<served_t *> world.conns[k].there.base.user).dropped):
                alive += 1
        with gil:
            (<Service> target.service).stopping = 0
            (<Service> target.service).serve(queue, alive)


cdef void turn(world_t *world) noexcept nogil:
    """Some time goes by; whatever is due happens, the lanes in any order."""
    cdef uint32_t i, from_here
    cdef target_t *target
    world.clock_ns += POLL_NS + draw(world, POLL_NS)
    if world.conn_count:
        from_here = draw(world, world.conn_count)
        for i in range(world.conn_count):
            while carry_out(world.conns[(from_here + i) % world.conn_count]):
                pass
    for i in range(world.target_count):
        target = world.targets[i]
        if target.end_at and target.end_at <= world.clock_ns:
            target.end_at = 0
            break_all(target)
        if target.serve_at and target.serve_at <= world.clock_ns:
            run_service(target)


def reads_under_way(World world, buffer):
    """Whether a READ may still write to a buffer."""
    cdef const unsigned char[::1] view = buffer
    cdef const char *start = <const char *> &view[0]
    cdef const char *place
    cdef uint32_t i, k
    cdef conn_t *conn
    for i in range(world.c.conn_count):
        conn = world.c.conns[i]
        for k in range(conn.count):
            place = <const char *> conn.posts[(conn.first + k) % POSTS].pieces[0].iov_base
            if (conn.posts[(conn.first + k) % POSTS].kind == READ
                    and start <= place < start + view.shape[0]):
                return True
    return False


def settle(World world, uint64_t limit_ns=10000000):
    """Let time go by, during which things arrive."""
    cdef uint64_t end = world.c.clock_ns + limit_ns
    with nogil:
        while world.c.clock_ns < end:
            turn(&world.c)
            world.c.clock_ns += world.c.delay_ns // 4
