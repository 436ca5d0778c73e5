"""Maps of absent copies as they lie in a pool that is closed.

A table behind the superblock says which copies they are of, and where each lies in the free room of
the data area. It names the epoch that the pool was closed in, and counts only where a copy is clean
in exactly that epoch: the next epoch begins, durably, before anything is stored. So nothing has to
be taken back, and who does not know of maps need not care: to them the room is free.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from rpmem.base.hashes import blake2b
from rpmem.epochs.record import MOST_MEMBERS, MOST_PARTED, CopyRecord, Epoch, Mark, Stamp
from rpmem.pool.absent import Absence, Absent
from rpmem.pool.catalogue.extents import PAGE_ALIGNMENT, round_up
from rpmem.pool.superblock import LAYOUT_OFFSET, SLOTS_OFFSET, Layout

if TYPE_CHECKING:
    from rpmem.memory.changes.pageset import PageSet
    from rpmem.pool.catalogue.medium import Source

#: Where the table lies, and its bytes.
TABLE_OFFSET: Final = LAYOUT_OFFSET + 512
TABLE_SIZE: Final = SLOTS_OFFSET - TABLE_OFFSET
#: Bytes that a bit stands for.
PAGE: Final = 4096

_MAGIC: Final = b"RPMEMMP1"
_HEAD: Final = struct.Struct("<8sQ16sI4x")
_ENTRY: Final = struct.Struct("<16sQ16sBBB5x16sQQ32s")
_DIGEST_SIZE: Final = 32
_NO_BOOT: Final = bytes(16)
#: Of copies that are away, and of other members than the writer's own copy.
_MOST: Final = MOST_PARTED + MOST_MEMBERS - 1
assert _HEAD.size + _MOST * _ENTRY.size + _DIGEST_SIZE <= TABLE_SIZE

#: An offset in the pool, and what is to be stored there.
Write = tuple[int, bytes]


class Kept(NamedTuple):
    """What a pool that was closed says of its copies.

    Parameters
    ----------
    absences : dict
        By uuid, of copies that were away.
    boots : dict
        By uuid, of copies that were closed with it and may not outlive their machine: the boot that
        this was in.
    """

    absences: dict[bytes, Absence]
    boots: dict[bytes, bytes]


def length_for(layout: Layout) -> int:
    """Return the bytes of room that one map takes up."""
    return round_up(_size(layout), PAGE_ALIGNMENT)


def writes(
    kept: Iterable[tuple[bytes, Absence]],
    boots: Mapping[bytes, bytes],
    epoch: Epoch,
    layout: Layout,
    room: Sequence[int],
) -> list[Write]:
    """Return what is to be stored so that maps are found again.

    Parameters
    ----------
    kept : iterable of (bytes, Absence)
        By uuid.
    boots : mapping
        As in `Kept`.
    epoch : Epoch
        In which the pool is about to be marked as clean; nothing else is stored in it.
    layout : Layout
        The superblock.
    room : sequence of int
        Offsets of `length_for` bytes each, which nothing uses; maps without room are left out.
    """
    found: list[Write] = []
    entries = []
    for (copy, each), offset in zip(kept, room, strict=False):
        content = each.pages.content()[: _size(layout)]
        found.append((offset, content))
        boot = each.boot or _NO_BOOT
        about = copy, *each.last, True, each.clean, bool(each.boot), boot
        entries.append(_ENTRY.pack(*about, offset, len(content), _sum(content, layout)))
    for copy, boot in boots.items():
        entries.append(_ENTRY.pack(copy, *epoch.stamp, False, True, True, boot, 0, 0, b""))
    head = _HEAD.pack(_MAGIC, *epoch.stamp, len(entries))
    body = b"".join((head, *entries))
    found.append((TABLE_OFFSET, body + _sum(body, layout)))
    return found


def read(source: Source, layout: Layout, record: CopyRecord, absent: Absent) -> Kept:
    """Read what a copy has, before anything is stored to it; nothing where that does not count.

    Parameters
    ----------
    source : Source
        The copy.
    layout : Layout
        Its superblock.
    record : CopyRecord
        Its record, as it is found.
    absent : Absent
        Makes maps of the right size.
    """
    kept = Kept({}, {})
    table = _table(source.load(TABLE_OFFSET, TABLE_SIZE), layout, record)
    for fields in table:
        copy, number, identity, mapped, clean, booted, boot, offset, length, sum_ = fields
        if not mapped:
            kept.boots[copy] = boot
            continue
        pages = _map(source, layout, (offset, length), sum_, absent)
        if pages is not None:
            stamp = Stamp(number, identity)
            kept.absences[copy] = Absence(pages, stamp, bool(clean), boot if booted else None)
    for each in kept.absences.values():
        for *_, offset, length, _ in table:
            each.pages.add(offset, length)  # the maps' own bytes came after them
    return kept


def _table(data: bytes, layout: Layout, record: CopyRecord) -> list[tuple]:  # type: ignore[type-arg]
    """Return the entries of the table, if it is one of this copy as it is."""
    magic, number, identity, count = _HEAD.unpack_from(data)
    end = _HEAD.size + count * _ENTRY.size
    if magic != _MAGIC or end + _DIGEST_SIZE > len(data) or record.mark is not Mark.CLEAN:
        return []
    if record.epoch.stamp != (number, identity):
        return []
    if _sum(data[:end], layout) != data[end : end + _DIGEST_SIZE]:
        return []
    return list(_ENTRY.iter_unpack(data[_HEAD.size : end]))


def _map(
    source: Source, layout: Layout, extent: tuple[int, int], sum_: bytes, absent: Absent
) -> PageSet | None:
    """Read one map; None where it is damaged."""
    offset, length = extent
    if length != _size(layout) or not layout.data_start <= offset <= layout.pool_size - length:
        return None
    content = source.load(offset, length)
    if _sum(content, layout) != sum_:
        return None
    pages = absent.empty()
    pages.load(content)
    return pages


def _size(layout: Layout) -> int:
    return -(-layout.pool_size // (8 * PAGE))


def _sum(data: bytes, layout: Layout) -> bytes:
    return blake2b(data, digest_size=_DIGEST_SIZE, key=layout.pool_id).digest()
