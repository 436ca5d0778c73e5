# cython: language_level=3
"""Polling a verbs queue, sleeping on it, waking the sleeper; faults of its lanes."""

from rpmem.fabric.verbs.structs cimport verbs_lane_t
from rpmem.wire.lane cimport completion_t, queue_t


# The lane's connection is gone; polling its queue reports that once.
cdef void lane_lost(verbs_lane_t *own, int detail) noexcept nogil
# Functions of `fabric_ops_t`.
cdef int verbs_poll(queue_t *base, completion_t *out, int room) noexcept nogil
cdef int verbs_wait(queue_t *base, int milliseconds) noexcept nogil
cdef void verbs_wake(queue_t *base) noexcept nogil
