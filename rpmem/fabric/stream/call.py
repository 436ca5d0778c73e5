"""How a lane over TCP comes about: the initiator proves who it is, the target answers.

The initiator sends the proof of `rpmem.control.proof`, and nothing more until it has the answer.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rpmem.fabric.shared.door import Visitor

if TYPE_CHECKING:
    from rpmem.fabric.stream.handshake import Handshake

__all__ = ["ANSWER", "PROOF_SIZE", "UNANSWERED_MS", "Call", "Caller", "prepare"]

#: Bytes of what an initiator sends first.
PROOF_SIZE: Final = 40
#: What the target sends once the lane is admitted: a name, and the version of what follows.
ANSWER: Final = b"RPMA\x00\x01\x00\x00"

# Seconds of silence after which the kernel asks whether the other side is still there, and between
# two such questions; how many may be unanswered.
_IDLE_S, _BETWEEN_S, _QUESTIONS = 10, 5, 4
#: Longest time without an answer to what a target has sent, in ms. An initiator has no such limit:
#: a target whose medium is slow may take long, and each call says how long it waits.
UNANSWERED_MS: Final = 30_000


def prepare(connection: socket.socket, unanswered_ms: int = 0) -> None:
    """Set the options of a lane's socket: send at once, and notice a dead other side.

    Parameters
    ----------
    connection : socket.socket
    unanswered_ms : int
        How long what was sent may be without an answer of the other side's kernel; 0: calls that
        wait for it have their own time limit.
    """
    connection.setblocking(False)
    if connection.family == socket.AF_UNIX:
        return
    options = (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _BETWEEN_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _QUESTIONS),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unanswered_ms),
    )
    for level, name, value in options:
        connection.setsockopt(level, name, value)


class Caller(Visitor):
    """A connection that wants to become a lane; `data` is its proof."""

    largest = PROOF_SIZE
    secret: Handshake | None = None

    def judge(self) -> bool | None:
        """Look at the request: True, it is whole; False, it never will be; None, wait."""
        if len(self.request) > PROOF_SIZE:
            return False
        if len(self.request) < PROOF_SIZE:
            return None
        self.data = self.request
        return True


class Call:
    """A connection of the initiator's side, until the target has answered.

    Parameters
    ----------
    addresses : sequence of tuple
        Families and addresses, tried one after the other.
    proof : bytes
        What is sent first.

    Attributes
    ----------
    events : int
        What to wait for, as poll(2) says it.
    secret : Handshake or None
        What encrypts the connection.
    """

    secret: Handshake | None = None

    def __init__(self, addresses: Sequence[tuple[int, tuple[str, int]]], proof: bytes) -> None:
        self._addresses = list(addresses)
        self._unsent = proof
        self._proof = proof
        self._answer = b""
        self._socket: socket.socket | None = None
        self.events = select.POLLOUT
        self._call(None)

    @property
    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._open.fileno()

    def proceed(self) -> bool:
        """Go on as far as is possible without waiting; whether the target has answered.

        Raises
        ------
        OSError
            It refused, or none of the addresses can be reached.
        """
        try:
            number = self._open.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number))
            if not self._has_proved():
                return False
            self.events = select.POLLIN
            return self._has_answer()
        except BlockingIOError:
            return False
        except OSError as error:
            if self.events == select.POLLIN:
                raise
            self._call(error)
            return False

    def answered(self) -> int:
        """Return the descriptor of the socket, which belongs to the caller now."""
        connection, self._socket = self._open, None
        return connection.detach()

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def _open(self) -> socket.socket:
        assert self._socket is not None
        return self._socket

    def _has_proved(self) -> bool:
        """Go on to prove who this is; whether that is done."""
        if self._unsent:
            self._unsent = self._unsent[self._open.send(self._unsent, socket.MSG_NOSIGNAL) :]
        return not self._unsent

    def _receive(self, most: int) -> bytes:
        return self._open.recv(most)

    def _has_answer(self) -> bool:
        found = self._receive(len(ANSWER) - len(self._answer))
        if not found:
            raise OSError(0, "")
        self._answer += found
        if not ANSWER.startswith(self._answer):
            raise OSError(errno.EPROTO, "what answers there is not rpmemd")
        return len(self._answer) == len(ANSWER)

    def _call(self, problem: OSError | None) -> None:
        """Begin to connect to the next address."""
        while self._addresses:
            self.close()
            family, address = self._addresses.pop(0)
            self._unsent, self._answer = self._proof, b""
            try:
                self._socket = socket.socket(family, socket.SOCK_STREAM)
                prepare(self._socket)
                number = self._socket.connect_ex(address)
            except OSError as error:
                problem = error
                continue
            if number in (0, errno.EINPROGRESS):
                return
            problem = OSError(number, os.strerror(number))
        assert problem is not None
        raise problem
