"""The door of a listener: connections wait here until they have shown a whole request.

libfabric's ``tcp`` keeps whatever connects to it: descriptors of connections that say nothing are
never freed, not even with the listener, and one that says half of a request is waited for, so that
nobody else gets in. So libfabric's own listener does not face the network. Connections come to a
socket of ours, wait without blocking anybody, and are known by their requests' private data;
only one that is admitted is handed to libfabric, as if it had accepted it itself.

What waits is bounded: in number and in time, by source and altogether. Where there is no more room,
the oldest connection of the source that has the most is dropped; an honest request comes on the
heels of its connection, and has mostly left before.

The descriptors that the expected lanes take are put by before anybody is told where the door is:
where there are too few, that is said at once, and strangers do not get them.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rpmem.errors import ConnectFailed, FabricFailure, remedy_for
from rpmem.fabric.libfabric.spare import Spare

# Connections that wait, of one source and of all, beside those that are expected: far fewer than a
# process may have descriptors.
MOST_OF_ONE = 64
MOST = 256
#: Seconds that a request may take from its connection on.
LONGEST_WAIT = 5.0
# Taken at a time, before those that wait are looked at again.
_ACCEPTED_AT_ONCE = 64
_BACKLOG = 1024
# Descriptors that handing a lane over takes for a moment: libfabric's listener and the connection
# it accepts, ours to it, its double, a look at all that are open; and some to be on the safe side.
_HANDING_OVER = 10
# Without a free descriptor: how long until the next try, and until it is taken for an error.
_PAUSE = 0.05
LONGEST_STARVED = 2.0
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_IPV6_NETWORK = 8
_MAPPED = bytes(10) + b"\xff\xff"

# libfabric's header of a request: version, type, size of the private data.
_REQUEST = struct.Struct(">BBH28x")
_CONNECT = 0
_LARGEST_DATA = 256
_PORTS = ("FI_TCP_PORT_LOW_RANGE", "FI_TCP_PORT_HIGH_RANGE")


class Visitor:
    """A connection that has not shown a whole request yet, or has and awaits admission.

    Parameters
    ----------
    connection : socket.socket
        Owned.
    peer : tuple
        Where it comes from: address and port.

    Attributes
    ----------
    request : bytes
        What it has sent so far.
    data : bytes
        The private data, once the request is whole.
    """

    def __init__(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        self.connection = connection
        self.peer = peer
        self.since = time.monotonic()
        self.request = b""
        self.data = b""

    @property
    def source(self) -> bytes | str:
        """What counts as one source: an IPv4 address, a /64 of IPv6."""
        address = self.peer[0].partition("%")[0]
        if ":" not in address:
            return address
        packed = socket.inet_pton(socket.AF_INET6, address)
        # How IPv4 comes to a socket that takes both.
        if packed.startswith(_MAPPED):
            return socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED) :])
        return packed[:_IPV6_NETWORK]

    def read(self) -> bool | None:
        """Take what has come; True: the request is whole, False: it will never be, None: wait."""
        wanted = _REQUEST.size + _LARGEST_DATA + 1 - len(self.request)
        try:
            data = self.connection.recv(wanted)
        except BlockingIOError:
            return None
        except OSError:
            return False
        if not data:
            return False
        self.request += data
        return self._judge()

    def _judge(self) -> bool | None:
        if len(self.request) >= 2 and self.request[1] != _CONNECT:
            return False
        if len(self.request) < _REQUEST.size:
            return None
        _, _, size = _REQUEST.unpack_from(self.request)
        missing = _REQUEST.size + size - len(self.request)
        if size > _LARGEST_DATA or missing < 0:
            return False
        if missing:
            return None
        self.data = self.request[_REQUEST.size :]
        return True

    def close(self) -> None:
        """Hang up."""
        self.connection.close()

    @contextmanager
    def inside(self, host: str, port: int) -> Iterator[tuple[tuple[str, int], int]]:
        """Repeat the request at a listener of this process.

        Yields as whom, and the descriptor that accepting it will most likely take.

        Raises
        ------
        ConnectFailed
            That listener cannot be reached.
        """
        try:
            with socket.create_connection((host, port), LONGEST_WAIT) as double:
                double.sendall(self.request)
                guess = os.dup(double.fileno())
                os.close(guess)
                yield double.getsockname()[:2], guess
        except OSError as error:
            raise _short(error, "a lane cannot be handed to libfabric") from error

    def replace(self, peer: tuple[str, int], guess: int) -> None:
        """Take the place of the accepted connection of `peer`, which libfabric knows by its number.

        Parameters
        ----------
        peer : tuple
        guess : int
            The descriptor it most likely has; both as `inside` gave them.
        """
        os.dup2(self.connection.fileno(), _descriptor_of(peer, guess), inheritable=False)
        self.connection.close()


class Door:
    """A listening socket and who waits at it.

    Parameters
    ----------
    host : str
        The address to listen on; the port is chosen by the system, or from the range that
        libfabric's variables name.
    expected : int
        How many are to come: so many more may wait, and each finds a descriptor.

    Attributes
    ----------
    port : int
    dropped : int
        Connections that were dropped without a request.

    Raises
    ------
    ConnectFailed
        There is no such address, or there are too few descriptors for those that are expected.
    """

    def __init__(self, host: str, expected: int = 0) -> None:
        self.dropped = 0
        self._most_of_one = MOST_OF_ONE + expected
        self._most = MOST + expected
        self._waiting: dict[int, Visitor] = {}
        self._paused_until = 0.0
        self._starved_since = 0.0
        self._seats = self._tools = Spare(0)
        self._socket = _listening(host)
        self._knocks = select.poll()
        self._knocks.register(self._socket, select.POLLIN)
        self.port: int = self._socket.getsockname()[1]
        try:
            self._seats = Spare(expected)
            self._tools = Spare(_HANDING_OVER if expected else 0)
        except OSError as error:
            self.close()
            raise _short(error, f"lanes cannot be accepted at {host}") from error

    def next(self, timeout: float) -> Visitor | None:
        """Wait for a whole request."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            visitor = self._turn(max(left, 0.0))
            if visitor is not None or left <= 0:
                return visitor

    def begin_to_hand_over(self) -> None:
        """Set free what is put by for handing a lane over."""
        self._tools.give(_HANDING_OVER)

    def end_handing_over(self) -> None:
        """Put the same by for the next one."""
        self._tools.refill()

    def close(self) -> None:
        """Stop listening, and drop who waits. Idempotent."""
        self._socket.close()
        self._seats.close()
        self._tools.close()
        for visitor in self._waiting.values():
            visitor.close()
        self._waiting.clear()

    def _turn(self, timeout: float) -> Visitor | None:
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

    def _accept(self) -> Visitor | None:
        for _ in range(_ACCEPTED_AT_ONCE):
            # Without a free descriptor accept(2) fails even if nobody has come.
            if not self._knocks.poll(0):
                return None
            try:
                connection, address = self._socket.accept()
            except BlockingIOError:
                return None
            except OSError as error:
                # No descriptor is free, or the connection has gone already.
                self._make_do(error)
                return None
            self._starved_since = 0.0
            connection.setblocking(False)
            visitor = Visitor(connection, (address[0], address[1]))
            self._waiting[connection.fileno()] = visitor
            # An honest request has mostly come by now.
            if self._look(visitor) is not None:
                return visitor
            self._make_room(visitor)
        return None

    def _make_do(self, error: OSError) -> None:
        """Go on without a descriptor, but not for long: who has none will not get one."""
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
            raise _short(error, "no lane can be accepted") from error

    def _look(self, visitor: Visitor) -> Visitor | None:
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

    def _make_room(self, last: Visitor) -> None:
        alike = [each for each in self._waiting.values() if each.source == last.source]
        if len(alike) > self._most_of_one:
            self._drop(alike[0])
        elif len(self._waiting) > self._most:
            self._drop(self._most_tiresome())

    def _most_tiresome(self) -> Visitor:
        """Return the oldest visitor of the source that has the most."""
        sources: dict[bytes | str, list[Visitor]] = {}
        for visitor in self._waiting.values():
            sources.setdefault(visitor.source, []).append(visitor)
        return max(sources.values(), key=len)[0]

    def _drop(self, visitor: Visitor) -> None:
        if self._waiting.pop(visitor.connection.fileno(), None) is not None:
            self.dropped += 1
            visitor.close()


def _short(error: OSError, what: str) -> ConnectFailed:
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
            # A new one each time: one that is bound cannot be bound again.
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
        raise _short(error, f"lanes cannot be accepted at {host}") from error
    raise ConnectFailed(
        f"lanes cannot be accepted at {host}: {problem}",
        hint=f"with {_PORTS[0]} and {_PORTS[1]} the port is chosen from a range",
    )


def _ports() -> list[int]:
    """Return the ports to try: any, or those of a range, from somewhere in it on."""
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


def _descriptor_of(peer: tuple[str, int], guess: int) -> int:
    """Return the descriptor of this process's connection with `peer`."""
    if _has_peer(guess, peer):
        return guess
    for name in os.listdir("/proc/self/fd"):
        if _has_peer(int(name), peer):
            return int(name)
    raise FabricFailure("the connection that libfabric accepted cannot be found")


def _has_peer(descriptor: int, peer: tuple[str, int]) -> bool:
    with suppress(OSError):
        candidate = socket.socket(fileno=descriptor)
        try:
            found: tuple[str, int] = candidate.getpeername()[:2]
            return found == peer
        finally:
            candidate.detach()
    return False
