# cython: language_level=3
"""A fabric within the process: both ends of every lane in one thread, with a virtual clock.

These are the objects of `rpmem.fabric.contract`; they connect to the targets of the current world.

Built by tests.support.compiled; never part of the package.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from rpmem.fabric.shared.connecting cimport Acceptor, Connector
from rpmem.fabric.shared.lane cimport ConnectedLane
from rpmem.wire.lane cimport WATCH_POSTS, WATCH_RECEIVES
from tests.support._fake_ops cimport fake_ops
from tests.support._fake_world cimport (
    LANES, PAGE, Target, World, break_conn, conn_t, end_t, fake_queue_t, memory_t,
)

from rpmem.errors import ConnectFailed
from tests.support._fake_world import current


cdef class Fabric(Connector):
    """A way to the targets of the current world; `host` of a listening one is a target's number."""
    cdef readonly World world
    cdef readonly object target
    cdef list events

    def __cinit__(self, str provider, str host, int port=0, *, bint listen=False,
                  size_t queue_size=0):
        self.provider, self.host, self.port = provider, host, port
        self.world = current()
        self.target = self.world.targets[int(host)] if listen else None
        self.joining, self.events = {}, []

    @property
    def pins(self):
        return self.world.pins

    @property
    def paces(self):
        return True

    @property
    def commits(self):
        return True

    @property
    def flushes(self):
        return True

    @property
    def bypasses(self):
        return True

    @property
    def lane_limit(self):
        return LANES

    @property
    def description(self):
        return {"provider": self.provider}

    cdef object turn(self, double timeout_s):
        cdef ConnectedLane lane
        if not self.events and self.target is None and self.world.admit is not None:
            self.world.admit()
        if not self.events:
            return None
        event = self.events.pop(0)
        if isinstance(event, ConnectedLane):
            lane = event
            self.joining.pop(lane.key, None)
            lane.connected = lane.problem is None
        return event

    cpdef close(self):
        self.events.clear()


cdef class Domain:
    """Nothing of its own: all memory of the world is in one."""
    cdef readonly Fabric fabric

    def __cinit__(self, Fabric fabric):
        self.fabric = fabric

    def close(self):
        """There is nothing to free."""


cdef class Memory:
    """A registered range."""
    cdef memory_t *own
    cdef readonly uint64_t key
    cdef readonly uint64_t address
    cdef object keep

    def __cinit__(self, Domain domain, size_t address, size_t length, *, bint remote=False,
                  bint source=False, bint persistent=False, uint64_t key=0, object keep=None):
        cdef World world = domain.fabric.world
        self.own = &world.c.memories[world.c.memory_count]
        world.c.memory_count += 1
        self.own.base, self.own.length, self.own.valid = <char *> address, length, True
        self.key = world.c.memory_count - 1
        self.address = address
        self.keep = keep
        if keep is not None:
            keep.pin("a registration with the fake fabric")

    @property
    def handle(self):
        return <size_t> self.own

    @property
    def flushes(self):
        return True

    def close(self):
        """Deregister: from now on nothing may reach it."""
        if self.own.valid and self.keep is not None:
            self.keep.unpin("a registration with the fake fabric")
        self.own.valid = False


cdef class Queue:
    """Where completions are found."""
    cdef fake_queue_t c
    cdef readonly Domain domain

    def __cinit__(self, Domain domain, size_t size=0, *, bint answers=True):
        cdef object target = domain.fabric.target
        self.domain = domain
        self.c.base.ops = fake_ops()
        self.c.base.watch = WATCH_RECEIVES if answers else WATCH_POSTS
        self.c.base.spins = True
        self.c.base.calls = not domain.fabric.world.pins
        self.c.world = &domain.fabric.world.c
        if target is not None:
            self.c.target = &(<Target> target).c

    def close(self):
        """There is nothing to free."""


cdef class FabricLane(ConnectedLane):
    """One end of a lane."""
    cdef end_t *own
    cdef readonly Queue queue
    cdef readonly Fabric fabric
    cdef readonly object request
    cdef uint64_t remote_address
    cdef uint64_t remote_key

    def __cinit__(self, Domain domain, Queue queue, uint32_t index, tuple send, tuple receive,
                  Memory pool=None, object request=None):
        cdef World world = domain.fabric.world
        cdef size_t total
        self.own = <end_t *> calloc(1, sizeof(end_t))
        self.c = &self.own.base
        self.c.ops = fake_ops()
        self.c.queue = &queue.c.base
        self.c.index = index
        self.c.operation_limit = self.c.piece = world.operation_limit
        self.c.inline_limit = world.inline_limit
        self.c.needs_handles = world.pins
        self.c.delivers = world.delivers
        self.own.passive = request is not None
        self.queue, self.fabric, self.request = queue, domain.fabric, request
        total = self.lay_out(send, receive, <uint32_t> min(world.operation_limit, <uint64_t> PAGE))
        if world.pins:
            buffers = Memory(domain, <size_t> self.area, total)
            self.buffers = buffers
            self.c.send_handle = self.c.scratch_handle = <void *> (<Memory> buffers).own
            if pool is not None:
                self.c.pool_handle = <void *> pool.own

    def __dealloc__(self):
        self.close()
        free(self.own)

    @property
    def key(self):
        return <size_t> self.own

    def aim(self, uint64_t address, uint64_t key, uint64_t size):
        self.remote_address, self.remote_key = address, key
        self.c.remote_size = size

    def connect(self, bytes data):
        cdef Fabric other = self.fabric.world.listeners[self.fabric.port - 1].fabric
        self.fabric.joining[self.key] = self
        other.events.append(Request(self, data))

    def accept(self):
        cdef World world = self.fabric.world
        cdef FabricLane caller = self.request.lane
        cdef memory_t *memory = &world.c.memories[caller.remote_key]
        cdef conn_t *conn = <conn_t *> calloc(1, sizeof(conn_t))
        conn.world = &world.c
        conn.target = &(<Target> self.fabric.target).c
        conn.here, conn.there = caller.own, self.own
        conn.reach = <char *> memory.base + (caller.remote_address - <size_t> memory.base)
        conn.reach_size = memory.length - (conn.reach - memory.base)
        caller.own.conn = self.own.conn = conn
        world.c.conns[world.c.conn_count] = conn
        world.c.conn_count += 1
        self.fabric.joining[self.key] = self
        self.fabric.events.append(self)
        caller.fabric.events.append(caller)

    cpdef close(self):
        cdef conn_t *conn = self.own.conn
        if conn != NULL:
            break_conn(conn)
            if conn.here == self.own:
                conn.here = NULL
            else:
                conn.there = NULL
            self.own.conn = NULL
        self.ended()


cdef class Request:
    """What a target is shown of a lane that wants to connect."""
    cdef readonly FabricLane lane
    cdef readonly bytes data
    cdef readonly tuple peer

    def __init__(self, FabricLane lane, bytes data):
        self.lane, self.data, self.peer = lane, data, ("fake", lane.index)

    def reject(self):
        self.lane.problem = ConnectFailed(f"the target refused lane {self.lane.index}")
        self.lane.fabric.events.append(self.lane)


cdef class Listener(Acceptor):
    """Where a target waits for lanes."""

    def __cinit__(self, Fabric fabric, *, int lanes=0):
        self.fabric = fabric
        fabric.world.listeners.append(self)
        self.port = len(fabric.world.listeners)
