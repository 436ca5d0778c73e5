"""What `Pool.persist` sends when it is asked for the whole pool: the pages that were stored to.

A page is *pending* from the moment that it is found changed until every copy has acknowledged a
send of all of it; a call that fails, times out or is interrupted leaves it so. Calls run one after
the other: one that finds nothing changed returns only when what others found before it has been
acknowledged. The first call takes the whole pool for changed, as nobody knows what an earlier
process stored and never persisted; so a program that never calls `persist` without a range pays
nothing.

How changes are found is chosen by trying. The kernel tells pages that were stored to
(`rpmem.memory.changes.pagemap`) as long as this process alone has the memory: after a fork, and
where the kernel does not tell, the digest of each page is compared with that of the bytes that were
last acknowledged (`rpmem.memory.changes.digests`). Such a digest must be of bytes that no store can
reach any more, so these pages are copied first and sent from the copy. It says nothing about what
the local medium holds durably, which is therefore flushed as a whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

import numpy as np

from rpmem.base.fork import forks
from rpmem.errors import MissingExtension, UsageError
from rpmem.memory.changes.pageset import PageSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.memory.region import Region

log = logging.getLogger(__name__)

Wanted = Literal["auto", "kernel", "digest", "off"]
Mode = Literal["kernel", "digest", "off"]

#: Bytes that are copied and sent at a time where digests are compared.
WINDOW = 8 << 20


class Finder(Protocol):
    """Finds what was stored to since it was last asked."""

    def take(self, pages: PageSet, offset: int, length: int) -> None:
        """Add the changed pages of a range to a set."""

    def close(self) -> None:
        """Stop looking."""


class Digests(Finder, Protocol):
    """Finds pages that differ from what was last sent."""

    def copy(self, pages: PageSet, offset: int, length: int, staging: bytearray) -> None:
        """Copy the set's pages of a window, and take the digests of the copies."""

    def confirm(self, pages: PageSet, offset: int, length: int) -> None:
        """Rely on the digests of a window, which was acknowledged by every copy."""


class Noted:
    """Ranges that were stored to without anybody seeing it, until somebody looks for changes.

    Threads may note ranges at any time.
    """

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def note(self, offset: int, length: int) -> None:
        """Note a range, once all of it is stored."""
        self.ranges.append((offset, length))

    def move_to(self, pages: PageSet) -> None:
        """Add what was noted by now to a set of pages."""
        count = len(self.ranges)
        for each in self.ranges[:count]:
            pages.add(*each)
        del self.ranges[:count]  # not before: an interrupt in between must lose nothing


