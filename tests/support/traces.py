"""Things that calls could leave behind in this process: descriptors, threads and children."""

from __future__ import annotations

import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.threads import in_use

_SETTLE = 10.0


@dataclass(frozen=True)
class Traces:
    """What is there at one moment.

    Other tests of the same process may have left something that goes meanwhile. So what is asked
    is always whether there is more than before, never whether it is the same.

    Parameters
    ----------
    descriptors : frozenset of str
        Numbers of open files.
    threads : int
        How many.
    children : frozenset of str
        Process numbers.
    """

    descriptors: frozenset[str]
    threads: int
    children: frozenset[str]

    @classmethod
    def now(cls) -> Traces:
        """Look."""
        gc.collect()
        children: set[str] = set()
        for task in Path("/proc/self/task").iterdir():
            try:
                children.update((task / "children").read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
        return cls(frozenset(os.listdir("/proc/self/fd")), in_use(), frozenset(children))

    def more(self) -> str:
        """Say what there is now and was not then, once threads had time to end; empty: nothing."""
        end = time.monotonic() + _SETTLE
        while (words := self._more()) and time.monotonic() < end:
            time.sleep(0.005)
        return words

    def _more(self) -> str:
        now = Traces.now()
        found = []
        # By their count, too: looking opens one, which may get another number.
        if len(now.descriptors) > len(self.descriptors):
            found.append(f"descriptors {sorted(now.descriptors - self.descriptors)}")
        if now.threads > self.threads:
            found.append(f"threads {threading.enumerate()}")
        if now.children - self.children:
            found.append(f"children {sorted(now.children - self.children)}")
        return ", ".join(found)
