"""A request for a lane over verbs."""

from rpmem.base.fork cimport is_copy
from rpmem.fabric.verbs.failures cimport must
from rpmem.fabric.verbs.rdmacm cimport bind_librdmacm, rdma_destroy_id, rdma_reject

bind_librdmacm()


cdef class Request:
    """A request for a connection; either becomes a FabricLane or is rejected."""

    def __dealloc__(self):
        if self.id != NULL and not is_copy(self.born):
            rdma_destroy_id(self.id)

    def reject(self):
        """Reject the request."""
        cdef int rc
        if self.id != NULL:
            rc = rdma_reject(self.id, NULL, 0)
            rdma_destroy_id(self.id)
            self.id = NULL
            must(rc, "rdma_reject", "verbs")
