"""Several threads, each on its own lane."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.room import Setting


def threads(plan: Plan) -> Iterator[Contest]:
    """64 B from N threads at once; what counts is operations per second."""
    for count in [1, 2, 4] if plan.quick else [1, 2, 3, 4, 6, 8]:
        # With more pollers than processors the two sides would starve each other.
        crowded = 2 * count > len(os.sched_getaffinity(0))
        setting = Setting(lanes=count, polling="auto" if crowded else "spin")
        job = Job("persist", 64, threads=count, span=4096)
        raw = Job("inline", 64, threads=count, span=4096)
        contestants = [
            Contestant("rpmem low", "low", job, setting),
            Contestant("raw inline", "raw", raw, setting),
            Contestant("librpmem", "pmdk", job, setting),
        ]
        title = f"persist 64 B, {count} thread{'s' if count > 1 else ''}"
        yield Contest("threads", count, title, contestants, "rate", crowded=crowded)
