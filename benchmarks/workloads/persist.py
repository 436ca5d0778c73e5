"""One range made durable on one target, by size and by durability step."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.backends.raw_libfabric import INLINE_LIMIT
from benchmarks.contest import Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.room import MIB, Setting

KIB = 1 << 10
#: The size of the pieces of a WRITE with which the raw reference is fastest here; larger ones do
#: not stay in the processors' caches between the two copies.
PIECE = 512 * KIB


def say(size: int) -> str:
    """Return a size in readable form."""
    for unit, name in ((1 << 30, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def by_size(plan: Plan) -> Iterator[Contest]:
    """send-after-write: the step that works everywhere."""
    sizes = [64, 4 * KIB, 64 * KIB, MIB, 16 * MIB]
    if not plan.quick:
        sizes = [8, 64, 512, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB]
        sizes.append(64 * MIB)
    setting = Setting(pool=2 * max(sizes) + 16 * MIB)
    for size in sizes:
        contestants = [
            Contestant("rpmem low", "low", Job("persist", size), setting),
            Contestant("rpmem Pool", "pool", Job("persist-array", size), setting),
        ]
        if size <= INLINE_LIMIT:
            contestants.append(Contestant("raw inline", "raw", Job("inline", size), setting))
        if size >= 64 * KIB:
            job = Job("write-send", size)
            relaxed = Job("persist-relaxed", size)
            contestants.append(Contestant("raw write+send", "raw", job, setting))
            contestants.append(Contestant("rpmem low, relaxed", "low", relaxed, setting))
        contestants.append(Contestant("librpmem", "pmdk", Job("persist", size), setting))
        if size <= 64 * MIB:
            contestants.append(Contestant("TCP ping-pong", "tcp", Job("send", size), setting))
        yield Contest("persist", size, f"persist {say(size)}, send-after-write", contestants)


def commit(plan: Plan) -> Iterator[Contest]:
    """Use the commit step, treating the target's pool as persistent memory."""
    sizes = [64, 4 * KIB, 64 * KIB]
    if not plan.quick:
        sizes = [8, 64, 512, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB]
    setting = Setting(medium="pmem", step="commit")
    raw = Setting(medium="pmem")
    for size in sizes:
        contestants = [
            # strict data goes through a message with any step; relaxed data uses the step
            Contestant("rpmem low", "low", Job("persist-relaxed", size), setting),
            Contestant("raw delivery", "raw", Job("write-delivery", size), raw),
            Contestant("raw commit", "raw", Job("write-commit", size), raw),
        ]
        yield Contest("commit", size, f"persist {say(size)}, commit step", contestants)


def read_after_write(plan: Plan) -> Iterator[Contest]:
    """Use read-after-write (PMDK's APM), treating the target's pool as persistent memory."""
    sizes = [64, 4 * KIB] if plan.quick else [8, 64, 512, 4 * KIB, 16 * KIB, 64 * KIB]
    setting = Setting(medium="pmem", step="read-after-write")
    raw = Setting(medium="pmem")
    for size in sizes:
        contestants = [
            Contestant("rpmem low", "low", Job("persist-relaxed", size), setting),
            Contestant("raw write+read", "raw", Job("write-read", size), raw),
            Contestant("raw delivery", "raw", Job("write-delivery", size), raw),
            Contestant("librpmem APM", "pmdk", Job("persist", size), setting),
        ]
        title = f"persist {say(size)}, read-after-write"
        yield Contest("read-after-write", size, title, contestants)


def bandwidth(plan: Plan) -> Iterator[Contest]:
    """Large ranges: bytes per second."""
    sizes = [16 * MIB] if plan.quick else [MIB, 4 * MIB, 16 * MIB, 64 * MIB]
    setting = Setting(pool=2 * max(sizes) + 16 * MIB)
    for size in sizes:
        stream = Job("stream", size, depth=4, chunk=PIECE)
        pieces = Job("write-chunks", size, chunk=PIECE)
        contestants = [
            Contestant("rpmem low, relaxed", "low", Job("persist-relaxed", size), setting),
            Contestant("rpmem low, strict", "low", Job("persist", size), setting),
            Contestant("raw stream", "raw", stream, setting),
            Contestant("raw pieces", "raw", pieces, setting),
            Contestant("librpmem, relaxed", "pmdk", Job("persist-relaxed", size), setting),
        ]
        title = f"persist {say(size)}, bandwidth"
        turn = max(plan.turn, 6e-10 * size)
        yield Contest("bandwidth", size, title, contestants, "bandwidth", turn=turn)
