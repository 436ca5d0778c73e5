"""A process of this machine as a transport: the system's ssh, or rpmemd itself.

stdin is a socket, because a socket can be shut down for good even if a forked process holds a copy
of it, and written to without SIGPIPE. stdout and stderr are pipes, because scripts may open
``/dev/stderr``. The child leads a new session: a Ctrl-C meant for the program does not end it, and
neither it nor its helpers can prompt on the terminal.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Mapping, Sequence

from rpmem.base import interrupts
from rpmem.base.remedies import remedy_for, shortage
from rpmem.base.target import Target
from rpmem.errors import LaunchFailed
from rpmem.launch.base import Deadline, Tail, Transport

_CHUNK = 64 * 1024
_LONGEST_NAP_S = 0.02
# Seconds for SIGTERM and then SIGKILL to take effect.
_TERM_GRACE_S = 1.0
_KILL_GRACE_S = 5.0
# After a child's end, its helper may keep stderr open: the output up to then is enough.
_STDERR_GRACE_S = 0.5


class StderrDrain:
    """Reads a pipe to its end in a thread, so that its writer never blocks.

    Parameters
    ----------
    descriptor : int
        Read end; owned once the thread has started, closed when it ends.
    name : str
        For the thread.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.tail = Tail()
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._stop = -1
        try:
            self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            os.set_blocking(descriptor, False)
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        except BaseException:
            self._descriptor = -1
            self.drop()
            raise

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of the stream, or of the thread."""
        if threading.current_thread() is self._thread:
            return
        deadline = Deadline(timeout_s)
        while self._thread.is_alive() and not deadline.passed:
            self._thread.join(deadline.left(interrupts.slice_s()))

    def stop(self) -> None:
        """Let the thread end; output that has arrived by now is kept."""
        with self._lock:
            if self._stop >= 0:
                os.eventfd_write(self._stop, 1)

    def drop(self) -> None:
        """Close the descriptors; only for a process in which the thread cannot be running."""
        descriptors = self._descriptor, self._stop
        self._descriptor = self._stop = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        try:
            while True:
                stopped = any(descriptor == self._stop for descriptor, _ in poll.poll())
                try:
                    data = os.read(self._descriptor, _CHUNK)
                except BlockingIOError:
                    data = None
                if data:
                    self.tail.append(data)
                if stopped or data == b"":
                    return
        finally:
            with self._lock:
                self.drop()


class ChildTransport(Transport):
    """A child process and its three streams.

    Parameters
    ----------
    argv : sequence of str
        What to run.
    target, command, timeout_s
        As for `Transport`.
    environment : mapping of str to str, optional
        The child's environment variables; by default this process's.

    Raises
    ------
    LaunchFailed
        The program cannot be run on this machine.
    """

    #: The hint if the program cannot be run.
    absent_hint: str | None = None

    def __init__(
        self,
        argv: Sequence[str],
        *,
        target: Target,
        command: str,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(target, command, timeout_s)
        self.argv = tuple(argv)
        self._reap_lock = threading.Lock()
        self._status: int | None = None
        self._process: subprocess.Popen[bytes]
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            stdin, child_stdin = socket.socketpair()
            ours.callback(stdin.close)
            theirs.callback(child_stdin.close)
            stdout, child_stdout = os.pipe()
            ours.callback(os.close, stdout)
            theirs.callback(os.close, child_stdout)
            stderr, child_stderr = os.pipe()
            ours.callback(os.close, stderr)
            theirs.callback(os.close, child_stderr)
            wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            ours.callback(os.close, wake)
            # No preexec_fn: it would rule out vfork, and a fork copies the page tables of all the
            # program's memory.
            try:
                self._process = subprocess.Popen(
                    self.argv,
                    stdin=child_stdin.fileno(),
                    stdout=child_stdout,
                    stderr=child_stderr,
                    env=environment,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise LaunchFailed(
                    f"cannot run {shlex.quote(self.argv[0])}: {reason}",
                    errno=error.errno if isinstance(error, OSError) else None,
                    hint=remedy_for(shortage(error)) or self.absent_hint,
                ) from error
            ours.callback(self._end_at_once)
            stdin.setblocking(False)
            os.set_blocking(stdout, False)
            drain = StderrDrain(stderr, f"rpmem stderr of {self.node}")
            ours.pop_all()
        self._stdin = stdin
        self._stdout = stdout
        self._wake = wake
        self._drain = drain

    def _end_at_once(self) -> None:
        """Kill a child that cannot be returned, as the resources to watch it are lacking."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def _send_some(self, data: memoryview, deadline: Deadline) -> int:
        try:
            return self._stdin.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            if not self._wait(self._stdin.fileno(), select.POLLOUT, deadline):
                raise self._late(deadline, "took no data") from None
            return 0
        except OSError as error:
            raise self._lost_error() from error

    def receive(self, limit: int, timeout_s: float | None) -> bytes:  # noqa: D102 - see Transport
        self._check_owner()
        deadline = Deadline(timeout_s)
        with self._receive_lock:
            while True:
                if self._is_closed:
                    raise self._closed_error()
                if self._at_end:
                    return b""
                try:
                    data = os.read(self._stdout, limit)
                except BlockingIOError:
                    if not self._wait(self._stdout, select.POLLIN, deadline):
                        raise self._late(deadline, "sent nothing") from None
                    continue
                if not data:
                    self._at_end = True
                return data

    def _wait(self, descriptor: int, event: int, deadline: Deadline) -> bool:
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(self._wake, select.POLLIN)
        while not poll.poll(deadline.milliseconds(interrupts.slice_s())):
            if deadline.passed:
                return False
            interrupts.check()
        return True

    def stderr_text(self) -> str:  # noqa: D102
        if self._owner == os.getpid() and self.exit_status() is not None:
            self._drain.wait(_STDERR_GRACE_S)
        return self._drain.tail.text()

    def exit_status(self, timeout_s: float = 0.0) -> int | None:  # noqa: D102
        self._check_owner()
        deadline = Deadline(timeout_s)
        nap = 0.001
        while (status := self._reap()) is None and not deadline.passed:
            time.sleep(deadline.left(nap) or 0)
            nap = min(nap * 2, _LONGEST_NAP_S)
        return status

    def _reap(self) -> int | None:
        with self._reap_lock:
            if self._status is None:
                self._status = self._process.poll()
            return self._status

    def _await_end(self, seconds: float) -> None:
        """Wait for a killed child without fail: an interrupt must not leave a zombie."""
        end = time.monotonic() + seconds
        while self._reap() is None and time.monotonic() < end:
            time.sleep(0.001)

    def kill(self) -> None:  # noqa: D102
        self._check_owner()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Under the lock the child cannot be reaped, so its pid cannot belong to another process.
        with self._reap_lock:
            if self._status is None and self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, number)

    def _finish(self, timeout_s: float) -> None:
        os.eventfd_write(self._wake, 1)
        with contextlib.suppress(OSError):
            self._stdin.shutdown(socket.SHUT_WR)
        with self._receive_lock:
            self._discard_output(Deadline(timeout_s))
        if self.exit_status(0) is None:
            self.forced = True
            self._signal(signal.SIGTERM)
            if self.exit_status(_TERM_GRACE_S) is None:
                self._signal(signal.SIGKILL)
                self._await_end(_KILL_GRACE_S)
        self._drain.wait(_STDERR_GRACE_S)
        self._drain.stop()
        # So that its descriptors are closed when this returns, not a little later.
        self._drain.wait(_STDERR_GRACE_S)
        with self._send_lock, self._receive_lock:
            self._release()

    def _discard_output(self, deadline: Deadline) -> None:
        """Wait for the child's end, without letting it block or fail on its last output."""
        while self.exit_status(0) is None and not deadline.passed:
            if self._at_end:
                self.exit_status(deadline.left() or 0)
                return
            poll = select.poll()
            poll.register(self._stdout, select.POLLIN)
            if poll.poll((deadline.left(_LONGEST_NAP_S) or 0) * 1000):
                with contextlib.suppress(BlockingIOError):
                    self._at_end = os.read(self._stdout, _CHUNK) == b""

    def _release(self) -> None:
        self._stdin.close()
        for name in ("_stdout", "_wake"):
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)

    def _drop(self) -> None:
        if not self._is_closed and hasattr(self, "_drain"):
            self._is_closed = True
            self._release()
            self._drain.drop()

    def __del__(self) -> None:
        if hasattr(self, "_drain") and not self._is_closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, 2, source=self)
            self._is_closed = True
            with contextlib.suppress(OSError):
                self._stdin.shutdown(socket.SHUT_WR)  # the child ends when its stdin does
            self._drain.stop()
            self._release()
