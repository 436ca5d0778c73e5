"""The ratios to reach: which contestants they compare, and whether they were reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import statistics
from benchmarks.contest import is_disturbed
from benchmarks.room import MIB

Contest = dict[str, Any]


@dataclass(frozen=True)
class Ratio:
    """One line of the table.

    Attributes
    ----------
    what, reference : str
        The two sides, as text.
    workload, x : str, number
        The contest.
    ours : str
        Key of our contestant.
    against : str or list of str
        Keys of the reference; if several, the fastest counts.
    reach : float or None
        The ratio to reach; None: only reported.
    at_least : bool
        Reached if the ratio is at least `reach`, instead of at most.
    value : function
        Takes the compared value from a round's entry.
    floor : str, optional
        Key of the raw contestant that does the same as ours: the best that is possible.
    """

    what: str
    reference: str
    workload: str
    x: float
    ours: str
    against: str | Sequence[str]
    reach: float | None
    at_least: bool = False
    value: str = "p50"
    floor: str | None = None


def p50(entry: dict[str, Any]) -> float:
    """Return the median of a round."""
    return float(entry["p50"])


def p99(entry: dict[str, Any]) -> float:
    """Return the 99th percentile of a round."""
    return float(entry["p99"])


def bandwidth(entry: dict[str, Any]) -> float:
    """Return bytes per nanosecond, over all turns of the round."""
    return float(entry["bytes"]) / float(entry["wall"])


def rate(entry: dict[str, Any]) -> float:
    """Return operations per second."""
    return 1e9 * float(entry["n"]) / float(entry["wall"])


VALUES: dict[str, Callable[[dict[str, Any]], float]] = {
    "p50": p50,
    "p99": p99,
    "bandwidth": bandwidth,
    "rate": rate,
}

_64K = 64 << 10
RATIOS = (
    *(
        Ratio(
            f"persist {name}, send-after-write",
            "raw C, inline SEND + reply",
            *("persist", x, "rpmem low", "raw inline", 1.15),
        )
        for x, name in ((64, "64 B"), (4096, "4 KiB"))
    ),
    *(
        Ratio(
            f"persist {name}, commit step{tail}",
            "raw C, WRITE + DELIVERY_COMPLETE",
            *("commit", x, "rpmem low", "raw delivery", reach),
            value=value,
            floor="raw commit",
        )
        for value, tail, reach in (("p50", "", 1.10), ("p99", ", p99", 1.5))
        for x, name in ((64, "64 B"), (4096, "4 KiB"), (_64K, "64 KiB"))
    ),
    *(
        Ratio(
            f"persist {name}, send-after-write",
            "librpmem over sockets",
            *("persist", x, "rpmem low", "librpmem", 0.2),
        )
        for x, name in ((64, "64 B"), (4096, "4 KiB"))
    ),
    *(
        Ratio(
            f"persist {name}, read-after-write",
            "librpmem over sockets",
            *("read-after-write", x, "rpmem low", "librpmem APM", 0.4),
            floor="raw delivery",
        )
        for x, name in ((64, "64 B"), (4096, "4 KiB"))
    ),
    *(
        Ratio(
            f"persist {name}, strict",
            "our relaxed",
            *("persist", x, "rpmem low", "rpmem low, relaxed", 1.3),
        )
        for x, name in ((MIB, "1 MiB"), (16 * MIB, "16 MiB"))
    ),
    *(
        Ratio(
            f"persist {name}, bandwidth",
            reference,
            *("bandwidth", x, "rpmem low, relaxed", key, reach),
            at_least=True,
            value="bandwidth",
        )
        for reference, key, reach in (
            ("raw C, WRITE in a pipelined loop", ["raw stream", "raw pieces"], 0.95),
            ("librpmem", "librpmem, relaxed", 1.2),
        )
        for x, name in ((16 * MIB, "16 MiB"), (64 * MIB, "64 MiB"))
    ),
    Ratio(
        "16 flushes of 4 KiB and a drain", "librpmem", "batch", 16, "rpmem low", "librpmem", 0.08
    ),
    Ratio(
        "persist_many of 1,000 ranges of 64 B",
        "1,000 single persists",
        *("scattered", 1000, "rpmem low, one call", "rpmem low, single calls", 0.05),
    ),
    Ratio("read 1 MiB", "raw C READ", "read", MIB, "rpmem low", "raw read", 1.1),
    Ratio("read 1 MiB", "librpmem", "read", MIB, "rpmem low", "librpmem", 0.3),
    *(
        Ratio(f"{what} over ssh", "librpmem", "life", number, "rpmem low", "librpmem", 0.6)
        for number, what in enumerate(("create", "open", "remove"))
    ),
    *(
        Ratio(
            f"persist 64 B, {count} threads, operations per second",
            "librpmem's own",
            *("threads", count, "rpmem low", "librpmem", 3.0),
            at_least=True,
            value="rate",
        )
        for count in (2, 4)
    ),
    *(
        Ratio(
            f"persist 64 B, pool of {name}",
            "pool of 64 MiB",
            *("pools", 64, name, "64 MiB", 1.05),
        )
        for name in ("1 GiB", "4 GiB")
    ),
    Ratio("persist 64 B, 2 replicas", "1 replica", "replicas", 64, "2 replicas", "1 replica", None),
    Ratio("persist 64 B, 3 replicas", "1 replica", "replicas", 64, "3 replicas", "1 replica", None),
    Ratio(
        "persist 64 B, blocking on both sides",
        "raw C, blocking",
        *("polling", 64, "rpmem low, sleep", "raw inline, sleep", 1.2),
    ),
)


def calm_rounds(contest: Contest, keys: Sequence[str]) -> tuple[list[int], bool]:
    """Return the rounds in which none of these contestants had to wait.

    If fewer than three are left, or in a crowded contest, all rounds count; the second value tells
    whether that includes disturbed rounds.
    """
    entries = [contest["contestants"][key]["rounds"] for key in keys]
    every = list(range(min(len(rounds) for rounds in entries)))
    if contest.get("crowded"):
        return every, False
    calm = [i for i in every if not any(is_disturbed(rounds[i]) for rounds in entries)]
    return (calm, False) if len(calm) >= 3 else (every, True)


def values(contest: Contest, key: str, value: str, rounds: Sequence[int]) -> list[float]:
    """Return a contestant's value in these rounds."""
    entries = contest["contestants"][key]["rounds"]
    return [VALUES[value](entries[i]) for i in rounds]


