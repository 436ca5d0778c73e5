"""How changes are found on this machine, by trying it on memory that is nobody's."""

from __future__ import annotations

import mmap
from collections.abc import Callable

from rpmem.errors import MissingExtension, UsageError
from rpmem.pool.tracking.tracking import Mode, load_digests, try_kernel

__all__ = ["tried"]


def tried() -> tuple[Mode, list[str]]:
    """Return how changes are found here where nothing else is asked for, and why not otherwise.

    Returns
    -------
    mode : str
        As `rpmem.Pool.tracking`. The files of a pool may have reasons of their own to differ.
    reasons : list of str
        One for each better way, the best one first.
    """
    reasons: list[str] = []
    ways: tuple[tuple[Mode, Callable[[], None]], ...]
    ways = ("kernel", _try_kernel), ("digest", load_digests)
    for mode, attempt in ways:
        try:
            attempt()
        except (MissingExtension, UsageError) as error:
            reasons.append(str(error))
        else:
            return mode, reasons
    return "off", reasons


def _try_kernel() -> None:
    """Raise unless the kernel tells which pages are stored to."""
    from rpmem.memory.region import Region

    with Region.anonymous(2 * mmap.PAGESIZE) as memory:
        try_kernel(memory)
