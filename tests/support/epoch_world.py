"""Random histories of copies and two writers: the real rules, step by step beside the model.

A step is one durable change of one copy. `tests.support.epoch_model` says of each step what it has
to be, and of each call how it has to end; `tests.support.epoch_truth` what has to be true then.

A writer holds a lock on each copy that it has connected. Its session with a copy may end at any
moment, without its knowing, and another writer may then take the copy, in the middle of a call of
the first; a writer may die between any two steps; disks get lost; older images of copies are put
back.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection

from rpmem.epochs import change
from rpmem.epochs.record import MOST_HISTORY, MOST_PARTED, CopyRecord, Epoch, Mark
from rpmem.epochs.relation import relation
from tests.support import epoch_truth
from tests.support.epoch_shapes import Shape, shape_of
from tests.support.epoch_truth import AHEAD, BEHIND, CLEAN, SAME, Bytes, Copy, Truth, Violation
from tests.support.epoch_writer import Crash, WorldKeeper, Writer, identity

#: Nobody dies.
_FOREVER = 1 << 30


class World:
    """Copies, writers, and the images that were made.

    Parameters
    ----------
    draw : random.Random
    shape : Shape
    """

    def __init__(self, draw: random.Random, shape: Shape) -> None:
        self.draw = draw
        self.shape = shape
        self.everyone = tuple(range(shape.copies))
        self.truth = Truth(history=MOST_HISTORY, gone=MOST_PARTED)
        self.counts: Counter[str] = self.truth.counts
        self.records: dict[int, CopyRecord] = {}
        self.uuids = {each: each + 1 for each in self.everyone}
        self.holder: dict[int, Writer] = {}
        self.writers: list[Writer | None] = [None, None]
        self.images: dict[int, tuple[CopyRecord, Copy, Bytes, frozenset[int]]] = {}
        self.writes = 0
        self.turns = 0
        self.harmed = False
        self._named = 0
        self._nested = False
        #: Steps that writers have before they die, where that is not left to chance.
        self._left: int | None = None
        self._born = shape.copies
        self._known: set[int] = set()
        self._found()

    def _found(self) -> None:
        first = self.truth.add(epoch_truth.Epoch(1, tuple(self.uuids.values())))
        self.truth.acknowledged[first] = ()
        for each in self.everyone:
            self.truth.copies[each] = Copy(self.uuids[each], first, CLEAN)
            self.truth.holds[each] = Bytes(())
        self.name(16)
        uuids = tuple(identity(each) for each in self.uuids.values())
        epoch = Epoch(1, identity(first), uuids, uuids, len(uuids))
        for each in self.everyone:
            self.records[each] = change.marked(change.first(uuids[each], epoch), Mark.CLEAN)

    def name(self, size: int) -> bytes:
        """Return the identity of a new epoch."""
        self._named += 1
        return self._named.to_bytes(size, "big")

    def steps_left(self) -> int:
        """Return how many steps a new writer has before it dies."""
        if self._left is not None:
            return self._left
        dies = self.draw.random() < self.shape.crash
        return self.draw.randrange(self.shape.dies) if dies else _FOREVER

    # --- locks ----------------------------------------------------------------------------

    def take(self, copy: int, writer: Writer | None) -> None:
        """Give the lock on a copy to another writer: the session that had it has ended."""
        holder = self.holder.pop(copy, None)
        if holder is not None and holder is not writer:
            holder.cut.add(copy)
        if writer is not None:
            self.holder[copy] = writer
            writer.cut.discard(copy)

    def release(self, copy: int, writer: Writer) -> None:
        """Give back the lock on a copy."""
        if self.holder.get(copy) is writer:
            del self.holder[copy]

    def _locals(self) -> set[int]:
        return {each.own for each in self.writers if each is not None}

    def _there(self) -> tuple[int, ...]:
        """The copies that something may happen to."""
        return self.everyone[:-1] if self._is_apart else self.everyone

    @property
    def _is_apart(self) -> bool:
        return self.turns < self.shape.apart

    # --- what happens ---------------------------------------------------------------------

    def between(self, writer: Writer) -> None:
        """Let something happen between two steps of a writer."""
        draw, shape = self.draw, self.shape
        if draw.random() < shape.snapshot:
            self._snapshot(draw.choice(self.everyone))
        if not self._nested and draw.random() < shape.nested:
            self._nested = True
            self.counts["another writer acted in the middle"] += 1
            try:
                self.turn(1 - self.writers.index(writer))
            finally:
                self._nested = False

    def turn(self, slot: int) -> None:
        """Let a writer do one thing."""
        writer = self.writers[slot]
        try:
            if writer is None:
                self._start(slot)
            else:
                self._go_on(slot, writer)
        except Crash:
            self.counts["crash"] += 1
            self._newest()
            self._end(slot)
        self.check()

    def _open(self, slot: int, own: int, others: list[int], discard: Collection[int]) -> str:
        self.take(own, None)
        self.writers[slot] = writer = Writer(self, own)
        ended = writer.open(others, discard)
        self.counts[f"open: {ended}"] += 1
        if ended != "done":
            self._end(slot)
        return ended

    def begin(self) -> None:
        """Let happen what the shape begins with; nothing else does meanwhile."""
        shape, self._left = self.shape, _FOREVER
        self.shape = shape._replace(nested=0.0, cut=0.0, snapshot=0.0)
        if self.shape.begin == "left":
            self._leave_alone()
        elif self.shape.begin == "offered":
            self._offer_by_half()
        elif self.shape.begin == "put back":
            self._put_back_within_its_epoch()
        self.shape, self._left = shape, None
        self.check()

    def _leave_alone(self) -> None:
        """A copy leaves, and is offered epochs of its own, while the one it left goes on."""
        if self._open(0, 0, [1], ()) == "done":
            self._dying(lambda: self._writer(0).detach(0))
        for _ in range(self.draw.randrange(1, 4)):
            self._dying(lambda: self._open(0, 1, [], ()))
        for others in ([], [1])[self.draw.randrange(2) :]:
            if self._open(0, 0, others, ()) == "done":
                self._end(0)

    def _offer_by_half(self) -> None:
        """An epoch is offered to some copies, not to one whose session has ended; one leaves."""
        if self._open(0, 0, [1, 2, 3], ()) == "done":
            self.take(2, None)
            self._writer(0).detach(2)
            self._writer(0).detach(0)

    def _put_back_within_its_epoch(self) -> None:
        """A writer's own copy is put back, and the others were closed in the epoch it has."""
        if self._open(0, 0, [1, 2], ()) == "done":
            self._snapshot(0)
            self._go_on(0, self._writer(0))
        if self.writers[0] is not None:
            self._writer(0).close()
            self._end(0)
        self._put_back(0)
        discard = {1, 2} if self.draw.random() < 0.5 else set()
        if self._open(0, 0, [1, 2], discard) == "done":
            self._end(0)

    def _dying(self, act: Callable[[], object]) -> None:
        """Let the first writer die after one step of what it does."""
        forever, self._left = self._left, 0
        if self.writers[0] is not None:
            self._writer(0).left = 0
        try:
            act()
        except Crash:
            self._end(0)
        self._left = forever

    def _writer(self, slot: int) -> Writer:
        writer = self.writers[slot]
        assert writer is not None
        return writer

    def _start(self, slot: int) -> None:
        taken = self._locals()
        free = [each for each in self._there() if each not in taken]
        if any(self.writers) and self.draw.random() < 0.5:
            free = [each for each in free if each not in self.holder] or free
        own, *rest = self.draw.sample(free, len(free))
        if self._is_apart and 0 in free:
            rest = [each for each in free if each]
            own = 0
        if own not in self.records or (rest and not self._is_apart and self.draw.random() < 0.08):
            self._restore(slot, own, [each for each in rest if each in self.records])
            return
        others = rest[: self.draw.randrange(len(rest) + 1)]
        discard = {each for each in others if self.draw.random() < 0.15}
        self._open(slot, own, others, discard)

    def _restore(self, slot: int, own: int, sources: list[int]) -> None:
        if not sources:
            return
        self.take(own, None)
        self.harmed = self.harmed or self._is_last(own)
        self.lose(own)
        self.writers[slot] = writer = Writer(self, own)
        ended = "crash"
        try:
            ended = writer.restore(sources[0])
        finally:
            self.counts[f"restore: {ended}"] += 1
            if ended != "done":
                # Until it is there, the new copy has no name: nobody finds it.
                self.lose(own)
        if ended != "done":
            self._end(slot)

    def _go_on(self, slot: int, writer: Writer) -> None:
        act = self.draw.choice(("persist", "persist", "detach", "attach", "close"))
        if writer.refused or (act == "close" and self.draw.random() < 0.1):
            writer.refused, act = True, "close"
        if act == "persist":
            self.counts[f"persist: {writer.persist()}"] += 1
        elif act == "detach" and writer.members.others:
            self.counts[f"detach: {writer.detach()}"] += 1
        elif act == "attach":
            self._attach(writer)
        elif act == "close":
            refused = " without the local copy" if writer.refused else ""
            self.counts[f"close{refused}: {writer.close()}"] += 1
            self._end(slot)

    def _attach(self, writer: Writer) -> None:
        mine = {each.copy: each for each in writer.members.others}
        free = [
            each
            for each in self._there()
            if each not in self._locals() and (each not in mine or self._came_back(mine[each]))
        ]
        if free:
            copy = self.draw.choice(free)
            discard = {copy} if self.draw.random() < 0.15 else set()
            made = " a new copy" if copy not in self.records else ""
            self.counts[f"attach{made}: {writer.attach(copy, discard)}"] += 1

    def _came_back(self, keeper: WorldKeeper) -> bool:
        """Whether a copy whose session has ended is there, and a member all the same."""
        record = self.records.get(keeper.copy)
        lost = keeper.copy not in self.holder
        return lost and record is not None and record.copy == keeper.uuid

    def _end(self, slot: int) -> None:
        writer = self.writers[slot]
        assert writer is not None
        self.writers[slot] = None
        for each in self.everyone:
            self.release(each, writer)

    def _snapshot(self, copy: int) -> None:
        if copy in self.records:
            truth = self.truth
            lies = truth.lies.get(copy, frozenset())
            self.images[copy] = (
                self.records[copy], truth.copies[copy], truth.holds[copy], lies
            )  # fmt: skip

    def _put_back(self, copy: int) -> None:
        self.harmed = True
        self.records[copy], *image = self.images[copy]
        self.truth.put_back(copy, *image)
        self.counts["an image was put back"] += 1

    def event(self) -> None:
        """Lose a disk, or put an older image back."""
        taken = self._locals() | ({0} if self._is_apart else set())
        copies = [each for each in self._there() if each not in taken]
        if not copies:
            return
        copy = self.draw.choice(copies)
        self.take(copy, None)
        self.harmed = True
        if not self._is_apart and copy in self.images and self.draw.random() < 0.6:
            self._put_back(copy)
        elif self.draw.random() < 0.7:
            self.lose(copy)
            self.counts["a disk was lost"] += 1
        self.check()

    def lose(self, copy: int) -> None:
        """Lose a disk; another one takes its place."""
        self.records.pop(copy, None)
        self.truth.lose(copy)
        self._born += 1
        self.uuids[copy] = self._born

    # --- comparisons ----------------------------------------------------------------------

    def compare(self, record: CopyRecord, expected: Copy) -> None:
        """Raise unless a record is what the model says."""
        epoch, offered = record.epoch, record.prepared
        if (
            _int(record.copy) != expected.uuid
            or _int(epoch.identity) != expected.epoch
            or record.mark.name != expected.mark
            or (None if offered is None else _int(offered.identity)) != expected.offered
        ):
            raise Violation(f"{record} is not {expected}")
        for each in (epoch, offered):
            if each is not None and _int(each.identity) not in self._known:
                self._compare_epoch(each)

    def _compare_epoch(self, epoch: Epoch) -> None:
        name = _int(epoch.identity)
        expected = self.truth.epochs[name]
        ring = self.truth.ring(name)
        self.counts["more past epochs than a record has room for"] += len(expected.past) > len(ring)
        found = (
            epoch.number,
            epoch.members,
            epoch.in_sync,
            epoch.quorum,
            [_int(each.identity) for each in epoch.history],
            [(_int(e.copy), _int(e.last.identity), e.given_up) for e in epoch.common],
        )
        members = tuple(identity(each) for each in expected.members)
        if found != (expected.number, members, members, len(members), ring, list(expected.gone)):
            raise Violation(f"{epoch} is not {expected}")
        self._known.add(name)

    def check(self) -> None:
        """Compare the relation of all pairs with the model's, and that with the truth."""
        for mine, ours in self.records.items():
            for other, theirs in self.records.items():
                if mine != other:
                    found = relation(theirs, ours).value
                    expected = self.truth.check_pair(other, mine)
                    if found != expected:
                        raise Violation(f"copy {other} is {found} to {mine}, and not {expected}")
                    self.counts[f"relation: {found}"] += 1

    def check_life(self) -> None:
        """Open the pool once more, as nobody is there: from a copy that is not out of date."""
        for slot, writer in enumerate(self.writers):
            if writer is not None:
                self._end(slot)
        newest = self._newest()
        if not newest:
            self.counts["no copy of the newest epoch"] += 1
            return
        own = newest[0]
        others = [*self._stands(own, SAME), *self._stands(own, BEHIND)]
        self.shape = Shape(0, 0.0, 0.0, 0.0, 0.0, 0.0)  # nothing happens any more
        writer = Writer(self, own)
        if writer.open(others, ()) != "done":
            raise Violation(f"copy {own} is not opened with {others}")
        self.counts["opened at the end"] += 1

    def _newest(self) -> list[int]:
        """Return whole copies beside which no other one is ahead: each can be opened.

        Where there is none, the copies of the newest epoch are gone but for mixtures.
        """
        truth = self.truth
        whole = [each for each in self.records if truth.complete(truth.copies[each])]
        newest = [
            each
            for each in whole
            if not self._stands(each, AHEAD)
            and not any(truth.rolled_back(truth.copies[each], o) for o in truth.copies.values())
        ]
        harmed = self.harmed or self.counts["verdict: discarded"]
        if not newest and not harmed and len(self.records) == len(self.everyone):
            raise Violation("nothing was lost, and no copy can be opened")
        return newest

    def _is_last(self, copy: int) -> bool:
        """Whether no other whole copy has what that one has."""
        copies = self.truth.copies
        if copy not in copies:
            return False
        others = [*self._stands(copy, SAME), *self._stands(copy, AHEAD)]
        return not any(self.truth.complete(copies[each]) for each in others)

    def _stands(self, mine: int, how: str) -> list[int]:
        copies = self.truth.copies
        return [
            each
            for each in copies
            if each != mine and self.truth.relation(copies[each].epoch, copies[mine].epoch) == how
        ]


def _int(name: bytes) -> int:
    return int.from_bytes(name, "big")


def run(seed: int, shape: Shape | None = None) -> Counter[str]:
    """Run one history; return what happened how often.

    Raises
    ------
    Violation
        The real code differs from the model, or something that has to be true was not.
    """
    draw = random.Random(seed)
    if shape is None:
        shape = shape_of(seed)
    world = World(draw, shape)
    world.begin()
    for world.turns in range(shape.turns):
        world.turn(0 if world.turns < shape.apart else int(draw.random() < 0.4))
        if draw.random() < shape.event:
            world.event()
    world.check_life()
    world.counts["histories"] += 1
    return world.counts
