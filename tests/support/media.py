"""The content of a medium, read without the code under test: parts, superblock, catalogue."""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpmem.base.pool_format import HEADER_SIZE, RECORD_OFFSET, RECORD_SIZE
from rpmem.epochs import codec
from rpmem.epochs.record import CopyRecord
from rpmem.errors import CatalogueCorrupt
from rpmem.files import poolset
from rpmem.files.header import INCOMPAT_SINGLEHDR as INCOMPAT_SINGLEHDR
from rpmem.files.header import Header
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.superblock import (
    LAYOUT_OFFSET,
    LAYOUT_SIZE,
    SLOT_COUNT,
    Layout,
)


def parts_of(pool_set: Path) -> list[Path]:
    """Return the files of a pool set, or the path itself when it is a plain file."""
    return [Path(part.path) for part in poolset.load_any(pool_set, lock=False).parts]


def image_of(pool_set: Path) -> bytes:
    """Return the whole pool from its first byte, as it lies in the files now."""
    found = poolset.load_any(pool_set, lock=False)
    every_part_has_one = not found.options & {"SINGLEHDR", "NOHDRS"}
    pieces = []
    for index, part in enumerate(found.parts):
        content = Path(part.path).read_bytes()
        pieces.append(content[HEADER_SIZE:] if index and every_part_has_one else content)
    return b"".join(pieces)


def signature_in(image: bytes) -> bytes:
    """Return the signature in an image's header, whose checksum has to be right."""
    return Header.unpack(image[:HEADER_SIZE]).signature


def record_in(image: bytes) -> CopyRecord | None:
    """Return the record that an image holds."""
    layout = Layout.unpack(image[LAYOUT_OFFSET:][:LAYOUT_SIZE])
    found = codec.read(image[RECORD_OFFSET:][:RECORD_SIZE], pool_id=layout.pool_id)
    return None if found is None else found.record


def state_of(image: bytes) -> tuple[int, str]:
    """Return the number of an image's epoch, and its mark."""
    record = record_in(image)
    return (0, "") if record is None else state_of_record(record)


def state_of_record(record: CopyRecord) -> tuple[int, str]:
    """Return the number of a record's epoch, and its mark."""
    return record.epoch.number, record.mark.name


def write_record(pool_set: Path, record: CopyRecord) -> None:
    """Put another record into a pool that nobody uses."""
    image = image_of(pool_set)
    layout = Layout.unpack(image[LAYOUT_OFFSET:][:LAYOUT_SIZE])
    found = codec.read(image[RECORD_OFFSET:][:RECORD_SIZE], pool_id=layout.pool_id)
    sequence = 1 if found is None else found.sequence + 1
    with open(parts_of(pool_set)[0], "r+b") as file:
        for offset, data in codec.changes(record, sequence, pool_id=layout.pool_id):
            file.seek(RECORD_OFFSET + offset)
            file.write(data)


def write_slots(pool_set: Path, content: bytes) -> None:
    """Overwrite the beginning of both catalogue slots of a pool that nobody uses."""
    layout = PoolImage.parse(image_of(pool_set)).layout
    with open(parts_of(pool_set)[0], "r+b") as file:
        for index in range(SLOT_COUNT):
            file.seek(layout.slot_offset(index))
            file.write(content)


def wait_unlocked(pool_set: Path, timeout: float = 30.0) -> float:
    """Wait until no process has the pool; return how long that took."""
    begun = time.monotonic()
    for part in parts_of(pool_set):
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() - begun > timeout:
                        raise TimeoutError(f"{part} is still locked") from None
                    time.sleep(0.001)
        finally:
            os.close(descriptor)
    return time.monotonic() - begun


class ImageMedium:
    """An image as a catalogue is read from it; it cannot be written."""

    def __init__(self, image: bytes) -> None:
        self._image = image

    def load(self, offset: int, length: int) -> bytes:
        """Return bytes of the image."""
        return self._image[offset : offset + length]


@dataclass
class PoolImage:
    """A pool as it lies on a medium.

    Parameters
    ----------
    image : bytes
        All of it.
    layout, record, catalogue
        What stands in it; reading them raises `CatalogueCorrupt` when it cannot be read.
    """

    image: bytes
    layout: Layout
    record: CopyRecord
    catalogue: Catalogue

    @classmethod
    def parse(cls, image: bytes) -> PoolImage:
        """Read superblock and catalogue of an image."""
        layout = Layout.unpack(image[LAYOUT_OFFSET : LAYOUT_OFFSET + LAYOUT_SIZE])
        record = record_in(image)
        if record is None:
            raise CatalogueCorrupt("there is no record")
        medium: Any = ImageMedium(image)
        return cls(image, layout, record, Catalogue.read(medium, layout))

    def arrays(self) -> dict[str, NDArray[np.uint64]]:
        """Return the words of every array that the catalogue names."""
        return {
            name: np.frombuffer(self.image, np.uint64, entry.length // 8, entry.offset)
            for name, entry in self.catalogue.entries.items()
        }
