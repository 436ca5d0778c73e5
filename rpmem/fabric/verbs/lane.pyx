"""A lane over one queue pair, and how it is connected.

Queue pairs are made and moved from state to state here instead of by librdmacm, so that they can
belong to the user's protection domain.
"""

import errno as errno_numbers
import os
import time

cimport cython
from libc.errno cimport EINVAL, EOPNOTSUPP, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from rpmem.base.fork cimport is_copy
from rpmem.errors import ConnectFailed, DeadlineExceeded
from rpmem.fabric.verbs.failures cimport must
from rpmem.fabric.verbs.ibv cimport *
from rpmem.fabric.verbs.memory cimport Device
from rpmem.fabric.verbs.posts cimport verbs_ops
from rpmem.fabric.verbs.rdmacm cimport *
from rpmem.fabric.verbs.structs cimport CHAIN, PIECES

bind_libibverbs()
bind_librdmacm()

cdef enum:
    SCRATCH = 1 << 16             # the initiator's; a target reads nothing
    STAGE_MS = 5000               # for each step before the connection request
    SLACK_MS = 1000               # and for that to be reported
    PRIVATE_DATA = 56             # bytes in a connection request
    ACK_TIMEOUT = 16              # 4.096 us << 16: 0.27 s until a packet is sent again
    RETRIES = 7                   # so a silent peer is given up after about 2 s
    RNR_TIMER = 12                # 0.64 ms until a sender that found no buffer retries
    RNR_FOREVER = 7
    REJECTED_BY_CONSUMER = 28     # InfiniBand's number for "the other program said no"

# Devices do not report how much data a work request holds: the first size accepted is used.
INLINE_SIZES = (4096, 1024, 768, 512, 384, 256, 192, 128, 64, 32, 0)


