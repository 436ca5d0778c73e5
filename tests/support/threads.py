"""How many threads there are, as tests that look for leaks count them."""

from __future__ import annotations

import os

from rpmem.base import workers


def in_use() -> int:
    """Count the threads, but not one that waits for the main thread's next call."""
    # Python does not know of one before it has begun, nor of one that other code started.
    return len(os.listdir("/proc/self/task")) - len(workers._idle)
