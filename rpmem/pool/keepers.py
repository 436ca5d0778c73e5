"""Where the records of copies are kept: in the local copy, by rpmemd, or, without it, over lanes.

Each is a `rpmem.epochs.members.Keeper`. Before a record is replaced, each checks that its copy may
get the new one: rpmemd does so itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from rpmem._core import Replicator
from rpmem.base.pool_format import HEADER_SIZE, RECORD_OFFSET, RECORD_SIZE
from rpmem.epochs import change
from rpmem.epochs.kept import Keeping, Kept, Pieces
from rpmem.epochs.members import Keeper
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.errors import CatalogueCorrupt, EpochRefused, FlushFailed, RpmemError
from rpmem.pool.medium import PoolMedium
from rpmem.pool.resync import name_of

if TYPE_CHECKING:
    from rpmem.memory.region import Region
    from rpmem.session.replica import Replica

_WORD = 8


class ReplicaKeeper(Keeper, Protocol):
    """Keeps the record of a replica."""

    @property
    def replica(self) -> Replica:
        """The replica."""

    @property
    def damage(self) -> str | None:
        """Why its record cannot be believed."""

    def leave(self) -> None:
        """Record that the copy leaves in order."""


class LocalKeeper(Keeping):
    """The record of the local copy, which lies in its memory.

    Parameters
    ----------
    region : Region
        The local copy.
    pool_id : bytes
        The pool it has to belong to.
    named : str
        What the user calls it.
    uuid : bytes, optional
        Of a copy that is being made; otherwise its record says.

    Raises
    ------
    CatalogueCorrupt
        The record is damaged.
    """

    def __init__(
        self, region: Region, pool_id: bytes, named: str, *, uuid: bytes | None = None
    ) -> None:
        self.named = named
        self._region = region
        self._medium = PoolMedium(region)
        self._kept = Kept(pool_id, self._store)
        area = self._medium.load(RECORD_OFFSET, RECORD_SIZE)
        if uuid is None:
            uuid = self._found(area).copy
        else:
            # What another pool left in a buffer is never taken for a newer half of ours.
            self._kept.pass_over(area)
        self.uuid = uuid

    def _found(self, area: bytes) -> CopyRecord:
        self._kept.find(area)
        if self._kept.refused is not None:
            self._kept.refused.at(self.named)
            raise self._kept.refused
        if self.record is None:
            raise CatalogueCorrupt(
                "the copy has no record of its epoch",
                where=self.named,
                hint="Its creation was interrupted, or a part was replaced: move it away, and "
                "restore the pool from a replica or create it again",
            )
        return self.record

    @property
    def clean(self) -> bool:
        """Whether its last writer closed the copy."""
        record = self.record
        return self._kept.settled and record is not None and record.mark is Mark.CLEAN

    def move(self, region: Region) -> None:
        """Reach the copy by another mapping of it from now on."""
        self._region = region
        self._medium = PoolMedium(region)

    def settle(self) -> None:
        """Write a record again whose change was cut off."""
        self._kept.settle()

    def write(self, record: CopyRecord, *, discard: bool = False) -> None:
        """Return when the record is durable."""
        _check(self.record, record, self.named, discard=discard)
        if self._region.refused:
            # What memory holds may still be written back, and has to stay true.
            raise FlushFailed(
                f"the local medium refused data ({os.strerror(self._region.refused)}), and takes "
                "no record any more",
                where=self.named,
                errno=self._region.refused,
            )
        self._kept.put(record)

    def _store(self, pieces: Pieces) -> None:
        """Store pieces of the record, each of them durable before the next."""
        before = self._medium.load(RECORD_OFFSET, RECORD_SIZE)
        try:
            for offset, data in pieces:
                self._medium.store(RECORD_OFFSET + offset, data)
                self._medium.persist(RECORD_OFFSET + offset, len(data))
        except RpmemError:
            # The medium may still write back what memory holds: that has to be true.
            self._medium.store(RECORD_OFFSET, before)
            raise


class RemoteKeeper:
    """The record of a replica whose rpmemd keeps it.

    Parameters
    ----------
    replica : Replica
        Connected.
    uuid : bytes
        Used where it has no record yet.
    """

    def __init__(self, replica: Replica, uuid: bytes) -> None:
        self.replica = replica
        self.named = name_of(replica)
        self._uuid = uuid

    @property
    def uuid(self) -> bytes:
        """The copy's uuid."""
        return self._uuid if self.record is None else self.record.copy

    @property
    def record(self) -> CopyRecord | None:
        """What is durable there now."""
        return self.replica.record

    @property
    def damage(self) -> str | None:
        """Why the record cannot be believed."""
        return self.replica.record_damage

    def write(self, record: CopyRecord, *, discard: bool = False) -> None:
        """Return when the record is durable there; a replica that does not say so is lost."""
        with _or_lost(self.replica):
            self.replica.set_record(record, discard=discard)

    def leave(self) -> None:
        """Record that the copy leaves in order."""
        with _or_lost(self.replica):
            self.replica.leave()


