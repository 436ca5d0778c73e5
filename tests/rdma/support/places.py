"""Where a target keeps its pools: a plain disk, an NVDIMM as files, an NVDIMM as a device."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.rdma.support.node import HEADER, MEGABYTE

DEVICE = Path("/dev/dax")


@dataclass(frozen=True)
class Place:
    """One kind of medium.

    Attributes
    ----------
    name : str
    medium : str
        What rpmem calls it.
    pinned : bool
        An RDMA device of this machine can reach it: a fact about the kernel, see `PLACES`.
    folder : str
        Of part files; empty for the device.
    """

    name: str
    medium: str
    pinned: bool
    folder: str

    @contextmanager
    def parts(self, *sizes: int) -> Iterator[list[str]]:
        """Yield the lines of a pool set with parts of these sizes, and clean up."""
        if not self.folder:
            _clear_device()
            yield [f"AUTO {os.path.realpath(DEVICE)}"]
            _clear_device()
            return
        folder = Path(self.folder) / f"parts-{os.getpid()}"
        folder.mkdir()
        try:
            yield [f"{size} {folder}/{number}" for number, size in enumerate(sizes)]
        finally:
            shutil.rmtree(folder)

    def content(self, lines: list[str], size: int) -> bytes:
        """Return the first bytes of the pool's first part as they lie there."""
        path = lines[0].split()[1]
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), _mapped(size)) as view:
            return view[:size]


def _mapped(size: int) -> int:
    # Device DAX maps whole huge pages only.
    return -(-size // (2 * MEGABYTE)) * 2 * MEGABYTE


def _clear_device() -> None:
    with open(DEVICE, "r+b") as file, mmap.mmap(file.fileno(), 2 * MEGABYTE) as view:
        view[:HEADER] = bytes(HEADER)


#: Kernels refuse to pin file memory for remote writing where a file system tracks dirty pages
#: (ext4) or could move blocks meanwhile (fsdax).
PLACES = {
    place.name: place
    for place in (
        Place("disk", "page", False, "/mnt/disk"),
        Place("fsdax", "pmem", False, "/mnt/pmem"),
        Place("devdax", "pmem", True, ""),
        Place("tmpfs", "volatile", True, "/dev/shm"),
    )
}
