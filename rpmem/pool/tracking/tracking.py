"""What changed in a pool since it was last durable on every copy.

A page is *pending* from the moment that it is found changed until every copy has acknowledged a
send of all of it; a call that fails, times out or is interrupted leaves it so. Calls run one after
the other: one that finds nothing changed returns only when what others found before it has been
acknowledged. The first call takes the whole pool for changed, as nobody knows what an earlier
process stored and never persisted; so a program that never calls `persist` without a range pays
nothing.

The kernel tells pages that were stored to as long as this process alone has the memory; after a
fork, and where the kernel does not tell, digests are compared.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np

from rpmem.base.fork import forks
from rpmem.base.handles import Handle
from rpmem.errors import MissingExtension, UsageError
from rpmem.pool.tracking.noted import Noted
from rpmem.pool.tracking.stores import Stores
from rpmem.pool.tracking.ways import Reach, Way, pairs_of, set_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.memory.changes.pageset import PageSet
    from rpmem.memory.region import Region

log = logging.getLogger(__name__)

Wanted = Literal["auto", "kernel", "digest", "off"]
Mode = Literal["kernel", "digest", "off"]


class Stored(NamedTuple):
    """What may be stored and not acknowledged as a pool ends: offsets and lengths."""

    #: What tracking tells of: it is to be sent.
    told: NDArray[np.uint64]
    #: What somebody could have stored to: it is to be compared.
    untold: NDArray[np.uint64]
    #: What may not be durable on the local copy, besides what is to be sent.
    unflushed: NDArray[np.uint64]


class Tracking(Handle):
    """What changed in a pool since it was last durable on every copy.

    Parameters
    ----------
    region : Region
        The local copy.
    reach : Reach
        All copies.
    floor, size : int
        Where the bytes begin and end that calls may make durable.
    mark : callable
        Returns the offset above which every byte is zero on all copies.
    noted : Noted
        Where stores are noted that nothing sees.
    wanted : str
        What the user asked for; see `Pool.create`.
    touched : PageSet, optional
        What somebody could have stored to since the pool was opened; None: all that is in use.

    Raises
    ------
    UsageError, MissingExtension
        What was asked for does not work here.

    Notes
    -----
    Its methods may be called from several threads at once.
    """

    def __init__(
        self,
        region: Region,
        reach: Reach,
        *,
        floor: int,
        size: int,
        mark: Callable[[], int],
        noted: Noted,
        wanted: Wanted,
        touched: PageSet | None = None,
    ) -> None:
        self._region = region
        self._touched = touched
        self._reach = reach
        self._floor = floor
        self._size = size
        self._mark = mark
        self._noted = noted
        self._forks = forks()
        self._lock = threading.RLock()
        self._looking = False
        self._pages: PageSet | None = None
        self._stores: Stores | None = None
        self._way: Way | None = None
        self._end = floor  # what lies between it and `size` has not been looked at
        self._mode: Mode = self._chosen(wanted)

    @property
    def mode(self) -> Mode:
        """How the next call will find changes."""
        if self._mode == "kernel" and self._has_forked():
            return without_kernel()
        return self._mode

    # --- what users call ------------------------------------------------------------------

    def persist(self, *, relaxed: bool) -> None:
        """Make everything durable that was stored by now, on every copy."""
        self._reach.call("check_usable")  # a forked child must not wait for the lock
        if self._mode != "off":
            with self._alone():
                found = self._found(self._floor, self._size - self._floor)
                if found is not None:
                    way, pages = found
                    way.send(pages, self._floor, self._last(pages), relaxed=relaxed)
                    return
        self._reach.call("persist", None, relaxed=relaxed)

    def persist_changed(self, x: Any, *, relaxed: bool) -> None:
        """Make what changed of `x` durable, on every copy."""
        ranges = self._reach.call("ranges_of", x, floor=self._floor)
        if self._mode != "off" and ranges:
            low = min(offset for offset, _ in ranges)
            high = max(offset + length for offset, length in ranges)
            with self._alone():
                found = self._found(low, high - low)
                if found is not None:
                    way, pages = found
                    way.send_part(pages, ranges, relaxed=relaxed)
                    return
        self._reach.call("persist_many", ranges, relaxed=relaxed)

    def begin(self) -> None:
        """Look from now on, where the kernel tells: every copy has all that was stored by now.

        The first call, and the end, then find what was stored since, and no more than that.
        """
        with self._lock:
            if self._mode != "kernel" or self._way is not None:
                return
            way = self._started()
            end = max(self._mark(), self._floor)
            try:
                if way is not None and self._mode == "kernel":
                    way.look(set_for(self._region), self._floor, end - self._floor)
                    self._pages, self._end = set_for(self._region), end
            except OSError as error:
                self._leave_kernel(str(error))

    def touched(self, x: Any) -> None:
        """Take the bytes of `x` for changed."""
        ranges = self._reach.call("ranges_of", x)
        if self._mode != "off":
            self._noted.note_all(ranges)

    # --- what others are told -------------------------------------------------------------

    def observe(self) -> Stores | None:
        """Begin to tell what is stored to, beside what calls send; None: the kernel does not.

        It is told by `stored`. The pages that are in it from the beginning may have been stored to
        before.
        """
        with self._alone():
            if self.mode != "kernel":
                return None
            begun = self._way is not None
            found = self._found(self._floor, self._size - self._floor)
            if found is None or self._mode != "kernel":
                return None
            self._stores = Stores(set_for(self._region), set_for(self._region), seen=begun)
            self._stores.pages.update(found[1])
            return self._stores

    def could_be_stored(self, offset: int, length: int) -> bytearray | None:
        """Return what of a range somebody could have stored to, as offsets and lengths; None: all.

        That holds since the pool was opened.
        """
        return None if self._touched is None else self._touched.ranges(offset, length)

    def stored(self, offset: int, length: int) -> bytearray | None:
        """Return what was stored to, of a range and of what was looked at otherwise.

        Returns
        -------
        bytearray
            Offsets and lengths, as pairs of uint64, which are told only once. None: the kernel
            does not tell any longer.
        """
        with self._alone():
            if self.mode != "kernel" or self._stores is None:
                return None
            self._found(offset, length)
            return None if self._stores is None else self._stores.take()

    # --- the end --------------------------------------------------------------------------

    def last_look(self, *, still: bool) -> Stored:
        """Return what may be stored and not acknowledged, once no call is in progress any more.

        Parameters
        ----------
        still : bool
            Nobody stores to the memory meanwhile. Otherwise only the kernel tells anything.
        """
        # A signal handler may have interrupted a call that looks.
        if self._way is None or not self._lock.acquire(blocking=False):
            return self.untold()
        try:
            mode = self.mode
            if self._looking or mode == "off" or (mode == "digest" and not still):
                return self.untold()
            found = self._found(self._floor, self._size - self._floor)
            reach = self._reach
            others = len(reach.replicas) + len(reach.absent)
            if found is None or (self._mode == "digest" and not others):
                return self.untold()
            if self._touched is not None:
                # The first look of all finds every page, whoever stored to it.
                found[1].keep(self._touched)
            pages = pairs_of(found[1].ranges(self._floor, self._size - self._floor))
            if self._mode == "kernel":
                return Stored(pages, pairs_of(b""), pairs_of(b""))
            return Stored(pages, pairs_of(b""), self.untold().unflushed)
        finally:
            self._lock.release()

    def untold(self) -> Stored:
        """Return what may be stored and not acknowledged, if nobody has looked."""
        if self._touched is None:
            offsets = np.array([[self._floor, max(self._mark(), self._end) - self._floor]], "u8")
        else:
            offsets = pairs_of(self._touched.ranges(self._floor, self._size - self._floor))
        return Stored(pairs_of(b""), offsets, offsets)

    def close(self) -> None:
        """Stop looking."""
        with self._lock:
            self._mode = "off"
            if not self._looking:  # else a signal handler closes what it has interrupted
                self._stop()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other calls out, and those of a signal handler that runs within this one."""
        with self._lock:
            if self._looking:
                raise UsageError(
                    "persist() was called by a signal handler while it looks for changes",
                    where=self._region.label,
                    hint="Let the handler set a flag, and persist when the call has returned",
                )
            self._looking = True
            try:
                yield
            finally:
                self._looking = False

    # --- looking --------------------------------------------------------------------------

    def _found(self, offset: int, length: int) -> tuple[Way, PageSet] | None:
        """Look at a range, and return all that is pending; None: nobody knows."""
        if self._mode == "kernel" and self._has_forked():
            self._leave_kernel("the process has forked, and a child's stores are not seen")
        way = self._way or self._started()
        if way is None:
            return None
        if self._pages is None:
            self._pages = set_for(self._region)
        pages = self._pages
        fresh = pages if self._stores is None else self._stores.fresh
        self._noted.move_to(fresh)
        end = max(self._mark(), self._end)
        if end > self._end:
            # The first call, or arrays were made there.
            pages.add(self._end, end - self._end)
            # All of it, so that stores from now on are seen.
            length = max(offset + length, end) - min(offset, self._end)
            offset = min(offset, self._end)
            self._end = end
        try:
            if offset < end:
                way.look(fresh, offset, min(length, end - offset))
        except OSError as error:
            self._leave_kernel(str(error))
            return self._found(offset, length)
        finally:
            if fresh is not pages:
                pages.update(fresh)
        if self._stores is not None:
            self._stores.add_fresh()
        return way, pages

    def _last(self, pages: PageSet) -> int:
        """Return the offset behind all that may have changed."""
        return self._size if pages.ranges(self._end) else self._end

    def _has_forked(self) -> bool:
        return forks() != self._forks

    # --- ways -----------------------------------------------------------------------------

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
                log.info("the kernel cannot tell which pages change: %s", error)
            else:
                return "kernel"
        if wanted == "digest":
            load_digests()
        return without_kernel()

    def _started(self) -> Way | None:
        """Begin to look; every page counts as changed until a call has succeeded."""
        self._end = self._floor
        if self._mode == "kernel":
            try:
                self._way = watched(self._region, self._reach)
            except (UsageError, OSError) as error:
                self._leave_kernel(str(error))
        if self._mode == "digest":
            self._way = digested(self._region, self._reach)
        return self._way

    def _leave_kernel(self, why: str) -> None:
        """Go on with digests, of which none is known yet."""
        self._stop()
        self._stores = None
        self._mode = without_kernel()
        log.info("%s: %s; tracking is %r from now on", self._region.label, why, self._mode)

    def _stop(self) -> None:
        if self._way is not None:
            self._way.close()
        self._way = None


