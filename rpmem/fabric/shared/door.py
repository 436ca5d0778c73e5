"""The door of a listener: connections wait here until they have sent a whole request.

A connection waits without blocking others, and is identified by what it sends first. What a whole
request looks like is the fabric's business: it gives the door a kind of `Visitor`.

Waiting connections are limited in number and time, per source and in total. When there is no more
room, the oldest connection of the source with the most is dropped; an honest request follows right
after its connection, which has usually left by then.

The descriptors for the expected lanes are reserved before the door's address is announced: if there
are too few, that is reported immediately, and strangers cannot use them up.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

from rpmem.base.remedies import remedy_for
from rpmem.errors import ConnectFailed
from rpmem.fabric.shared.spare import Spare

# Most waiting connections, of one source and of all, besides the expected ones: far fewer than a
# process may have descriptors.
MOST_OF_ONE = 64
MOST = 256
#: Seconds from the connection until its whole request must have come.
LONGEST_WAIT = 5.0
# Connections accepted at a time, before the waiting ones are checked again.
_ACCEPTED_AT_ONCE = 64
_BACKLOG = 1024
# Without a free descriptor: seconds until the next try, and until it counts as an error.
_PAUSE = 0.05
LONGEST_STARVED = 2.0
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_IPV6_NETWORK = 8
_MAPPED = bytes(10) + b"\xff\xff"

_PORTS = ("FI_TCP_PORT_LOW_RANGE", "FI_TCP_PORT_HIGH_RANGE")


class Visitor:
    """A connection that has not sent its whole request yet, or awaits admission; an abstract base.

    Parameters
    ----------
    connection : socket.socket
        Owned.
    peer : tuple
        Its origin: address and port.

    Attributes
    ----------
    request : bytes
        The bytes it has sent so far.
    data : bytes
        What it is admitted by, once the request is whole.
    largest : int
        Of the class: bytes of the longest request.
    """

    largest: ClassVar[int]

    def __init__(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        self.connection = connection
        self.peer = peer
        self.since = time.monotonic()
        self.request = b""
        self.data = b""

    @property
    def source(self) -> bytes | str:
        """The unit that counts as one source: an IPv4 address, or a /64 of IPv6."""
        address = self.peer[0].partition("%")[0]
        if ":" not in address:
            return address
        packed = socket.inet_pton(socket.AF_INET6, address)
        # How IPv4 appears at a socket that accepts both.
        if packed.startswith(_MAPPED):
            return socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED) :])
        return packed[:_IPV6_NETWORK]

    def read(self) -> bool | None:
        """Read what has come; True: the request is whole, False: it never will be, None: wait."""
        try:
            data = self.connection.recv(self.largest + 1 - len(self.request))
        except BlockingIOError:
            return None
        except OSError:
            return False
        if not data:
            return False
        self.request += data
        return self.judge()

    def judge(self) -> bool | None:
        """Look at the bytes of `request`, and set `data`: what `read` returns."""
        raise NotImplementedError

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


_V = TypeVar("_V", bound=Visitor)


class Door(Generic[_V]):
    """A listening socket and the connections that wait at it.

    Parameters
    ----------
    host : str
        The address to listen on; the port is chosen by the system, or from the range that
        libfabric's variables name.
    visitor : callable
        Makes a visitor of a connection and its origin; mostly the kind of visitors itself.
    expected : int
        How many lanes are expected: so many more may wait, and a descriptor is reserved for each.
    tools : int
        How many descriptors are reserved besides, to hand a lane over.

    Attributes
    ----------
    port : int
    dropped : int
        Connections that were dropped without a request.

    Raises
    ------
    ConnectFailed
        There is no such address, or there are too few descriptors for the expected lanes.
    """

    def __init__(
        self,
        host: str,
        visitor: Callable[[socket.socket, tuple[str, int]], _V],
        expected: int = 0,
        tools: int = 0,
    ) -> None:
        self.dropped = 0
        self._visitor = visitor
        self._most_of_one = MOST_OF_ONE + expected
        self._most = MOST + expected
        self._waiting: dict[int, _V] = {}
        self._paused_until = 0.0
        self._starved_since = 0.0
        self._seats = self._tools = Spare(0)
        self._socket = _listening(host)
        self._knocks = select.poll()
        self._knocks.register(self._socket, select.POLLIN)
        self.port: int = self._socket.getsockname()[1]
        try:
            self._seats = Spare(expected)
            self._tools = Spare(tools)
        except OSError as error:
            self.close()
            raise short(error, f"lanes cannot be accepted at {host}") from error

    def next(self, timeout: float) -> _V | None:
        """Wait for a whole request."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            visitor = self._turn(max(left, 0.0))
            if visitor is not None or left <= 0:
                return visitor

    def begin_to_hand_over(self) -> None:
        """Release the descriptors reserved for handing a lane over."""
        self._tools.give(len(self._tools))

    def end_handing_over(self) -> None:
        """Reserve as many again for the next lane."""
        self._tools.refill()

    def close(self) -> None:
        """Stop listening, and drop waiting connections. Idempotent."""
        self._socket.close()
        self._seats.close()
        self._tools.close()
        for visitor in self._waiting.values():
            visitor.close()
        self._waiting.clear()

    def _turn(self, timeout: float) -> _V | None:
        now = time.monotonic()
        poll = select.poll()
        for descriptor in self._waiting:
            poll.register(descriptor, select.POLLIN)
        accepts = now >= self._paused_until
        if accepts:
            poll.register(self._socket, select.POLLIN)
        else:
            timeout = min(timeout, self._paused_until - now)
        if self._waiting:
            oldest = min(visitor.since for visitor in self._waiting.values())
            timeout = min(timeout, max(oldest + LONGEST_WAIT - now, 0.0))
        ready = {descriptor for descriptor, _ in poll.poll(timeout * 1000)}
        for descriptor in ready & self._waiting.keys():
            visitor = self._look(self._waiting[descriptor])
            if visitor is not None:
                return visitor
        self._expire()
        if accepts and self._socket.fileno() in ready:
            return self._accept()
        return None

    def _accept(self) -> _V | None:
        for _ in range(_ACCEPTED_AT_ONCE):
            # Without a free descriptor, accept(2) fails even if no connection is waiting.
            if not self._knocks.poll(0):
                return None
            try:
                connection, address = self._socket.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                # No descriptor is free, or the connection is already gone.
                self._make_do(error)
                return None
            self._starved_since = 0.0
            connection.setblocking(False)
            visitor = self._visitor(connection, (address[0], address[1]))
            self._waiting[connection.fileno()] = visitor
            # An honest request has usually arrived by now.
            if self._look(visitor) is not None:
                return visitor
            self._make_room(visitor)
        return None

    def _make_do(self, error: OSError) -> None:
        """Go on without a free descriptor for a while; after that, none will come."""
        now = time.monotonic()
        if error.errno in _SHORTAGES and self._seats:
            self._seats.give()
            return
        if self._waiting:
            self._drop(self._most_tiresome())
            return
        self._paused_until = now + _PAUSE
        self._starved_since = self._starved_since or now
        if error.errno in _SHORTAGES and now - self._starved_since > LONGEST_STARVED:
            raise short(error, "no lane can be accepted") from error

    def _look(self, visitor: _V) -> _V | None:
        whole = visitor.read()
        if whole is False:
            self._drop(visitor)
        if not whole:
            return None
        del self._waiting[visitor.connection.fileno()]
        return visitor

    def _expire(self) -> None:
        late = time.monotonic() - LONGEST_WAIT
        for visitor in [each for each in self._waiting.values() if each.since <= late]:
            self._drop(visitor)

    def _make_room(self, last: _V) -> None:
        alike = [each for each in self._waiting.values() if each.source == last.source]
        if len(alike) > self._most_of_one:
            self._drop(alike[0])
        elif len(self._waiting) > self._most:
            self._drop(self._most_tiresome())

    def _most_tiresome(self) -> _V:
        """Return the oldest visitor of the source with the most visitors."""
        sources: dict[bytes | str, list[_V]] = {}
        for visitor in self._waiting.values():
            sources.setdefault(visitor.source, []).append(visitor)
        return max(sources.values(), key=len)[0]

    def _drop(self, visitor: _V) -> None:
        if self._waiting.pop(visitor.connection.fileno(), None) is not None:
            self.dropped += 1
            visitor.close()


