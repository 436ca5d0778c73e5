# cython: language_level=3
"""The base of the fabrics' lanes: message buffers, and what is known of the connection."""

from libc.stdint cimport uint32_t

from rpmem.wire.lane cimport Lane


cdef class ConnectedLane(Lane):
    """A lane with buffers of its own, connected or about to be."""
    cdef char *area                   # all its buffers, in one piece
    cdef readonly bint connected
    cdef object buffers               # their registration, if they have one
    cdef object problem               # what ended it while it was being connected
    # Allocate the buffers, number and size of each kind; returns their bytes.
    cdef size_t lay_out(self, tuple send, tuple receive, uint32_t scratch) except 0
    # The connection is over: note it, and deregister the buffers.
    cdef ended(self)