class Tracking:
    """What changed in a pool since it was last durable on every copy.

    Parameters
    ----------
    region : Region
        The local copy.
    call : callable
        ``call(verb, ...)`` calls the pool's `Replicator`, whichever it is at the moment.
    floor, size : int
        The bytes that calls may make durable begin and end there.
    mark : callable
        Returns the offset above which every byte is zero on all copies.
    noted : Noted
        Where stores are noted that nothing else sees.
    wanted : str
        What the user asked for; see `Pool.create`.

    Notes
    -----
    Its methods may be called from several threads at once.
    """

    def __init__(
        self,
        region: Region,
        call: Callable[..., Any],
        *,
        floor: int,
        size: int,
        mark: Callable[[], int],
        noted: Noted,
        wanted: Wanted,
    ) -> None:
        self._region = region
        self._call = call
        self._floor = floor
        self._size = size
        self._mark = mark
        self._forks = forks()
        self._lock = threading.Lock()
        self._skew = 0
        self._pending: PageSet | None = None
        self._finder: Finder | None = None
        self._digests: Digests | None = None
        self._staging = bytearray()
        self._noted = noted
        self._end = floor
        self._mode: Mode = self._chosen(wanted)

    def _chosen(self, wanted: Wanted) -> Mode:
        """Return how changes will be found, after trying it."""
        if wanted == "off":
            return "off"
        if wanted != "digest":
            try:
                try_kernel(self._region)
            except UsageError as error:
                if wanted == "kernel":
                    raise UsageError(
                        f"the kernel cannot tell which pages change: {error}",
                        where=self._region.label,
                        hint="tracking='digest' compares digests instead",
                    ) from error
                log.info("changes are found by digests: %s", error)
            else:
                return "kernel"
        if has_digests():
            return "digest"
        if wanted == "digest":
            digests_of(self._region)  # raises what is missing
        log.info("persist() without a range sends the whole pool: there are no digests")
        return "off"

    @property
    def mode(self) -> Mode:
        """How the next call will find changes."""
        if self._mode == "kernel" and forks() != self._forks:
            return "digest" if has_digests() else "off"
        return self._mode

    # --- what users call ------------------------------------------------------------------

    def persist(self, *, relaxed: bool = False) -> None:
        """Make everything durable that was stored by now, on every copy."""
        self._call("check_usable")  # a forked child must not wait for the lock
        with self._lock:
            pages = self._look(self._floor, self._size - self._floor)
            if pages is None:
                self._call("persist", None, relaxed=relaxed)
            elif self._digests is not None:
                self._send_copies(pages, self._digests)
            else:
                self._send(pages, relaxed=relaxed)

    def persist_changed(self, x: Any, *, relaxed: bool = False) -> None:
        """Make what changed of `x` durable, on every copy."""
        ranges = self._call("ranges_of", x, floor=self._floor)
        if not ranges:
            return
        with self._lock:
            low = min(offset for offset, _ in ranges)
            high = max(offset + length for offset, length in ranges)
            pages = self._look(low, high - low)
            if pages is None:
                self._call("persist_many", ranges, relaxed=relaxed)
                return
            found = pairs_of(b"".join(pages.ranges(*each) for each in ranges))
            if not len(found):
                self._call("confirm")
                return
            self._call("persist_many", found, relaxed=relaxed)
            # A digest would have to be of a copy; so there, all stays pending.
            if self._digests is None:
                for offset, length in ranges:
                    pages.discard(offset, length)

    def touched(self, x: Any) -> None:
        """Take the bytes of `x` for changed."""
        self._noted.ranges += self._call("ranges_of", x)

    def close(self) -> None:
        """Stop looking; further calls make everything durable."""
        with self._lock:
            self._stop()
            self._mode = "off"

    # --- looking --------------------------------------------------------------------------

    def _look(self, offset: int, length: int) -> PageSet | None:
        """Return what is pending, with what changed in a range by now; None: nobody knows."""
        self._check_forks()
        if self._mode == "off":
            return None
        pages = self._pages()
        self._noted.move_to(pages)
        finder = self._finder or self._started()
        if finder is None:
            return None
        end = max(self._mark(), self._end)
        if end > self._end:
            # Arrays were created there, or this is the first call.
            pages.add(self._end, end - self._end)
            if offset > self._end:
                offset, length = self._end, offset + length - self._end
            self._end = end
        length = min(length, self._end - offset)
        if length > 0:
            try:
                finder.take(pages, offset, length)
            except OSError as error:
                self._fall_back(str(error))
                return self._look(offset, length)
        return pages

    def _pages(self) -> PageSet:
        if self._pending is None:
            self._skew = self._region.address % PageSet(1).page_size
            self._pending = PageSet(self._region.size, self._skew)
        return self._pending

    def _check_forks(self) -> None:
        if self._mode == "kernel" and forks() != self._forks:
            self._fall_back("the process has forked, and a child's stores are not seen")

    def _started(self) -> Finder | None:
        """Begin to look; every page counts as changed until a call has succeeded."""
        self._end = self._floor
        if self._mode == "kernel":
            try:
                self._finder = watch(self._region)
            except (UsageError, OSError, MemoryError) as error:
                self._fall_back(str(error))
        if self._mode == "digest":
            self._finder = self._digests = digests_of(self._region)
        return self._finder

    def _fall_back(self, why: str) -> None:
        """Go on with digests, of which none is known yet."""
        self._stop()
        self._mode = "digest" if has_digests() else "off"
        log.info("%s: %s; tracking is %r from now on", self._region.label, why, self._mode)

    def _stop(self) -> None:
        if self._finder is not None:
            self._finder.close()
        self._finder = self._digests = None
        self._staging = bytearray()

    # --- sending --------------------------------------------------------------------------

    def _send(self, pages: PageSet, *, relaxed: bool) -> None:
        """Send all that is pending from the memory itself."""
        ranges = pairs_of(pages.ranges(self._floor, self._size - self._floor))
        log.debug("%d pages changed, in %d ranges", len(pages), len(ranges))
        if len(ranges):
            self._call("persist_many", ranges, relaxed=relaxed)
            pages.clear()
        else:
            self._call("confirm")

    def _send_copies(self, pages: PageSet, digests: Digests) -> None:
        """Send all that is pending from copies, window by window."""
        log.debug("%d pages differ", len(pages))
        whole = self._floor, self._end - self._floor
        for begin, length in self._windows(pages):
            if not self._staging:
                self._staging = bytearray(WINDOW)
            digests.copy(pages, begin, length, self._staging)
            low = max(begin, self._floor)
            ranges = pairs_of(pages.ranges(low, begin + length - low))
            self._call("persist_copied", ranges, self._staging, begin, whole)
            digests.confirm(pages, begin, length)
            pages.discard(begin, length)
            whole = whole[0], 0
        if whole[1]:
            self._call("persist_copied", pairs_of(b""), self._staging, 0, whole)

    def _windows(self, pages: PageSet) -> list[tuple[int, int]]:
        """Return the windows, on the grid of pages, that have pages of the set."""
        found = []
        for begin in range(-self._skew, self._region.size, WINDOW):
            low = max(begin, 0)
            high = min(begin + WINDOW, self._region.size)
            if high > self._floor and pages.ranges(low, high - low):
                found.append((low, high - low))
        return found


def wanted_of(tracking: str) -> Wanted:
    """Return a user's argument after checking it."""
    if tracking not in get_args(Wanted):
        raise UsageError(
            f"tracking={tracking!r} is not a way to find changes",
            hint="Write 'auto', 'kernel', 'digest' or 'off'",
        )
    return cast("Wanted", tracking)


def pairs_of(content: bytes | bytearray) -> NDArray[np.uint64]:
    """Return offsets and lengths as `Replicator.persist_many` takes them."""
    return np.frombuffer(content, dtype=np.uint64).reshape(-1, 2)


def try_kernel(region: Region) -> None:
    """Raise `UsageError` unless the kernel tells which pages of the region are stored to."""
    from rpmem.memory.changes.pagemap import try_on

    try_on(region)


def watch(region: Region) -> Finder:
    """Let the kernel look for stores."""
    from rpmem.memory.changes.pagemap import WrittenPages

    return WrittenPages(region)


def has_digests() -> bool:
    """Return whether the part that takes digests is built."""
    try:
        import rpmem.memory.changes.digests  # noqa: F401
    except MissingExtension:
        return False
    return True


def digests_of(region: Region) -> Digests:
    """Return digests of a region, none of them known."""
    from rpmem.pool.hashing import HashedPages

    return HashedPages(region)
