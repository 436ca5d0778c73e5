"""The result of every launcher: a byte stream to rpmemd on the target, and its last messages.

A `Transport` may be used by one sending thread and one receiving thread at the same time; `close`
and `kill` may come from any thread and wake both. A forked child process drops its copies of the
descriptors immediately, so that the target still sees the end of the session when the parent dies.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping

from rpmem.base import interrupts
from rpmem.base.handles import Closing
from rpmem.base.target import Target
from rpmem.errors import ClosedError, DeadlineExceeded, ForkedError, ReplicaLost

#: How much of the far side's stderr is kept: its end, where causes usually are.
STDERR_LIMIT = 64 * 1024

#: How long `Transport.close` waits for rpmemd to finish before killing it.
CLOSE_GRACE_S = 5.0


class Deadline:
    """A point in time shared by a chain of waits; without a limit it never comes.

    An interrupt of the call that the thread works for brings it forward (`rpmem.base.interrupts`).

    Parameters
    ----------
    seconds : float or None
        From now on; None for no limit.
    """

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        """Whether the point in time is over."""
        return self.left() == 0.0

    def left(self, most: float | None = None) -> float | None:
        """Return the remaining seconds, from 0 to `most`."""
        left = None if self._at is None else max(self._at - time.monotonic(), 0.0)
        left = interrupts.limited(left)
        if left is None or most is None:
            return most if left is None else left
        return min(left, most)

    def milliseconds(self, most: float | None = None) -> int | None:
        """Return the remaining time in the unit of ``poll``, rounded up to avoid spinning."""
        left = self.left(most)
        return None if left is None else int(left * 1000) + (left > 0)


class Tail:
    """The last bytes of a stream that may be endless.

    Parameters
    ----------
    limit : int
        How many bytes are kept.
    """

    def __init__(self, limit: int = STDERR_LIMIT) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.dropped = 0

    def append(self, data: bytes) -> None:
        """Add `data`, forgetting the oldest bytes beyond the limit."""
        self._kept += data
        surplus = len(self._kept) - self._limit
        if surplus > 0:
            del self._kept[:surplus]
            self.dropped += surplus

    def text(self) -> str:
        """Return the bytes kept as text, with the line ends of this system."""
        return bytes(self._kept).decode("utf-8", "replace").replace("\r\n", "\n")


class Transport(Closing, ABC):
    """The standard streams of one rpmemd, wherever it runs.

    Parameters
    ----------
    target : Target
        Where rpmemd was asked to run.
    command : str
        The command to run, as given to the far side's shell (or to this machine).
    timeout_s : float
        Longest wait of calls without a limit of their own.

    Attributes
    ----------
    launcher : str
        ``"openssh"``, ``"paramiko"`` or ``"local"``.
    forced : bool
        Whether `close` had to end rpmemd, or the ssh that ran it, by force.
    """

    launcher: str

    def __init__(self, target: Target, command: str, timeout_s: float) -> None:
        self.target = target
        self.command = command
        self.timeout_s = timeout_s
        self.forced = False
        self._owner = os.getpid()
        self._is_closed = False
        self._at_end = False
        self._state_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._receive_lock = threading.Lock()
        _open_transports.add(self)

    @property
    def node(self) -> str:
        """The name of the far side in messages."""
        return "this machine" if self.target.is_local else self.target.host

    @property
    @abstractmethod
    def peer_host(self) -> str:
        """The host that the fabric has to connect to, by name or address."""

    @property
    def carrier(self) -> socket.socket | None:
        """The Unix socket over which the other side can pass descriptors, if there is one."""
        return None

    def session_hosts(self) -> set[str]:
        """Return the addresses and names that the session is known to have reached."""
        return {self.peer_host}

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    @property
    def at_end(self) -> bool:
        """Whether the far side has closed its stdout (`receive` has returned ``b""``)."""
        return self._at_end

    def send(self, data: bytes | bytearray | memoryview, timeout_s: float | None = None) -> None:
        """Send all of `data`.

        Parameters
        ----------
        data : bytes-like
            The data for rpmemd's stdin.
        timeout_s : float, optional
            Seconds; by default the launch's.

        Raises
        ------
        DeadlineExceeded
            The far side did not accept the data in time. Part of it may have been sent, so the
            stream is no longer usable.
        ReplicaLost
            The far side is gone. While rpmemd is being started, `diagnose` can tell why.
        ClosedError
            The transport was closed, before or during the call.
        """
        self._check_owner()
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        rest = memoryview(data).cast("B")
        with self._send_lock:
            while rest:
                if self._is_closed:
                    raise self._closed_error()
                rest = rest[self._send_some(rest, deadline) :]

    @abstractmethod
    def receive(self, limit: int, timeout_s: float | None) -> bytes:
        """Wait for bytes from rpmemd's stdout.

        Parameters
        ----------
        limit : int
            The most bytes to return.
        timeout_s : float or None
            Seconds; None waits until data arrives or the transport is closed, for a thread that
            does nothing else.

        Returns
        -------
        bytes
            At least one byte; ``b""`` if the far side has closed its stdout.

        Raises
        ------
        DeadlineExceeded
            Nothing arrived in time. The transport stays usable.
        ClosedError
            The transport was closed, before or during the call.
        """

    @abstractmethod
    def stderr_text(self) -> str:
        """Return the last 64 KiB that the far side has written to stderr.

        If rpmemd has ended, wait a moment for output still on its way.
        """

    def settings(self) -> Mapping[str, str]:
        """Return the settings of ssh_config(5) for the target, if used, by lower-case keyword."""
        return {}

    @abstractmethod
    def exit_status(self, timeout_s: float = 0.0) -> int | None:
        """Return how rpmemd (or the ssh that runs it) ended.

        Parameters
        ----------
        timeout_s : float
            How many seconds to wait for the end.

        Returns
        -------
        int or None
            The exit status; minus the signal's number if a signal ended the child process; None
            while it runs.
        """

    @abstractmethod
    def kill(self) -> None:
        """Kill the far side immediately; `close` still has to be called."""

    def close(self, timeout_s: float = CLOSE_GRACE_S) -> None:
        """End rpmemd by closing its stdin, and release everything.

        Parameters
        ----------
        timeout_s : float
            Seconds until it is killed.
        """
        if self._owner != os.getpid():
            self._drop()
            return
        with self._state_lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._finish(timeout_s)

    @abstractmethod
    def _send_some(self, data: memoryview, deadline: Deadline) -> int:
        """Send what is taken now, which may be nothing if it was waited for; return how much.

        Raises
        ------
        DeadlineExceeded, ReplicaLost
            As for `send`.
        """

    @abstractmethod
    def _finish(self, timeout_s: float) -> None:
        """Carry out `close`, once."""

    @abstractmethod
    def _drop(self) -> None:
        """Close the descriptors and touch nothing else, in a forked copy."""

    def _check_owner(self) -> None:
        if self._owner != os.getpid():
            raise ForkedError(
                f"the session with {self.node} belongs to the parent process",
                hint="Open the replica again in this process",
            )

    def _late(self, deadline: Deadline, what: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.node} {what} within {deadline.seconds:g} s")

    def _lost_error(self) -> ReplicaLost:
        return ReplicaLost(f"{self.node} has ended the session")

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"the session with {self.node} is closed")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "at end" if self.at_end else "open"
        return f"<{type(self).__name__} {str(self.target)!r} {state}>"


_open_transports: weakref.WeakSet[Transport] = weakref.WeakSet()


def _drop_all() -> None:
    for transport in list(_open_transports):
        transport._drop()


os.register_at_fork(after_in_child=_drop_all)
