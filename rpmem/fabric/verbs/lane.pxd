# cython: language_level=3
"""A lane over one queue pair, and how it is connected."""

from libc.stdint cimport uint32_t

from rpmem.fabric.shared.lane cimport ConnectedLane
from rpmem.fabric.verbs.fabric cimport Fabric
from rpmem.fabric.verbs.memory cimport Domain, Memory
from rpmem.fabric.verbs.queue cimport Queue
from rpmem.fabric.verbs.request cimport Request
from rpmem.fabric.verbs.structs cimport verbs_lane_t


cdef enum stage_t:
    STAGE_NEW
    STAGE_ADDRESS                 # the device that leads there is known
    STAGE_ROUTE                   # and the route
    STAGE_ASKING
    STAGE_CONNECTED
    STAGE_FAILED


cdef class FabricLane(ConnectedLane):
    """A lane over one queue pair."""
    cdef verbs_lane_t *own
    cdef Fabric fabric
    cdef Queue queue
    cdef Domain domain
    cdef Memory pool
    cdef stage_t stage
    cdef bint passive
    cdef int reads                    # READs that the target answers at the same time
    cdef int prepare(self, tuple send, tuple receive, Memory pool, Request request) except -1
    cdef int make_buffers(self, tuple send, tuple receive, uint32_t scratch) except -1
    cdef int make_id(self) except -1
    cdef int resolve(self) except -1
    cdef int make_pair(self) except -1
    cdef int try_pair(self, int inline_size, bint direct) noexcept
    cdef int move(self, int state) except -1
    cdef int await_stage(self, stage_t wanted, int milliseconds) except -1
    cdef int join(self) except -1
    cpdef close(self)
