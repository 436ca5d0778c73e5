"""Lanes over libfabric.

One Fabric per session, towards one address.  Providers that pin registered memory share
one Domain between lanes, so that the pool is registered once; all others get a Domain per
lane, so that threads never meet in the provider's progress lock.

Numbers of libfabric's man pages: fi_endpoint(3), fi_msg(3), fi_rma(3), fi_cq(3), fi_mr(3).
"""

import errno
import os
import socket
import time

from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strdup
from posix.stdlib cimport posix_memalign

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.fabric.libfabric.fi cimport *
from rpmem.fabric.libfabric.ops cimport FI_OPS, context_t, fi_lane_t
from rpmem.wire.lane cimport (
    COMPLETED_READ, COMPLETED_RECEIVE, COMPLETED_SEND, COMPLETED_WRITE, LANE_LOST, LANE_UP,
    WATCH_POSTS, WATCH_RECEIVES, Lane,
)
from rpmem.errors import (
    ConnectFailed, DeadlineExceeded, FabricFailure, ProviderUnavailable, RegistrationFailed,
    remedy_for,
)
from rpmem.fabric.libfabric.door import Door

cdef enum:
    PRIVATE_DATA = 512           # an event with the private data that came with it
    PAGE = 4096
    SCRATCH = 1 << 16            # where what is read may have to land in registered memory
    LEAST_SCRATCH = 4096
    FEW = 16                     # operations under way over a peeking provider
    FEW_BYTES = 1 << 14          # or bytes, before the last
    WHOLE = 1 << 20              # bytes of one operation over a byte stream;
    PIECE = 1 << 19              # what is longer goes in pieces

# Providers with progress threads of their own: polling only takes their CPU away.
NEVER_SPUN = frozenset({"sockets"})

# Providers whose receiver looks at a header before it takes it (MSG_PEEK).  Where a segment ends
# inside a header and the window is closed, TCP waits for space and the receiver for the rest, for
# good: so what is under way has to fit into the smallest window.
PEEKING = frozenset({"sockets"})

# Providers over a byte stream: what has no receive buffer yet waits in the socket, and long
# operations go faster in pieces that stay in the cache on their way.
PACED = frozenset({"tcp"})

# Providers whose target answers a WRITE by software, after copying it and all that came before to
# where it belongs: FI_DELIVERY_COMPLETE tells all that a READ behind it could.
DELIVERING = frozenset({"tcp"})

# Providers whose listener keeps what strangers connect to it: it stands behind a door.
GUARDED = frozenset({"tcp"})
NUDGED = 16                      # after so many lanes, those that are connected get to say so
HANDOVER = 5.0                   # seconds until libfabric has noticed a connection from here

# Up to libfabric 1.x, `tcp` pays three system calls for every completion in a queue that can
# be slept on, but wakes such a queue for any byte of its lanes.  So completions go to a queue
# without wait object, and the other one, which stays empty, is the bell.
SPLIT = frozenset({"tcp"}) if fi_version() >> 16 == 1 else frozenset()


# --- errors ------------------------------------------------------------------------

cdef str explain(long rc):
    """libfabric's own word for a negative return value."""
    return fi_strerror(<int> -rc).decode("utf-8", "replace")


