"""One session with a daemon, byte by byte: its pipes and its lanes, and nothing in between."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from rpmem.control import pmdk
from rpmem.control.events import Event, Opened
from rpmem.control.messages import Create
from rpmem.control.pmdk_initiator import PmdkInitiatorSession
from tests.interop.support.attributes import Attributes
from tests.interop.support.node import MIB, Node
from tests.interop.support.out_of_band import Daemon
from tests.interop.support.programs import LaneClient

SIZE = 8 * MIB
REPLY_SIZE = 8
FLUSH, DEEP, SEND = 0, 1, 2


def create_request(name: str, **changes: Any) -> Create:
    """Return a good create request, or one that is changed."""
    fields: dict[str, Any] = {
        "pool_set": name,
        "pool_size": SIZE,
        "lanes": 2,
        "providers": ("sockets",),
        "message_size": pmdk.MESSAGE_SIZE,
        "attributes": Attributes().pack(),
    }
    return Create(**{**fields, **changes})


def start(node: Node, *options: str, variables: Mapping[str, str] | None = None) -> Daemon:
    """Start a node's daemon; a signal that ends it shows in its exit status."""
    # libinfinipath would turn the signal into an exit status.
    return Daemon(node.words(*options, variables={"IPATH_NO_BACKTRACE": "1", **(variables or {})}))


class RawTarget:
    """A session with a pool and connected lanes, on which anything can be said.

    Parameters
    ----------
    node : Node
        Whose daemon is started.
    options : sequence of str
        Of the daemon.
    variables : mapping, optional
        For its environment.
    """

    def __init__(
        self,
        node: Node,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        lanes: int = 2,
    ) -> None:
        self.node = node
        self.name = node.make_set(SIZE)
        self.daemon = start(node, *options, variables=variables)
        self.session = PmdkInitiatorSession(where="the daemon")
        self.daemon.converse(self.session)
        self.session.create(create_request(self.name, lanes=lanes))
        opened = self.daemon.converse(self.session)
        assert isinstance(opened, Opened)
        self.ready = opened.ready
        self.lanes = LaneClient()
        self.lanes.connect(self.ready.port, lanes)

    def __enter__(self) -> RawTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.lanes.end()
        self.daemon.__exit__()

    def request(
        self, flags: int, lane: int, offset: int, size: int, data: bytes = b"", announced: int = -1
    ) -> bytes:
        """Return an in-band request as 24 bytes and data; `announced`: another lane inside."""
        address = (self.ready.lanes[0].address + offset) % (1 << 64)
        inside = lane if announced < 0 else announced
        return struct.pack("=IIQQ", flags, inside, address, size) + data

    def ask(self, lane: int, message: bytes, timeout: int = 5000) -> str:
        """Send a message and return what lane_client says of the answer."""
        return self.lanes.exchange(lane, message, timeout)

    def served(self, lane: int) -> bool:
        """Whether a good request on a lane is answered."""
        answer = self.ask(lane, self.request(SEND, lane, 65536, 4, b"good"), 3000)
        if answer.startswith("received"):
            assert self.lanes.ask("receive", lane, 64) == "posted"
        return is_reply(answer, lane)

    def stored(self, offset: int, length: int) -> bytes:
        """Return bytes of the part file."""
        with self.node.part(self.name).open("rb") as part:
            part.seek(offset)
            return part.read(length)

    def close(self) -> Event:
        """End the session in order; returns what the daemon answers."""
        self.session.close()
        return self.daemon.converse(self.session)


def is_reply(answer: str, lane: int) -> bool:
    """Whether lane_client received a reply as PMDK's initiators take it."""
    if not answer.startswith("received "):
        return False
    reply = bytes.fromhex(answer.split()[1])
    # The first four bytes of the original's are whatever was in its memory.
    return len(reply) == REPLY_SIZE and struct.unpack("=I", reply[4:]) == (lane,)
