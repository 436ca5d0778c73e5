"""What happens to files while the real code runs: stores, flushes, syncs and names, in one order.

Everything lies on a tmpfs below one folder, a machine in each folder of it. The calls of `os` that
change files are wrapped, and every region's flushes end here instead of in `msync`. Before each of
them the files are compared with what they were: what has changed are stores. So an event says that
something became durable, and in between lies what a power cut may keep or lose.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpmem.files.poolfiles import PoolFiles
from rpmem.memory.region import Region
from tests.support.compiled import compiled

Words = NDArray[np.uint64]
Event = tuple[Any, ...]

#: Calls that change names or files; what they changed is found by looking.
_CHANGING = ("open", "link", "symlink", "rename", "replace", "unlink", "remove", "mkdir", "rmdir")
_CHANGING += ("ftruncate", "truncate", "posix_fallocate", "pwrite", "write")
_SYNCING = ("fsync", "fdatasync")


@dataclass
class Inode:
    """A file, however many names it has.

    Parameters
    ----------
    descriptor : int
        Open as long as the recorder, so that its number belongs to nobody else.
    words : ndarray
        What it held when it was last looked at; whole words, zeros behind the end.
    """

    descriptor: int
    size: int = 0
    words: Words = field(default_factory=lambda: np.zeros(0, np.uint64))
    mapped: Any = None


class Recorder:
    """Notes events below a folder while it is active.

    Parameters
    ----------
    root : str
        Has a folder for each machine, and those exist.
    machines : sequence of str
        Their names.
    skips : callable, optional
        ``skips(event)``: a medium that lies; what it skips is not made durable.

    Attributes
    ----------
    events : list of tuple
        ``("store", inode, indices, words)``, ``("size", inode, size)``,
        ``("flush", inode, begin, end, unit)``, ``("later", thread, inode, begin, end, unit)``,
        ``("drain", thread)``, ``("sync", inode)``, ``("name", machine, {name: inode or None})``,
        ``("syncnames", machine)``, ``("mark", text)``.
    inodes : dict
        By number.
    """

    def __init__(
        self,
        root: str,
        machines: Sequence[str],
        *,
        medium: Callable[[str], str] = lambda machine: "page",
        skips: Callable[[Event], bool] = lambda event: False,
    ) -> None:
        self.root = root
        self.machines = tuple(machines)
        self.events: list[Event] = []
        self.inodes: dict[int, Inode] = {}
        self.names: dict[str, dict[str, int]] = {machine: {} for machine in machines}
        self._medium = medium
        self._skips = skips
        self._lock = threading.RLock()
        self._folders = {machine: os.path.join(root, machine) for machine in machines}
        self._homes: dict[int, str] = {}
        self.look()
        #: Where it began: all of it durable.
        self.first_names = {machine: dict(names) for machine, names in self.names.items()}
        self.first_words = {number: inode.words.copy() for number, inode in self.inodes.items()}
        self.first_sizes = {number: inode.size for number, inode in self.inodes.items()}
        self.events.clear()

    # --- looking ----------------------------------------------------------------------------

    def look(self, machine: str | None = None) -> None:
        """Note what has changed, on one machine or on all."""
        with self._lock:
            for name in self.machines if machine is None else (machine,):
                self._look_at_names(name)
                for number, home in self._homes.items():
                    if home == name:
                        self._look_at_content(number)

    def _look_at_names(self, machine: str) -> None:
        found: dict[str, int] = {}
        folder = self._folders[machine]
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    continue
                found[entry.name] = number = entry.inode()
                if number not in self.inodes:
                    descriptor = _OPEN(os.path.join(folder, entry.name), os.O_RDWR | os.O_CLOEXEC)
                    self.inodes[number] = Inode(descriptor)
                    self._homes[number] = machine
        before = self.names[machine]
        if found == before:
            return
        changed: dict[str, int | None] = {
            name: found.get(name)
            for name in {*before, *found}
            if before.get(name) != found.get(name)
        }
        self.names[machine] = found
        self.events.append(("name", machine, changed))

    def _look_at_content(self, number: int) -> None:
        inode = self.inodes[number]
        size = os.fstat(inode.descriptor).st_size
        if size != inode.size:
            words = np.zeros(-(-size // 8), np.uint64)
            kept = min(len(words), len(inode.words))
            words[:kept] = inode.words[:kept]
            inode.words, inode.size = words, size
            inode.mapped = None
            if size % 4096 == 0 and size:
                inode.mapped = np.memmap(f"/proc/self/fd/{inode.descriptor}", np.uint64, "r")
            self.events.append(("size", number, size))
        if inode.mapped is not None:
            now = inode.mapped
        else:
            data = os.pread(inode.descriptor, size, 0)
            now = np.frombuffer(data + bytes(-size % 8), np.uint64)
        (indices,) = np.nonzero(now != inode.words)
        if len(indices):
            values = np.asarray(now[indices])
            inode.words[indices] = values
            self.events.append(("store", number, indices, values))

    # --- what comes from the wrapped calls ----------------------------------------------------

    def changed(self) -> None:
        """Note what a call may have changed."""
        self.look()

    def synced(self, descriptor: int) -> None:
        """Note an fsync that is about to come back."""
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        with self._lock:
            for machine, folder in self._folders.items():
                if path == folder:
                    self.look(machine)
                    self._note(("syncnames", machine))
                    return
            number = os.fstat(descriptor).st_ino
            if number in self._homes and path.startswith(self.root):
                self.look(self._homes[number])
                self._note(("sync", number))

    def mark(self, text: str) -> int:
        """Note where the script is; return how many events there are."""
        with self._lock:
            self.look()
            self.events.append(("mark", text))
            return len(self.events)

    def _note(self, event: Event) -> None:
        if not self._skips(event):
            self.events.append(event)

    # --- regions ------------------------------------------------------------------------------

    def map(self, spans: Sequence[tuple[int, int, int]], **how: Any) -> Region:
        """Map parts so that their flushes are noted; what `PoolFiles.mapper` is meanwhile."""
        region = Region.map_parts(spans, **how)
        numbers = [os.fstat(fd).st_ino for fd, _, _ in spans]
        if not any(number in self._homes for number in numbers):
            with self._lock:
                self.look()
        machine = self._homes.get(numbers[0])
        if machine is None:
            return region
        pieces = []
        start = 0
        for number, (_, file_offset, length) in zip(numbers, spans, strict=True):
            pieces.append((start, start + length, number, file_offset - start))
            start += length
        medium = self._medium(machine)

        def flushed(verb: str, offset: int, length: int) -> int:
            with self._lock:
                self.look(machine)
                if verb == "drain":
                    self._note(("drain", threading.get_ident()))
                for first, end, number, shift in pieces:
                    low, high = max(first, offset), min(end, offset + length)
                    if low < high:
                        self._flushed(verb, medium, number, low + shift, high + shift)
            return 0

        compiled("_hooked_media").hook(region, flushed, medium=medium)
        return region

    def _flushed(self, verb: str, medium: str, number: int, begin: int, end: int) -> None:
        if medium == "pmem":
            if verb == "flush":
                self._note(("later", threading.get_ident(), number, begin, end, 64))
            else:
                self._note(("flush", number, begin, end, 64))
        else:
            self._note(("flush", number, begin, end, 4096))

    def close(self) -> None:
        """Give the descriptors back."""
        for inode in self.inodes.values():
            inode.mapped = None
            os.close(inode.descriptor)
        self.inodes.clear()


# --- the wrapped calls --------------------------------------------------------------------------

_OPEN = os.open
_ORIGINALS = {name: getattr(os, name) for name in (*_CHANGING, *_SYNCING)}


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Let everything that happens in this process be noted."""

    def changing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with recorder._lock:
                recorder.look()
                result = original(*arguments, **named)
                recorder.look()
            return result

        return call

    def opening(original: Callable[..., Any]) -> Callable[..., Any]:
        noted = changing(original)

        def call(path: Any, flags: int, *arguments: Any, **named: Any) -> Any:
            changes = flags & (os.O_CREAT | os.O_TRUNC)
            return (noted if changes else original)(path, flags, *arguments, **named)

        return call

    def writing(original: Callable[..., Any]) -> Callable[..., Any]:
        noted = changing(original)

        def call(descriptor: int, *arguments: Any, **named: Any) -> Any:
            # Sockets and pipes block, and change no file.
            number = os.fstat(descriptor).st_ino
            ours = number in recorder._homes
            return (noted if ours else original)(descriptor, *arguments, **named)

        return call

    def syncing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: int) -> None:
            original(descriptor)
            recorder.synced(descriptor)

        return call

    mapper = PoolFiles.__dict__["mapper"]
    try:
        for name, original in _ORIGINALS.items():
            wrap = opening if name == "open" else writing if name == "write" else changing
            setattr(os, name, (syncing if name in _SYNCING else wrap)(original))
        PoolFiles.mapper = staticmethod(recorder.map)
        yield recorder
    finally:
        PoolFiles.mapper = mapper
        for name, original in _ORIGINALS.items():
            setattr(os, name, original)