def wanted_of(tracking: str) -> Wanted:
    """Return a user's argument after checking it."""
    if tracking not in get_args(Wanted):
        raise UsageError(
            f"tracking={tracking!r} is not a way to find changes",
            hint="Write 'auto', 'kernel', 'digest' or 'off'",
        )
    return cast("Wanted", tracking)


def try_kernel(region: Region) -> None:
    """Raise `UsageError` unless the kernel tells which pages of a region are stored to."""
    from rpmem.memory.changes.pagemap import try_on

    try_on(region)


def load_digests() -> None:
    """Raise `MissingExtension` unless digests can be taken."""
    import rpmem.memory.changes.digests  # noqa: F401


def without_kernel() -> Mode:
    """Return how changes are found where the kernel does not tell."""
    try:
        load_digests()
    except MissingExtension as error:
        log.info("persist() without a range sends the whole pool: %s", error)
        return "off"
    return "digest"


def watched(region: Region, reach: Reach) -> Way:
    """Begin to find changes by what the kernel sees."""
    from rpmem.pool.tracking.watched import Watched

    return Watched(region, reach)


def digested(region: Region, reach: Reach) -> Way:
    """Begin to find changes by digests."""
    from rpmem.pool.tracking.digested import Digested

    return Digested(region, reach)
