"""A writer of random histories: what a pool does with its copies, done beside the model.

The records, and the order in which they are written, come from `rpmem.epochs`; what is around that
follows `rpmem.pool`, without media and messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from rpmem.epochs import change
from rpmem.epochs.members import Members
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.errors import ReplicaLost, RpmemError
from tests.support import epoch_model as model
from tests.support.epoch_model import Act, Plan
from tests.support.epoch_truth import Bytes, Copy, Step, Violation

if TYPE_CHECKING:
    from tests.support.epoch_world import World


class Crash(BaseException):
    """The writer died."""


class WorldKeeper:
    """The record of one copy of the world, as its writer sees it."""

    def __init__(self, writer: Writer, copy: int) -> None:
        self._writer = writer
        self._world = writer.world
        self.copy = copy
        self.named = f"copy {copy}"
        self.record = self._world.records.get(copy)
        self.uuid = identity(self._world.uuids[copy]) if self.record is None else self.record.copy

    def write(self, record: CopyRecord, *, discard: bool = False) -> None:
        """Record it, if the session lasts so long."""
        refusal = change.refusal(self.record, record, discard=discard)
        if refusal is not None:
            raise Violation(f"copy {self.copy} refuses what its writer may write: {refusal}")
        expected = self._writer.expect(self.copy)
        if not isinstance(expected, Copy):
            raise Violation(f"a record is written to copy {self.copy}, and not {expected}")
        self._world.compare(record, expected)

        def put() -> None:
            self._world.records[self.copy] = record

        self._writer.step(self.copy, expected, put)
        self.record = record

    def leave(self) -> None:
        """Record that the copy leaves in order."""
        assert self.record is not None
        self.write(change.marked(self.record, Mark.LEFT))


class Writer:
    """A program that has the pool open, or is opening it."""

    def __init__(self, world: World, own: int) -> None:
        self.world = world
        self.told = model.Session(world.truth, own, world.uuids)
        self.cut = self.told.cut
        self.refused = False
        self.left = world.steps_left()
        self._act: Act | None = None
        world.holder[own] = self
        keeper: WorldKeeper = WorldKeeper(self, own)
        self.members: Members[WorldKeeper] = Members(keeper, draw=world.name, now_s=lambda: 0)

    @property
    def own(self) -> int:
        """Its local copy."""
        keeper = self.members.own
        assert isinstance(keeper, WorldKeeper)
        return keeper.copy

    def connect(self, copy: int) -> WorldKeeper:
        """Lock a copy against other writers, and read its record."""
        self.world.take(copy, self)
        self.told.connect(copy)
        return WorldKeeper(self, copy)

    # --- steps ----------------------------------------------------------------------------

    def expect(self, copy: int) -> Step:
        """Return what the model expects of the step on a copy that comes now."""
        assert self._act is not None
        return self._act.expect(copy)

    def step(self, copy: int, expected: Step, put: Callable[[], None]) -> None:
        """Let a step become durable, or not, as the session with the copy has it."""
        act, draw = self._act, self.world.draw
        assert act is not None
        if copy in self.cut:
            self._lose(act, copy)
        if copy != self.own and draw.random() < self.world.shape.cut:
            if draw.random() < 0.5:
                put()
                act.done(copy, expected, told=False)
            self.world.take(copy, None)
            self._lose(act, copy)
        put()
        act.done(copy, expected)
        self.world.between(self)
        self.left -= 1
        if self.left < 0:
            raise Crash

    def _lose(self, act: Act, copy: int) -> None:
        act.cut(copy)
        raise ReplicaLost("the session has ended", where=f"copy {copy}")

    def _write_bytes(self, copy: int) -> None:
        expected = self.expect(copy)
        if not isinstance(expected, Bytes):
            raise Violation(f"bytes are written to copy {copy}, and not {expected}")
        self.step(copy, expected, lambda: None)

    def _follow(self, plan: Plan, call: Callable[[], None]) -> str:
        """Do something beside the model; return how it ended."""
        self._act = act = Act(self.told, plan)
        ended: tuple[str, str] | None = None
        try:
            call()
        except RpmemError as error:
            ended = (error.code, str(error.where))
        expected = act.end()
        if (expected and (expected[0], f"copy {expected[1]}")) != ended:
            raise Violation(f"it ended as {ended or 'done'} instead of {expected or 'done'}")
        return ended[0] if ended else "done"

    # --- acts -----------------------------------------------------------------------------

    def open(self, others: list[int], discard: Collection[int]) -> str:
        """Open the pool with some of its copies."""
        keepers = [self.connect(each) for each in others]
        return self._follow(self.told.open(others, discard), lambda: self._agree(keepers, discard))

    def _agree(self, keepers: list[WorldKeeper], discard: Collection[int]) -> None:
        names = {f"copy {each}" for each in discard}
        self.members.agree(keepers, self._push, discard=names)

    def _push(self, keeper: WorldKeeper) -> None:
        self._write_bytes(keeper.copy)
        self._write_bytes(keeper.copy)

    def restore(self, source: int) -> str:
        """Make a new own copy from another one."""
        self.members.others = [self.connect(source)]

        def act() -> None:
            self.members.adopt()
            expected = self.expect(self.own)
            if source in self.cut:
                assert self._act is not None
                self._lose(self._act, source)
            self.step(self.own, expected, lambda: None)
            try:
                self.members.begin()
            except ReplicaLost:
                (keeper,) = self.members.others
                self.members.others.clear()
                assert keeper.record is not None
                self.members.begin([keeper.record])
                self.members.others.append(keeper)

        return self._follow(self.told.restore(source), act)

    def attach(self, copy: int, discard: Collection[int]) -> str:
        """Take in one more copy; one that has no record is made."""
        keeper = self.connect(copy)
        create = keeper.record is None

        def act() -> None:
            self._raise_losses()
            if create:
                self.members.introduce(keeper)
            before = self.members.mine
            try:
                self._agree([keeper], discard)
            except RpmemError:
                if keeper in self.members.others:
                    self.members.others.remove(keeper)
                if self.members.mine != before:
                    with contextlib.suppress(RpmemError):
                        self.members.begin()
                raise

        ended = self._follow(self.told.attach(copy, create=create, discard=discard), act)
        if ended != "done":
            # It is disconnected, and removed again.
            if create and self.world.holder.get(copy) is self:
                self.world.lose(copy)
            self.world.release(copy, self)
            if any(each.copy == copy for each in self.members.others):
                self.cut.add(copy)  # the session that it had before has ended all the same
        return ended

    def detach(self, index: int | None = None) -> str:
        """Let a copy go, any of them if none is named."""
        others = self.members.others
        keeper = self.world.draw.choice(others) if index is None else others[index]

        def act() -> None:
            if keeper.copy not in self.told.lost:
                with contextlib.suppress(RpmemError):
                    keeper.leave()
            assert keeper.record is not None
            self.members.let_go(keeper, left=keeper.record.mark is Mark.LEFT)
            self._raise_losses()
            self.members.begin()

        ended = self._follow(self.told.detach(keeper.copy), act)
        if keeper in self.members.others:
            raise Violation("the copy was not detached")
        self.world.release(keeper.copy, self)
        return ended

    def _raise_losses(self) -> None:
        for each in self.members.others:
            if each.copy in self.told.lost:
                raise ReplicaLost("the session has ended", where=each.named)

    def persist(self) -> str:
        """Store something, and persist it."""
        self.world.writes += 1

        def act() -> None:
            self._deliver([self.own, *self._intact()])

        return self._follow(self.told.persist(self.world.writes), act)

    def _intact(self) -> list[int]:
        return [each.copy for each in self.members.others if each.copy not in self.told.lost]

    def _deliver(self, copies: list[int]) -> bool:
        whole = True
        self.world.draw.shuffle(copies)
        for each in copies:
            try:
                self._write_bytes(each)
            except ReplicaLost:
                whole = False
        return whole

    def close(self) -> str:
        """Mark the copies as clean; where the own medium refused, let the others go on alone."""

        def act() -> None:
            if self.refused:
                self._deliver(self._intact())
                self._leave_behind()
                return
            memory, holds = self.told.memory, self.world.truth.holds
            copies = [self.own, *self._intact()]
            if any(holds[each].chain != memory for each in copies) and not self._deliver(copies):
                return
            Members(self.members.own, self._keepers()).finish()

        return self._follow(self.told.close(refused=self.refused), act)

    def _keepers(self) -> list[WorldKeeper]:
        return [each for each in self.members.others if each.copy not in self.told.lost]

    def _leave_behind(self) -> None:
        intact = self._keepers()
        if intact:
            with contextlib.suppress(RpmemError):
                alone = Members(intact[0], intact[1:], draw=self.world.name, now_s=lambda: 0)
                alone.begin()
                alone.finish()


def identity(name: int) -> bytes:
    """Return what the real code knows a copy, or an epoch, by."""
    return name.to_bytes(16, "big")
