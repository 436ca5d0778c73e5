"""The lanes of one replica, as the engine uses them."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from rpmem.engine.engine cimport group_fail
from rpmem.memory.region cimport Region
from rpmem.steps.native cimport link_prepare, step_named
from rpmem.steps.pmdk cimport pmdk_step_named
from rpmem.steps.step cimport limits_t, link_t
from rpmem.wire.lane cimport Lane, lane_t

from rpmem.base.handles import refuse_copy

cdef enum:
    COPY_LIMIT = 2048      # a last range up to this size is copied, not gathered
    PUT_LIMIT = 16384      # a relaxed range up to this size is faster in a message
    ROOM_BESIDE_DATA = 64  # bytes of a message beyond data up to `put_limit`


cdef void fit_lane(limits_t *limits, const lane_t *lane, bint native) noexcept:
    """Lower the limits of a session to those of a lane."""
    limits.message_size = min(limits.message_size, lane.send_size)
    limits.window = min(limits.window, lane.send_slots)
    if not native:
        return
    limits.put_limit = min(limits.put_limit, <uint64_t> limits.message_size - ROOM_BESIDE_DATA)
    if lane.needs_handles and lane.pool_handle == NULL:
        # Memory that is not registered cannot be posted: all data is copied.
        limits.copy_limit = <uint32_t> -1
        limits.put_limit = <uint64_t> -1
    if limits.staging:
        limits.put_limit = <uint64_t> -1


cdef class LaneGroup:
    """The connected lanes of one replica, and the step that makes its bytes durable.

    Parameters
    ----------
    lanes : list of Lane
        Connected lanes; kept alive by the group.
    step : str
        ``"send-after-write"``, ``"read-after-write"``, ``"commit"`` or ``"flush"``.
    pool : Region
        The local memory; its offset 0 is the pool's.
    message_size, window : int
        The limits granted by the target: bytes of a message, unanswered messages.
    remote_base : int
        The address of the pool on the target, if messages contain it.
    dialect : {"native", "pmdk"}
        The in-band protocol.
    put_limit, put_most : int, optional
        Relaxed ranges up to `put_limit`, and those longer than `put_most`, travel inside messages.
    staging : int
        Bytes of the buffer that one-sided operations reach instead of the pool; 0: the pool.
    owner : object
        Has ``explain(fault, refusal, detail)``, which turns a fault into an RpmemError.
    """

    def __cinit__(self, list lanes, str step, Region pool not None, *, uint32_t message_size,
                  uint32_t window, object owner, object put_limit=None, object put_most=None,
                  uint64_t remote_base=0, str dialect="native", uint64_t staging=0):
        cdef bint native = dialect == "native"
        cdef limits_t limits
        cdef Lane lane
        cdef link_t *link
        self.lanes = list(lanes)
        self.kept = []
        self.owner = owner
        self.step = step
        self.c.links = <link_t *> calloc(len(lanes), sizeof(link_t))
        if self.c.links == NULL:
            raise MemoryError("no memory for the lanes")
        limits.message_size = message_size
        limits.window = window
        limits.copy_limit = COPY_LIMIT
        limits.put_limit = <uint64_t> PUT_LIMIT if put_limit is None else <uint64_t> put_limit
        limits.put_most = <uint64_t> -1 if put_most is None else <uint64_t> put_most
        limits.staging = staging
        for each in self.lanes:
            lane = <Lane?> each
            link = &self.c.links[self.c.lanes]
            link.lane = lane.c
            link.step = step_named(step, lane.c) if native else pmdk_step_named(step)
            link.remote_base = remote_base
            link.pool = pool.base
            link.pool_size = pool.size
            link.limits = limits
            fit_lane(&link.limits, lane.c, native)
            if link_prepare(link) < 0:
                raise owner.explain(lane.c.state, lane.c.refusal, lane.c.detail)
            self.c.lanes += 1

    def __dealloc__(self):
        free(self.c.links)

    def __len__(self):
        return self.c.lanes

    def __reduce__(self):
        refuse_copy(self, "It belongs to one session.")

    def abort(self):
        """Mark the replica as lost; every waiter returns immediately with its error."""
        group_fail(&self.c, NULL)

    @property
    def failed(self):
        """Whether the replica is lost."""
        return self.c.failed != 0

    def close(self):
        """Disconnect all lanes. No call may be in progress."""
        cdef Lane lane
        group_fail(&self.c, NULL)
        for lane in self.lanes:
            lane.close()
        for _, memory in self.kept:
            if memory is not None:
                memory.close()
        self.kept.clear()
