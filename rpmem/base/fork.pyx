"""How an object knows that it was copied into a child by fork().

A forked child shares sockets, devices and mappings with its parent: if the child closed them, they
would be gone for both. So a copy of an object is dropped, not closed, and its calls are refused.
"""

import os

cdef unsigned int generation = 0


def _forked():
    global generation
    generation += 1


os.register_at_fork(after_in_child=_forked)


cdef unsigned int fork_generation() noexcept nogil:
    return generation


cdef bint is_copy(unsigned int born) noexcept nogil:
    return born != generation
