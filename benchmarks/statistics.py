"""The few statistics behind the report: only order statistics, no means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Quantiles kept for every distribution: finer towards the slow end, where the problems are.
QUANTILES = (
    *(round(q / 100, 2) for q in range(0, 90, 5)),
    *(round(q / 100, 2) for q in range(90, 100)),
    0.995,
    0.999,
    0.9999,
    1.0,
)
_DRAWS = 2000


def describe(nanoseconds: ArrayLike) -> dict[str, Any]:
    """Return count, median, tails and the median absolute deviation of a round, in ns."""
    values = np.asarray(nanoseconds, dtype=np.float64)
    p50, p99, p999 = np.quantile(values, (0.5, 0.99, 0.999))
    return {
        "n": int(values.size),
        "min": float(values.min()),
        "p50": float(p50),
        "p99": float(p99),
        "p999": float(p999),
        "max": float(values.max()),
        "mad": float(np.median(np.abs(values - p50))),
    }


def quantiles(nanoseconds: ArrayLike) -> list[float]:
    """Return the values at `QUANTILES`."""
    return [float(v) for v in np.quantile(np.asarray(nanoseconds, dtype=np.float64), QUANTILES)]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(np.asarray(values, dtype=np.float64)))


def interval(values: Sequence[float], level: float = 0.95, seed: int = 1) -> tuple[float, float]:
    """Return a bootstrap interval for the median of `values` (one per round).

    Rounds are resampled with replacement: each is an independent sample of the machine's state,
    which the operations within one share.
    """
    data: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        return float(data[0]), float(data[0])
    draws = np.random.default_rng(seed).integers(0, data.size, (_DRAWS, data.size))
    medians = np.median(data[draws], axis=1)
    low, high = np.quantile(medians, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def ratio(ours: Sequence[float], reference: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of the ratios round by round, and its interval.

    Contestants take their turns close together in a round, so a slower machine slows both.
    """
    pairs = [a / b for a, b in zip(ours, reference, strict=False) if b]
    return (median(pairs), *interval(pairs))
