"""The engine's loop: poll, advance, yield the core, sleep, give up.

Everything here is nogil, allocates nothing and knows neither steps nor fabrics by name. Only a
thread that has waited for long takes the GIL briefly, to check for a signal.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_INCREF

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from rpmem.engine.handout cimport handout_acquire, handout_free, handout_init, handout_release
from rpmem.wire.lane cimport (
    LANE_ABORTED, LANE_EXPIRED, LANE_INTERRUPTED, LANE_UP, completion_t,
)
from rpmem.engine.overlaps cimport (
    overlaps_each, overlaps_enter, overlaps_free, overlaps_init, overlaps_leave, overlaps_left,
    overlaps_wait,
)
from rpmem.memory.changes.pageset cimport page_at, page_behind, pages_add, pages_mark, pageset_t
from rpmem.wire.clock cimport now
from rpmem.wire.polling cimport after_empty_poll, cores, politeness
from rpmem.steps.step cimport (
    OPERATION_DONE, OPERATION_DRAIN, OPERATION_FLUSH, OPERATION_HELD, OPERATION_RELAXED, link_t,
    operation_t, range_t,
)

from rpmem.base.interrupts import check

cdef extern from * nogil:
    """
    #define rpmem_add(counter, n) __atomic_add_fetch((counter), (n), __ATOMIC_RELAXED)
    """
    uint32_t rpmem_add(uint32_t *counter, uint32_t n)
    bint __sync_bool_compare_and_swap(int *place, int before, int after)

cdef enum:
    OPERATION_FINISHED = 1 << 16
    BATCH = 8
    LOOK_AT_CLOCK = 32           # empty polls between two readings
    LOOK_AT_OTHERS = 8           # empty polls of a replica until others are, if each is a call
    LOOK_AT_ALL = 64             # rounds between two readings, even if completions keep coming
    SLICE_ONE_MS = 50            # longest sleep in ms, for one replica
    SLICE_MANY_MS = 1            # the same if other replicas may need service meanwhile
    LISTEN_NS = 50000000         # ns between two checks for a signal
    LATE_NS = 100000000          # ns that an interrupted read waits for its data


cdef int engine_init(engine_t *engine, uint32_t groups, uint32_t lanes) noexcept:
    """Allocate for so many groups and lanes; 0, or -1 if out of memory."""
    cdef uint32_t i
    engine.group_count = groups
    engine.lanes = lanes
    engine.active = 0
    engine.cores = cores()
    engine.politeness = politeness()
    engine.groups = <group_t **> calloc(groups + 1, sizeof(group_t *))
    engine.operations = <operation_t *> calloc(lanes * groups + 1, sizeof(operation_t))
    if engine.groups == NULL or engine.operations == NULL:
        return -1
    for i in range(lanes * groups):
        engine.operations[i].flags = OPERATION_FINISHED
    if overlaps_init(&engine.overlaps, lanes):
        return -1
    return -1 if handout_init(&engine.handout, lanes) else 0


cdef void engine_free(engine_t *engine) noexcept:
    handout_free(&engine.handout)
    overlaps_free(&engine.overlaps)
    free(engine.operations)
    free(engine.groups)
    engine.operations = NULL
    engine.groups = NULL


cdef void group_fail(group_t *group, const link_t *link) noexcept nogil:
    __sync_bool_compare_and_swap(&group.failed, 0, FAILED_OUTSIDE if link == NULL else
                                 1 + <int> (link - group.links))


cdef void group_tell(const group_t *group, const link_t *link, int fault,
                     outcome_t *outcome) noexcept nogil:
    cdef int failed = group.failed
    if fault == LANE_ABORTED and failed > 0:
        link = &group.links[failed - 1]
        fault = link.lane.state
    outcome.fault = fault
    outcome.detail = link.lane.detail
    outcome.refusal = link.lane.refusal


cdef void mark_ranges(pageset_t *pages, const operation_t *operation) noexcept nogil:
    """Add the pages of an operation's ranges to a set."""
    cdef const range_t *r
    cdef size_t i
    for i in range(operation.count):
        r = &operation.ranges[i]
        if r.length:
            pages_mark(pages, page_at(pages, r.offset), page_behind(pages, r.offset + r.length))


cdef void mark_left(engine_t *engine, int32_t lane) noexcept nogil:
    """Mark what flushes left behind on a lane: a replica did not say that it has it."""
    cdef uint64_t low, high
    overlaps_left(&engine.overlaps, <uint32_t> lane, &low, &high)
    if low < high:
        pages_mark(engine.doubtful, page_at(engine.doubtful, low),
                   page_behind(engine.doubtful, high))


