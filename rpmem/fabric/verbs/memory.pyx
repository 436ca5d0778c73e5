"""RDMA devices, protection domains and registered memory.

A device can reach memory as long as it is registered, so the kernel has to pin it; file systems
that need to know which pages are written refuse that. On-demand memory needs no pinning, but is
used only if a probe has shown that it works: see `rpmem.fabric.verbs.probe`.
`IBV_ACCESS_RELAXED_ORDERING` is never requested: a completed READ has to mean that the WRITEs
before it have arrived.
"""

import os
import re

cimport cython
from libc.errno cimport EAGAIN, EINVAL, ENOMEM, EPERM, errno
from libc.stdint cimport uint64_t
from libc.string cimport memset

from rpmem.base import libraries
from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.errors import FabricFailure, RegistrationFailed
from rpmem.fabric.shared.failures import LOCKED_MEMORY
from rpmem.fabric.verbs.failures cimport must
from rpmem.fabric.verbs.ibv cimport *

bind_libibverbs()

cdef enum:
    FLUSHING_CORE = 45            # the first rdma-core with FLUSH and ATOMIC WRITE


cdef bint knows_placement() except -1:
    """Whether the library has these operations; its file is called libibverbs.so.1.14.VERSION.0."""
    version = re.search(r"\.so\.1\.\d+\.(\d+)", libraries.file_name("libibverbs"))
    return version is not None and int(version[1]) >= FLUSHING_CORE


# --- devices ---------------------------------------------------------------------------------

cdef class Device:
    """An opened RDMA device, closed with the last reference to it."""

    @staticmethod
    cdef Device open(ibv_device *device):
        cdef Device self = Device.__new__(Device)
        self.name = ibv_get_device_name(device).decode()
        self.inline_size = -1
        self.born = fork_generation()
        self.context = ibv_open_device(device)
        must(-1 if self.context == NULL else 0, "ibv_open_device", self.name)
        self.query()
        return self

    @staticmethod
    cdef Device adopt(size_t context, object keep):
        """Use a device that the user opened, and that stays open as long as `keep`."""
        cdef Device self = Device.__new__(Device)
        self.inline_size = -1
        self.born = fork_generation()
        self.keep = keep
        self.context = <ibv_context *> context
        self.name = ibv_get_device_name(self.context.device).decode()
        self.query()
        return self

    def __dealloc__(self):
        if self.context != NULL and self.keep is None and not is_copy(self.born):
            ibv_close_device(self.context)

    cdef int query(self) except -1:
        """Query the device's abilities."""
        cdef ibv_device_attr_ex found
        cdef uint64_t wanted
        memset(&found, 0, sizeof(found))
        must(ibv_query_device_ex(self.context, NULL, &found), "ibv_query_device_ex", self.name)
        self.queue_limit = found.orig_attr.max_qp_wr
        self.completion_limit = found.orig_attr.max_cqe
        self.pair_limit = min(found.orig_attr.max_qp, found.orig_attr.max_cq)
        self.reads_in = max(1, min(found.orig_attr.max_qp_rd_atom, 16))
        self.reads_out = max(1, min(found.orig_attr.max_qp_init_rd_atom, 16))
        wanted = PLACEMENT_DEVICE_FLUSH_PERSISTENT | PLACEMENT_DEVICE_ATOMIC_WRITE
        self.flushes = knows_placement() and found.device_cap_flags_ex & wanted == wanted
        wanted = IBV_ODP_SUPPORT_WRITE | IBV_ODP_SUPPORT_READ
        self.on_demand = (found.odp_caps.general_caps & IBV_ODP_SUPPORT
                          and found.odp_caps.per_transport_caps.rc_odp_caps & wanted == wanted)
        return 0

    cdef uint64_t message_limit(self, int port) except 0:
        """Most bytes of one WRITE or READ through `port`."""
        cdef ibv_port_attr found
        memset(&found, 0, sizeof(found))
        must(ibv_query_port(self.context, <unsigned char> port, &found), "ibv_query_port",
             self.name)
        return max(found.max_msg_sz, 4096)


def devices():
    """List the RDMA devices of this machine, for diagnostics.

    Returns
    -------
    list of dict
        For each its name, whether a port is up, and the abilities that matter here; ``error``
        instead if it cannot be opened.
    """
    cdef int count = 0, i
    cdef ibv_device **found = ibv_get_device_list(&count)
    cdef Device device
    result = []
    if found == NULL:
        return result
    try:
        for i in range(count):
            name = ibv_get_device_name(found[i]).decode()
            try:
                device = Device.open(found[i])
            except FabricFailure as error:
                result.append({"name": name, "error": str(error)})
                continue
            result.append({
                "name": name,
                "up": active_port(device) != 0,
                "flush": bool(device.flushes),
                "on_demand": bool(device.on_demand),
                "lane_limit": device.pair_limit,
                "queue_size": device.queue_limit,
            })
    finally:
        ibv_free_device_list(found)
    return result


