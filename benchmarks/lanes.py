"""How far a lane is from its socket: ``python -m benchmarks.lanes [--provider tcp] [--quick]``.

`Pool.persist(view)`, the local copy and the targets on tmpfs, takes turns with the same exchange in
C (``raw/floor.c``): as many bytes one way and 16 back, one system call each way, in each of the
ways to wait and to encrypt. Of these the fastest counts. A line is a row of the table of aims: what
was found, what C takes, the ratio (or the difference) and its bound. The whole takes half an hour;
figures of a busy machine say little, so its other work is told at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import statistics
from benchmarks.backends import Backend
from benchmarks.backends.floor import Floor
from benchmarks.backends.ours_pool import OursPool
from benchmarks.contest import Arena, Contest, Contestant, Plan
from benchmarks.driver import Job
from benchmarks.machine import describe
from benchmarks.room import MIB, Room, Setting

KIB = 1024
_OURS = "ours"
_ALONE = ("pause", "spin", "yield")
#: (sender, receiver) where there are more sides than cores
_CROWDED = (
    *((way, way) for way in ("yield", "pause", "block", "spin20", "yield50", "yield200")),
    ("yield", "block"),
    ("block", "yield"),
)
_POOL = 256 * MIB


@dataclass(frozen=True)
class Bound:
    """What is held against a bound: a figure of a round, and how two of them are compared."""

    what: str
    figure: Callable[[dict[str, Any]], float]
    at_most: float = 0.0
    at_least: float = 0.0
    difference: bool = False
    upper: bool = False
    of_latency: bool = False


def _p50(entry: dict[str, Any]) -> float:
    return entry["p50"] / 1e3


def _p99(entry: dict[str, Any]) -> float:
    return entry["p99"] / 1e3


def _bandwidth(entry: dict[str, Any]) -> float:
    return entry["bytes"] / entry["wall"]


def _processor(entry: dict[str, Any]) -> float:
    return entry["processor"] / entry["n"] / 1e3


_SLOWER = Bound("p50, us", _p50, at_most=1.2, difference=True)
_TAIL = Bound("p99, us, upper 95 %", _p99, at_most=1.5, upper=True)
_RATE = Bound("GB/s", _bandwidth, at_least=0.95)


def _p50_at_most(ratio: float) -> Bound:
    return Bound("p50, us", _p50, at_most=ratio)


@dataclass(frozen=True)
class Row:
    """A contest between rpmem and several floors, and what is asked of it."""

    title: str
    size: int
    setting: Setting
    floors: Sequence[Floor]
    bounds: Sequence[Bound]
    relaxed: bool = False
    depth: int = 1
    count: int = 2000

    def contest(self, plan: Plan) -> Contest:
        """Return it with as many operations and rounds as the plan has."""
        op = "persist-relaxed" if self.relaxed else "persist-array"
        count = max(self.count // 10, 3) if plan.quick else self.count
        warmup = max(count // 20, 1)
        ours = Job(op, self.size, count=count, warmup=warmup)
        theirs = Job(
            "pipeline" if self.depth > 1 else "send", self.size, count, warmup, depth=self.depth
        )
        contestants = [Contestant(_OURS, _OURS, ours, self.setting)]
        contestants += [
            Contestant(floor.name, floor.name, theirs, self.setting) for floor in self.floors
        ]
        crowded = self.setting.replicas > 1
        return Contest("lanes", self.size, self.title, contestants, crowded=crowded)


def _say(size: int) -> str:
    return (
        f"{size // MIB} MiB"
        if size >= MIB
        else f"{size // KIB} KiB"
        if size >= KIB
        else f"{size} B"
    )


def _plain(over: str, setting: Setting) -> Iterator[Row]:
    floors = [Floor(over, "", way, way) for way in _ALONE]
    polling = (
        Bound("CPU, us", _processor, at_most=1.3)
        if over == "tcp"
        else Bound("CPU, us", _processor, of_latency=True)
    )
    for size in (64, 4 * KIB):
        yield Row(f"{_say(size)}, {over}", size, setting, floors, (_SLOWER, _TAIL, polling))
    for relaxed in (False, True):
        title = f"64 KiB, {over}{', relaxed' * relaxed}"
        bounds = (_p50_at_most(1.2), _TAIL)
        yield Row(title, 64 * KIB, setting, floors, bounds, relaxed)


def _encrypted(setting: Setting) -> Iterator[Row]:
    floors = [
        Floor("tcp", tls, way, way) for tls in ("socket", "memory") for way in ("pause", "spin")
    ]
    for size in (64, 4 * KIB, 64 * KIB):
        for relaxed in (False, True) if size == 64 * KIB else (False,):
            title = f"{_say(size)}, TLS{', relaxed' * relaxed}"
            yield Row(title, size, setting, floors, (_p50_at_most(1.15), _TAIL), relaxed)


def _large(setting: Setting) -> Iterator[Row]:
    floors = [Floor("tcp", "", way, way) for way in ("pause", "block")]
    for size, count in ((MIB, 200), (16 * MIB, 30), (64 * MIB, 8)):
        for relaxed in (False, True):
            title = f"{_say(size)}, tcp{', relaxed' * relaxed}"
            yield Row(title, size, setting, floors, (_RATE,), relaxed, depth=2, count=count)


def _several(over: str, encryption: str) -> Iterator[Row]:
    for replicas in (2, 3):
        setting = Setting(
            pool=_POOL, replicas=replicas, polling="auto", over=over, encryption=encryption
        )
        floors = [Floor(over, "", *ways) for ways in _CROWDED]
        title = f"64 B, {over}, {replicas} replicas"
        yield Row(title, 64, setting, floors, (_p50_at_most(1.25),))


def _blocking(over: str, encryption: str, tls: str = "") -> Row:
    setting = Setting(pool=_POOL, polling="sleep", over=over, encryption=encryption)
    most = 1.15 if tls else 1.1
    bounds = (_p50_at_most(most), Bound("CPU, us", _processor, at_most=most))
    floors = [Floor(over, tls, "block", "block")]
    return Row(f"64 B, {'TLS' if tls else over}, both block", 64, setting, floors, bounds)


def rows(provider: str) -> Iterator[Row]:
    """Return the rows that a provider can be held against."""
    own = provider == "stream"
    off = "off" if own else ""
    tcp = Setting(pool=_POOL, over="tcp", encryption=off)
    yield from _plain("tcp", tcp)
    if own:
        yield from _plain("pair", Setting(pool=_POOL, over="pair"))
        yield from _encrypted(Setting(pool=_POOL, over="tcp", encryption="on"))
    yield from _large(tcp)
    for over in ("tcp", "pair") if own else ("tcp",):
        yield from _several(over, off if over == "tcp" else "")
        yield _blocking(over, off if over == "tcp" else "")
    if own:
        yield _blocking("tcp", "on", "socket")


def verdict(bound: Bound, ours: Sequence[dict], floor: Sequence[dict]) -> tuple[str, bool]:
    """Return the text of a line, and whether the bound was reached."""
    mine, theirs = (list(map(bound.figure, entries)) for entries in (ours, floor))
    if bound.difference:
        found = statistics.median([a - b for a, b in zip(mine, theirs, strict=False)])
    else:
        middle, _, high = statistics.ratio(mine, theirs)
        found = high if bound.upper else middle
    limit, reached, sign = bound.at_most, found <= bound.at_most, "<="
    if bound.of_latency:
        limit = statistics.ratio(list(map(_p50, ours)), list(map(_p50, floor)))[0]
        reached = found <= limit
    elif bound.at_least:
        limit, reached, sign = bound.at_least, found >= bound.at_least, ">="
    both = f"{statistics.median(mine):10.2f} {statistics.median(theirs):10.2f}"
    plus = "+" if bound.difference else ""
    return f"{bound.what:20} {both} {found:{plus}7.2f}  {sign} {limit:.2f}", reached


def _fastest(row: Row, found: dict[str, Any]) -> str | None:
    """Return the floor that is hardest to reach."""
    sign = -1 if row.bounds[0].at_least else 1
    middle = {
        name: sign * statistics.median(list(map(row.bounds[0].figure, record["rounds"])))
        for name, record in found.items()
        if name != _OURS
    }
    return min(middle, key=middle.__getitem__) if middle else None


def _show(row: Row, entry: dict[str, Any] | None) -> bool:
    """Print the lines of a row; return whether all bounds were reached."""
    found = entry["contestants"] if entry else {}
    name = _fastest(row, found)
    if entry is None or name is None or _OURS not in found:
        why = "; ".join(
            f"{key}: {text}" for key, text in (entry or {"missing": {}})["missing"].items()
        )
        print(f"{row.title:26} not measured: {why or 'nobody could take part'}", flush=True)
        return False
    reached = True
    for bound in row.bounds:
        text, good = verdict(bound, found[_OURS]["rounds"], found[name]["rounds"])
        print(
            f"{row.title:26} {text}  {'reached' if good else 'NOT reached'}  ({name})", flush=True
        )
        reached &= good
    return reached


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if a bound was not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=("stream", "tcp"), default="stream")
    parser.add_argument("--quick", action="store_true", help="3 rounds, a tenth of the operations")
    parser.add_argument("--rounds", type=int, help="instead of 31")
    parser.add_argument("--only", default="", help="the rows with this in their title")
    parser.add_argument("--json", type=Path, help="where everything that was measured goes")
    given = parser.parse_args(arguments)
    plan = Plan(given.quick, given.rounds or (3 if given.quick else 31), turn=1.0)
    chosen = [row for row in rows(given.provider) if given.only in row.title]
    entries: list[dict[str, Any] | None] = []
    reached = True
    print(f"{'':26} {'':20} {'rpmem':>10} {'C':>10} {'ratio':>7}")
    with Room(provider=given.provider) as room:
        for row in chosen:
            backends: dict[str, Backend] = {_OURS: OursPool()}
            backends |= {floor.name: floor for floor in row.floors}
            arena = Arena(room, plan, backends, lambda text: print(text, file=sys.stderr))
            try:
                entries.append(arena.hold(row.contest(plan)))
            finally:
                arena.leave()
            reached &= _show(row, entries[-1])
    loads = [entry["load"] for entry in entries if entry]
    if loads:
        print(
            f"foreign work: {max(load['foreign'] for load in loads):.0%} of the processors at most"
        )
    if given.json:
        given.json.write_text(json.dumps({"machine": describe(), "contests": entries}))
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
