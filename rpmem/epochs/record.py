"""The record that each copy of a pool keeps: the epoch it belongs to, and where that came from.

An epoch is the time between two changes of who writes a pool and of which copies it has. It has a
number, for people, and an identity drawn at random, by which it is known: two writers that count up
alike begin different epochs. A copy whose epoch is in another's history holds nothing that the
other has not.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, NamedTuple

from rpmem.base.values import Record
from rpmem.errors import UsageError

UUID_SIZE: Final = 16
IDENTITY_SIZE: Final = 16
#: Copies that an epoch may have.
MOST_MEMBERS: Final = 16
#: Past epochs that a record remembers, the newest ones; see `Epoch.common` for what outlives them.
MOST_HISTORY: Final = 64
#: Copies that left, or were given up, and are remembered.
MOST_PARTED: Final = 16
LARGEST_NUMBER: Final = (1 << 63) - 1


class Stamp(NamedTuple):
    """The name of an epoch."""

    number: int
    identity: bytes

    def __str__(self) -> str:
        return f"{self.number} ({self.identity[:4].hex()})"


class Parting(NamedTuple):
    """A copy that is no longer a member.

    Parameters
    ----------
    copy : bytes
        Its uuid.
    last : Stamp
        The last epoch that it had in common with those that went on.
    given_up : bool
        A person decided to go on without it, whatever it holds; otherwise it left in order.
    when_s : int
        Seconds since 1970, by the clock of the one who decided.
    """

    copy: bytes
    last: Stamp
    given_up: bool
    when_s: int


class Mark(enum.IntEnum):
    """How a copy stands within its epoch."""

    BEGUN = 1
    """It is in use, or its writer died; it has everything acknowledged in the epoch."""
    CLEAN = 2
    """Its writer closed it: all clean copies of the epoch have the same, if it was persisted."""
    LEFT = 3
    """It was taken out in order: it has everything acknowledged until then."""
    JOINING = 4
    """It was being brought up to date: a mixture, and no source for anything."""


class Epoch(Record):
    """One epoch, as all of its copies record it.

    Parameters
    ----------
    number : int
        Above the numbers of all epochs in its history.
    identity : bytes
        16 random bytes.
    members : tuple of bytes
        The uuids of its copies, the writer's own first.
    in_sync : tuple of bytes
        Those of the members that have everything acknowledged.
    quorum : int
        How many members have to have a range before it is acknowledged.
    history : tuple of Stamp
        Epochs whose contents this one holds, the newest first; at most `MOST_HISTORY`.
    common : tuple of Parting
        Copies that are members no longer, the latest first; at most `MOST_PARTED`.
    """

    number: int
    identity: bytes
    members: tuple[bytes, ...]
    in_sync: tuple[bytes, ...]
    quorum: int
    history: tuple[Stamp, ...] = ()
    common: tuple[Parting, ...] = ()

    def _check(self) -> None:
        members = set(self.members)
        for problem, what in (
            (not 1 <= self.number <= LARGEST_NUMBER, "its number"),
            (len(self.identity) != IDENTITY_SIZE, "its identity"),
            (not 1 <= len(self.members) <= MOST_MEMBERS, "the number of its members"),
            (len(members) != len(self.members), "a member named twice"),
            (any(len(each) != UUID_SIZE for each in self.members), "a member's uuid"),
            (not self.in_sync or not members.issuperset(self.in_sync), "its in-sync set"),
            (len(set(self.in_sync)) != len(self.in_sync), "its in-sync set"),
            (not 1 <= self.quorum <= len(self.members), "its quorum"),
            (len(self.history) > MOST_HISTORY, "the length of its history"),
            (any(each.number >= self.number for each in self.history), "its history"),
            (len(self.common) > MOST_PARTED, "the copies that parted"),
            (any(each.copy in members for each in self.common), "a member that parted"),
        ):
            if problem:
                raise UsageError(f"no epoch can be like that: {what}")

    @property
    def stamp(self) -> Stamp:
        """Its name."""
        return Stamp(self.number, self.identity)

    @property
    def past(self) -> frozenset[bytes]:
        """The identities of the epochs whose contents it holds, without its own."""
        return frozenset(each.identity for each in self.history).union(
            each.last.identity for each in self.common
        )

    @property
    def lineage(self) -> frozenset[bytes]:
        """The same with its own."""
        return self.past.union((self.identity,))


class CopyRecord(Record):
    """What one copy records.

    Parameters
    ----------
    copy : bytes
        The uuid of the copy.
    epoch : Epoch
        The epoch that it belongs to.
    mark : Mark
        How it stands in it.
    prepared : Epoch or None
        One that was offered to it and is not known to have begun: completed, or replaced by a newer
        one, but never taken back.
    """

    copy: bytes
    epoch: Epoch
    mark: Mark
    prepared: Epoch | None = None

    def _check(self) -> None:
        if len(self.copy) != UUID_SIZE:
            raise UsageError("the uuid of a copy has 16 bytes")
        if self.prepared is not None and self.prepared.number <= self.epoch.number:
            raise UsageError("the epoch that is prepared is not a later one")

    @property
    def complete(self) -> bool:
        """Whether it has everything acknowledged in its epoch."""
        return self.mark is not Mark.JOINING and self.copy in self.epoch.in_sync

    @property
    def newest(self) -> Epoch:
        """The newest epoch that it has heard of."""
        return self.epoch if self.prepared is None else self.prepared

    def accepts(self, epoch: Epoch) -> bool:
        """Whether `epoch` may be prepared here: it knows the one that is recorded."""
        return self.newest.identity in epoch.past


def merged_history(epochs: Iterable[Epoch]) -> tuple[Stamp, ...]:
    """Return the epochs given and their histories, each once, the newest first.

    Of more than `MOST_HISTORY` the oldest are left out.
    """
    known = {each.stamp for each in epochs}.union(*(each.history for each in epochs))
    newest_first = sorted(known, key=lambda stamp: (-stamp.number, stamp.identity))
    return tuple(newest_first[:MOST_HISTORY])
