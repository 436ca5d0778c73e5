"""Copies of a pool, writers that crash between any two steps, and what has to be true of them.

The rules are the real ones (`rpmem.epochs`); media and messages are left out: a step is one durable
store in one copy. What a copy holds is the chain of the writes that it was made of, so that one
copy is contained in another exactly when its chain is the beginning of the other's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from rpmem.epochs import change, opening
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.epochs.relation import Relation, relation
from rpmem.errors import SplitBrain, StaleReplica

Chain = tuple[int, ...]


class Wrong(AssertionError):
    """Something that has to be true was not."""


class Refused(Exception):
    """An opening was refused, and nothing was changed."""


def uuid(copy: int) -> bytes:
    """Return the uuid of a copy."""
    return copy.to_bytes(16, "big")


class World:
    """Copies, and what was acknowledged to whom.

    Parameters
    ----------
    copies : int
    draw : random.Random
    """

    def __init__(self, copies: int, draw: random.Random) -> None:
        self.draw = draw
        self.everyone = tuple(range(copies))
        self.begun = 0
        self.writes = 0
        first = opening.first_epoch([uuid(each) for each in self.everyone], identity=self._new())
        self.records: dict[int, CopyRecord] = {
            each: change.marked(change.first(uuid(each), first), Mark.CLEAN)
            for each in self.everyone
        }
        self.holds: dict[int, Chain] = dict.fromkeys(self.everyone, ())
        #: By epoch: what was acknowledged in it, at its end.
        self.acknowledged: dict[bytes, Chain] = {first.identity: ()}
        self.counts: Counter[str] = Counter()

    def _new(self) -> bytes:
        self.begun += 1
        return self.begun.to_bytes(16, "big")

    # --- a writer, step by step -----------------------------------------------------------

    def session(self, own: int, others: tuple[int, ...], discard: frozenset[int]) -> Iterator[None]:
        """Open, write, close; every ``yield`` is a place where the writer may crash.

        Raises
        ------
        Refused
        """
        standings = self._standings(own, others, discard)
        mine = self.records[own]
        met = [self.records[each] for each in others if not standings[each].discarded]
        for each in others:
            yield from self._bring_up_to_date(own, each, standings[each])
        members = [uuid(each) for each in (own, *others)]
        epoch = opening.next_epoch(
            mine, met, members, identity=self._new(), when_s=self.begun, given_up=()
        )
        self.acknowledged[epoch.identity] = self.acknowledged[mine.epoch.identity]
        told = {uuid(each): self.records[each] for each in (own, *others)}
        steps = change.Change(epoch, told, uuid(own))
        while not steps.begun:
            copies = list(steps.writes().items())
            self.draw.shuffle(copies)
            copy, record = copies[0]
            self._write(int.from_bytes(copy, "big"), record)
            steps.written(copy)
            yield
        self._present(own, epoch.identity)
        yield from self._use((own, *others), epoch.identity)

    def _standings(
        self, own: int, others: tuple[int, ...], discard: frozenset[int]
    ) -> dict[int, opening.Standing]:
        try:
            found = opening.standings(
                self.records[own],
                {f"copy {each}": self.records[each] for each in others},
                where=f"copy {own}",
                discard={f"copy {each}" for each in discard},
            )
        except (SplitBrain, StaleReplica) as error:
            raise Refused(error.code) from error
        return {each: found[f"copy {each}"] for each in others}

    def _bring_up_to_date(self, own: int, copy: int, standing: opening.Standing) -> Iterator[None]:
        if standing.equal:
            if self.holds[copy] != self.holds[own]:
                raise Wrong(f"copies {own} and {copy} count as equal and differ")
            self.counts["equal"] += 1
            return
        self.counts[f"{standing.relation.value}, sent"] += 1
        record = self.records[copy]
        if record.epoch != self.records[own].epoch:
            discard = standing.discarded
            base = self.records[own].epoch
            joining = change.joining(record, uuid(copy), base, discard=discard)
            self._write(copy, joining, discard=discard)
            yield
        elif record.mark is not Mark.BEGUN and record.mark is not Mark.JOINING:
            self._write(copy, change.marked(record, Mark.BEGUN))
            yield
        # A push that is cut off leaves a mixture; within one epoch it has what was acknowledged.
        self.holds[copy] = (*self.holds[own][: len(self.holds[own]) // 2], -1)
        if record.epoch == self.records[own].epoch and record.complete:
            self.holds[copy] = self.acknowledged[record.epoch.identity]
        yield
        self.holds[copy] = self.holds[own]
        yield

    def _use(self, copies: tuple[int, ...], identity: bytes) -> Iterator[None]:
        for _ in range(self.draw.randrange(3)):
            self.writes += 1
            order = list(copies)
            self.draw.shuffle(order)
            for copy in order:
                self.holds[copy] = (*self.holds[copy], self.writes)
                yield
            self.acknowledged[identity] = self.holds[copies[0]]
            yield
        order = list(copies)
        self.draw.shuffle(order)
        for copy in order:
            self._write(copy, change.marked(self.records[copy], Mark.CLEAN))
            yield

    def _write(self, copy: int, record: CopyRecord, *, discard: bool = False) -> None:
        refusal = change.refusal(self.records[copy], record, discard=discard)
        if refusal is not None:
            raise Wrong(f"copy {copy} refuses what its writer may write: {refusal}")
        self.records[copy] = record

    def _present(self, own: int, identity: bytes) -> None:
        """Arrays are handed out: everything acknowledged in the epoch's past has to be there."""
        held = self.holds[own]
        epoch = self.records[own].epoch
        for past in epoch.past:
            acknowledged = self.acknowledged.get(past, ())
            if held[: len(acknowledged)] != acknowledged:
                raise Wrong(f"what was acknowledged in an epoch of the past is not in copy {own}")
        self.acknowledged[identity] = held

    # --- what has to be true --------------------------------------------------------------

    def check(self) -> None:
        """Compare what the records say of each other with what the copies hold."""
        for mine in self.everyone:
            for other in self.everyone:
                if mine != other:
                    self._compare(mine, other)

    def _compare(self, mine: int, other: int) -> None:
        ours, theirs = self.records[mine], self.records[other]
        if not (ours.complete and theirs.complete):
            return
        found = relation(theirs, ours)
        self.counts[found.value] += 1
        have, lack = (
            self.acknowledged[ours.epoch.identity],
            self.acknowledged[theirs.epoch.identity],
        )
        if found in (Relation.SAME, Relation.BEHIND) and have[: len(lack)] != lack:
            raise Wrong(f"copy {other} is {found.value} and has what copy {mine} lacks")
        both_clean = found is Relation.SAME and ours.mark is theirs.mark is Mark.CLEAN
        if both_clean and self.holds[mine] != self.holds[other]:
            raise Wrong(f"copies {mine} and {other} are same, clean, and differ")


def run(seed: int, *, copies: int = 3, sessions: int = 8) -> Counter[str]:
    """Run sessions of random writers, most of them cut off somewhere.

    Raises
    ------
    Wrong
        Something that has to be true was not.
    """
    draw = random.Random(seed)
    world = World(copies, draw)
    for _ in range(sessions):
        own = draw.choice(world.everyone)
        rest = [each for each in world.everyone if each != own]
        others = tuple(draw.sample(rest, draw.randrange(len(rest) + 1)))
        discard = frozenset(each for each in others if draw.random() < 0.2)
        steps = draw.choice((draw.randrange(1, 40), 1000))
        try:
            for number, _ in enumerate(world.session(own, others, discard)):
                world.check()
                if number == steps:
                    world.counts["cut off"] += 1
                    break
            else:
                world.counts["whole"] += 1
        except Refused as error:
            world.counts[f"refused: {error}"] += 1
        world.check()
    return world.counts
