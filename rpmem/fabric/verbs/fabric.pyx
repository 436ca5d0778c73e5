"""Connecting verbs lanes over RDMA-CM: the fabric `verbs`.

Connections are made by the calling thread, which waits for the events of one channel with a
time-out at each step; a lane that is connected moves to its queue's own channel, where whoever
polls the queue hears of its end.  Queue pairs are made and moved from state to state here
and not by librdmacm, so that they can belong to a protection domain of the user's own.
"""

import errno as errno_numbers
import os
import socket
import struct
import time

cimport cython
from libc.errno cimport EAGAIN, EINVAL, EOPNOTSUPP, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.fcntl cimport F_GETFL, F_SETFL, O_NONBLOCK, fcntl
from posix.stdlib cimport posix_memalign

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.fabric.verbs.ibv cimport *
from rpmem.wire.lane cimport LANE_LOST, LANE_UP, Lane
from rpmem.fabric.verbs.rdmacm cimport *
from rpmem.fabric.verbs.memory cimport Device, Domain, Memory, must
from rpmem.fabric.verbs.queue cimport CHAIN, PIECES, Queue, verbs_lane_t, verbs_ops

from rpmem.errors import (
    ConnectFailed, DeadlineExceeded, FabricFailure, ProviderUnavailable,
)

cdef extern from "<poll.h>" nogil:
    enum: POLLIN
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd *descriptors, unsigned long count, int timeout)

cdef enum:
    PAGE = 4096
    SCRATCH = 1 << 16             # the initiator's; a target reads nothing
    RESOLVE = 5000                # ms for each step until a connection can be asked for
    BACKLOG = 128
    PRIVATE_DATA = 56             # what a connection request carries
    INITIATOR_DEPTH = 128         # work requests in a send queue
    TARGET_DEPTH = 64
    LEAST_DEPTH = 2
    MOST_DEPTH = 4096             # more on its way brings nothing, and costs memory
    COMPLETIONS_EACH = 96         # of a target's lane, when all of them wait to be taken
    ACK_TIMEOUT = 16              # 4.096 us << 16: 0.27 s until a packet is sent again
    RETRIES = 7                   # so a silent peer is given up after some 2 s
    RNR_TIMER = 12                # 0.64 ms until a sender tries again that found no buffer
    RNR_FOREVER = 7
    REJECTED_BY_CONSUMER = 28     # InfiniBand's number for "the other program said no"

# Devices do not say how much data a work request holds: the first size that is taken is it.
INLINE_SIZES = (4096, 1024, 768, 512, 384, 256, 192, 128, 64, 32, 0)


# --- addresses -------------------------------------------------------------------------------

def _sockaddrs(host, port):
    """Every address of `host`, as the kernel wants them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ProviderUnavailable(f"{host} is no address: {error}", where="verbs") from error
    result = []
    for family, _, _, _, address in found:
        packed = socket.inet_pton(family, address[0].partition("%")[0])
        start = struct.pack("=H", family) + struct.pack("!H", address[1])
        if family == socket.AF_INET:
            result.append(start + packed + bytes(8))
        elif family == socket.AF_INET6:
            result.append(start + struct.pack("!I", address[2]) + packed
                          + struct.pack("=I", address[3]))
    return list(dict.fromkeys(result))


def _is_loopback(sockaddr):
    if len(sockaddr) == 16:
        return sockaddr[4] == 127
    return sockaddr[8:24] == socket.inet_pton(socket.AF_INET6, "::1")


def _own_addresses():
    """Internet addresses that this machine's RDMA ports have, the same at each call."""
    top = "/sys/class/infiniband"
    found = []
    for device in sorted(os.listdir(top)) if os.path.isdir(top) else ():
        ports = os.path.join(top, device, "ports")
        for port in sorted(os.listdir(ports)):
            for index in sorted(map(int, os.listdir(os.path.join(ports, port, "gids")))):
                try:
                    with open(os.path.join(ports, port, "gids", str(index))) as file:
                        gid = bytes.fromhex(file.read().strip().replace(":", ""))
                except OSError:
                    break  # the rest of the table is empty
                if gid[:12] == bytes(10) + b"\xff\xff":
                    found.append(socket.inet_ntop(socket.AF_INET, gid[12:]))
                elif not any(gid):
                    break
    return list(dict.fromkeys(found))


