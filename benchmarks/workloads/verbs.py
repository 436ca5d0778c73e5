"""Comparison with libraries that use RDMA devices directly."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.backends.verbs_device import device
from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.workloads.persist import KIB, say


def verbs(plan: Plan) -> Iterator[Contest]:
    """WRITE + flush in librpma, perftest's WRITE, and ours over the chosen provider."""
    if device() is None:
        return
    for size in [64, 4 * KIB] if plan.quick else [8, 64, 512, 4 * KIB, 64 * KIB]:
        contestants = [
            Contestant("rpmem low", "low", Job("persist", size)),
            Contestant("rpmem low, relaxed", "low", Job("persist-relaxed", size)),
            Contestant("raw write+read", "raw", Job("write-read", size)),
            Contestant("librpma write+flush", "librpma", Job("write-flush", size)),
            Contestant("ib_write_lat", "perftest", Job("write-lat", size, count=100, warmup=10)),
        ]
        yield Contest("verbs", size, f"persist {say(size)}, verbs", contestants)
