"""Where the pages of a pool are that are compared, and what lies in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, SLOTS_OFFSET
from rpmem.pool.tracking.ways import pairs_of
from rpmem.pool.verification import UNIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.pool.arrays import NamedArrays
    from rpmem.pool.superblock import Layout
    from rpmem.pool.verification import Flags

#: Most neighbouring pages that are looked at together while calls wait.
MOST_LOOKED_AT: Final = 16


class Places:
    """The pages of a pool that all copies have in common: they are numbered from the superblock on.

    Parameters
    ----------
    layout : Layout
    arrays : NamedArrays

    Attributes
    ----------
    count : int
        How many there are.
    """

    def __init__(self, layout: Layout, arrays: NamedArrays) -> None:
        self._layout = layout
        self._arrays = arrays
        self._end = layout.pool_size
        self.count = -(-(self._end - LAYOUT_OFFSET) // UNIT)

    def span(self, low: int, high: int) -> slice:
        """Return the pages that a range touches."""
        first = (max(low, LAYOUT_OFFSET) - LAYOUT_OFFSET) // UNIT
        behind = -(-(min(high, self._end) - LAYOUT_OFFSET) // UNIT)
        return slice(first, max(first, behind))

    def place(self, first: int, behind: int) -> tuple[int, int]:
        """Return offset and length of what is compared of neighbouring pages."""
        if first == 0:
            return LAYOUT_OFFSET, LAYOUT_SIZE  # the superblock, which is all of its piece
        offset = LAYOUT_OFFSET + first * UNIT
        return offset, min(LAYOUT_OFFSET + behind * UNIT, self._end) - offset

    def units(self, ranges: bytes | bytearray) -> NDArray[np.intp]:
        """Return the pages that ranges touch, given as pairs of uint64."""
        if not ranges:
            return np.zeros(0, np.intp)
        pairs = pairs_of(ranges).astype(np.int64)
        ends = np.stack([pairs[:, 0], pairs[:, 0] + pairs[:, 1]])
        low, high = np.minimum(np.maximum(ends, LAYOUT_OFFSET), self._end) - LAYOUT_OFFSET
        first, behind = low // UNIT, -(-high // UNIT)
        counts = np.maximum(behind - first, 0)
        starts = np.cumsum(counts) - counts
        return np.repeat(first - starts, counts) + np.arange(counts.sum())

    @staticmethod
    def flags(units: NDArray[np.intp], here: slice) -> Flags:
        """Return which pages of a slice are among some."""
        flags = np.zeros(here.stop - here.start, bool)
        if not len(units):
            return flags
        flags[units[(units >= here.start) & (units < here.stop)] - here.start] = True
        return flags

    def own(self, spans: list[tuple[int, int]], mark: int) -> Iterator[tuple[int, int]]:
        """Yield what the pool itself uses: the roots, the log, and what has to be zero."""
        yield SLOTS_OFFSET, self._layout.data_start
        yield from spans
        yield mark, self._end

    def used(self, offset: int, length: int) -> Flags:
        """Return which bytes of a page hold something."""
        used = np.zeros(length, bool)
        entries, spans, mark = self._arrays.extents()
        extents = [(each.offset, each.offset + each.length) for each in entries]
        for low, high in [(LAYOUT_OFFSET, SLOTS_OFFSET), *self.own(spans, mark), *extents]:
            if low < offset + length and offset < high:
                used[max(low - offset, 0) : max(high - offset, 0)] = True
        return used

    def names(self, offset: int, length: int) -> tuple[str, ...]:
        """Return the arrays that lie in a range."""
        entries, _, _ = self._arrays.extents()
        return tuple(
            each.name
            for each in entries
            if each.offset < offset + length and offset < each.offset + each.length
        )


def pairs_in(ranges: list[tuple[int, int]]) -> bytes:
    """Return ranges as pairs of uint64."""
    return np.array(ranges, np.uint64).tobytes()


def runs_of(units: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield neighbours together, at most so many as are looked at together."""
    first = behind = -1
    for unit in units.tolist():
        if unit != behind or behind - first == MOST_LOOKED_AT:
            if first >= 0:
                yield first, behind
            first = unit
        behind = unit + 1
    if first >= 0:
        yield first, behind
