# cython: language_level=3
"""Keeping a service thread off the processor of its initiator.

On one processor the two wait for each other by turns, though another may be idle: the scheduler
leaves those where they are that yield so often. A thread that found so moves, and may be anywhere
again afterwards.
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.wire.clock cimport now

cdef extern from *:
    """
    #include <sched.h>

    /* Go to another of the processors on which this thread may run, if there is one. */
    static inline void rpmem_leave(int processor) {
        cpu_set_t all, others;
        if (sched_getaffinity(0, sizeof(all), &all)) return;
        others = all;
        CPU_CLR(processor, &others);
        if (!CPU_COUNT(&others) || sched_setaffinity(0, sizeof(others), &others)) return;
        sched_setaffinity(0, sizeof(all), &all);
    }
    """
    void rpmem_leave(int processor) nogil

cdef extern from "<sched.h>" nogil:
    int sched_getcpu()

cdef enum:
    STAY_NS = 2000000            # between two moves: each takes about 20 us


cdef inline void keep_apart(uint32_t neighbour, uint64_t *moved) noexcept nogil:
    """Move if `neighbour`, 1 + a processor, is this one; `moved` is when that was last done."""
    cdef int processor = sched_getcpu()
    cdef uint64_t t
    if processor < 0 or neighbour != 1 + <uint32_t> processor:
        return
    t = now()
    if t - moved[0] > STAY_NS:
        moved[0] = t
        rpmem_leave(processor)
