"""The picture of the demonstration's latencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rpmem.demo.measure import Latencies
from rpmem.errors import MissingExtension
from rpmem.terminal.tables import readable

#: Colours on white that can be told apart in print and by the colour-blind.
_PERSIST, _MSYNC = "#0b62a4", "#d95f02"


def save(latencies: Sequence[Latencies], path: str, title: str) -> None:
    """Draw median and 99th percentile over size, and save as PNG.

    Parameters
    ----------
    latencies : sequence of Latencies
        The result of `rpmem.demo.measure.measure`.
    path : str
        File to write.
    title : str
        What was measured.

    Raises
    ------
    MissingExtension
        matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtension(
            "the picture needs matplotlib", hint="Install it with: pip install matplotlib"
        ) from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sizes = [each.size for each in latencies]
    _curve(axes, sizes, [each.persist for each in latencies], _PERSIST, "persist, replicated")
    _curve(axes, sizes, [each.msync for each in latencies], _MSYNC, "local msync alone")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="bytes made durable per call",
        ylabel="microseconds",
        title=title,
    )
    axes.set_xticks(sizes, [readable(size) for size in sizes])
    axes.minorticks_off()
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, format="png")


def _curve(axes: Any, sizes: list[int], values: list[Any], colour: str, label: str) -> None:
    median = _each(np.median, values)
    high = _each(lambda one: np.percentile(one, 99), values)
    axes.plot(sizes, median, color=colour, marker="o", label=f"{label}: median")
    axes.plot(sizes, high, color=colour, linestyle=":", marker=".", label=f"{label}: p99")


def _each(function: Callable[[Any], Any], values: list[Any]) -> list[float]:
    return [float(function(one)) for one in values]
