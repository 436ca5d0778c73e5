"""Descriptors reserved in advance, to be available when they are needed.

Code that promises something for which it will need descriptors takes them now: a shortage becomes
apparent before the promise, and the rest of the process cannot use them up meanwhile.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["Spare"]


class Spare:
    """A number of placeholder descriptors, open until they are given away.

    Parameters
    ----------
    count : int

    Raises
    ------
    OSError
        There are not enough; then none is kept.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        try:
            self._fill()
        except OSError:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._held)

    def give(self, count: int = 1) -> None:
        """Free `count` of them for other uses, or as many as there are."""
        for _ in range(min(count, len(self._held))):
            os.close(self._held.pop())

    def refill(self) -> None:
        """Take back those given away, as far as they are free again."""
        with suppress(OSError):
            self._fill()

    def close(self) -> None:
        """Free all of them for good. Idempotent."""
        self._count = 0
        self.give(len(self._held))

    def _fill(self) -> None:
        while len(self._held) < self._count:
            self._held.append(os.dup(self._held[0]) if self._held else os.eventfd(0))
