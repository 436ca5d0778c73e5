"""Holding a long transfer back to so many bytes in a second.

A transfer reports what it has done after each piece, and goes on when the report returns: so a
report that takes its time is all that is needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from rpmem.base import interrupts
from rpmem.pool.progress import CHUNK, Progress

#: Pieces are not smaller: each costs a round trip.
_SMALLEST: Final = 1 << 20
#: Pieces are done in about so many seconds.
_PIECE_S: Final = 0.25


class Paced:
    """Passes reports on, and returns when the bytes that they name were due.

    Bytes count once they are sent, read or compared, of all replicas together. Time in which less
    was done is not made up for.

    Parameters
    ----------
    progress : callable
        Takes the reports.
    bytes_per_s : int
        The most bytes in a second.
    now_s, sleep : callable
        As in `time`.

    Attributes
    ----------
    chunk : int
        Bytes that are to be done between two reports.
    """

    def __init__(
        self,
        progress: Progress,
        bytes_per_s: int,
        *,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        blocks = int(bytes_per_s * _PIECE_S) // _SMALLEST
        self.chunk = min(max(blocks, 1) * _SMALLEST, CHUNK)
        self._progress = progress
        self._bytes_per_s = bytes_per_s
        self._now_s = now_s
        self._sleep = sleep
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._seen_s = now_s()
        self._due_s = self._seen_s

    def __call__(self, done_bytes: int, total_bytes: int, what: str) -> None:
        """Take a report, from whichever thread."""
        self._progress(done_bytes, total_bytes, what)
        with self._lock:
            more = done_bytes - self._done.get(what, 0)
            self._done[what] = done_bytes
            self._due_s = max(self._due_s, self._seen_s) + max(more, 0) / self._bytes_per_s
            due_s, self._seen_s = self._due_s, self._now_s()
        while (left_s := due_s - self._now_s()) > 0:
            interrupts.check()
            self._sleep(min(left_s, interrupts.SLICE_S))
