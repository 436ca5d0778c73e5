"""Latency by the size of the pool: it should not grow."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.room import MIB, Setting
from benchmarks.workloads.persist import say


def pools(plan: Plan) -> Iterator[Contest]:
    """64 B at 1024 places all over the pool."""
    sizes = [64 * MIB, 1024 * MIB] if plan.quick else [64 * MIB, 256 * MIB, 1024 * MIB, 4096 * MIB]
    contestants = []
    for size in sizes:
        setting = Setting(pool=size)
        # Every place is visited before timing starts, as first touches cost page faults.
        job = Job("persist", 64, count=2048, warmup=2048, span=size - MIB)
        contestants.append(Contestant(say(size), "low", job, setting))
    yield Contest("pools", 64, "persist 64 B anywhere in the pool", contestants)
