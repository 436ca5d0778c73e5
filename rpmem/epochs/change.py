"""How an epoch begins on all of its copies: what is written where, one step after the other.

No copy records the epoch as begun before every one of them has it as prepared; and nothing is
acknowledged or handed out under it before every one has it as begun. The writer's own copy is the
first in both: a crash leaves the others behind it, not ahead. A copy that has been offered an epoch
keeps it: what was cut off is completed, or replaced by a newer epoch, and never taken back.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from rpmem.base.values import replace
from rpmem.epochs.record import CopyRecord, Epoch, Mark
from rpmem.errors import UsageError


class Phase(enum.Enum):
    """What a change is about to do."""

    PREPARING_OWN = "the writer's own copy is offered the epoch"
    PREPARING = "the other copies are offered it"
    BEGINNING_OWN = "the writer's own copy records that it has begun"
    BEGINNING = "the other copies record that it has begun"
    BEGUN = "nothing more"


class Change:
    """One epoch that is being begun; without I/O.

    Parameters
    ----------
    epoch : Epoch
        The new one.
    records : mapping of bytes to CopyRecord
        What each of its copies records now, by uuid.
    own : bytes
        The writer's own copy.

    Attributes
    ----------
    phase : Phase
    records : dict of bytes to CopyRecord
        As they are by now.
    """

    def __init__(self, epoch: Epoch, records: Mapping[bytes, CopyRecord], own: bytes) -> None:
        if records.keys() != set(epoch.members) or own not in records:
            raise UsageError("an epoch begins on all of its members, the writer's own among them")
        self.epoch: Final = epoch
        self.own: Final = own
        self.records: dict[bytes, CopyRecord] = dict(records)
        self.phase = Phase.PREPARING_OWN
        self._left = {own}

    def writes(self) -> dict[bytes, CopyRecord]:
        """Return what may be written now, at once and in any order: uuid to record."""
        return {copy: self._after(copy) for copy in self.epoch.members if copy in self._left}

    def written(self, copy: bytes) -> None:
        """Note that the record of a copy is durable as `writes` gave it."""
        self.records[copy] = self._after(copy)
        self._left.discard(copy)
        while not self._left and self.phase is not Phase.BEGUN:
            self._advance()

    @property
    def begun(self) -> bool:
        """Whether the epoch has begun: arrays may be handed out, ranges acknowledged."""
        return self.phase is Phase.BEGUN

    def _advance(self) -> None:
        order = list(Phase)
        self.phase = order[order.index(self.phase) + 1]
        if self.phase is Phase.BEGINNING_OWN:
            self._left = {self.own}
        elif self.phase is not Phase.BEGUN:
            self._left = set(self.epoch.members) - {self.own}

    def _after(self, copy: bytes) -> CopyRecord:
        before = self.records[copy]
        if self.phase in (Phase.PREPARING_OWN, Phase.PREPARING):
            return prepared(before, self.epoch)
        return begun(before)


def prepared(record: CopyRecord, epoch: Epoch) -> CopyRecord:
    """Return the record of a copy that has been offered `epoch`."""
    return replace(record, prepared=epoch)


def begun(record: CopyRecord) -> CopyRecord:
    """Return the record of a copy whose prepared epoch has begun."""
    if record.prepared is None:
        raise UsageError("no epoch is prepared")
    return CopyRecord(record.copy, record.prepared, Mark.BEGUN)


def first(copy: bytes, epoch: Epoch) -> CopyRecord:
    """Return the record of a copy of a pool that is being created."""
    return CopyRecord(copy, epoch, Mark.BEGUN)


def marked(record: CopyRecord, mark: Mark) -> CopyRecord:
    """Return the record with another mark; beneath an epoch that is prepared, too."""
    return replace(record, mark=mark)


def joining(
    record: CopyRecord | None, copy: bytes, epoch: Epoch, *, discard: bool = False
) -> CopyRecord:
    """Return the record of a copy that is about to be overwritten with the contents of `epoch`.

    It is a mixture from the first byte on. An epoch that it was offered stays offered, unless this
    one is newer and so replaces it, or the copy is discarded with all that it knows.
    """
    offered = record.prepared if record is not None and not discard else None
    if offered is not None and offered.number <= epoch.number:
        offered = None
    return CopyRecord(copy, epoch, Mark.JOINING, offered)


def refusal(held: CopyRecord | None, wanted: CopyRecord, *, discard: bool) -> str | None:
    """Say why a copy that holds one record does not take another; None: it does.

    Parameters
    ----------
    held, wanted : CopyRecord
    discard : bool
        A person named this copy to be overwritten, whatever it holds.
    """
    if held is None:
        return None
    if wanted.copy != held.copy:
        return "it is the record of another copy"
    if wanted.mark is Mark.JOINING and discard:
        return None
    if wanted.mark is Mark.JOINING and held.epoch != wanted.epoch:
        if held.epoch.identity in wanted.epoch.past:
            return None
        return f"epoch {held.epoch.stamp} is not in the history of {wanted.epoch.stamp}"
    if wanted.epoch != held.epoch:
        if wanted.epoch == held.prepared and wanted.prepared is None:
            return None
        return f"epoch {wanted.epoch.stamp} was not prepared here"
    if wanted.prepared is None and held.prepared is not None:
        return f"epoch {held.prepared.stamp} was offered, and is not taken back"
    if wanted.prepared not in (None, held.prepared):
        assert wanted.prepared is not None
        if not held.accepts(wanted.prepared):
            return f"epoch {held.newest.stamp} is not in the history of {wanted.prepared.stamp}"
    if held.mark is Mark.JOINING and wanted.mark is not Mark.JOINING:
        return "it is a mixture until an epoch has begun here"
    return None
