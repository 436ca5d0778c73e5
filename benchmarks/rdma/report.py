"""The page docs/benchmarks-rdma.md, made only from the JSON of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots, ratios, statistics
from benchmarks.rdma.contests import RATIOS
from benchmarks.room import PROJECT
from benchmarks.texts import flowing
from benchmarks.workloads.persist import say

PAGE = PROJECT / "docs" / "benchmarks-rdma.md"

_PREFACE = """
Made by `scripts/test-rdma --figures` (`python -m benchmarks.rdma` inside the emulated machine)
from [benchmarks-rdma.json](benchmarks-rdma.json); do not edit. All contestants took turns in one
run, each a process that reads its own clock; what reading it takes is taken off. A figure is the
median over turns of a turn's median; brackets hold the least and the greatest turn.
"""
_STEADY = """
Nothing here has RDMA hardware: the machine is emulated, and the device is soft-RoCE, whose work
the kernel does. **No figure here says how fast anything is on hardware; only ratios mean
something.** The emulated machine has one processor and a clock that moves one nanosecond for each
instruction it executes, so a figure is the number of instructions, in thousands, of both ends and
both kernels' parts from the call to its return. That makes runs comparable, whatever else the host
did, and it weighs every instruction alike: what waits for memory or for a wire costs nothing more,
and Python's instructions count as much as a device driver's. Turns differ little; that is no sign
of a hardware's spread. Both ends share the processor, and each gives it away after every poll that
found nothing.
"""
_PLAIN = """
Emulated time is noisy where the machine is emulated: only ratios mean something there.
"""
_RATIOS = """
Ours to the reference's p50. To reach: 1.1 of raw C, and not behind librpma's own ways to persist,
which are WRITE + FLUSH, and WRITE + SEND with an answer. librpma has no persist that keeps words
whole, and reading is none: there the ratio is only reported. perftest does less than a persist:
`ib_write_lat` tells half of a round trip of WRITEs to and fro, `ib_read_lat` a READ.
"""
_COUNTS = """
Counted, not timed: a library that is loaded in front of libibverbs sees every work request, every
call that rings a doorbell, every receive buffer given and every completion taken, whatever
library posts them. What one call takes, exactly; completions are not whole where one is asked for
now and then to make room. Sizes with the same counts share a line.
"""

_TEXTS = {
    "flush": (
        "WRITE + FLUSH",
        """
        Step `flush`, relaxed. Raw C hands both requests over at once, as rpmem does; librpma rings
        for each of its two calls, and its flush is the native one.
        """,
    ),
    "read-after-write": (
        "WRITE + READ",
        """
        Step `read-after-write`, relaxed. For librpma an 8-byte `rpma_read` after `rpma_write`: its
        own flush is the native one here.
        """,
    ),
    "strict": (
        "Data in a message",
        """
        Step `send-after-write`, the default: the target stores the data, aligned words whole,
        flushes cache lines, and replies. Raw C and librpma copy with memcpy and check less.
        """,
    ),
    "relaxed": (
        "Stored and flushed by the target, relaxed",
        """
        Step `send-after-write`, relaxed: up to 16 KiB rpmem still sends the data inside the
        message, beyond that it WRITEs them and names them in the message.
        """,
    ),
    "read": (
        "Reading",
        "Into memory that the device does not know; that of raw C and librpma it knows.",
    ),
    "perftest": (
        "Beside perftest",
        """
        perftest polls without ever giving its processor away: both sides need one, and so these
        figures come from another start of the machine, with two processors and a clock that
        follows the host's. They are noisy: whatever else the host does is in them. Over emulated
        devices ib_write_lat gives no figure beyond 4 KiB.
        """,
    ),
}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _machine(data: dict[str, Any]) -> Iterator[str]:
    machine = data["machine"]
    rows: tuple[tuple[str, str], ...] = (
        ("system", f"{machine['system']}, Linux {machine['kernel']}"),
        ("processor", f"{machine['cpu']}, {machine['cores']} in use"),
        ("clock", "instructions" if data.get("steady") else "time"),
        ("devices", f"{', '.join(machine['verbs_devices'])}; hosts: {data['hosts']}"),
        ("target's memory", data["medium"]),
        ("measured", f"{data['started']}, commit {data.get('commit') or machine['commit']}"),
        ("turns", f"{data['turns']['rounds']} of some {1000 * data['turns']['seconds']:g} ms"),
    )
    calls = [
        one["hello"]["call_ns"]
        for contest in data["contests"]
        for one in contest["contestants"].values()
        if "call_ns" in one["hello"]
    ]
    if calls:
        what = "a call of `persist` with no bytes, which posts nothing"
        rows = (*rows, ("Python's part", f"{statistics.median(calls) / 1e3:.1f} us: {what}"))
    yield from ["| | |", "| --- | --- |"]
    yield from (f"| {name} | {value} |" for name, value in rows)
    yield ""


def _ratio_tables(data: dict[str, Any]) -> Iterator[str]:
    sizes = sorted({contest["x"] for contest in data["contests"]})
    rows: dict[tuple[str, str], list[str]] = {}
    reached = total = 0
    for line in RATIOS:
        verdict = ratios.judge(line, data["contests"])
        if verdict is None:
            continue
        title = _TEXTS[line.workload][0] if line.workload == line.what else f"rpmem, {line.what}"
        cells = rows.setdefault((title, f"{line.reference}"), ["" for _ in sizes])
        mark = f"{verdict['ratio']:.2f}"
        if line.reach is not None:
            total += 1
            # Rounded as shown: turns may differ by a hundredth.
            good = round(verdict["ratio"], 2) <= line.reach
            reached += good
            mark = mark if good else f"**{mark}**"
        cells[sizes.index(line.x)] = mark
    yield f"{flowing(_RATIOS)} {reached} of {total} are reached; the others are bold."
    yield ""
    head = ("", "beside", *(say(int(size)) for size in sizes))
    yield from _table(head, ((*names, *cells) for names, cells in rows.items()))


def _contest_table(contests: Sequence[dict[str, Any]]) -> Iterator[str]:
    keys = list(dict.fromkeys(key for contest in contests for key in contest["contestants"]))
    rows = []
    for key in keys:
        cells = []
        for contest in contests:
            record = contest["contestants"].get(key)
            if record is None:
                cells.append("")
                continue
            every = [entry["p50"] / 1e3 for entry in record["rounds"]]
            spread = f"[{_number(min(every))}, {_number(max(every))}]"
            cells.append(f"{_number(statistics.median(every))} {spread}")
        rows.append((key, *cells))
    yield from _table(("p50, us", *(say(int(contest["x"])) for contest in contests)), rows)
    for contest in contests:
        for key, why in contest["missing"].items():
            yield f"Without {key} at {say(int(contest['x']))}: {why}."
            yield ""


def _shown(counts: dict[str, float]) -> str:
    """Return a side's counts as text."""
    names = ("writes", "reads", "sends", "flushes", "words", "others")
    what = ", ".join(f"{counts[name]:g} {name[:-1].upper()}" for name in names if counts[name])
    return what.replace("FLUSHE", "FLUSH") or "nothing"