cdef void lose(engine_t *engine, uint32_t g, link_t *link, operation_t *operation, int fault,
               outcome_t *outcome) noexcept nogil:
    """The replica `g` failed: keep the first cause; all that wait for it will notice."""
    if link.lane.state == LANE_UP and fault != LANE_ABORTED:
        link.lane.state = fault
    operation.flags |= OPERATION_FINISHED
    group_fail(engine.groups[g], link)
    if engine.doubtful != NULL and operation.destination == NULL:
        mark_ranges(engine.doubtful, operation)
    if operation.destination != NULL and (operation.phase or operation.done) and link.outstanding:
        outcome.reading = True
    if outcome.fault == 0:
        outcome.group = <int32_t> g
        group_tell(engine.groups[g], link, fault, outcome)


cdef void settle(engine_t *engine, uint32_t g, link_t *link, operation_t *operation, int rc,
                 outcome_t *outcome) noexcept nogil:
    """Process the result of an advance: done, lost, or still pending."""
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


cdef void *interruption() noexcept with gil:
    """The exception that a signal's handler raised, or NULL; the caller owns it."""
    try:
        PyErr_CheckSignals()
        check()
    except BaseException as error:
        Py_INCREF(error)
        return <void *> error
    return NULL


cdef int32_t waited_for(const engine_t *engine, int32_t wanted) noexcept nogil:
    """A replica that has not finished what a lane (-1: any) is taken for, or is lost; or -1."""
    cdef uint32_t lane, g
    for lane in range(engine.lanes):
        if wanted < 0 or lane == <uint32_t> wanted:
            for g in range(engine.group_count):
                if engine.operations[lane * engine.group_count + g].flags & OPERATION_FINISHED == 0:
                    return <int32_t> g
    for g in range(engine.group_count):
        if engine.groups[g].failed:
            return <int32_t> g
    return -1


cdef int32_t take_lane(engine_t *engine, int32_t wanted, outcome_t *outcome) noexcept nogil:
    """Return a free lane, or -1 and the reason."""
    cdef uint64_t since
    cdef int32_t lane = handout_acquire(&engine.handout, wanted, 0)
    if lane >= 0:
        return lane
    since = now()
    while lane < 0:
        if now() - since > engine.patience_ns:
            outcome.fault = FAULT_NO_LANE
            outcome.group = waited_for(engine, wanted)
            return -1
        lane = handout_acquire(&engine.handout, wanted, LISTEN_NS)
        if lane < 0:
            outcome.raised = interruption()
            if outcome.raised != NULL:
                outcome.fault = FAULT_INTERRUPTED
                return -1
    return lane


cdef void drain(engine_t *engine, int32_t lane, outcome_t *outcome) noexcept nogil:
    """Wait for operations left behind on a lane, so that they cannot overtake later ones."""
    cdef operation_t operation
    cdef outcome_t drained
    memset(&operation, 0, sizeof(operation))
    operation.flags = OPERATION_DRAIN
    engine_begin(engine, &operation, lane, EVERY_GROUP, &drained)
    engine_end(engine, &drained)
    if outcome.fault == 0 or drained.raised != NULL:
        outcome.fault = drained.fault
        outcome.group = drained.group
        outcome.detail = drained.detail
        outcome.refusal = drained.refusal
        outcome.raised = drained.raised


cdef int32_t enter(engine_t *engine, const operation_t *wanted, int32_t number,
                   outcome_t *outcome) noexcept nogil:
    """Return a lane on which the operation overtakes nothing, or -1 and the reason."""
    cdef uint64_t since = 0
    cdef int32_t lane, other
    while True:
        lane = take_lane(engine, number, outcome)
        if lane < 0 or wanted.destination != NULL:
            return lane
        # What a flush has held back is sent by the drain, after bytes that were copied before.
        other = overlaps_enter(&engine.overlaps, <uint32_t> lane, wanted.ranges, wanted.count,
                               wanted.flags & OPERATION_RELAXED != 0 or wanted.prepare != NULL)
        if other < 0:
            return lane
        handout_release(&engine.handout, <uint32_t> lane)
        if overlaps_wait(&engine.overlaps, <uint32_t> other, LISTEN_NS):
            drain(engine, other, outcome)
            since = 0  # the drain had its own time limit
        else:
            outcome.raised = interruption()
            if outcome.raised != NULL:
                outcome.fault = FAULT_INTERRUPTED
        if since == 0:
            since = now()
        elif now() - since > engine.patience_ns:
            outcome.fault = FAULT_NO_LANE
            outcome.group = waited_for(engine, other)
        if outcome.raised != NULL or outcome.fault == FAULT_NO_LANE:
            return -1


