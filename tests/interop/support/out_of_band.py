"""A daemon as a child process, spoken to over its standard input and output only."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import time
from collections.abc import Sequence

from rpmem.control.events import Event
from rpmem.control.initiator_machine import InitiatorMachine


class Daemon:
    """A daemon that believes it was started by ssh from this machine.

    Parameters
    ----------
    words : list of str
        The command.
    """

    def __init__(self, words: Sequence[str]) -> None:
        environment = {**os.environ, "SSH_CONNECTION": "127.0.0.1 1024 127.0.0.1 22"}
        self.process = subprocess.Popen(
            list(words),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what it did not read
                    stream.close()

    def hang_up(self) -> None:
        """Close the daemon's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def send(self, data: bytes) -> None:
        """Write to the daemon."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def receive(self, limit: int = 4096, timeout: float = 60) -> bytes:
        """Return what the daemon says next; nothing at the end."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        ready, _, _ = select.select([descriptor], [], [], timeout)
        assert ready, f"the daemon is silent for {timeout} s"
        return os.read(descriptor, limit)

    def receive_exactly(self, length: int, timeout: float = 60) -> bytes:
        """Return that many bytes, or fewer at the end."""
        data = b""
        deadline = time.monotonic() + timeout
        while len(data) < length:
            piece = self.receive(length - len(data), max(0.0, deadline - time.monotonic()))
            if not piece:
                break
            data += piece
        return data

    def rest(self, timeout: float = 60) -> bytes:
        """Return everything until the end."""
        data = b""
        while piece := self.receive(timeout=timeout):
            data += piece
        return data

    def exit_status(self, timeout: float = 60) -> int:
        """Wait for the daemon to end; returns the status, negative for a signal."""
        return self.process.wait(timeout)

    def start(self) -> None:
        """Take the status word, which must be zero."""
        assert self.receive_exactly(4) == bytes(4)

    def converse(self, session: InitiatorMachine, timeout: float = 60) -> Event:
        """Exchange bytes for a session until it reports something."""
        self.send(session.data_to_send())
        while True:
            data = self.receive(timeout=timeout)
            events = session.receive(data) if data else session.receive_eof()
            if events:
                assert len(events) == 1
                return events[0]


def status_word(number: int) -> bytes:
    """Return a status word."""
    return struct.pack("=i", number)
