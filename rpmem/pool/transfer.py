"""Reading back from a replica: into a new array, or into the local copy itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rpmem.pool.progress import CHUNK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.memory.region import Region

#: Reads from a replica at a pool offset into a buffer.
Read = Callable[["memoryview | NDArray[Any]", int], None]

#: Makes a range of the pool durable on every copy.
Persist = Callable[[int, int], None]


def copy_of(x: Any, ranges: list[tuple[int, int]], region: Region, read: Read) -> NDArray[Any]:
    """Return the replica's content in the place of `x`.

    Parameters
    ----------
    x : array, buffer or (offset, length)
        In the pool.
    ranges : list of (int, int)
        The pool ranges of `x`.
    region : Region
        The local copy.
    read : callable
        Reads from the replica.

    Returns
    -------
    ndarray
        With the shape and dtype of `x`; bytes if `x` is a pair.
    """
    if isinstance(x, tuple | list):
        ((offset, length),) = ranges or [(0, 0)]
        raw = np.empty(length, dtype=np.uint8)
        read(raw, offset)
        return raw
    array = np.asarray(x)
    if not ranges:
        return np.empty_like(array)
    # The same bytes at the same distances, so that the strides of x apply.
    low, high = np.lib.array_utils.byte_bounds(array)
    window = np.empty(high - low, dtype=np.uint8)
    first = low - region.address
    for offset, length in ranges:
        read(window[offset - first : offset - first + length], offset)
    begin = array.__array_interface__["data"][0] - low
    return np.ndarray(array.shape, array.dtype, window, begin, array.strides).copy()


def into_place(ranges: list[tuple[int, int]], region: Region, read: Read, persist: Persist) -> None:
    """Overwrite ranges of the local copy with a replica's content, durably on every copy.

    Parameters
    ----------
    ranges : list of (int, int)
        In the data area.
    region : Region
        The local copy.
    read : callable
        Reads from the replica.
    persist : callable
        Makes a range durable on all copies.

    Notes
    -----
    It works piece by piece: if one fails, those before it are the same on every copy, and what it
    has overwritten counts as written but not persisted.
    """
    with memoryview(region) as view:
        for offset, length in ranges:
            for begin in range(offset, offset + length, CHUNK):
                count = min(CHUNK, offset + length - begin)
                with view[begin : begin + count] as piece:
                    read(piece, begin)
                persist(begin, count)


class RemoteSource:
    """A replica as its catalogue is read: implements `rpmem.pool.catalogue.medium.Source`.

    Parameters
    ----------
    read : callable
        Reads from the replica.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    def load(self, offset: int, length: int) -> bytes:
        """Return bytes that the replica holds."""
        content = bytearray(length)
        for begin in range(0, length, CHUNK):
            with memoryview(content) as view, view[begin : begin + CHUNK] as piece:
                self._read(piece, offset + begin)
        return bytes(content)
