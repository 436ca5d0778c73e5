"""Copies of a pool, writers that crash between any two steps, and what has to be true of them.

The rules and their order are the real ones (`rpmem.epochs`); media and messages are left out: a
step is one durable change of one copy. What a copy holds is the chain of the writes that it was
made of, so that one copy is contained in another exactly when its chain is the beginning of the
other's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from rpmem.epochs import change
from rpmem.epochs.members import Members
from rpmem.epochs.record import CopyRecord, Epoch, Mark
from rpmem.epochs.relation import Relation, relation
from rpmem.errors import SplitBrain, StaleReplica

Chain = tuple[int, ...]
#: Stands for bytes of two epochs.
MIXTURE = -1


class Wrong(AssertionError):
    """Something that has to be true was not."""


class Crash(BaseException):
    """The writer died."""


class WorldKeeper:
    """The record of one copy of the world."""

    def __init__(self, world: World, copy: int) -> None:
        self.world = world
        self.copy = copy
        self.named = f"copy {copy}"
        self.uuid = world.uuids[copy]

    @property
    def record(self) -> CopyRecord | None:
        """What is recorded now."""
        return self.world.records.get(self.copy)

    def write(self, record: CopyRecord, *, discard: bool = False) -> None:
        """Record it, if the copy may get it; the writer may die before or after."""
        refusal = change.refusal(self.record, record, discard=discard)
        if refusal is not None:
            raise Wrong(f"copy {self.copy} refuses what its writer may write: {refusal}")
        self.world.note(self.record, record)
        self.world.records[self.copy] = record
        self.world.step()

    def leave(self) -> None:
        """Record that the copy leaves in order."""
        assert self.record is not None
        self.write(change.marked(self.record, Mark.LEFT))


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
        self.left: int | None = None
        self.counts: Counter[str] = Counter()
        self.records: dict[int, CopyRecord] = {}
        self.uuids = {each: draw.randbytes(16) for each in self.everyone}
        self.holds: dict[int, Chain] = dict.fromkeys(self.everyone, ())
        #: By epoch: what was acknowledged in it, at its end.
        self.acknowledged: dict[bytes, Chain] = {}
        members = self._members(0, self.everyone[1:])
        members.found()
        self.acknowledged[members.epoch.identity] = ()
        members.finish()

    def step(self) -> None:
        """Something became durable: look at everything, and perhaps let the writer die."""
        if self.acknowledged:
            self.check()
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Crash

    def note(self, before: CopyRecord | None, after: CopyRecord) -> None:
        """Count a transition of a record."""
        old = "none" if before is None else _state(before)
        self.counts[f"{old} -> {_state(after)}"] += 1

    def _members(self, own: int, others: Sequence[int] = ()) -> Members[WorldKeeper]:
        keepers = [WorldKeeper(self, each) for each in others]
        return Members(WorldKeeper(self, own), keepers, draw=self._draw, now_s=lambda: self.begun)

    def _draw(self, size: int) -> bytes:
        self.begun += 1
        return self.begun.to_bytes(size, "big")

    # --- a writer, step by step -----------------------------------------------------------

    def session(self, own: int, others: Sequence[int], discard: frozenset[int]) -> None:
        """Open, write, take copies in and out, close.

        Raises
        ------
        Crash
            The writer died somewhere.
        StaleReplica, SplitBrain
            The opening was refused.
        """
        members = self._members(own)
        self._agree(members, others, discard)
        for _ in range(self.draw.randrange(4)):
            act = self.draw.choice((self._use, self._use, self._detach, self._attach, self._lose))
            act(members)
        self._use(members)
        members.finish()

    def restore(self, own: int, source: int) -> None:
        """Make a new copy from another one, which begins an epoch of these two.

        Until that has begun, the new copy has no name: nobody finds it after a crash.
        """
        self.lose(own)
        self.uuids[own] = self.draw.randbytes(16)
        members = self._members(own, [source])
        try:
            members.adopt()
            self.holds[own] = self.holds[source]
            self.step()
            base = members.epoch.identity
            members.begin()
        except BaseException:
            self.lose(own)
            raise
        self._hand_out(members, base)
        self._use(members)
        members.finish()

    def lose(self, copy: int) -> None:
        """Lose a disk."""
        self.records.pop(copy, None)
        self.holds[copy] = (MIXTURE,)

    def _agree(
        self, members: Members[WorldKeeper], others: Sequence[int], discard: frozenset[int]
    ) -> None:
        base = members.epoch.identity
        joining = [WorldKeeper(self, each) for each in others]
        for each in joining:
            self._count_relation(members, each)
            if each.record is None:
                members.introduce(each)
        sent: list[int] = []

        def push(keeper: WorldKeeper) -> None:
            sent.append(keeper.copy)
            self._push(members, keeper)

        members.agree(joining, push, discard={f"copy {each}" for each in discard})
        for each in others:
            if each not in sent:
                self.counts["equal"] += 1
        self._hand_out(members, base)

    def _count_relation(self, members: Members[WorldKeeper], other: WorldKeeper) -> None:
        if other.record is not None:
            self.counts[f"met: {relation(other.record, members.mine).value}"] += 1

    def _push(self, members: Members[WorldKeeper], keeper: WorldKeeper) -> None:
        """Overwrite a copy; cut off, that leaves a mixture, but within one epoch a complete one."""
        own, copy = members.own, keeper.copy
        assert isinstance(own, WorldKeeper)
        record = keeper.record
        assert record is not None
        if record.mark not in (Mark.BEGUN, Mark.JOINING):
            raise Wrong(f"copy {copy} is overwritten while it counts as {record.mark.name}")
        if record.complete and record.epoch.identity == members.epoch.identity:
            self.holds[copy] = self._acknowledged_in(record.epoch)
        else:
            self.holds[copy] = (MIXTURE,)
        self.step()
        self.holds[copy] = self.holds[own.copy]
        self.step()

    def _copies(self, members: Members[WorldKeeper]) -> list[int]:
        return [each.copy for each in members.everyone if isinstance(each, WorldKeeper)]

    def _hand_out(self, members: Members[WorldKeeper], base: bytes) -> None:
        """Hand arrays out: everything acknowledged in the epoch's past has to be there."""
        (own, *others) = self._copies(members)
        held = self.holds[own]
        for past in (base, *members.epoch.past):
            acknowledged = self.acknowledged.get(past, ())
            if held[: len(acknowledged)] != acknowledged:
                raise Wrong(f"what was acknowledged in an epoch of the past is not in copy {own}")
        for each in others:
            if self.holds[each] != held:
                raise Wrong(f"copy {each} takes part and differs")
        self.acknowledged[members.epoch.identity] = held

    def _use(self, members: Members[WorldKeeper]) -> None:
        identity = members.epoch.identity
        for _ in range(self.draw.randrange(3)):
            self.writes += 1
            order = self._copies(members)
            self.draw.shuffle(order)
            for copy in order:
                mark = self.records[copy].mark
                if mark is not Mark.BEGUN:
                    raise Wrong(f"copy {copy} is written to while it counts as {mark.name}")
                self.holds[copy] = (*self.holds[copy], self.writes)
                self.step()
            self.acknowledged[identity] = self.holds[order[0]]

    def _detach(self, members: Members[WorldKeeper]) -> None:
        self._let_go(members, in_order=True)

    def _lose(self, members: Members[WorldKeeper]) -> None:
        self._let_go(members, in_order=False)

    def _let_go(self, members: Members[WorldKeeper], *, in_order: bool) -> None:
        if members.others:
            base = members.epoch.identity
            member = self.draw.choice(members.others)
            if in_order:
                member.leave()
            members.let_go(member, left=in_order)
            members.begin()
            self._hand_out(members, base)

    def _attach(self, members: Members[WorldKeeper]) -> None:
        free = [each for each in self.everyone if each not in self._copies(members)]
        if not free:
            return
        other = self.draw.choice(free)
        discard = frozenset([other] if self.draw.random() < 0.2 else [])
        try:
            self._agree(members, [other], discard)
        except (StaleReplica, SplitBrain) as error:
            self.counts[f"refused: {error.code}"] += 1

    # --- what has to be true --------------------------------------------------------------

    def check(self) -> None:
        """Compare what the records say of each other with what the copies hold."""
        for mine in self.everyone:
            for other in self.everyone:
                if mine != other and mine in self.records and other in self.records:
                    self._compare(mine, other)

    def _compare(self, mine: int, other: int) -> None:
        ours, theirs = self.records[mine], self.records[other]
        if not (ours.complete and theirs.complete):
            return
        found = relation(theirs, ours)
        self.counts[found.value] += 1
        lack = self._acknowledged_in(theirs.epoch)
        if found in (Relation.SAME, Relation.BEHIND) and not self._holds(mine, lack):
            raise Wrong(f"copy {other} is {found.value} and has what copy {mine} lacks")
        if found is Relation.SPLIT and not self._acknowledged_in(ours.epoch):
            self.counts["split, and one side acknowledged nothing"] += 1
        both_clean = found is Relation.SAME and ours.mark is theirs.mark is Mark.CLEAN
        if both_clean and self.holds[mine] != self.holds[other]:
            raise Wrong(f"copies {mine} and {other} are same, clean, and differ")

    def _acknowledged_in(self, epoch: Epoch) -> Chain:
        """What was acknowledged in an epoch; where it never began, in those before."""
        known = self.acknowledged.get(epoch.identity)
        if known is not None:
            return known
        return max((self.acknowledged.get(each, ()) for each in epoch.past), key=len, default=())

    def _holds(self, copy: int, chain: Chain) -> bool:
        return self.holds[copy][: len(chain)] == chain


def _state(record: CopyRecord) -> str:
    return record.mark.name + ("" if record.prepared is None else "+PREPARED")


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
        own, *rest = draw.sample(world.everyone, len(world.everyone))
        if own not in world.records:
            rest.sort(key=lambda each: each not in world.records)
        others = rest[: draw.randrange(len(rest) + 1)]
        discard = frozenset(each for each in others if draw.random() < 0.2)
        world.left = draw.choice((draw.randrange(1, 40), 1000))
        try:
            if own not in world.records or (draw.random() < 0.1 and rest[0] in world.records):
                world.restore(own, rest[0])
            else:
                world.session(own, others, discard)
            world.counts["whole"] += 1
        except Crash:
            world.counts["cut off"] += 1
        except (StaleReplica, SplitBrain) as error:
            world.counts[f"refused: {error.code}"] += 1
        world.left = None
        world.check()
    return world.counts
