"""The engine's loop: poll, advance, give the core away, sleep, give up.

Everything here is nogil, allocates nothing and knows neither steps nor fabrics by name.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from rpmem._handout cimport handout_acquire, handout_free, handout_init, handout_release
from rpmem._lane cimport LANE_ABORTED, LANE_EXPIRED, LANE_UP, completion_t
from rpmem._polling cimport cores, give_way, now, politeness
from rpmem._steps cimport OPERATION_DONE, link_t, operation_t

cdef extern from * nogil:
    """
    #define rpmem_add(counter, n) __atomic_add_fetch((counter), (n), __ATOMIC_RELAXED)
    """
    uint32_t rpmem_add(uint32_t *counter, uint32_t n)

cdef enum:
    OPERATION_FINISHED = 1 << 16
    BATCH = 8
    LOOK_AT_CLOCK = 32           # empty polls between two looks
    SLICE_ONE = 100              # ms asleep at most, for one replica
    SLICE_MANY = 1               # ms, when others may need service meanwhile


cdef int engine_init(engine_t *engine, uint32_t groups, uint32_t lanes) noexcept:
    """Allocate for so many groups and lanes; 0, or -1 without memory."""
    engine.group_count = groups
    engine.lanes = lanes
    engine.active = 0
    engine.cores = cores()
    engine.politeness = politeness()
    engine.groups = <group_t **> calloc(groups + 1, sizeof(group_t *))
    engine.operations = <operation_t *> calloc(lanes * groups + 1, sizeof(operation_t))
    if engine.groups == NULL or engine.operations == NULL:
        return -1
    return -1 if handout_init(&engine.handout, lanes) else 0


cdef void engine_free(engine_t *engine) noexcept:
    handout_free(&engine.handout)
    free(engine.operations)
    free(engine.groups)
    engine.operations = NULL
    engine.groups = NULL


cdef void lose(engine_t *engine, uint32_t g, link_t *link, operation_t *operation, int fault,
               outcome_t *outcome) noexcept nogil:
    """The replica `g` failed: remember the first cause; whoever waits for it will notice."""
    if link.lane.state == LANE_UP and fault != LANE_ABORTED:
        link.lane.state = fault
    operation.flags |= OPERATION_FINISHED
    engine.groups[g].failed = 1
    if outcome.fault == 0:
        outcome.fault = fault
        outcome.group = <int32_t> g
        outcome.detail = link.lane.detail
        outcome.refusal = link.lane.refusal


cdef void settle(engine_t *engine, uint32_t g, link_t *link, operation_t *operation, int rc,
                 outcome_t *outcome) noexcept nogil:
    """What an advance said: over, lost, or still pending."""
    if rc == OPERATION_DONE:
        operation.flags |= OPERATION_FINISHED
    elif rc < 0:
        lose(engine, g, link, operation, rc, outcome)
    else:
        outcome.pending += 1


cdef inline int advance(link_t *link, operation_t *operation) noexcept nogil:
    if operation.advance != NULL:
        return operation.advance(link, operation)
    return link.step.advance(link, operation)


cdef void engine_begin(engine_t *engine, const operation_t *wanted, int32_t lane, int32_t group,
                       outcome_t *outcome) noexcept nogil:
    cdef operation_t *operation
    cdef link_t *link
    cdef uint32_t g
    cdef int rc
    memset(outcome, 0, sizeof(outcome_t))
    outcome.group = -1
    outcome.lane = -1
    if engine.group_count == 0:
        return
    lane = handout_acquire(&engine.handout, lane, engine.patience)
    outcome.lane = lane
    if lane < 0:
        outcome.fault = FAULT_NO_LANE
        return
    for g in range(engine.group_count):
        operation = &engine.operations[lane * engine.group_count + g]
        operation[0] = wanted[0]
        if group != EVERY_GROUP and group != <int32_t> g:
            operation.flags |= OPERATION_FINISHED
            continue
        link = &engine.groups[g].links[lane]
        operation.last_sequence = link.answered
        if operation.source == NULL:
            operation.source = link.pool
        rc = link.lane.state
        if engine.groups[g].failed:
            rc = LANE_ABORTED
        elif rc == LANE_UP:
            rc = advance(link, operation)
        settle(engine, g, link, operation, rc, outcome)


cdef int serve(link_t *link, operation_t *operation, bint *moved) noexcept nogil:
    """Take the lane's completions and go on with its operation."""
    cdef completion_t completions[BATCH]
    cdef int n = link.lane.ops.poll(link.lane.queue, completions, BATCH)
    cdef int i, rc
    if n < 0:
        return n
    for i in range(n):
        moved[0] = True
        rc = link.step.complete(link, &completions[i])
        if rc < 0:
            return rc
    return advance(link, operation)


cdef void give_up(engine_t *engine, operation_t *operations, int32_t lane, bint expired,
                  outcome_t *outcome) noexcept nogil:
    """End the operations of replicas that are lost, or of all when time is up."""
    cdef uint32_t g
    for g in range(engine.group_count):
        if operations[g].flags & OPERATION_FINISHED:
            continue
        if engine.groups[g].failed:
            lose(engine, g, &engine.groups[g].links[lane], &operations[g], LANE_ABORTED, outcome)
        elif expired:
            lose(engine, g, &engine.groups[g].links[lane], &operations[g], LANE_EXPIRED, outcome)


cdef void engine_end(engine_t *engine, outcome_t *outcome) noexcept nogil:
    cdef operation_t *operations
    cdef link_t *link
    cdef link_t *waiting = NULL
    cdef int32_t lane = outcome.lane
    cdef uint64_t since = 0, t
    cdef uint32_t g, idle = 0
    cdef bint moved, spins
    if lane < 0:
        return
    spins = engine.spin > 0
    if engine.lanes > engine.cores:
        spins = rpmem_add(&engine.active, 1) <= engine.cores and spins
    operations = &engine.operations[lane * engine.group_count]
    while outcome.pending:
        outcome.pending = 0
        moved = False
        for g in range(engine.group_count):
            if operations[g].flags & OPERATION_FINISHED:
                continue
            link = &engine.groups[g].links[lane]
            settle(engine, g, link, &operations[g], serve(link, &operations[g], &moved), outcome)
            if not operations[g].flags & OPERATION_FINISHED:
                waiting = link
        if moved:
            idle = 0
            since = 0
            continue
        if outcome.pending == 0:
            break
        idle += 1
        if idle % engine.politeness.every == 0:
            give_way(&engine.politeness)
        if idle % LOOK_AT_CLOCK and waiting.lane.queue.spins and spins:
            continue
        t = now()
        if since == 0:
            since = t
        give_up(engine, operations, lane, t - since > engine.patience, outcome)
        if not spins or t - since >= engine.spin or not waiting.lane.queue.spins:
            if waiting.lane.ops.wait(waiting.lane.queue,
                                     SLICE_ONE if outcome.pending == 1 else SLICE_MANY) > 0:
                idle = 0
    if engine.lanes > engine.cores:
        rpmem_add(&engine.active, <uint32_t> -1)
    handout_release(&engine.handout, <uint32_t> lane)
