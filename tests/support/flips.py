"""Bits that flip in the part files of pools that are in use."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

from tests.support.media import parts_of


def flip(part: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file, which mappings of it show at once."""
    file = os.open(part, os.O_RDWR)
    try:
        (byte,) = os.pread(file, 1, offset)
        os.pwrite(file, bytes([byte ^ 1 << bit]), offset)
    finally:
        os.close(file)


def part_of(pool_set: Path) -> Path:
    """Return the only part of a pool set."""
    (part,) = parts_of(pool_set)
    return Path(part)


def places(chance: random.Random, ranges: Iterable[tuple[int, int]], count: int) -> list[int]:
    """Return places of bits in ranges, no two in one page."""
    pages = [page for low, high in ranges for page in range(low // 4096, high // 4096)]
    return [page * 4096 + chance.randrange(4096) for page in chance.sample(pages, count)]
