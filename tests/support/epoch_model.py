"""What has to happen when copies of a pool come together.

This is written from the rules alone, with sets, and shares no code with what it checks.

An act of a writer is a generator. Each `yield` says which durable steps may come next, by copy, and
is answered with the copy whose step came, or with `Cut` where the session with a copy ended
instead. It ends by itself, with `Refused`, or with the `Cut` that the caller is to see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import TypeAlias

from tests.support.epoch_truth import (
    AHEAD,
    BEGUN,
    BEHIND,
    CLEAN,
    JOINING,
    LEFT,
    MIXTURE,
    SAME,
    Bytes,
    Chain,
    Copy,
    Epoch,
    Gone,
    Step,
    Truth,
    Violation,
    state_of,
)  # fmt: skip

Plan: TypeAlias = Generator[dict[int, Step], int, None]


class Refused(Exception):
    """A call is refused: as what, and which copy it names."""

    def __init__(self, code: str, copy: int) -> None:
        super().__init__(code, copy)
        self.code, self.copy = code, copy


class Cut(Exception):
    """The session with a copy has ended."""

    def __init__(self, copy: int) -> None:
        super().__init__(copy)
        self.copy = copy


class Session:
    """A writer, and the copies that it has connected.

    Parameters
    ----------
    truth : Truth
    own : int
        Its local copy.
    uuids : mapping of int to int
        Of the copies that have no record yet.
    """

    def __init__(self, truth: Truth, own: int, uuids: Mapping[int, int]) -> None:
        self.truth = truth
        self.own = own
        self.others: list[int] = []
        self.seen: dict[int, Copy] = {}
        self.lost: set[int] = set()
        #: Sessions that have ended, known or not.
        self.cut: set[int] = set()
        self._left: set[int] = set()
        self.memory: Chain = truth.holds[own].chain
        self._given = uuids
        self._uuids: dict[int, int] = {}
        self.connect(own)

    def connect(self, copy: int) -> None:
        """Read the record of a copy, which nobody else changes from now on."""
        if copy in self.others:
            return
        self.seen.pop(copy, None)
        self._uuids[copy] = self._given[copy]
        self.lost.discard(copy)
        if copy in self.truth.copies:
            self.seen[copy] = self.truth.copies[copy]

    @property
    def everyone(self) -> list[int]:
        """Its copies, the own one first."""
        return [self.own, *self.others]

    @property
    def intact(self) -> list[int]:
        """The other copies that are not known to be lost."""
        return [each for each in self.others if each not in self.lost]

    def _uuid(self, copy: int) -> int:
        return self.seen[copy].uuid if copy in self.seen else self._uuids[copy]

    # --- acts -----------------------------------------------------------------------------

    def open(self, joining: list[int], discard: Collection[int]) -> Plan:
        """Bring copies up to date and begin an epoch with them; what they hold is handed out."""
        yield from self._agree(joining, discard)
        self._hand_out()
        self._present()

    def attach(self, copy: int, *, create: bool, discard: Collection[int]) -> Plan:
        """Take one more copy in."""
        self._check_losses()
        if create:
            yield {copy: Copy(self._uuid(copy), self.seen[self.own].epoch, JOINING)}
        before = self.seen[self.own]
        try:
            yield from self._agree([copy], discard)
        except Cut:
            if copy in self.others:
                self.others.remove(copy)
            if self.seen[self.own] != before:
                yield from self._begin_quietly()
            raise
        self._hand_out()

    def _begin_quietly(self) -> Plan:
        try:
            yield from self._begin([self.seen[each] for each in self.others])
        except Cut:
            return
        self._hand_out()

    def detach(self, copy: int) -> Plan:
        """Let a copy go: in order where it can still say so."""
        left = False
        if copy not in self.lost:
            try:
                yield {copy: self.seen[copy]._replace(mark=LEFT)}
                left = True
            except Cut:
                pass
        self.others.remove(copy)
        if left:
            self._left.add(self._uuid(copy))
        self._check_losses()
        yield from self._begin([self.seen[each] for each in self.others])
        self._hand_out()

    def _check_losses(self) -> None:
        """No epoch begins beside a copy that is known to be lost."""
        for each in self.others:
            if each in self.lost:
                raise Cut(each)

    def restore(self, source: int) -> Plan:
        """Make a new own copy from another one, and go on with both."""
        if source not in self.seen:
            raise Refused("catalogue-corrupt", source)
        if not self.truth.complete(self.seen[source]):
            raise Refused("stale-replica", source)
        record, held = self.seen[source], self.truth.holds[source]
        yield {self.own: Copy(self._uuid(self.own), record.epoch, JOINING)}
        yield {self.own: held}
        self.memory, self.others = held.chain, [source]
        try:
            yield from self._begin([record])
        except Cut:
            self.others = []
            yield from self._begin([record])
            self.others = [source]
        self._hand_out()
        self._present()

    def persist(self, write: int) -> Plan:
        """Store something and persist it: acknowledged if every copy has it."""
        self.memory = (*self.memory, write)
        whole = not self.lost.intersection(self.others)
        whole &= yield from self._deliver([self.own, *self.intact])
        if whole:
            self.truth.acknowledged[self.seen[self.own].epoch] = self.memory

    def _deliver(self, copies: Iterable[int]) -> Generator[dict[int, Step], int, bool]:
        left, whole = list(copies), True
        while left:
            to = Bytes(self.memory, self.truth.holds[self.own].lacks)
            try:
                left.remove((yield dict.fromkeys(left, to)))
            except Cut as cut:
                left.remove(cut.copy)
                whole = False
        return whole

    def close(self, *, refused: bool) -> Plan:
        """Mark copies that are equal as clean.

        `refused`: the own medium refused something, so the others go on without it.
        """
        if refused:
            yield from self._deliver(self.intact)
            if self.intact:
                with contextlib.suppress(Cut):
                    yield from self._left_behind()
            return
        behind = any(
            self.truth.holds[each].chain != self.memory for each in [self.own, *self.intact]
        )
        if behind and not (yield from self._deliver([self.own, *self.intact])):
            return
        yield from self._finish(self.intact)

    def _left_behind(self) -> Plan:
        self.own, *self.others = self.intact
        # The epoch says of all others that they were given up, of one that had just left, too.
        self._left = set()
        yield from self._begin([self.seen[each] for each in self.others])
        yield from self._finish(self.others)

    def _finish(self, others: list[int]) -> Plan:
        yield {self.own: self.seen[self.own]._replace(mark=CLEAN)}
        for each in others:
            try:
                yield {each: self.seen[each]._replace(mark=CLEAN)}
            except Cut:
                continue

    # --- pieces ---------------------------------------------------------------------------

    def _agree(self, joining: list[int], discard: Collection[int]) -> Plan:
        mine = self.seen[self.own]
        if not self.truth.complete(mine):
            raise Refused("stale-replica", self.own)
        for each in joining:
            if each in self.others:
                raise Refused("usage", each)
        verdicts = {each: self._verdict(each, each in discard) for each in joining}
        met = [self.seen[each] for each in self.others]
        met += self._met(joining, verdicts)
        above = max(
            (self.truth.epochs[name].number for each in joining for name in self._knows(each)),
            default=0,
        )
        for each in joining:
            self.truth.counts[f"verdict: {verdicts[each]}"] += 1
            if verdicts[each] != "equal":
                yield from self._overwrite(each, discarded=verdicts[each] == "discarded")
        self.others += joining
        self._left.difference_update(self._uuid(each) for each in joining)
        yield from self._begin(met, above=above)

    def _knows(self, copy: int) -> set[int]:
        return self.seen[copy].knows if copy in self.seen else set()

    def _verdict(self, copy: int, named: bool) -> str:
        mine, other = self.seen[self.own], self.seen.get(copy)
        if other is None:
            if named:
                return "discarded"
            raise Refused("catalogue-corrupt", copy)
        found = self.truth.relation(other.epoch, mine.epoch)
        self.truth.counts[f"met: {found}"] += 1
        rolled_back = found == SAME and self.truth.rolled_back(mine, other)
        self.truth.counts["met: same, and closed after the local copy"] += rolled_back
        if found in (SAME, BEHIND) and not rolled_back:
            return "equal" if self._equal(mine, other) else found
        if named:
            return "discarded"
        stale = rolled_back or found == AHEAD
        raise Refused("stale-replica" if stale else "split-brain", copy)

    def _equal(self, mine: Copy, other: Copy) -> bool:
        return mine.epoch == other.epoch and mine.mark == other.mark == CLEAN

    def _met(self, joining: Iterable[int], verdicts: Mapping[int, str]) -> list[Copy]:
        """Return the records whose epochs enter the history."""
        return [self.seen[each] for each in joining if verdicts[each] != "discarded"]

    def _overwrite(self, copy: int, *, discarded: bool) -> Plan:
        truth, mine, record = self.truth, self.seen[self.own], self.seen.get(copy)
        yield from self._admit(copy, discarded=discarded)
        source = truth.holds[self.own]
        if record is not None and not discarded:
            lineage = truth.epochs[record.epoch].past | {record.epoch}
            held = Bytes(self.memory, source.lacks)
            truth.check_contained(lineage, held, truth.epochs[mine.epoch].excused)
        torn = MIXTURE
        if (
            record is not None
            and record.epoch == mine.epoch
            and not (discarded or record.mark == JOINING)
        ):
            torn = _common(self.memory, truth.holds[copy].chain)
        yield {copy: Bytes(torn, source.lacks | truth.holds[copy].lacks)}
        yield {copy: Bytes(self.memory, source.lacks)}

    def _admit(self, copy: int, *, discarded: bool) -> Plan:
        """Let a copy say what it is while it is overwritten."""
        record = self.seen.get(copy)
        if record is None or record.epoch != self.seen[self.own].epoch or discarded:
            yield {copy: self._joining(copy, record, discarded)}
        elif record.mark in (CLEAN, LEFT):
            yield {copy: self._unmarked(record)}

    def _unmarked(self, record: Copy) -> Copy:
        return record._replace(mark=BEGUN)

    def _joining(self, copy: int, record: Copy | None, discarded: bool) -> Copy:
        """Return the record of a mixture; a newer epoch that it was offered stays offered."""
        epoch = self.seen[self.own].epoch
        offered = None if record is None or discarded else record.offered
        if offered is not None:
            numbers = [self.truth.epochs[each].number for each in (offered, epoch)]
            offered = offered if numbers[0] > numbers[1] else None
        return Copy(self._uuid(copy), epoch, JOINING, offered)

    def _begin(self, met: Iterable[Copy], *, above: int = 0) -> Plan:
        """Begin an epoch: offered to each, then begun on each, the own one first in both."""
        new = self._new_epoch([self.seen[self.own], *met], above)
        for change in (
            lambda record: record._replace(offered=new),
            lambda record: Copy(record.uuid, new, BEGUN),
        ):
            yield from self._each([self.own], change)
            yield from self._each(self.others, change)

    def _new_epoch(self, met: list[Copy], above: int) -> int:
        truth, mine = self.truth, self.seen[self.own]
        names = set().union(*(each.knows for each in met))
        uuids = tuple(self._uuid(each) for each in self.everyone)
        before = truth.epochs[mine.epoch]
        gone = [Gone(u, mine.epoch, u not in self._left) for u in before.members if u not in uuids]
        gone += [each for each in before.gone if each.uuid not in uuids]
        if len(gone) > truth.limits[1]:
            truth.counts["more copies parted than a record has room for"] += 1
        lies = [truth.lies.get(each, frozenset()) for each in self.everyone]
        return truth.add(
            Epoch(
                number=1 + max(above, *(truth.epochs[each].number for each in names)),
                members=uuids,
                past=frozenset(names).union(*(truth.epochs[each].past for each in names)),
                gone=tuple(gone[: self.truth.limits[1]]),
                base=mine.epoch,
                excused=frozenset().union(*lies, *(truth.epochs[each].excused for each in names)),
            )
        )

    def _each(self, copies: Iterable[int], change: Callable[[Copy], Copy]) -> Plan:
        left = list(copies)
        while left:
            left.remove((yield {each: change(self.seen[each]) for each in left}))

    @property
    def _served(self) -> list[int]:
        return [each for each in self.others if each not in self.cut]

    def _hand_out(self) -> None:
        """Check that what is acknowledged so far is on every copy of the new epoch."""
        truth, name = self.truth, self.seen[self.own].epoch
        epoch = truth.epochs[name]
        own = Bytes(self.memory, truth.holds[self.own].lacks)
        truth.check_contained(epoch.past, own, epoch.excused)
        required = truth.required(name)
        if self.memory[: len(required)] == required:
            for each in self._served:
                if truth.holds[each].chain[: len(required)] != required:
                    raise Violation(f"copy {each} is in the epoch and lacks what is acknowledged")
        truth.acknowledged[name] = required

    def _present(self) -> None:
        """Check that what is shown after an opening is everywhere: it must not vanish."""
        for each in self._served:
            if self.truth.holds[each].chain != self.memory:
                raise Violation(f"copy {each} takes part and differs")
        self.truth.acknowledged[self.seen[self.own].epoch] = self.memory


def _common(one: Chain, other: Chain) -> Chain:
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]


class Act:
    """One act of a writer, followed step by step.

    Parameters
    ----------
    session : Session
    plan : iterator
        What the model says of it.
    """

    def __init__(self, session: Session, plan: Plan) -> None:
        self._session = session
        self._plan = plan
        self._answer: int | None = None
        self._allowed: dict[int, Step] | None = None
        self._over: tuple[str, int] | None = None
        self._done = False

    def expect(self, copy: int) -> Step:
        """Return what the step that comes now has to make of a copy."""
        if self._allowed is None:
            self._go(lambda: self._plan.send(self._answer))
        if self._allowed is None or copy not in self._allowed:
            raise Violation(f"a step on copy {copy}; expected: {self._allowed or self._over}")
        return self._allowed[copy]

    def done(self, copy: int, step: Step, *, told: bool = True) -> None:
        """Note that a step is durable; `told`: its writer knows."""
        truth = self._session.truth
        if isinstance(step, Bytes):
            truth.check_bytes(copy, step)
            truth.holds[copy] = step
        else:
            before = truth.copies.get(copy)
            truth.counts[f"{state_of(before)} -> {state_of(step)}"] += 1
            truth.copies[copy] = step
            if before is not None and before.epoch != step.epoch and step.mark == BEGUN:
                truth.lies.pop(copy, None)  # the epoch knows it now: `Epoch.excused`
        if told:
            if isinstance(step, Copy):
                self._session.seen[copy] = step
            self._answer, self._allowed = copy, None

    def cut(self, copy: int) -> None:
        """Note that the step on a copy failed, as the session with it has ended."""
        self._session.lost.add(copy)
        self._go(lambda: self._plan.throw(Cut(copy)))

    def end(self) -> tuple[str, int] | None:
        """Return how the act ends; raise where it is not over."""
        if self._allowed is None and not self._done:
            self._go(lambda: self._plan.send(self._answer))
        if not self._done:
            raise Violation(f"left out: {self._allowed}")
        return self._over

    def _go(self, on: Callable[[], dict[int, Step]]) -> None:
        self._allowed = None
        if self._done:
            return
        try:
            self._allowed = on()
        except StopIteration:
            self._done = True
        except Refused as refused:
            self._done, self._over = True, (refused.code, refused.copy)
        except Cut as cut:
            self._done, self._over = True, ("replica-lost", cut.copy)
