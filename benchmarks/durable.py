"""64 B safe on two media: ``python -m benchmarks.durable FOLDER [--root SYSTEM] [--quick]``.

`Pool.persist` of 64 B, the local pool and its target in files of an ordinary file system (ext4,
xfs), takes turns with Redis: `SET` of 64 B, then `WAITAOF 1 1 0`, the server and its replica both
with `appendfsync always`, in files of the same file system. So both acknowledge when two copies
would survive a power cut. Nobody is pinned, and both have their own defaults. The floor is what two
processes take that only write 64 B in place and `fdatasync`, at the same time; one is told over TCP
and answers.

With ``--root``, redis-server is that of another system (Redis 8 of Debian 13, made by debootstrap),
entered by chroot, and FOLDER has to be inside of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import statistics
from benchmarks.backends import Backend
from benchmarks.backends.ours_pool import OursPool
from benchmarks.backends.redis import DurableRedis
from benchmarks.backends.synced import Synced
from benchmarks.contest import Arena, Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.machine import describe
from benchmarks.room import Room, Setting

_SIZE = 64
_REDIS = "Redis, SET + WAITAOF"
#: Our ways to carry the bytes, which are none of the question: nearly all is the medium's.
_OURS = {
    "rpmem, TCP": Setting(polling="auto", over="tcp", encryption="off"),
    "rpmem, TLS": Setting(polling="auto", over="tcp", encryption="on"),
    "rpmem, local": Setting(polling="auto", over="pair"),
}
_FLOOR = "write and fdatasync"


def contest() -> Contest:
    """Return who takes part."""
    ours = [
        Contestant(name, "pool", Job("persist-array", _SIZE), setting)
        for name, setting in _OURS.items()
    ]
    redis = Contestant(_REDIS, "redis-durable", Job("set-waitaof", _SIZE))
    floor = Contestant(_FLOOR, "synced", Job("send", _SIZE))
    return Contest("durable", _SIZE, "64 B on two media", [*ours, redis, floor], crowded=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if Redis was ahead, or somebody was missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="on the file system in question")
    parser.add_argument("--root", type=Path, help="a system that has redis-server")
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--json", type=Path, help="where everything that was measured goes")
    given = parser.parse_args(arguments)
    backends: dict[str, Backend] = {
        "pool": OursPool(),
        "redis-durable": DurableRedis(given.root),
        "synced": Synced(),
    }
    plan = Plan(given.quick, 5 if given.quick else 31, turn=0.5)
    with Room(provider="stream", pinned=False, parent=given.folder.resolve()) as room:
        arena = Arena(room, plan, backends, print)
        try:
            entry = arena.hold(contest())
        finally:
            arena.leave()
    if given.json:
        given.json.write_text(json.dumps({"machine": describe(), "contests": [entry]}))
    if entry is None or _REDIS not in entry["contestants"]:
        print(f"not measured: {entry['missing'] if entry else 'nobody could take part'}")
        return 1
    return show(entry["contestants"])


def show(found: dict) -> int:
    """Print a line for each; return 1 if one of ours is behind Redis."""
    middle = {
        name: [each["p50"] / 1e3 for each in record["rounds"]] for name, record in found.items()
    }
    behind = False
    print(f"{'64 B on two media':22} {'p50, us':>9} {'to Redis':>9}  95 %")
    for name, mine in middle.items():
        ratio, low, high = statistics.ratio(mine, middle[_REDIS])
        behind |= name in _OURS and ratio >= 1.0
        print(
            f"{name:22} {statistics.median(mine):9.1f} {ratio:9.2f}  {low:.2f} - {high:.2f}",
            flush=True,
        )
    return int(behind)


if __name__ == "__main__":
    raise SystemExit(main())
