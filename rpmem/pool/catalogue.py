"""The catalogue of named arrays in a pool: crash-consistent on its medium, without numpy.

The whole catalogue is one image (JSON, numbered and checksummed) in one of two slots. A change
writes the complete new image into the *other* slot and makes it durable; reading takes the valid
image with the higher number. A crash at any moment therefore leaves the old catalogue or the new
one, on the local medium and on every replica, because a half-written image has no good checksum
and the old slot was not touched.

Only a crash may leave a slot without a good checksum: the next open for writing publishes the
catalogue once more, over that slot. In a copy that was closed, both slots are therefore whole and
have successive numbers, or the second one was never written. Anything else is damage, perhaps to
the newest catalogue (`Catalogue.read`). Version 0.1.0 left torn slots in place; its images lack the
mark `_MENDS`.

Extents are handed out from the gaps between entries: there is no free list on the medium that
could disagree with the catalogue. A new array's extent is zeroed, and the zeros made durable,
before the entry is published.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Protocol

from rpmem.errors import ArrayExists, ArrayNotFound, CatalogueCorrupt, PoolFull, UsageError
from rpmem.pool.superblock import LAYOUT_OFFSET, LAYOUT_SIZE, SLOT_COUNT, Layout

log = logging.getLogger(__name__)

_MAGIC = b"RPMEMCAT"
_SLOT_HEADER = struct.Struct("<8sQQ8s")
#: In images by versions that leave no torn slot behind when they close.
_MENDS = b"MENDSALL"
_ENOUGH_OF_IT = 4
_DIGEST_SIZE = 32
SLOT_OVERHEAD = _SLOT_HEADER.size + _DIGEST_SIZE

SMALL_ALIGNMENT = 64
PAGE_ALIGNMENT = 4096
LONGEST_NAME = 255
MOST_DIMENSIONS = 64
_NAMES_IN_HINT = 8
ORDERS = ("C", "F")


class Medium(Protocol):
    """The operations that the catalogue needs from a pool; offsets are pool offsets."""

    def load(self, offset: int, length: int) -> bytes:
        """Return the bytes as the local copy has them."""

    def store(self, offset: int, data: bytes) -> None:
        """Put bytes into the local copy, without making them durable."""

    def zero(self, offset: int, length: int) -> None:
        """Like `store`, with zeros."""

    def persist(self, offset: int, length: int) -> None:
        """Return when the range is durable locally."""

    def replicate(self, offset: int, length: int) -> None:
        """Return when the range is durable on every replica."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One named array.

    Parameters
    ----------
    name : str
        Its name.
    offset, length : int
        Its extent, in bytes from the beginning of the pool.
    shape : tuple of int
        Its shape.
    order : {"C", "F"}
        Its memory layout.
    dtype : JSON value
        Its dtype as `rpmem.pool.arrays` describes it; opaque here.
    """

    name: str
    offset: int
    length: int
    shape: tuple[int, ...]
    order: str
    dtype: Any

    @property
    def end(self) -> int:
        """Offset of the first byte after its space, which is rounded up to `SMALL_ALIGNMENT`."""
        return self.offset + _room(self.length)


class Catalogue:
    """The entries of a pool, in memory and on its medium.

    Changes are not thread-safe: the caller holds a lock over `create` and `remove`.

    Parameters
    ----------
    medium : Medium
        The pool.
    layout : Layout
        Its superblock.
    """

    def __init__(self, medium: Medium, layout: Layout) -> None:
        self._medium = medium
        self._layout = layout
        self._active = 0
        self._sequence = 0
        self._whole = True
        self._entries: dict[str, Entry] = {}

    @classmethod
    def format(cls, medium: Medium, layout: Layout) -> Catalogue:
        """Write an empty catalogue and then the layout, durably, over whatever was there.

        A crash before the end leaves no layout, hence no pool. The caller writes the state word.
        """
        catalogue = cls(medium, layout)
        catalogue._clear(LAYOUT_OFFSET, LAYOUT_SIZE)
        catalogue._clear(layout.slot_offset(0), SLOT_COUNT * layout.slot_size)
        catalogue._publish({})
        medium.store(LAYOUT_OFFSET, layout.pack())
        catalogue._make_durable(LAYOUT_OFFSET, LAYOUT_SIZE)
        return catalogue

    @classmethod
    def read(
        cls, medium: Medium, layout: Layout, *, clean: bool = False, where: str | None = None
    ) -> Catalogue:
        """Read the catalogue and change nothing.

        Parameters
        ----------
        medium : Medium
            The pool.
        layout : Layout
            Its superblock.
        clean : bool
            The copy was closed, so both slots have to be as they were then.
        where : str, optional
            The name of the copy in errors.

        Raises
        ------
        CatalogueCorrupt
            Neither slot has a valid image, or the copy is damaged.
        """
        catalogue = cls(medium, layout)
        catalogue._read_slots(clean=clean, where=where)
        return catalogue

    def settle(self, medium: Medium) -> None:
        """Make what was read reliable, to continue with it through another medium of the same pool.

        First the image that was found is made durable locally: a writer killed between its store
        and its flush leaves a valid image that a power cut could still destroy, while the next
        change overwrites the other slot. If that one is torn, or neither has the mark, the
        catalogue is immediately published over it.
        """
        self._medium = medium
        medium.persist(LAYOUT_OFFSET, LAYOUT_SIZE)
        medium.persist(self._layout.slot_offset(self._active), self._layout.slot_size)
        if not (self._whole and self._is_marked()):
            self._publish(self._entries)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The entries by name, in the order of their creation."""
        return MappingProxyType(self._entries)

    def find(self, name: str) -> Entry:
        """Return the entry of that name; raise `ArrayNotFound` if there is none."""
        if not isinstance(name, str) or name not in self._entries:
            raise _not_found(name, self._entries)
        return self._entries[name]

    def create(
        self, name: str, length: int, *, shape: tuple[int, ...], order: str, dtype: Any
    ) -> Entry:
        """Allocate a zero-filled extent and publish it under `name`.

        Parameters
        ----------
        name : str
            1 to 255 bytes of UTF-8, printable.
        length : int
            Bytes.
        shape, order, dtype
            Kept with the entry.

        Returns
        -------
        Entry
            Durable here and on every replica, as are its zeros.

        Raises
        ------
        UsageError
            The name is not valid.
        ArrayExists
            An array of that name exists.
        PoolFull
            No gap is large enough, or the catalogue's slot is too small for one more entry.
        ReplicaLost
            A replica was lost. If publication was reached locally, the entry exists locally, and
            `entries` includes it.
        """
        check_name(name)
        if name in self._entries:
            raise ArrayExists(f"an array named {name!r} exists")
        offset = self._find_gap(length)
        entry = Entry(name, offset, length, shape, order, dtype)
        image = self._image({**self._entries, name: entry})  # raises before anything is written
        self._clear(offset, _room(length))
        self._publish({**self._entries, name: entry}, image)
        return entry

    def remove(self, name: str) -> Entry:
        """Remove the entry of that name, durably here and on every replica.

        Raises
        ------
        ArrayNotFound
            There is no such entry.
        ReplicaLost
            A replica was lost; locally the entry is gone.
        """
        entry = self.find(name)
        self._publish({key: value for key, value in self._entries.items() if key != name})
        return entry

    # --- extents --------------------------------------------------------------------------

    def _find_gap(self, length: int) -> int:
        alignment = PAGE_ALIGNMENT if length >= PAGE_ALIGNMENT else SMALL_ALIGNMENT
        largest = 0
        for begin, end in self._gaps():
            offset = _round_up(begin, alignment)
            if offset + _room(length) <= end:
                return offset
            largest = max(largest, end - offset)
        raise PoolFull(
            f"no free stretch of {length} bytes in the pool; the largest has {largest}",
            hint="Delete arrays that are no longer needed, or create a larger pool",
        )

    def _gaps(self) -> Iterator[tuple[int, int]]:
        free = self._layout.data_start
        taken = sorted((entry.offset, entry.end) for entry in self._entries.values())
        for begin, end in taken:
            if begin > free:
                yield free, begin
            free = max(free, end)
        yield free, self._layout.pool_size

    # --- slots ----------------------------------------------------------------------------

    def _image(self, entries: dict[str, Entry]) -> bytes:
        payload = json.dumps(
            {"arrays": [asdict(entry) for entry in entries.values()]},
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode("utf-8", "surrogatepass")
        if SLOT_OVERHEAD + len(payload) > self._layout.slot_size:
            raise PoolFull(
                f"the catalogue has no room for more than {len(self._entries)} entries",
                hint="Delete arrays, use fewer and larger ones, or create a larger pool: "
                "the catalogue grows with it",
            )
        header = _SLOT_HEADER.pack(_MAGIC, self._sequence + 1, len(payload), _MENDS)
        return header + self._digest(header, payload) + payload

    def _digest(self, header: bytes, payload: bytes) -> bytes:
        # Keyed with the pool's id, so that an image left by another pool in the same place is not
        # valid.
        hasher = blake2b(header, digest_size=_DIGEST_SIZE, key=self._layout.pool_id)
        hasher.update(payload)
        return hasher.digest()

    def _publish(self, entries: dict[str, Entry], image: bytes | None = None) -> None:
        image = self._image(entries) if image is None else image
        slot = self._inactive()
        offset = self._layout.slot_offset(slot)
        self._medium.store(offset, image)
        self._medium.persist(offset, len(image))
        # From here on the local medium has the new catalogue, whatever happens to the replicas.
        self._active, self._sequence, self._entries = slot, self._sequence + 1, entries
        self._medium.replicate(offset, len(image))

    def _inactive(self) -> int:
        return (self._active + 1) % SLOT_COUNT

    def _clear(self, offset: int, length: int) -> None:
        self._medium.zero(offset, length)
        self._make_durable(offset, length)

    def _make_durable(self, offset: int, length: int) -> None:
        self._medium.persist(offset, length)
        self._medium.replicate(offset, length)

    def _read_slots(self, *, clean: bool, where: str | None) -> None:
        """Take the newest image, and record whether the other slot is as it should be."""
        found = [(self._read_slot(slot), slot) for slot in range(SLOT_COUNT)]
        valid = [(image, slot) for image, slot in found if image is not None]
        if not valid:
            raise CatalogueCorrupt(
                "no copy of the catalogue has a good checksum",
                where=where,
                hint="Restore the pool from a replica",
            )
        (self._sequence, payload), self._active = max(valid, key=lambda item: item[0][0])
        if len(valid) == SLOT_COUNT:
            self._whole = {image[0] for image, _ in valid} == {self._sequence, self._sequence - 1}
        else:
            self._whole = self._sequence == 1 and self._is_blank(self._inactive())
        if clean and not self._whole:
            self._check_torn_by_another_version(valid=len(valid) == SLOT_COUNT, where=where)
        self._entries = self._parse(payload)

    def _check_torn_by_another_version(self, *, valid: bool, where: str | None) -> None:
        """Raise `CatalogueCorrupt` if a slot of a closed copy is not as it was."""
        slot = self._inactive()
        if not (valid or self._is_blank(slot) or self._is_marked()):
            log.warning("%s: slot %d of the catalogue is torn", where, slot)
            return
        raise CatalogueCorrupt(
            f"slot {slot} of the catalogue is not what it was when this copy was closed: arrays "
            "may be missing",
            where=where,
            hint="Move this copy away and restore the pool from a replica",
        )

    def _is_marked(self) -> bool:
        """Whether an image, intact or not, is from a version that leaves no torn slot."""
        for slot in range(SLOT_COUNT):
            head = self._medium.load(self._layout.slot_offset(slot), _SLOT_HEADER.size)
            mark = _SLOT_HEADER.unpack(head)[3]
            # Half of it is enough: the mark itself may be damaged.
            if sum(a == b for a, b in zip(mark, _MENDS, strict=True)) >= _ENOUGH_OF_IT:
                return True
        return False

    def _is_blank(self, slot: int) -> bool:
        size = self._layout.slot_size
        return self._medium.load(self._layout.slot_offset(slot), size) == bytes(size)

    def _read_slot(self, slot: int) -> tuple[int, bytes] | None:
        """Return sequence and payload of a slot, or None if it holds no valid image."""
        offset = self._layout.slot_offset(slot)
        head = self._medium.load(offset, SLOT_OVERHEAD)
        header, digest = head[: _SLOT_HEADER.size], head[_SLOT_HEADER.size :]
        magic, sequence, length, _ = _SLOT_HEADER.unpack(header)
        if magic != _MAGIC or length > self._layout.slot_size - SLOT_OVERHEAD:
            return None
        payload = self._medium.load(offset + SLOT_OVERHEAD, length)
        return (sequence, payload) if self._digest(header, payload) == digest else None

    def _parse(self, payload: bytes) -> dict[str, Entry]:
        try:
            entries = [_parse_entry(item) for item in json.loads(payload)["arrays"]]
            named = {entry.name: entry for entry in entries}
            if len(named) != len(entries):
                raise ValueError("a name occurs twice")
            self._check_extents(entries)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CatalogueCorrupt(
                f"the catalogue has a good checksum but makes no sense: {error}",
                hint="It was written by another version of rpmem, or by something else",
            ) from error
        return named

    def _check_extents(self, entries: list[Entry]) -> None:
        free = self._layout.data_start
        for entry in sorted(entries, key=lambda item: item.offset):
            if entry.offset < free or entry.offset % SMALL_ALIGNMENT:
                raise ValueError(f"the extent of {entry.name!r} is not free")
            free = entry.end
        if free > self._layout.pool_size:
            raise ValueError("an extent ends outside the pool")


def check_name(name: str) -> None:
    """Raise `UsageError` unless `name` can name an array."""
    if not isinstance(name, str):
        raise UsageError(f"the name of an array is a str, not {type(name).__name__}")
    if not name or not name.isprintable() or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise UsageError(
            f"{name!r} cannot name an array",
            hint=f"A name has 1 to {LONGEST_NAME} bytes of UTF-8, all of them printable",
        )


def _parse_entry(item: dict[str, Any]) -> Entry:
    entry = Entry(
        item["name"],
        item["offset"],
        item["length"],
        tuple(item["shape"]),
        item["order"],
        item["dtype"],
    )
    check_name(entry.name)
    for number in (entry.offset, entry.length, *entry.shape):
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"{entry.name!r} has an impossible size")
    if entry.order not in ORDERS or len(entry.shape) > MOST_DIMENSIONS:
        raise ValueError(f"{entry.name!r} has an unknown memory layout")
    return entry


def _not_found(name: object, entries: Iterable[str]) -> ArrayNotFound:
    known = sorted(entries)
    listed = ", ".join(map(repr, known[:_NAMES_IN_HINT]))
    if len(known) > _NAMES_IN_HINT:
        listed += ", ..."
    return ArrayNotFound(
        f"the pool has no array named {name!r}",
        hint=f"It has {listed}" if known else "It has no arrays yet",
    )


def _room(length: int) -> int:
    """Return the space for an array of `length` bytes; an empty one also takes some."""
    return _round_up(max(length, 1), SMALL_ALIGNMENT)


def _round_up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
