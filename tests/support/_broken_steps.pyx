# cython: language_level=3
"""Steps that break a promise, to show that a test would notice.

Built by tests.support.compiled; never part of the package.
"""

from libc.stdint cimport uint32_t

from rpmem.engine.lanegroup cimport LaneGroup
from rpmem.steps.step cimport OPERATION_DONE, OPERATION_PENDING, link_t, operation_t, step_t
from rpmem.wire.lane cimport COMPLETED_RECEIVE, LANE_UP, completion_t
from rpmem.wire.messages cimport MESSAGE_REPLY, reply_t

cdef const step_t *HONEST = NULL
cdef step_t BROKEN


cdef int answers_are_counted(link_t *link, const completion_t *completion) noexcept nogil:
    """Any answer is taken for the one that is waited for, also one that came before."""
    cdef reply_t *reply
    if completion.kind == COMPLETED_RECEIVE and link.answered != link.sequence:
        reply = <reply_t *> (link.lane.receive_area
                             + <size_t> completion.slot * link.lane.receive_size)
        if reply.kind == MESSAGE_REPLY and reply.sequence == link.answered:
            reply.sequence = link.sequence
    return HONEST.complete(link, completion)


cdef int does_not_wait(link_t *link, operation_t *operation) noexcept nogil:
    """What was posted is taken for what is durable."""
    cdef int rc = HONEST.advance(link, operation)
    return OPERATION_DONE if rc == OPERATION_PENDING and link.lane.state == LANE_UP else rc


def break_step(LaneGroup group, str how):
    """Have the lanes of a replica go by a step that breaks a promise.

    Parameters
    ----------
    group : LaneGroup
    how : {"counts answers", "does not wait"}
    """
    global HONEST, BROKEN
    cdef uint32_t i
    HONEST = group.c.links[0].step
    BROKEN = HONEST[0]
    if how == "counts answers":
        BROKEN.complete = answers_are_counted
    else:
        BROKEN.advance = does_not_wait
    for i in range(group.c.lanes):
        group.c.links[i].step = &BROKEN
