"""A completion queue of an RDMA device, with all events that wake a thread sleeping on it."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from posix cimport unistd
from posix.fcntl cimport F_GETFL, F_SETFL, O_NONBLOCK, fcntl

from rpmem.base.fork cimport is_copy
from rpmem.errors import FabricFailure
from rpmem.fabric.verbs.failures cimport must
from rpmem.fabric.verbs.ibv cimport *
from rpmem.fabric.verbs.memory cimport Domain
from rpmem.fabric.verbs.posts cimport verbs_ops
from rpmem.fabric.verbs.rdmacm cimport *
from rpmem.fabric.verbs.structs cimport SLOT_SHIFT, verbs_lane_t

bind_libibverbs()
bind_librdmacm()

cdef extern from "<sys/eventfd.h>" nogil:
    enum: EFD_NONBLOCK
    enum: EFD_CLOEXEC
    int eventfd(unsigned int value, int flags)

cdef enum:
    FIRST_CAPACITY = 256


@cython.no_gc_clear  # its members are needed until it is closed
cdef class Queue:
    """Receives completions: one per lane (initiator), one per service thread (target).

    It holds `size` completions, and grows with the lanes that use it. `answers` makes no
    difference: all completions arrive in one place.
    """

    def __cinit__(self, Domain domain not None, size_t size=0, *, bint answers=True):
        cdef unsigned int vector = 0
        where = domain.device.name
        self.c.bell = -1
        self.c.base.ops = verbs_ops()
        self.c.base.spins = True
        self.domain = domain
        self.capacity = min(<int> max(size, <size_t> FIRST_CAPACITY),
                            domain.device.completion_limit)
        vector = domain.device.vector % max(1, domain.device.context.num_comp_vectors)
        domain.device.vector += 1
        self.c.channel = ibv_create_comp_channel(domain.device.context)
        must(-1 if self.c.channel == NULL else 0, "ibv_create_comp_channel", where)
        self.c.cq = ibv_create_cq(domain.device.context, <int> self.capacity, NULL,
                                  self.c.channel, <int> vector)
        must(-1 if self.c.cq == NULL else 0, "ibv_create_cq", where)
        self.capacity = <uint32_t> self.c.cq.cqe
        self.c.events = rdma_create_event_channel()
        must(-1 if self.c.events == NULL else 0, "rdma_create_event_channel", where)
        self.c.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        must(-1 if self.c.bell < 0 else 0, "eventfd", where)
        for descriptor in (self.c.channel.fd, self.c.events.fd):
            must(-1 if fcntl(descriptor, F_SETFL,
                             fcntl(descriptor, F_GETFL) | O_NONBLOCK) < 0 else 0, "fcntl", where)

    def __dealloc__(self):
        self.close()

    cdef int enter(self, verbs_lane_t *lane, uint32_t completions) except -1:
        """Make room for as many completions as a lane may have, and give it a slot."""
        cdef verbs_lane_t **lanes
        cdef uint32_t slot = self.c.slots
        if self.reserved + completions > self.capacity:
            must(ibv_resize_cq(self.c.cq, <int> (self.reserved + completions)),
                 "ibv_resize_cq", self.domain.device.name)
            self.capacity = <uint32_t> self.c.cq.cqe
        if slot >> 16:
            raise FabricFailure("a queue cannot serve more than 65536 lanes")
        # Slots are not reused: completions that a lane leaves in the queue bear its number.
        lanes = <verbs_lane_t **> realloc(self.c.lanes, (slot + 1) * sizeof(verbs_lane_t *))
        if lanes == NULL:
            raise MemoryError("no memory for a lane")
        self.c.lanes = lanes
        self.c.lanes[slot] = lane
        self.c.slots += 1
        self.reserved += completions
        lane.tag = <uint64_t> slot << SLOT_SHIFT
        lane.base.queue = &self.c.base
        return 0

    cdef int leave(self, verbs_lane_t *lane) noexcept:
        """Forget a lane; its completions still in the queue are ignored."""
        cdef uint32_t slot
        for slot in range(self.c.slots):
            if self.c.lanes[slot] == lane:
                self.c.lanes[slot] = NULL
        return 0

    cpdef close(self):
        """Free the queue; its lanes must be closed first."""
        if self.domain is not None and is_copy(self.domain.device.born):
            self.c.cq = NULL
            self.c.channel = NULL
            self.c.events = NULL
        if self.c.cq != NULL:
            ibv_destroy_cq(self.c.cq)
            self.c.cq = NULL
        if self.c.channel != NULL:
            ibv_destroy_comp_channel(self.c.channel)
            self.c.channel = NULL
        if self.c.events != NULL:
            rdma_destroy_event_channel(self.c.events)
            self.c.events = NULL
        if self.c.bell >= 0:
            unistd.close(self.c.bell)
            self.c.bell = -1
        free(self.c.lanes)
        self.c.lanes = NULL
        self.c.slots = 0