def judge(line: Ratio, contests: Sequence[Contest]) -> dict[str, Any] | None:
    """Return the result for a ratio; None if one of the two was absent."""
    contest = next(
        (c for c in contests if c["workload"] == line.workload and c["x"] == line.x), None
    )
    if contest is None:
        return None
    there = contest["contestants"]
    against = [line.against] if isinstance(line.against, str) else list(line.against)
    against = [key for key in against if key in there]
    if line.ours not in there or not against:
        return None
    rounds, disturbed = calm_rounds(contest, [line.ours, *against])
    better = max if line.at_least else min
    best = better(
        against, key=lambda key: statistics.median(values(contest, key, line.value, rounds))
    )
    ours = values(contest, line.ours, line.value, rounds)
    reference = values(contest, best, line.value, rounds)
    found, low, high = statistics.ratio(ours, reference)
    floor = None
    if line.floor in there:
        entries = there[line.floor]["rounds"]
        shared = [number for number in rounds if number < len(entries)]
        same = values(contest, line.floor, line.value, shared)
        floor = statistics.ratio(same, values(contest, best, line.value, shared))[0]
    reached = None
    if line.reach is not None:
        reached = found >= line.reach if line.at_least else found <= line.reach
    return {
        "ratio": found,
        "low": low,
        "high": high,
        "ours": statistics.median(ours),
        "reference": statistics.median(reference),
        "rounds": len(rounds),
        "disturbed": disturbed,
        "reached": reached,
        "floor": floor,
    }
