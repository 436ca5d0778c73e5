"""Pool attributes as 104 bytes, made here without help from the code under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ZERO = bytes(104)
SINGLEHDR = 1
CKSUM_2K = 2
SDS = 4


@dataclass(frozen=True)
class Attributes:
    """The block that travels in create, open and set_attr."""

    signature: bytes = b"PERFTEST"
    major: int = 3
    compat: int = 0
    incompat: int = 0
    ro_compat: int = 0
    poolset_uuid: bytes = b"\xa1" * 16
    uuid: bytes = b"\xa2" * 16
    next_uuid: bytes = b"\xa3" * 16
    prev_uuid: bytes = b"\xa4" * 16
    user_flags: bytes = b"\x5a" * 16

    def pack(self) -> bytes:
        """Return the block as it goes over the wire."""
        return struct.pack(
            ">8s4I16s16s16s16s16s",
            self.signature,
            self.major,
            self.compat,
            self.incompat,
            self.ro_compat,
            self.poolset_uuid,
            self.uuid,
            self.next_uuid,
            self.prev_uuid,
            self.user_flags,
        )

    def hex(self) -> str:
        """Return the block in hex, as rpmem_client reads it."""
        return self.pack().hex()


def header_block(header: bytes) -> bytes:
    """Return the attribute block that a 4096-byte pool header stands for."""
    signature, *numbers = struct.unpack_from("<8s4I", header)
    poolset, part, prev_repl, next_repl = (header[o : o + 16] for o in (24, 40, 88, 104))
    return (
        signature
        + struct.pack(">4I", *numbers)
        + poolset
        + part
        + next_repl
        + prev_repl
        + header[128:144]
    )


def header_checksum(header: bytes) -> int:
    """Return the checksum that belongs into a header (at 4088)."""
    words = list(struct.unpack("<1024I", header))
    end = 2048 if words[4] & CKSUM_2K else 4088
    low = high = 0
    for index, word in enumerate(words):
        low = (low + (word if 4 * index < end else 0)) & 0xFFFFFFFF
        high = (high + low) & 0xFFFFFFFF
    return high << 32 | low
