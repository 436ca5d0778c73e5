"""What every way of finding changes does, and what it needs of the pool's copies."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rpmem.memory.changes.pageset import PageSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.memory.region import Region


class Reach(Protocol):
    """The copies of a pool, as those see them who send to them."""

    #: How often a replica was sent the pool to join.
    joins: int

    @property
    def replicas(self) -> Sequence[object]:
        """Those that calls reach."""

    @property
    def absent(self) -> Sized:
        """The copies that are away, and will be sent what is made durable meanwhile."""

    def call(self, verb: str, *arguments: Any, **keywords: Any) -> Any:
        """Call the `Replicator`, whichever it is at the moment."""

    def mark_sent(self, pages: PageSet) -> None:
        """Have calls mark the pages that they send."""


class Way(Protocol):
    """A way of finding what changed, and of sending it.

    A page is taken out of the pending ones once all of it was acknowledged by every copy, by a send
    that began after it was put in.
    """

    def look(self, pages: PageSet, offset: int, length: int) -> None:
        """Add to the pending pages those of a range that changed since the last look at them.

        Raises
        ------
        OSError
            It does not work any more.
        """

    def send(self, pages: PageSet, begin: int, end: int, *, relaxed: bool) -> None:
        """Make all pending pages durable on every copy, as far as they are between two offsets."""

    def send_part(
        self, pages: PageSet, ranges: Sequence[tuple[int, int]], *, relaxed: bool
    ) -> None:
        """Make durable what lies in pending pages and in ranges."""

    def close(self) -> None:
        """Stop looking."""


def set_for(region: Region) -> PageSet:
    """Return an empty set of the pages of a region."""
    return PageSet(region.size, region.address % PageSet(1).page_size)


def pairs_of(content: bytes | bytearray) -> NDArray[np.uint64]:
    """Return offsets and lengths as `Replicator.persist_many` takes them."""
    return np.frombuffer(content, dtype=np.uint64).reshape(-1, 2)


def parts_of(pages: PageSet, ranges: Sequence[tuple[int, int]]) -> NDArray[np.uint64]:
    """Return what of ranges lies in pages of a set."""
    return pairs_of(b"".join(pages.ranges(*each) for each in ranges))
