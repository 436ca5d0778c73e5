"""The listener for lanes over verbs."""

import socket

from rpmem.base.fork cimport is_copy
from rpmem.errors import ConnectFailed
from rpmem.fabric.verbs.fabric cimport Fabric
from rpmem.fabric.verbs.failures cimport must
from rpmem.fabric.verbs.rdmacm cimport (
    bind_librdmacm, rdma_destroy_id, rdma_get_src_port, rdma_listen,
)

bind_librdmacm()

cdef enum:
    BACKLOG = 128


cdef class Listener(Acceptor):
    """Listens on the fabric's address, at a port chosen by the system."""

    def __cinit__(self, Fabric fabric not None, *, int lanes=0):
        self.fabric = fabric
        must(rdma_listen(fabric.bound, max(BACKLOG, lanes)), "rdma_listen", fabric.host,
             ConnectFailed)
        self.port = socket.ntohs(rdma_get_src_port(fabric.bound))

    cpdef close(self):
        """Stop listening; established lanes stay."""
        cdef Fabric fabric = self.fabric
        if fabric is not None and fabric.bound != NULL and not is_copy(fabric.born):
            rdma_destroy_id(fabric.bound)
            fabric.bound = NULL
