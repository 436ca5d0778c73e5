"""Drives rpmem_client, the C program that makes every call of librpmem."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.interop.support.originals import Originals

Answer = dict[str, Any]


class NoAnswer(Exception):
    """The program hangs or has died; says which, and its last words."""


class RpmemClient:
    """A process linked with librpmem; one method call is one call of the library.

    Every wait has a limit: the original hangs where its peer dies.
    """

    def __init__(self, originals: Originals, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [str(originals.programs / "rpmem_client")],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._noise: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_answers, daemon=True),
            threading.Thread(target=self._read_noise, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_answers(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_noise(self) -> None:
        assert self.process.stderr is not None
        self._noise.extend(self.process.stderr)

    def __enter__(self) -> RpmemClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    @property
    def stderr(self) -> str:
        """What the library has written to standard error so far."""
        return "".join(self._noise)

    def send(self, *words: object) -> None:
        """Send a command without waiting for its answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise NoAnswer(f"died with status {self.process.wait(10)}: {self.stderr}") from None

    def receive(self, timeout: float = 60) -> Answer:
        """Return the next answer."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise NoAnswer(f"no answer within {timeout} s: {self.stderr}") from None
        if line is None:
            status = self.process.wait(10)
            raise NoAnswer(f"died with status {status}: {self.stderr}")
        answer: Answer = json.loads(line)
        if answer["call"] == "error":
            raise AssertionError(answer["message"])
        return answer

    def ask(self, *words: object, timeout: float = 60) -> Answer:
        """Send a command and return its answer, whatever it says."""
        self.send(*words)
        return self.receive(timeout)

    def do(self, *words: object, timeout: float = 60) -> Answer:
        """Send a command that must succeed and return its answer."""
        answer = self.ask(*words, timeout=timeout)
        assert answer["rc"] == 0, f"{words}: {answer} {self.stderr}"
        return answer

    def errno(self, *words: object, timeout: float = 60) -> int:
        """Send a command and return its errno, 0 if it succeeded."""
        return int(self.ask(*words, timeout=timeout)["errno"])

    def end(self, timeout: float = 30) -> int:
        """Let the program close what is open and return its exit status."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # it is dead already: see wait()
                self.process.stdin.close()
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status

    def kill(self) -> None:
        """Kill the program as a power cut would."""
        self.process.kill()
        self.end()


def pattern(offset: int, length: int, seed: int) -> bytes:
    """Return what rpmem_client's ``fill`` writes at these pool offsets."""
    where = np.arange(offset, offset + length, dtype=np.int64)
    return (seed + 7 * where + 13 * (where >> 8)).astype(np.uint8).tobytes()
