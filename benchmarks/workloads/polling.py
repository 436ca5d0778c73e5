"""The cost of polling, of sleeping and of the mixture, in latency and CPU time."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.room import Setting
from benchmarks.workloads.persist import KIB, say


def polling(plan: Plan) -> Iterator[Contest]:
    """spin: both sides poll; sleep: neither does; auto: poll for a while, then sleep."""
    for size in [64] if plan.quick else [64, 4 * KIB, 64 * KIB]:
        contestants = [
            Contestant(f"rpmem low, {mode}", "low", Job("persist", size), Setting(polling=mode))
            for mode in ("spin", "auto", "sleep")
        ]
        contestants += [
            Contestant(f"raw inline, {mode}", "raw", Job("inline", size), Setting(polling=mode))
            for mode in ("spin", "sleep")
        ]
        contestants += [
            Contestant(f"TCP, {mode}", "tcp", Job("send", size), Setting(polling=mode))
            for mode in ("spin", "sleep")
        ]
        yield Contest("polling", size, f"persist {say(size)}, polling and sleeping", contestants)
