"""An initiator that follows the protocol only as far as a test wants."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rpmem.base.environment import Environment
from rpmem.base.target import Target
from rpmem.control.initiator import InitiatorSession
from rpmem.control.messages import Create, Hello, LaneGrant, Open
from rpmem.control.proof import pack_proof
from rpmem.errors import RpmemError
from rpmem.fabric import providers
from rpmem.files.attributes import PoolAttributes
from rpmem.launch import launch
from rpmem.session.channel import Channel
from rpmem.wire import messages
from tests.support import fabrics
from tests.support.compiled import compiled
from tests.support.targets import ATTRIBUTES

UPDATE, REPLY = messages.MESSAGE_UPDATE, messages.MESSAGE_REPLY
ANSWER, DEEP = messages.UPDATE_ANSWER, messages.UPDATE_DEEP
WRITTEN = 1 << messages.WRITTEN_SHIFT
DONE, FLUSH_FAILED = messages.REPLY_DONE, messages.REPLY_FLUSH_FAILED
BAD_RANGE, BAD_MESSAGE = messages.REPLY_BAD_RANGE, messages.REPLY_BAD_MESSAGE

_HEADER = struct.Struct("<BBHI")
_DESCRIPTOR = struct.Struct("<QQ")
_REPLY = struct.Struct("<BBHIII")


def raw_lane() -> Any:
    """Return the module that sends any bytes."""
    return compiled("_raw_lane")


def update(
    sequence: int,
    ranges: Iterable[tuple[int, int]],
    data: bytes = b"",
    *,
    kind: int = UPDATE,
    flags: int = ANSWER,
    count: int | None = None,
) -> bytes:
    """Return an UPDATE message; `count` may disagree with the descriptors."""
    table = [_DESCRIPTOR.pack(offset, length) for offset, length in ranges]
    header = _HEADER.pack(kind, flags, len(table) if count is None else count, sequence)
    return header + b"".join(table) + data


class Reply:
    """A reply of the target, taken apart."""

    def __init__(self, data: bytes) -> None:
        self.kind, self.status, _, self.sequence, self.number, _ = _REPLY.unpack(data)

    def __repr__(self) -> str:
        return f"Reply(status={self.status}, sequence={self.sequence}, number={self.number})"


class RawSession:
    """A control session in good order, whose lanes are the test's own business.

    Parameters
    ----------
    directory : Path
        The pool set directory.
    lanes : int
        How many are asked for.
    size : int
        Of the pool.
    create : bool
        Create the pool, or open it.
    command : str, optional
        Instead of the ordinary rpmemd.
    message_size : int
        Largest message in band that is asked for, in bytes.
    attributes : PoolAttributes
        Of a pool that is created.
    features : tuple of str
        What the initiator says that it knows.
    """

    def __init__(
        self,
        directory: Path,
        *,
        lanes: int = 1,
        size: int = 2 << 20,
        create: bool = True,
        command: str | None = None,
        provider: str = "",
        timeout: float = 30.0,
        message_size: int = 1 << 16,
        attributes: PoolAttributes = ATTRIBUTES,
        features: tuple[str, ...] = (),
    ) -> None:
        self._raw = raw_lane()
        target = Target.parse(f"local:{directory}")
        self.transport = launch(
            target, [], environment=Environment.read(), command=command, timeout_s=timeout
        )
        self.failures: list[RpmemError] = []
        self.channel = Channel(
            self.transport,
            InitiatorSession(Hello.of_this_process("test", features), where=str(target)),
            where=str(target),
            timeout_s=timeout,
            on_failure=self.failures.append,
        )
        self.channel.greet()
        common: dict[str, Any] = {
            "pool_set": "a.set",
            "pool_size": size,
            "lanes": lanes,
            "providers": (provider or fabrics.default,),
            "message_size": message_size,
            "step": "auto",
        }
        if create:
            request = Create(**common, attributes=attributes.pack(), parts=1)
            self.ready = self.channel.create(request)
        else:
            self.ready = self.channel.open(Open(**common))
        self._module = providers.load(self.ready.provider)
        self._fabric = self._module.Fabric(self.ready.provider, "127.0.0.1", self.ready.port)
        self._owned: list[Any] = []

    @property
    def pid(self) -> int:
        """Process id of the daemon."""
        assert self.channel.peer is not None
        return self.channel.peer.pid

    # --- lanes ----------------------------------------------------------------------------

    def begin(self, number: int = 0, proof: bytes | None = None) -> Any:
        """Send a connection request, by default with the token of lane `number`."""
        grant = self.ready.lanes[number] if number < len(self.ready.lanes) else self.ready.lanes[0]
        domain = self._module.Domain(self._fabric)
        queue = self._module.Queue(domain)
        lane = self._module.FabricLane(domain, queue, number, (4, 1 << 17), (8, 64))
        self._owned = [lane, queue, domain, *self._owned]
        lane.aim(grant.address, grant.key, self.ready.pool_size)
        lane.connect(self.proof(number) if proof is None else proof)
        return lane

    def proof(self, number: int) -> bytes:
        """Return what an honest request for a lane carries."""
        grant: LaneGrant = self.ready.lanes[number]
        return pack_proof(number, grant.token)

    def lane(self, number: int = 0, proof: bytes | None = None, timeout: float = 10.0) -> Any:
        """Connect a lane; ConnectFailed when it is turned down."""
        lane = self.begin(number, proof)
        self.finish([lane], timeout)
        return lane

    def finish(self, lanes: list[Any], timeout: float = 10.0) -> None:
        """Wait until lanes are connected."""
        self._fabric.await_lanes(lanes, timeout)
        for lane in lanes:
            self._raw.post_receives(lane)

    def send(self, lane: Any, message: bytes) -> None:
        """Send a message, whatever it is."""
        self._raw.send(lane, message)

    def write(self, lane: Any, data: bytes, offset: int) -> str:
        """WRITE somewhere; return how it completed."""
        self._raw.write(lane, data, offset, commit=False)
        return self.wait(lane)[0]

    def read(self, lane: Any, offset: int, length: int) -> bytes | None:
        """READ from somewhere; None when that failed."""
        self._raw.read(lane, offset, length)
        return self._raw.scratch(lane, length) if self.wait(lane)[0] == "read" else None

    def wait(self, lane: Any, timeout: float = 10.0) -> tuple[str, bytes]:
        """Return the next thing that completes: its kind, and what was received."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for kind, data in self._raw.poll(lane):
                if kind != "other":
                    return kind, data
            time.sleep(0.0005)
        return "nothing", b""

    def reply(self, lane: Any, timeout: float = 10.0) -> Reply | None:
        """Return the next reply; None when the lane ends instead."""
        kind, data = self.wait(lane, timeout)
        return Reply(data) if kind == "receive" else None

    def exchange(self, lane: Any, message: bytes) -> Reply | None:
        """Send a message and wait for the reply."""
        self.send(lane, message)
        return self.reply(lane)

    # --- the daemon -----------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the daemon runs."""
        return self.transport.exit_status(0) is None

    def failure(self, timeout: float = 10.0) -> RpmemError | None:
        """Wait for what the daemon says about the session's end."""
        return self.channel.await_failure(timeout)

    def close(self) -> None:
        """Drop everything."""
        for item in self._owned:
            item.close()
        self._owned.clear()
        self._fabric.close()
        self.channel.abandon()

    def __enter__(self) -> RawSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