@cython.no_gc_clear  # its members are needed until it is closed
cdef class FabricLane(ConnectedLane):
    """One queue pair with its message buffers.

    Its parameters are explained in `rpmem.fabric.contract`.
    """

    def __cinit__(self, Domain domain not None, Queue queue not None, uint32_t index, tuple send,
                  tuple receive, Memory pool=None, Request request=None):
        self.domain = domain
        self.fabric = domain.fabric
        self.queue = queue
        self.pool = pool
        self.own = <verbs_lane_t *> calloc(1, sizeof(verbs_lane_t))
        if self.own == NULL:
            raise MemoryError("no memory for a lane")
        self.c = &self.own.base
        self.c.ops = verbs_ops()
        self.c.index = index
        self.c.needs_handles = True
        try:
            self.prepare(send, receive, pool, request)
        except BaseException:
            self.close()
            raise

    cdef int prepare(self, tuple send, tuple receive, Memory pool, Request request) except -1:
        """Do everything that precedes asking for a connection or accepting one."""
        cdef uint32_t i
        for i in range(<uint32_t> CHAIN):
            self.own.chain[i].sg_list = &self.own.pieces[i * PIECES]
            self.own.chain[i].next = &self.own.chain[i + 1] if i + 1 < CHAIN else NULL
        self.make_buffers(send, receive, 0 if request is not None else SCRATCH)
        if pool is not None:
            self.c.pool_handle = pool.mr
        if request is None:
            self.make_id()
        else:
            self.passive = True
            self.own.id, request.id = request.id, NULL
            self.own.id.context = self.own
            self.reads = min(request.reads, self.domain.device.reads_in)
        self.fabric.joining[self.key] = self
        if not self.passive:
            self.resolve()
        name = self.domain.device.name
        if self.own.id.verbs == NULL or _name_of(<size_t> self.own.id.verbs) != name:
            raise ConnectFailed(
                f"lane {self.index} would have to use another RDMA device than {name}",
                where=self.fabric.host, errno=errno_numbers.EXDEV)
        self.c.operation_limit = min(self.domain.device.message_limit(self.own.id.port_num),
                                     <uint64_t> 1 << 30)
        self.c.piece = self.c.operation_limit
        self.make_pair()
        self.move(IBV_QPS_INIT)
        return 0

    cdef int make_buffers(self, tuple send, tuple receive, uint32_t scratch) except -1:
        """Make and register the message buffers and the scratch memory."""
        cdef size_t total = self.lay_out(send, receive, scratch)
        cdef Memory buffers
        memset(self.area, 0, total)
        buffers = Memory(self.domain, <size_t> self.area, total)
        self.buffers = buffers
        self.c.send_handle = self.c.scratch_handle = buffers.mr
        return 0

    cdef int make_id(self) except -1:
        cdef uint8_t timeout = ACK_TIMEOUT
        must(rdma_create_id(self.fabric.events, &self.own.id, self.own, RDMA_PS_TCP),
             "rdma_create_id", "verbs")
        # Unknown to kernels before 5.2; there a silent peer is noticed later.
        rdma_set_option(self.own.id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, 1)
        return 0

    cdef int resolve(self) except -1:
        """Find the route to the target, each step within a time limit."""
        cdef char *raw = self.fabric.peer
        must(rdma_resolve_addr(self.own.id, NULL, <sockaddr *> raw, STAGE_MS),
             "rdma_resolve_addr", self.fabric.host, ConnectFailed)
        self.await_stage(STAGE_ADDRESS, STAGE_MS + SLACK_MS)
        must(rdma_resolve_route(self.own.id, STAGE_MS), "rdma_resolve_route", self.fabric.host,
             ConnectFailed)
        return self.await_stage(STAGE_ROUTE, STAGE_MS + SLACK_MS)

    cdef int make_pair(self) except -1:
        """Make the queue pair, with the largest inline data that the device allows."""
        cdef Device device = self.domain.device
        cdef uint32_t depth = self.fabric.queue_size
        cdef int problem = 0
        self.own.depth = depth
        self.own.signal_every = max(1, depth // 4)
        self.queue.enter(self.own, depth + self.c.receive_slots)
        for direct in (True, False):
            for size in INLINE_SIZES if device.inline_size < 0 else (device.inline_size,):
                problem = self.try_pair(size, direct)
                if problem == 0:
                    return 0
                if problem == EOPNOTSUPP:
                    break
        return must(problem, "ibv_create_qp_ex", device.name)

    cdef int try_pair(self, int inline_size, bint direct) noexcept:
        """Try to make it; return 0 or the errno of the refusal."""
        cdef ibv_qp_init_attr_ex wanted
        cdef Device device = self.domain.device
        memset(&wanted, 0, sizeof(wanted))
        wanted.qp_type = IBV_QPT_RC
        wanted.send_cq = wanted.recv_cq = self.queue.c.cq
        wanted.cap.max_send_wr = self.own.depth
        wanted.cap.max_recv_wr = self.c.receive_slots
        wanted.cap.max_send_sge = PIECES
        wanted.cap.max_recv_sge = 1
        wanted.cap.max_inline_data = inline_size
        wanted.comp_mask = IBV_QP_INIT_ATTR_PD
        wanted.pd = self.domain.pd
        if direct:
            wanted.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS
            wanted.send_ops_flags = (IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_READ
                                     | IBV_QP_EX_WITH_SEND)
            if device.flushes:
                wanted.send_ops_flags |= PLACEMENT_OPERATIONS
        self.own.pair = ibv_create_qp_ex(device.context, &wanted)
        if self.own.pair == NULL:
            return errno or EINVAL
        device.inline_size = inline_size
        self.c.inline_limit = max(inline_size, <int> wanted.cap.max_inline_data)
        self.own.direct = ibv_qp_to_qp_ex(self.own.pair) if direct else NULL
        return 0

    cdef int move(self, int state) except -1:
        """Move the queue pair into its next state, with the connection's parameters."""
        cdef ibv_qp_attr wanted
        cdef int mask = 0
        where = self.domain.device.name
        memset(&wanted, 0, sizeof(wanted))
        wanted.qp_state = state
        must(rdma_init_qp_attr(self.own.id, &wanted, &mask), "rdma_init_qp_attr", where)
        if mask & IBV_QP_ACCESS_FLAGS:
            # The initiator gives no peer access to its memory.
            wanted.qp_access_flags = 0
            if self.passive:
                wanted.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ
                if self.domain.device.flushes:
                    wanted.qp_access_flags |= PLACEMENT_ACCESS
        if self.passive and mask & IBV_QP_MAX_DEST_RD_ATOMIC:
            wanted.max_dest_rd_atomic = <uint8_t> self.reads
        if mask & IBV_QP_MIN_RNR_TIMER:
            wanted.min_rnr_timer = RNR_TIMER
        must(ibv_modify_qp(self.own.pair, &wanted, mask), "ibv_modify_qp", where)
        return 0

    cdef int await_stage(self, stage_t wanted, int milliseconds) except -1:
        deadline = time.monotonic() + milliseconds / 1000
        while self.stage < wanted:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"no route was found for lane {self.index}",
                                       where=self.fabric.host)
            self.fabric.turn(left)
        if self.problem is not None:
            raise self.problem
        return 0

    def _on_event(self, int kind, int status):
        """Process an event of a lane that is not yet connected."""
        if kind == RDMA_CM_EVENT_ADDR_RESOLVED:
            self.stage = STAGE_ADDRESS
        elif kind == RDMA_CM_EVENT_ROUTE_RESOLVED:
            self.stage = STAGE_ROUTE
        elif kind == RDMA_CM_EVENT_CONNECT_RESPONSE:
            self.move(IBV_QPS_RTR)
            self.move(IBV_QPS_RTS)
            must(rdma_establish(self.own.id), "rdma_establish", self.fabric.host, ConnectFailed)
            self.join()
        elif kind == RDMA_CM_EVENT_ESTABLISHED:
            self.join()
        elif kind != RDMA_CM_EVENT_ADDR_CHANGE:
            self.stage = STAGE_FAILED
            self.problem = _failure(kind, status, self.index, self.fabric.host)
            self.fabric.joining.pop(self.key, None)

    cdef int join(self) except -1:
        """Connected: from now on events go to the thread that polls the queue."""
        self.fabric.joining.pop(self.key, None)
        must(rdma_migrate_id(self.own.id, self.queue.c.events), "rdma_migrate_id",
             self.fabric.host)
        self.stage = STAGE_CONNECTED
        self.connected = True
        return 0

    def __dealloc__(self):
        self.close()
        free(self.own)

    @property
    def key(self):
        """Identifies the lane in connection events."""
        return <uintptr_t> self.own.id

    @property
    def counts(self):
        """``(work requests, doorbells)`` so far."""
        return (self.own.requests, self.own.doorbells)

    @property
    def inline_limit(self):
        """Most bytes that fit into a work request itself."""
        return self.c.inline_limit

    def aim(self, uint64_t address, uint64_t key, uint64_t size):
        """Set the memory that one-sided operations on this lane reach."""
        self.own.remote_address = address
        self.own.remote_key = <uint32_t> key
        self.c.remote_size = size

    def connect(self, bytes data):
        """Ask for the connection, with `data` as proof; `Fabric.await_lanes` waits for it."""
        cdef rdma_conn_param wanted
        cdef const char *proof = data
        if len(data) > PRIVATE_DATA:
            raise ConnectFailed(f"a request carries {PRIVATE_DATA} bytes, not {len(data)}")
        memset(&wanted, 0, sizeof(wanted))
        wanted.private_data = proof
        wanted.private_data_len = <uint8_t> len(data)
        wanted.initiator_depth = <uint8_t> self.domain.device.reads_out
        wanted.retry_count = RETRIES
        wanted.rnr_retry_count = RNR_FOREVER
        wanted.qp_num = self.own.pair.qp_num
        must(rdma_connect(self.own.id, &wanted), "rdma_connect", self.fabric.host, ConnectFailed)
        self.stage = STAGE_ASKING

    def accept(self):
        """Accept the request this lane was made for."""
        cdef rdma_conn_param wanted
        cdef uint8_t timeout = ACK_TIMEOUT
        rdma_set_option(self.own.id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, 1)
        self.move(IBV_QPS_RTR)
        self.move(IBV_QPS_RTS)
        memset(&wanted, 0, sizeof(wanted))
        wanted.responder_resources = <uint8_t> self.reads
        wanted.rnr_retry_count = RNR_FOREVER
        wanted.qp_num = self.own.pair.qp_num
        must(rdma_accept(self.own.id, &wanted), "rdma_accept", self.fabric.host, ConnectFailed)
        self.stage = STAGE_ASKING

    def hang_up(self):
        """Tell the other side that the lane has ended, from the thread that polls its queue."""
        if self.connected and self.own.id != NULL:
            rdma_disconnect(self.own.id)
            self.connected = False

    cpdef close(self):
        """Disconnect and free the queue pair; the queue must not be polled meanwhile."""
        if self.own == NULL:
            return
        if is_copy(self.domain.device.born):
            self.own.id = NULL
            self.own.pair = NULL
        if self.own.id != NULL:
            self.fabric.joining.pop(self.key, None)
            self.hang_up()
        self.queue.leave(self.own)
        if self.own.pair != NULL:
            ibv_destroy_qp(self.own.pair)
            self.own.pair = NULL
        if self.own.id != NULL:
            rdma_destroy_id(self.own.id)
            self.own.id = NULL
        self.ended()


def _name_of(size_t context):
    return ibv_get_device_name((<ibv_context *> context).device).decode()


def _failure(int kind, int status, index, host):
    """The error for a connection event that means failure."""
    if kind == RDMA_CM_EVENT_REJECTED:
        if status == REJECTED_BY_CONSUMER:
            text = f"the target refused lane {index}"
        elif status < 0:
            # iWARP does not tell the two apart.
            text = f"the target refused lane {index}, or nobody listens there"
        else:
            text = f"nobody listens for lane {index} there (reason {status})"
        return ConnectFailed(text, where=host)
    number = abs(status) or errno_numbers.ECONNRESET
    if kind == RDMA_CM_EVENT_UNREACHABLE:
        return ConnectFailed(f"lane {index} got no answer", where=host, errno=number,
                             hint="is UDP port 4791 (RoCE) open between the two hosts?")
    if kind == RDMA_CM_EVENT_DISCONNECTED:
        return ConnectFailed("the target hung up while lanes were being connected", where=host,
                             errno=number)
    what = rdma_event_str(kind).decode()
    return ConnectFailed(f"lane {index} was not connected: {what}, {os.strerror(number)}",
                         where=host, errno=number)
