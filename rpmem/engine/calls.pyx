"""librpmem's calls on one replica: offset and length, straight to the core.

A call of 64 bytes takes some microseconds on a fast fabric, so what Python adds shows.
"""

from libc.stdint cimport uint32_t

from rpmem._core cimport Replicator
from rpmem.engine.ranges cimport offset_of, range_of
from rpmem.steps.step cimport OPERATION_DEEP, OPERATION_FLUSH, OPERATION_RELAXED, range_t


cdef class Calls:
    """The calls that `rpmem.Replica` inherits."""

    def through(self, Replicator core, uint32_t index=0, *, bint lent=False, register=None):
        """Let calls go through a Replicator, in which the replica has a number.

        Parameters
        ----------
        core : Replicator or None
            None: calls are refused from now on.
        index : int
            The replica's number there.
        lent : bool
            It belongs to a pool: only reading is left here.
        register : callable, optional
            See `Replicator.read`.
        """
        self.core = core
        self.index = index
        self.lent = lent
        self.register = register

    def refusal(self, *, bint lent):
        """The error of calls that are not possible; subclasses say it better."""
        return RuntimeError("no calls are possible")

    cdef Replicator own(self):
        if self.core is None or self.lent:
            raise self.refusal(lent=self.core is not None)
        return self.core

    cdef int run(self, object offset, object length, uint32_t flags, object lane) except -1:
        cdef range_t wanted
        # A reference of this call's own: another thread may end the session meanwhile.
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
            A certain lane; without it a free one is taken.
        relaxed : bool
            Give up the promise that each aligned 8-byte word over there is old or new,
            never a mixture, whatever crashes when.

        Raises
        ------
        RangeError
            The range is not in the pool, or in its header.
        ReplicaLost, FlushFailed, DeadlineExceeded
            It is not known to be durable.
        """
        self.run(offset, length, OPERATION_RELAXED if relaxed else 0, lane)

    def deep_persist(self, offset, length, lane=None):
        """Make a range durable down to the lowest persistence domain software can reach."""
        self.run(offset, length, OPERATION_DEEP, lane)

    def flush(self, offset, length, lane=None, bint relaxed=False):
        """Start making a range durable; it is when a later `drain` returns.

        The range must not change in between.
        """
        self.run(offset, length, OPERATION_FLUSH | (OPERATION_RELAXED if relaxed else 0), lane)

    def drain(self, lane=None):
        """Wait until all that was flushed before (on `lane`, or at all) is durable."""
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
            Where in the pool to begin; the header may be read.
        lane : int, optional
            A certain lane; without it a free one is taken.
        """
        cdef Replicator core = self.core
        if core is None:
            raise self.refusal(lent=False)
        core.read_into(
            self.index, buffer, offset_of(offset, core.size), core.lane_number(lane), self.register)
