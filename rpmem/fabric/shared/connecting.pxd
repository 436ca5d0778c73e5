# cython: language_level=3
"""How lanes are connected, on either side: event by event, each within a time limit."""

from rpmem.fabric.shared.lane cimport ConnectedLane


cdef class Connector:
    """The base of the fabrics' Fabric: knows the lanes that are being connected."""
    cdef unsigned int born            # fork generation
    cdef readonly str provider
    cdef readonly str host            # the host it was made for
    cdef int port
    cdef str unanswered               # a likely cause if there is no answer
    cdef dict joining                 # key to lane: asked for or accepted, not yet connected
    cdef object problem               # an error that ends the wait for all of them
    # Wait for one event: return a Request, the lane that the event was about, or None.
    cdef object turn(self, double timeout_s)


cdef class Acceptor:
    """The base of the fabrics' Listener."""
    cdef readonly Connector fabric
    cdef readonly int port
    cpdef close(self)
