"""What every launcher gives: a byte stream to rpmemd on the target, and the far side's last words.

A `Transport` may be used by one sending thread and one receiving thread at the same time; `close`
and `kill` may come from any thread and wake both. A forked child process drops its copies of the
descriptors at once, so that the target still sees the end of the session when the parent dies.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping

from rpmem.base import interrupts
from rpmem.base.handles import Closing
from rpmem.base.target import Target
from rpmem.errors import ClosedError, DeadlineExceeded, ForkedError, ReplicaLost

#: How much of the far side's stderr is kept: the last bytes, as causes tend to come last.
STDERR_LIMIT = 64 * 1024

#: How long `Transport.close` lets rpmemd finish before it is ended by force.
CLOSE_GRACE_S = 5.0


class Deadline:
    """A point in time that a chain of waits shares; without a limit it never comes.

    An interrupt of the call that a thread works for brings it nearer (`rpmem.base.interrupts`).

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
        """Return the seconds that are left, never negative, and not more than `most`."""
        left = None if self._at is None else max(self._at - time.monotonic(), 0.0)
        left = interrupts.limited(left)
        if left is None or most is None:
            return most if left is None else left
        return min(left, most)

    def milliseconds(self, most: float | None = None) -> int | None:
        """Return what is left in the unit of ``poll``, rounded up so that it never spins."""
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
        """Return what is kept as text, with the line ends of this system."""
        return bytes(self._kept).decode("utf-8", "replace").replace("\r\n", "\n")


class Transport(Closing, ABC):
    """The standard streams of one rpmemd, wherever it runs.

    Parameters
    ----------
    target : Target
        Where rpmemd was asked to run.
    command : str
        What was asked to run, as the far side's shell (or this machine) was given it.
    timeout_s : float
        Longest wait of calls that are not told another one.

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
        """What messages call the far side."""
        return "this machine" if self.target.is_local else self.target.host

    @property
    @abstractmethod
    def peer_host(self) -> str:
        """What the fabric is to connect to, by name or address."""

    def session_hosts(self) -> set[str]:
        """Return the addresses and names that the session is known to have gone to."""
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
            What rpmemd is to read on its stdin.
        timeout_s : float, optional
            Seconds; by default the launch's.

        Raises
        ------
        DeadlineExceeded
            The far side did not take the data in time. Part of it may have been sent: the
            stream is of no use any more.
        ReplicaLost
            The far side is gone. While rpmemd is being started, `diagnose` knows why.
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
            How many bytes to return at most.
        timeout_s : float or None
            Seconds; None waits until something comes or the transport is closed, for a thread
            that does nothing else.

        Returns
        -------
        bytes
            At least one byte; ``b""`` when the far side has closed its stdout.

        Raises
        ------
        DeadlineExceeded
            Nothing came in time. The transport stays usable.
        ClosedError
            The transport was closed, before or during the call.
        """

    @abstractmethod
    def stderr_text(self) -> str:
        """Return what the far side has written on stderr: the last 64 KiB of it.

        When rpmemd has ended, what is still on its way is waited for, for a moment.
        """

    def settings(self) -> Mapping[str, str]:
        """Return what ssh_config(5) says for the target, by lower-case keyword, where it counts."""
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
            The exit status; minus the signal's number when a signal ended the child process;
            None while it runs.
        """

    @abstractmethod
    def kill(self) -> None:
        """End the far side at once and without ceremony; `close` is still to be called."""

    def close(self, timeout_s: float = CLOSE_GRACE_S) -> None:
        """Let rpmemd end, by the end of its stdin, and release everything.

        Parameters
        ----------
        timeout_s : float
            Seconds until it is ended by force.
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
        """Close the descriptors and touch nothing else: this is a forked copy."""

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
