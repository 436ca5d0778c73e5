# cython: language_level=3
"""Memory registered with libfabric, and the domain it is registered in."""

from libc.stdint cimport uint64_t

from rpmem.fabric.libfabric.fabric cimport Fabric
from rpmem.fabric.libfabric.fi cimport fid_domain, fid_mr


cdef class Domain:
    """A domain in which memory is registered and endpoints are made."""
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
    cdef readonly uint64_t address    # to which the other side adds offsets
    cpdef close(self)
