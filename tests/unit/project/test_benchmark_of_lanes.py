"""The benchmark of lanes: its verdicts, its rows, and its reference in C."""

from __future__ import annotations

import pytest

from benchmarks import lanes
from benchmarks.backends.floor import Floor
from benchmarks.contest import Plan
from benchmarks.driver import Job
from benchmarks.room import Absent, Room, Setting


def rounds(p50, p99=20.0, processor=10.0):
    """Return what three rounds leave, all alike; microseconds."""
    entry = {"p50": p50 * 1e3, "p99": p99 * 1e3, "processor": processor * 1e5, "n": 100}
    return [{**entry, "bytes": 64 * 100, "wall": p50 * 1e5}] * 3


@pytest.mark.parametrize(
    ("bound", "ours", "floor", "good"),
    [
        (lanes._SLOWER, rounds(8.1), rounds(7.0), True),
        (lanes._SLOWER, rounds(8.3), rounds(7.0), False),
        (lanes._p50_at_most(1.2), rounds(11.9), rounds(10.0), True),
        (lanes._p50_at_most(1.2), rounds(12.1), rounds(10.0), False),
        (lanes._TAIL, rounds(8.0, 29.0), rounds(7.0, 20.0), True),
        (lanes._TAIL, rounds(8.0, 31.0), rounds(7.0, 20.0), False),
        (lanes._RATE, rounds(10.4), rounds(10.0), True),
        (lanes._RATE, rounds(10.6), rounds(10.0), False),
    ],
)
def test_a_bound_is_reached_or_not(bound, ours, floor, good):
    assert lanes.verdict(bound, ours, floor)[1] is good


def test_processor_time_may_grow_as_the_latency_does():
    bound = next(
        each
        for row in lanes.rows("stream")
        if row.title == "64 B, pair"
        for each in row.bounds
        if each.of_latency
    )
    assert lanes.verdict(bound, rounds(3.0, processor=14), rounds(2.0, processor=10))[1] is True
    assert lanes.verdict(bound, rounds(3.0, processor=16), rounds(2.0, processor=10))[1] is False


def test_the_fastest_floor_counts():
    row = next(iter(lanes.rows("stream")))
    found = {
        "ours": {"rounds": rounds(1)},
        "slow": {"rounds": rounds(9)},
        "C": {"rounds": rounds(8)},
    }
    assert lanes._fastest(row, found) == "C"
    assert lanes._fastest(row, {"ours": found["ours"]}) is None


def test_rows_are_those_of_the_table():
    own = [row.title for row in lanes.rows("stream")]
    assert len(own) == len(set(own))
    for part in ("64 B, tcp", "64 KiB, pair, relaxed", "64 KiB, TLS", "64 MiB, tcp", "3 replicas"):
        assert any(part in title for title in own), part
    others = [row.title for row in lanes.rows("tcp")]
    assert not any("TLS" in title or "pair" in title for title in others)


def test_a_quick_run_counts_less():
    row = next(iter(lanes.rows("stream")))
    quick, long = (row.contest(Plan(each, 3, 1.0)) for each in (True, False))
    assert quick.contestants[0].job.count < long.contestants[0].job.count == 2000


@pytest.mark.parametrize("over", ["tcp", "pair"])
@pytest.mark.parametrize("tls", ["", "socket", "memory"])
@pytest.mark.parametrize(("way", "replicas"), [("yield", 1), ("block", 1), ("yield50", 2)])
def test_the_floor_in_c_answers(over, tls, way, replicas):
    floor = Floor(over, tls, way, way)
    with Room(pinned=False) as room:
        try:
            opened = floor.open(room, Setting(replicas=replicas))
        except Absent as why:
            pytest.skip(str(why))
        try:
            for job in (Job("send", 64, 20), Job("send", 200_000, 3), Job("pipeline", 1 << 20, 4)):
                samples = opened.driver.run(job)
                assert len(samples.nanoseconds) == job.count
                assert samples.bytes == job.size * job.count
                assert samples.processor > 0
        finally:
            opened.close()
