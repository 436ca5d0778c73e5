# cython: language_level=3
"""A provider of libfabric, for one address."""

from rpmem.fabric.libfabric.fi cimport fi_eq_cm_entry, fi_info, fid_eq, fid_fabric
from rpmem.fabric.libfabric.request cimport Request
from rpmem.fabric.shared.connecting cimport Connector
from rpmem.fabric.shared.lane cimport ConnectedLane


cdef class Fabric(Connector):
    """One provider, for one address."""
    cdef fi_info *info
    cdef fid_fabric *fabric
    cdef fid_eq *events
    cdef readonly bint commits        # offers commit-complete
    cdef Request request(self, fi_eq_cm_entry *entry, ssize_t length)
    cdef ConnectedLane failed(self)
    cdef nudge(self)
    cpdef close(self)
