"""The benchmarks' own arithmetic, and one small contest between C programs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import ratios, statistics
from benchmarks.contest import Arena, Contest, Contestant, Plan
from benchmarks.driver import Driver, DriverLost, Job
from benchmarks.jobs import PLACES, Order
from benchmarks.room import Absent, Room, Setting, compiled, source_tree


def entry(p50: float, *, waited: float = 0, wall: float = 1e6, n: int = 100) -> dict[str, Any]:
    """Return what a turn leaves in the JSON."""
    tail = {"min": p50, "p99": 2 * p50, "p999": 3 * p50, "max": 4 * p50, "mad": 0.0}
    return {
        "n": n,
        "p50": p50,
        **tail,
        "wall": wall,
        "bytes": 64 * n,
        "processor": wall,
        "waited": waited,
    }


def contest(**rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a contest of the workload that the ratios look for first."""
    records = {}
    for name, entries in rounds.items():
        key = name.replace("_", " ")
        records[key] = {
            "backend": "x",
            "job": {"count": 100},
            "setting": {},
            "hello": {},
            "rounds": entries,
            "all": entries[0],
            "quantiles": [float(q) for q in range(1, len(statistics.QUANTILES) + 1)],
        }
    return {
        "workload": "persist",
        "x": 64,
        "title": "persist 64 B, send-after-write",
        "measure": "latency",
        "crowded": False,
        "load": {"foreign": 0.1, "stolen": 0.0, "loadavg": 1.0},
        "missing": {"librpmem": "make peers brings it"},
        "contestants": records,
    }


FIRST = ratios.RATIOS[0]
MACHINE = (
    *("cpu", "cores", "virtual", "memory", "system", "kernel", "libfabric", "libpmem2"),
    *("python", "congestion_control", "commit"),
)


def test_a_job_arrives_as_it_was_sent() -> None:
    job = Job("persist", 4096, count=7, warmup=2, threads=3, depth=5, chunk=1 << 16, span=1 << 20)
    order = Order.parse(job.line())
    assert (order.op, order.size, order.count, order.warmup) == ("persist", 4096, 7, 2)
    assert (order.threads, order.depth, order.chunk, order.span) == (3, 5, 1 << 16, 1 << 20)


@given(
    size=st.integers(1, 1 << 20),
    spread=st.integers(0, 1 << 31),
    thread=st.integers(0, 7),
)
def test_places_stay_in_the_threads_own_span(size: int, spread: int, thread: int) -> None:
    order = Order.parse(Job("persist", size, span=spread).line())
    places = order.places(thread, 4096)
    assert 1 <= len(places) <= 2 * PLACES
    assert min(places) == 4096 + thread * order.span
    assert max(places) + size <= 4096 + (thread + 1) * order.span


def test_ratios_compare_round_with_round() -> None:
    # the machine halves its speed in the second round; the ratio does not notice
    assert statistics.ratio([10, 20, 10], [8, 16, 8])[0] == pytest.approx(1.25)


def test_an_interval_holds_the_median_and_shrinks_with_agreement() -> None:
    low, high = statistics.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert low <= 3.0 <= high
    assert low < high
    assert statistics.interval([2.0] * 9) == (2.0, 2.0)


def test_a_ratio_is_reached_or_not() -> None:
    good = contest(rpmem_low=[entry(9)] * 5, raw_inline=[entry(8)] * 5)
    bad = contest(rpmem_low=[entry(12)] * 5, raw_inline=[entry(8)] * 5)
    for data, reached in ((good, True), (bad, False)):
        verdict = ratios.judge(FIRST, [data])
        assert verdict is not None
        assert verdict["reached"] is reached
        assert verdict["disturbed"] is False


def test_what_was_not_reached_is_told_beside_its_floor() -> None:
    line = replace(FIRST, floor="raw commit")
    data = contest(rpmem_low=[entry(12)] * 5, raw_inline=[entry(8)] * 5, raw_commit=[entry(10)] * 5)
    verdict = ratios.judge(line, [data])
    assert verdict is not None
    assert verdict["reached"] is False
    assert verdict["floor"] == pytest.approx(1.25)
    assert ratios.judge(FIRST, [data])["floor"] is None


def test_disturbed_rounds_are_left_out_where_enough_others_remain() -> None:
    noisy = [entry(9), entry(900, waited=5e5), entry(9), entry(9)]
    data = contest(rpmem_low=noisy, raw_inline=[entry(8)] * 4)
    verdict = ratios.judge(FIRST, [data])
    assert verdict is not None
    assert (verdict["rounds"], verdict["disturbed"]) == (3, False)
    data = contest(rpmem_low=noisy[:2], raw_inline=[entry(8)] * 2)
    verdict = ratios.judge(FIRST, [data])
    assert verdict is not None
    assert (verdict["rounds"], verdict["disturbed"]) == (2, True)


