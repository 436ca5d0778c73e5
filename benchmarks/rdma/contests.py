"""The contests: contestants that do the same, by step and by size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.contest import Contest, Contestant
from benchmarks.driver import Job
from benchmarks.ratios import Ratio
from benchmarks.rdma.hosts import POOL
from benchmarks.room import Setting
from benchmarks.workloads.persist import KIB, say

SIZES = (64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB)
_RAW, _RPMA = "raw C", "librpma"
#: perftest starts two processes for every turn.
_PERFTEST = {"rounds": 5}
_ITERATIONS = 200

_TITLES = {
    "flush": "WRITE + FLUSH",
    "read-after-write": "WRITE + READ",
    "strict": "data in a message, stored, flushed and answered",
    "relaxed": "strict or not, stored, flushed and answered by the target",
    "read": "read",
    "perftest": "beside perftest",
}


def _members(name: str, size: int, medium: str) -> Sequence[Contestant]:
    def one(key: str, backend: str, op: str, step: str = "auto", count: int = 1) -> Contestant:
        setting = Setting(pool=POOL, medium=medium, step=step)
        return Contestant(key, backend, Job(op, size, count=count), setting)

    def all_three(ours: str, theirs: str, step: str) -> list[Contestant]:
        return [
            one("rpmem", "low", ours, step),
            one(_RAW, "verbs", theirs),
            one(_RPMA, "librpma", theirs),
        ]

    message = "send-after-write"
    if name == "flush":
        return all_three("persist-relaxed", "write-flush", "flush")
    if name == "read-after-write":
        return all_three("persist-relaxed", "write-read", "read-after-write")
    if name == "strict":
        return all_three("persist", "send-data", message)
    if name == "relaxed":
        return [
            one("rpmem", "low", "persist-relaxed", message),
            one(f"{_RAW}, WRITE + SEND", "verbs", "write-send"),
            one(f"{_RAW}, data in SEND", "verbs", "send-data"),
            one(f"{_RPMA}, WRITE + SEND", "librpma", "write-send"),
            one(f"{_RPMA}, data in SEND", "librpma", "send-data"),
        ]
    if name == "read":
        return all_three("read", "read", message)
    step, op = ("flush", "write-flush") if medium == "pmem" else ("read-after-write", "write-read")
    return [
        one("rpmem, persist", "low", "persist-relaxed", step),
        one("rpmem, read", "low", "read", step),
        one(f"{_RAW}, persist", "verbs", op),
        one("ib_write_lat", "perftest", "write-lat", count=_ITERATIONS),
        one("ib_read_lat", "perftest", "read-lat", count=_ITERATIONS),
    ]


def contests(medium: str, wanted: Sequence[str], sizes: Sequence[int]) -> Iterator[Contest]:
    """Yield the contests of the requested workloads.

    The processors are shared with the devices' own work, so it is normal for a contestant to wait
    for one: every round counts.
    """
    for name in wanted:
        if name == "flush" and medium != "pmem":
            continue
        for size in sizes:
            yield Contest(
                name,
                size,
                f"{_TITLES[name]}, {say(size)}",
                _members(name, size, medium),
                crowded=True,
                rounds=_PERFTEST["rounds"] if name == "perftest" else None,
            )


WORKLOADS = tuple(_TITLES)
#: All except the one that needs a processor for each side.
USUAL = WORKLOADS[:-1]


#: librpma's own ways to persist, for which rpmem must not be slower. For others the ratio is only
#: reported: librpma has none that keeps words whole, and reading is not persisting.
_LIBRPMA_PERSISTS = ("flush", "read-after-write", "relaxed")


def _ratios() -> Iterator[Ratio]:
    for name in USUAL:
        for size in SIZES:
            raw, rpma = [_RAW], [_RPMA]
            if name == "relaxed":
                raw = [f"{_RAW}, WRITE + SEND", f"{_RAW}, data in SEND"]
                rpma = [f"{_RPMA}, WRITE + SEND"]
            yield Ratio(name, _RAW, name, size, "rpmem", raw, 1.1)
            reach = 1.0 if name in _LIBRPMA_PERSISTS else None
            yield Ratio(name, _RPMA, name, size, "rpmem", rpma, reach)
    for size in SIZES:
        for ours, theirs in (("persist", "ib_write_lat"), ("read", "ib_read_lat")):
            yield Ratio(ours, theirs, "perftest", size, f"rpmem, {ours}", theirs, None)


#: Ours to the reference's, as medians of turns; of several references, the fastest counts.
RATIOS = tuple(_ratios())
