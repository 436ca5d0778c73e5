"""One call on a free lane of every replica: post, flush here meanwhile, wait for all.

Nothing here knows which fabric carries a lane, which step makes data durable, or how the session
was set up.
"""

import os
import threading
import time

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_DECREF

from rpmem.base.bounds cimport is_outside
from rpmem.base.fork cimport fork_generation, is_copy
from rpmem.engine.engine cimport (
    EVERY_GROUP, FAULT_NO_LANE, MOST_ABSENT, engine_begin, engine_end, engine_free, engine_init,
    engine_under_way, group_fail, group_t, group_tell, outcome_t,
)
from rpmem.engine.lanegroup cimport LaneGroup
from rpmem.memory.changes.lender cimport Lender
from rpmem.memory.changes.pageset cimport PageSet
from rpmem.memory.region cimport Region
from rpmem.engine.local cimport local_durable
from rpmem.engine.overlaps cimport overlaps_left
from rpmem.engine.ranges cimport (
    any_empty, array_of_ranges, offset_of, range_of, ranges_free, ranges_init, ranges_of, ranges_t,
)
from rpmem.steps.reading cimport read_advance
from rpmem.steps.step cimport (
    OPERATION_DEEP, OPERATION_DRAIN, OPERATION_FLUSH, OPERATION_RELAXED, operation_t, range_t,
)
from rpmem.wire.lane cimport LANE_ABORTED, LANE_UP, lane_t

from rpmem.errors import (
    BufferRefused, ClosedError, DeadlineExceeded, FlushFailed, ForkedError, LaneRefused,
    RangeError, RegistrationFailed, UsageError,
)
from rpmem.base import interrupts
from rpmem.base.handles import refuse_copy
from rpmem.base.pool_format import HEADER_SIZE as _HEADER_SIZE


cdef void fill(void *lender) noexcept nogil:
    (<Lender> lender).fill()