cdef tuple address_of(const sockaddr *address):
    """(host, port) of a sockaddr; ("", 0) when it is of no known family."""
    if address.sa_family == socket.AF_INET:
        raw = (<const char *> address)[:16]
        return (socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big"))
    if address.sa_family == socket.AF_INET6:
        raw = (<const char *> address)[:28]
        return (socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big"))
    return ("", 0)


# --- the fabric ------------------------------------------------------------------------------

@cython.no_gc_clear  # lanes that are let go of take themselves off its list
cdef class Fabric:
    """The RDMA device that leads to an address, or has it.

    Parameters
    ----------
    provider : str
        ``"verbs"``.
    host, port : str, int
        What lanes connect to (initiator), or with `listen` the address to listen on.
    listen : bool
        This is the target's side.
    queue_size : int
        Work requests a lane may have under way, as far as the device allows; 0 chooses.
    shared : SharedDomain, optional
        The user's own protection domain, see `rpmem.fabric.verbs.pyverbs_objects`.

    Raises
    ------
    ProviderUnavailable
        No RDMA device leads to the address.

    Notes
    -----
    Loopback addresses belong to no RDMA device; the machine's first RDMA address is taken in
    their place, by both sides alike.
    """

    def __cinit__(self, str provider, str host, int port=0, *, bint listen=False,
                  size_t queue_size=0, object shared=None):
        self.born = fork_generation()
        self.provider = provider
        self.host = host
        self.joining = {}
        self.shared = shared
        queue_size = queue_size or <size_t> (TARGET_DEPTH if listen else INITIATOR_DEPTH)
        self.depth = <uint32_t> min(max(queue_size, <size_t> LEAST_DEPTH), <size_t> MOST_DEPTH)
        self.events = rdma_create_event_channel()
        must(-1 if self.events == NULL else 0, "there is no RDMA here", provider,
             ProviderUnavailable)
        must(-1 if fcntl(self.events.fd, F_SETFL,
                         fcntl(self.events.fd, F_GETFL) | O_NONBLOCK) < 0 else 0, "fcntl")
        addresses = _sockaddrs(host, port)
        if any(map(_is_loopback, addresses)):
            addresses = [address for own in _own_addresses()
                         for address in _sockaddrs(own, port)] + addresses
        problem = None
        for address in addresses:
            try:
                if listen:
                    self.bind(address)
                else:
                    self.reach(address)
                return
            except (FabricFailure, DeadlineExceeded) as error:
                problem = error
        number = problem.errno if problem is not None else errno_numbers.ENODEV
        which = "no RDMA device here" if shared is None else "not the given RDMA device"
        raise ProviderUnavailable(
            f"{which} leads to {host}: {os.strerror(number)}", where=provider,
            errno=number, hint="`rpmem check` and `rdma link` show this machine's RDMA devices")

    cdef int bind(self, bytes address) except -1:
        """Take `address` for listening; finds the device that has it."""
        cdef rdma_cm_id *id = NULL
        cdef char *raw = address
        must(rdma_create_id(self.events, &id, NULL, RDMA_PS_TCP), "rdma_create_id", "verbs")
        try:
            must(rdma_bind_addr(id, <sockaddr *> raw), "rdma_bind_addr", self.host)
            if id.verbs == NULL:
                raise FabricFailure("this address belongs to no single RDMA device",
                                    where=self.host, errno=errno_numbers.ENODEV)
            self.device = self.open(<size_t> id.verbs.device)
        except BaseException:
            rdma_destroy_id(id)
            raise
        self.bound = id
        return 0

    cdef int reach(self, bytes address) except -1:
        """Find the device that leads to `address`."""
        cdef rdma_cm_id *id = NULL
        cdef rdma_cm_event *event = NULL
        cdef char *raw = address
        cdef int rc
        must(rdma_create_id(self.events, &id, NULL, RDMA_PS_TCP), "rdma_create_id", "verbs")
        try:
            must(rdma_resolve_addr(id, NULL, <sockaddr *> raw, RESOLVE), "rdma_resolve_addr",
                 self.host)
            if not self.readable(RESOLVE + 1000):
                raise DeadlineExceeded(f"{self.host} was not resolved")
            must(rdma_get_cm_event(self.events, &event), "rdma_get_cm_event", self.host)
            rc = 0 if event.event == RDMA_CM_EVENT_ADDR_RESOLVED else abs(event.status) or EINVAL
            rdma_ack_cm_event(event)
            must(rc, "rdma_resolve_addr", self.host)
            self.device = self.open(<size_t> id.verbs.device)
            self.peer = address
        finally:
            rdma_destroy_id(id)
        return 0

    def open(self, size_t device):
        """The device, as the user opened it or opened for this session."""
        if self.shared is None:
            return Device.open(<ibv_device *> device)
        name = ibv_get_device_name(<ibv_device *> device).decode()
        if name != self.shared.device.name:
            raise FabricFailure(f"the way there is by {name}, not by {self.shared.device.name}",
                                where=self.host, errno=errno_numbers.EXDEV)
        return self.shared.device

    def readable(self, int milliseconds):
        """Wait until an event can be taken."""
        cdef pollfd descriptor
        cdef int n
        descriptor.fd = self.events.fd
        descriptor.events = POLLIN
        descriptor.revents = 0
        with nogil:
            n = c_poll(&descriptor, 1, milliseconds)
        return n > 0

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free everything.  Lanes and domains must be closed before."""
        if is_copy(self.born):
            self.bound = NULL
            self.events = NULL
        if self.bound != NULL:
            rdma_destroy_id(self.bound)
            self.bound = NULL
        if self.events != NULL:
            rdma_destroy_event_channel(self.events)
            self.events = NULL
        self.device = None

    @property
    def pins(self):
        """Registering memory pins it: it is registered once per session."""
        return True

    @property
    def paces(self):
        """A message needs a receive buffer that is there: the device does not wait for one."""
        return False

    @property
    def commits(self):
        """There is no commit-complete: RDMA FLUSH does the same as a step of its own."""
        return False

    @property
    def flushes(self):
        """Whether persistent RDMA FLUSH and ATOMIC WRITE can be posted here."""
        return bool(self.device.flushes)

    @property
    def lane_limit(self):
        """The most lanes a session can have."""
        return max(1, min(self.device.pair_limit, self.device.completion_limit // COMPLETIONS_EACH))

    @property
    def queue_size(self):
        """Work requests a lane may have under way; all of them may complete at once."""
        cdef int limit = min(self.device.queue_limit, <int> MOST_DEPTH)
        limit = min(limit, self.device.completion_limit - <int> COMPLETIONS_EACH)
        return min(self.depth, <uint32_t> max(limit, <int> LEAST_DEPTH))

    @property
    def description(self):
        """What the device reported, for diagnostics."""
        return {
            "provider": self.provider,
            "domain": self.device.name,
            "queue_size": self.queue_size,
            "flushes": bool(self.device.flushes),
            "on_demand": bool(self.device.on_demand),
            "lane_limit": self.lane_limit,
        }

    cdef object turn(self, double timeout):
        """Wait for one event: a Request, the lane it was about, or None."""
        cdef rdma_cm_event *event = NULL
        cdef rdma_cm_id *id
        cdef int kind, status
        cdef Request request = None
        cdef FabricLane lane
        if not self.readable(max(0, min(<int> (timeout * 1000), 600000))):
            return None
        if rdma_get_cm_event(self.events, &event):
            if errno == EAGAIN:
                return None
            must(-1, "rdma_get_cm_event", self.provider)
        id, kind, status = event.id, event.event, event.status
        if kind == RDMA_CM_EVENT_CONNECT_REQUEST:
            request = Request.__new__(Request)
            request.id = id
            request.born = self.born
            request.reads = event.param.conn.responder_resources
            request.data = b""
            if event.param.conn.private_data != NULL:
                request.data = (<const char *> event.param.conn.private_data
                                )[:event.param.conn.private_data_len]
        rdma_ack_cm_event(event)
        if request is not None:
            id.context = NULL
            request.peer = address_of(rdma_get_peer_addr(id))
            return request
        lane = self.joining.get(<uintptr_t> id)
        if lane is not None:
            lane.on_event(kind, status)
        return lane

    def await_lanes(self, list lanes, double timeout, object check=None):
        """Wait until every lane of `lanes` is connected.

        `check` is called now and then meanwhile, and may raise to end the wait.

        Raises
        ------
        ConnectFailed
            When the target refused one or hung up.
        DeadlineExceeded
            When it did not answer within `timeout` seconds.
        """
        cdef FabricLane lane
        deadline = time.monotonic() + timeout
        while True:
            waiting = 0
            for lane in lanes:
                if lane.problem is not None:
                    raise lane.problem
                if not lane.connected:
                    waiting += 1
            if not waiting:
                return
            if check is not None:
                check()
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(
                    f"{waiting} of {len(lanes)} lanes were not accepted in {timeout:g} s",
                    where=self.host,
                    hint="is UDP port 4791 (RoCE) open between the two hosts?")
            self.turn(min(left, 0.05))


# --- lanes -----------------------------------------------------------------------------------

@cython.no_gc_clear  # what it refers to is needed until it is closed
cdef class FabricLane(Lane):
    """One queue pair with its message buffers.

    Parameters
    ----------
    domain : Domain
    queue : Queue
    index : int
        The lane's number.
    send, receive : tuple of int
        Number and size of the buffers.
    pool : Memory, optional
        Registration of the local pool in the same domain.
    request : Request, optional
        The connection request this lane answers (target's side).
    """

    def __cinit__(self, Domain domain, Queue queue, uint32_t index, tuple send, tuple receive,
                  Memory pool=None, Request request=None):
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
        """All that is done before a connection is asked for, or accepted."""
        cdef uint32_t i
        for i in range(<uint32_t> CHAIN):
            self.own.chain[i].sg_list = &self.own.pieces[i * PIECES]
            self.own.chain[i].next = &self.own.chain[i + 1] if i + 1 < CHAIN else NULL
        self.make_area(send, receive, 0 if request is not None else SCRATCH)
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

    cdef int make_area(self, tuple send, tuple receive, uint32_t scratch) except -1:
        """Message buffers and the scratch memory, registered."""
        cdef size_t total
        cdef void *area = NULL
        self.c.send_slots, self.c.send_size = send
        self.c.receive_slots, self.c.receive_size = receive
        total = (<size_t> self.c.send_slots * self.c.send_size
                 + <size_t> self.c.receive_slots * self.c.receive_size + scratch)
        if posix_memalign(&area, PAGE, total):
            raise MemoryError(f"no memory for a lane's {total} bytes of message buffers")
        self.area = <char *> area
        memset(area, 0, total)
        self.buffers = Memory(self.domain, <size_t> area, total)
        self.c.send_area = self.area
        self.c.receive_area = self.area + <size_t> self.c.send_slots * self.c.send_size
        self.c.scratch = self.area + total - scratch
        self.c.scratch_size = scratch
        self.c.send_handle = self.c.scratch_handle = self.buffers.mr
        return 0

    cdef int make_id(self) except -1:
        cdef uint8_t timeout = ACK_TIMEOUT
        must(rdma_create_id(self.fabric.events, &self.own.id, self.own, RDMA_PS_TCP),
             "rdma_create_id", "verbs")
        # Kernels before 5.2 do not know it; then it takes longer to find a peer silent.
        rdma_set_option(self.own.id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, 1)
        return 0

    def resolve(self):
        """Find the way to the target; each step in bounded time."""
        cdef char *raw = self.fabric.peer
        must(rdma_resolve_addr(self.own.id, NULL, <sockaddr *> raw, RESOLVE),
             "rdma_resolve_addr", self.fabric.host, ConnectFailed)
        self.await_stage(STAGE_ADDRESS, RESOLVE + 1000)
        must(rdma_resolve_route(self.own.id, RESOLVE), "rdma_resolve_route", self.fabric.host,
             ConnectFailed)
        self.await_stage(STAGE_ROUTE, RESOLVE + 1000)

    cdef int make_pair(self) except -1:
        """The queue pair, with the device's largest inline data."""
        cdef ibv_qp_init_attr_ex wanted
        cdef Device device = self.domain.device
        cdef uint32_t depth = self.fabric.queue_size
        cdef int problem = 0
        self.own.depth = depth
        self.own.signal_every = max(1, depth // 4)
        self.queue.enter(self.own, depth + self.c.receive_slots)
        for direct in (True, False):
            for size in INLINE_SIZES if device.inline_size < 0 else (device.inline_size,):
                memset(&wanted, 0, sizeof(wanted))
                wanted.qp_type = IBV_QPT_RC
                wanted.send_cq = wanted.recv_cq = self.queue.c.cq
                wanted.cap.max_send_wr = depth
                wanted.cap.max_recv_wr = self.c.receive_slots
                wanted.cap.max_send_sge = PIECES
                wanted.cap.max_recv_sge = 1
                wanted.cap.max_inline_data = size
                wanted.comp_mask = IBV_QP_INIT_ATTR_PD
                wanted.pd = self.domain.pd
                if direct:
                    wanted.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS
                    wanted.send_ops_flags = (IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_READ
                                             | IBV_QP_EX_WITH_SEND)
                    if device.flushes:
                        wanted.send_ops_flags |= PLACEMENT_OPERATIONS
                self.own.pair = ibv_create_qp_ex(device.context, &wanted)
                if self.own.pair != NULL:
                    device.inline_size = size
                    self.c.inline_limit = max(size, <int> wanted.cap.max_inline_data)
                    self.own.direct = ibv_qp_to_qp_ex(self.own.pair) if direct else NULL
                    return 0
                problem = errno
                if problem == EOPNOTSUPP:
                    break
        return must(problem or EINVAL, "ibv_create_qp_ex", device.name)

    cdef int move(self, int state) except -1:
        """Bring the queue pair into its next state, as the connection's parameters say."""
        cdef ibv_qp_attr wanted
        cdef int mask = 0
        where = self.domain.device.name
        memset(&wanted, 0, sizeof(wanted))
        wanted.qp_state = state
        must(rdma_init_qp_attr(self.own.id, &wanted, &mask), "rdma_init_qp_attr", where)
        if mask & IBV_QP_ACCESS_FLAGS:
            # The initiator lets nobody reach its memory.
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
                raise DeadlineExceeded(f"the way of lane {self.index} was not found",
                                       where=self.fabric.host)
            self.fabric.turn(left)
        if self.problem is not None:
            raise self.problem
        return 0

    cdef int on_event(self, int kind, int status) except -1:
        """What happened to a lane that is not yet connected."""
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
        return 0

    cdef int join(self) except -1:
        """Connected: from now on whoever polls the queue hears what happens."""
        self.fabric.joining.pop(self.key, None)
        must(rdma_migrate_id(self.own.id, self.queue.c.events), "rdma_migrate_id",
             self.fabric.host)
        self.stage = STAGE_CONNECTED
        self.connected = True
        return 0

    def __dealloc__(self):
        self.close()
        free(self.area)
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
        """Bytes that go into a work request itself."""
        return self.c.inline_limit

    def aim(self, uint64_t address, uint64_t key, uint64_t size):
        """Set what one-sided operations on this lane reach."""
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

    def post_receives(self):
        """Post every receive buffer."""
        cdef uint32_t slot
        for slot in range(self.c.receive_slots):
            if self.c.ops.receive(self.c, slot) < 0:
                must(self.c.detail, "ibv_post_recv", self.domain.device.name)

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
        """Tell the other side that the lane is over; only the thread that polls its queue may."""
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
        self.connected = False
        if self.c.state == LANE_UP:
            self.c.state = LANE_LOST
        if self.buffers is not None:
            self.buffers.close()
            self.buffers = None


def _name_of(size_t context):
    return ibv_get_device_name((<ibv_context *> context).device).decode()


def _failure(int kind, int status, index, host):
    """What a connection event that is bad news comes to."""
    if kind == RDMA_CM_EVENT_REJECTED:
        if status == REJECTED_BY_CONSUMER:
            text = f"the target refused lane {index}"
        elif status < 0:
            # iWARP does not say who it was.
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


# --- the target's side -----------------------------------------------------------------------

cdef class Request:
    """A request for a connection; either becomes a FabricLane or is rejected."""

    def __dealloc__(self):
        if self.id != NULL and not is_copy(self.born):
            rdma_destroy_id(self.id)

    def reject(self):
        """Turn the request down."""
        cdef int rc
        if self.id != NULL:
            rc = rdma_reject(self.id, NULL, 0)
            rdma_destroy_id(self.id)
            self.id = NULL
            must(rc, "rdma_reject", "verbs")


cdef class Listener:
    """Listens on the fabric's address, at a port of the system's choice."""

    def __cinit__(self, Fabric fabric, *, int lanes=0):
        self.fabric = fabric
        must(rdma_listen(fabric.bound, max(BACKLOG, lanes)), "rdma_listen", fabric.host,
             ConnectFailed)
        self.port = socket.ntohs(rdma_get_src_port(fabric.bound))

    def next(self, double timeout, dict lanes):
        """Wait for what happens next: a Request, a lane of `lanes` that is connected, or None.

        Parameters
        ----------
        timeout : float
            Seconds.
        lanes : dict
            ``lane.key`` to lane, for those accepted and not yet connected; the one that
            is reported (or failed) is taken out.
        """
        cdef FabricLane lane
        event = self.fabric.turn(timeout)
        if event is None or isinstance(event, Request):
            return event
        lane = event
        if lane.connected or lane.problem is not None:
            lanes.pop(lane.key, None)
        return lane if lane.connected else None

    cpdef close(self):
        """Stop listening; established lanes stay."""
        if self.fabric is not None and self.fabric.bound != NULL and not is_copy(self.fabric.born):
            rdma_destroy_id(self.fabric.bound)
            self.fabric.bound = NULL
