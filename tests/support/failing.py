"""Calls that fail on purpose: shared by tests and the processes that load failing_calls.c.

`build` compiles the shim, `environment_of` makes a program load it, and `Control` is the shared
page in which a test sets the call that fails and finds the calls that were made.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("failing_calls.c")

INITIATOR, TARGET, BOTH = 1, 2, 3
SIDES = {"initiator": INITIATOR, "target": TARGET}

_RECORDS = 8192

#: What each kind of call fails with: what a disk, a full one, or a process without room says.
ERRORS: dict[str, tuple[int, ...]] = {
    "open": (errno.EMFILE, errno.EACCES, errno.ENOSPC, errno.ENFILE),
    "write": (errno.ENOSPC, errno.EIO, 0, errno.EDQUOT),
    "fallocate": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "mkdir": (errno.ENOSPC, errno.EACCES),
    "link": (errno.ENOSPC, errno.EIO, errno.EMLINK),
    "rename": (errno.ENOSPC, errno.EIO),
    "unlink": (errno.EIO, errno.EACCES),
    "chmod": (errno.EPERM, errno.EIO),
    "flock": (errno.ENOLCK, errno.EINTR),
    "fcntl-lock": (errno.ENOLCK, errno.EINTR),
    "mmap": (errno.ENOMEM, errno.EACCES),
    "mmap-anonymous": (errno.ENOMEM,),
    "munmap": (errno.ENOMEM,),
    "dup": (errno.EMFILE,),
}
_OTHERWISE = (errno.EIO, errno.ENOSPC)


def errors_of(kind: str) -> tuple[int, ...]:
    """Return the errnos with which a kind of call fails; 0 is a write that writes half."""
    return ERRORS.get(kind, _OTHERWISE)


class _Record(ctypes.Structure):
    _fields_ = (
        ("side", ctypes.c_uint8),
        ("failed", ctypes.c_uint8),
        ("unused", ctypes.c_uint16),
        ("pid", ctypes.c_uint32),
        ("kind", ctypes.c_char * 24),
        ("path", ctypes.c_char * 224),
    )


class _Page(ctypes.Structure):
    _fields_ = (
        ("armed", ctypes.c_uint32),
        ("fail_at", ctypes.c_uint32),
        ("ever_after", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("count", ctypes.c_uint32),
        ("failed", ctypes.c_uint32),
        ("records", ctypes.c_uint32),
        ("page_cache", ctypes.c_uint32),
        ("only", ctypes.c_char * 24),
        ("swallow", ctypes.c_uint32),
        ("unused", ctypes.c_char * 196),
        ("record", _Record * _RECORDS),
    )


@dataclass(frozen=True)
class Call:
    """A call that was made while the control was armed."""

    side: str
    kind: str
    path: str
    failed: bool


class Control:
    """The page that is shared with the shim.

    Parameters
    ----------
    path : Path
        Its file; made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        size = ctypes.sizeof(_Page)
        with open(path, "a+b") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)
        self._page = _Page.from_buffer(self._memory)
        self._page.page_cache = 1

    @contextmanager
    def armed(
        self, sides: int, fail_at: int = 0, error: int = 0, only: str = "", *, swallow: bool = False
    ) -> Iterator[None]:
        """Count the calls of a side, and let number `fail_at` of them fail; 0: none.

        With `swallow` a flush that failed returns as if it had not.
        """
        page = self._page
        page.count = page.failed = page.records = 0
        page.fail_at, page.error, page.swallow = fail_at, error, swallow
        page.only = only.encode()
        page.armed = sides
        try:
            yield
        finally:
            page.armed = 0

    def disarm(self) -> None:
        """Let every further call pass."""
        self._page.armed = 0

    @property
    def failed(self) -> int:
        """How many calls failed."""
        return int(self._page.failed)

    @property
    def calls(self) -> list[Call]:
        """The calls since it was armed, of all processes, in order."""
        names = {number: name for name, number in SIDES.items()}
        count = min(self._page.records, _RECORDS)
        if self._page.records > _RECORDS:
            raise OverflowError("more calls than there is room for")
        return [
            Call(names[each.side], each.kind.decode(), os.fsdecode(each.path), bool(each.failed))
            for each in self._page.record[:count]
        ]


def build(directory: Path) -> Path:
    """Compile the shim into a directory; return the library."""
    library = directory / "failing_calls.so"
    command = ["gcc", "-std=gnu17", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", library, SOURCE, "-ldl", "-pthread"], check=True)
    return library


def environment_of(library: Path, control: Path, under: Path, medium: Path) -> dict[str, str]:
    """Return what to add to the environment of a program whose calls are to fail."""
    return {
        "LD_PRELOAD": str(library),
        "FAILING_CALLS": str(control),
        "FAILING_UNDER": str(under),
        "FAILING_MEDIUM": str(medium),
    }


class DurableFiles:
    """What the shim says a medium would hold.

    Parameters
    ----------
    directory : Path
        The shim's FAILING_MEDIUM.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def take(self, under: Path) -> None:
        """Forget everything, and take all that lies under a directory for durable."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        for path in [under, *under.rglob("*")]:
            if path.is_dir():
                text = "".join(f"{each.inode()} {each.name}\n" for each in os.scandir(path))
                self._of(path, ".names").write_text(text)
            else:
                shutil.copyfile(path, self._of(path))

    def read(self, path: Path) -> bytes:
        """Return the durable bytes of a file; pages that never were are zeros."""
        own = self._of(path)
        content = own.read_bytes() if own.exists() else b""
        return content.ljust(path.stat().st_size, b"\0")

    def names(self, directory: Path) -> set[str]:
        """Return the names in a directory that point durably to the files they point to now."""
        now = {(each.inode(), each.name) for each in os.scandir(directory)}
        return {name for _, name in self._names(directory) & now}

    def come_back(self, directory: Path) -> set[str]:
        """Return the names that a power cut brings back, of files that would count.

        One that has its hidden name as well does not: the next creation clears it away.
        """
        durable = self._names(directory)
        unfinished = {inode for inode, name in durable if name.startswith(".")}
        return {name for inode, name in durable if inode not in unfinished} - {
            each.name for each in os.scandir(directory)
        }

    def _names(self, directory: Path) -> set[tuple[int, str]]:
        own = self._of(directory, ".names")
        lines = own.read_text().splitlines() if own.exists() else []
        pairs = (line.split(" ", 1) for line in lines)
        return {(int(inode), name) for inode, name in pairs}

    def _of(self, path: Path, suffix: str = "") -> Path:
        return self.directory / f"{path.stat().st_ino}{suffix}"