cdef void leave(engine_t *engine, const operation_t *operation, outcome_t *outcome) noexcept nogil:
    """Release the lane; data that has not arrived is left behind on it."""
    cdef bint broken = outcome.raised != NULL
    cdef bint leaves = broken or operation.flags & OPERATION_FLUSH != 0
    cdef bint drained = operation.flags & OPERATION_DRAIN != 0 and not broken
    cdef uint32_t g
    if operation.destination == NULL:
        if drained and outcome.fault and engine.doubtful != NULL:
            mark_left(engine, outcome.lane)
        if leaves or drained:
            # Lanes may outlive this engine; the next one has to drain what is left on them.
            for g in range(engine.group_count):
                engine.groups[g].links[outcome.lane].undrained = leaves
        if operation.flags & OPERATION_HELD:
            return
        overlaps_leave(&engine.overlaps, <uint32_t> outcome.lane, leaves,
                       broken or operation.flags & OPERATION_RELAXED != 0, drained)
    if operation.flags & OPERATION_HELD:
        return
    handout_release(&engine.handout, <uint32_t> outcome.lane)


cdef void mark_page(void *pages, uint64_t offset, uint64_t length) noexcept nogil:
    cdef pageset_t *found = <pageset_t *> pages
    pages_add(found, page_at(found, offset), page_behind(found, offset + length))


cdef void engine_under_way(engine_t *engine, pageset_t *pages) noexcept nogil:
    overlaps_each(&engine.overlaps, mark_page, pages)


cdef void engine_hold(engine_t *engine, const operation_t *wanted,
                      outcome_t *outcome) noexcept nogil:
    memset(outcome, 0, sizeof(outcome_t))
    outcome.group = outcome.lane = -1
    if engine.group_count:
        outcome.lane = enter(engine, wanted, -1, outcome)


cdef void engine_release(engine_t *engine, int32_t lane, bint leaves) noexcept nogil:
    overlaps_leave(&engine.overlaps, <uint32_t> lane, leaves, leaves, False)
    handout_release(&engine.handout, <uint32_t> lane)


cdef void engine_begin(engine_t *engine, const operation_t *wanted, int32_t lane, int32_t group,
                       outcome_t *outcome) noexcept nogil:
    cdef operation_t *operation
    cdef link_t *link
    cdef uint32_t g
    cdef int rc
    memset(outcome, 0, sizeof(outcome_t))
    outcome.group = -1
    outcome.lane = -1
    if wanted.destination == NULL:
        # Before anything else: whatever becomes of the call, these copies do not get it.
        for g in range(engine.absent_count):
            mark_ranges(engine.absent[g], wanted)
    if engine.group_count == 0:
        if wanted.prepare != NULL:
            wanted.prepare(wanted.context)
        return
    if not wanted.flags & OPERATION_HELD:
        lane = enter(engine, wanted, lane, outcome)
    outcome.lane = lane
    if lane < 0:
        return
    if engine.passing != NULL and wanted.destination == NULL:
        mark_ranges(engine.passing, wanted)
    if wanted.prepare != NULL:
        wanted.prepare(wanted.context)
    elif engine.sent != NULL and wanted.destination == NULL and (
            wanted.source == NULL or wanted.flags & OPERATION_HELD):
        # Whoever looks before is overtaken by nothing older.
        mark_ranges(engine.sent, wanted)
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
    """Take the lane's completions and advance its operation."""
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
    """End the operations of lost replicas, or of all when time is up."""
    cdef uint32_t g
    for g in range(engine.group_count):
        if operations[g].flags & OPERATION_FINISHED:
            continue
        if engine.groups[g].failed:
            lose(engine, g, &engine.groups[g].links[lane], &operations[g], LANE_ABORTED, outcome)
        elif expired:
            lose(engine, g, &engine.groups[g].links[lane], &operations[g], LANE_EXPIRED, outcome)


cdef int collect(link_t *link, uint64_t patience_ns) noexcept nogil:
    """Wait until one-sided posts are complete: 0, or a fault."""
    cdef completion_t completions[BATCH]
    cdef uint64_t since = now()
    cdef int n, i, rc
    while link.outstanding:
        n = link.lane.ops.poll(link.lane.queue, completions, BATCH)
        if n < 0:
            return n
        for i in range(n):
            rc = link.step.complete(link, &completions[i])
            if rc < 0:
                return rc
        if n == 0 and now() - since > patience_ns:
            return LANE_INTERRUPTED
        if n == 0:
            link.lane.ops.wait(link.lane.queue, SLICE_MANY_MS)
    return 0


