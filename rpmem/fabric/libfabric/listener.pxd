# cython: language_level=3
"""The listener for lanes over libfabric."""

from rpmem.fabric.libfabric.fabric cimport Fabric
from rpmem.fabric.libfabric.fi cimport fid_pep
from rpmem.fabric.libfabric.request cimport Request
from rpmem.fabric.shared.connecting cimport Acceptor


cdef class Listener(Acceptor):
    """A passive endpoint, perhaps behind a door."""
    cdef unsigned int born            # fork generation
    cdef fid_pep *endpoint
    cdef object door
    cdef Fabric inner                 # behind the door
    cdef Request next_at_door(self, double timeout_s)
    cdef Request await_request(self, tuple peer)
