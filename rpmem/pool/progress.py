"""How far a long transfer between copies has come, for whoever wants to know."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from rpmem.base import interrupts
from rpmem.errors import UsageError
from rpmem.pool.options import size_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Takes the bytes done, those in all, and what is being done.
Progress: TypeAlias = Callable[[int, int, str], object]

#: Bytes per call to a replica; interrupts are noticed between two calls.
CHUNK: Final = 16 << 20


def quiet(done_bytes: int, total_bytes: int, what: str) -> None:
    """Tell nobody."""


def checked(progress: Progress | None, rate_limit: int | str | None = None) -> Progress:
    """Return what takes the reports of a transfer: a user's callable, or nobody, and its pace.

    Parameters
    ----------
    progress : callable or None
        Called by one thread at a time.
    rate_limit : int, str or None
        Bytes in a second, or such as ``"100MB"``; None: no limit.
    """
    if progress is not None and not callable(progress):
        raise UsageError(
            f"progress is {progress!r}, which cannot be called",
            hint="Give it a callable (done_bytes, total_bytes, what)",
        )
    limit = size_of(rate_limit)
    told = quiet if progress is None else _in_turn(progress)
    if limit is None:
        return told
    from rpmem.pool.pacing import Paced

    return Paced(told, limit)


def _in_turn(progress: Progress) -> Progress:
    lock = threading.Lock()

    def report(done_bytes: int, total_bytes: int, what: str) -> None:
        with lock:
            progress(done_bytes, total_bytes, what)

    return report


def chunk_of(progress: Progress) -> int:
    """Return how many bytes are to be done between two reports."""
    return getattr(progress, "chunk", CHUNK)


def chunks(begin: int, end: int, what: str, progress: Progress) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each piece of a transfer, and report what is done of it.

    Parameters
    ----------
    begin, end : int
        Pool offsets.
    what : str
        What is being done.
    progress : callable
        What it raises ends the transfer.
    """
    progress(0, end - begin, what)
    most = chunk_of(progress)
    for offset in range(begin, end, most):
        interrupts.check()
        length = min(most, end - offset)
        yield offset, length
        progress(offset + length - begin, end - begin, what)


def parts(
    ranges: NDArray[np.uint64], what: str, progress: Progress
) -> Iterator[NDArray[np.uint64]]:
    """Yield ranges, some at a time, and report what is done of them.

    Parameters
    ----------
    ranges : array
        Offsets and lengths, as pairs.
    what, progress
        As for `chunks`.
    """
    ends = np.cumsum(ranges[:, 1])
    total = int(ends[-1]) if len(ends) else 0
    first = done = 0
    while first < len(ranges):
        interrupts.check()
        after = max(first + 1, int(np.searchsorted(ends, done + chunk_of(progress), "right")))
        yield ranges[first:after]
        first, done = after, int(ends[after - 1])
        progress(done, total, what)


def within(progress: Progress, before: int, total: int) -> Progress:
    """Return what reports a part of a longer transfer, of which so many bytes are done before."""

    def report(done_bytes: int, total_bytes: int, what: str) -> None:
        progress(before + done_bytes, total, what)

    report.chunk = chunk_of(progress)  # type: ignore[attr-defined]
    return report