class LaneKeeper(Keeping):
    """The record of a replica behind PMDK's rpmemd, which keeps none: it is written over lanes.

    Parameters
    ----------
    replica : Replica
        Connected; no call may be in progress on its lanes while a record is written.
    region : Region
        The local copy.
    pool_id, uuid : bytes
        As for the other keepers.
    timeout_s : float
        For each word that is written.
    """

    def __init__(
        self, replica: Replica, region: Region, pool_id: bytes, uuid: bytes, *, timeout_s: float
    ) -> None:
        self.replica = replica
        self.named = name_of(replica)
        self._region = region
        self._uuid = uuid
        self._timeout_s = timeout_s
        self._kept = Kept(pool_id, self._send)
        area = bytearray(RECORD_SIZE)
        replica.read(area, RECORD_OFFSET)
        self._kept.find(bytes(area))
        with _or_lost(replica):
            self._kept.settle()

    @property
    def uuid(self) -> bytes:
        """The copy's uuid."""
        return self._uuid if self.record is None else self.record.copy

    def write(self, record: CopyRecord, *, discard: bool = False) -> None:
        """Return when the record is durable there; a replica that does not say so is lost."""
        if self.damage is not None and not discard:
            raise EpochRefused(f"its record is damaged: {self.damage}", where=self.named)
        _check(self.record, record, self.named, discard=discard)
        with _or_lost(self.replica):
            self._kept.put(record)

    def leave(self) -> None:
        """Record that the copy leaves in order."""
        if self.record is None:
            raise EpochRefused("a copy without a record cannot leave", where=self.named)
        self.write(change.marked(self.record, Mark.LEFT))

    def _send(self, pieces: Pieces) -> None:
        """Send pieces of the record, each of them durable before the next."""
        lanes = Replicator(
            self._region,
            [self.replica.group],
            local=False,
            floor=HEADER_SIZE,
            size=self.replica.pool_size,
            timeout_s=self._timeout_s,
        )
        try:
            for offset, data in pieces:
                # Word by word: data that is not in the pool's memory travels in no other way.
                words = data + bytes(-len(data) % _WORD)
                for at in range(0, len(words), _WORD):
                    lanes.put(RECORD_OFFSET + offset + at, words[at : at + _WORD])
        finally:
            lanes.close()


class _or_lost:  # noqa: N801
    """Treats a replica as lost when its record could not be written: who knows what is there."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or self._replica.failure is not None:
            return
        if isinstance(error, RpmemError):
            self._replica.on_failure(error)
        else:
            self._replica.give_up("a change of its record was interrupted")


def keeper_of(
    replica: Replica, region: Region, pool_id: bytes, uuid: bytes, *, timeout_s: float
) -> ReplicaKeeper:
    """Return the keeper for a replica that was just connected.

    Parameters
    ----------
    replica : Replica
    region : Region
        The local copy.
    pool_id : bytes
        The pool it has to belong to.
    uuid : bytes
        Of a copy that is being made, or that has no record.
    timeout_s : float
        For what travels over lanes.
    """
    if replica.keeps_records:
        return RemoteKeeper(replica, uuid)
    return LaneKeeper(replica, region, pool_id, uuid, timeout_s=timeout_s)


def _check(held: CopyRecord | None, wanted: CopyRecord, named: str, *, discard: bool) -> None:
    refusal = change.refusal(held, wanted, discard=discard)
    if refusal is not None:
        raise EpochRefused(f"the copy does not take that record: {refusal}", where=named)
