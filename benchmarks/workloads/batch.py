"""Many ranges at once: flushes and a drain, and scattered ranges in one call."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job


def flush_drain(plan: Plan) -> Iterator[Contest]:
    """N flushes of 4 KiB, then one drain."""
    for depth in [16] if plan.quick else [1, 4, 16, 64]:
        job = Job("flush-drain", 4096, depth=depth, span=4096 * depth)
        raw = Job("batch-flush", 4096, depth=depth, span=4096 * depth)
        contestants = [
            Contestant("rpmem low", "low", job),
            Contestant("rpmem Pool", "pool", job),
            Contestant("raw writes+send", "raw", raw),
            Contestant("librpmem", "pmdk", job),
        ]
        yield Contest("batch", depth, f"{depth} flushes of 4 KiB and a drain", contestants)


def scattered(plan: Plan) -> Iterator[Contest]:
    """N ranges of 64 B with gaps between them: in one call, and in N calls."""
    for depth in [10, 1000] if plan.quick else [1, 10, 100, 1000, 10000]:
        span = 128 * depth
        many = Job("persist-many", 64, depth=depth, span=span)
        each = Job("persist-each", 64, depth=depth, span=span)
        contestants = [
            Contestant("rpmem low, one call", "low", many),
            Contestant("rpmem low, single calls", "low", each),
        ]
        if depth <= 1000:
            contestants.append(Contestant("librpmem, single calls", "pmdk", each))
        yield Contest("scattered", depth, f"{depth} scattered ranges of 64 B", contestants)
