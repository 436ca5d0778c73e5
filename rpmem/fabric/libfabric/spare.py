"""Descriptors put by, so that there are some when they are needed.

Whoever promises something that takes descriptors later takes them now: if there are too few, that
is known before the promise, and nobody else in the process can use them up meanwhile.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["Spare"]


class Spare:
    """So many descriptors, open and of no use, until they are given away.

    Parameters
    ----------
    count : int

    Raises
    ------
    OSError
        There are not so many; none is kept then.
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
        """Let others have `count` of them, or as many as there are."""
        for _ in range(min(count, len(self._held))):
            os.close(self._held.pop())

    def refill(self) -> None:
        """Take back what was given, as far as it is free again."""
        with suppress(OSError):
            self._fill()

    def close(self) -> None:
        """Give all of them back for good. Idempotent."""
        self._count = 0
        self.give(len(self._held))

    def _fill(self) -> None:
        while len(self._held) < self._count:
            self._held.append(os.dup(self._held[0]) if self._held else os.eventfd(0))
