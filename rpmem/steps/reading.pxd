# cython: language_level=3
"""How a range is read from a replica."""

from rpmem.steps.step cimport link_t, operation_t


# READ the operation's single range into its destination; an `advance` like a step's.
cdef int read_advance(link_t *link, operation_t *operation) noexcept nogil
