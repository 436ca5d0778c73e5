"""The superblock: where things are in a pool.

::

    0       pool header (rpmem.files.header)
    4096    record of this copy (rpmem.epochs.codec)
    20480   layout: sizes and places, checksummed, written once when the pool is created
    24576   catalogue: root slot 0, root slot 1 (rpmem.pool.catalogue.root)
    32768   data area: arrays, and the log of the catalogue between them

Header and record are each copy's own, and never written by persist; the rest is the same on all
copies that are up to date.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rpmem.base.hashes import blake2b
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.errors import CatalogueCorrupt, HeaderError, PoolSetTooSmall
from rpmem.files.attributes import MAJOR

LAYOUT_OFFSET = POOL_FLOOR
SLOTS_OFFSET = LAYOUT_OFFSET + 4096
SLOT_COUNT = 2

_PAGE = 4096
_SLOT_SIZE = _PAGE

_MAGIC = b"RPMEMSB2"
#: With which the superblock of format 1 began, where format 2 has the record.
MAGIC_1 = b"RPMEMSB1"
#: Version of the format, which the header's major version says too.
FORMAT = MAJOR
#: Feature bits that this version knows.
KNOWN_INCOMPAT = 0
KNOWN_RO_COMPAT = 0
_LAYOUT = struct.Struct("<8s16sQQQQIII4x")
_DIGEST_SIZE = 16
LAYOUT_SIZE = _LAYOUT.size + _DIGEST_SIZE

#: The smallest pool: header, record, superblock, slots, the log and its spare, a page of data.
SMALLEST_POOL = SLOTS_OFFSET + SLOT_COUNT * _SLOT_SIZE + 3 * _PAGE


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of the parts of a pool; the same on every replica.

    Parameters
    ----------
    pool_id : bytes
        16 bytes, the header's ``poolset_uuid``.
    pool_size : int
        Bytes from the header to the end of the data area.
    slot_size : int
        Bytes of one slot for a root of the catalogue.
    data_start : int
        Offset of the data area.
    incompat, ro_compat, compat : int
        Feature bits. Who does not know one may not open the pool, may only look at it, or need not
        care.
    """

    pool_id: bytes
    pool_size: int
    slot_size: int
    data_start: int
    incompat: int = 0
    ro_compat: int = 0
    compat: int = 0

    @classmethod
    def plan(cls, pool_size: int, pool_id: bytes) -> Layout:
        """Lay out a new pool of `pool_size` bytes; `PoolSetTooSmall` below `SMALLEST_POOL`."""
        if pool_size < SMALLEST_POOL:
            raise PoolSetTooSmall(
                f"{pool_size} bytes are not enough for a pool",
                hint=f"The smallest pool has {SMALLEST_POOL} bytes",
            )
        return cls(pool_id, pool_size, _SLOT_SIZE, SLOTS_OFFSET + SLOT_COUNT * _SLOT_SIZE)

    def slot_offset(self, index: int) -> int:
        """Return the pool offset of slot `index` for a root of the catalogue."""
        return SLOTS_OFFSET + index * self.slot_size

    def pack(self) -> bytes:
        """Return the `LAYOUT_SIZE` bytes for `LAYOUT_OFFSET`."""
        body = _LAYOUT.pack(
            _MAGIC,
            self.pool_id,
            self.pool_size,
            SLOTS_OFFSET,
            self.slot_size,
            self.data_start,
            self.incompat,
            self.ro_compat,
            self.compat,
        )
        return body + blake2b(body, digest_size=_DIGEST_SIZE).digest()

    @classmethod
    def unpack(cls, data: bytes, *, where: str | None = None, to_look: bool = False) -> Layout:
        """Read a layout back.

        Parameters
        ----------
        data : bytes
            `LAYOUT_SIZE` bytes.
        where : str, optional
            What errors name.
        to_look : bool
            The pool is only looked at.

        Raises
        ------
        CatalogueCorrupt
            There is none, or a damaged one.
        HeaderError
            It is that of another version of the format, or has features unknown to this one.
        """
        body, digest = data[: _LAYOUT.size], data[_LAYOUT.size : LAYOUT_SIZE]
        magic, major = body[: len(_MAGIC) - 1], body[len(_MAGIC) - 1 : len(_MAGIC)]
        if _MAGIC.startswith(magic) and major.isdigit() and int(major) != FORMAT:
            raise other_format(int(major), where)
        if not body.startswith(_MAGIC):
            raise CatalogueCorrupt(
                "there is no superblock",
                where=where,
                hint="This is not a pool of rpmem, or its creation was interrupted; "
                "in that case, remove it and create it again",
            )
        if blake2b(body, digest_size=_DIGEST_SIZE).digest() != digest:
            raise CatalogueCorrupt(
                "the superblock is damaged", where=where, hint="Restore the pool from a replica"
            )
        _, pool_id, pool_size, slots, slot_size, data_start, *features = _LAYOUT.unpack(body)
        layout = cls(pool_id, pool_size, slot_size, data_start, *features)
        layout._check_features(where, to_look=to_look)
        if slots != SLOTS_OFFSET or data_start != layout.slot_offset(SLOT_COUNT):
            raise CatalogueCorrupt("the superblock describes an unknown layout", where=where)
        return layout

    def _check_features(self, where: str | None, *, to_look: bool) -> None:
        unknown = [("incompat", self.incompat & ~KNOWN_INCOMPAT)]
        if not to_look:
            unknown.append(("ro_compat", self.ro_compat & ~KNOWN_RO_COMPAT))
        for kind, bits in unknown:
            if bits:
                hint = "Use the version of rpmem that the pool was written with"
                if kind == "ro_compat":
                    hint += "; readonly=True lets this one look at it"
                raise HeaderError(
                    f"the pool has features that this version of rpmem does not know "
                    f"({kind} bits {bits:#x})",
                    where=where,
                    hint=hint,
                )


def other_format(major: int, where: str | None) -> HeaderError:
    """Return the error that refuses a pool of another version of the format."""
    text = f"the pool has format {major}; this version of rpmem reads format {FORMAT}"
    if major < FORMAT:
        hint = "Read it with rpmem 0.1.0, and copy its arrays into a new pool; nothing was changed"
    else:
        hint = "Read it with a newer rpmem; nothing was changed"
    return HeaderError(text, where=where, hint=hint)


def refuse_format_1(record: bytes, where: str | None) -> None:
    """Raise `HeaderError` if there is a superblock of format 1 in the place of the record.

    Where there is no header, nothing else tells.
    """
    if record.startswith(MAGIC_1):
        raise other_format(1, where)
