# cython: language_level=3
"""A request for a lane over verbs."""

from rpmem.fabric.verbs.rdmacm cimport rdma_cm_id


cdef class Request:
    """A peer's request to connect."""
    cdef rdma_cm_id *id
    cdef unsigned int born            # see fork_generation
    cdef int reads                    # READs that it would like to have under way together
    cdef readonly bytes data          # the private data that came with it
    cdef readonly tuple peer          # (address, port)
