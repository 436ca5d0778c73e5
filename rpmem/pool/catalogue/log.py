"""The log: records one behind the other, in extents of the data area.

It only grows; a change that has no place in the last extent goes into a new one, which the last
bytes of the extent before it name. How much of it counts, and the sum over all that counts, stand
in the root, so that neither damage nor what a crash left behind its end is taken for a part of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rpmem.base.hashes import blake2b
from rpmem.errors import CatalogueCorrupt
from rpmem.pool.catalogue.medium import Source
from rpmem.pool.catalogue.records import Contents, split
from rpmem.pool.catalogue.root import CHAIN_SIZE, Root
from rpmem.pool.superblock import Layout

#: Takes the bytes needed and those wished for, and returns offset and length of a new extent.
Allocate = Callable[[int, int], tuple[int, int]]
#: An offset in the pool, and what is to be stored there.
Write = tuple[int, bytes]

#: What the last bytes of an extent say: bytes of records in it, and the next extent.
_LINK = struct.Struct("<QQQ8x")
_LARGEST_GROWTH = 1 << 20


@dataclass(frozen=True, slots=True)
class Log:
    """A log up to its end.

    Parameters
    ----------
    extents : tuple of (int, int)
        Offset and length of each.
    used : int
        Bytes of records in the last one.
    tail : int
        Bytes of records in all of them.
    sum : hash object
        Over these records and the links; never updated in place.
    """

    extents: tuple[tuple[int, int], ...]
    used: int
    tail: int
    sum: Any

    @classmethod
    def of(cls, extent: tuple[int, int], content: bytes, key: bytes) -> Log:
        """Return a log with these records in its first extent."""
        total = blake2b(content, digest_size=CHAIN_SIZE, key=key)
        return cls((extent,), len(content), len(content), total)

    @staticmethod
    def length_for(size: int) -> int:
        """Return the bytes of an extent for so many bytes of records."""
        return size + _LINK.size

    def lacks(self, size: int) -> bool:
        """Whether the last extent has no room for so many bytes more."""
        return self.used + self.length_for(size) > self.extents[-1][1]

    @property
    def chain(self) -> bytes:
        """The sum."""
        digest: bytes = self.sum.digest()
        return digest

    @property
    def end(self) -> int:
        """Offset of the first byte behind the records."""
        return self.extents[-1][0] + self.used

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Begin and end of each extent."""
        return [(offset, offset + length) for offset, length in self.extents]

    def grown(self, record: bytes, reserve: int, allocate: Allocate) -> tuple[Log, list[Write]]:
        """Return the log with one more record, and what has to be stored for it.

        Parameters
        ----------
        record : bytes
            The record.
        reserve : int
            Bytes that must stay free behind it, so that arrays can be removed when nothing else
            has room.
        allocate : callable
            Makes a new extent, where one is needed.
        """
        total = self.sum.copy()
        extents, at, writes = self.extents, self.used, []
        offset, length = extents[-1]
        if self.lacks(len(record) + reserve):
            needed = self.length_for(len(record) + reserve)
            extent = allocate(needed, needed + max(min(2 * length, _LARGEST_GROWTH), reserve))
            link = _LINK.pack(at, *extent)
            writes.append((offset + length - len(link), link))
            total.update(link)
            extents, at, offset = (*extents, extent), 0, extent[0]
        writes.append((offset + at, record))
        total.update(record)
        return Log(extents, at + len(record), self.tail + len(record), total), writes


def read(
    source: Source, layout: Layout, root: Root, *, clean: bool, where: str | None
) -> tuple[Log, Contents]:
    """Read what a root says, all of it.

    Parameters
    ----------
    source : Source
        The copy.
    layout : Layout
        Its superblock.
    root : Root
        Its root. What that has of the log's last record is taken instead of what the log has.
    clean : bool
        The copy was closed: the log has it, too.
    where : str, optional
        What errors name.

    Raises
    ------
    CatalogueCorrupt
        The log is not what it was when the root was written, or makes no sense.
    """
    total = blake2b(digest_size=CHAIN_SIZE, key=layout.pool_id)
    extents = []
    pieces = []
    extent, left = (root.log_offset, root.log_length), root.tail
    copied = b"" if clean else root.record
    for following in range(root.extents - 1, -1, -1):
        offset, length = extent
        extents.append(extent)
        used = left
        if following and _is_inside(extent, layout):
            link = source.load(offset + length - _LINK.size, _LINK.size)
            used, *after = _LINK.unpack(link)
            extent = (after[0], after[1])
        if not _is_inside((offset, length), layout) or used > min(left, length - _LINK.size):
            break
        pieces.append(source.load(offset, used))
        if not following and copied:
            pieces[-1] = pieces[-1][: -len(copied)] + copied
        total.update(pieces[-1])
        if following:
            total.update(link)
        left -= used
    if left or len(pieces) != root.extents or total.digest() != root.chain:
        raise CatalogueCorrupt(
            "the log of the catalogue is damaged: arrays may be missing",
            where=where,
            hint="Move this copy away and restore the pool from a replica",
        )
    contents = Contents()
    try:
        for record in split(b"".join(pieces)):
            contents.take(*record)
        if len(contents.raw) != root.count:
            raise ValueError(f"it has {len(contents.raw)} arrays, not {root.count}")
    except (ValueError, TypeError, KeyError, IndexError, struct.error) as error:
        raise senseless(error, where) from error
    return Log(tuple(extents), len(pieces[-1]), root.tail, total), contents


def senseless(error: Exception, where: str | None) -> CatalogueCorrupt:
    """Return the error to raise for a catalogue that is intact and cannot be."""
    return CatalogueCorrupt(
        f"the catalogue has a good checksum but makes no sense: {error}",
        where=where,
        hint="It was written by another version of rpmem, or by something else",
    )


def _is_inside(extent: tuple[int, int], layout: Layout) -> bool:
    offset, length = extent
    return layout.data_start <= offset and offset + length <= layout.pool_size
