# cython: language_level=3
"""The base of the fabrics' lanes: message buffers and the state of the connection."""

from libc.stdint cimport uint32_t

from rpmem.wire.lane cimport Lane


cdef class ConnectedLane(Lane):
    """A lane that owns its buffers, connected or about to be."""
    cdef char *area                   # all its buffers, in one block
    cdef readonly bint connected
    cdef object buffers               # their registration, if any
    cdef object problem               # the error that ended it while it was being connected
    # Allocate the buffers, given number and size of each kind; return their total size.
    cdef size_t lay_out(self, tuple send, tuple receive, uint32_t scratch) except 0
    # The connection has ended: record that, and deregister the buffers.
    cdef ended(self)
