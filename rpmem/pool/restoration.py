"""Which piece of a pool is read from which copy, and whether what was read counts; without I/O.

What was read of a piece counts if its digests are those that its source takes of what it holds.
Where several copies of an epoch were reached, each of them says what it holds of every piece, so
that pieces can be read from all of them in turn. Blocks on which they disagree are looked at again
(`rpmem.pool.disputes`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from rpmem.pool.differences import BLOCK

#: Bytes that are read and compared at once.
PIECE: Final = 4 << 20
#: Bytes of a digest.
DIGEST_SIZE: Final = 12


class Part(NamedTuple):
    """A piece that is to be read, and from which copy."""

    offset: int
    length: int
    source: str


class Restoration:
    """What is still to be read, and from whom. To be used by one thread at a time.

    Parameters
    ----------
    begin, end : int
        What of the pool is read.
    sources : sequence of str
        Copies that hold it, the best first.
    piece : int
        Bytes that are read at once: whole blocks.

    Attributes
    ----------
    live : list of str
        The sources that can still be relied upon.
    done_bytes : int
        What was read and counts.
    """

    def __init__(self, begin: int, end: int, sources: Sequence[str], *, piece: int) -> None:
        self.live = list(sources)
        self.done_bytes = 0
        self._open = deque((at, min(piece, end - at)) for at in range(begin, end, piece))
        self._turn = 0
        self._disputed: set[tuple[int, int]] = set()

    @property
    def disputed(self) -> list[tuple[int, int]]:
        """Offsets and lengths of the blocks that not all copies hold alike."""
        return sorted(self._disputed)

    def take(self) -> Part | None:
        """Return what is to be read next; None if nothing is left that nobody has taken."""
        if not self._open or not self.live:
            return None
        self._turn += 1
        return Part(*self._open.popleft(), self.live[self._turn % len(self.live)])

    def give_back(self, part: Part) -> None:
        """Take note that a part could not be read, or is not what its source holds."""
        self._open.append((part.offset, part.length))

    def drop(self, source: str) -> None:
        """Rely upon a copy no more."""
        if source in self.live:
            self.live.remove(source)

    def check(self, part: Part, mine: bytes, said: Mapping[str, bytes]) -> bool:
        """Compare what was read with what the copies hold.

        Parameters
        ----------
        part : Part
            As `take` returned it.
        mine : bytes
            Digests of its blocks as they were read.
        said : mapping of str to bytes
            Those that copies took; the source is one of them.

        Returns
        -------
        bool
            Whether it is what its source holds; otherwise it does not count.
        """
        if said[part.source] != mine:
            return False
        for theirs in said.values():
            for at in differing(mine, theirs):
                offset = part.offset + at * BLOCK
                self._disputed.add((offset, min(BLOCK, part.offset + part.length - offset)))
        self.done_bytes += part.length
        return True


def differing(mine: bytes, theirs: bytes) -> Iterator[int]:
    """Yield the numbers of the units whose digests differ."""
    if mine == theirs:
        return
    for number in range(len(mine) // DIGEST_SIZE):
        at = number * DIGEST_SIZE
        if mine[at : at + DIGEST_SIZE] != theirs[at : at + DIGEST_SIZE]:
            yield number
