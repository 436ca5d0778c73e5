"""A provider of libfabric, for one address, and the events of its connections.

One Fabric per session. Providers that pin registered memory share one Domain between lanes, so
that the pool is registered once; all others get a Domain per lane, so that threads never meet in
the provider's progress lock.

See fi_endpoint(3), fi_fabric(3) and fi_eq(3).
"""

import errno
import os

cimport cython
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset, strdup

from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.errors import ConnectFailed, ProviderUnavailable
from rpmem.fabric.libfabric.failures cimport explain, must
from rpmem.fabric.libfabric.fi cimport *
from rpmem.fabric.libfabric.request cimport Request
from rpmem.fabric.shared.addresses import address_of
from rpmem.fabric.shared.descriptors cimport milliseconds
from rpmem.fabric.shared.lane cimport ConnectedLane

bind_libfabric()

cdef enum:
    PRIVATE_DATA = 512           # buffer for an event with its private data

# Providers over a byte stream: messages without a receive buffer wait in the socket, and long
# operations are faster in pieces small enough to stay in the cache.
PACED = frozenset({"tcp"})


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


@cython.no_gc_clear  # a lane that is dropped removes itself from its list
cdef class Fabric(Connector):
    """A libfabric provider, for one address.

    Its parameters are explained in `rpmem.fabric.contract`; libfabric's own provider ``verbs`` is
    called ``"ofi-verbs"`` here.
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
        self.unanswered = ("is a firewall between the two hosts? lanes need a TCP port of their "
                           "own")
        self.joining = {}
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
        """Free everything. Lanes and domains must be closed first."""
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
        """Whether registering memory pins it; if so, it is registered once per session."""
        return bool(self.info.domain_attr.mr_mode & FI_MR_ALLOCATED)

    @property
    def paces(self):
        """Whether a message without a receive buffer waits in the connection, not failing it.

        If so, a single buffer is best: it stays in the cache.
        """
        return self.provider in PACED

    @property
    def flushes(self):
        """False: libfabric has no RDMA FLUSH."""
        return False

    @property
    def bypasses(self):
        """True: what the provider does with a WRITE is its business."""
        return True

    @property
    def lane_limit(self):
        """The highest number of lanes a session can have, computed as in PMDK."""
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
    cdef object turn(self, double timeout_s):
        """Take one event: return a Request, the lane that the event was about, or None."""
        cdef uint8_t buffer[PRIVATE_DATA]
        cdef fi_eq_cm_entry *entry = <fi_eq_cm_entry *> buffer
        cdef uint32_t event = 0
        cdef int limit_ms = milliseconds(timeout_s)
        cdef ssize_t n
        cdef ConnectedLane lane
        with nogil:
            n = fi_eq_sread(self.events, &event, buffer, sizeof(buffer), limit_ms, 0)
        if n == -EAGAIN or n == -EINTR:
            return None
        if n == -<ssize_t> FI_EAVAIL:
            return self.failed()
        must(n, "waiting for a connection", self.provider)
        if n < <ssize_t> sizeof(fi_eq_cm_entry):
            return None
        if event == FI_CONNREQ:
            return self.request(entry, n - <ssize_t> sizeof(fi_eq_cm_entry))
        if event == FI_CONNECTED:
            lane = self.joining.pop(<uintptr_t> entry.fid, None)
            if lane is not None:
                lane.connected = True
            return lane
        if event == FI_SHUTDOWN:
            # From a lane being connected, or from another: the target is gone either way.
            self.problem = ConnectFailed(f"{self.host}, port {self.port}, hung up while lanes were "
                                         "being connected")
            lane = self.joining.pop(<uintptr_t> entry.fid, None)
            if lane is not None:
                lane.problem = self.problem
            return lane
        return None

    cdef Request request(self, fi_eq_cm_entry *entry, ssize_t length):
        """A peer wants to connect, with `length` bytes of private data."""
        cdef Request request = Request.__new__(Request)
        request.info = entry.info
        request.data = (<const char *> entry.data)[:length]
        request.peer = ("", 0)
        if entry.info.dest_addr != NULL:
            request.peer = address_of(
                (<const char *> entry.info.dest_addr)[:entry.info.dest_addrlen])
        return request

    cdef ConnectedLane failed(self):
        """A lane was refused: record why."""
        cdef fi_eq_err_entry error
        cdef ConnectedLane lane
        memset(&error, 0, sizeof(error))
        if fi_eq_readerr(self.events, &error, 0) < 0:
            return None
        lane = self.joining.pop(<uintptr_t> error.fid, None)
        if lane is not None:
            # If the target hung up, errno is unrelated.
            known = error.err not in (0, EAGAIN, errno.EINPROGRESS)
            why = f": {os.strerror(error.err)}" if known else ""
            lane.problem = ConnectFailed(
                f"lane {lane.index} was refused by {self.host}, port {self.port}{why}",
                errno=error.err if known else None,
                hint="what rpmemd logs on the target tells more")
        return lane

    cdef nudge(self):
        """Send the requests of lanes whose connections are established, and process their events.

        When many lanes are made, the first would otherwise stay silent until the last exists.
        """
        while self.turn(0.0) is not None:
            pass


def version():
    """libfabric's version, as ``(major, minor)``."""
    cdef uint32_t number = fi_version()
    return (number >> 16, number & 0xffff)