cdef bint lacks_descriptors():
    """Whether this process can open nothing more."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EMFILE
    return False


cdef int must(long rc, str what, object where=None, kind=FabricFailure) except -1:
    """The funnel: 0 and above pass, anything else is an error that names the call."""
    if rc < 0:
        number = <int> -rc if -rc < 200 else None
        why = explain(rc)
        if number == errno.EIO and lacks_descriptors():
            # What libfabric makes of it where it makes a socket.
            number, why = errno.EMFILE, os.strerror(errno.EMFILE)
        raise kind(f"{what}: {why}", where=where, errno=number, hint=remedy_for(number))
    return 0


cdef tuple address_of(const void *address, size_t length):
    """(host, port) of a sockaddr; ("", 0) when it is of no known family."""
    raw = (<const char *> address)[:length]
    if length < 8:
        return ("", 0)
    family = int.from_bytes(raw[:2], "little")
    port = int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return (socket.inet_ntop(socket.AF_INET, raw[4:8]), port)
    if family == socket.AF_INET6 and length >= 24:
        return (socket.inet_ntop(socket.AF_INET6, raw[8:24]), port)
    return ("", 0)


# --- objects -----------------------------------------------------------------------

cdef fi_info *hints_for(str provider) except NULL:
    cdef fi_info *hints = fi_allocinfo()
    if hints == NULL:
        raise MemoryError("no memory for libfabric's hints")
    hints.caps = FI_MSG | FI_RMA
    hints.mode = 0
    hints.addr_format = FI_SOCKADDR
    hints.ep_attr.type = FI_EP_MSG
    hints.domain_attr.mr_mode = (FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED
                                 | FI_MR_PROV_KEY)
    hints.domain_attr.threading = FI_THREAD_DOMAIN
    hints.tx_attr.msg_order = FI_ORDER_RAW | FI_ORDER_SAW
    hints.fabric_attr.prov_name = strdup(provider.removeprefix("ofi-").encode())
    return hints


cdef class Fabric:
    """A libfabric provider, towards one address.

    Parameters
    ----------
    provider : str
        ``"tcp"``, ``"sockets"``, ...; libfabric's own ``verbs`` is ``"ofi-verbs"`` here.
    host, port : str, int
        What lanes connect to (initiator), or with `listen` the address to listen on.
    listen : bool
        This is the target's side.
    queue_size : int
        Operations a lane may have under way, as far as the provider allows; 0 leaves it to
        the provider.

    Raises
    ------
    ProviderUnavailable
        When the provider is not there, or cannot reach the address.
    """

    def __cinit__(self, str provider, str host, int port=0, *, bint listen=False,
                  size_t queue_size=0):
        cdef fi_info *hints = hints_for(provider)
        cdef fi_info *found = NULL
        cdef bytes node = host.encode("idna") if host and host.isascii() is False else host.encode()
        cdef bytes service = str(port).encode()
        cdef const char *c_node = node
        cdef const char *c_service = service
        cdef uint64_t flags = FI_SOURCE if listen else 0
        cdef fi_eq_attr attributes
        cdef int rc
        self.born = fork_generation()
        self.provider = provider
        self.host = host
        self.port = port
        self.listens = listen
        self.early = []
        try:
            with nogil:
                rc = fi_getinfo(FI_VERSION(1, 9), c_node, c_service, flags, hints, &self.info)
            if rc < 0:
                raise ProviderUnavailable(
                    f"libfabric's provider {provider!r} cannot be used for {host}: {explain(rc)}",
                    hint="`fi_info -p " + provider + "` shows what libfabric finds here")
            # A second question: does it commit to the persistence domain?
            hints.tx_attr.op_flags = FI_COMMIT_COMPLETE
            hints.caps |= FI_RMA_PMEM
            with nogil:
                rc = fi_getinfo(FI_VERSION(1, 9), c_node, c_service, flags, hints, &found)
            self.commits = rc == 0
            fi_freeinfo(found)
        finally:
            fi_freeinfo(hints)
        if queue_size:
            self.info.tx_attr.size = min(self.info.tx_attr.size, max(queue_size, <size_t> 2))
        must(fi_fabric(self.info.fabric_attr, &self.fabric, NULL), "fi_fabric", provider)
        memset(&attributes, 0, sizeof(attributes))
        attributes.wait_obj = FI_WAIT_UNSPEC
        must(fi_eq_open(self.fabric, &attributes, &self.events, NULL), "fi_eq_open", provider)

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free everything.  Lanes and domains must be closed before."""
        if is_copy(self.born):
            self.events = NULL
            self.fabric = NULL
        if self.events != NULL:
            fi_close(&self.events.fid)
            self.events = NULL
        if self.fabric != NULL:
            fi_close(&self.fabric.fid)
            self.fabric = NULL
        if self.info != NULL:
            fi_freeinfo(self.info)
            self.info = NULL

    @property
    def pins(self):
        """Whether registering memory pins it (then it is registered once per session)."""
        return bool(self.info.domain_attr.mr_mode & FI_MR_ALLOCATED)

    @property
    def paces(self):
        """Whether a message that no buffer waits for waits in the connection, not failing it.

        Then one buffer is best: it stays in the cache.
        """
        return self.provider in PACED

    @property
    def flushes(self):
        """RDMA FLUSH is not among libfabric's operations."""
        return False

    @property
    def lane_limit(self):
        """The most lanes a session can have (as PMDK computes it)."""
        return min(self.info.domain_attr.tx_ctx_cnt, self.info.domain_attr.rx_ctx_cnt,
                   self.info.domain_attr.cq_cnt)

    @property
    def description(self):
        """What libfabric reported, for diagnostics."""
        return {
            "provider": self.provider,
            "domain": (self.info.domain_attr.name or b"").decode("utf-8", "replace"),
            "inject_size": self.info.tx_attr.inject_size,
            "queue_size": self.info.tx_attr.size,
            "operation_limit": self.info.ep_attr.max_msg_size,
            "mr_mode": self.info.domain_attr.mr_mode,
            "commits": bool(self.commits),
            "lane_limit": self.lane_limit,
        }

    cdef object next_event(self, double timeout):
        """The next connection event: ``(kind, fid, Request or None)``, or None in time."""
        cdef uint8_t buffer[PRIVATE_DATA]
        cdef fi_eq_cm_entry *entry = <fi_eq_cm_entry *> buffer
        cdef fi_eq_err_entry error
        cdef uint32_t event = 0
        cdef int milliseconds = max(0, min(<int> (timeout * 1000), 600000))
        cdef ssize_t n
        cdef Request request
        with nogil:
            n = fi_eq_sread(self.events, &event, buffer, sizeof(buffer), milliseconds, 0)
        if n == -EAGAIN or n == -EINTR:
            return None
        if n == -<ssize_t> FI_EAVAIL:
            memset(&error, 0, sizeof(error))
            if fi_eq_readerr(self.events, &error, 0) < 0:
                return None
            return ("error", <uintptr_t> error.fid, error.err)
        if n < 0:
            must(n, "waiting for a connection", self.provider)
        if n < <ssize_t> sizeof(fi_eq_cm_entry):
            return None
        if event == FI_CONNREQ:
            request = Request.__new__(Request)
            request.info = entry.info
            request.data = (<const char *> entry.data)[:n - <ssize_t> sizeof(fi_eq_cm_entry)]
            if entry.info.dest_addr != NULL:
                request.peer = address_of(entry.info.dest_addr, entry.info.dest_addrlen)
            else:
                request.peer = ("", 0)
            return ("request", <uintptr_t> entry.fid, request)
        if event == FI_CONNECTED:
            return ("connected", <uintptr_t> entry.fid, None)
        if event == FI_SHUTDOWN:
            return ("shutdown", <uintptr_t> entry.fid, None)
        return None

    cdef nudge(self):
        """Let requests go out whose connections stand; what happens meanwhile is kept for later.

        Where many lanes are made, the first would otherwise stay silent until the last is there.
        """
        while (event := self.next_event(0.0)) is not None:
            self.early.append(event)

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
        waiting = {(<FabricLane> lane).key: lane for lane in lanes
                   if not (<FabricLane> lane).connected}
        while waiting:
            if check is not None:
                check()
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(
                    f"{len(waiting)} of {len(lanes)} lanes were not accepted by {self.host}, "
                    f"port {self.port}, in {timeout:g} s",
                    hint="is a firewall between the two hosts? lanes need a TCP port of their own")
            event = self.early.pop(0) if self.early else self.next_event(min(left, 0.05))
            if event is None:
                continue
            kind, number, value = event
            if kind == "connected" and number in waiting:
                lane = waiting.pop(number)
                lane.connected = True
            elif kind == "error" and number in waiting:
                # Where the target hung up, errno is that of something else.
                why = "" if value in (0, EAGAIN, errno.EINPROGRESS) else f": {os.strerror(value)}"
                raise ConnectFailed(
                    f"lane {waiting[number].index} was refused by {self.host}, port {self.port}"
                    f"{why}", errno=value if why else None,
                    hint="what rpmemd logs on the target tells more")
            elif kind == "shutdown":
                raise ConnectFailed(f"{self.host}, port {self.port}, hung up while lanes were "
                                    "being connected")


