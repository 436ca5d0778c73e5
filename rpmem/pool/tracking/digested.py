"""Changes by digests: pages that differ from what every replica last acknowledged.

A digest is one of bytes that no store can change any more: of a copy of the page, made when no call
has older bytes of it under way, and sent from the copy. Whatever is sent to replicas otherwise, by
a call that names its range or to a replica that joins, ends what was known of its pages: else one
that gets its former bytes again would seem to be what the replicas have.

A digest says nothing about what the local medium holds: all of it is flushed, and the kernel or the
processor knows what has to be written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rpmem.base.handles import Handle
from rpmem.errors import ClosedError, ForkedError, RpmemError
from rpmem.memory.changes.digests import PageDigests
from rpmem.pool.hashing import Hashing
from rpmem.pool.tracking.ways import Reach, pairs_of, parts_of, set_for

if TYPE_CHECKING:
    from rpmem.memory.changes.pageset import PageSet
    from rpmem.memory.region import Region

log = logging.getLogger(__name__)

#: Bytes that are copied and sent at a time.
WINDOW: Final = 8 << 20


class Digested(Handle):
    """Sends pages that differ from their digests, from copies.

    Parameters
    ----------
    region : Region
        The local copy.
    reach : Reach
        All copies.
    """

    def __init__(self, region: Region, reach: Reach) -> None:
        self._region = region
        self._reach = reach
        self._joins = reach.joins
        self._digests = PageDigests(region)
        self._sent = set_for(region)
        self._skew = region.address % self._sent.page_size
        self._hashing = Hashing(self._skew)
        self._staging = bytearray()
        reach.mark_sent(self._sent)

    def look(self, pages: PageSet, offset: int, length: int) -> None:
        """Add pages that differ, and those that were sent past their digests."""
        joins = self._reach.joins
        if joins != self._joins:
            self._digests = PageDigests(self._region)
            self._joins = joins
        # First: a call that marks its pages later than this sends what the memory has later.
        pages.move_from(self._sent)
        if self._reach.replicas or len(self._reach.absent):
            self._hashing.changed(self._digests, pages, offset, length)

    def send(self, pages: PageSet, begin: int, end: int, *, relaxed: bool) -> None:
        """Send all pending pages, window by window, and flush everything here.

        Never relaxed: what is not aligned to words is of no concern for whole pages.
        """
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%d pages differ", len(pages))
        whole = begin, end - begin
        lost: RpmemError | None = None
        for low, length in self._windows(pages, begin):
            try:
                self._send_window(pages, low, length, max(low, begin), whole)
            except RpmemError as error:
                # Where a copy is lost, the others get the rest nevertheless.
                if not self._is_one_lost():
                    raise
                lost = lost or error
            whole = begin, 0
        if whole[1]:
            self._reach.call("persist_lent", pairs_of(b""), None, whole)
        try:
            if lost is not None:
                raise lost
        finally:
            del lost  # its traceback has this frame

    def _send_window(
        self, pages: PageSet, low: int, length: int, first: int, whole: tuple[int, int]
    ) -> None:
        """Send the pending pages of a window from `first` on."""
        if not self._staging:
            self._staging = bytearray(WINDOW)
        ranges = pairs_of(pages.ranges(first, low + length - first))
        lender = self._digests.lend(pages, low, length, self._staging)
        self._reach.call("persist_lent", ranges, lender, whole)
        self._digests.confirm(pages, low, length)
        pages.discard(low, length)

    def _is_one_lost(self) -> bool:
        try:
            self._reach.call("confirm")
        except (ClosedError, ForkedError):
            return False
        except RpmemError:
            return True
        return False

    def send_part(
        self, pages: PageSet, ranges: Sequence[tuple[int, int]], *, relaxed: bool
    ) -> None:
        """Send parts of pending pages, which stay pending: no digest is known of a part."""
        low = min(offset for offset, _ in ranges)
        high = max(offset + length for offset, length in ranges)
        found = parts_of(pages, ranges)
        try:
            if len(found):
                self._reach.call("persist_many", found, relaxed=relaxed)
            else:
                self._reach.call("confirm")
        finally:
            # A copy that is lost leaves it durable here; and a refusal here is the worse news.
            self._region.persist(low, high - low)

    def _windows(self, pages: PageSet, begin: int) -> Iterator[tuple[int, int]]:
        """Yield the windows, cut between pages, that have pages of the set."""
        size = self._region.size
        for start in range(-self._skew, size, WINDOW):
            low, high = max(start, 0), min(start + WINDOW, size)
            if high > begin and pages.ranges(low, high - low):
                yield low, high - low

    def close(self) -> None:
        """End the threads that hash."""
        self._hashing.close()