cdef void interrupt(engine_t *engine, operation_t *operations, int32_t lane,
                    outcome_t *outcome) noexcept nogil:
    """Leave the operations as they are.

    The lane can be used again: answers name their message, and an operation waits for everything
    posted before it. Only a read writes to memory that the caller may free: its data has to arrive
    now, or the replica is lost.
    """
    cdef link_t *link
    cdef uint32_t g
    cdef int rc
    for g in range(engine.group_count):
        if operations[g].flags & OPERATION_FINISHED:
            continue
        link = &engine.groups[g].links[lane]
        link.backlog.count = 0  # it is sent anew, from its beginning
        if operations[g].count and operations[g].destination == NULL:
            link.adrift.offset = operations[g].ranges[0].offset
            link.adrift.length = max(<uint64_t> 1, min(operations[g].ranges[0].length,
                                                       <uint64_t> 8))
        rc = 0
        if operations[g].destination != NULL:
            rc = collect(link, LATE_NS)
        if rc < 0:
            lose(engine, g, link, &operations[g], rc, outcome)
        operations[g].flags |= OPERATION_FINISHED
    if outcome.fault == 0:
        outcome.fault = FAULT_INTERRUPTED
    outcome.pending = 0


cdef inline int slumber(link_t *link, uint32_t pending) noexcept nogil:
    """Sleep until a lane may have something: 1, or 0 if it is time to look at others."""
    return link.lane.ops.wait(link.lane.queue, SLICE_ONE_MS if pending == 1 else SLICE_MANY_MS)


cdef void doze(engine_t *engine, int32_t lane, uint32_t pending) noexcept nogil:
    """Sleep before a poll that is a system call, which would find nothing."""
    cdef link_t *link
    cdef uint32_t g
    for g in range(engine.group_count):
        link = &engine.groups[g].links[lane]
        if not engine.operations[lane * engine.group_count + g].flags & OPERATION_FINISHED:
            if link.lane.queue.calls:
                slumber(link, pending)
            return


cdef void engine_end(engine_t *engine, outcome_t *outcome) noexcept nogil:
    cdef operation_t *operations
    cdef link_t *link
    cdef link_t *waiting = NULL
    cdef int32_t lane = outcome.lane
    cdef uint64_t since = 0, listened = 0, t
    cdef uint32_t g, idle = 0, rounds = 0
    cdef bint moved = True
    cdef bint spins
    if lane < 0:
        return
    spins = engine.spin_ns > 0
    if engine.lanes > engine.cores:
        spins = rpmem_add(&engine.active, 1) <= engine.cores and spins
    operations = &engine.operations[lane * engine.group_count]
    while outcome.pending:
        if moved and not spins:
            doze(engine, lane, outcome.pending)
        outcome.pending = 0
        moved = False
        waiting = NULL
        for g in range(engine.group_count):
            if operations[g].flags & OPERATION_FINISHED:
                continue
            link = &engine.groups[g].links[lane]
            if waiting != NULL and waiting.lane.queue.calls and idle % LOOK_AT_OTHERS:
                outcome.pending += 1
                continue
            settle(engine, g, link, &operations[g], serve(link, &operations[g], &moved), outcome)
            if waiting == NULL and not operations[g].flags & OPERATION_FINISHED:
                waiting = link
        if outcome.pending == 0:
            break
        rounds += 1
        if moved:
            idle = 0
            since = 0
            if rounds % LOOK_AT_ALL:
                continue
        else:
            idle += 1
            after_empty_poll(&engine.politeness, waiting.lane.queue, idle)
            if idle % LOOK_AT_CLOCK and waiting.lane.queue.spins and spins:
                continue
        t = now()
        if listened == 0:
            listened = t
        elif t - listened > LISTEN_NS:
            listened = t
            outcome.raised = interruption()
            if outcome.raised != NULL:
                interrupt(engine, operations, lane, outcome)
                break
        if moved:
            continue
        if since == 0:
            since = t
        give_up(engine, operations, lane, t - since > engine.patience_ns, outcome)
        if not spins or t - since >= engine.spin_ns or not waiting.lane.queue.spins:
            slumber(waiting, outcome.pending)
            idle = 0
    if engine.lanes > engine.cores:
        rpmem_add(&engine.active, <uint32_t> -1)
    leave(engine, &operations[0], outcome)