cdef class Domain:
    """Where memory is registered and endpoints live; one thread at a time."""

    def __cinit__(self, Fabric fabric):
        self.born = fork_generation()
        self.fabric = fabric
        must(fi_domain(fabric.fabric, fabric.info, &self.domain, NULL), "fi_domain",
             fabric.provider)

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free the domain.  Its lanes, queues and memory must be closed before."""
        if is_copy(self.born):
            self.domain = NULL
        if self.domain != NULL:
            fi_close(&self.domain.fid)
            self.domain = NULL


cdef class Memory:
    """A registered range of memory; pins `keep` (a Region) until closed.

    Parameters
    ----------
    domain : Domain
    address, length : int
    remote : bool
        The other side may WRITE and READ it.
    source : bool
        Nothing is ever read into it: the device need not be able to write to it.
    persistent : bool
        It is persistent memory: a commit must reach its persistence domain.
    key : int
        Wanted key, where the provider lets us choose.

    Raises
    ------
    RegistrationFailed
        Most often the limit of locked memory.
    """

    def __cinit__(self, Domain domain, size_t address, size_t length, *, bint remote=False,
                  bint source=False, bint persistent=False, uint64_t key=0, object keep=None):
        cdef uint64_t access = FI_SEND | FI_WRITE
        cdef uint64_t flags = FI_RMA_PMEM if persistent else 0
        cdef int mode = domain.fabric.info.domain_attr.mr_mode
        cdef int rc
        if not source:
            access |= FI_RECV | FI_READ
        if remote:
            access |= FI_REMOTE_READ | FI_REMOTE_WRITE
        self.born = fork_generation()
        self.domain = domain
        self.keep = keep
        with nogil:
            rc = fi_mr_reg(domain.domain, <const void *> address, length, access, 0, key, flags,
                           &self.mr, NULL)
        if rc < 0:
            raise RegistrationFailed(
                f"{length} bytes of memory cannot be registered with {domain.fabric.provider}: "
                f"{explain(rc)}", errno=-rc,
                hint="raise the limit of locked memory (ulimit -l, or memlock in "
                     "/etc/security/limits.conf)" if rc == -errno.ENOMEM else None)
        self.key = fi_mr_key(self.mr)
        self.address = address if mode & FI_MR_VIRT_ADDR else 0
        if keep is not None:
            keep.pin("a fabric registration")

    def __dealloc__(self):
        self.close()

    @property
    def handle(self):
        """What posts on lanes of the same domain pass along for this memory."""
        return <size_t> fi_mr_desc(self.mr)

    @property
    def flushes(self):
        """No RDMA FLUSH reaches it: see `Fabric.flushes`."""
        return False

    cpdef close(self):
        """Deregister."""
        if is_copy(self.born):
            self.mr = NULL
        if self.mr != NULL:
            fi_close(&self.mr.fid)
            self.mr = NULL
            if self.keep is not None:
                self.keep.unpin("a fabric registration")


cdef class Queue:
    """Where completions arrive: one per lane (initiator), one per service thread (target).

    Parameters
    ----------
    domain : Domain
    size : int
        Completions it holds; 0 leaves that to the provider.
    answers : bool
        What is waited for are messages; else it is the completion of one-sided posts.
    """

    def __cinit__(self, Domain domain, size_t size=0, *, bint answers=True):
        provider = domain.fabric.provider
        self.born = fork_generation()
        self.domain = domain
        self.c.descriptor = -1
        self.c.fabric = domain.fabric.fabric
        self.c.base.ops = &FI_OPS
        self.c.base.watch = WATCH_RECEIVES if answers else WATCH_POSTS
        self.c.base.spins = provider not in NEVER_SPUN
        if provider not in SPLIT:
            self.c.receives = self.c.posts = self.c.bell = self.open(size, FI_WAIT_FD)
        elif answers:
            self.c.receives = self.open(size, FI_WAIT_NONE)
            self.c.posts = self.c.bell = self.open(size, FI_WAIT_FD)
        else:
            self.c.posts = self.open(size, FI_WAIT_NONE)
            self.c.receives = self.c.bell = self.open(size, FI_WAIT_FD)
        must(fi_control(&self.c.bell.fid, FI_GETWAIT, &self.c.descriptor), "FI_GETWAIT", provider)

    cdef fid_cq *open(self, size_t size, int wait) except NULL:
        cdef fi_cq_attr attributes
        cdef fid_cq *cq = NULL
        memset(&attributes, 0, sizeof(attributes))
        attributes.size = size
        attributes.format = FI_CQ_FORMAT_MSG
        attributes.wait_obj = wait
        must(fi_cq_open(self.domain.domain, &attributes, &cq, NULL), "fi_cq_open",
             self.domain.fabric.provider)
        return cq

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free the queue; its lanes must be closed before."""
        if is_copy(self.born):
            self.c.receives = self.c.posts = NULL
        if self.c.posts != NULL and self.c.posts != self.c.receives:
            fi_close(&self.c.posts.fid)
        if self.c.receives != NULL:
            fi_close(&self.c.receives.fid)
        self.c.receives = self.c.posts = self.c.bell = NULL


