"""Comparing memory with its digests in several threads.

A thread takes piece after piece, so that none waits long for another, and an exception in the
calling one (a signal's) ends all of them soon.
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final, Protocol

from rpmem.base.handles import Handle

if TYPE_CHECKING:
    from rpmem.memory.changes.pageset import PageSet

__all__ = ["ALONE", "PIECE", "Hashing"]

#: Up to so many bytes one thread compares alone: waking others costs more.
ALONE: Final = 8 << 20
#: Bytes that a thread compares at a time.
PIECE: Final = 4 << 20
#: More threads than these find no more bandwidth of the memory.
_MOST_THREADS: Final = 4


class Digests(Protocol):
    """What compares: `rpmem.memory.changes.digests.PageDigests`."""

    def changed(self, pages: PageSet, offset: int, length: int) -> None:
        """Add to a set the pages of a range that are not what they were."""


class Hashing(Handle):
    """Threads that compare memory with its digests, from the first long range until `close`.

    Parameters
    ----------
    skew : int
        How far into a page of memory the region begins: no page is in two pieces.
    threads : int, optional
        How many, with the calling one; by default one for each core, up to 4.
    """

    def __init__(self, skew: int = 0, threads: int | None = None) -> None:
        self._skew = skew
        self._threads = threads or min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self._helpers: ThreadPoolExecutor | None = None

    def changed(self, digests: Digests, pages: PageSet, offset: int, length: int) -> None:
        """Add every page that a range touches and whose digest is unknown or another one now."""
        if length < ALONE or self._threads == 1:
            digests.changed(pages, offset, length)
            return
        pieces = self._pieces(offset, length)

        def work() -> None:
            while pieces:
                try:
                    piece = pieces.pop()
                except IndexError:
                    return  # another thread was faster
                digests.changed(pages, *piece)

        if self._helpers is None:
            self._helpers = ThreadPoolExecutor(self._threads - 1, "rpmem-hashing")
        helpers: list[Future[None]] = []
        try:
            helpers += [self._helpers.submit(work) for _ in range(self._threads - 1)]
            work()
        finally:
            pieces.clear()
            _wait_for(helpers)
        for helper in helpers:
            helper.result()

    def _pieces(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Cut a range between pages."""
        end = offset + length
        first = (offset + self._skew) // PIECE + 1
        behind = (end + self._skew - 1) // PIECE + 1
        cuts = [offset, *(number * PIECE - self._skew for number in range(first, behind)), end]
        return [(low, high - low) for low, high in itertools.pairwise(cuts)]

    def close(self) -> None:
        """End the threads. They are started anew if they are needed again."""
        helpers, self._helpers = self._helpers, None
        if helpers is not None:
            helpers.shutdown()


def _wait_for(helpers: list[Future[None]]) -> None:
    """Return once all have ended; what a signal raises meanwhile is raised then."""
    raised: BaseException | None = None
    while True:
        try:
            wait(helpers)
        except BaseException as error:
            raised = raised or error
        else:
            break
    if raised is not None:
        raise raised
