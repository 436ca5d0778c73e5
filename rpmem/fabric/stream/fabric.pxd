# cython: language_level=3
"""One address at which lanes over byte streams are made, or accepted."""

from rpmem.fabric.shared.connecting cimport Connector
from rpmem.fabric.shared.lane cimport ConnectedLane


cdef class Fabric(Connector):
    """Knows the lanes that are being connected."""
    cdef readonly bint listens
    cdef list addresses               # what the host's name stands for
    cdef list accepted                # lanes of this side that nobody was told of yet
    cpdef close(self)
    cdef bint proceed(self, ConnectedLane lane) except -1
