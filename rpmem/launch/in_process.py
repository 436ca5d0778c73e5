"""rpmemd over an ssh connection made inside this process, by paramiko.

For machines without an ssh program. It is named after what it does, to avoid confusion with the
package. Importing this module imports paramiko: only `launch` does so, and only if needed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings

import paramiko

from rpmem.base import interrupts
from rpmem.base.target import Target
from rpmem.errors import LaunchFailed
from rpmem.launch.base import Deadline, Tail, Transport
from rpmem.launch.paramiko_client import Connection

# A channel has one time-out for both directions, so every call waits in slices of this length;
# paramiko's own thread wakes up as often.
_SLICE_S = 0.1
_CHUNK = 32 * 1024
_STDERR_GRACE_S = 0.5
_THREAD_GRACE_S = 2.0


class InProcessTransport(Transport):
    """One command on a separate ssh connection.

    Parameters
    ----------
    connection : Connection
        Logged in; closed with the transport.
    channel : paramiko.Channel
        The channel on which the command was started.
    target, command, timeout_s
        As for `Transport`.
    """

    launcher = "paramiko"

    def __init__(
        self,
        connection: Connection,
        channel: paramiko.Channel,
        *,
        target: Target,
        command: str,
        timeout_s: float,
    ) -> None:
        super().__init__(target, command, timeout_s)
        self._connection = connection
        self._channel = channel
        self._tail = Tail()
        channel.settimeout(_SLICE_S)
        self._drain = threading.Thread(
            target=_drain,
            args=(channel, self._tail),
            name=f"rpmem stderr of {self.node}",
            daemon=True,
        )
        self._drain.start()

    @property
    def peer_host(self) -> str:  # noqa: D102 - see Transport
        return self._connection.config.hostname

    def session_hosts(self) -> set[str]:  # noqa: D102
        return {self.peer_host, *self._connection.addresses()}

    def _send_some(self, data: memoryview, deadline: Deadline) -> int:
        try:
            sent: int = self._channel.send(bytes(data[:_CHUNK]))
        except TimeoutError:
            interrupts.check()
            if deadline.passed:
                raise self._late(deadline, "took no data") from None
            return 0
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost_error() from error
        if sent == 0:
            raise self._lost_error()
        return sent

    def receive(self, limit: int, timeout_s: float | None) -> bytes:  # noqa: D102
        self._check_owner()
        deadline = Deadline(timeout_s)
        with self._receive_lock:
            while not self._at_end:
                if self._is_closed:
                    raise self._closed_error()
                try:
                    data: bytes = self._channel.recv(limit)
                except TimeoutError:
                    interrupts.check()
                    if deadline.passed:
                        raise self._late(deadline, "sent nothing") from None
                    continue
                if data:
                    return data
                self._at_end = True
            if self._is_closed:
                raise self._closed_error()
            return b""

    def stderr_text(self) -> str:  # noqa: D102
        if self._owner == os.getpid() and self._channel.status_event.is_set():
            self._drain.join(_STDERR_GRACE_S)
        return self._tail.text()

    def exit_status(self, timeout_s: float = 0.0) -> int | None:  # noqa: D102
        self._check_owner()
        # recv_exit_status() has no time-out, but the event it waits for does.
        deadline = Deadline(timeout_s)
        while not self._channel.status_event.wait(deadline.left(_SLICE_S) or 0):
            if deadline.passed:
                return None
        return int(self._channel.exit_status)

    def kill(self) -> None:  # noqa: D102
        self._check_owner()
        self._connection.abort()

    def _finish(self, timeout_s: float) -> None:
        # Even closing can block if the connection is dead.
        deadline = Deadline(timeout_s)
        watchdog = threading.Timer(deadline.left() or 0, self._force)
        watchdog.daemon = True
        watchdog.start()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()
        with self._receive_lock:
            self._channel.settimeout(interrupts.SLICE_S)
            self._discard_output(deadline)
        with self._send_lock, contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()
        self._connection.close()
        watchdog.cancel()
        self._drain.join(_THREAD_GRACE_S)

    def _force(self) -> None:
        self.forced = True
        self._connection.abort()

    def _discard_output(self, deadline: Deadline) -> None:
        """Wait for rpmemd's end until the deadline, which an interrupt brings forward."""
        while not self._channel.status_event.is_set():
            if deadline.passed:
                self._force()
                return
            try:
                if self._at_end:
                    self._channel.status_event.wait(interrupts.SLICE_S)
                else:
                    self._at_end = self._channel.recv(_CHUNK) == b""
            except TimeoutError:
                continue
            except OSError:
                return

    def _drop(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._connection.drop()

    def __del__(self) -> None:
        if hasattr(self, "_drain") and not self._is_closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, 2, source=self)
            self._is_closed = True
            self._connection.abort()


def start(
    target: Target, command: str, *, timeout_s: float, ipv4_only: bool = False
) -> InProcessTransport:
    """Connect to a target and start a command there.

    Parameters
    ----------
    target : Target
        Not a local one.
    command : str
        For the login shell.
    timeout_s : float
        For all of it, and for calls on the transport without a limit of their own.
    ipv4_only : bool
        As ``ssh -4``.

    Returns
    -------
    InProcessTransport
        With the command running.

    Raises
    ------
    LaunchError
        Of any kind; see `Connection`.
    DeadlineExceeded
        It did not finish in time.
    """
    deadline = Deadline(timeout_s)
    connection = Connection(target, deadline, ipv4_only=ipv4_only)
    try:
        connection.now("starting rpmemd")
        with interrupts.broken_by(connection.abort):
            channel = connection.session.open_session(timeout=deadline.left())
            try:
                channel.exec_command(command)
            except paramiko.SSHException as error:
                if deadline.passed:
                    raise
                raise LaunchFailed(
                    f"{target.host} does not let this user run commands: {error}"
                ) from error
        connection.established()
        return InProcessTransport(
            connection, channel, target=target, command=command, timeout_s=timeout_s
        )
    except BaseException as error:
        with interrupts.undoing():
            connection.close()
        interrupts.check()
        shown = connection.explained(error)
        if shown is error:
            raise
        raise shown from error


def _drain(channel: paramiko.Channel, tail: Tail) -> None:
    while True:
        try:
            data = channel.recv_stderr(_CHUNK)
        except TimeoutError:
            continue
        except OSError:
            return
        if not data:
            return
        tail.append(data)