def short(error: OSError, what: str) -> ConnectFailed:
    """Return the error for something that the kernel refused."""
    return ConnectFailed(
        f"{what}: {error.strerror or error}", errno=error.errno, hint=remedy_for(error.errno)
    )


def _listening(host: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        problem: OSError | None = None
        for port in _ports():
            # A new socket each time: a bound one cannot be bound again.
            listening = socket.socket(family, kind, protocol)
            try:
                listening.bind((address[0], port, *address[2:]))
                listening.listen(_BACKLOG)
            except OSError as error:
                listening.close()
                problem = error
                continue
            listening.setblocking(False)
            return listening
    except OSError as error:
        raise short(error, f"lanes cannot be accepted at {host}") from error
    raise ConnectFailed(
        f"lanes cannot be accepted at {host}: {problem}",
        hint=f"with {_PORTS[0]} and {_PORTS[1]} the port is chosen from a range",
    )


def _ports() -> list[int]:
    """Return the ports to try: any, or those of a range, starting at a random one."""
    low, high = (_number(os.environ.get(name, "")) for name in _PORTS)
    if not 0 < low <= high <= 0xFFFF:
        return [0]
    first = int.from_bytes(os.urandom(4), "little") % (high - low + 1)
    ports = list(range(low, high + 1))
    return ports[first:] + ports[:first]


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0
