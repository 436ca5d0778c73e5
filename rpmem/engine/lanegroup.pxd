# cython: language_level=3
"""The lanes of one replica, and the step that makes its bytes durable."""

from rpmem.engine.engine cimport group_t


cdef class LaneGroup:
    """The lanes of one replica."""
    cdef group_t c
    cdef list lanes
    cdef list kept               # buffers that an interrupted read may still write to
    cdef readonly object owner   # has explain(fault, refusal, detail) -> RpmemError
    cdef readonly str step
