"""The RDMA device that leads to an address, or has it, and the events of its connections.

Connections are made by the calling thread, which waits for the events of one channel with a
time-out at each step; once connected, a lane moves to its queue's channel, where the thread that
polls the queue sees the lane end.
"""

import errno as errno_numbers
import os
import socket

cimport cython
from libc.errno cimport EAGAIN, EINVAL, errno
from libc.stdint cimport uint32_t, uintptr_t
from posix.fcntl cimport F_GETFL, F_SETFL, O_NONBLOCK, fcntl

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.errors import DeadlineExceeded, FabricFailure, ProviderUnavailable
from rpmem.fabric.shared.addresses import IPV4_SIZE, IPV6_SIZE, address_of
from rpmem.fabric.shared.descriptors cimport milliseconds, readable
from rpmem.fabric.verbs.addresses import is_loopback, own_addresses, sockaddrs
from rpmem.fabric.verbs.failures cimport must
from rpmem.fabric.verbs.ibv cimport *
from rpmem.fabric.verbs.rdmacm cimport *
from rpmem.fabric.verbs.request cimport Request

bind_libibverbs()
bind_librdmacm()

cdef enum:
    RESOLVE_MS = 5000             # to find the device that leads there
    SLACK_MS = 1000               # and for that to be reported
    INITIATOR_DEPTH = 128         # work requests in a send queue
    TARGET_DEPTH = 64
    LEAST_DEPTH = 2
    MOST_DEPTH = 4096             # more under way gains nothing and costs memory
    COMPLETIONS_EACH = 96         # of a target's lane, if all of them are waiting to be polled


cdef tuple peer_of(const sockaddr *address):
    size = IPV4_SIZE if address.sa_family == socket.AF_INET else IPV6_SIZE
    return address_of((<const char *> address)[:<size_t> size])


@cython.no_gc_clear  # a lane that is dropped removes itself from its list
cdef class Fabric(Connector):
    """The RDMA device that leads to an address, or has it.

    Its parameters are explained in `rpmem.fabric.contract`; `shared` is a SharedDomain of
    `rpmem.fabric.verbs.pyverbs_objects`.

    Notes
    -----
    Loopback addresses belong to no RDMA device; both sides replace them by the machine's first RDMA
    address.
    """

    def __cinit__(self, str provider, str host, int port=0, *, bint listen=False,
                  size_t queue_size=0, object shared=None):
        self.born = fork_generation()
        self.provider = provider
        self.host = host
        self.port = port
        self.unanswered = "is UDP port 4791 (RoCE) open between the two hosts?"
        self.joining = {}
        self.shared = shared
        queue_size = queue_size or <size_t> (TARGET_DEPTH if listen else INITIATOR_DEPTH)
        self.depth = <uint32_t> min(max(queue_size, <size_t> LEAST_DEPTH), <size_t> MOST_DEPTH)
        self.events = rdma_create_event_channel()
        must(-1 if self.events == NULL else 0, "there is no RDMA here", provider,
             ProviderUnavailable)
        must(-1 if fcntl(self.events.fd, F_SETFL,
                         fcntl(self.events.fd, F_GETFL) | O_NONBLOCK) < 0 else 0, "fcntl")
        addresses = sockaddrs(host, port)
        if any(map(is_loopback, addresses)):
            addresses = [address for own in own_addresses()
                         for address in sockaddrs(own, port)] + addresses
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
        """Bind to `address` for listening, and find the device that has it."""
        cdef rdma_cm_id *id = NULL
        cdef char *raw = address
        must(rdma_create_id(self.events, &id, NULL, RDMA_PS_TCP), "rdma_create_id", "verbs")
        try:
            must(rdma_bind_addr(id, <sockaddr *> raw), "rdma_bind_addr", self.host)
            if id.verbs == NULL:
                raise FabricFailure("this address does not belong to a single RDMA device",
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
            must(rdma_resolve_addr(id, NULL, <sockaddr *> raw, RESOLVE_MS), "rdma_resolve_addr",
                 self.host)
            if not self.is_readable(RESOLVE_MS + SLACK_MS):
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
        """Use the device as opened by the user, or open it for this session."""
        if self.shared is None:
            return Device.open(<ibv_device *> device)
        name = ibv_get_device_name(<ibv_device *> device).decode()
        if name != self.shared.device.name:
            raise FabricFailure(f"the route leads through {name}, not {self.shared.device.name}",
                                where=self.host, errno=errno_numbers.EXDEV)
        return self.shared.device

    cdef bint is_readable(self, int limit_ms):
        """Wait until an event can be taken."""
        cdef bint there
        with nogil:
            there = readable(self.events.fd, limit_ms)
        return there

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free everything. Lanes and domains must be closed first."""
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
        """True: registering memory pins it, so it is registered once per session."""
        return True

    @property
    def paces(self):
        """False: a message needs a posted receive buffer, the device does not wait for one."""
        return False

    @property
    def commits(self):
        """False: instead of commit-complete there is RDMA FLUSH, a separate step."""
        return False

    @property
    def flushes(self):
        """Whether persistent RDMA FLUSH and ATOMIC WRITE can be posted here."""
        return bool(self.device.flushes)

    @property
    def bypasses(self):
        """True: the device writes."""
        return True

    @property
    def lane_limit(self):
        """The highest number of lanes a session can have."""
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

    cdef object turn(self, double timeout_s):
        """Take one event: return a Request, the lane it was about, or None."""
        cdef rdma_cm_event *event = NULL
        cdef rdma_cm_id *id
        cdef int kind, status
        cdef Request request = None
        if not self.is_readable(milliseconds(timeout_s)):
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
            request.peer = peer_of(rdma_get_peer_addr(id))
            return request
        lane = self.joining.get(<uintptr_t> id)
        if lane is not None:
            lane._on_event(kind, status)
        return lane