cdef class FabricLane(Lane):
    """One endpoint with its message buffers.

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
        cdef uint32_t slot
        cdef size_t total
        cdef void *area = NULL
        cdef fi_info *info
        if request is not None:
            request.enter()
        info = domain.fabric.info if request is None else request.info
        cdef int mode = domain.fabric.info.domain_attr.mr_mode
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
        self.c.send_slots, self.c.send_size = send
        self.c.receive_slots, self.c.receive_size = receive
        self.c.operation_limit = min(info.ep_attr.max_msg_size,
                                     <size_t> WHOLE if domain.fabric.paces else <size_t> 1 << 30)
        self.c.piece = min(self.c.operation_limit,
                           <uint64_t> PIECE if domain.fabric.paces else <uint64_t> -1)
        self.c.inline_limit = min(info.tx_attr.inject_size, <size_t> 4096)
        self.c.needs_handles = bool(mode & FI_MR_LOCAL)
        self.c.delivers = domain.fabric.provider in DELIVERING
        self.own.signal_every = max(<size_t> 2, min(info.tx_attr.size // 2, <size_t> 1 << 20))
        self.own.signal_bytes = <uint64_t> -1
        self.own.window = <uint32_t> -1
        if domain.fabric.provider in PEEKING:
            self.own.signal_every = min(self.own.signal_every, <size_t> FEW)
            self.own.signal_bytes = FEW_BYTES
            self.own.window = 1
        self.own.received = <context_t *> calloc(self.c.receive_slots, sizeof(context_t))
        bounces = self.c.needs_handles and request is None
        self.c.scratch_size = SCRATCH if bounces else LEAST_SCRATCH
        total = (<size_t> self.c.send_slots * self.c.send_size
                 + <size_t> self.c.receive_slots * self.c.receive_size + self.c.scratch_size)
        if self.own.received == NULL or posix_memalign(&area, PAGE, total):
            raise MemoryError(f"no memory for a lane's {total} bytes of message buffers")
        self.area = <char *> area
        self.c.send_area = self.area
        self.c.receive_area = self.area + <size_t> self.c.send_slots * self.c.send_size
        self.c.scratch = self.area + total - self.c.scratch_size
        if self.c.needs_handles:
            memset(area, 0, total)
            self.buffers = Memory(domain, <size_t> area, total)
            self.c.send_handle = fi_mr_desc(self.buffers.mr)
            self.c.scratch_handle = self.c.send_handle
            if pool is not None:
                self.c.pool_handle = fi_mr_desc(pool.mr)
        self.own.sent.lane = self.own.wrote.lane = self.own.read.lane = self.c
        self.own.sent.kind = COMPLETED_SEND
        self.own.wrote.kind = COMPLETED_WRITE
        self.own.read.kind = COMPLETED_READ
        for slot in range(self.c.receive_slots):
            self.own.received[slot].lane = self.c
            self.own.received[slot].kind = COMPLETED_RECEIVE
            self.own.received[slot].slot = slot
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
        must(fi_enable(self.own.endpoint), "fi_enable", where)
        if request is not None:
            request.leave()

    def __dealloc__(self):
        self.close()
        free(self.area)
        if self.own != NULL:
            free(self.own.received)
            free(self.own)

    @property
    def key(self):
        """Identifies the endpoint in connection events."""
        return <uintptr_t> &self.own.endpoint.fid

    def aim(self, uint64_t address, uint64_t key, uint64_t size):
        """Set what one-sided operations on this lane reach."""
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
        if self.c.index % NUDGED == NUDGED - 1:
            self.domain.fabric.nudge()

    def post_receives(self):
        """Post every receive buffer."""
        cdef uint32_t slot
        for slot in range(self.c.receive_slots):
            if FI_OPS.receive(self.c, slot) < 0:
                must(-self.c.detail, "fi_recvmsg", self.domain.fabric.provider)

    def hang_up(self):
        """Tell the other side that the lane is over; only the thread that polls its queue may."""
        if self.connected and self.own.endpoint != NULL:
            fi_shutdown(self.own.endpoint, 0)
            self.connected = False

    def accept(self):
        """Accept the request this lane was made for."""
        must(fi_accept(self.own.endpoint, NULL, 0), "fi_accept", self.domain.fabric.provider)

    cpdef close(self):
        """Disconnect and free the endpoint; the queue must not be polled meanwhile."""
        if is_copy(self.born) and self.own != NULL:
            self.own.endpoint = NULL
            self.c.state = LANE_LOST
        if self.own != NULL and self.own.endpoint != NULL:
            if self.connected:
                fi_shutdown(self.own.endpoint, 0)
            fi_close(&self.own.endpoint.fid)
            self.own.endpoint = NULL
            self.connected = False
            if self.c.state == LANE_UP:
                self.c.state = LANE_LOST
        if self.buffers is not None:
            self.buffers.close()
            self.buffers = None


cdef class Request:
    """A request for a connection; either becomes a FabricLane or is rejected."""

    def __dealloc__(self):
        if self.info != NULL:
            fi_freeinfo(self.info)

    cdef enter(self):
        """Have libfabric take over a connection that has waited at the door."""
        cdef Request accepted
        if self.visitor is None:
            return
        self.listener.door.begin_to_hand_over()
        # For this one connection: what does not listen for long cannot be found by others.
        self.behind = Listener(self.listener.inner, guarded=False)
        with self.visitor.inside(self.listener.inner.host, self.behind.port) as (peer, guess):
            accepted = self.behind.await_request(peer)
            self.visitor.replace(peer, guess)
        self.visitor = None
        self.info, accepted.info = accepted.info, NULL

    cdef leave(self):
        """What the lane needed of the listener is no longer needed."""
        if self.behind is not None:
            self.behind.close()
            self.behind = None
            self.listener.door.end_handing_over()

    def reject(self):
        """Turn the request down."""
        cdef int rc
        if self.visitor is not None:
            self.visitor.close()
            self.visitor = None
        if self.info != NULL:
            rc = fi_reject(self.listener.endpoint, self.info.handle, NULL, 0)
            fi_freeinfo(self.info)
            self.info = NULL
            must(rc, "fi_reject", self.listener.fabric.provider)


cdef class Listener:
    """A passive endpoint on the fabric's address, at a port of the system's choice.

    Parameters
    ----------
    fabric : Fabric
    lanes : int
        How many are expected.
    guarded : bool
        Where the provider needs it, let connections wait outside (`rpmem.fabric.libfabric.door`).
    """

    def __cinit__(self, Fabric fabric, *, int lanes=0, bint guarded=True):
        cdef uint8_t name[128]
        cdef size_t length = sizeof(name)
        self.born = fork_generation()
        self.fabric = fabric
        where = fabric.provider
        if guarded and where in GUARDED:
            self.inner = Fabric(where, some_loopback(), listen=True)
            self.door = Door(fabric.host, lanes)
            self.port = self.door.port
            return
        must(fi_passive_ep(fabric.fabric, fabric.info, &self.endpoint, NULL),
             "fi_passive_ep", where)
        must(fi_pep_bind(self.endpoint, &fabric.events.fid, 0), "fi_pep_bind", where)
        must(fi_listen(self.endpoint), "fi_listen", where, ConnectFailed)
        must(fi_getname(&self.endpoint.fid, name, &length), "fi_getname", where)
        self.port = address_of(name, length)[1]

    def __dealloc__(self):
        self.close()

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
        cdef Request request
        if self.door is not None:
            # A lane that was accepted is connected in no time.
            visitor = self.door.next(0.0 if lanes else timeout)
            if visitor is not None:
                request = Request.__new__(Request)
                request.listener = self
                request.visitor = visitor
                request.data = visitor.data
                request.peer = visitor.peer
                return request
            if not lanes:
                return None
            timeout = min(timeout, 0.001)
        event = self.fabric.next_event(timeout)
        if event is None:
            return None
        kind, number, value = event
        if kind == "request":
            (<Request> value).listener = self
            return value
        lane = lanes.pop(number, None)
        if kind == "connected" and lane is not None:
            (<FabricLane> lane).connected = True
            return lane
        return None

    cdef Request await_request(self, tuple peer):
        """Wait for the request of one that is known, and turn down all others."""
        deadline = time.monotonic() + HANDOVER
        while True:
            left = deadline - time.monotonic()
            event = self.next(max(left, 0.0), {})
            if isinstance(event, Request):
                if event.peer == peer:
                    return event
                event.reject()
            elif left <= 0:
                number = errno.EMFILE if lacks_descriptors() else None
                raise ConnectFailed("libfabric did not accept a lane of this process",
                                    where=self.fabric.provider, errno=number,
                                    hint=remedy_for(number))

    cpdef close(self):
        """Stop listening; established lanes stay."""
        if is_copy(self.born):
            self.endpoint = NULL
        if self.door is not None:
            self.door.close()
            self.door = None
        if self.inner is not None:
            self.inner.close()
            self.inner = None
        if self.endpoint != NULL:
            fi_close(&self.endpoint.fid)
            self.endpoint = NULL


def some_loopback():
    """An address of this machine that others neither reach nor guess."""
    return "127." + ".".join(str(1 + byte % 254) for byte in os.urandom(3))


def version():
    """libfabric's version, as ``(major, minor)``."""
    cdef uint32_t number = fi_version()
    return (number >> 16, number & 0xffff)
