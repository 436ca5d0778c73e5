"""Numbered records: each 8-byte word says which record it is of, and which word of it."""

from __future__ import annotations

import struct

HEADER = 4096
RECORD = 4096
SLOTS = 200
SIZE = HEADER + SLOTS * RECORD
_WORDS = RECORD // 8


def record(number: int) -> bytes:
    """Return the content of a record; number 0 is what a new file holds."""
    return struct.pack(f"<{_WORDS}Q", *(number << 16 | word for word in range(_WORDS)))


def look(image: bytes) -> list[tuple[int, int]]:
    """Return the lowest and the highest record of which words are in each slot; -1 for garbage."""
    found = []
    for slot in range(SLOTS):
        at = HEADER + slot * RECORD
        words = struct.unpack(f"<{_WORDS}Q", image[at : at + RECORD])
        numbers = {word >> 16 for place, word in enumerate(words) if word & 0xFFFF == place}
        foreign = any(word and word & 0xFFFF != place for place, word in enumerate(words))
        empty = any(not word for word in words[1:])
        numbers |= ({0} if empty else set()) | ({-1} if foreign else set())
        found.append((min(numbers), max(numbers)))
    return found
