"""The report: Markdown and pictures, made only from the JSON of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots, ratios, statistics, texts
from benchmarks.ratios import RATIOS, Ratio, calm_rounds, values

Contest = dict[str, Any]


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _unit(value: str) -> tuple[float, str]:
    units = {"bandwidth": (1.0, "GB/s"), "rate": (1e-3, "k/s")}
    return units.get(value, (1e-3, "us"))


def _machine(data: dict[str, Any]) -> Iterator[str]:
    machine = data["machine"]
    rows = [
        (
            "processor",
            (
                f"{machine['cpu']}, {machine['cores']} cores"
                f"{', virtual' if machine['virtual'] else ''}"
            ),
        ),
        ("memory", machine["memory"]),
        ("system", f"{machine['system']}, Linux {machine['kernel']}"),
        (
            "versions",
            (
                f"libfabric {machine['libfabric']}, libpmem2 {machine['libpmem2']}, "
                f"Python {machine['python']}"
            ),
        ),
        ("TCP", f"congestion control {machine['congestion_control']}"),
        (
            "measured",
            (
                f"{data['started']}, {data['mode']} mode, commit {machine['commit']}, "
                f"{data['seconds']:.0f} s"
            ),
        ),
        ("provider", data["provider"]),
        (
            "processors",
            "each side that polls on one of its own, where each side is one process"
            if data["pinned"]
            else "chosen by the system",
        ),
    ]
    yield from ["| | |", "| --- | --- |"]
    yield from (f"| {name} | {value} |" for name, value in rows)
    yield ""
    shares = [contest["load"]["foreign"] for contest in data["contests"]]
    if shares:
        worst = max(shares)
        yield (
            f"Other programs used {100 * statistics.median(shares):.0f} % of the processors during "
            f"the median contest and {100 * worst:.0f} % during the busiest."
        )
        yield ""
    if data["absent"]:
        gone = "; ".join(f"{name}: {why}" for name, why in sorted(data["absent"].items()))
        yield f"Not there: {gone}."
        yield ""


def _judged(data: dict[str, Any]) -> Iterator[tuple[Ratio, dict[str, Any]]]:
    for line in RATIOS:
        verdict = ratios.judge(line, data["contests"])
        if verdict is not None:
            yield line, verdict


def _ratio_table(data: dict[str, Any]) -> Iterator[str]:
    rows = []
    noted = False
    for line, verdict in _judged(data):
        scale, unit = _unit(line.value)
        sign = "&ge;" if line.at_least else "&le;"
        mark = {True: "reached", False: "**not reached**", None: ""}[verdict["reached"]]
        if verdict["reached"] is False and verdict["floor"] is not None:
            mark += f"; raw C that does the same: {verdict['floor']:.3g}"
        if verdict["disturbed"]:
            mark += " (1)"
            noted = True
        rows.append(
            (
                line.what,
                line.reference,
                f"{_number(verdict['ours'] * scale)} {unit}",
                f"{_number(verdict['reference'] * scale)} {unit}",
                f"{verdict['ratio']:.3g} [{verdict['low']:.3g}, {verdict['high']:.3g}]",
                f"{sign} {line.reach:g}" if line.reach is not None else "report",
                mark,
            )
        )
    yield from _table(
        ("what", "reference", "ours", "the reference's", "ratio [95 %]", "to reach", ""), rows
    )
    if noted:
        yield texts.flowing(texts.DISTURBED)
        yield ""


def _figures(data: dict[str, Any]) -> Iterator[str]:
    rows = []
    for one in data["figures"]:
        limit = one["limit"]
        mark = "" if limit is None else "reached" if one["value"] <= limit else "**not reached**"
        wanted = "" if limit is None else f"&le; {limit:g}"
        rows.append((one["name"], f"{_number(one['value'])} {one['unit']}", wanted, mark))
    yield from _table(("what", "median", "to reach", ""), rows)


def _latency_rows(contest: Contest) -> Iterator[tuple[str, ...]]:
    for key, record in contest["contestants"].items():
        rounds, _ = calm_rounds(contest, [key])
        chosen = [record["rounds"][i] for i in rounds]
        names = ("p50", "p99", "p999")
        middle = [statistics.median([one[name] for one in chosen]) for name in names]
        low, high = statistics.interval([one["p50"] for one in chosen])
        count = sum(one["n"] for one in chosen)
        speed = statistics.median(values(contest, key, "bandwidth", rounds))
        cpu = statistics.median([one["processor"] / one["n"] for one in chosen])
        yield (
            key,
            _number(middle[0] / 1e3),
            f"{_number(low / 1e3)} - {_number(high / 1e3)}",
            _number(middle[1] / 1e3),
            _number(middle[2] / 1e3) if count >= 1000 else "",
            _number(cpu / 1e3),
            f"{speed:.2f}" if speed >= 0.01 else "",
            f"{len(rounds)} x {record['job']['count']}",
        )


def _contest_table(contest: Contest) -> Iterator[str]:
    yield f"**{contest['title']}**"
    yield ""
    if contest["workload"] == "life":
        rows = []
        for key, record in contest["contestants"].items():
            every = [one["p50"] / 1e6 for one in record["rounds"]]
            low, high = statistics.interval(every)
            middle = statistics.median(every)
            rows.append((key, _number(middle), f"{_number(low)} - {_number(high)}"))
        yield from _table(("", "p50, ms", "95 %"), rows)
    elif contest["measure"] == "rate":
        rows = []
        for key, record in contest["contestants"].items():
            rounds, _ = calm_rounds(contest, [key])
            every = [v / 1e3 for v in values(contest, key, "rate", rounds)]
            low, high = statistics.interval(every)
            middle = [record["rounds"][i]["p50"] for i in rounds]
            rows.append(
                (
                    key,
                    _number(statistics.median(every)),
                    f"{_number(low)} - {_number(high)}",
                    _number(statistics.median(middle) / 1e3),
                )
            )
        yield from _table(("", "thousand a second", "95 %", "p50, us"), rows)
    else:
        head = ("", "p50, us", "95 %", "p99", "p99.9", "CPU, us", "GB/s", "rounds")
        yield from _table(head, _latency_rows(contest))
    for key, why in contest["missing"].items():
        yield f"Without {key}: {why}."
        yield ""


def _pictures(data: dict[str, Any], folder: Path) -> dict[str, list[Path]]:
    by_workload: dict[str, list[Contest]] = {}
    for contest in data["contests"]:
        by_workload.setdefault(contest["workload"], []).append(contest)
    made: dict[str, list[Path]] = {}

    def several(name: str) -> list[Contest]:
        found = by_workload.get(name, [])
        return found if len(found) > 1 else []

    for name, title in (
        ("persist", "persist, send-after-write"),
        ("commit", "persist, commit step"),
        ("read-after-write", "persist, read-after-write"),
        ("read", "read"),
        ("instead", "4 KiB and others made safe"),
    ):
        if contests := several(name):
            path = folder / f"benchmarks-{name}.png"
            made.setdefault(name, []).append(plots.by_size(contests, title, path))
    if contests := several("bandwidth"):
        path = folder / "benchmarks-bandwidth.png"
        title = "bandwidth by size"
        made["bandwidth"] = [plots.by_size(contests, title, path, "bandwidth")]
    for contest in by_workload.get("persist", []):
        if contest["x"] in (64, 4096):
            path = folder / f"benchmarks-distribution-{contest['x']}.png"
            keys = ["rpmem low", "rpmem Pool", "raw inline", "librpmem", "TCP ping-pong"]
            made.setdefault("persist", []).append(plots.distribution(contest, path, keys))
    for name, value, label, scale in (
        ("threads", "rate", "thousand operations a second", 1e-3),
        ("batch", "p50", "microseconds for all (p50)", 1e-3),
        ("scattered", "p50", "microseconds for all (p50)", 1e-3),
    ):
        if contests := several(name):
            path = folder / f"benchmarks-{name}.png"
            title = texts.WORKLOADS[name][0].lower()
            made[name] = [plots.against_count(contests, title, path, value, label, scale)]
    for name in ("replicas", "pools", "polling"):
        if contests := by_workload.get(name, []):
            made[name] = [plots.bars(contests[0], folder / f"benchmarks-{name}.png")]
    return made


def markdown(data: dict[str, Any], pictures: dict[str, list[str]]) -> str:
    """Return the page."""
    judged = list(_judged(data))
    wanted = [verdict for _, verdict in judged if verdict["reached"] is not None]
    reached = sum(verdict["reached"] for verdict in wanted)
    lines = [
        "# Benchmarks",
        "",
        texts.flowing(texts.PREFACE),
        "",
        *_machine(data),
        "## Ratios to reach",
        "",
        f"{texts.RATIOS} {reached} of {len(wanted)} are reached.",
        "",
        *_ratio_table(data),
    ]
    if data["figures"]:
        lines += ["## What a call, a start and waiting cost", "", *_figures(data)]
    seen: list[str] = []
    for contest in data["contests"]:
        name = contest["workload"]
        if name not in seen:
            seen.append(name)
            title, text = texts.WORKLOADS[name]
            lines += [f"## {title}", ""]
            if text:
                lines += [texts.flowing(text), ""]
            for path in pictures.get(name, []):
                lines += [f"![{title}]({path})", ""]
        lines += _contest_table(contest)
    return "\n".join(lines).rstrip() + "\n"


def write(data: dict[str, Any], page: Path) -> None:
    """Write the page, its pictures into ``images`` next to it, and the JSON without samples."""
    folder = page.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("benchmarks-*.png"):
        old.unlink()
    made = _pictures(data, folder)
    links = {
        name: [str(path.relative_to(page.parent)) for path in paths] for name, paths in made.items()
    }
    page.write_text(markdown(data, links))
    page.with_suffix(".json").write_text(json.dumps(without_samples(data)) + "\n")


def without_samples(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data with the order statistics of every round, but not every sample."""
    contests = []
    for contest in data["contests"]:
        records = {
            key: {name: value for name, value in record.items() if name != "samples"}
            for key, record in contest["contestants"].items()
        }
        contests.append({**contest, "contestants": records})
    return {**data, "contests": contests}
