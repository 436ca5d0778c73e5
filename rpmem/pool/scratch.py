"""Memory for what several copies have of the same range."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rpmem.pool.verification import LOCAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rpmem.memory.region import Region


class Scratch:
    """Memory for the bytes of each copy, which is kept from one use to the next.

    Parameters
    ----------
    size : int
        Bytes for each copy, at first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._regions: list[Region] = []

    def of(self, number: int, length: int) -> Region:
        """Return memory for at least so many bytes of a copy."""
        from rpmem.memory.region import Region

        regions, index = self._regions, number - LOCAL
        while len(regions) <= index:
            regions.append(Region.anonymous(self._size))
        if regions[index].size < length:
            regions[index] = Region.anonymous(length)
        return regions[index]

    def contents(self, replicas: int, length: int) -> list[NDArray[np.uint8]]:
        """Return what was put there, of the local copy and so many replicas."""
        return [
            np.frombuffer(memoryview(self.of(number, length))[:length], np.uint8).copy()
            for number in range(LOCAL, replicas)
        ]
