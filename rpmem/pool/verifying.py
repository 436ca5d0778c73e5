"""Comparing the copies of an open pool while others use it; `verification` has the rules.

A pass asks both sides for digests of a piece's pages, and notes what calls had under way and what
was stored to meanwhile. Pages that seem wrong are looked at again while no call can change them on
any copy, and while nobody changes the catalogue.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np

from rpmem.errors import ClosedError, UsageError
from rpmem.pool.findings import MOST_DIFFERENCES, Difference, Report, merged
from rpmem.pool.places import MOST_LOOKED_AT, Places, pairs_in, runs_of
from rpmem.pool.progress import Progress, chunks
from rpmem.pool.resync import name_of
from rpmem.pool.scratch import Scratch
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, SLOTS_OFFSET
from rpmem.pool.tracking.ways import set_for
from rpmem.pool.verification import (
    LOCAL,
    UNIT,
    Seen,
    Standing,
    Verdict,
    Verification,
    digests_in,
    same_digests,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.memory.region import Region
    from rpmem.pool.arrays import NamedArrays
    from rpmem.pool.copies import Copies
    from rpmem.pool.tracking.tracking import Tracking
    from rpmem.pool.verification import Digests, Flags
    from rpmem.session.replica import Replica

    Content = NDArray[np.uint8]

log = logging.getLogger(__name__)

_KEY_SIZE: Final = 32
#: Seconds that the end of a pool waits for a pass to notice it.
_PATIENCE_S: Final = 5.0


class Verifier:
    """Compares the copies of a pool, pass after pass; what one has learnt serves the next ones.

    Parameters
    ----------
    copies : Copies
    tracking : Tracking
        Tells what is stored to, where the kernel does.
    arrays : NamedArrays
    region : Region
        The local copy.
    """

    def __init__(
        self, copies: Copies, tracking: Tracking, arrays: NamedArrays, region: Region
    ) -> None:
        self._copies = copies
        self._tracking = tracking
        self._arrays = arrays
        self._region = region
        self._lock = threading.Lock()
        self._key = os.urandom(_KEY_SIZE)
        self._end = copies.layout.pool_size
        self._places = Places(copies.layout, arrays)
        self._state = Verification(self._places.count)
        self._of_arrays = np.zeros_like(self._state.used)
        self._passing, self._sent, self._moving = (set_for(region) for _ in range(3))
        self._replicas: list[Replica] = []
        self._sees = self._ending = False
        #: The copies whose media are read, too, as far as that is possible.
        self._deep: set[int] = set()
        self._found: list[Difference] = []
        self._repaired = 0
        self._scratch = Scratch(MOST_LOOKED_AT * UNIT)
        copies.mark_passing(self._passing)

    def run(self, *, repair: int | None, deep: bool, progress: Progress) -> Report:
        """Compare everything once.

        Parameters
        ----------
        deep : bool
            What the media hold, where they are not memory.
        repair : int or None
            The copy that gets the bytes of others where it differs: `LOCAL` or a replica.
        progress : callable
            Told what is done.
        """
        with self._alone():
            started = time.monotonic()
            self._start(repair, deep=deep)
            what = f"{self._copies.local.where}: comparing its copies"
            self._compare(LAYOUT_OFFSET, LAYOUT_SIZE, repair)
            for begin, length in chunks(SLOTS_OFFSET, self._end, what, progress):
                self._compare(begin, length, repair)
            counts = self._state.counts
            numbers = range(LOCAL, len(self._replicas))
            return Report(
                differences=merged(self._found),
                pages=len(self._state.known),
                different=counts[Standing.DIFFERENT],
                repaired=self._repaired,
                unpersisted=counts[Standing.UNPERSISTED],
                unclear=counts[Standing.UNCLEAR],
                seconds=time.monotonic() - started,
                depths={
                    self._name(each): "medium" if each in self._deep else "memory"
                    for each in numbers
                },
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other passes out; one that does not come to its end leaves nothing known."""
        with self._lock:
            try:
                yield
            except BaseException:
                # It may have been interrupted between asking and noting.
                self._state.known[:] = False
                self._sees = False
                raise

    @contextmanager
    def ended(self) -> Iterator[None]:
        """End a pass that is under way, and let none begin meanwhile."""
        self._ending = True
        held = self._lock.acquire(timeout=_PATIENCE_S)
        try:
            yield
        finally:
            self._ending = False
            if held:
                self._lock.release()

    # --- a pass ---------------------------------------------------------------------------

    def _start(self, repair: int | None, *, deep: bool) -> None:
        """Begin a pass with what is known from others."""
        replicas = self._copies.replicas
        self._deep = set(range(LOCAL, len(replicas))) if deep else set()
        if not replicas and not deep:
            raise UsageError(
                "the pool has no replica to compare with",
                where=self._copies.local.where,
                hint="Open it with its replicas, or attach one",
            )
        if repair == LOCAL:
            self._refuse_if_in_use()
        state = self._state
        if replicas != self._replicas:
            state.known[:] = False
            self._replicas = replicas
        state.counts.clear()
        self._found.clear()
        self._repaired = 0
        state.used[:] = False
        entries, spans, mark = self._arrays.extents()
        for low, high in [(LAYOUT_OFFSET, SLOTS_OFFSET), *self._places.own(spans, mark)]:
            state.used[self._places.span(low, high)] = True
        self._of_arrays[:] = False
        for entry in entries:
            self._of_arrays[self._places.span(entry.offset, entry.offset + entry.length)] = True
        state.used |= self._of_arrays
        if not self._sees:
            self._watch()

    def _watch(self) -> None:
        """Begin to be told of stores, if the kernel tells."""
        given = self._given(LAYOUT_OFFSET, self._end - LAYOUT_OFFSET)
        stores = self._tracking.observe()
        self._sees = stores is not None
        if stores is None:
            return
        before = np.zeros_like(given)
        before[self._places.units(stores.take())] = True
        state = self._state
        state.stored[:] = before & given & stores.seen
        state.doubtful[:] = before & given & (not stores.seen)

    def _compare(self, begin: int, length: int, repair: int | None) -> None:
        """Compare a piece."""
        if self._ending:
            raise ClosedError("the pool is closed", where=self._copies.local.where)
        self._check_replicas()
        state = self._state
        here = self._places.span(begin, begin + length)
        self._note_sent()
        self._note_stores(begin, length)
        self._moving.clear()
        self._copies.call("under_way", self._moving)
        mine, theirs, rotten = self._digests(begin, length)
        moving = self._places.flags(self._note_sent(), here)
        moving |= self._places.flags(self._places.units(self._moving.ranges()), here)
        stored = self._stored_by_now(begin, length)
        seen = Seen(mine, theirs, moving, stored)
        suspects = state.take(here.start, seen, careful=bool(self._deep))
        suspects = np.union1d(suspects, rotten + here.start)
        for first, behind in runs_of(suspects):
            self._look(first, behind, repair)

    def _digests(self, begin: int, length: int) -> tuple[Digests, list[Digests], NDArray[np.intp]]:
        """Return digests of the pages of a piece, which all sides take at once.

        Those of replicas are of their media where that is possible. Also returned is which pages
        the local medium has otherwise than the memory.
        """
        mine: list[Digests] = []
        theirs: dict[int, Digests] = {}
        rotten: list[NDArray[np.intp]] = []

        def here() -> None:
            mine.append(self._hashed(self._region, begin, length))
            beneath = self._beneath(begin, length)
            same = beneath is None or same_digests(beneath, mine[0])
            rotten.append(np.flatnonzero(~np.asarray(same)))

        def ask(number: int) -> None:
            if number == len(self._replicas):
                here()
            elif self._replicas[number].compares:
                theirs[number] = self._there(number, begin, length, lambda: ask(number + 1))
            else:
                ask(number + 1)
                content = self._scratch.of(number, length)
                with memoryview(content) as view, view[:length] as piece:
                    self._copies.call("read", number, piece, begin)
                theirs[number] = self._hashed(content, 0, length)
                self._deep.discard(number)

        ask(0)
        return mine[0], [theirs[each] for each in sorted(theirs)], rotten[0]

    def _there(self, number: int, begin: int, length: int, besides: Callable[[], None]) -> Digests:
        """Return digests of a replica, of its medium if that is wanted and possible."""
        taken = self._replicas[number].digests_there(
            (begin, length, UNIT), self._key, besides, deep=number in self._deep
        )
        if not taken.deep:
            self._deep.discard(number)
        return digests_in(taken.digests)

    def _beneath(self, begin: int, length: int) -> Digests | None:
        """Return digests of what the local medium has, if that is wanted and possible."""
        if LOCAL not in self._deep:
            return None
        self._region.persist(begin, length)
        content = self._copies.local.beneath(begin, length)
        if content is None:
            self._deep.discard(LOCAL)
            return None
        with content.region as region:
            return self._hashed(region, content.begin, length)

    def _hashed(self, region: Region, offset: int, length: int) -> Digests:
        from rpmem.memory.changes.unit_digests import unit_digests

        return digests_in(unit_digests(region, offset, length, UNIT, self._key))

    def _check_replicas(self) -> None:
        """Raise if their numbers are others than at the beginning of the pass."""
        if self._copies.replicas != self._replicas:
            raise UsageError(
                "the replicas of the pool were changed while it was verified",
                where=self._copies.local.where,
                hint="Verify it again",
            )

    # --- looking again --------------------------------------------------------------------

    def _look(self, first: int, behind: int, repair: int | None) -> None:
        """Look at pages again, while calls that would change them wait."""
        with self._arrays.lock:
            verdicts = self._judged(first, behind)
            contents = self._scratch.contents(
                len(self._replicas), self._places.place(first, behind)[1]
            )
            for unit, verdict in verdicts:
                standing = verdict.standing
                if standing is Standing.DIFFERENT:
                    low = (unit - first) * UNIT
                    mine, *theirs = [each[low : low + UNIT] for each in contents]
                    standing = self._report(unit, verdict, mine, theirs, repair)
                self._state.counts[standing] += 1

    def _judged(self, first: int, behind: int) -> list[tuple[int, Verdict]]:
        """Return what is known of pages; their bytes are in the scratch memory afterwards."""
        offset, length = self._places.place(first, behind)
        here = slice(first, behind)
        self._note_stores(offset, length)
        # Not while calls wait: what changes the replicas has the lock, and waits for calls.
        interrupted = self._copies.unsettled()
        with self._copies.call("hold", offset, length) as held:
            self._check_replicas()
            self._note_sent()
            for number in range(LOCAL, len(self._replicas)):
                content = self._scratch.of(number, length)
                with memoryview(content) as view, view[:length] as piece:
                    if number == LOCAL:
                        held.here(piece)
                    else:
                        held.there(number, piece)
            beneath = {
                number: self._there(number, offset, length, _nothing)
                for number in sorted(self._deep - {LOCAL})
            }
        interrupted += self._copies.unsettled()
        unsettled = self._places.flags(self._places.units(pairs_in(interrupted)), here)
        here_beneath = self._beneath(offset, length)
        if here_beneath is not None:
            beneath[LOCAL] = here_beneath
        # Stores to the local copy meanwhile; what was sent since is for later.
        stored = self._stored_by_now(offset, length)
        shown = [
            self._hashed(self._scratch.of(number, length), 0, length)
            for number in range(LOCAL, len(self._replicas))
        ]
        verdicts = []
        for k in range(behind - first):
            mine, *theirs = (each[k] for each in shown)
            verdict = self._state.judge(
                first + k, mine, theirs, stored=bool(stored[k]), unsettled=bool(unsettled[k])
            )
            rotten = [
                number
                for number, digests in beneath.items()
                if (digests[k] != shown[number + 1][k]).any()
                and not (number == LOCAL and stored[k])
            ]
            if verdict.standing is not Standing.DIFFERENT and rotten:
                verdict = Verdict(Standing.DIFFERENT, tuple(rotten), certain=True, beneath=True)
            verdicts.append((first + k, verdict))
        return verdicts

    # --- what was found -------------------------------------------------------------------

    def _report(
        self,
        unit: int,
        verdict: Verdict,
        mine: Content,
        theirs: Sequence[Content],
        repair: int | None,
    ) -> Standing:
        """Add a page that differs to what was found, and repair it if that is wanted."""
        offset, length = self._places.place(unit, unit + 1)
        used = self._places.used(offset, length)
        differing = [number for number, each in enumerate(theirs) if (each != mine)[used].any()]
        if not differing and not verdict.beneath:
            return Standing.EQUAL
        repaired = repair is not None and self._repair(unit, verdict, theirs, repair)
        self._repaired += repaired
        if len(self._found) < MOST_DIFFERENCES:
            self._found.append(
                Difference(
                    offset,
                    length,
                    arrays=self._places.names(offset, length),
                    copies=tuple(map(self._name, differing)),
                    wrong=tuple(map(self._name, verdict.wrong)),
                    certain=verdict.certain,
                    beneath=verdict.beneath,
                    repaired=repaired,
                )
            )
        return Standing.DIFFERENT

    def _repair(self, unit: int, verdict: Verdict, theirs: Sequence[Content], side: int) -> bool:
        """Give one copy the bytes of another in a page; return whether all are equal then."""
        offset, length = self._places.place(unit, unit + 1)
        right = [
            each
            for number, each in enumerate(theirs)
            if verdict.beneath or number not in verdict.wrong
        ]
        if side == LOCAL:
            self._refuse_if_in_use()
            if not right or any((each != right[0]).any() for each in right):
                return False  # nobody knows which of the replicas to believe
        with self._copies.call("hold", offset, length) as held:
            if side == LOCAL:
                held.store(right[0])
                # A copy that is away may have what this one had.
                self._copies.absent.missed([(offset, length)])
            else:
                mine = np.empty(length, np.uint8)
                held.here(mine)  # what it has by now
                held.send(side, mine)
        ((_, judged),) = self._judged(unit, unit + 1)
        # Other replicas may lack what is not persisted.
        good = [Standing.EQUAL] if side == LOCAL else [Standing.EQUAL, Standing.UNPERSISTED]
        return judged.standing in good

    def _refuse_if_in_use(self) -> None:
        live = self._arrays.live()
        if live or not self._copies.local.keeps_zeros:
            names = ", ".join(map(repr, live[:8])) or "the buffer"
            raise UsageError(
                f"the local copy cannot be repaired while a program uses it: {names}",
                where=self._copies.local.where,
                hint="Drop all views of arrays first, or close the pool and use "
                "'rpmem verify --repair local'",
            )

    # --- notes ----------------------------------------------------------------------------

    def _note_sent(self) -> NDArray[np.intp]:
        """Note what calls have sent since the last time, and return which pages those are."""
        self._sent.move_from(self._passing)
        units = self._places.units(self._sent.ranges())
        self._sent.clear()
        self._state.known[units] = False
        return units

    def _note_stores(self, offset: int, length: int) -> NDArray[np.intp]:
        """Note which pages were stored to, and return which those are."""
        if not self._sees:
            return np.zeros(0, np.intp)
        found = self._tracking.stored(offset, length)
        if found is None:
            log.info("%s: it is not seen any longer what is stored to", self._copies.local.where)
            self._sees = False
            return np.zeros(0, np.intp)
        units = self._places.units(found)
        self._state.stored[units] = True
        return units

    def _stored_by_now(self, offset: int, length: int) -> Flags:
        """Return which pages were stored to since the last time, or may have been."""
        here = self._places.span(offset, offset + length)
        stored = self._places.flags(self._note_stores(offset, length), here)
        if not self._sees:
            stored = self._given(offset, length)
            # A place stays doubtful when its array is gone, until it is seen equal.
            self._state.doubtful[here] |= stored
            self._state.doubtful[self._places.units(self._arrays.deleted())] = True
        # A page that the kernel has dropped from memory counts as stored to.
        could = self._could(offset, length)
        self._state.stored[here] &= could
        return stored & could

    def _could(self, offset: int, length: int) -> Flags:
        """Return which pages anybody could have stored to since the pool was opened."""
        here = self._places.span(offset, offset + length)
        found = self._tracking.could_be_stored(offset, length)
        if found is None:
            return np.ones(here.stop - here.start, bool)  # somebody else's buffer
        return self._places.flags(self._places.units(found), here)

    def _given(self, offset: int, length: int) -> Flags:
        """Return which pages a program may have stored to: those of arrays that it was given.

        All others are the pool's own, which changes them while it holds the lock of the catalogue.
        """
        here = self._places.span(offset, offset + length)
        if not self._copies.local.keeps_zeros:
            return self._could(offset, length)
        with self._arrays.lock:
            flags = self._could(offset, length)
            if here.stop - here.start <= MOST_LOOKED_AT:
                return flags & self._held_by_arrays(here)
        return flags & self._of_arrays[here]

    def _held_by_arrays(self, here: slice) -> Flags:
        """Return which of few pages hold something of an array now."""
        return np.array(
            [
                bool(self._places.names(*self._places.place(k, k + 1)))
                for k in range(here.start, here.stop)
            ]
        )

    # --- copies ---------------------------------------------------------------------------

    def _name(self, number: int) -> str:
        return "local" if number == LOCAL else name_of(self._replicas[number])


def _nothing() -> None:
    """Do nothing besides."""
