"""A lane over one connected endpoint of libfabric: fi_endpoint(3), fi_cm(3)."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.errors import ConnectFailed
from rpmem.fabric.libfabric.failures cimport must
from rpmem.fabric.libfabric.fi cimport *
from rpmem.fabric.libfabric.ops cimport FI_OPS, context_t, fi_lane_t
from rpmem.fabric.libfabric.request cimport Request
from rpmem.wire.lane cimport (
    COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_SEND, COMPLETED_WRITE,
)

cdef enum:
    SCRATCH = 1 << 16            # for reads that have to go to registered memory
    LEAST_SCRATCH = 4096
    INLINE_LIMIT = 4096          # most bytes that are copied into a post
    FEW = 16                     # most operations under way over a peeking provider,
    FEW_BYTES = 1 << 14          # or bytes, before the last one
    WHOLE = 1 << 20              # most bytes of one operation over a byte stream;
    PIECE = 1 << 19              # longer ones go in pieces
    LONGEST = 1 << 30            # most bytes of one operation otherwise
    NUDGED = 16                  # after so many lanes, the connected ones send their requests

# Providers whose receiver looks at a header before taking it (MSG_PEEK). If a segment ends inside a
# header and the window is closed, TCP waits for space and the receiver for the rest, forever: so
# all operations under way have to fit into the smallest window.
PEEKING = frozenset({"sockets"})

# Providers whose target answers a WRITE by software, after copying it and everything before it into
# place: FI_DELIVERY_COMPLETE proves as much as a READ after it would.
DELIVERING = frozenset({"tcp"})


@cython.no_gc_clear  # its members are needed until it is closed
cdef class FabricLane(ConnectedLane):
    """One endpoint with its message buffers.

    Its parameters are explained in `rpmem.fabric.contract`.
    """

    def __cinit__(self, Domain domain not None, Queue queue not None, uint32_t index, tuple send,
                  tuple receive, Memory pool=None, Request request=None):
        cdef fi_info *info
        if request is not None:
            request.enter()
        info = domain.fabric.info if request is None else request.info
        self.born = fork_generation()
        self.domain = domain
        self.queue = queue
        self.pool = pool
        self.own = <fi_lane_t *> calloc(1, sizeof(fi_lane_t))
        if self.own == NULL:
            raise MemoryError("no memory for a lane")
        self.c = &self.own.base
        self.c.ops = &FI_OPS
        self.c.queue = &queue.c.base
        self.c.index = index
        self.limit(info)
        self.make_buffers(send, receive, request is not None)
        self.make_endpoint(info)
        if request is not None:
            request.leave()

    cdef int limit(self, fi_info *info) except -1:
        """Set the size limit of operations, and how many may be under way."""
        fabric = self.domain.fabric
        paces = bool(fabric.paces)
        self.c.operation_limit = min(info.ep_attr.max_msg_size,
                                     <size_t> WHOLE if paces else <size_t> LONGEST)
        self.c.piece = min(self.c.operation_limit,
                           <uint64_t> PIECE if paces else <uint64_t> -1)
        self.c.inline_limit = min(info.tx_attr.inject_size, <size_t> INLINE_LIMIT)
        self.c.needs_handles = bool(self.domain.fabric.info.domain_attr.mr_mode & FI_MR_LOCAL)
        self.c.delivers = fabric.provider in DELIVERING
        self.own.signal_every = max(<size_t> 2, min(info.tx_attr.size // 2, <size_t> 1 << 20))
        self.own.signal_bytes = <uint64_t> -1
        self.own.window = <uint32_t> -1
        if fabric.provider in PEEKING:
            self.own.signal_every = min(self.own.signal_every, <size_t> FEW)
            self.own.signal_bytes = FEW_BYTES
            self.own.window = 1
        return 0

    cdef int make_buffers(self, tuple send, tuple receive, bint passive) except -1:
        """Make message buffers and scratch, registered if needed, and contexts of completions."""
        cdef bint bounces = self.c.needs_handles and not passive
        cdef size_t total = self.lay_out(send, receive, SCRATCH if bounces else LEAST_SCRATCH)
        cdef Memory buffers
        cdef uint32_t slot
        self.own.received = <context_t *> calloc(self.c.receive_slots, sizeof(context_t))
        if self.own.received == NULL:
            raise MemoryError("no memory for a lane")
        if self.c.needs_handles:
            memset(self.area, 0, total)
            buffers = Memory(self.domain, <size_t> self.area, total)
            self.buffers = buffers
            self.c.send_handle = fi_mr_desc(buffers.mr)
            self.c.scratch_handle = self.c.send_handle
            if self.pool is not None:
                self.c.pool_handle = fi_mr_desc(self.pool.mr)
        self.own.sent.lane = self.own.wrote.lane = self.own.read.lane = self.c
        self.own.sent.kind = COMPLETED_SEND
        self.own.wrote.kind = COMPLETED_WRITE
        self.own.read.kind = COMPLETED_READ
        for slot in range(self.c.receive_slots):
            self.own.received[slot].lane = self.c
            self.own.received[slot].kind = COMPLETED_RECEIVE
            self.own.received[slot].slot = slot
        return 0

    cdef int make_endpoint(self, fi_info *info) except -1:
        """Make the endpoint, bound to the queue and to the fabric's events."""
        cdef Queue queue = self.queue
        cdef Domain domain = self.domain
        where = domain.fabric.provider
        must(fi_endpoint(domain.domain, info, &self.own.endpoint, NULL), "fi_endpoint", where)
        must(fi_ep_bind(self.own.endpoint, &domain.fabric.events.fid, 0), "fi_ep_bind", where)
        if queue.c.posts == queue.c.receives:
            must(fi_ep_bind(self.own.endpoint, &queue.c.posts.fid,
                            FI_TRANSMIT | FI_RECV | FI_SELECTIVE_COMPLETION), "fi_ep_bind", where)
        else:
            must(fi_ep_bind(self.own.endpoint, &queue.c.posts.fid,
                            FI_TRANSMIT | FI_SELECTIVE_COMPLETION), "fi_ep_bind", where)
            must(fi_ep_bind(self.own.endpoint, &queue.c.receives.fid, FI_RECV),
                 "fi_ep_bind", where)
        return must(fi_enable(self.own.endpoint), "fi_enable", where)

    def __dealloc__(self):
        self.close()
        if self.own != NULL:
            free(self.own.received)
            free(self.own)

    @property
    def key(self):
        """Identifies the endpoint in connection events."""
        return <uintptr_t> &self.own.endpoint.fid

    def aim(self, uint64_t address, uint64_t key, uint64_t size):
        """Set the memory that one-sided operations on this lane reach."""
        self.own.remote_address = address
        self.own.remote_key = key
        self.c.remote_size = size

    def connect(self, bytes data):
        """Start connecting, with `data` as proof; `Fabric.await_lanes` waits for it."""
        cdef const char *proof = data
        cdef size_t length = len(data)
        cdef int rc
        with nogil:
            rc = fi_connect(self.own.endpoint, self.domain.fabric.info.dest_addr, proof, length)
        must(rc, "fi_connect", self.domain.fabric.provider, ConnectFailed)
        self.domain.fabric.joining[self.key] = self
        if self.c.index % NUDGED == NUDGED - 1:
            self.domain.fabric.nudge()

    def hang_up(self):
        """Tell the other side that the lane has ended, from the thread that polls its queue."""
        if self.connected and self.own.endpoint != NULL:
            fi_shutdown(self.own.endpoint, 0)
            self.connected = False

    def accept(self):
        """Accept the request this lane was made for."""
        must(fi_accept(self.own.endpoint, NULL, 0), "fi_accept", self.domain.fabric.provider)
        self.domain.fabric.joining[self.key] = self

    cpdef close(self):
        """Disconnect and free the endpoint; the queue must not be polled meanwhile."""
        if is_copy(self.born) and self.own != NULL:
            self.own.endpoint = NULL
        if self.own != NULL and self.own.endpoint != NULL:
            self.domain.fabric.joining.pop(self.key, None)
            if self.connected:
                fi_shutdown(self.own.endpoint, 0)
            fi_close(&self.own.endpoint.fid)
            self.own.endpoint = NULL
        if self.own != NULL:
            self.ended()