def test_a_ratio_without_its_reference_is_not_judged() -> None:
    assert ratios.judge(FIRST, [contest(rpmem_low=[entry(9)] * 5)]) is None
    assert ratios.judge(FIRST, []) is None


def test_the_report_is_made_from_the_json_alone(tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib draws the report (make bench brings it)")
    from benchmarks import report

    data = {
        "format": 1,
        "mode": "quick",
        "started": "2026-01-01 00:00 UTC",
        "seconds": 1.0,
        "provider": "tcp",
        "pinned": True,
        "absent": {"perftest": "no verbs device"},
        "machine": dict.fromkeys(MACHINE, "x"),
        "figures": [{"name": "a call", "value": 10.0, "values": [10.0], "unit": "ns", "limit": 5}],
        "contests": [contest(rpmem_low=[entry(12)] * 5, raw_inline=[entry(8)] * 5)],
    }
    for name in ("one", "two"):
        # what the first page was made from is enough for the second
        report.write(data, tmp_path / name / "page.md")
        data = json.loads((tmp_path / name / "page.json").read_text())
    one, two = (tmp_path / name for name in ("one", "two"))
    page = (one / "page.md").read_text()
    assert page == (two / "page.md").read_text()
    assert "0 of 1 are reached" in page
    assert "**not reached**" in page
    assert "Without librpmem: make peers brings it." in page
    pictures = sorted(path.name for path in (one / "images").iterdir())
    assert pictures == sorted(path.name for path in (two / "images").iterdir())
    for picture in pictures:
        assert picture in page
        assert (one / "images" / picture).read_bytes() == (two / "images" / picture).read_bytes()


def test_a_contestant_that_ends_is_reported_with_its_last_words(tmp_path) -> None:
    program = "import sys; print('{}', flush=True); input(); sys.exit('out of memory')"
    driver = Driver([sys.executable, "-c", program], tmp_path / "log")
    with pytest.raises(DriverLost, match="out of memory"):
        driver.run(Job("persist", 64))
    driver.close()


def test_c_programs_hold_a_contest() -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the raw references")
    from benchmarks.backends.raw_libfabric import RawLibfabric
    from benchmarks.backends.raw_tcp import RawTcp

    with Room() as room:
        try:
            RawLibfabric().absent(room)
            compiled("raw_sockets", ("sockets.c",))
        except Absent as why:
            pytest.skip(f"the raw references cannot be built here: {why}")
        plan = Plan(quick=True, rounds=2, turn=0.001, patience=0.0, samples=True)
        arena = Arena(room, plan, {"raw": RawLibfabric(), "tcp": RawTcp()})
        setting = Setting(pool=8 << 20)
        contestants = [
            Contestant(op, "raw", Job(op, 4096, count=20, depth=4), setting)
            for op in ("inline", "write-delivery", "write-send", "batch-flush", "read", "stream")
        ]
        contestants.append(Contestant("send", "tcp", Job("send", 4096, count=20), setting))
        contestants.append(Contestant("absent", "nobody", Job("x", 1)))
        record = arena.hold(Contest("persist", 4096, "a test", contestants))
        arena.leave()
    assert record is not None
    assert record["missing"] == {"absent": "not asked for"}
    for one in contestants[:-1]:
        rounds = record["contestants"][one.key]["rounds"]
        assert len(rounds) == 2
        assert all(turn["n"] == 20 and turn["bytes"] >= 20 * 4096 for turn in rounds)
        assert all(len(samples) == 20 for samples in record["contestants"][one.key]["samples"])


def test_python_contestants_answer_like_the_others(tmp_path) -> None:
    program = (
        "from benchmarks.jobs import serve_calls\n"
        "serve_calls({'hello': 1}, lambda order: [(len, [('ab',)])] * order.threads)\n"
    )
    driver = Driver([sys.executable, "-c", program], tmp_path / "log", source_tree())
    try:
        samples = driver.run(Job("nothing", 8, count=10, warmup=1, threads=2))
    finally:
        driver.close()
    assert samples.nanoseconds.shape == (20,)
    assert samples.bytes == 160
    assert samples.wall >= int(np.max(samples.nanoseconds))


def test_the_command_line_says_what_there_is() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib draws the report (make bench brings it)")
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", **source_tree()},
        timeout=100,
    )
    assert "persist, commit" in shown.stdout
    assert "raw C, libfabric" in shown.stdout
