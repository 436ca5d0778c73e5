"""A range that stays as it is on the replicas: calls that would change it wait.

Whoever holds one sees what every copy has of it at the same moment, but for stores to the local
memory, which nothing can hold.
"""

cimport cython

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

from rpmem._core cimport Replicator
from rpmem.base.bounds cimport is_outside
from rpmem.engine.engine cimport (
    engine_begin, engine_end, engine_hold, engine_release, outcome_t,
)
from rpmem.base.words cimport rpmem_copy_words
from rpmem.steps.step cimport OPERATION_HELD, OPERATION_RELAXED, operation_t

from rpmem.base.handles import refuse_copy
from rpmem.errors import ClosedError, RangeError


@cython.no_gc_clear
cdef class Held:
    """A range of the pool that no call has under way, on any copy, until it is released.

    Making one waits for calls that have some of it under way, and drains what flushes have left
    behind. Use it in a ``with`` block, and briefly.

    Parameters
    ----------
    core : Replicator
        Of all copies.
    offset, length : int
        The range.

    Raises
    ------
    RangeError
        It is not in the pool, or touches its header.
    DeadlineExceeded
        Other calls did not let go of it in time.
    """

    def __cinit__(self, Replicator core not None, uint64_t offset, uint64_t length):
        cdef operation_t wanted
        cdef outcome_t outcome
        core.usable()
        if length == 0 or is_outside(offset, length, core.floor, core.size):
            raise RangeError(f"(offset {offset}, length {length}) is not a range of the pool",
                             where=core.region.label)
        self.range.offset, self.range.length = offset, length
        self.lane = -1
        memset(&wanted, 0, sizeof(wanted))
        wanted.ranges = &self.range
        wanted.count = 1
        wanted.flags = OPERATION_RELAXED  # also what was left behind on the same lane is drained
        core.busy += 1
        with nogil:
            engine_hold(&core.engine, &wanted, &outcome)
        if outcome.lane < 0 and core.engine.group_count:
            core.over()
            core.finish(outcome)
        # A drain on the way may have failed on one replica: the next call finds it lost.
        self.lane = outcome.lane
        self.core = core

    def __dealloc__(self):
        if self.core is not None:
            self.let_go()
            self.core.busy -= 1

    def __reduce__(self):
        refuse_copy(self, "It belongs to one pool.")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def here(self, unsigned char[::1] buffer not None):
        """Copy what the local memory has; every aligned word is one that stood there."""
        self.check(<uint64_t> buffer.shape[0])
        with nogil:
            rpmem_copy_words(<char *> &buffer[0], self.core.pool + self.range.offset,
                             self.range.length)

    def there(self, uint32_t index, buffer):
        """Read what a replica has, into a writable contiguous buffer of the range's length."""
        with memoryview(buffer) as view:
            self.check(<uint64_t> view.nbytes)
        try:
            self.core.read_into(index, buffer, self.range.offset, self.lane, None, OPERATION_HELD)
        except BaseException:
            self.late = True
            raise

    def send(self, uint32_t index, const unsigned char[::1] source not None):
        """Make one replica's range durable with these bytes; no other copy changes."""
        cdef operation_t operation
        cdef outcome_t outcome
        cdef Replicator core = self.core
        self.check(<uint64_t> source.shape[0])
        core.usable()
        memset(&operation, 0, sizeof(operation))
        operation.ranges = &self.range
        operation.count = 1
        operation.flags = OPERATION_HELD
        # So that this address plus the offset is that of the bytes.
        operation.source = <const char *> (<size_t> &source[0] - self.range.offset)
        with nogil:
            engine_begin(&core.engine, &operation, self.lane, <int32_t> index, &outcome)
            engine_end(&core.engine, &outcome)
        self.late = self.late or outcome.fault != 0
        core.settle(outcome, &self.range, 1)

    def store(self, const unsigned char[::1] source not None):
        """Make the local copy's range durable with these bytes; no other copy changes."""
        self.check(<uint64_t> source.shape[0])
        with nogil:
            rpmem_copy_words(<char *> self.core.pool + self.range.offset,
                             <const char *> &source[0], self.range.length)
        self.core.region.persist(self.range.offset, self.range.length)

    cdef int check(self, uint64_t length) except -1:
        if self.core is None:
            raise ClosedError("the range was released")
        if length != self.range.length:
            raise RangeError(f"{length} bytes are not the {self.range.length} of the range")
        return 0

    cdef void let_go(self) noexcept:
        if self.lane >= 0:
            engine_release(&self.core.engine, self.lane, self.late)
            self.lane = -1

    def release(self):
        """Let other calls go on. Releasing again is harmless."""
        cdef Replicator core = self.core
        if core is None:
            return
        self.let_go()
        self.core = None
        core.over()
