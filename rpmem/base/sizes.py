"""Sizes with suffixes, as in poolset(5): ``16M``, ``16MiB``, ``16MB``, ``16777216``."""

from __future__ import annotations

import re

from rpmem.base.printable import printable
from rpmem.errors import UsageError

_LARGEST_SIZE = (1 << 63) - 1  # off_t
_SIZE = re.compile(r"([0-9]{1,30})([A-Za-z]*)")
_FACTORS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{letter: 1 << 10 * power for power, letter in enumerate("KMGTP", 1)},
    **{f"{letter}iB": 1 << 10 * power for power, letter in enumerate("KMGTP", 1)},
    **{f"{letter}B": int(10 ** (3 * power)) for power, letter in enumerate("kMGTP", 1)},
}
_SIZES = (
    "Sizes are decimal numbers followed by nothing or B, by K, M, G, T, P or KiB to PiB (times "
    "1024), "
    "or with kB, MB, GB, TB, PB (times 1000)"
)


def parse_size(text: str) -> int:
    """Read a size as poolset(5) writes it.

    Parameters
    ----------
    text : str
        Such as ``16M``, ``16MiB`` (both times 1024 * 1024), ``16MB`` (times 1,000,000), ``16384``.

    Returns
    -------
    int
        Bytes, at least 1.

    Raises
    ------
    UsageError
        `text` is not such a size, or the size is 0 or does not fit into 63 bits.
    """
    match = _SIZE.fullmatch(text)
    factor = None if match is None else _FACTORS.get(match[2])
    if match is None or factor is None:
        raise UsageError(f"'{printable(text, 40)}' is not a size", hint=_SIZES)
    size = int(match[1]) * factor
    if not 0 < size <= _LARGEST_SIZE:
        raise UsageError(
            f"'{text}' is {'not a size for a part' if size == 0 else 'more than a file can hold'}",
            hint=_SIZES,
        )
    return size


def format_size(size: int) -> str:
    """Write a size in the shortest exact form that every version of PMDK reads.

    Parameters
    ----------
    size : int
        Bytes.

    Returns
    -------
    str
        For which ``parse_size(format_size(size)) == size``.
    """
    for letter in reversed("KMGTP"):
        factor = _FACTORS[letter]
        if size and size % factor == 0:
            return f"{size // factor}{letter}"
    return str(size)
