"""The report's pictures, made from the JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks import statistics
from benchmarks.ratios import VALUES, calm_rounds, values
from benchmarks.workloads.persist import say

Contest = dict[str, Any]

#: The same contestant has the same colour in every picture.
_COLOURS = {
    "rpmem low": "#0b6fa4",
    "rpmem Pool": "#57a9d4",
    "rpmem low, relaxed": "#0b6fa4",
    "rpmem low, strict": "#57a9d4",
    "raw inline": "#555555",
    "raw write+send": "#999999",
    "raw stream": "#555555",
    "raw pieces": "#999999",
    "raw read": "#555555",
    "raw delivery": "#555555",
    "raw commit": "#999999",
    "librpmem": "#c4512d",
    "librpmem, relaxed": "#c4512d",
    "librpmem APM": "#c4512d",
    "TCP ping-pong": "#7a9a3a",
    "Redis SET+WAIT": "#a03a6e",
    "msync to disk": "#8a6d3b",
}
#: Colours of keys not listed above, by their first word.
_FAMILIES = {"rpmem": "#0b6fa4", "raw": "#555555", "TCP,": "#7a9a3a", "librpmem,": "#c4512d"}
_DASHED = ("relaxed", "strict")


def _axes(title: str) -> tuple[plt.Figure, Axes]:
    figure, axes = plt.subplots(figsize=(7.2, 4.2), dpi=110)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(True, which="major", linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.tight_layout()
    # Without date and version, so that the same JSON gives the same bytes.
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
    return path


def _style(key: str) -> dict[str, Any]:
    style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linewidth": 1.4}
    colour = _COLOURS.get(key) or _FAMILIES.get(key.split()[0])
    if colour:
        style["color"] = colour
    if key.endswith(_DASHED):
        style["linestyle"] = "--"
    return style


def series(
    contests: Sequence[Contest], value: str
) -> dict[str, tuple[list[float], list[float], list[float], list[float]]]:
    """Return for every contestant: x, median of the rounds, and its interval."""
    found: dict[str, tuple[list[float], list[float], list[float], list[float]]] = {}
    for contest in contests:
        for key in contest["contestants"]:
            rounds, _ = calm_rounds(contest, [key])
            here = values(contest, key, value, rounds)
            low, high = statistics.interval(here)
            lists = found.setdefault(key, ([], [], [], []))
            for one, number in zip(
                lists, (contest["x"], statistics.median(here), low, high), strict=True
            ):
                one.append(number)
    return found


def by_size(contests: Sequence[Contest], title: str, path: Path, value: str = "p50") -> Path:
    """Draw latency or bandwidth against size, both logarithmic."""
    figure, axes = _axes(title)
    scale = {"p50": 1e-3, "bandwidth": 1.0}[value]
    for key, (x, middle, low, high) in series(contests, value).items():
        axes.plot(x, np.multiply(middle, scale), label=key, **_style(key))
        colour = axes.lines[-1].get_color()
        axes.fill_between(
            x, np.multiply(low, scale), np.multiply(high, scale), color=colour, alpha=0.15, lw=0
        )
    axes.set_xscale("log", base=2)
    if value == "p50":
        axes.set_yscale("log")
    ticks = sorted({contest["x"] for contest in contests})
    axes.set_xticks(ticks, [say(int(tick)) for tick in ticks], rotation=35, fontsize=8)
    axes.set_ylabel("microseconds (p50)" if value == "p50" else "GB/s")
    axes.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def distribution(contest: Contest, path: Path, keys: Sequence[str]) -> Path:
    """Draw the latencies of one contest: the share of calls that took longer."""
    figure, axes = _axes(f"{contest['title']}: how many took longer")
    beyond = 1 - np.asarray(statistics.QUANTILES)
    for key in keys:
        record = contest["contestants"].get(key)
        if record is not None:
            style = {**_style(key), "marker": ""}
            taken = np.asarray(record["quantiles"]) / 1e3
            axes.plot(taken[:-1], beyond[:-1], label=key, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("microseconds")
    axes.set_ylabel("share of operations")
    axes.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def against_count(
    contests: Sequence[Contest], title: str, path: Path, value: str, label: str, scale: float
) -> Path:
    """Draw something against a count: threads, flushes, ranges."""
    figure, axes = _axes(title)
    for key, (x, middle, low, high) in series(contests, value).items():
        axes.plot(x, np.multiply(middle, scale), label=key, **_style(key))
        colour = axes.lines[-1].get_color()
        axes.fill_between(
            x, np.multiply(low, scale), np.multiply(high, scale), color=colour, alpha=0.15, lw=0
        )
    ticks = sorted({contest["x"] for contest in contests})
    if max(ticks) / min(ticks) > 16:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylabel(label)
    axes.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def bars(contest: Contest, path: Path, unit: str = "us") -> Path:
    """Draw the contestants of one contest side by side."""
    figure, axes = _axes(contest["title"])
    divisor = {"us": 1e3, "ms": 1e6}[unit]
    keys = list(contest["contestants"])
    get: Callable[[dict[str, Any]], float] = VALUES["p50"]
    heights, errors = [], []
    for key in keys:
        rounds, _ = calm_rounds(contest, [key])
        here = [get(contest["contestants"][key]["rounds"][i]) / divisor for i in rounds]
        low, high = statistics.interval(here)
        middle = statistics.median(here)
        heights.append(middle)
        errors.append((middle - low, high - middle))
    colours = [_style(key).get("color", "#57a9d4") for key in keys]
    axes.barh(keys, heights, xerr=np.transpose(errors), color=colours, height=0.6)
    axes.invert_yaxis()
    axes.set_xlabel("microseconds (p50)" if unit == "us" else "milliseconds (p50)")
    return _save(figure, path)
