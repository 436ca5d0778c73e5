"""The figures over RDMA: the comparisons, and the page made from them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from benchmarks.ratios import judge
from benchmarks.rdma import contests, counting


def held(medium: str, p50: float = 1000.0) -> list[dict[str, Any]]:
    """Return the contests as a run in which everybody took equally long leaves them."""
    turn = {"p50": p50, "p99": p50, "wall": 1e6, "waited": 0, "bytes": 64, "n": 1}
    return [
        {
            "workload": one.workload,
            "x": one.x,
            "title": one.title,
            "crowded": True,
            "missing": {},
            "contestants": {
                each.key: {"rounds": [turn] * 3, "hello": {}} for each in one.contestants
            },
        }
        for one in contests.contests(medium, contests.WORKLOADS, contests.SIZES)
    ]


def test_every_ratio_finds_both_sides() -> None:
    for line in contests.RATIOS:
        verdict = judge(line, held("pmem"))
        assert verdict is not None, line
        assert verdict["ratio"] == 1.0


def test_memory_has_no_flush() -> None:
    assert not any(one["workload"] == "flush" for one in held("memory"))


def test_a_workload_starts_one_session_of_ours() -> None:
    # There is one device, and a session takes all of it.
    for name in contests.WORKLOADS:
        sessions = {
            each.setting
            for one in contests.contests("pmem", [name], contests.SIZES)
            for each in one.contestants
            if each.backend == "low"
        }
        assert len(sessions) == 1


def test_counts_are_told_per_call(tmp_path) -> None:
    counters = counting.Counters(tmp_path)
    before = counters.read("initiator")
    assert set(before.values()) == {0}
    numbers = [8, 8, 0, 0, 8, 0, 0, 0, 8]
    (tmp_path / "initiator").write_bytes(struct.pack("=9Q", *numbers))
    each = counting.per_call(before, counters.read("initiator"), 8)
    assert (each["requests"], each["doorbells"], each["flushes"]) == (2, 1, 1)


def test_the_page_says_what_was_not_reached(tmp_path) -> None:
    report = pytest.importorskip("benchmarks.rdma.report", reason="matplotlib is not here")
    every = held("pmem")
    first = every[0]["contestants"]["rpmem"]
    first["rounds"] = [{**turn, "p50": 1200.0} for turn in first["rounds"]]
    side = dict.fromkeys(("requests", *counting.NAMES), 1.0)
    data = {
        "machine": {
            "system": "x",
            "kernel": "7",
            "cpu": "y",
            "cores": 1,
            "verbs_devices": ["rxe_a"],
            "commit": "c",
        },
        "medium": "device DAX",
        "hosts": "one",
        "started": "now",
        "turns": {"rounds": 3, "seconds": 0.1},
        "absent": {},
        "contests": every,
        "counts": [
            {"workload": "flush", "x": x, "key": "rpmem", "initiator": side, "target": side}
            for x in (64, 256)
        ],
        "steady": True,
    }
    page = tmp_path / "page.md"
    report.write(data, page)
    text = page.read_text()
    assert "**1.20**" in text
    assert "46 of 48 are reached" in text
    assert "| rpmem | 64 B, 256 B |" in text
    assert page.with_suffix(".json").exists()
    assert (tmp_path / "images" / "rdma-flush.png").exists()
