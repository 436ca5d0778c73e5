"""Every way in which a thread stores to an array, and what each thread knows to have stored.

Threads share pages and never bytes: in the first part of the array each has a stripe of every page,
behind it a stretch of its own, then a page of its own that has one of two contents, and the rest is
for what happens while the threads wait.
"""

from __future__ import annotations

import ctypes
import os
import random
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

PAGE = 4096
SHARED = 2 << 20
OWN = 256 << 10
TOGGLED = 8 * PAGE
#: What comes after the threads' stretches has more than this: a whole block of 2 MiB, wherever it
#: begins.
REST = 4 << 20
_SOURCE = 1 << 20
_BUSY_PAGES = 6
# So few different contents that a page often gets back what it had.
_FEW = (0, 5000, 70_001)

libc = ctypes.CDLL(None, use_errno=True)
for _name in ("memcpy", "memmove"):
    getattr(libc, _name).argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Source:
    """The bytes that are stored: the same in memory and in a file.

    Parameters
    ----------
    path : Path
        The file; made here.
    """

    def __init__(self, path: Path) -> None:
        self.content = np.random.default_rng(1).integers(0, 256, _SOURCE, np.uint8)
        path.write_bytes(self.content.tobytes())
        self.file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with its user
        self.address = self.content.ctypes.data

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Memory:
    """An array to store to, and what should be in it.

    Parameters
    ----------
    array : ndarray of uint8
        Of `length(writers)` bytes.
    writers : int
        How many threads have bytes of their own.
    """

    def __init__(self, array: Bytes, writers: int) -> None:
        self.array = array
        self.expected: Bytes = array.copy()
        self.address = array.ctypes.data
        self.writers = writers
        # On the grid of pages, so that a stripe and its page are where they are meant to be.
        self.first = -self.address % PAGE
        self.toggled = self.first + SHARED + writers * OWN
        self.rest = self.toggled + TOGGLED

    @staticmethod
    def length(writers: int) -> int:
        """Return how many bytes an array needs."""
        return PAGE + SHARED + writers * OWN + TOGGLED + REST + PAGE

    def own(self, number: int, rng: random.Random) -> tuple[int, int]:
        """Return a range (offset, length) of bytes that a thread alone stores to."""
        if rng.random() < 0.75:
            stripe = PAGE // self.writers
            pages = _BUSY_PAGES if rng.random() < 0.4 else SHARED // PAGE
            begin = self.first + rng.randrange(pages) * PAGE + number * stripe
            length = rng.choice((1, 8, 64, stripe))
            return begin + rng.randrange(stripe - length + 1), length
        begin = self.first + SHARED + number * OWN
        length = rng.choice((1, PAGE, 3 * PAGE + 17, 64 << 10))
        return begin + rng.randrange(OWN - length + 1), length

    def toggle(self, number: int, value: int) -> Bytes:
        """Fill a thread's own page with a value, and return it."""
        begin = self.toggled + number * PAGE
        self.array[begin : begin + PAGE] = value
        self.expected[begin : begin + PAGE] = value
        return self.array[begin : begin + PAGE]

    def wrong(self) -> str:
        """Say where the array is not what the threads stored; empty: nowhere."""
        return difference(self.array, self.expected)


class Stores:
    """The stores of one thread.

    Parameters
    ----------
    memory : Memory
        To which.
    source : Source
        What.
    counts : Counter
        How often each way was gone.
    """

    def __init__(self, memory: Memory, source: Source, counts: Counter[str]) -> None:
        self._memory = memory
        self._source = source
        self._counts = counts
        self._pair = socket.socketpair()
        self._ways: tuple[Callable[[int, int, int], None], ...] = (
            self._element,
            self._slice,
            self._strided,
            self._memoryview,
            self._ctypes_memmove,
            self._memcpy,
            self._readinto,
            self._preadv,
            self._receive,
        )

    @staticmethod
    def ways() -> set[str]:
        """Return the names of all ways."""
        return {
            "element", "slice", "strided", "memoryview", "ctypes_memmove", "memcpy", "readinto",
            "preadv", "receive",
        }  # fmt: skip

    def close(self) -> None:
        """Close the sockets."""
        for each in self._pair:
            each.close()

    def store(self, number: int, rng: random.Random) -> None:
        """Store once, as one of the threads."""
        at, length = self._memory.own(number, rng)
        begin = rng.choice(_FEW) if rng.random() < 0.5 else rng.randrange(_SOURCE - length)
        self.put(at, length, begin, rng)

    def put(self, at: int, length: int, begin: int, rng: random.Random) -> None:
        """Store bytes of the source, in any way."""
        way = rng.choice(self._ways)
        way(at, length, begin)
        self._counts[f"store {way.__name__[1:]}"] += 1

    def _element(self, at: int, length: int, begin: int) -> None:
        value = self._source.content[begin]
        self._memory.array[at] = value
        self._memory.expected[at] = value

    def _slice(self, at: int, length: int, begin: int) -> None:
        self._memory.array[at : at + length] = self._source.content[begin : begin + length]
        self._expect(at, length, begin)

    def _strided(self, at: int, length: int, begin: int) -> None:
        taken = self._source.content[begin : begin + length : 3]
        self._memory.array[at : at + length : 3] = taken
        self._memory.expected[at : at + length : 3] = taken

    def _memoryview(self, at: int, length: int, begin: int) -> None:
        with memoryview(self._memory.array) as view:
            view[at : at + length] = memoryview(self._source.content)[begin : begin + length]
        self._expect(at, length, begin)

    def _ctypes_memmove(self, at: int, length: int, begin: int) -> None:
        ctypes.memmove(self._memory.address + at, self._source.address + begin, length)
        self._expect(at, length, begin)

    def _memcpy(self, at: int, length: int, begin: int) -> None:
        libc.memcpy(self._memory.address + at, self._source.address + begin, length)
        self._expect(at, length, begin)

    def _readinto(self, at: int, length: int, begin: int) -> None:
        with open(self._source.file.name, "rb", buffering=0) as file:
            file.seek(begin)
            done = file.readinto(self._memory.array[at : at + length])
        assert done == length
        self._expect(at, length, begin)

    def _preadv(self, at: int, length: int, begin: int) -> None:
        with memoryview(self._memory.array) as view:
            middle = at + length // 2
            pieces = [view[at:middle], view[middle : at + length]]
            assert os.preadv(self._source.file.fileno(), pieces, begin) == length
        self._expect(at, length, begin)

    def _receive(self, at: int, length: int, begin: int) -> None:
        # No more than fits into a socket, as nobody else is there to take it out.
        for done in range(0, length, PAGE):
            count = min(PAGE, length - done)
            self._pair[0].sendall(self._source.content[begin + done :][:count])
            with memoryview(self._memory.array) as view:
                got = self._pair[1].recv_into(view[at + done :], count, socket.MSG_WAITALL)
            assert got == count
        self._expect(at, length, begin)

    def _expect(self, at: int, length: int, begin: int) -> None:
        self._memory.expected[at : at + length] = self._source.content[begin : begin + length]


def difference(found: Bytes, expected: Bytes) -> str:
    """Say where two arrays of bytes differ; empty: nowhere."""
    if len(found) != len(expected):
        return f"{len(found)} bytes instead of {len(expected)}"
    if np.array_equal(found, expected):
        return ""
    at = np.flatnonzero(found != expected)
    pages = np.unique(at // PAGE)
    return (
        f"{len(at)} bytes differ in {len(pages)} pages, the first {int(at[0])}: "
        f"{found[at[0]]} instead of {expected[at[0]]}; pages {pages[:8].tolist()}"
    )
