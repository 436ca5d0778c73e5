"""A pool's memory for the catalogue: bytes that can be stored, flushed and replicated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rpmem.memory.changes.pageset import PageSet
    from rpmem.memory.region import Region

_ZEROS = bytes(1 << 20)


class PoolMedium:
    """Implements `rpmem.pool.catalogue.medium.Medium` over a region.

    Parameters
    ----------
    region : Region
        The local copy.
    replicate : callable, optional
        Takes a list of ``(offset, length)`` and returns when these are durable locally and on every
        replica; None if there are no replicas.
    touched : PageSet, optional
        Where to mark what is stored to.
    """

    def __init__(
        self,
        region: Region,
        replicate: Callable[[Sequence[tuple[int, int]]], None] | None = None,
        touched: PageSet | None = None,
    ) -> None:
        self._region = region
        self._replicate = replicate
        self._touched = touched

    def load(self, offset: int, length: int) -> bytes:
        """Return the bytes as the local copy has them."""
        # Views are released immediately: otherwise they would keep the region from closing.
        with memoryview(self._region) as view:
            return bytes(view[offset : offset + length])

    def store(self, offset: int, data: bytes) -> None:
        """Put bytes into the local copy, without making them durable."""
        self._touch(offset, len(data))
        with memoryview(self._region) as view:
            view[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        """Like `store`, with zeros."""
        self._touch(offset, length)
        with memoryview(self._region) as view, memoryview(_ZEROS) as zeros:
            for begin in range(offset, offset + length, len(zeros)):
                count = min(len(zeros), offset + length - begin)
                view[begin : begin + count] = zeros[:count]

    def _touch(self, offset: int, length: int) -> None:
        if self._touched is not None:
            self._touched.add(offset, length)

    def persist(self, offset: int, length: int) -> None:
        """Return when the range is durable locally."""
        self._region.persist(offset, length)

    def spread(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Return when ranges are durable locally and on every replica, in whatever order."""
        if self._replicate is not None:
            self._replicate(ranges)
        else:
            for offset, length in ranges:
                self._region.persist(offset, length)
