# cython: language_level=3
"""The engine: one operation on the same lane of every replica, from its posts to its end."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from rpmem.engine.handout cimport handout_t
from rpmem.engine.overlaps cimport overlaps_t
from rpmem.memory.changes.pageset cimport pageset_t
from rpmem.wire.polling cimport politeness_t
from rpmem.steps.step cimport link_t, operation_t


cdef enum:
    FAULT_NO_LANE = -101      # none became free in time
    FAULT_INTERRUPTED = -102  # see `raised`
    EVERY_GROUP = -1
    FAILED_OUTSIDE = -1
    MOST_ABSENT = 16          # copies that are away and known

# The lanes of one replica.
ctypedef struct group_t:
    link_t *links
    uint32_t lanes
    # 0; FAILED_OUTSIDE; or 1 + the lane that failed first. Every waiter checks it; any thread
    # sets it, once.
    int failed

# The state of an operation, and what ended it if it failed.
ctypedef struct outcome_t:
    int32_t lane              # the one it took
    uint32_t pending          # replicas that have not finished it
    int32_t fault             # 0, LANE_..., FAULT_...
    int32_t group             # the replica that failed first, or that a lane was waited for
    int32_t detail
    int32_t refusal
    int32_t local             # 0, or the errno of the local medium's refusal
    bint reading              # an abandoned READ may still write to its destination
    void *raised              # an exception that ended the wait, owned, or NULL

ctypedef struct engine_t:
    group_t **groups
    uint32_t group_count
    uint32_t lanes            # the number that every group has
    operation_t *operations   # lanes x groups
    handout_t handout
    overlaps_t overlaps
    uint64_t spin_ns          # polling time before sleeping
    uint32_t cores            # of this machine: waiters beyond that only sleep
    politeness_t politeness
    uint32_t active           # calls under way
    uint64_t patience_ns      # the limit without progress
    pageset_t *sent           # pages that calls send are marked there first; NULL: nowhere
    pageset_t *passing        # the same, also where a call takes the bytes from another place
    # what a replica may lack that fails: pages of calls that ended without it; NULL: nobody asks
    pageset_t *doubtful
    pageset_t *absent[MOST_ABSENT]  # what copies that are away miss: all pages of all calls
    uint32_t absent_count


# Mark a replica as lost, by the failure of one of its lanes or (NULL) from outside.
cdef void group_fail(group_t *group, const link_t *link) noexcept nogil
# Tell how a replica was lost: by `link`'s fault, or by that of the lane that failed before it.
cdef void group_tell(const group_t *group, const link_t *link, int fault,
                     outcome_t *outcome) noexcept nogil
cdef int engine_init(engine_t *engine, uint32_t groups, uint32_t lanes) noexcept
cdef void engine_free(engine_t *engine) noexcept
# Take `lane` (-1: any) and start a copy of `wanted` on one group or on every group.
cdef void engine_begin(engine_t *engine, const operation_t *wanted, int32_t lane, int32_t group,
                       outcome_t *outcome) noexcept nogil
# Wait for pending operations and release the lane.
cdef void engine_end(engine_t *engine, outcome_t *outcome) noexcept nogil
# Take any lane once no call has the ranges under way, and keep others from entering them; what is
# begun with OPERATION_HELD on that lane leaves both as they are. `leaves`: some of it may be late.
cdef void engine_hold(engine_t *engine, const operation_t *wanted,
                      outcome_t *outcome) noexcept nogil
cdef void engine_release(engine_t *engine, int32_t lane, bint leaves) noexcept nogil
# Add to a set the pages that calls have under way or have left behind.
cdef void engine_under_way(engine_t *engine, pageset_t *pages) noexcept nogil
