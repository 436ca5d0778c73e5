"""A process that has used up its descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let this process open so many more files, and no others.

    Parameters
    ----------
    spare : int
        How many. Those that it has open already stay, and may be closed and opened again.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Of the numbers below it only `spare` are free: a new file gets the lowest number.
    probes = [os.dup(0) for _ in range(spare + 1)]
    limit = max(probes)
    for probe in probes:
        os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
