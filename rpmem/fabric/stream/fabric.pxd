# cython: language_level=3
"""One address at which lanes over byte streams are made, or accepted."""

from rpmem.fabric.shared.connecting cimport Connector
from rpmem.fabric.shared.lane cimport ConnectedLane
from rpmem.fabric.stream.keyring cimport Keyring


cdef class Fabric(Connector):
    """Knows the lanes that are being connected."""
    cdef readonly object carrier      # what pairs of sockets are passed over, if that is wanted
    cdef list addresses               # what the host's name stands for
    cdef list accepted                # lanes of this side that nobody was told of yet
    cdef readonly Keyring ring        # the keys of encrypted lanes; None: they are not encrypted
    cdef readonly list proofs         # of those lanes
    cpdef close(self)
    cdef bint proceed(self, ConnectedLane lane) except -1
