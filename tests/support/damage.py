"""Bytes with mistakes in them, of the kinds that parsers fall for."""

from __future__ import annotations

import random
from typing import Final, Literal

#: What numbers become.
_EDGES = (0, 1, 2, 15, 16, 17, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_ORDERS: Final[tuple[Literal["big", "little"], ...]] = ("big", "little")


def damaged(chance: random.Random, given: bytes) -> bytes:
    """Return the bytes with a few such mistakes in them."""
    data = bytearray(given)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(7):
            case 0 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at] = chance.randrange(256)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + chance.randrange(1, 40)]
            case 4:
                data[at:at] = data[at : at + chance.randrange(1, 40)]
            case 5:
                width = chance.choice([1, 2, 4, 8])
                number = chance.choice(_EDGES) & (1 << 8 * width) - 1
                order = chance.choice(_ORDERS)
                data[at : at + width] = number.to_bytes(width, order)
            case _:
                data += chance.randbytes(chance.randrange(1, 40))
    return bytes(data)
