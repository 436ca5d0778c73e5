# cython: language_level=3
"""How lanes come about, on either side: one event after the other, each within bounded time."""

from rpmem.fabric.shared.lane cimport ConnectedLane


cdef class Connector:
    """The base of the fabrics' Fabric: knows the lanes that are being connected."""
    cdef unsigned int born            # fork generation
    cdef readonly str provider
    cdef str host                     # what it was made for
    cdef int port
    cdef str unanswered               # what may be the matter where nobody answers
    cdef dict joining                 # key to lane: asked for or accepted, not yet connected
    cdef object problem               # what ends the wait for all of them
    # Wait for one event: a Request, the lane that it was about, or None.
    cdef object turn(self, double timeout_s)


cdef class Acceptor:
    """The base of the fabrics' Listener."""
    cdef readonly Connector fabric
    cdef readonly int port
    cpdef close(self)
