# cython: language_level=3
"""The world of the fake fabric: lanes and their traffic, targets, and the fault.

There may be one fault, at a counted event: see the FAULT_ numbers. Violations of the contract
(memory that is not registered, ranges outside, ...) are recorded in `complaint`.

Built by tests.support.compiled; never part of the package.
"""

from libc.errno cimport EIO
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from rpmem.memory.media cimport segment_t
from rpmem.memory.region cimport Region
from rpmem.wire cimport clock
from rpmemd.service cimport Service

cdef extern from "Python.h" nogil:
    void PyErr_SetInterrupt()

# The one by whose clock polling goes, and in which fabrics are opened.
cdef world_t *THE = NULL
_current = None


def current():
    """Return the world that is entered."""
    return _current


cdef uint64_t virtual_now() noexcept nogil:
    return THE.clock_ns


# --- what goes wrong -----------------------------------------------------------------------------

cdef void note_fault(target_t *target, uint32_t fault) noexcept nogil:
    target.faulty |= 1 << fault
    target.world.armed = False


cdef void break_conn(conn_t *conn) noexcept nogil:
    """What is on its way to the target is lost; what is on its way back perhaps not."""
    cdef uint32_t i
    if conn.broken:
        return
    conn.broken = True
    conn.notice_at = conn.world.clock_ns + draw(conn.world, NOTICE_NS)
    for i in range(conn.count):
        free(conn.posts[(conn.first + i) % POSTS].copy)
    conn.count = 0
    if draw(conn.world, 2):
        conn.replies.count = 0
        conn.dones.count = 0
    if draw(conn.world, 2):
        conn.arrived = 0


cdef void break_all(target_t *target) noexcept nogil:
    cdef uint32_t i
    for i in range(target.world.conn_count):
        if target.world.conns[i].target == target:
            break_conn(target.world.conns[i])


cdef void event(conn_t *conn) noexcept nogil:
    """Count what happens; now and then it is time for the fault."""
    cdef world_t *world = conn.world
    if conn.target != world.targets[world.fault_target]:
        return
    world.events += 1
    if world.events != world.fault_at:
        return
    if world.fault == FAULT_CUT:
        note_fault(conn.target, world.fault)
        break_conn(conn)
    elif world.fault == FAULT_CUT_ALL:
        note_fault(conn.target, world.fault)
        break_all(conn.target)
    elif world.fault == FAULT_SILENCE:
        note_fault(conn.target, world.fault)
        conn.target.silent = True
    elif world.fault == FAULT_REFUSE:
        conn.target.refuses = EIO
    elif world.fault == FAULT_INTERRUPT or world.fault == FAULT_SILENT_INTERRUPT:
        note_fault(conn.target, world.fault)
        conn.target.silent = world.fault == FAULT_SILENT_INTERRUPT
        PyErr_SetInterrupt()
    else:
        world.armed = True


cdef bint happens(conn_t *conn, uint32_t fault) noexcept nogil:
    """Whether this is what the fault has waited for."""
    cdef world_t *world = conn.world
    if (not world.armed or world.fault != fault
            or conn.target != world.targets[world.fault_target]):
        return False
    note_fault(conn.target, fault)
    return True


# --- the medium ----------------------------------------------------------------------------------

cdef target_t *target_of(segment_t *segment) noexcept nogil:
    cdef uint32_t i
    for i in range(THE.target_count):
        if THE.targets[i].memory == segment.base:
            return THE.targets[i]
    return NULL


cdef int refused(target_t *target) noexcept nogil:
    cdef int number = <int> target.refuses
    if number:
        note_fault(target, FAULT_REFUSE)
    return number


cdef int medium_flush(segment_t *segment, char *address, size_t length) noexcept nogil:
    cdef target_t *target = target_of(segment)
    cdef uint64_t offset = address - target.memory
    if refused(target):
        return EIO
    if target.pending == PENDING:
        complain(target.world, b"more flushes than anybody drains")
        return 0
    memcpy(target.flushed + offset, address, length)
    target.low[target.pending] = offset
    target.lengths[target.pending] = length
    target.pending += 1
    return 0


cdef int medium_drain(segment_t *segment) noexcept nogil:
    cdef target_t *target = target_of(segment)
    cdef uint32_t i
    for i in range(target.pending):
        memcpy(target.image + target.low[i], target.flushed + target.low[i], target.lengths[i])
    target.pending = 0
    return 0


cdef int medium_persist(segment_t *segment, char *address, size_t length) noexcept nogil:
    cdef target_t *target = target_of(segment)
    if refused(target):
        return EIO
    memcpy(target.image + (address - target.memory), address, length)
    memcpy(target.flushed + (address - target.memory), address, length)
    return 0


# --- as tests make it ----------------------------------------------------------------------------

