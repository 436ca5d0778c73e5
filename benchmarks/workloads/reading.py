"""Reading from the target's pool."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.room import MIB, Setting
from benchmarks.workloads.persist import KIB, say


def read(plan: Plan) -> Iterator[Contest]:
    """Read into memory that is registered if the fabric needs that."""
    sizes = [4 * KIB, MIB] if plan.quick else [64, 4 * KIB, 64 * KIB, MIB, 16 * MIB]
    setting = Setting()
    for size in sizes:
        contestants = [
            Contestant("rpmem low", "low", Job("read", size), setting),
            Contestant("raw read", "raw", Job("read", size), setting),
            Contestant("librpmem", "pmdk", Job("read", size), setting),
        ]
        yield Contest("read", size, f"read {say(size)}", contestants)
