"""The record of the target's copy, as far as this side knows it."""

from __future__ import annotations

from collections.abc import Callable

from rpmem.base.pool_format import HEADER_SIZE, POOL_FLOOR
from rpmem.control.messages import EPOCHS, Ready
from rpmem.epochs import change, codec
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.errors import CatalogueCorrupt, EpochRefused, MalformedMessage, UsageError
from rpmem.files.attributes import PoolAttributes, keeps_record
from rpmem.session.channel import Channel

_NOT_KNOWN = "it is not known whether the last change of the record was carried out"


class TargetRecord:
    """What the target said of its record, or was last asked to record.

    Parameters
    ----------
    channel : Channel
    where : str
        The target, for errors.

    Attributes
    ----------
    kept : bool
        Whether the target keeps records: rpmem's own rpmemd does.
    record : CopyRecord or None
        None where there is none, and where it is damaged or not known.
    damage : str or None
        Why there is nothing to be believed.
    floor : int
        What persist does not touch, if the pool has a header.
    first : int
        The first byte that a target sends to a lane.
    """

    def __init__(self, channel: Channel, where: str) -> None:
        self._channel = channel
        self._where = where
        self._pool_id: bytes | None = None
        self.kept = False
        self.record: CopyRecord | None = None
        self.damage: str | None = None
        self.floor = HEADER_SIZE
        self.first = 0

    def take(self, ready: Ready, *, native: bool) -> None:
        """Note what Ready says; believe a record only if it is one of this pool.

        Raises
        ------
        MalformedMessage
            It is not.
        """
        self.kept = native and EPOCHS in self._channel.features
        attributes = None if ready.attributes is None else PoolAttributes.unpack(ready.attributes)
        if attributes is not None and native and keeps_record(attributes):
            self.floor = self.first = POOL_FLOOR
            if self.kept:
                self._pool_id = attributes.poolset_uuid
        self.damage = ready.damage
        if ready.record is not None:
            self.record = self._checked(ready.record)

    def _checked(self, image: bytes) -> CopyRecord:
        try:
            found = self._pool_id and codec.unpack(image, pool_id=self._pool_id)
        except CatalogueCorrupt as error:
            raise MalformedMessage(f"Ready.record: {error.what}", where=self._where) from error
        if not found:
            raise MalformedMessage("Ready.record is not one of this pool", where=self._where)
        return found[0]

    def set(self, record: CopyRecord, *, discard: bool) -> None:
        """Have it replaced; see `Replica.set_record`."""
        image = codec.pack(record, 1, pool_id=self._key())
        self._carry_out(lambda: self._channel.set_epoch(image, discard=discard), record)

    def leave(self) -> None:
        """Have it marked as left; see `Replica.leave`."""
        self._key()
        after = None if self.record is None else change.marked(self.record, Mark.LEFT)
        self._carry_out(self._channel.leave, after)

    def _key(self) -> bytes:
        if self._pool_id is None:
            raise UsageError("the target keeps no record of this copy", where=self._where)
        return self._pool_id

    def _carry_out(self, request: Callable[[], None], after: CopyRecord | None) -> None:
        try:
            request()
        except (EpochRefused, UsageError):
            raise
        except BaseException:
            # The old one may be there, or the new one, or half of it: nothing is claimed.
            self.record, self.damage = None, _NOT_KNOWN
            raise
        self.record, self.damage = after, None
