"""What differs between two copies, found by digests of both: what to ask for, what is to be sent.

There is no I/O here: `question` says of which units digests are wanted next, and `take` is given
those of both sides. First come blocks of 1 MiB, then the pages of blocks that differ. Where most
blocks of the last range differed, the pages of the next one come at once: both sides would read
everything twice for a few digests less.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

BLOCK: Final = 1 << 20
PAGE: Final = 4096
#: Bytes of a digest, in words.
_WORDS: Final = 3
#: Most units of one question.
MOST_UNITS: Final = 4096


class Question(NamedTuple):
    """Of which units digests are wanted: the first begins with the range, the last ends with it."""

    offset: int
    length: int
    unit: int


class Differences:
    """Finds the pages of a range that differ.

    Parameters
    ----------
    begin, length : int
        The range, which is not empty; its pages are counted from its first byte.
    by_pages : bool
        Most of it is expected to differ: pages are asked for at once.

    Attributes
    ----------
    question : Question or None
        What is asked for next; None: everything is known.
    """

    def __init__(self, begin: int, length: int, *, by_pages: bool = False) -> None:
        self._begin = begin
        self._blocks = -(-length // BLOCK)
        self._touched: set[int] = set()
        self._open = list(_questions(begin, length, PAGE if by_pages else BLOCK))
        self.question: Question | None = self._open.pop(0)

    @property
    def many(self) -> bool:
        """Whether most blocks of the range differ."""
        return 2 * len(self._touched) > self._blocks

    def take(self, mine: bytes, theirs: bytes) -> list[tuple[int, int]]:
        """Take the digests of both sides, and return what is to be sent: offsets and lengths.

        Neighbours are one range, as far as one question goes.
        """
        asked = self.question
        assert asked is not None
        ranges = list(_differing(asked, mine, theirs))
        for offset, length in ranges:
            first, last = offset - self._begin, offset + length - 1 - self._begin
            self._touched.update(range(first // BLOCK, last // BLOCK + 1))
        if asked.unit == BLOCK:
            self._open[:0] = (each for pair in ranges for each in _questions(*pair, PAGE))
            ranges = []
        self.question = self._open.pop(0) if self._open else None
        return ranges


def _questions(begin: int, length: int, unit: int) -> Iterator[Question]:
    """Cut a range into what one question asks for."""
    end, most = begin + length, MOST_UNITS * unit
    for offset in range(begin, end, most):
        yield Question(offset, min(most, end - offset), unit)


def _differing(asked: Question, mine: bytes, theirs: bytes) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each run of units whose digests differ."""
    if mine == theirs:
        return
    ours, others = (np.frombuffer(each, np.uint32).reshape(-1, _WORDS) for each in (mine, theirs))
    differ = (ours != others).any(axis=1)
    edges = np.flatnonzero(np.diff(differ, prepend=False, append=False))
    for first, behind in edges.reshape(-1, 2).tolist():
        low, high = first * asked.unit, min(behind * asked.unit, asked.length)
        yield asked.offset + low, high - low
