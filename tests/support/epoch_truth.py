"""What is true of copies of a pool: their epochs with the whole past, and what they really hold.

What a copy holds is the chain of the writes that it was made of, so that one copy is contained in
another exactly when its chain is the beginning of the other's. Beside what the copies record, the
truth knows what was acknowledged, or handed out, in each epoch, and counts what happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple, TypeAlias

Chain: TypeAlias = tuple[int, ...]
#: Bytes of two epochs.
MIXTURE: Chain = (-1,)
BEGUN, CLEAN, LEFT, JOINING = "BEGUN", "CLEAN", "LEFT", "JOINING"
SAME, BEHIND, AHEAD, SPLIT, UNRELATED = "same", "behind", "ahead", "split", "unrelated"


class Violation(AssertionError):
    """Something that has to be true was not."""


class Copy(NamedTuple):
    """What a copy records."""

    uuid: int
    epoch: int
    mark: str
    offered: int | None = None

    @property
    def knows(self) -> set[int]:
        """The epochs that it names."""
        return {self.epoch} if self.offered is None else {self.epoch, self.offered}


class Bytes(NamedTuple):
    """What a copy holds; and in which epochs it may lack what was acknowledged."""

    chain: Chain
    lacks: frozenset[int] = frozenset()


class Gone(NamedTuple):
    """A copy that is a member no longer."""

    uuid: int
    last: int
    given_up: bool


class Epoch(NamedTuple):
    """One epoch, with its whole past.

    Attributes
    ----------
    number : int
    members : tuple of int
        Their uuids.
    past : frozenset of int
        All epochs before it.
    gone : tuple of Gone
        The latest first, as many as a record has room for.
    base : int
        The one that its contents come from.
    excused : frozenset of int
        Epochs of the past in which more may have been acknowledged than it has: a copy that was put
        back vouched for them.
    """

    number: int
    members: tuple[int, ...]
    past: frozenset[int] = frozenset()
    gone: tuple[Gone, ...] = ()
    base: int = 0
    excused: frozenset[int] = frozenset()


Step: TypeAlias = Copy | Bytes


class Truth:
    """All epochs, what the copies record and hold, and what was acknowledged.

    Parameters
    ----------
    history, gone : int
        How many epochs, and parted copies, a record has room for.
    """

    def __init__(self, *, history: int, gone: int) -> None:
        self.limits = (history, gone)
        self.epochs: dict[int, Epoch] = {}
        self.copies: dict[int, Copy] = {}
        self.holds: dict[int, Bytes] = {}
        #: By epoch: what was acknowledged, or handed out, in it.
        self.acknowledged: dict[int, Chain] = {}
        #: By copy: epochs that its record vouches for wrongly, as it was put back.
        self.lies: dict[int, frozenset[int]] = {}
        self.counts: Counter[str] = Counter()
        self._remembered: dict[int, frozenset[int]] = {}

    def add(self, epoch: Epoch) -> int:
        """Return the name of a new epoch."""
        name = len(self.epochs) + 1
        self.epochs[name] = epoch
        return name

    # --- what records say -----------------------------------------------------------------

    def ring(self, name: int) -> list[int]:
        """Return the past epochs that fit into a record, the newest first."""
        past = sorted(self.epochs[name].past, key=lambda each: (-self.epochs[each].number, each))
        return past[: self.limits[0]]

    def remembered(self, name: int) -> frozenset[int]:
        """Return the past of an epoch as far as a record has room for it."""
        found = self._remembered.get(name)
        if found is None:
            found = self.epochs[name].past
            if len(found) > self.limits[0]:
                gone = self.epochs[name].gone
                found = frozenset(self.ring(name)).union(each.last for each in gone)
            self._remembered[name] = found
        return found

    def relation(self, theirs: int, ours: int) -> str:
        """Return what an epoch is, seen from another."""
        if theirs == ours:
            return SAME
        before, after = self.remembered(ours), self.remembered(theirs)
        if theirs in before:
            return BEHIND
        if ours in after:
            return AHEAD
        return UNRELATED if before.isdisjoint(after) else SPLIT

    def complete(self, copy: Copy) -> bool:
        """Return whether a copy has everything acknowledged in its epoch."""
        return copy.mark != JOINING and copy.uuid in self.epochs[copy.epoch].members

    def rolled_back(self, mine: Copy, other: Copy) -> bool:
        """Return whether the local copy looks older than it was: it is clean before all others."""
        first = self.epochs[mine.epoch].members[0]
        marks = (mine.mark, other.mark)
        return mine.epoch == other.epoch and first == mine.uuid and marks == (BEGUN, CLEAN)

    # --- what is true ---------------------------------------------------------------------

    def required(self, name: int) -> Chain:
        """Return what complete copies of an epoch have."""
        while name not in self.acknowledged and self.epochs[name].base:
            name = self.epochs[name].base
        return self.acknowledged.get(name, ())

    def check_contained(self, past: Iterable[int], holds: Bytes, excused: Collection[int]) -> None:
        """Raise unless bytes have what was acknowledged in epochs."""
        for each in past:
            chain = self.acknowledged.get(each)
            if chain is None or holds.chain[: len(chain)] == chain:
                continue
            if each not in holds.lacks and each not in excused:
                raise Violation(f"{chain}, acknowledged in epoch {each}, is not in {holds.chain}")
            self.counts["lost within the epoch of a copy put back"] += 1

    def check_bytes(self, copy: int, to: Bytes) -> None:
        """Raise where bytes are written that the copy does not say it gets."""
        mark = self.copies[copy].mark
        if mark in (CLEAN, LEFT):
            raise Violation(f"copy {copy} is written to while it counts as {mark}")
        if to.chain == MIXTURE and mark != JOINING:
            raise Violation(f"copy {copy} becomes a mixture and counts as {mark}")

    def check_pair(self, other: int, mine: int) -> str:
        """Return what a copy is, seen from another; raise where that is not true of the bytes."""
        theirs, ours = self.copies[other], self.copies[mine]
        found = self.relation(theirs.epoch, ours.epoch)
        if JOINING not in (theirs.mark, ours.mark):
            if found in (SAME, BEHIND):
                excused = self.epochs[ours.epoch].excused
                self.check_contained([theirs.epoch], self.holds[mine], excused)
            both_clean = found == SAME and theirs.mark == ours.mark == CLEAN
            if both_clean and self.holds[other].chain != self.holds[mine].chain:
                raise Violation(f"copies {mine} and {other} are same, clean, and differ")
        if found == SPLIT:
            self._check_split(theirs.epoch, ours.epoch)
        return found

    def _check_split(self, theirs: int, ours: int) -> None:
        """Count splits by what they are worth: nobody is told of one that cannot be real."""
        a, b = self.epochs[theirs], self.epochs[ours]
        if theirs in b.past or ours in a.past:
            self.counts["split: one contains the other, and has forgotten it"] += 1
            return
        sides = ((a.past | {theirs}) - b.past, (b.past | {ours}) - a.past)
        real = [not self.acknowledged.keys().isdisjoint(each) for each in sides]
        # What one copy records as begun was on all of its members as prepared: whether it was
        # handed out, no copy can know.
        self.counts["split: handed out on both sides" if all(real) else "split: cautious"] += 1

    def put_back(self, copy: int, record: Copy, holds: Bytes, lies: frozenset[int]) -> None:
        """Replace a copy by an older image of it."""
        # Within the epoch that it records, and within the one that it was being offered, a copy
        # that was put back looks like one that was there all the time.
        lies |= record.knows
        self.copies[copy], self.lies[copy] = record, lies
        self.holds[copy] = holds._replace(lacks=holds.lacks | lies)

    def lose(self, copy: int) -> None:
        """Lose a disk."""
        self.copies.pop(copy, None)
        self.holds[copy] = Bytes(MIXTURE)
        self.lies.pop(copy, None)


def state_of(record: Copy | None) -> str:
    """Return how what happens to a record is counted."""
    if record is None:
        return "none"
    return record.mark + ("" if record.offered is None else "+PREPARED")
