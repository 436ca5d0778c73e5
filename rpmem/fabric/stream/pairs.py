"""Pairs of sockets instead of connections: the lanes between a process and its child.

The target makes them and passes one end of each over the Unix socket that is its stdin, many
together with one byte. So there is no path, no port and no listener, and nobody else can reach
them.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, cast

from rpmem.base import interrupts
from rpmem.base.handles import Handle
from rpmem.base.remedies import remedy_for
from rpmem.errors import ConnectFailed
from rpmem.fabric.stream.request import Request

if TYPE_CHECKING:
    from rpmem.fabric.contract import Lane
    from rpmem.fabric.stream.fabric import Fabric

__all__ = ["Inherited", "PairListener", "Taker", "can_carry"]

_MARK: Final = b"L"
# Passed together: the socket has room for only so many messages before anybody reads.
_TOGETHER: Final = 64
# Seconds between two looks at interrupts.
_SLICE_S: Final = 0.05


def can_carry(descriptor: int) -> bool:
    """Return whether descriptors can be passed over one."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        return found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM
    finally:
        found.detach()


class Taker(Handle):
    """Takes the ends of pairs that a child passes.

    Parameters
    ----------
    over : socket.socket
        The Unix socket that is the child's stdin.
    timeout_s : float
        For each of them.
    """

    def __init__(self, over: socket.socket, timeout_s: float) -> None:
        self._over = over
        self._timeout_s = timeout_s
        self._taken: deque[int] = deque()

    def take_descriptor(self) -> int:
        """Return the next one, which belongs to the caller.

        Raises
        ------
        ConnectFailed
            None comes in time, or something else.
        """
        if not self._taken:
            self._await()
            self._taken.extend(self._take())
        return self._taken.popleft()

    def close(self) -> None:
        """Drop what was passed and not taken. Idempotent."""
        while self._taken:
            os.close(self._taken.pop())

    def _take(self) -> list[int]:
        try:
            mark, found, _, _ = socket.recv_fds(
                self._over, len(_MARK), _TOGETHER, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise ConnectFailed(
                f"no lane can be taken: {error.strerror}",
                errno=error.errno,
                hint=remedy_for(error.errno),
            ) from error
        if mark == _MARK and found and all(map(can_carry, found)):
            return found
        for each in found:
            os.close(each)
        gone = "the target hung up while it passed lanes"
        raise ConnectFailed("what the target passes is not a lane" if mark else gone)

    def _await(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        poll = select.poll()
        poll.register(self._over, select.POLLIN)
        while not poll.poll(1000 * _SLICE_S):
            interrupts.check()
            if time.monotonic() > deadline:
                raise ConnectFailed("the target passes no lanes")


class Inherited:
    """A lane that is connected from the beginning; has what a `Call` has.

    Parameters
    ----------
    descriptor : int
        Of its socket; owned.
    """

    events: Final = select.POLLOUT
    secret: Final = None

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._descriptor

    def proceed(self) -> bool:
        """Whether it is connected."""
        return True

    def answered(self) -> int:
        """Return the descriptor, which belongs to the caller now."""
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self._descriptor >= 0:
            os.close(self.answered())


class PairListener:
    """Makes as many pairs as there are lanes, and passes them to the other side.

    Parameters
    ----------
    fabric : Fabric
        Its carrier is the descriptor over which they are passed.
    lanes : int

    Raises
    ------
    ConnectFailed
        There are too few descriptors.
    """

    port: Final = 0

    def __init__(self, fabric: Fabric, lanes: int) -> None:
        self.fabric = fabric
        self._waiting: deque[Request] = deque()
        try:
            with socket.socket(fileno=os.dup(cast("int", fabric.carrier))) as over:
                while len(self._waiting) < lanes:
                    self._pass(over, min(lanes - len(self._waiting), _TOGETHER))
        except OSError as error:
            self.close()
            raise ConnectFailed(
                f"lanes cannot be passed: {error.strerror}",
                errno=error.errno,
                hint=remedy_for(error.errno),
            ) from error

    def next(self, timeout: float, lanes: dict[int, Lane]) -> Request | Lane | None:
        """Return the next request, or a lane that was made from one, or None."""
        accepted = self.fabric.next_accepted(lanes)
        if accepted is not None:
            return accepted
        return self._waiting.popleft() if self._waiting else None

    def _pass(self, over: socket.socket, count: int) -> None:
        """Make so many pairs, and pass the other side its ends of them."""
        with ExitStack() as theirs:
            passed = []
            for _ in range(count):
                ours, other = socket.socketpair()
                self._waiting.append(Request(ours, b"", ("", 0), b""))
                passed.append(theirs.enter_context(other).fileno())
            socket.send_fds(over, [_MARK], passed)

    def close(self) -> None:
        """Drop what nobody has asked for. Idempotent."""
        while self._waiting:
            self._waiting.pop().reject()
