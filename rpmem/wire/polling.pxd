# cython: language_level=3
"""Polling on a shared core: giving it to others that wait for it.

How often is learned from the yields themselves. A slow yield let another thread run that wanted
this core, often the very peer whose answer is awaited: then only a few polls separate two yields.
A yield that returns immediately had no one to give way to, and the next one is put off.

A poll that is a system call costs as much as a yield. So there the core is given away after every
empty one as long as others want it: nothing is quicker when more sides poll than there are cores.
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.wire.clock cimport now
from rpmem.wire.lane cimport queue_t

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<unistd.h>" nogil:
    enum: _SC_NPROCESSORS_ONLN
    long sysconf(int name)

cdef enum:
    POLLS_ALONE = 32             # empty polls between two yields if no other thread wants the core
    POLLS_SHARED = 2             # and if another thread does
    SLOW_YIELD = 1000            # ns above twice the quickest: another thread ran
    PATIENCE = 64                # quick yields before it is believed that no other thread does

ctypedef struct politeness_t:
    uint32_t every               # current number of empty polls between two yields
    uint32_t most                # and its maximum
    uint64_t quickest            # shortest yield so far, in ns
    uint32_t patience            # quick yields until fewer are made again


cdef inline uint32_t cores() noexcept nogil:
    """Number of processors of this machine."""
    return <uint32_t> max(1, sysconf(_SC_NPROCESSORS_ONLN))


cdef inline politeness_t politeness() noexcept nogil:
    """The initial state. On a single core nothing can arrive before the peer has had it."""
    cdef politeness_t p
    p.most = POLLS_ALONE if cores() > 1 else 1
    p.every = p.most
    p.quickest = <uint64_t> -1
    p.patience = 0
    return p


cdef inline bint give_way(politeness_t *p, uint32_t shared) noexcept nogil:
    """Yield, and learn from how long it took; True if another thread had the core."""
    cdef uint64_t took = now()
    sched_yield()
    took = now() - took
    if took < p.quickest:
        p.quickest = took
    if took > 2 * p.quickest + SLOW_YIELD:
        p.every = min(p.most, shared)
        p.patience = PATIENCE
        return True
    if p.patience:
        p.patience -= 1
    elif p.every < p.most:
        p.every = min(2 * p.every, p.most)
    return False


cdef inline bint after_empty_poll(politeness_t *p, const queue_t *queue,
                                  uint32_t idle) noexcept nogil:
    """Yield if it is time to, after `idle` empty polls; True if another thread had the core."""
    if idle % p.every == 0:
        return give_way(p, 1 if queue.calls else POLLS_SHARED)
    return False
