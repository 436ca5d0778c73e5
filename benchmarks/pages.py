"""Changed pages found by C code alone: what `Pool.persist` is measured against."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.room import Absent, compiled

PAGE = 4096
#: Where struct tcp_info of linux/tcp.h has ``tcpi_bytes_sent``.
_BYTES_SENT = 200

Bytes = NDArray[np.uint8]


@functools.cache
def _library() -> ctypes.CDLL:
    flags = ["-shared", "-fPIC", "-O3"]
    # Of what processors have, xxh3 is fastest with this, AVX-512 included.
    if " avx2 " in Path("/proc/cpuinfo").read_text():
        flags += ["-mavx2"]
    library = ctypes.CDLL(str(compiled("changes.so", ("changes.c",), flags=tuple(flags))))
    address, number = ctypes.c_void_p, ctypes.c_uint64
    library.changes_watch.argtypes = (address, number)
    library.changes_split.argtypes = (address, number)
    library.changes_take.argtypes = (address, number, number, address, address, number)
    library.changes_take.restype = ctypes.c_int64
    library.changes_digests.argtypes = (address, number, address, ctypes.c_uint)
    library.changes_digests.restype = ctypes.c_int64
    return library


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


class Written:
    """The pages of a mapping that were written, as the kernel tells.

    Parameters
    ----------
    memory : ndarray of uint8
        Whole pages of one mapping.
    base : int
        Where ranges begin to count.
    split : bool
        Let no page be mapped, and so be reported, with its neighbours.

    Raises
    ------
    Absent
        This kernel cannot tell (before Linux 6.7), or there is no compiler or xxhash.h.
    """

    def __init__(self, memory: Bytes, base: int = 0, *, split: bool = True) -> None:
        self._memory = memory
        library = _library()
        room = memory.size // PAGE + 1
        self._ranges = np.empty((room, 2), np.uint64)
        self._regions = np.empty((room, 3), np.uint64)
        where = (memory.ctypes.data, memory.size)
        self._fd = -1
        try:
            if split:
                _checked(library.changes_split(*where))
            self._fd = _checked(library.changes_watch(*where))
            buffers = (self._ranges.ctypes.data, self._regions.ctypes.data)
            self._take = functools.partial(library.changes_take, *where, base, *buffers, room)
            self.take()
        except OSError as error:
            self.close()
            raise Absent(f"the kernel does not tell which pages were written: {error}") from error

    def take(self) -> NDArray[np.uint64]:
        """Return offsets and lengths of what was written since the last call, until the next."""
        return self._ranges[: _checked(self._take())]

    def close(self) -> None:
        """Let all pages be written again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Written:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Digests:
    """A digest for every page of some memory, and nothing else: the bare xxh3 of 128 bits."""

    def __init__(self, memory: Bytes, threads: int) -> None:
        self._memory = memory
        self._digests = np.zeros((memory.size // PAGE, 2), np.uint64)
        self._compare = functools.partial(
            _library().changes_digests,
            *(memory.ctypes.data, memory.size // PAGE, self._digests.ctypes.data, threads),
        )
        self.changed()

    def changed(self) -> int:
        """Return how many pages have another digest than at the last call."""
        return _checked(self._compare())


def sent() -> int:
    """Return what this process has sent on its open TCP connections, in bytes."""
    return sum(_sent_on(Path("/proc/self/fd", name)) for name in os.listdir("/proc/self/fd"))


def _sent_on(link: Path) -> int:
    if not link.exists() or not link.is_socket():
        return 0  # what listed the directory is gone
    with socket.fromfd(int(link.name), -1, -1) as there:
        if there.type != socket.SOCK_STREAM or there.family not in (
            socket.AF_INET,
            socket.AF_INET6,
        ):
            return 0
        told = there.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_SENT + 8)
        found: tuple[int] = struct.unpack_from("=Q", told, _BYTES_SENT)
        return found[0]


def reported_for(path: str | os.PathLike[str], pages: NDArray[np.int64], skip: int) -> int:
    """Return how many pages count as written if these of a file are, after all were read.

    Each gets the byte that it begins with. `skip` bytes of the file come before the first page.
    """
    with open(path, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapping:
        # The memory must be let go of before the mapping is.
        return _reported(np.frombuffer(mapping, np.uint8), skip + pages * PAGE)


def _reported(memory: Bytes, places: NDArray[np.int64]) -> int:
    memory[::PAGE].sum()  # mapped now, in the largest pieces that are possible
    with Written(memory, split=False) as written:
        memory[places] = memory[places]
        return int(written.take()[:, 1].sum()) // PAGE


def read_anew(path: str | os.PathLike[str]) -> None:
    """Have the system forget a file and read it in one go, in folios as large as it likes."""
    with open(path, "rb", buffering=0) as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        piece: Any = bytearray(1 << 22)
        while stream.readinto(piece):
            pass