cdef int active_port(Device device) except -1:
    """Return the number of the device's first port that is up, or 0."""
    cdef ibv_device_attr_ex attributes
    cdef ibv_port_attr port
    cdef unsigned char number
    memset(&attributes, 0, sizeof(attributes))
    must(ibv_query_device_ex(device.context, NULL, &attributes), "ibv_query_device_ex",
         device.name)
    for number in range(1, attributes.orig_attr.phys_port_cnt + 1):
        memset(&port, 0, sizeof(port))
        if ibv_query_port(device.context, number, &port) == 0 and port.state == IBV_PORT_ACTIVE:
            return number
    return 0


# --- domains ---------------------------------------------------------------------------------

@cython.no_gc_clear  # its members are needed until it is closed
cdef class Domain:
    """A protection domain: each session has its own, and its registrations end with it.

    Parameters
    ----------
    fabric : Fabric
        Has ``device``, and ``shared``: the user's own protection domain, or None.
    """

    def __cinit__(self, object fabric):
        self.fabric = fabric
        self.device = fabric.device
        if fabric.shared is not None:
            self.keep = fabric.shared
            self.pd = <ibv_pd *> <size_t> fabric.shared.pointer
            return
        self.pd = ibv_alloc_pd(self.device.context)
        must(-1 if self.pd == NULL else 0, "ibv_alloc_pd", self.device.name)

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Free the domain. Its lanes, queues and memory must be closed first."""
        if self.pd != NULL and self.keep is None and not is_copy(self.device.born):
            ibv_dealloc_pd(self.pd)
        self.pd = NULL


# --- memory ----------------------------------------------------------------------------------

@cython.no_gc_clear  # its members are needed until it is closed
cdef class Memory:
    """A registered range of memory; pins `keep` (a Region) until closed.

    Its parameters are explained in `rpmem.fabric.contract`. Devices choose keys themselves;
    `persistent` memory is registered for RDMA FLUSH if device and kernel support it.
    """

    def __cinit__(self, Domain domain not None, size_t address, size_t length, *, bint remote=False,
                  bint source=False, bint persistent=False, uint64_t key=0, object keep=None):
        cdef int access = 0 if source else IBV_ACCESS_LOCAL_WRITE
        cdef int refusal = 0
        self.domain = domain
        if domain.keep is not None and not remote:
            self.borrow(domain.keep.key_of(address, length))
        if remote:
            access |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ
        if persistent and domain.device.flushes:
            self.flushes = self.register(address, length, access | PLACEMENT_ACCESS) == 0
        if self.mr == NULL:
            refusal = self.register(address, length, access)
        if refusal:
            self.register_unpinned(address, length, access, refusal)
        self.key = self.mr.rkey
        self.address = address
        self.keep = keep
        if keep is not None:
            keep.pin("a fabric registration")

    cdef int borrow(self, object key) except -1:
        """Use the user's registration; if that is closed meanwhile, its key gives no access."""
        if key is not None:
            self.copied.lkey = key
            self.mr = &self.copied
        return 0

    cdef int register(self, size_t address, size_t length, int access) except -1:
        """Register; return 0 or the errno of the refusal."""
        cdef int number = 0
        with nogil:
            self.mr = ibv_reg_mr(self.domain.pd, <void *> address, length, access)
            if self.mr == NULL:
                number = errno or EINVAL
        return number

    cdef int register_unpinned(self, size_t address, size_t length, int access,
                               int number) except -1:
        """Register memory that cannot be pinned on demand, if that works."""
        where = self.domain.device.name
        text = f"{length} bytes of memory cannot be registered with {where}"
        if number in (ENOMEM, EAGAIN, EPERM):
            raise RegistrationFailed(
                f"{text}: {os.strerror(number)}", errno=number, hint=LOCKED_MEMORY)
        why = "the device cannot do without pinning it either"
        if self.domain.device.on_demand:
            from rpmem.fabric.verbs.probe import on_demand_works
            why = on_demand_works(self.domain, address)
            if why is None:
                must(self.register(address, length, access | IBV_ACCESS_ON_DEMAND), text, where,
                     RegistrationFailed)
                self.on_demand = True
                return 0
        raise RegistrationFailed(
            f"{text}: its file system does not allow a device to keep it "
            f"({os.strerror(number)}), and {why}", errno=number,
            hint="use a device-DAX part, or let data travel inside messages")

    def __dealloc__(self):
        self.close()

    @property
    def handle(self):
        """The handle that posts on lanes of the same domain need for this memory."""
        return <size_t> self.mr

    cpdef close(self):
        """Deregister: from now on the key gives no access."""
        if self.domain is not None and is_copy(self.domain.device.born):
            self.mr = NULL
        if self.mr != NULL:
            if self.mr != &self.copied:
                ibv_dereg_mr(self.mr)
            self.mr = NULL
            if self.keep is not None:
                self.keep.unpin("a fabric registration")
