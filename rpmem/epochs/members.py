"""The copies of one pool as its writer sees them: what is recorded on which of them, in what order.

How a record becomes durable is up to each `Keeper`. Nothing here knows files, lanes or sessions, so
the same code runs over records in memory.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from rpmem.epochs import change, opening
from rpmem.epochs.opening import Standing
from rpmem.epochs.record import IDENTITY_SIZE, MOST_MEMBERS, CopyRecord, Epoch, Mark
from rpmem.errors import RpmemError, UsageError


class Keeper(Protocol):
    """Keeps the record of one copy, durably."""

    @property
    def named(self) -> str:
        """What the user calls the copy."""

    @property
    def uuid(self) -> bytes:
        """The copy's uuid."""

    @property
    def record(self) -> CopyRecord | None:
        """What is durable there now; None: nothing that counts."""

    def write(self, record: CopyRecord, *, discard: bool = False) -> None:
        """Return when the record is durable; an error leaves the old one or the new one."""


OtherT = TypeVar("OtherT", bound=Keeper)


def _in_turn(jobs: Sequence[Callable[[], None]]) -> None:
    for job in jobs:
        job()


class Members(Generic[OtherT]):
    """The copies of the running epoch. To be used by one thread at a time.

    Parameters
    ----------
    own : Keeper
        Of the copy that contents come from.
    others : sequence of Keeper
        Of the other ones, connected and so locked against other writers.
    draw : callable
        Returns so many random bytes.
    now_s : callable
        Returns seconds since 1970.

    Attributes
    ----------
    own : Keeper
    others : list of Keeper
    """

    def __init__(
        self,
        own: Keeper,
        others: Sequence[OtherT] = (),
        *,
        draw: Callable[[int], bytes] = os.urandom,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.own: Final = own
        self.others: list[OtherT] = list(others)
        self._left: set[bytes] = set()
        self._draw = draw
        self._now_s = now_s

    @property
    def everyone(self) -> list[Keeper]:
        """All keepers, the own one first."""
        return [self.own, *self.others]

    @property
    def mine(self) -> CopyRecord:
        """The record of the own copy."""
        return _known(self.own)

    @property
    def epoch(self) -> Epoch:
        """The epoch that the own copy is in."""
        return self.mine.epoch

    # --- beginnings -----------------------------------------------------------------------

    def found(self) -> None:
        """Begin the first epoch of a pool that is complete on all copies."""
        uuids = [each.uuid for each in self.everyone]
        epoch = opening.first_epoch(uuids, identity=self._draw(IDENTITY_SIZE))
        # The own copy last: without it, the pool was never created.
        for keeper in reversed(self.everyone):
            keeper.write(change.first(keeper.uuid, epoch), discard=True)

    def adopt(self) -> None:
        """Take the only other copy as the source of the own one, which has no record yet."""
        (source,) = self.others
        record = _known(source)
        opening.check_complete(record, named=source.named)
        self.own.write(change.joining(None, self.own.uuid, record.epoch))

    def agree(
        self,
        joining: Sequence[OtherT],
        push: Callable[[OtherT], None],
        *,
        discard: Collection[str] = (),
        same: Callable[[OtherT], bool] = lambda _: True,
        run: Callable[[Sequence[Callable[[], None]]], None] = _in_turn,
    ) -> None:
        """Bring copies up to date, and begin an epoch with them and those that are members.

        Parameters
        ----------
        joining : sequence of Keeper
            Copies that come in.
        push : callable
            Makes one equal to the own copy, durably.
        discard : collection of str
            Names of those that may be overwritten whatever they hold.
        same : callable
            Whether the parts that no record speaks of are those of the own copy.
        run : callable
            Carries out one job for each copy that is brought up to date, in any order.

        Raises
        ------
        StaleReplica, SplitBrain, CatalogueCorrupt
            One holds what the own copy lacks, or is not known; nothing was changed.
        """
        opening.check_source(self.mine, named=self.own.named)
        self._check_new(joining)
        standings = {each.named: self._standing(each, discard) for each in joining}
        met = [each.record for each in self.others]
        met += [each.record for each in joining if not standings[each.named].discarded]
        above = max((_newest(each.record) for each in joining), default=0)

        def bring(each: OtherT) -> None:
            self._admit(each, discard=standings[each.named].discarded)
            push(each)

        lacking = [each for each in joining if not (standings[each.named].equal and same(each))]
        run([functools.partial(bring, each) for each in lacking])
        self.others += joining
        self._left.difference_update(each.uuid for each in joining)
        self.begin(filter(None, met), above=above)

    def _check_new(self, joining: Sequence[Keeper]) -> None:
        if len(self.everyone) + len(joining) > MOST_MEMBERS:
            raise UsageError(f"a pool has at most {MOST_MEMBERS} copies")
        seen = {each.uuid: each.named for each in self.everyone}
        for each in joining:
            if each.uuid in seen:
                raise UsageError(
                    f"it is the same copy as {seen[each.uuid]}",
                    where=each.named,
                    hint="Name each copy once; detach one that was lost before it is attached "
                    "again, and give a file that was copied another pool set of its own",
                )
            seen[each.uuid] = each.named

    def _standing(self, other: Keeper, discard: Collection[str]) -> Standing:
        if other.record is None and other.named in discard:
            return opening.UNKNOWN
        return opening.standing(
            _known(other), self.mine, other.named, self.own.named, discard=other.named in discard
        )

    def _admit(self, other: Keeper, *, discard: bool) -> None:
        """Record what a copy is while it is overwritten, before its first byte is."""
        record = other.record
        if record is None or record.epoch != self.epoch or discard:
            marked = change.joining(record, other.uuid, self.epoch, discard=discard)
            other.write(marked, discard=discard)
        elif record.mark is not Mark.BEGUN and record.mark is not Mark.JOINING:
            other.write(change.marked(record, Mark.BEGUN))

    def introduce(self, newcomer: Keeper) -> None:
        """Let a copy that was just made be overwritten; `agree` with it comes after."""
        newcomer.write(change.joining(None, newcomer.uuid, self.epoch), discard=True)

    # --- the running epoch ----------------------------------------------------------------

    def begin(
        self,
        met: Iterable[CopyRecord] | None = None,
        *,
        above: int = 0,
    ) -> None:
        """Begin a new epoch with the copies that are members now.

        Parameters
        ----------
        met : iterable of CopyRecord, optional
            Records whose epochs enter the history; None: those of the other copies.
        above : int
            Its number is higher than this one, too.

        Raises
        ------
        RpmemError
            A copy could not record it. Nothing may be acknowledged until an epoch without that copy
            has begun.
        """
        if met is None:
            met = [each.record for each in self.others if each.record is not None]
        mine = self.mine
        uuids = [each.uuid for each in self.everyone]
        gone = [each for each in mine.epoch.members if each not in uuids and each not in self._left]
        epoch = opening.next_epoch(
            mine,
            met,
            uuids,
            identity=self._draw(IDENTITY_SIZE),
            when_s=int(self._now_s()),
            given_up=gone,
            above=above,
        )
        keepers: dict[bytes, Keeper] = {each.uuid: each for each in self.everyone}
        records = {uuid: _known(each) for uuid, each in keepers.items()}
        steps = change.Change(epoch, records, self.own.uuid)
        while not steps.begun:
            for copy, record in steps.writes().items():
                keepers[copy].write(record)
                steps.written(copy)

    def let_go(self, member: OtherT, *, left: bool) -> None:
        """Leave a copy out of the epochs that begin from now on.

        Parameters
        ----------
        member : Keeper
            One of `others`.
        left : bool
            It has everything acknowledged, and has recorded that it leaves; otherwise it is given
            up.
        """
        self.others.remove(member)
        if left:
            self._left.add(member.uuid)

    def finish(self) -> list[RpmemError]:
        """Mark the copies as clean; nothing is stored in this epoch after that.

        Returns
        -------
        list of RpmemError
            Why some of the others are not marked.

        Raises
        ------
        RpmemError
            The own copy could not be marked, and no other one was.
        """
        self.own.write(change.marked(self.mine, Mark.CLEAN))
        errors = []
        for each in self.others:
            try:
                each.write(change.marked(_known(each), Mark.CLEAN))
            except RpmemError as error:
                errors.append(error)
        return errors


def _known(keeper: Keeper) -> CopyRecord:
    return opening.check_known(keeper.record, named=keeper.named)


def _newest(record: CopyRecord | None) -> int:
    return 0 if record is None else record.newest.number
