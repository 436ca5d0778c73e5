"""What was stored and never persisted, made equal on every copy before a pool counts as closed.

The local files show such bytes once they are opened again, and a replica would not: what somebody
has seen would be gone after a restore. So before copies are marked as clean, they are made equal:
by what tracking tells, or by digests of both sides, or by sending everything.

What is compared and sent must not change meanwhile, nor afterwards. Views outlive a ``with`` block,
and threads may store to them: so their memory is left to them, and what they store from then on
reaches no file. The files are reached by another mapping from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

import numpy as np

from rpmem.errors import RpmemError
from rpmem.memory.changes.lender import Lender
from rpmem.pool import resync
from rpmem.pool.medium import PoolMedium
from rpmem.pool.progress import chunks, quiet
from rpmem.pool.tracking.tracking import Stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem._core import Replicator
    from rpmem.memory.region import Region
    from rpmem.pool.local import LocalCopy
    from rpmem.session.replica import Replica

log = logging.getLogger(__name__)

#: Comparing so many bytes more takes less time than another question.
_NEAR: Final = 256 << 10


class Told(Protocol):
    """Tells what may be stored and not acknowledged."""

    def last_look(self, *, still: bool) -> Stored:
        """Look; `still`: nobody stores meanwhile."""

    def untold(self) -> Stored:
        """Return all that somebody could have stored to."""


class Still(NamedTuple):
    """The local copy as it will stay."""

    #: Reaches the files.
    memory: Region
    #: Whether that is another mapping of them than the one that lanes send from.
    apart: bool
    stored: Stored


@contextmanager
def held_still(local: LocalCopy, told: Told) -> Iterator[Still | None]:
    """Keep further stores from the files of a local copy, and yield what they hold then.

    Views go on as memory of this process. A buffer is its owner's, who may store to it in any case:
    it is compared whenever it is opened. Nothing is yielded where stores cannot be kept away.
    """
    if not (local.region.viewed and local.keeps_zeros):
        yield Still(local.region, False, told.last_look(still=True))
        return
    still: Still | None = None
    try:
        with local.again() as (memory, leave):
            told.last_look(still=False)  # the second time there is hardly anything to do
            before = _faults()
            stored = told.last_look(still=False)
            leave()
            if _faults() != before:
                # A store to a page that was just looked at may have been among them.
                stored = told.untold()
            still = Still(memory, True, stored)
    except RpmemError as error:
        log.warning("%s: what views store cannot be kept from it: %s", local.where, error)
    try:
        yield still
    finally:
        if still is not None:
            still.memory.close()


def _faults() -> tuple[int, int]:
    """Return how many page faults all threads of this process have had.

    A first store to a page that is watched is one; it is counted before the page's mapping can be
    replaced by another one.
    """
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt, usage.ru_majflt


class Settling:
    """Makes all copies equal, as far as they are in use.

    Parameters
    ----------
    core : Replicator
        Of the replicas, and of the local copy where that can be made durable.
    replicas : sequence of Replica
        The same.
    still : Still
        What they are to hold.
    """

    def __init__(self, core: Replicator, replicas: Sequence[Replica], still: Still) -> None:
        self._core = core
        self._replicas = replicas
        self._still = still
        self._lender = Lender(still.memory, 0) if still.apart else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lender = None  # which keeps the memory mapped

    def settle(self, ranges: Sequence[tuple[int, int]] = ()) -> None:
        """Return when all that is in use is equal and durable on every copy.

        Parameters
        ----------
        ranges : sequence of (offset, length)
            Not the same everywhere, whatever tracking tells.

        Raises
        ------
        RpmemError
            A replica was lost, or the local medium refuses. The others may have everything or not.
        """
        told, untold, unflushed = self._still.stored
        memory = self._still.memory
        for begin, end in _stretches(told) if self._still.apart else ():
            memory.persist(begin, end - begin)
        for offset, length in _pieces(unflushed):
            memory.persist(offset, length)
        self._send_ranges(ranges)
        self._send(told)
        if not len(untold):
            return
        if all(replica.compares for replica in self._replicas):
            for replica in self._replicas:
                self._send_differences(replica, untold)
        else:
            for piece in _pieces(untold):
                self._send_ranges([piece])

    def store(self, writes: Sequence[tuple[int, bytes]]) -> None:
        """Store the pool's own records, durably on every copy."""
        memory = self._still.memory
        medium = PoolMedium(memory)
        for offset, data in writes:
            medium.store(offset, data)
            if self._still.apart:
                medium.persist(offset, len(data))
        self._send_ranges([(offset, len(data)) for offset, data in writes])

    def _send_ranges(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._send(np.array(ranges, dtype=np.uint64).reshape(-1, 2))

    def _send(self, ranges: NDArray[np.uint64]) -> None:
        """Send ranges to every replica, and so note them for copies that are away."""
        if not len(ranges):
            return
        if self._lender is None:
            self._core.persist_many(ranges)
        else:
            self._core.persist_lent(ranges, self._lender)

    def _send_differences(self, replica: Replica, untold: NDArray[np.uint64]) -> None:
        """Send every replica what one of them lacks."""
        name = resync.name_of(replica)
        sent = 0
        for begin, end in _stretches(untold):
            sent += resync.send_differences(
                replica,
                begin,
                end,
                self._send_ranges,
                what=f"{name}: comparing what may have been stored to",
                memory=self._still.memory,
            )
        log.info("%s: sent %d bytes that were stored and not persisted", name, sent)


def _pieces(ranges: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Cut ranges so that an interrupt is noticed between two of them."""
    for offset, length in ranges.tolist():
        yield from chunks(offset, offset + length, "making what is in use durable", quiet)


def _stretches(ranges: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Return begin and end of ranges, those that lie near each other as one."""
    found: list[tuple[int, int]] = []
    for offset, length in ranges.tolist():
        if found and offset - found[-1][1] <= _NEAR:
            found[-1] = found[-1][0], offset + length
        else:
            found.append((offset, offset + length))
    return found
