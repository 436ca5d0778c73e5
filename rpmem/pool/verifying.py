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
from typing import TYPE_CHECKING, Final

import numpy as np

from rpmem.errors import UsageError
from rpmem.pool.findings import MOST_DIFFERENCES, Difference, Report, merged
from rpmem.pool.progress import Progress, chunks
from rpmem.pool.resync import name_of
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, SLOTS_OFFSET
from rpmem.pool.tracking.ways import pairs_of, set_for
from rpmem.pool.verification import (
    LOCAL,
    UNIT,
    Seen,
    Standing,
    Verdict,
    Verification,
    digests_in,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.memory.region import Region
    from rpmem.pool.arrays import NamedArrays
    from rpmem.pool.copies import Copies
    from rpmem.pool.pacing import Pace
    from rpmem.pool.tracking.tracking import Tracking
    from rpmem.pool.verification import Digests, Flags
    from rpmem.session.replica import Replica

    Content = NDArray[np.uint8]

log = logging.getLogger(__name__)

_KEY_SIZE: Final = 32
#: Most neighbouring pages that are looked at together while calls wait.
_MOST_LOOKED_AT: Final = 16


class Verifier:
    """Compares the copies of a pool, pass after pass.

    What a pass has learnt serves the next ones.

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
        self._state = Verification(-(-(self._end - LAYOUT_OFFSET) // UNIT))
        self._of_arrays = np.zeros_like(self._state.used)
        self._passing, self._sent, self._moving = (set_for(region) for _ in range(3))
        self._replicas: list[Replica] = []
        self._sees = False
        #: The copies whose media are read, too, as far as that is possible.
        self._deep: set[int] = set()
        self._found: list[Difference] = []
        self._repaired = 0
        self._scratch: list[Region] = []
        copies.mark_passing(self._passing)

    def run(self, *, repair: int | None, deep: bool, progress: Progress, pace: Pace) -> Report:
        """Compare everything once.

        Parameters
        ----------
        deep : bool
            What the media hold, where they are not memory.
        repair : int or None
            The copy that gets the bytes of others where it differs: `LOCAL` or a replica.
        progress : callable
            Told what is done.
        pace : Pace
            Says how fast.
        """
        with self._lock:
            started = time.monotonic()
            self._start(repair, deep=deep)
            what = f"{self._copies.local.where}: comparing its copies"
            self._compare(LAYOUT_OFFSET, LAYOUT_SIZE, repair)
            for begin, length in chunks(SLOTS_OFFSET, self._end, what, progress):
                pace.spend(length)
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
        while len(self._scratch) <= len(replicas):
            self._scratch.append(_scratch())
        state.counts.clear()
        self._found.clear()
        self._repaired = 0
        state.used[:] = False
        entries, spans, mark = self._arrays.extents()
        for low, high in [(LAYOUT_OFFSET, SLOTS_OFFSET), *self._own(spans, mark)]:
            state.used[self._slice(low, high)] = True
        self._of_arrays[:] = False
        for entry in entries:
            self._of_arrays[self._slice(entry.offset, entry.offset + entry.length)] = True
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
        before[self._units(stores.take())] = True
        state = self._state
        (state.stored if stores.seen else state.doubtful)[:] = before & given

    def _compare(self, begin: int, length: int, repair: int | None) -> None:
        """Compare a piece."""
        if self._copies.replicas != self._replicas:
            raise UsageError(
                "the replicas of the pool were changed while it was verified",
                where=self._copies.local.where,
                hint="Verify it again",
            )
        state = self._state
        here = self._slice(begin, begin + length)
        self._note_sent()
        self._note_stores(begin, length)
        self._moving.clear()
        self._copies.call("under_way", self._moving)
        mine, theirs, rotten = self._digests(begin, length)
        moving = self._flags(self._note_sent(), here)
        moving |= self._flags(self._units(self._moving.ranges()), here)
        stored = self._flags(self._note_stores(begin, length), here)
        if not self._sees:
            state.doubtful[here] = stored = self._given(begin, length)
        seen = Seen(mine, theirs, moving, stored)
        suspects = state.take(here.start, seen, careful=bool(self._deep))
        suspects = np.union1d(suspects, rotten + here.start)
        for first, behind in _runs(suspects):
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
            same = beneath is None or (beneath == mine[0]).all(axis=1)
            rotten.append(np.flatnonzero(~np.asarray(same)))

        def ask(number: int) -> None:
            if number == len(self._replicas):
                here()
            elif self._replicas[number].compares:
                theirs[number] = self._there(number, begin, length, lambda: ask(number + 1))
            else:
                ask(number + 1)
                content = self._scratch_of(number, length)
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

    # --- looking again --------------------------------------------------------------------

    def _look(self, first: int, behind: int, repair: int | None) -> None:
        """Look at pages again, while calls that would change them wait."""
        with self._arrays.lock:
            verdicts = self._judged(first, behind)
            contents = self._contents(self._place(first, behind)[1])
            for unit, verdict in verdicts:
                standing = verdict.standing
                if standing is Standing.DIFFERENT:
                    low = (unit - first) * UNIT
                    mine, *theirs = [each[low : low + UNIT] for each in contents]
                    standing = self._report(unit, verdict, mine, theirs, repair)
                self._state.counts[standing] += 1

    def _judged(self, first: int, behind: int) -> list[tuple[int, Verdict]]:
        """Return what is known of pages; their bytes are in the scratch memory afterwards."""
        offset, length = self._place(first, behind)
        here = slice(first, behind)
        self._note_stores(offset, length)
        with self._copies.call("hold", offset, length) as held:
            self._note_sent()
            unsettled = self._flags(self._units(pairs(self._copies.unsettled())), here)
            for number in range(LOCAL, len(self._replicas)):
                content = self._scratch_of(number, length)
                with memoryview(content) as view, view[:length] as piece:
                    if number == LOCAL:
                        held.here(piece)
                    else:
                        held.there(number, piece)
            beneath = {
                number: self._there(number, offset, length, _nothing)
                for number in sorted(self._deep - {LOCAL})
            }
        here_beneath = self._beneath(offset, length)
        if here_beneath is not None:
            beneath[LOCAL] = here_beneath
        # Stores to the local copy meanwhile; what was sent since is for later.
        stored = self._flags(self._note_stores(offset, length), here)
        if not self._sees:
            self._state.doubtful[here] = stored = self._given(offset, length)
        shown = [self._hashed(each, 0, length) for each in self._scratch[: 1 + len(self._replicas)]]
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
        offset, length = self._place(unit, unit + 1)
        used = self._used(offset, length)
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
                    arrays=self._names(offset, length),
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
        offset, length = self._place(unit, unit + 1)
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
        return judged.standing is Standing.EQUAL

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
        units = self._units(self._sent.ranges())
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
        units = self._units(found)
        self._state.stored[units] = True
        return units

    def _given(self, offset: int, length: int) -> Flags:
        """Return which pages a program may have stored to: those of arrays that it was given.

        All others are the pool's own, which changes them while it holds the lock of the catalogue.
        """
        here = self._slice(offset, offset + length)
        with self._arrays.lock:
            found = self._tracking.could_be_stored(offset, length)
            if found is None:
                return np.ones(here.stop - here.start, bool)  # somebody else's buffer
            flags = self._flags(self._units(found), here)
            if here.stop - here.start <= _MOST_LOOKED_AT:
                return flags & self._held_by_arrays(here)
        return flags & self._of_arrays[here]

    def _held_by_arrays(self, here: slice) -> Flags:
        """Return which of few pages hold something of an array now."""
        return np.array(
            [bool(self._names(*self._place(k, k + 1))) for k in range(here.start, here.stop)]
        )

    # --- places ---------------------------------------------------------------------------

    def _slice(self, low: int, high: int) -> slice:
        """Return the pages that a range touches."""
        first = (max(low, LAYOUT_OFFSET) - LAYOUT_OFFSET) // UNIT
        behind = -(-(min(high, self._end) - LAYOUT_OFFSET) // UNIT)
        return slice(first, max(first, behind))

    def _place(self, first: int, behind: int) -> tuple[int, int]:
        """Return offset and length of what is compared of neighbouring pages."""
        if first == 0:
            return LAYOUT_OFFSET, LAYOUT_SIZE  # the superblock, which is all of its piece
        offset = LAYOUT_OFFSET + first * UNIT
        return offset, min(LAYOUT_OFFSET + behind * UNIT, self._end) - offset

    def _units(self, ranges: bytes | bytearray) -> NDArray[np.intp]:
        """Return the pages that ranges touch, given as pairs of uint64."""
        pairs = pairs_of(ranges).astype(np.int64)
        low = np.clip(pairs[:, 0], LAYOUT_OFFSET, self._end) - LAYOUT_OFFSET
        high = np.clip(pairs[:, 0] + pairs[:, 1], LAYOUT_OFFSET, self._end) - LAYOUT_OFFSET
        first, behind = low // UNIT, -(-high // UNIT)
        counts = np.maximum(behind - first, 0)
        starts = np.cumsum(counts) - counts
        return np.repeat(first - starts, counts) + np.arange(counts.sum())

    @staticmethod
    def _flags(units: NDArray[np.intp], here: slice) -> Flags:
        """Return which pages of a slice are among some."""
        flags = np.zeros(here.stop - here.start, bool)
        flags[units[(units >= here.start) & (units < here.stop)] - here.start] = True
        return flags

    def _own(self, spans: list[tuple[int, int]], mark: int) -> Iterator[tuple[int, int]]:
        """Yield what the pool itself uses: the roots, the log, and what has to be zero."""
        yield SLOTS_OFFSET, self._copies.layout.data_start
        yield from spans
        yield mark, self._end

    def _used(self, offset: int, length: int) -> Flags:
        """Return which bytes of a page hold something."""
        used = np.zeros(length, bool)
        entries, spans, mark = self._arrays.extents()
        extents = [(each.offset, each.offset + each.length) for each in entries]
        for low, high in [(LAYOUT_OFFSET, SLOTS_OFFSET), *self._own(spans, mark), *extents]:
            if low < offset + length and offset < high:
                used[max(low - offset, 0) : max(high - offset, 0)] = True
        return used

    def _names(self, offset: int, length: int) -> tuple[str, ...]:
        """Return the arrays that lie in a range."""
        entries, _, _ = self._arrays.extents()
        return tuple(
            each.name
            for each in entries
            if each.offset < offset + length and offset < each.offset + each.length
        )

    def _name(self, number: int) -> str:
        return "local" if number == LOCAL else name_of(self._replicas[number])

    # --- scratch memory -------------------------------------------------------------------

    def _scratch_of(self, number: int, length: int) -> Region:
        """Return memory for a copy's bytes; `LOCAL` is the first."""
        if self._scratch[number + 1].size < length:
            self._scratch[number + 1] = _scratch(length)
        return self._scratch[number + 1]

    def _contents(self, length: int) -> list[NDArray[np.uint8]]:
        return [
            np.frombuffer(memoryview(each)[:length], np.uint8).copy()
            for each in self._scratch[: 1 + len(self._replicas)]
        ]


def _nothing() -> None:
    """Do nothing besides."""


def pairs(ranges: list[tuple[int, int]]) -> bytes:
    """Return ranges as pairs of uint64."""
    return np.array(ranges, np.uint64).tobytes()


def _scratch(size: int = _MOST_LOOKED_AT * UNIT) -> Region:
    from rpmem.memory.region import Region

    return Region.anonymous(size)


def _runs(units: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield neighbours together, at most so many as are looked at together."""
    first = behind = -1
    for unit in units.tolist():
        if unit != behind or behind - first == _MOST_LOOKED_AT:
            if first >= 0:
                yield first, behind
            first = unit
        behind = unit + 1
    if first >= 0:
        yield first, behind
