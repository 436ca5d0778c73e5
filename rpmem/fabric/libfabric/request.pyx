"""A request for a lane over libfabric."""

from rpmem.fabric.libfabric.fi cimport bind_libfabric, fi_freeinfo

bind_libfabric()


cdef class Request:
    """A request for a connection; either becomes a FabricLane or is rejected."""

    def __dealloc__(self):
        if self.info != NULL:
            fi_freeinfo(self.info)

    cdef enter(self):
        """Let libfabric take over a connection that has waited at the door."""
        if self.visitor is not None:
            self.listener._take_over(self)

    cdef leave(self):
        """Release what the lane needed from the listener."""
        if self.behind is not None:
            self.listener._took_over(self)

    def reject(self):
        """Reject the request."""
        if self.visitor is not None:
            self.visitor.close()
            self.visitor = None
        if self.info != NULL:
            self.listener._turn_down(self)
