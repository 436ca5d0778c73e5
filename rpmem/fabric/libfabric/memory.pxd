# cython: language_level=3
"""Where memory is registered with libfabric, and what was."""

from libc.stdint cimport uint64_t

from rpmem.fabric.libfabric.fabric cimport Fabric
from rpmem.fabric.libfabric.fi cimport fid_domain, fid_mr


cdef class Domain:
    """Where memory is registered and endpoints live."""
    cdef unsigned int born            # fork generation
    cdef fid_domain *domain
    cdef readonly Fabric fabric
    cpdef close(self)


cdef class Memory:
    """A registered range of memory."""
    cdef unsigned int born            # fork generation
    cdef fid_mr *mr
    cdef Domain domain
    cdef object keep
    cdef readonly uint64_t key
    cdef readonly uint64_t address    # what the other side adds offsets to
    cpdef close(self)
