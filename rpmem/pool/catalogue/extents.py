"""Room in the data area: what an array takes up, and which stretches are free.

A free stretch is found by its begin, by its end and by its size class, so that neither taking
room nor giving it back depends on how many stretches there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, islice, pairwise

from rpmem.errors import PoolFull

SMALL_ALIGNMENT = 64
PAGE_ALIGNMENT = 4096

_LAST = SMALL_ALIGNMENT - 1
_CLASSES = 65
#: Stretches of one size class that are tried before a larger class is.
_LOOKS = 16


class Free:
    """The free stretches of a data area.

    Parameters
    ----------
    begin, end : int
        The data area, in pool offsets.
    taken : iterable of (int, int)
        Begin and end of every extent that is in use, in any order.

    Raises
    ------
    ValueError
        Extents overlap, are not aligned, or are outside the data area.
    """

    def __init__(self, begin: int, end: int, taken: Iterable[tuple[int, int]] = ()) -> None:
        self._end_of: dict[int, int] = {}
        self._begin_of: dict[int, int] = {}
        # By size, in powers of two; a dict keeps the order in which they became free.
        self._classes: list[dict[int, None]] = [{} for _ in range(_CLASSES)]
        self.size = 0
        end -= end % SMALL_ALIGNMENT
        self._begin, self._end = begin, end
        edges = [(begin, begin), *sorted(taken), (end, end)]
        for (_, before), (after, _) in pairwise(edges):
            if before != after:
                if after < before or after % SMALL_ALIGNMENT:
                    raise ValueError(f"the extent at {after} is not free")
                self._insert(before, after)

    def take(
        self, length: int, alignment: int = SMALL_ALIGNMENT, *, mark: int | None = None
    ) -> int:
        """Return the offset of `length` bytes that are no longer free; `PoolFull` without any.

        While half of the data area is one stretch above `mark`, they are taken from there.
        """
        needed = room(length)
        begin = self._stretch_for(needed, alignment, mark)
        if begin is None:
            raise PoolFull(
                f"no free stretch of {length} bytes in the pool; the largest has {self.largest}",
                hint="Delete arrays that are no longer needed, or create a larger pool",
            )
        offset = round_up(begin, alignment)
        self._carve(begin, offset, offset + needed)
        return offset

    def take_each(
        self, lengths: Sequence[int], *, mark: int | None = None
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Take many extents: side by side where one stretch is enough.

        Returns
        -------
        offsets : list of int
            Where each of them begins.
        spans : list of (int, int)
            Begin and end of the room that they take up together.

        Raises
        ------
        PoolFull
            There is no room for one of them; all that were taken are free again.
        """
        rooms = [(length + _LAST) & ~_LAST or SMALL_ALIGNMENT for length in lengths]
        if max(lengths, default=PAGE_ALIGNMENT) < PAGE_ALIGNMENT:
            total = sum(rooms)
            begin = self._stretch_for(total, SMALL_ALIGNMENT, mark)
            if begin is not None:
                self._carve(begin, begin, begin + total)
                return list(accumulate(rooms[:-1], initial=begin)), [(begin, begin + total)]
        spans: list[tuple[int, int]] = []
        try:
            for each, needed in zip(lengths, rooms, strict=True):
                offset = self.take(each, alignment_of(each), mark=mark)
                spans.append((offset, offset + needed))
        except PoolFull:
            for span in spans:
                self.give_back(*span)
            raise
        return [begin for begin, _ in spans], spans

    def give_back(self, begin: int, end: int) -> None:
        """Let a stretch be free, one with its neighbours."""
        before = self._begin_of.get(begin)
        if before is not None:
            self._remove(before)
            begin = before
        after = self._end_of.get(end)
        if after is not None:
            self._remove(end)
            end = after
        self._insert(begin, end)

    def _stretch_for(self, needed: int, alignment: int, mark: int | None) -> int | None:
        """Return the begin of a stretch that is large enough: a small one, if soon found."""
        last = self._begin_of.get(self._end)
        half = (self._end - self._begin) // 2
        if mark is not None and last is not None and mark <= last <= self._end - needed - half:
            return last
        smallest = needed.bit_length()
        for looks in (_LOOKS, None):
            for stretches in self._classes[smallest:]:
                for begin in islice(stretches, looks):
                    if round_up(begin, alignment) + needed <= self._end_of[begin]:
                        return begin
        return None

    def _carve(self, stretch: int, begin: int, end: int) -> None:
        last = self._end_of[stretch]
        self._remove(stretch)
        self._insert(stretch, begin)
        self._insert(end, last)

    def _insert(self, begin: int, end: int) -> None:
        if begin < end:
            self._end_of[begin] = end
            self._begin_of[end] = begin
            self._classes[(end - begin).bit_length()][begin] = None
            self.size += end - begin

    def _remove(self, begin: int) -> None:
        end = self._end_of.pop(begin)
        del self._begin_of[end]
        del self._classes[(end - begin).bit_length()][begin]
        self.size -= end - begin

    @property
    def largest(self) -> int:
        """Bytes of the largest stretch."""
        return max((end - begin for begin, end in self._end_of.items()), default=0)


def room(length: int) -> int:
    """Return what `length` bytes take up; an array without elements has a place too."""
    return round_up(max(length, 1), SMALL_ALIGNMENT)


def alignment_of(length: int) -> int:
    """Return what the offset of an array of that length is a multiple of."""
    return PAGE_ALIGNMENT if length >= PAGE_ALIGNMENT else SMALL_ALIGNMENT


def round_up(value: int, alignment: int) -> int:
    """Return the next multiple of `alignment`."""
    return -(-value // alignment) * alignment
