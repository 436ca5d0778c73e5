"""Several replicas at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.room import Setting
from benchmarks.workloads.persist import KIB, say


def replicas(plan: Plan) -> Iterator[Contest]:
    """1, 2 and 3 targets on this machine, which share its processors."""
    for size in [64] if plan.quick else [64, 4 * KIB, 64 * KIB]:
        contestants = []
        for count in (1, 2, 3):
            crowded = count + 1 > len(os.sched_getaffinity(0))
            setting = Setting(replicas=count, polling="auto" if crowded else "spin")
            job = Job("persist", size)
            name = f"{count} replica{'s' if count > 1 else ''}"
            contestants.append(Contestant(name, "pool", job, setting))
        title = f"persist {say(size)} to 1, 2, 3 replicas"
        yield Contest("replicas", size, title, contestants, crowded=True)
