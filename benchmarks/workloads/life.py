"""The life cycle, started by the system's ssh through a real server on loopback."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.room import Setting


def life(plan: Plan) -> Iterator[Contest]:
    """Create, open and remove a pool of 64 MiB."""
    rounds = 3 if plan.quick else 11
    for number, what in enumerate(("create", "open", "remove")):
        job = Job(what, 0, count=2, warmup=0)
        contestants = [
            Contestant("rpmem low", "low", job, Setting(ssh=True)),
            Contestant("librpmem", "pmdk", job, Setting(ssh=True)),
        ]
        title = f"{what} over ssh"
        yield Contest("life", number, title, contestants, rounds=rounds, crowded=True)
