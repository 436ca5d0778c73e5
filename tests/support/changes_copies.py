"""The copies of a pool in a round: where the local one lies, its medium, and the replicas."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from rpmem.base.pool_format import HEADER_SIZE
from rpmem.memory.region import Region
from tests.support.changes_stores import Bytes, libc
from tests.support.compiled import compiled

SIZE = 8 << 20
PARTS = (3 << 20, 6 << 20)
#: Kinds of memory; a file and parts also on a disk.
PLACES = ("file", "parts", "buffer", "disk file", "disk parts", "shared buffer")
_SYNC = 4  # MS_SYNC


@dataclass
class Place:
    """Where the local copy of a pool lies.

    Attributes
    ----------
    local : path or buffer
        What `rpmem.Pool.create` gets.
    size : int or None
        And its size.
    pieces : list of (Path, int, int, int)
        Files of it: path, offset in the file, offset in the pool, length.
    is_shared : bool
        A forked child stores to the same memory.
    """

    local: Any
    size: int | None
    pieces: list[tuple[Path, int, int, int]] = field(default_factory=list)
    is_shared: bool = True

    @classmethod
    def make(cls, kind: str, folder: Path) -> Place:
        """Choose names in a folder, or get memory."""
        if kind == "shared buffer":
            return cls(mmap.mmap(-1, SIZE), None)
        if kind == "buffer":
            # It begins in the middle of a page.
            return cls(np.zeros(SIZE + 4096, np.uint8)[272 : 272 + SIZE], None, is_shared=False)
        path = folder / "pool"
        if kind.endswith("file"):
            return cls(path, SIZE, [(path, 0, 0, SIZE)])
        lines = ["PMEMPOOLSET"]
        pieces = []
        begin = 0
        for index, size in enumerate(PARTS):
            part = folder / f"part{index}"
            lines.append(f"{size} {part}")
            skip = HEADER_SIZE if index else 0
            pieces.append((part, skip, begin, size - skip))
            begin += size - skip
        path.write_text("\n".join(lines) + "\n")
        return cls(path, None, pieces)

    def at(self, offset: int, length: int) -> tuple[Path, int] | None:
        """Return file and offset in it of a range; None if no single file has it."""
        for path, skip, begin, count in self.pieces:
            if begin <= offset and offset + length <= begin + count:
                return path, offset - begin + skip
        return None


class Medium:
    """Stands behind a local copy: keeps what was made durable, and refuses when it is told to.

    Parameters
    ----------
    region : Region
        The local copy; nobody flushes it meanwhile.
    real : bool
        Flush its pages as well, as the kernel does it for files.
    """

    def __init__(self, region: Region, *, real: bool) -> None:
        self.refusing = 0
        self._real = real
        self._address = region.address
        # No view of the region, which could not be closed.
        self._memory: Bytes = np.ctypeslib.as_array(
            (ctypes.c_uint8 * region.size).from_address(region.address)
        )
        self.durable: Bytes = self._memory.copy()
        compiled("_hooked_media").hook(region, self.call)

    def call(self, verb: str, offset: int, length: int) -> int:
        """Make a range durable, or return the errno with which that is refused."""
        if self.refusing:
            return self.refusing
        self.durable[offset : offset + length] = self._memory[offset : offset + length]
        if self._real:
            begin = (self._address + offset) & -4096
            end = self._address + offset + length
            libc.msync(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _SYNC)
        return 0


class Node:
    """A directory that stands for a target.

    Parameters
    ----------
    directory : Path
        Made here.

    Attributes
    ----------
    joins : int
        How often it was attached.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.spec = f"local:{directory} r.set"
        self.joins = 0
        self._view: Bytes | None = None

    @property
    def view(self) -> Bytes:
        """What the replica holds durably, now."""
        if self._view is None:
            (part,) = self.directory.glob("r.set.part0")
            self._view = np.memmap(part, np.uint8, "r")
        return self._view

    def replica(self, pool: rpmem.Pool) -> rpmem.Replica:
        """Return the pool's replica that lies here."""
        (found,) = [each for each in pool.replicas if str(each.target) == f"local:{self.directory}"]
        return found
