"""A record in its place: what was found there, how it is made whole, and how it is replaced.

The local copy, rpmemd, and the lanes to an rpmemd that keeps no records store bytes in three ways;
what they store, and in which order, is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from rpmem.epochs import codec
from rpmem.epochs.record import CopyRecord
from rpmem.errors import CatalogueCorrupt

#: Offsets within a record's area, and what to store there.
Pieces: TypeAlias = Iterable[tuple[int, bytes]]


class Kept:
    """The record of one copy.

    Parameters
    ----------
    pool_id : bytes
        The pool that it belongs to.
    store : callable
        Stores pieces, each of them durable before the next.

    Attributes
    ----------
    record : CopyRecord or None
        What is there; None where there is none, or where it is damaged.
    refused : CatalogueCorrupt or None
        Why what is there cannot be believed.
    settled : bool
        No change of it was cut off.
    """

    def __init__(self, pool_id: bytes, store: Callable[[Pieces], None]) -> None:
        self.record: CopyRecord | None = None
        self.refused: CatalogueCorrupt | None = None
        self.settled = True
        self._pool_id = pool_id
        self._store = store
        self._sequence = 0

    def find(self, area: bytes) -> None:
        """Take note of what lies in a record's area."""
        try:
            found = codec.read(area, pool_id=self._pool_id)
        except CatalogueCorrupt as error:
            self.refused = error
            self.pass_over(area)
            return
        if found is not None:
            self.record, self._sequence, self.settled = found

    def pass_over(self, area: bytes) -> None:
        """Let no half of what lies in the area ever be taken for a half of the next record."""
        self._sequence = codec.sequence_over(area, pool_id=self._pool_id) - 1

    def settle(self) -> None:
        """Make a record whole whose change was cut off."""
        if not self.settled and self.record is not None:
            self._store(codec.settling(self.record, self._sequence, pool_id=self._pool_id))
            self.settled = True

    def put(self, record: CopyRecord) -> None:
        """Replace the record; after an error nothing new is claimed."""
        self.settle()
        self._store(codec.changes(record, self._sequence + 1, pool_id=self._pool_id))
        self._sequence += 1
        self.record, self.refused = record, None

    @property
    def damage(self) -> str | None:
        """The same in words."""
        return None if self.refused is None else self.refused.what

    @property
    def image(self) -> bytes | None:
        """The record as one slot holds it."""
        if self.record is None:
            return None
        return codec.pack(self.record, self._sequence, pool_id=self._pool_id)


class Keeping:
    """Base of what keeps the record of a copy in a place of its own."""

    _kept: Kept

    @property
    def record(self) -> CopyRecord | None:
        """What is durable there now; None: there is none, or it cannot be believed."""
        return self._kept.record

    @property
    def damage(self) -> str | None:
        """Why what is there cannot be believed."""
        return self._kept.damage
