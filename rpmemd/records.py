"""The record of the pool's copy: read at the beginning, replaced when it may be.

The initiator decides about epochs; what is checked here is that it does not hide what this copy
holds (`rpmem.epochs.change.refusal`). The copy's lock keeps everybody else out meanwhile.
"""

from __future__ import annotations

from typing import Self

from rpmem.base.pool_format import RECORD_OFFSET, RECORD_SIZE
from rpmem.epochs import change, codec
from rpmem.epochs.kept import Keeping, Kept, Pieces
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.errors import CatalogueCorrupt, EpochRefused
from rpmem.memory.region import Region

_HINT = "Open the pool again: its copies are compared anew"
_CUT_OFF = "a change of the record was cut off, as the medium refused it"
_HINT_DAMAGED = "To overwrite this copy, whatever it holds, name it to be discarded"


def has_any(region: Region) -> bool:
    """Whether there is a record, or what is left of one."""
    return any(_area(region))


def clear(region: Region) -> None:
    """Let a new pool begin without a record, whatever its files held before."""
    if has_any(region):
        region.write(RECORD_OFFSET, bytes(RECORD_SIZE))
        region.persist(RECORD_OFFSET, RECORD_SIZE)


class Records(Keeping):
    """Keeps the record of one copy.

    Parameters
    ----------
    region : Region
        The copy, from its first byte.
    pool_id : bytes
        The pool that the record belongs to.
    """

    def __init__(self, region: Region, pool_id: bytes) -> None:
        self._region = region
        self._pool_id = pool_id
        self._kept = Kept(pool_id, self._store)

    @classmethod
    def read(cls, region: Region, pool_id: bytes) -> Self:
        """Read the record of a copy; one that was cut off is first written again in full.

        Raises
        ------
        FlushFailed
            The medium refused it.
        """
        records = cls(region, pool_id)
        records._kept.find(_area(region))
        records._kept.settle()
        return records

    @property
    def image(self) -> bytes | None:
        """The record as one slot holds it."""
        return self._kept.image

    def set(self, image: bytes, *, discard: bool) -> None:
        """Replace the record; the new one is durable when this returns.

        Parameters
        ----------
        image : bytes
            As one slot holds it; its sequence is ignored.
        discard : bool
            A person named this copy to be overwritten, whatever it holds.

        Raises
        ------
        EpochRefused
            It is no record of this pool, or it would hide what the copy holds.
        FlushFailed
            The medium refused. What is there is not known any more.
        """
        self._check_medium()
        wanted = self._unpacked(image)
        if self.damage is not None and not discard:
            raise EpochRefused(self.damage, hint=_HINT_DAMAGED)
        why = change.refusal(self.record, wanted, discard=discard)
        if why is not None:
            raise EpochRefused(f"the copy does not take the record: {why}", hint=_HINT)
        self._write(wanted)

    def leave(self) -> None:
        """Mark the copy as left: it has everything acknowledged so far.

        Raises
        ------
        EpochRefused
            It has no record, or it is a mixture.
        FlushFailed
            The medium refused. What is there is not known any more.
        """
        self._check_medium()
        if self.record is None:
            raise EpochRefused(
                self.damage or "the copy has no record, so it cannot leave", hint=_HINT
            )
        if self.record.mark is Mark.JOINING:
            raise EpochRefused("the copy is a mixture, so it cannot leave in order", hint=_HINT)
        self._write(change.marked(self.record, Mark.LEFT))

    def _check_medium(self) -> None:
        # One that has refused is not written to again.
        self._region.persist(RECORD_OFFSET, 0)

    def _unpacked(self, image: bytes) -> CopyRecord:
        try:
            found = codec.unpack(image, pool_id=self._pool_id)
        except CatalogueCorrupt as error:
            raise EpochRefused(error.what, hint=error.hint) from error
        if found is None:
            raise EpochRefused(
                "the record that was sent is not one of this pool: its checksum is not good",
                hint="It was made for another pool, or by another version of rpmem",
            )
        return found[0]

    def _write(self, record: CopyRecord) -> None:
        try:
            self._kept.put(record)
        except BaseException:
            # Nothing is claimed: the old one may be there, or the new one, or half of it.
            self._kept.record, self._kept.refused = None, CatalogueCorrupt(_CUT_OFF)
            raise

    def _store(self, pieces: Pieces) -> None:
        """Store pieces of the record, each of them durable before the next."""
        for offset, data in pieces:
            self._region.write(RECORD_OFFSET + offset, data)
            self._region.persist(RECORD_OFFSET + offset, len(data))


def _area(region: Region) -> bytes:
    with memoryview(region) as view:
        return bytes(view[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE])
