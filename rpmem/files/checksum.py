"""The 64-bit checksum that PMDK puts into pool headers and shutdown states."""

from __future__ import annotations

import struct


def checksum(data: bytes | bytearray | memoryview, position: int, end: int | None = None) -> int:
    """Compute PMDK's Fletcher-like 64-bit checksum.

    Parameters
    ----------
    data : bytes-like
        Little-endian 32-bit words.
    position : int
        Offset of the checksum itself, whose 8 bytes count as zero.
    end : int, optional
        Words at or after this offset count as zero.

    Returns
    -------
    int
        The sum of all words in the low half, the sum of all its intermediate values in the high.
    """
    words: list[int] = list(struct.unpack(f"<{len(data) // 4}I", data))
    words[position // 4] = words[position // 4 + 1] = 0
    if end is not None:
        words[end // 4 :] = [0] * (len(words) - end // 4)
    low = sum(words)
    # The running sum is added again after every word, so the first word counts once per word.
    high = sum(word * times for word, times in zip(words, range(len(words), 0, -1), strict=True))
    return (high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF
