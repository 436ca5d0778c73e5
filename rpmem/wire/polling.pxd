# cython: language_level=3
"""Polling beside others: giving the core to whoever waits for it.

How often is found out by doing it.  A yield that takes long let somebody run who wanted this core,
often the very peer whose answer is awaited: then few polls are enough between two of them.  One
that returns at once had nobody to give way to, and the next is put off.
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.wire.clock cimport now

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<unistd.h>" nogil:
    enum: _SC_NPROCESSORS_ONLN
    long sysconf(int name)

cdef enum:
    POLLS_ALONE = 32             # empty polls between two yields, when nobody else wants the core
    POLLS_SHARED = 2             # and when somebody does
    SLOW_YIELD = 1000            # ns more than twice the quickest: somebody else ran

ctypedef struct politeness_t:
    uint32_t every               # empty polls between two yields, now
    uint32_t most                # and at most
    uint64_t quickest            # ns that a yield took


cdef inline uint32_t cores() noexcept nogil:
    """Processors of this machine."""
    return <uint32_t> max(1, sysconf(_SC_NPROCESSORS_ONLN))


cdef inline politeness_t politeness() noexcept nogil:
    """How to begin.  On a single core nothing can arrive before the peer had it."""
    cdef politeness_t p
    p.most = POLLS_ALONE if cores() > 1 else 1
    p.every = p.most
    p.quickest = <uint64_t> -1
    return p


cdef inline void give_way(politeness_t *p) noexcept nogil:
    """Yield, and learn from how long it took."""
    cdef uint64_t took = now()
    sched_yield()
    took = now() - took
    if took < p.quickest:
        p.quickest = took
    if took > 2 * p.quickest + SLOW_YIELD:
        p.every = min(p.most, <uint32_t> POLLS_SHARED)
    elif p.every < p.most:
        p.every = min(2 * p.every, p.most)