cdef class Replicator:
    """Makes ranges of a region durable on every replica at once, and here.

    Parameters
    ----------
    region : Region
        The memory that is replicated.
    groups : list of LaneGroup
        One per replica; may be empty.
    local : bool
        Also make ranges durable in `region` itself.
    floor : int
        Bytes at the start that calls may not touch (the pool's header).
    size : int, optional
        Bytes to replicate, if fewer than the region has.
    spin_s : float
        How long to poll before sleeping.
    timeout_s : float
        How long a replica may make no progress before it counts as lost.
    on_store : callable, optional
        ``on_store(offset, length)`` is called after a read that may have stored to `region`.

    Notes
    -----
    All methods may be called from several threads at once; the GIL is released while
    they wait. A call takes one lane, the same number on every replica, and waits for
    one when all are taken.
    """

    def __cinit__(self, Region region not None, list groups, *, bint local, uint64_t floor=4096,
                  object size=None, double spin_s=50e-6, double timeout_s=30.0,
                  object on_store=None):
        cdef LaneGroup group
        cdef uint32_t i, lanes = 0
        self.region = region
        self.pool = region.base
        self.size = region.size if size is None else min(<uint64_t> size, region.size)
        self.floor = floor
        self.local = local
        self.on_store = on_store
        self.groups = list(groups)
        self.unsettled = []
        self.marked = []
        self.born = fork_generation()
        for i in range(<uint32_t> len(groups)):
            group = <LaneGroup?> groups[i]
            lanes = group.c.lanes if i == 0 else min(lanes, group.c.lanes)
        if engine_init(&self.engine, <uint32_t> len(groups), lanes):
            raise MemoryError("no memory for the lanes")
        for i in range(self.engine.group_count):
            group = groups[i]
            self.engine.groups[i] = &group.c
        self.engine.spin_ns = <uint64_t> (spin_s * 1e9)
        self.engine.patience_ns = <uint64_t> (timeout_s * 1e9)

    def __dealloc__(self):
        engine_free(&self.engine)

    def __reduce__(self):
        refuse_copy(self, "It belongs to one pool or replica.")

    # --- the hot path ------------------------------------------------------------

    cdef outcome_t run(self, const range_t *ranges, size_t count, uint32_t flags,
                       int32_t lane) noexcept nogil:
        """One operation on every replica, and here while they work."""
        cdef operation_t operation
        cdef outcome_t outcome
        memset(&operation, 0, sizeof(operation))
        operation.ranges = ranges
        operation.count = count
        operation.flags = flags
        engine_begin(&self.engine, &operation, lane, EVERY_GROUP, &outcome)
        if self.local and count:
            outcome.local = local_durable(self.region, ranges, count, flags)
        engine_end(&self.engine, &outcome)
        return outcome

    cdef outcome_t run_lent(self, const range_t *ranges, size_t count, Lender lender,
                            const range_t *whole) noexcept nogil:
        """Ranges whose bytes are lent, on every replica, and here `whole` while they work."""
        cdef operation_t operation
        cdef outcome_t outcome
        if count:
            memset(&operation, 0, sizeof(operation))
            operation.ranges = ranges
            operation.count = count
            # So that this address plus a range's offset is where its bytes are.
            operation.source = <const char *> (<size_t> lender.view.buf - lender.offset)
            operation.prepare = fill
            operation.context = <void *> lender
            engine_begin(&self.engine, &operation, -1, EVERY_GROUP, &outcome)
        else:
            outcome = self.lost()
        if self.local and whole.length:
            outcome.local = local_durable(self.region, whole, 1, 0)
        engine_end(&self.engine, &outcome)
        return outcome

    cdef outcome_t lost(self) noexcept nogil:
        """What ended a replica that is lost, if one is: as a call that found it so; no lane."""
        cdef outcome_t outcome
        cdef group_t *group
        cdef const lane_t *lane
        cdef uint32_t g, i
        memset(&outcome, 0, sizeof(outcome))
        outcome.lane = outcome.group = -1
        for g in range(self.engine.group_count):
            group = self.engine.groups[g]
            for i in range(group.lanes):
                lane = group.links[i].lane
                if group.failed or lane.state != LANE_UP:
                    group_fail(group, &group.links[i])
                    outcome.group = <int32_t> g
                    group_tell(group, &group.links[i], LANE_ABORTED, &outcome)
                    return outcome
        return outcome

    cdef int32_t check(self, const range_t *ranges, size_t count) noexcept nogil:
        """The first range outside the pool or in its header, or -1."""
        cdef size_t i
        for i in range(count):
            if is_outside(ranges[i].offset, ranges[i].length, self.floor, self.size):
                return <int32_t> i
        return -1

    # --- from Python -------------------------------------------------------------

    cdef int over(self) except -1:
        """A call has ended."""
        self.busy -= 1
        if self.busy == 0 and self.idle is not None:
            with self.idle:
                self.idle.notify_all()
        return 0

    cdef int usable(self) except -1:
        if is_copy(self.born):
            raise ForkedError(
                "this pool belongs to the parent process; connections do not survive fork()",
                hint="open the pool in the child, or start it with the spawn method")
        if self.closed_error is not None:
            raise ClosedError(self.closed_error)
        return 0

    cdef int finish(self, outcome_t outcome) except -1:
        """Raise the error that ended a call, if any."""
        if outcome.fault == 0 and outcome.local == 0:
            return 0
        if outcome.raised != NULL:
            error = <object> outcome.raised
            Py_DECREF(error)
            if outcome.group >= 0:
                self.remote_error(outcome)  # the replica records it
            raise error
        remote = self.remote_error(outcome)
        if outcome.local == 0:
            raise remote
        if not self.region.writable:
            raise UsageError(
                "the pool was opened with readonly=True: nothing in it can be made durable",
                where=self.region.label, errno=outcome.local)
        # First: a caller who reads that a replica was lost relies on the local copy.
        raise FlushFailed(
            f"the local medium refused the data: {os.strerror(outcome.local)}",
            where=self.region.label, errno=outcome.local,
            hint="what was written since the last success may be lost here, and every later call "
                 "fails too: close the pool and, if it has replicas, restore it from one of them"
        ) from remote

    cdef object remote_error(self, outcome_t outcome):
        """The error of a replica that refused something, or None."""
        cdef LaneGroup group
        if outcome.fault == 0:
            return None
        if outcome.fault == FAULT_NO_LANE:
            group = self.groups[outcome.group] if outcome.group >= 0 else None
            return DeadlineExceeded(
                f"no lane became free within {self.engine.patience_ns / 1e9:g} s"
                + ("" if group is None else "; calls wait for this target"),
                where=None if group is None else str(group.owner.target),
                hint="use more lanes, or look for a call that does not return")
        group = self.groups[outcome.group]
        return group.owner.explain(outcome.fault, outcome.refusal, outcome.detail)

    cdef int checked_run(self, const range_t *ranges, size_t count, uint32_t flags,
                         int32_t lane) except -1:
        """Check the ranges, run without the GIL, raise the error that ended it."""
        cdef outcome_t outcome
        if count == 0:
            return 0
        if self.check(ranges, count) >= 0:
            self.outside(ranges, count)
        # Turning objects into ranges may have run Python code, which may have closed the pool.
        self.usable()
        self.busy += 1
        with nogil:
            outcome = self.run(ranges, count, flags, lane)
        self.over()
        # Nearly every call ends here: handing the outcome on would copy it twice.
        if outcome.fault == 0 and outcome.local == 0:
            return 0
        return self.settle(outcome, ranges, count)

    cdef int settle(self, outcome_t outcome, const range_t *ranges, size_t count) except -1:
        """Note the ranges of an interrupted call, and raise the error that ended it, if any."""
        cdef size_t i
        if outcome.raised != NULL or outcome.fault == FAULT_NO_LANE:
            self.unsettled += [(ranges[i].offset, ranges[i].length) for i in range(count)]
        return self.finish(outcome)

    def take_unsettled(self):
        """Return the ranges of calls that were interrupted or got no lane, and forget them.

        They are pairs, and may be on some copies and not on others.
        """
        taken, self.unsettled = self.unsettled, []
        return taken

    def left_behind(self):
        """Return what is not drained: on each lane, from the first to the last such byte."""
        cdef uint64_t low, high
        cdef uint32_t i
        found = []
        for i in range(self.engine.lanes):
            overlaps_left(&self.engine.overlaps, i, &low, &high)
            if low < high:
                found.append((low, high - low))
        return found

    cdef int call(self, object x, uint32_t flags, int32_t lane) except -1:
        """Turn `x` into ranges and run."""
        cdef ranges_t ranges
        self.usable()
        ranges_init(&ranges)
        try:
            if x is None:
                ranges.items[0].offset = self.floor
                ranges.items[0].length = self.size - self.floor
                ranges.count = 1
            else:
                ranges_of(&ranges, x, self.pool, self.region.size)
            return self.checked_run(ranges.items, ranges.count, flags, lane)
        finally:
            ranges_free(&ranges)

    cdef int outside(self, const range_t *ranges, size_t count) except -1:
        cdef int32_t bad = self.check(ranges, count)
        offset, length = ranges[bad].offset, ranges[bad].length
        which = f"range {bad + 1} of {count}, " if count > 1 else ""
        if offset < self.floor and length <= self.size and offset <= self.size - length:
            own = "header" if self.floor <= _HEADER_SIZE else "header and record"
            raise RangeError(
                f"{which}(offset {offset}, length {length}), touches the pool's {own}, "
                f"the first {self.floor} bytes", hint="only set_attributes changes headers")
        raise RangeError(
            f"{which}(offset {offset}, length {length}), is outside the pool of "
            f"{self.size} bytes", where=self.region.label)

    cdef int32_t lane_number(self, object lane) except -2:
        if lane is None:
            return -1
        if type(lane) is not int:
            try:
                lane = PyNumber_Index(lane)
            except TypeError as error:
                raise LaneRefused(f"a lane is a number, not {lane!r}") from error
        if not 0 <= lane < self.engine.lanes:
            raise LaneRefused(f"lane {lane} does not exist: this replica has lanes 0 to "
                              f"{<long> self.engine.lanes - 1}")
        return lane

    def persist(self, x=None, *, bint relaxed=False, lane=None):
        """Make `x` durable here (if local) and on every replica; returns when it is."""
        self.call(x, OPERATION_RELAXED if relaxed else 0, self.lane_number(lane))

    def deep_persist(self, x=None, *, lane=None):
        """As `persist`, down to the lowest persistence domain software can reach."""
        self.call(x, OPERATION_DEEP, self.lane_number(lane))

    def flush(self, x=None, *, bint relaxed=False, lane=None):
        """Start making `x` durable; a later `drain` waits for it."""
        self.call(x, OPERATION_FLUSH | (OPERATION_RELAXED if relaxed else 0),
                  self.lane_number(lane))

    def drain(self, *, lane=None):
        """Wait until everything flushed before, by any thread or on `lane`, is durable."""
        cdef int32_t number = self.lane_number(lane)
        self.usable()
        self.drain_lanes(number)

    def drain_rest(self):
        """Drain what was flushed before `close`; to be called when no call is in progress."""
        if not is_copy(self.born):
            self.drain_lanes(-1)

    cdef int drain_lanes(self, int32_t number) except -1:
        """Drain one lane, or every one (-1), on every replica, and here; raise the first error."""
        cdef outcome_t outcome, first
        cdef uint32_t i
        memset(&first, 0, sizeof(first))
        self.busy += 1
        try:
            for i in range(self.engine.lanes):
                if number == <int32_t> i or number < 0 and self.needs_drain(i):
                    with nogil:
                        outcome = self.run(NULL, 0, OPERATION_DRAIN, <int32_t> i)
                    # A refusal by one replica does not keep the others from finishing.
                    if first.fault == 0:
                        first = outcome
                    first.raised = outcome.raised
                    if outcome.fault == FAULT_NO_LANE or outcome.raised != NULL:
                        break
            if self.local and self.region.writable:
                with nogil:
                    first.local = self.region.c_drain()
        finally:
            self.over()
        return self.finish(first)

    cdef bint needs_drain(self, uint32_t lane) noexcept:
        """Whether a replica has undrained flushes on that lane, or is lost."""
        cdef const group_t *group
        cdef uint32_t g
        for g in range(self.engine.group_count):
            group = self.engine.groups[g]
            if group.links[lane].undrained or group.failed:
                return True
        return False

    def put(self, uint64_t offset, const unsigned char[::1] word not None):
        """Make an aligned word that is not in the region durable on every replica.

        Parameters
        ----------
        offset : int
            Where in the pool.
        word : buffer
            8 bytes, which travel inside a message.
        """
        cdef operation_t operation
        cdef outcome_t outcome
        cdef range_t place
        if word.shape[0] != 8 or offset & 7 or is_outside(offset, 8, self.floor, self.size):
            raise RangeError(f"offset {offset} is not the offset of a word in the pool")
        self.usable()
        memset(&operation, 0, sizeof(operation))
        place.offset, place.length = offset, 8
        operation.ranges = &place
        operation.count = 1
        # So that this address plus the offset is the word's.
        operation.source = <const char *> (<size_t> &word[0] - offset)
        self.busy += 1
        with nogil:
            engine_begin(&self.engine, &operation, -1, EVERY_GROUP, &outcome)
            engine_end(&self.engine, &outcome)
        self.over()
        self.finish(outcome)

    def persist_many(self, ranges, *, bint relaxed=False, lane=None):
        """Make many ranges durable in as few messages as possible.

        `ranges` is a C-contiguous ``uint64`` array of shape (n, 2), offset and length, or
        any iterable of arguments for `persist`.
        """
        cdef uint32_t flags = OPERATION_RELAXED if relaxed else 0
        cdef int32_t number = self.lane_number(lane)
        cdef const range_t *items
        cdef ranges_t collected
        cdef Py_buffer view
        cdef size_t count
        self.usable()
        if hasattr(ranges, "__array_interface__"):
            array_of_ranges(&view, ranges)
            try:
                items = <const range_t *> view.buf
                count = view.len // sizeof(range_t)
                if not any_empty(items, count):
                    self.checked_run(items, count, flags, number)
                    return
            finally:
                PyBuffer_Release(&view)
            # So that steps need not handle empty ranges.
            ranges = [(int(offset), int(length)) for offset, length in ranges]
        elif isinstance(ranges, memoryview) and ranges.ndim != 1:
            raise BufferRefused(
                f"a memoryview of {ranges.ndim} dimensions is not a sequence of ranges",
                hint="pass numpy.asarray(view), or a list of ranges")
        ranges_init(&collected)
        try:
            for x in ranges:
                ranges_of(&collected, x, self.pool, self.region.size)
            self.checked_run(collected.items, collected.count, flags, number)
        finally:
            ranges_free(&collected)

    def persist_lent(self, ranges, Lender lender, whole=None):
        """Make ranges durable on every replica, with their bytes taken from another place.

        They are put there (`Lender.fill`) once no other call can have older bytes under way, and no
        lane refers to the place once this returns, however it returns.

        Parameters
        ----------
        ranges : array
            As for `persist_many`: ``uint64``, of shape (n, 2). None of them may be empty. Without
            ranges nothing is sent, and a lost replica is an error as for any other call.
        lender : Lender
            Has the bytes of all ranges; None: there are no ranges.
        whole : (offset, length), optional
            What to make durable here meanwhile, if the region itself is one of the copies.
        """
        cdef range_t here
        cdef Py_buffer view
        self.usable()
        here.offset = here.length = 0
        if whole is not None:
            range_of(&here, whole[0], whole[1], self.region.size)
        array_of_ranges(&view, ranges)
        try:
            self.checked_lent(<const range_t *> view.buf, view.len // sizeof(range_t), lender,
                              &here)
        finally:
            PyBuffer_Release(&view)

    cdef int checked_lent(self, const range_t *ranges, size_t count, Lender lender,
                          const range_t *whole) except -1:
        """Check the ranges, run without the GIL, raise the error that ended it."""
        cdef outcome_t outcome
        cdef size_t i
        if whole.length and self.check(whole, 1) >= 0:
            self.outside(whole, 1)
        if self.check(ranges, count) >= 0:
            self.outside(ranges, count)
        for i in range(count):
            if lender is None or ranges[i].length == 0 or is_outside(
                    ranges[i].offset, ranges[i].length, lender.offset,
                    lender.offset + <uint64_t> lender.view.len):
                raise RangeError(
                    f"range {i + 1} of {count}, (offset {ranges[i].offset}, length "
                    f"{ranges[i].length}), is empty or not lent", where=self.region.label)
        # Objects gave their buffers: that may have run Python code, which may have closed the pool.
        self.usable()
        self.busy += 1
        with nogil:
            outcome = self.run_lent(ranges, count, lender, whole)
        self.over()
        return self.settle(outcome, ranges, count)

    def mark_sent(self, PageSet sent not None):
        """Mark in a set, from now on, the pages that calls send from the region itself.

        A call marks them before it sends anything, and when no call with older bytes of them is
        under way.
        """
        self.keep(sent)
        self.engine.sent = &sent.c

    def mark_doubtful(self, PageSet doubtful not None):
        """Mark in a set, from now on, the pages that a replica may lack which is lost.

        They are those of calls that ended without it, and those that were flushed and not drained.
        """
        self.keep(doubtful)
        self.engine.doubtful = &doubtful.c

    def mark_absent(self, list absent):
        """Mark in each of these sets, from now on, the pages that any call makes durable.

        A call marks them before it does anything else. To be called when no call is in progress.
        """
        cdef PageSet pages
        if len(absent) > MOST_ABSENT:
            raise RangeError(f"{len(absent)} sets are more than {<int> MOST_ABSENT}")
        self.engine.absent_count = 0
        for each in absent:
            pages = <PageSet?> each
            self.keep(pages)
            self.engine.absent[self.engine.absent_count] = &pages.c
            self.engine.absent_count += 1

    cdef int keep(self, PageSet pages) except -1:
        """Let a set of pages live as long as this object."""
        if pages.c.size != self.region.size:
            raise RangeError("the set is not one of the pages of this region")
        self.marked.append(pages)
        return 0

    def mark_passing(self, PageSet passing):
        """Mark in a set, from now on, the pages that calls send, wherever they take the bytes from.

        None: no longer.
        """
        if passing is None:
            self.engine.passing = NULL
            return
        self.keep(passing)
        self.engine.passing = &passing.c

    def under_way(self, PageSet pages not None):
        """Add to a set the pages of which calls have bytes under way, or have left some behind."""
        if pages.c.size != self.region.size:
            raise RangeError("the set is not one of the pages of this region")
        with nogil:
            engine_under_way(&self.engine, &pages.c)

    def hold(self, offset, length):
        """Keep calls out of a range, on all copies; see `rpmem.engine.held.Held`."""
        from rpmem.engine.held import Held

        return Held(self, offset, length)

    def confirm(self):
        """Raise the error of a replica that is lost, or of a local medium that has refused.

        For a call that has nothing to send: it ends as one that has.
        """
        cdef outcome_t outcome
        self.usable()
        outcome = self.lost()
        if self.local:
            outcome.local = self.region.c_drain()
        self.finish(outcome)

    def read(self, uint32_t index, buffer, offset, *, lane=None, register=None):
        """Read from replica `index` at pool `offset` into a writable buffer.

        See `read_into` for `register`.
        """
        self.read_into(
            index, buffer, offset_of(offset, self.size), self.lane_number(lane), register)

    cdef int read_into(self, uint32_t index, object buffer, uint64_t offset, int32_t number,
                       object register, uint32_t flags=0) except -1:
        """Read; `number` is the lane's, or -1.

        `register` is called with the address and length of a large buffer, and returns what posts
        need to write to it directly: a Memory, or None if nothing is needed. A buffer that would
        have to be registered but is not is read by way of the lane's own memory.
        """
        cdef operation_t operation
        cdef range_t wanted
        cdef outcome_t outcome
        cdef Py_buffer view
        cdef LaneGroup group
        self.usable()
        if index >= self.engine.group_count:
            raise LaneRefused(
                f"there is not a replica {index}: the pool has {self.engine.group_count}")
        try:
            PyObject_GetBuffer(buffer, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        except (BufferError, ValueError, TypeError) as error:
            raise BufferRefused(f"read needs a writable contiguous buffer: {error}") from error
        try:
            wanted.offset = offset
            wanted.length = <uint64_t> view.len
            if is_outside(offset, wanted.length, 0, self.size):
                raise RangeError(f"(offset {offset}, length {wanted.length}) is outside the pool "
                                 f"of {self.size} bytes", where=self.region.label)
            if wanted.length == 0:
                return 0
            memset(&operation, 0, sizeof(operation))
            operation.ranges = &wanted
            operation.count = 1
            operation.flags = flags
            operation.advance = read_advance
            operation.destination = <char *> view.buf
            memory = None
            if register is not None and wanted.length > self.scratch_of(index):
                try:
                    memory = register(<size_t> view.buf, wanted.length)
                except RegistrationFailed:
                    memory = None
            if memory is not None:
                operation.handle = <void *> <size_t> memory.handle
            self.usable()
            self.busy += 1
            try:
                with nogil:
                    engine_begin(&self.engine, &operation, number, <int32_t> index, &outcome)
                    engine_end(&self.engine, &outcome)
                if outcome.reading:
                    # It may still be written to, until the lanes are closed.
                    group = self.groups[index]
                    group.kept.append((memoryview(buffer), memory))
                    memory = None
            finally:
                self.over()
                self.note_store(&view)
                if memory is not None:
                    memory.close()
            return self.finish(outcome)
        finally:
            PyBuffer_Release(&view)

    cdef int note_store(self, const Py_buffer *view) except -1:
        """Tell of a read into the region itself: if a device stored it, nobody has seen it."""
        cdef size_t first = <size_t> view.buf, base = <size_t> self.pool
        cdef size_t begin = max(first, base)
        cdef size_t end = min(first + <size_t> view.len, base + self.region.size)
        if self.on_store is not None and begin < end:
            self.on_store(begin - base, end - begin)
        return 0

    cdef uint32_t scratch_of(self, uint32_t index) noexcept:
        """The size up to which copying costs less than registering."""
        cdef const group_t *group = self.engine.groups[index]
        return group.links[0].lane.scratch_size if group.lanes else 0

    def ranges_of(self, x, *, uint64_t floor=0):
        """The ``(offset, length)`` pairs that `x` stands for, as in `persist`.

        RangeError if one is outside the pool or begins below `floor`.
        """
        cdef ranges_t ranges
        cdef size_t i
        self.usable()
        ranges_init(&ranges)
        try:
            ranges_of(&ranges, x, self.pool, self.region.size)
            for i in range(ranges.count):
                if is_outside(ranges.items[i].offset, ranges.items[i].length, floor, self.size):
                    raise RangeError(
                        f"(offset {ranges.items[i].offset}, length {ranges.items[i].length}) does "
                        f"not lie in the bytes {floor} to {self.size} of the pool",
                        where=self.region.label)
            return [(ranges.items[i].offset, ranges.items[i].length) for i in range(ranges.count)]
        finally:
            ranges_free(&ranges)

    @property
    def lanes(self):
        """How many calls can be under way at once."""
        return self.engine.lanes

    @property
    def calls(self):
        """Calls in progress."""
        return self.busy

    def wait_for_calls(self, seconds=None):
        """Wait until no call is in progress; False if some still are after so many seconds.

        An interrupt shortens a limited wait (`rpmem.base.interrupts`).
        """
        end = None if seconds is None else time.monotonic() + seconds
        if self.busy and self.idle is None:
            self.idle = threading.Condition()
        while self.busy:
            interrupts.check()
            left = interrupts.SLICE_S if end is None else interrupts.limited(end - time.monotonic())
            if left <= 0:
                return False
            with self.idle:
                if self.busy:
                    self.idle.wait(min(left, interrupts.SLICE_S))
        return True

    def check_usable(self):
        """Raise ClosedError or ForkedError if calls would."""
        self.usable()

    def close(self, what="the pool is closed"):
        """Refuse further calls; those in progress go on (see `wait_for_calls`)."""
        if self.closed_error is None:
            self.closed_error = what
