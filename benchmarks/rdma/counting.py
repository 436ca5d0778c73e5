"""Work requests and doorbells of every contestant, counted below its library."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.backends import Backend, Opened
from benchmarks.contest import Contest, Contestant
from benchmarks.driver import DriverLost
from benchmarks.room import Absent, Room, Setting, compiled

#: As in ``raw/count.c``.
NAMES = (
    *("doorbells", "writes", "reads", "sends", "flushes", "words", "others"),
    *("receives", "completions"),
)
_REQUESTS = NAMES[1:7]
#: A multiple of every contestant's number of requests per signalled completion.
_CALLS = 128


@dataclass(frozen=True)
class Counters:
    """The counters of the two sides of a contestant."""

    folder: Path

    def variables(self, side: str) -> dict[str, str]:
        """Return the environment variables that make a process of a side count."""
        library = compiled("count.so", ("count.c",), flags=("-shared", "-fPIC"))
        return {"LD_PRELOAD": str(library), "VERBS_COUNTS": str(self.folder / side)}

    def read(self, side: str) -> dict[str, int]:
        """Return the counts of a side so far."""
        path = self.folder / side
        data = path.read_bytes() if path.exists() else b""
        data = data.ljust(8 * len(NAMES), b"\0")
        return dict(zip(NAMES, struct.unpack(f"={len(NAMES)}Q", data), strict=True))


def per_call(before: dict[str, int], after: dict[str, int], calls: int) -> dict[str, float]:
    """Return the counts per call."""
    each = {name: (after[name] - before[name]) / calls for name in NAMES}
    return {"requests": math.fsum(each[name] for name in _REQUESTS), **each}


def count_all(
    contests: Iterable[Contest],
    room: Room,
    backends: Callable[[Counters], dict[str, Backend]],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Run every job of the contests once more, counted instead of timed."""
    found: list[dict[str, Any]] = []
    for name, group in itertools.groupby(contests, lambda contest: contest.workload):
        started: dict[tuple[str, Setting], tuple[Opened, Counters]] = {}
        try:
            for contest in group:
                for one in contest.contestants:
                    sides = _counted(one, started, room, backends, say)
                    if sides is not None:
                        found.append({"workload": name, "x": contest.x, "key": one.key, **sides})
        finally:
            for opened, _ in started.values():
                opened.close()
    return found


def _counted(
    one: Contestant,
    started: dict[tuple[str, Setting], tuple[Opened, Counters]],
    room: Room,
    backends: Callable[[Counters], dict[str, Backend]],
    say: Callable[[str], None],
) -> dict[str, dict[str, float]] | None:
    """Return the counts per call on both sides; None if the contestant is absent."""
    key = (one.backend, one.setting)
    try:
        if key not in started:
            counters = Counters(room.place("counts"))
            started[key] = backends(counters)[one.backend].open(room, one.setting), counters
        opened, counters = started[key]
        job = replace(one.job, count=_CALLS, warmup=0)
        opened.driver.run(job)
        before = {side: counters.read(side) for side in ("initiator", "target")}
        opened.driver.run(job)
    except (Absent, DriverLost) as error:
        say(f"{one.key}: {error}")
        return None
    return {side: per_call(before[side], counters.read(side), _CALLS) for side in before}
