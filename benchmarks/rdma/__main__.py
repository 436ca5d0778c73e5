"""Measure over RDMA devices and print the figures as one line of JSON, or write the report."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.contest import Arena, Plan
from benchmarks.rdma.contests import SIZES, USUAL, WORKLOADS, contests
from benchmarks.rdma.counting import count_all
from benchmarks.rdma.hosts import Hosts
from benchmarks.rdma.rivals import rivals
from benchmarks.room import Absent, Room

#: Precedes the line of JSON.
MARK = "figures "


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rdma", description=__doc__)
    add = parser.add_argument
    add("--initiator", help="address of the initiator's device (default: the bench's)")
    add("--target", help="address of the target's device")
    add("--enter", default="", help="words that run a command on the target's host")
    add("--device", default="", help="device DAX for the target's pools; its content is lost")
    add("--only", default=",".join(USUAL), help=f"of {','.join(WORKLOADS)}")
    add("--sizes", default=",".join(map(str, SIZES)))
    add("--rounds", type=int, default=5)
    add("--turn", type=float, default=0.03, help="seconds of a turn, about")
    add("--no-counts", action="store_true", help="do not count work requests")
    add("--report", type=Path, metavar="JSON", help="only write the report again")
    add("--page", type=Path, help="where to")
    return parser


def measure(hosts: Hosts, options: argparse.Namespace) -> dict[str, Any]:
    """Hold the contests, then count; return the data."""

    def say(text: str) -> None:
        print(text, flush=True)

    began = time.time()
    plan = Plan(quick=True, rounds=options.rounds, turn=options.turn, patience=0.0)
    medium = "pmem" if hosts.device else "memory"
    sizes = [int(size) for size in options.sizes.split(",")]
    held = list(contests(medium, options.only.split(","), sizes))
    data: dict[str, Any] = {
        "format": 1,
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)),
        "machine": machine.describe(),
        "medium": "device DAX" if hosts.device else "memory",
        "hosts": "two network namespaces" if hosts.enter else "one",
        "turns": {"rounds": plan.rounds, "seconds": plan.turn},
        "contests": [],
        "counts": [],
    }
    # Not pinned: an emulated device works in the kernel, and a polling process would keep that off
    # its processor.
    with Room("verbs", pinned=False) as room:
        arena = Arena(room, plan, rivals(hosts), say)
        data["absent"] = arena.absent
        for name, why in arena.absent.items():
            say(f"without {name}: {why}")
        last = ""
        try:
            for contest in held:
                if contest.workload != last:
                    arena.leave()
                    last = contest.workload
                record = arena.hold(contest)
                if record is not None:
                    data["contests"].append(record)
                    say(f"{contest.title}: {_line(record)}")
        finally:
            arena.leave()
        if not options.no_counts:
            data["counts"] = count_all(held, room, partial(rivals, hosts), say)
    data["seconds"] = time.time() - began
    return data


def _line(record: dict[str, Any]) -> str:
    shown = []
    for key, one in record["contestants"].items():
        middle = sorted(entry["p50"] for entry in one["rounds"])[len(one["rounds"]) // 2]
        shown.append(f"{key} {middle / 1e3:,.1f} us")
    return "; ".join(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or write the report."""
    options = _parser().parse_args(arguments)
    if options.report:
        from benchmarks.rdma import report

        report.write(json.loads(options.report.read_text()), options.page or report.PAGE)
        return 0
    try:
        hosts = (
            Hosts(
                options.initiator, options.target, tuple(shlex.split(options.enter)), options.device
            )
            if options.target
            else Hosts.of_bench()
        )
    except Absent as error:
        print(f"benchmarks.rdma: {error}", file=sys.stderr)
        return 1
    print(MARK + json.dumps(measure(hosts, options)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