def _count_table(data: dict[str, Any]) -> Iterator[str]:
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in data["counts"]:
        ours, theirs = one["initiator"], one["target"]
        line = (
            _TEXTS[one["workload"]][0],
            one["key"],
            _shown(ours),
            *(f"{ours[name]:.4g}" for name in ("requests", "doorbells", "receives", "completions")),
            *(f"{theirs[name]:.4g}" for name in ("requests", "doorbells")),
        )
        rows.setdefault(line, []).append(say(int(one["x"])))
    head = (
        *("", "", "sizes", "posted by the initiator", "work requests", "doorbells"),
        *("receives", "completions", "target: work requests", "doorbells"),
    )
    body = ((line[0], line[1], ", ".join(sizes), *line[2:]) for line, sizes in rows.items())
    yield from _table(head, body)


def markdown(data: dict[str, Any], pictures: dict[str, str]) -> str:
    """Return the page."""
    by_workload: dict[str, list[dict[str, Any]]] = {}
    for contest in data["contests"]:
        by_workload.setdefault(contest["workload"], []).append(contest)
    lines = ["# Benchmarks over RDMA", "", flowing(_PREFACE), ""]
    lines += [flowing(_STEADY if data.get("steady") else _PLAIN), "", *_machine(data)]
    for name, why in sorted(data["absent"].items()):
        lines += [f"Without {name}: {why}.", ""]
    lines += ["## Ratios", "", *_ratio_tables(data)]
    if data["counts"]:
        lines += ["## Work requests and doorbells", "", flowing(_COUNTS), "", *_count_table(data)]
    for name, contests in by_workload.items():
        title, text = _TEXTS[name]
        lines += [f"## {title}", "", flowing(text), ""]
        if name in pictures:
            lines += [f"![{title}]({pictures[name]})", ""]
        lines += _contest_table(contests)
    return "\n".join(lines).rstrip() + "\n"


def write(data: dict[str, Any], page: Path) -> None:
    """Write the page, its pictures into ``images`` next to it, and the JSON."""
    folder = page.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, str] = {}
    for name in _TEXTS:
        contests = [contest for contest in data["contests"] if contest["workload"] == name]
        if len(contests) > 1:
            path = folder / f"rdma-{name}.png"
            title = f"{_TEXTS[name][0]} (emulated: see the text)"
            plots.by_size(contests, title, path)
            pictures[name] = str(path.relative_to(page.parent))
    page.write_text(markdown(data, pictures))
    page.with_suffix(".json").write_text(json.dumps(data) + "\n")
