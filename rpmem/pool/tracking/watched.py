"""Changes as the kernel sees them: pages that this process stored to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rpmem.base.handles import Handle
from rpmem.memory.changes.pagemap import WrittenPages
from rpmem.pool.tracking.ways import Reach, pairs_of, parts_of

if TYPE_CHECKING:
    from rpmem.memory.changes.pageset import PageSet
    from rpmem.memory.region import Region

log = logging.getLogger(__name__)


class Watched(Handle):
    """Sends pages from the memory itself: a store that comes too late for a send is seen later.

    Parameters
    ----------
    region : Region
        The local copy.
    reach : Reach
        All copies.

    Raises
    ------
    UsageError
        The kernel does not tell.
    """

    def __init__(self, region: Region, reach: Reach) -> None:
        self._reach = reach
        self._written = WrittenPages(region)

    def look(self, pages: PageSet, offset: int, length: int) -> None:
        """Add what was stored to; from now on, stores to it are seen anew."""
        self._written.take(pages, offset, length)

    def send(self, pages: PageSet, begin: int, end: int, *, relaxed: bool) -> None:
        """Send all pending pages."""
        ranges = pairs_of(pages.ranges(begin, end - begin))
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%d pages were stored to, in %d ranges", len(pages), len(ranges))
        if len(ranges):
            self._reach.call("persist_many", ranges, relaxed=relaxed)
            pages.clear()
        else:
            self._reach.call("confirm")

    def send_part(
        self, pages: PageSet, ranges: Sequence[tuple[int, int]], *, relaxed: bool
    ) -> None:
        """Send parts of pending pages; those that are sent as a whole are pending no longer."""
        found = parts_of(pages, ranges)
        if not len(found):
            self._reach.call("confirm")
            return
        self._reach.call("persist_many", found, relaxed=relaxed)
        for offset, length in ranges:
            pages.discard(offset, length)

    def close(self) -> None:
        """End the watch."""
        self._written.close()
