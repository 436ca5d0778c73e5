# cython: language_level=3
"""A request for a lane over libfabric."""

from rpmem.fabric.libfabric.fi cimport fi_info


cdef class Request:
    """A peer's request to connect."""
    cdef fi_info *info                # NULL: waits at the door, or was rejected
    cdef object listener
    cdef object visitor               # the connection that waits at the door
    cdef object behind                # the listener through which libfabric takes it over
    cdef readonly bytes data          # the private data that came with it
    cdef readonly tuple peer          # (address, port)
    # Before and after making its lane: let libfabric take it over; release what that needed.
    cdef enter(self)
    cdef leave(self)