cdef class Target:
    """Memory of a target, with an image of what is durable of it.

    Parameters
    ----------
    world : World
    region : Region
        The pool; it passes for `medium` from now on.
    medium : {"page", "pmem"}
    reaches_domain : bool
        What one-sided operations store is durable when it is in memory.
    forgets : bool
        One-sided flushes and commits do nothing: a device that breaks its promise.
    """

    def __cinit__(self, World world, Region region, *, str medium, bint reaches_domain=False,
                  bint forgets=False):
        cdef segment_t *segment = region.mapped.segments
        self.world = world
        self.region = region
        self.c.world = &world.c
        self.c.memory = region.base
        self.c.size = region.size
        self.c.image = <char *> malloc(region.size)
        self.c.flushed = <char *> malloc(region.size)
        memcpy(self.c.image, region.base, region.size)
        self.c.reaches_domain = reaches_domain
        self.c.forgets = forgets
        segment.flush = medium_flush
        segment.persist = segment.deep = medium_persist
        segment.drain = medium_drain
        region.fence = segment if medium == "pmem" else NULL
        region.medium = medium
        region.spans = medium == "page"
        world.c.targets[world.c.target_count] = &self.c
        world.c.target_count += 1
        world.targets.append(self)

    def __dealloc__(self):
        free(self.c.image)
        free(self.c.flushed)

    def serve_with(self, Service service):
        """Let a service take what arrives."""
        self.service = service
        self.c.service = <void *> service

    def end(self):
        """The session was reported as failed: its lanes end soon."""
        if self.c.end_at == 0:
            self.c.end_at = self.world.c.clock_ns + 1 + draw(&self.world.c, END_NS)

    @property
    def image(self):
        """What would be there after a power cut."""
        return self.c.image[:self.c.size]

    @property
    def faults(self):
        """The numbers of the faults that it had."""
        return {number for number in range(FAULTS) if self.c.faulty >> number & 1}


cdef class World:
    """Where fabrics, lanes and targets are, and what goes wrong there.

    As a context manager it is the one that fabrics are opened in, and polling goes by its clock.

    Parameters
    ----------
    seed : int
        Of everything that is drawn.
    delay_ns : int
        The longest that anything is on its way.
    depth, again_in, double_in : int
        Posts that a lane may have under way; one post of so many finds no room, one answer of so
        many comes twice (0: none).
    early, holds, pins, fails_polls, delivers, doubles_posts : bool
        What this fabric is like: see `world_t`.
    inline_limit, operation_limit : int
        Of lanes.
    fault, fault_at, fault_target : int
        What goes wrong, at which event, with which target.
    """

    def __cinit__(self, uint64_t seed, *, uint64_t delay_ns=2000, uint32_t depth=64,
                  uint32_t again_in=0, uint32_t double_in=0, bint early=False, bint holds=False,
                  bint pins=False, bint fails_polls=False, bint delivers=False,
                  bint doubles_posts=False, uint32_t inline_limit=64,
                  uint64_t operation_limit=1 << 20, uint32_t fault=FAULT_NONE,
                  uint32_t fault_at=0, uint32_t fault_target=0):
        self.c.random = (seed + 1) * (<uint64_t> 0x9E3779B9 << 32 | 0x7F4A7C15)
        self.c.clock_ns = 1000000000
        self.c.delay_ns, self.c.depth, self.c.again_in = delay_ns, min(depth, 64), again_in
        self.c.double_in, self.c.early, self.c.holds = double_in, early, holds
        self.c.needs_handles, self.c.fails_polls = pins, fails_polls
        self.c.doubles_posts = doubles_posts
        self.c.fault, self.c.fault_at, self.c.fault_target = fault, fault_at, fault_target
        # All memory there is: what travels in the request itself is registered nowhere.
        self.c.memories[0].length = <uint64_t> 1 << 62
        self.c.memories[0].valid = True
        self.c.memory_count = 1
        self.pins, self.delivers = pins, delivers
        self.inline_limit, self.operation_limit = inline_limit, operation_limit
        self.targets, self.listeners = [], []

    def __dealloc__(self):
        cdef uint32_t i, k
        for i in range(self.c.conn_count):
            for k in range(self.c.conns[i].count):
                free(self.c.conns[i].posts[(self.c.conns[i].first + k) % POSTS].copy)
            free(self.c.conns[i])

    def __enter__(self):
        global THE, _current
        self.earlier, self.earlier_clock = _current, clock.now
        _current, THE = self, &self.c
        clock.now = virtual_now
        return self

    def __exit__(self, *_):
        global THE, _current
        clock.now = self.earlier_clock
        _current = self.earlier
        THE = NULL

    @property
    def clock_ns(self):
        """What time it is here."""
        return self.c.clock_ns

    @property
    def posts(self):
        """How many were made."""
        return self.c.posted

    @property
    def complaint(self):
        """The first rule of the contract that was broken, or None."""
        return None if self.c.complaint == NULL else self.c.complaint.decode()
