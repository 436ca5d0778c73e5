"""Common alternatives. Their guarantees differ; the report explains how."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.room import MIB, Setting
from benchmarks.workloads.persist import KIB, say


def instead(plan: Plan) -> Iterator[Contest]:
    """Store data and have it copied elsewhere, or written to a disk."""
    for size in [4 * KIB] if plan.quick else [64, 4 * KIB, 64 * KIB, MIB]:
        contestants = [
            Contestant("rpmem Pool", "pool", Job("persist-array", size)),
            Contestant("Redis SET+WAIT", "redis", Job("set-wait", size)),
            Contestant("msync to disk", "msync", Job("msync", size)),
        ]
        yield Contest("instead", size, f"{say(size)} made safe", contestants)
    # One call takes as long as a hundred thousand calls of the others.
    rsync = Contestant("rsync", "rsync", Job("sync", 4 * KIB, count=2), Setting())
    ours = Contestant("rpmem Pool", "pool", Job("persist-array", 4 * KIB))
    title = "4 KiB changed in a file of 64 MiB"
    yield Contest("rsync", 4 * KIB, title, [ours, rsync], rounds=2, crowded=True)
