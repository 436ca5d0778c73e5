"""How an object knows that it was copied into a child by fork(), and how many forks there were.

A forked child shares sockets, devices and mappings with its parent: if the child closed them, they
would be gone for both. So a copy of an object is dropped, not closed, and its calls are refused.
"""

import os

cdef extern from *:
    """
    #include <pthread.h>

    static unsigned int rpmem_forks;

    static void rpmem_before_fork(void)
    {
        __atomic_add_fetch(&rpmem_forks, 1, __ATOMIC_SEQ_CST);
    }

    static int rpmem_count_forks(void)
    {
        return pthread_atfork(rpmem_before_fork, NULL, NULL);
    }

    static inline unsigned int rpmem_forks_so_far(void)
    {
        return __atomic_load_n(&rpmem_forks, __ATOMIC_SEQ_CST);
    }
    """
    int rpmem_count_forks()
    unsigned int rpmem_forks_so_far()

cdef unsigned int generation = 0


def _forked():
    global generation
    generation += 1


os.register_at_fork(after_in_child=_forked)
if rpmem_count_forks():
    raise MemoryError("no memory to count forks")


def forks():
    """How often this process has begun to fork, by Python or by any other code.

    Children that only run another program (vfork, posix_spawn) are not counted: they never store to
    the parent's memory.
    """
    return rpmem_forks_so_far()


cdef unsigned int fork_generation() noexcept nogil:
    return generation


cdef bint is_copy(unsigned int born) noexcept nogil:
    return born != generation
