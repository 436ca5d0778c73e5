"""Our initiator, in this process, with a node's daemon at the other end."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rpmem
from rpmem import PoolAttributes, Replica
from tests.interop.support.node import MIB, Node

SIZE = 4 * MIB
PAGE = 4096
ATTRIBUTES = PoolAttributes(
    signature=b"TESTPOOL",
    major=7,
    compat=0x10,
    ro_compat=0x20,
    poolset_uuid=b"p" * 16,
    uuid=b"u" * 16,
    next_uuid=b"n" * 16,
    prev_uuid=b"v" * 16,
    user_flags=bytes(range(1, 17)),
)

#: How a daemon makes data durable: its options and the environment it needs.
METHODS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "general": ((), {}),
    "general-pmem": ((), {"PMEM_IS_PMEM_FORCE": "1"}),
    "apm": (("--persist-apm",), {"PMEM_IS_PMEM_FORCE": "1"}),
}


def random_pool(size: int = SIZE, seed: int = 1) -> bytearray:
    """Return a pool's memory with nothing in its header and noise behind it."""
    buffer = bytearray(size)
    buffer[PAGE:] = random.Random(seed).randbytes(size - PAGE)
    return buffer


@dataclass
class OurInitiator:
    """`rpmem.create`, `open` and `remove` on one node, reached as librpmem's users reach it.

    Parameters
    ----------
    node : Node
        The target.
    set_variable : callable
        ``set_variable(NAME, value)`` for this process, undone after the test.
    """

    node: Node
    set_variable: Callable[[str, str], None]
    options: dict[str, Any] = field(default_factory=lambda: {"timeout": 60.0})

    def command(self, *options: str, variables: dict[str, str] | None = None) -> None:
        """Have the daemon started with these options and variables from now on."""
        self.set_variable("RPMEM_CMD", self.node.command(*options, variables=variables))

    def method(self, name: str) -> None:
        """Have the daemon use one of `METHODS`."""
        options, variables = METHODS[name]
        self.command(*options, variables=variables)

    def create(self, buffer: Any, name: str, nlanes: int = 4, **more: Any) -> Replica:
        """Create a pool, by default with attributes."""
        arguments = {"attributes": ATTRIBUTES, **self.options, **more}
        return rpmem.create(self.node.host, name, buffer, nlanes, **arguments)

    def open(self, buffer: Any, name: str, nlanes: int = 4, **more: Any) -> Replica:
        """Open a pool."""
        return rpmem.open(self.node.host, name, buffer, nlanes, **{**self.options, **more})

    def remove(self, name: str, **more: Any) -> None:
        """Remove a pool."""
        rpmem.remove(self.node.host, name, **{**self.options, **more})

    def note_pid(self) -> Callable[[], int]:
        """Have the daemon leave its process id; returns what reads it."""
        path = self.node.folder / "pid"
        words = ["sh", "-c", 'echo $$ >"$0"; exec "$@"', str(path)]
        self.node.daemon = [*words, *self.node.daemon]
        self.command()
        return lambda: int(path.read_text())

    def wrap(self, *words: str) -> None:
        """Start the daemon through another program."""
        self.node.daemon = [*words, *self.node.daemon]
        self.command()

    def image(self, name: str) -> bytes:
        """Return the pool as it lies in the parts."""
        return self.node.pool_bytes(name)

    def stored(self, name: str, offset: int, length: int) -> bytes:
        """Return a piece of a pool of one part, as the file has it."""
        with self.node.part(name).open("rb") as part:
            part.seek(offset)
            return part.read(length)

    def remote_address(self) -> int:
        """Return where the last pool lay in the daemon's memory, from its log."""
        return int(re.findall(r"raddr: (0x[0-9a-f]+)", self.node.log)[-1], 16)


def flushed_ranges(record: Path, base: int) -> list[tuple[int, int]]:
    """Return what record_msync.c saw, as pool offsets: begin and end."""
    lines = record.read_text().splitlines() if record.exists() else []
    pairs = [tuple(int(word, 16) for word in line.split()) for line in lines]
    return [(address - base, address - base + length) for address, length in pairs]
