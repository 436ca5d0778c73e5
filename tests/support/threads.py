"""How many threads there are, as tests that look for leaks count them."""

from __future__ import annotations

import threading

from rpmem.base import workers


def in_use() -> int:
    """Count the threads, but not one that waits for the main thread's next call."""
    return threading.active_count() - len(workers._idle)
