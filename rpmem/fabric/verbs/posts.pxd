# cython: language_level=3
"""Posting to a verbs queue pair, and the table of all functions of the fabric."""

from rpmem.fabric.verbs.structs cimport verbs_lane_t
from rpmem.wire.lane cimport fabric_ops_t


cdef const fabric_ops_t *verbs_ops() noexcept nogil
# Hand over posts that were held back: 0, or the lane is lost.
cdef int lane_submit(verbs_lane_t *own) noexcept nogil
