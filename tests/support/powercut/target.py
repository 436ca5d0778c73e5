"""rpmemd in a thread of this process, so that one recorder sees both machines."""

from __future__ import annotations

import io
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rpmem.base.target import Target
from rpmem.errors import PoolSetError
from rpmem.launch import local
from rpmem.launch.base import Deadline, Transport
from rpmemd import config as configuration
from rpmemd.__main__ import remove
from rpmemd.database import Database
from rpmemd.log import Log
from rpmemd.session import Session
from rpmemd.stream import Stream


class Died(BaseException):
    """Raised inside a target to let it end at once, as if it were killed."""


class ThreadTransport(Transport):
    """A session with an rpmemd that is a thread."""

    launcher = "local"
    pid = 0

    def __init__(self, target: Target, arguments: Sequence[str], timeout_s: float) -> None:
        super().__init__(target, "a thread", timeout_s)
        self._ours, self._theirs = socket.socketpair()
        self._said = io.StringIO()
        self._status: int | None = None
        self._thread = threading.Thread(target=self._run, args=(list(arguments),), daemon=True)
        self._thread.start()

    def _run(self, arguments: list[str]) -> None:
        log = Log(file=self._said)
        try:
            config = configuration.read(arguments)
            if config.remove is not None:
                self._status = _remove(config, log)
                return
            descriptor = self._theirs.fileno()
            session = Session(
                config,
                log,
                Stream(descriptor, descriptor),
                Database(config.poolset_dir),
                address="127.0.0.1",
                peer="127.0.0.1",
            )
            self._status = session.run()
        except Died:
            self._status = -signal.SIGKILL
        except BaseException:
            traceback.print_exc()
            self._status = 1
        finally:
            self._theirs.close()

    @property
    def peer_host(self) -> str:
        return "127.0.0.1"

    def _send_some(self, data: memoryview, deadline: Deadline) -> int:
        try:
            return self._ours.send(data)
        except OSError as error:
            raise self._lost_error() from error

    def receive(self, limit: int, timeout_s: float | None) -> bytes:
        deadline = Deadline(timeout_s)
        if self._is_closed:
            raise self._closed_error()
        if self._at_end:
            return b""
        poll = select.poll()
        poll.register(self._ours, select.POLLIN)
        if not poll.poll(deadline.milliseconds()):
            raise self._late(deadline, "sent nothing")
        try:
            data = self._ours.recv(limit)
        except OSError:
            data = b""
        self._at_end = not data
        if self._is_closed:
            raise self._closed_error()
        return data

    def stderr_text(self) -> str:
        return self._said.getvalue()

    def exit_status(self, timeout_s: float = 0.0) -> int | None:
        self._thread.join(timeout_s)
        return None if self._thread.is_alive() else self._status

    def kill(self) -> None:
        self._ours.shutdown(socket.SHUT_RDWR)

    def _finish(self, timeout_s: float) -> None:
        try:
            # Both ways: it wakes a thread that waits in `receive`, too.
            self._ours.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            print(f"the far side was gone already: {error}", file=sys.stderr)
        self._thread.join(timeout_s)
        self._ours.close()

    def _drop(self) -> None:
        self._is_closed = True


def _remove(config: configuration.Config, log: Log) -> int:
    try:
        return remove(config, log)
    except PoolSetError as error:
        log.err(str(error))
        return 1


@contextmanager
def targets_are_threads() -> Iterator[None]:
    """Let every ``local:`` target be a thread of this process."""

    def start(
        target: Target, arguments: Sequence[str], *, command: str | None, timeout_s: float, **_: Any
    ) -> ThreadTransport:
        assert target.local_directory is not None
        directory = ["--poolset-dir", target.local_directory]
        return ThreadTransport(target, [*directory, *arguments], timeout_s)

    original = local.start
    local.start = start  # type: ignore[assignment]
    try:
        yield
    finally:
        local.start = original
