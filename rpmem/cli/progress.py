"""How far a long transfer has come: a bar on a terminal, lines in the log elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rpmem.base.handles import Closing
from rpmem.terminal.tables import readable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger("rpmem")

#: What takes less needs no bar.
PATIENCE_S = 2.0


class Shown(Closing):
    """Shows the progress that `rpmem.Pool.open` and its like report; use it in a ``with`` block.

    Parameters
    ----------
    clock : callable
        Seconds, as `time.monotonic`.
    terminal : bool, optional
        Whether stderr is one; None: found out.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, terminal: bool | None = None
    ) -> None:
        self._clock = clock
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._lock = threading.Lock()
        self._begun: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = None
        self._over = False

    def __call__(self, done_bytes: int, total_bytes: int, what: str) -> None:
        """Take a report, from whichever thread."""
        with self._lock:
            if self._over:
                return  # of a call that was interrupted
            now = self._clock()
            begun = self._begun.setdefault(what, now)
            if now - begun < PATIENCE_S:
                return
            if self._terminal:
                self._draw(done_bytes, total_bytes, what)
            elif now - self._told.get(what, begun) >= PATIENCE_S:
                self._told[what] = now
                log.info("%s: %s of %s", what, readable(done_bytes), readable(total_bytes))

    def _draw(self, done_bytes: int, total_bytes: int, what: str) -> None:
        if self._progress is None:
            self._progress = _bars()
            self._progress.start()
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total_bytes)
        self._progress.update(self._bars[what], completed=done_bytes)

    def close(self) -> None:
        """Take the bars away."""
        with self._lock:
            self._over = True
            progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False, emoji=False, markup=False),
        transient=True,
    )
