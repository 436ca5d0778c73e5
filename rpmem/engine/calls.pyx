"""librpmem's calls on one replica, by offset and length, straight to the core.

A call of 64 bytes takes a few microseconds on a fast fabric, so Python's overhead shows.
"""

from libc.stdint cimport uint32_t, uint64_t

from rpmem.errors import RangeError

from rpmem._core cimport Replicator
from rpmem.engine.ranges cimport offset_of, range_of
from rpmem.steps.step cimport OPERATION_DEEP, OPERATION_FLUSH, OPERATION_RELAXED, range_t


cdef class Calls:
    """The base of `rpmem.Replica`."""

    def through(self, Replicator core, uint32_t index=0, *, bint lent=False, register=None,
                uint64_t first=0):
        """Direct calls to a Replicator, in which the replica has a number.

        Parameters
        ----------
        core : Replicator or None
            None: calls are refused from now on.
        index : int
            The replica's number there.
        lent : bool
            The replica belongs to a pool: only reading is allowed here.
        register : callable, optional
            See `Replicator.read`.
        first : int
            The first byte of the pool that may be read.
        """
        self.core = core
        self.index = index
        self.lent = lent
        self.register = register
        self.first = first

    def refusal(self, *, bint lent):
        """The error for calls that are not possible; subclasses refine it."""
        return RuntimeError("no calls are possible")

    cdef Replicator own(self):
        if self.core is None or self.lent:
            raise self.refusal(lent=self.core is not None)
        return self.core

    cdef int run(self, object offset, object length, uint32_t flags, object lane) except -1:
        cdef range_t wanted
        # A separate reference for this call: another thread may end the session meanwhile.
        cdef Replicator core = self.own()
        core.usable()
        range_of(&wanted, offset, length, core.size)
        return core.checked_run(&wanted, 1 if wanted.length else 0, flags, core.lane_number(lane))

    def persist(self, offset, length, lane=None, bint relaxed=False):
        """Make a range of the buffer durable on the target.

        Parameters
        ----------
        offset, length : int
            Bytes, from the start of the pool.
        lane : int, optional
            A specific lane; by default a free one.
        relaxed : bool
            Give up the guarantee that each aligned 8-byte word on the target is either old or new
            after any crash, never a mixture.

        Raises
        ------
        RangeError
            The range is outside the pool, or in its header.
        ReplicaLost, FlushFailed, DeadlineExceeded
            The range is not known to be durable.
        """
        self.run(offset, length, OPERATION_RELAXED if relaxed else 0, lane)

    def deep_persist(self, offset, length, lane=None):
        """Make a range durable down to the lowest persistence domain software can reach."""
        self.run(offset, length, OPERATION_DEEP, lane)

    def flush(self, offset, length, lane=None, bint relaxed=False):
        """Start making a range durable; it is durable once a later `drain` returns.

        The range must not change in between.
        """
        self.run(offset, length, OPERATION_FLUSH | (OPERATION_RELAXED if relaxed else 0), lane)

    def drain(self, lane=None):
        """Wait until everything flushed before (on `lane`, or on any lane) is durable."""
        self.own().drain(lane=lane)

    def persist_many(self, ranges, bint relaxed=False, lane=None):
        """Make many ranges durable with one wait; see `rpmem.Pool.persist_many`."""
        self.own().persist_many(ranges, relaxed=relaxed, lane=lane)

    def read(self, buffer, offset, lane=None):
        """Read from the replica's pool into a writable contiguous buffer.

        Parameters
        ----------
        buffer : buffer
            Filled completely.
        offset : int
            Where in the pool to begin. The header may be read, unless rpmem itself laid out the
            pool and the target runs rpmem's own rpmemd.
        lane : int, optional
            A specific lane; by default a free one.
        """
        cdef Replicator core = self.core
        if core is None:
            raise self.refusal(lent=False)
        cdef uint64_t start = offset_of(offset, core.size)
        if start < self.first:
            raise RangeError(
                f"a read at offset {start} touches what each copy keeps for itself, the first "
                f"{self.first} bytes", hint="Replica.attributes has what the header says")
        core.read_into(self.index, buffer, start, core.lane_number(lane), self.register)
