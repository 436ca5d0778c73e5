"""Pages that the copies of one epoch do not hold alike: which of them counts; without I/O.

Copies that were all closed have to be equal. What more than half of them hold is right; where no
content has that many and something lies there, nobody knows which is right, and nothing is
restored.

Copies that were not closed may differ in what was being made durable when the writer died, and none
of that was acknowledged. What counts is all taken from one copy: a mixture could show what was
stored later without what came before it. It is the copy that holds most often what most of them do,
which leaves out one that has rotted where there are three.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rpmem.pool.differences import PAGE
from rpmem.pool.restoration import DIGEST_SIZE, differing


class Wanted(NamedTuple):
    """A page that has to be read again: what it has to be, and who holds that."""

    offset: int
    length: int
    digest: bytes
    holders: tuple[str, ...]


class Undecided(Exception):
    """Copies that have to be equal are not, and none of them can be told to be right.

    Parameters
    ----------
    offsets : list of int
        Where, in the pool.
    """

    def __init__(self, offsets: list[int]) -> None:
        super().__init__()
        self.offsets = offsets


class _Page(NamedTuple):
    length: int
    read: bytes
    held: dict[str, bytes]


class Disputes:
    """Takes the digests of the pages of blocks that differ, and decides.

    Parameters
    ----------
    sources : sequence of str
        The copies, the best first.
    equal : bool
        All of them were closed.

    Attributes
    ----------
    unequal : set of str
        Copies that do not hold everything that counts, once it is decided.
    """

    def __init__(self, sources: Sequence[str], *, equal: bool) -> None:
        self.unequal: set[str] = set()
        self._sources = list(sources)
        self._equal = equal
        self._pages: dict[int, _Page] = {}

    def take(self, offset: int, length: int, read: bytes, held: Mapping[str, bytes]) -> None:
        """Take the digests of the pages of a block: as it was read, and as each copy holds it."""
        numbers = {number for theirs in held.values() for number in differing(read, theirs)}
        for number in numbers:
            at, low = number * PAGE, number * DIGEST_SIZE
            cut = slice(low, low + DIGEST_SIZE)
            self._pages[offset + at] = _Page(
                min(PAGE, length - at),
                read[cut],
                {source: theirs[cut] for source, theirs in held.items()},
            )

    def settle(self, in_use: Callable[[int, int], bool]) -> list[Wanted]:
        """Decide; return the pages that were read and are not what counts.

        Parameters
        ----------
        in_use : callable
            Whether something lies in a range, given its offset and length.

        Raises
        ------
        Undecided
            No content of a page that is in use can be told to be right.
        """
        trusted = None if self._equal else self._most_agreeable()
        wanted, undecided = [], []
        for offset, page in sorted(self._pages.items()):
            if trusted is None:
                right = _majority(page.held)
                if right is None and in_use(offset, page.length):
                    undecided.append(offset)
                right = right or page.read
            else:
                right = page.held[trusted]
            holders = tuple(each for each in self._sources if page.held.get(each) == right)
            self.unequal.update(each for each in self._sources if each not in holders)
            if right != page.read:
                wanted.append(Wanted(offset, page.length, right, holders))
        if undecided:
            raise Undecided(undecided)
        return wanted

    def _most_agreeable(self) -> str:
        """Return the copy that holds most often what most of them do, the best of those."""
        points: Counter[str] = Counter(dict.fromkeys(self._sources, 0))
        for page in self._pages.values():
            counts = Counter(page.held.values())
            most = max(counts.values())
            points.update(each for each, digest in page.held.items() if counts[digest] == most)
        return max(self._sources, key=lambda each: points[each])


def _majority(held: Mapping[str, bytes]) -> bytes | None:
    """Return what more than half of the copies hold; None where there is no such content."""
    digest, count = Counter(held.values()).most_common(1)[0]
    return digest if 2 * count > len(held) else None
