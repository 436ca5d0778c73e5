# cython: language_level=3
"""What a service thread does about the processor it runs on.

Built by tests.support.compiled; never part of the package.
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.wire.apart cimport keep_apart


cdef extern from "<sched.h>" nogil:
    int sched_getcpu()


def kept_apart(uint32_t neighbour, uint64_t moved=0):
    """Return where the thread is then, and when it was last moved."""
    cdef int now_on
    with nogil:
        keep_apart(neighbour, &moved)
        now_on = sched_getcpu()
    return now_on, moved
