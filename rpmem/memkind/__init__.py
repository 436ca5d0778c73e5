"""Working copies in memory other than malloc's: larger than DRAM, faster, or on another node.

This module needs libmemkind, which Debian 12 has and Debian 13 does not. Without it, importing the
module raises `MissingExtension`; the rest of rpmem works as usual.

    from rpmem import memkind

    with memkind.DAX_KMEM_PREFERRED.numpy_handler():
        temperature = np.zeros((100_000, 100_000))      # in persistent memory used as RAM

    scratch = memkind.pmem("/mnt/pmem0", max_size="400GiB")
    window = scratch.empty(1 << 30, dtype="f4")

The kinds are those of memkind(3). What they hold is volatile: for an array that has to survive, use
an array of a pool, or replicate a buffer with `rpmem.create`; that can be an array of any kind.
"""

from __future__ import annotations

import os
from typing import Final

from rpmem.memkind.kinds import KINDS, FileKind, Kind, in_directory
from rpmem.pool.options import size_of

__all__ = ["FileKind", "Kind", "available", "pmem", *KINDS]

DEFAULT: Final = KINDS["DEFAULT"]
REGULAR: Final = KINDS["REGULAR"]
INTERLEAVE: Final = KINDS["INTERLEAVE"]
HUGETLB: Final = KINDS["HUGETLB"]
HBW: Final = KINDS["HBW"]
HBW_ALL: Final = KINDS["HBW_ALL"]
HBW_PREFERRED: Final = KINDS["HBW_PREFERRED"]
HBW_INTERLEAVE: Final = KINDS["HBW_INTERLEAVE"]
HBW_HUGETLB: Final = KINDS["HBW_HUGETLB"]
HBW_ALL_HUGETLB: Final = KINDS["HBW_ALL_HUGETLB"]
HBW_PREFERRED_HUGETLB: Final = KINDS["HBW_PREFERRED_HUGETLB"]
DAX_KMEM: Final = KINDS["DAX_KMEM"]
DAX_KMEM_ALL: Final = KINDS["DAX_KMEM_ALL"]
DAX_KMEM_PREFERRED: Final = KINDS["DAX_KMEM_PREFERRED"]
DAX_KMEM_INTERLEAVE: Final = KINDS["DAX_KMEM_INTERLEAVE"]
HIGHEST_CAPACITY: Final = KINDS["HIGHEST_CAPACITY"]
HIGHEST_CAPACITY_PREFERRED: Final = KINDS["HIGHEST_CAPACITY_PREFERRED"]
HIGHEST_CAPACITY_LOCAL: Final = KINDS["HIGHEST_CAPACITY_LOCAL"]
HIGHEST_CAPACITY_LOCAL_PREFERRED: Final = KINDS["HIGHEST_CAPACITY_LOCAL_PREFERRED"]
LOWEST_LATENCY_LOCAL: Final = KINDS["LOWEST_LATENCY_LOCAL"]
LOWEST_LATENCY_LOCAL_PREFERRED: Final = KINDS["LOWEST_LATENCY_LOCAL_PREFERRED"]
HIGHEST_BANDWIDTH_LOCAL: Final = KINDS["HIGHEST_BANDWIDTH_LOCAL"]
HIGHEST_BANDWIDTH_LOCAL_PREFERRED: Final = KINDS["HIGHEST_BANDWIDTH_LOCAL_PREFERRED"]


def available() -> list[Kind]:
    """Return the kinds of memory that this machine has."""
    return [kind for kind in KINDS.values() if kind.available]


def pmem(directory: str | os.PathLike[str], max_size: int | str | None = None) -> FileKind:
    """Make a kind in a file on the file system of a directory, usually one mounted with DAX.

    Parameters
    ----------
    directory : path
        Where to put the file; it has no name, and disappears with the process.
    max_size : int or str, optional
        The most bytes it may use, such as ``"64GiB"``; at least 16 MiB. None: no limit.

    Returns
    -------
    FileKind
        Close it, or use it as a context manager, when its arrays are gone.

    Raises
    ------
    UsageError
        The directory does not exist or is not writable, or the size is too small.
    """
    return in_directory(os.path.abspath(directory), size_of(max_size) or 0)
