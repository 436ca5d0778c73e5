# cython: language_level=3
"""Somebody who wants a lane over libfabric."""

from rpmem.fabric.libfabric.fi cimport fi_info


cdef class Request:
    """Somebody who wants to connect."""
    cdef fi_info *info                # NULL: waits at the door, or was turned down
    cdef object listener
    cdef object visitor               # what waits at the door
    cdef object behind                # where libfabric takes over what has waited there
    cdef readonly bytes data          # the private data that came with it
    cdef readonly tuple peer          # (address, port)
    # Around the making of its lane: have libfabric take it over; let go of what that took.
    cdef enter(self)
    cdef leave(self)
