"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import compileall
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import costs, machine, ratios, report
from benchmarks.backends import Backend, all_backends, reason
from benchmarks.contest import Arena, Plan
from benchmarks.room import BUILD, PROJECT, Absent, Room
from benchmarks.workloads import WORKLOADS

# Many short turns: on a machine with other work, most of them are undisturbed.
QUICK = Plan(quick=True, rounds=9, turn=0.004, patience=2.5)
FULL = Plan(quick=False, rounds=31, turn=0.015, patience=30.0, samples=True)
FIGURES = "costs"
_console = Console(highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure rpmem beside its rivals and write docs/benchmarks.md.",
    )
    parser.add_argument("--full", action="store_true", help="all sizes, many rounds (about 30 min)")
    parser.add_argument("--only", default="", metavar="A,B", help="these workloads (--list)")
    parser.add_argument("--without", default="", metavar="A,B", help="leave out these rivals")
    parser.add_argument("--rounds", type=int, help="rounds of each contest")
    parser.add_argument(
        "--patience", type=float, help="seconds for which a contest's disturbed rounds are repeated"
    )
    parser.add_argument("--provider", default="tcp", help="libfabric provider (default: tcp)")
    parser.add_argument(
        "--no-pin", action="store_true", help="let the system choose the processors"
    )
    parser.add_argument("--json", type=Path, help="where the raw data go (build/benchmarks)")
    parser.add_argument("--samples", action="store_true", help="keep every sample in the raw data")
    parser.add_argument(
        "--page",
        type=Path,
        help="where the report goes (docs/benchmarks.md; with --only build/benchmarks/report.md)",
    )
    parser.add_argument("--report", type=Path, metavar="JSON", help="only write the report again")
    parser.add_argument("--list", action="store_true", help="say what there is to measure")
    return parser


def _names(text: str, known: Sequence[str], what: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise SystemExit(f"benchmarks: no {what} {name!r}; there are {', '.join(known)}")
    return names


def _figures(room: Room, backends: dict[str, Backend]) -> list[dict[str, Any]]:
    """Take the measurements that are not contests."""
    found: list[dict[str, Any]] = []
    parts: list[Callable[[], list[dict[str, Any]]]] = [
        lambda: costs.overhead(room),
        lambda: costs.starting(room),
        lambda: costs.idle(room),
    ]
    if "low" in backends:
        parts.append(lambda: costs.memory_per_pool(room, backends["low"]))
    for part in parts:
        try:
            found += part()
        except Absent as why:
            _console.print(f"  {escape(str(why))}", style="yellow")
    return found


def _line(record: dict[str, Any]) -> str:
    lines = []
    for key, one in record["contestants"].items():
        rounds, _ = ratios.calm_rounds(record, [key])
        value = {"latency": "p50", "bandwidth": "bandwidth", "rate": "rate"}[record["measure"]]
        middle = ratios.statistics.median(ratios.values(record, key, value, rounds))
        shown = {
            "p50": f"{middle / 1e3:,.1f} us" if middle < 1e7 else f"{middle / 1e6:,.0f} ms",
            "bandwidth": f"{middle:.2f} GB/s",
            "rate": f"{middle / 1e3:,.1f} k/s",
        }[value]
        del one
        lines.append(f"{key} {shown}")
    return "; ".join(lines)


def _hold_all(
    arena: Arena,
    room: Room,
    plan: Plan,
    wanted: Sequence[str],
    data: dict[str, Any],
    backends: dict[str, Backend],
) -> None:
    """Fill in the figures and the contests."""
    if FIGURES in wanted:
        _console.print("[bold]costs[/]")
        data["figures"] = _figures(room, backends)
    for name in wanted:
        if name == FIGURES:
            continue
        for contest in WORKLOADS[name](plan):
            record = arena.hold(contest)
            if record is None:
                continue
            data["contests"].append(record)
            _console.print(f"[bold]{contest.title}[/]: {escape(_line(record))}")
        arena.leave()


def measure(
    plan: Plan, wanted: Sequence[str], without: Sequence[str], provider: str, *, pinned: bool
) -> dict:
    """Hold the contests; return the data."""
    began = time.time()
    data: dict[str, Any] = {
        "format": 1,
        "mode": "quick" if plan.quick else "full",
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)),
        "provider": provider,
        "pinned": pinned,
        "machine": machine.describe(),
        "contests": [],
        "figures": [],
    }
    backends = {name: one for name, one in all_backends().items() if name not in without}
    # As pip does when it installs them. Where Python may write no bytecode, each start would.
    for package in ("rpmem", "rpmemd"):
        compileall.compile_dir(PROJECT / package, quiet=1)
    with Room(provider, pinned) as room:
        if not room.on_tmpfs:
            _console.print("no /dev/shm: the targets' pools lie on a disk here", style="yellow")
        arena = Arena(room, plan, backends, lambda text: _console.print(f"  {escape(text)}"))
        data["absent"] = arena.absent
        for name, why in arena.absent.items():
            _console.print(f"without {name}: {escape(why)}", style="yellow")
        try:
            _hold_all(arena, room, plan, wanted, data, backends)
        finally:
            arena.leave()
    data["seconds"] = time.time() - began
    return data


def _summary(data: dict[str, Any]) -> None:
    table = Table("what", "reference", "ratio", "to reach", "")
    for line in ratios.RATIOS:
        verdict = ratios.judge(line, data["contests"])
        if verdict is None:
            continue
        sign = ">=" if line.at_least else "<="
        mark = {True: "[green]reached[/]", False: "[red]not reached[/]", None: ""}
        table.add_row(
            line.what,
            line.reference,
            f"{verdict['ratio']:.3g}",
            f"{sign} {line.reach:g}" if line.reach is not None else "",
            mark[verdict["reached"]] + (" (disturbed)" if verdict["disturbed"] else ""),
        )
    _console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, write the report."""
    options = _parser().parse_args(arguments)
    # If terminated, it also leaves nothing running and no pools on tmpfs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    known = [FIGURES, *WORKLOADS]
    if options.list:
        _console.print("workloads: " + ", ".join(known))
        with Room() as room:
            for name, backend in all_backends().items():
                why = reason(backend, room)
                _console.print(f"{name:9} {backend.label}" + (f" (absent: {why})" if why else ""))
        return 0
    whole = not options.only and not options.without
    page = options.page or (PROJECT / "docs" / "benchmarks.md" if whole else BUILD / "report.md")
    if options.report:
        data = json.loads(options.report.read_text())
        report.write(data, page)
        print(f"benchmarks: wrote {page}")
        return 0
    plan = FULL if options.full else QUICK
    plan = Plan(
        plan.quick,
        options.rounds or plan.rounds,
        plan.turn,
        plan.patience if options.patience is None else options.patience,
        plan.samples or options.samples,
    )
    wanted = _names(options.only, known, "workload") or known
    without = _names(options.without, list(all_backends()), "rival")
    data = measure(plan, wanted, without, options.provider, pinned=not options.no_pin)
    raw = options.json or BUILD / f"{data['mode']}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_text(json.dumps(data) + "\n")
    report.write(data, page)
    _summary(data)
    print(f"benchmarks: {data['seconds']:.0f} s; raw data {raw}, report {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
