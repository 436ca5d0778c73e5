"""The root of the catalogue: where its log lies, and up to where it counts.

There are two slots. Each change of the catalogue ends by writing a root into the slot that does
not count: one store that a crash leaves whole, torn, or not there at all, while the other slot
still has the root before. The slot with the higher number counts.

A root brings a copy of the log's last record with it, if its slot has room for one. So that record
may become durable at the same time as the root, in whatever order: what a crash left of it in the
log does not matter. The log has it, durably, before the next root is written.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from rpmem.base.hashes import blake2b
from rpmem.errors import CatalogueCorrupt
from rpmem.pool.catalogue.medium import Source
from rpmem.pool.superblock import SLOT_COUNT, Layout

_MAGIC = b"RPMEMCR2"
_ROOT = struct.Struct("<8sQQQQQQQQ32s")
_DIGEST_SIZE = 32
#: Bytes of a root; the copy of a record comes behind it.
ROOT_SIZE = _ROOT.size + _DIGEST_SIZE
#: Bytes of the sum over the log.
CHAIN_SIZE = 32


@dataclass(frozen=True, slots=True)
class Root:
    """What counts.

    Parameters
    ----------
    sequence : int
        Counted up with every root.
    log_offset, log_length : int
        The first extent of the log, which names the next one.
    extents : int
        How many there are.
    tail : int
        Bytes of records in all of them.
    mark : int
        The high-water mark: all bytes from here to the end of the pool are zero on every copy.
    count : int
        How many arrays there are.
    chain : bytes
        Sum over these records, and over the links between the extents.
    record : bytes
        The last of these records, which the log may not have yet; empty if it has them all.
    """

    sequence: int
    log_offset: int
    log_length: int
    extents: int
    tail: int
    mark: int
    count: int
    chain: bytes
    record: bytes = b""

    @property
    def size(self) -> int:
        """Bytes that stand in a slot."""
        return ROOT_SIZE + len(self.record)

    def pack(self, key: bytes) -> bytes:
        """Return the bytes that stand in a slot.

        The sum is keyed with the pool's id: a root that another pool left there is not valid.
        """
        body = _ROOT.pack(
            _MAGIC,
            self.sequence,
            self.log_offset,
            self.log_length,
            self.extents,
            self.tail,
            self.mark,
            self.count,
            len(self.record),
            self.chain,
        )
        return body + _sum_of(body, self.record, key) + self.record

    @classmethod
    def unpack(cls, data: bytes, key: bytes) -> Root | None:
        """Read a root back from its slot; None when there is none, or a damaged one."""
        body, digest = data[: _ROOT.size], data[_ROOT.size : ROOT_SIZE]
        magic, *fields, copied, chain = _ROOT.unpack(body)
        record = data[ROOT_SIZE : ROOT_SIZE + copied]
        if magic != _MAGIC or len(record) != copied or _sum_of(body, record, key) != digest:
            return None
        return cls(*(*fields, chain, record))


def _sum_of(body: bytes, record: bytes, key: bytes) -> bytes:
    return blake2b(body + record, digest_size=_DIGEST_SIZE, key=key).digest()


class Found(NamedTuple):
    """The slots of a copy as they were found.

    Parameters
    ----------
    root : Root
        The one that counts.
    slot : int
        Where it is.
    whole : bool
        Whether the other slot is what it has to be: the root before, or never written.
    """

    root: Root
    slot: int
    whole: bool


def read_slots(source: Source, layout: Layout, *, clean: bool, where: str | None) -> Found:
    """Return the root that counts.

    Parameters
    ----------
    source : Source
        The copy.
    layout : Layout
        Its superblock.
    clean : bool
        The copy was closed, so both slots have to be what they were then: a torn one is damage,
        and the root in the other slot may be an older one.
    where : str, optional
        What errors name.

    Raises
    ------
    CatalogueCorrupt
        Neither slot has a root, or a copy that was closed is damaged.
    """
    size = layout.slot_size
    slots = [source.load(layout.slot_offset(slot), size) for slot in range(SLOT_COUNT)]
    roots = [Root.unpack(content, layout.pool_id) for content in slots]
    valid = [(root, slot) for slot, root in enumerate(roots) if root is not None]
    if not valid:
        raise CatalogueCorrupt(
            "no root of the catalogue has a good checksum",
            where=where,
            hint="Restore the pool from a replica",
        )
    root, active = max(valid, key=lambda item: item[0].sequence)
    other = (active + 1) % SLOT_COUNT
    before = roots[other]
    if before is None:
        whole = root.sequence == 1 and not any(slots[other])
    else:
        whole = before.sequence == root.sequence - 1
    if clean and not whole:
        raise CatalogueCorrupt(
            f"slot {other} of the catalogue is not what it was when this copy was closed: arrays "
            "may be missing",
            where=where,
            hint="Move this copy away and restore the pool from a replica",
        )
    return Found(root, active, whole)
