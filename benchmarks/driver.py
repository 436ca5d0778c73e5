"""The process that does the measured work of one contestant, and communication with it.

Every contestant, in C or in Python, is a process that takes jobs as lines on its standard input
and answers each with a line of JSON and its samples. So all are measured by the same rules: the
clock is read in the process that makes the call, and idle contestants wait for a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PATIENCE = 120.0


class DriverLost(Exception):
    """A contestant's process ended, or does not answer; the text contains its last output."""


@dataclass(frozen=True)
class Job:
    """An operation to repeat.

    Attributes
    ----------
    op : str
        The operation, by the contestant's name for it.
    size : int
        Bytes of one operation.
    count, warmup : int
        Timed repetitions, and untimed ones before them; per thread.
    threads : int
        How many threads at the same time.
    depth : int
        Operations in a batch, or in flight.
    chunk : int
        Size of pieces into which large operations are cut, if the contestant allows a choice.
    span : int
        Bytes over which the operations are spread, per thread; 0: always the same place.
    """

    op: str
    size: int
    count: int = 1
    warmup: int = 0
    threads: int = 1
    depth: int = 1
    chunk: int = 1 << 18
    span: int = 0

    def line(self) -> str:
        span = max(self.span, self.size, 64)
        return (
            f"{self.op} {self.size} {self.count} {self.warmup} {self.threads} "
            f"{self.depth} {self.chunk} {span}\n"
        )


@dataclass(frozen=True)
class Samples:
    """The times of a job, in nanoseconds: of every operation, in total, and of the processors.

    The last is 0 where it is measured from outside.
    """

    nanoseconds: NDArray[np.uint64]
    wall: int
    bytes: int
    processor: int = 0


@dataclass
class Driver:
    """A contestant's process.

    Parameters
    ----------
    words : list of str
        Its command line.
    log : Path
        The file for its standard error.
    variables : mapping
        Added to its environment.
    companions : list of int
        Other processes that work for it, such as its target.
    """

    words: Sequence[str]
    log: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    companions: list[int] = field(default_factory=list)
    hello: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(map(str, self.words)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.variables},
            )
        self._pending = b""
        try:
            self.hello = json.loads(self._line(_PATIENCE))
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def run(self, job: Job, patience: float = _PATIENCE) -> Samples:
        """Have it do a job.

        Raises
        ------
        DriverLost
            The process ended, or took longer than `patience` seconds.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(job.line().encode())
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: closed after being lost
            raise self._lost() from error
        answer = json.loads(self._line(patience))
        if not answer["count"]:
            raise DriverLost(f"no figure came out of {job.op} of {job.size} bytes")
        data = self._exactly(8 * answer["count"], patience)
        taken = np.frombuffer(data, dtype=np.uint64)
        return Samples(taken, answer["wall_ns"], answer["bytes"], answer.get("cpu_ns", 0))

    def close(self, patience: float = 30.0) -> None:
        """End it by closing its input."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it may have ended already
            self._process.stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _lost(self) -> DriverLost:
        self.close(1.0)
        words = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        said = "; ".join(words) or "no last words"
        return DriverLost(f"{Path(self.words[0]).name} ended ({self._process.returncode}): {said}")

    def _more(self, deadline: float) -> None:
        assert self._process.stdout is not None
        left = deadline - time.monotonic()
        stream = self._process.stdout.fileno()
        if left <= 0 or not select.select([stream], [], [], left)[0]:
            self._process.kill()
            raise DriverLost(f"{' '.join(map(str, self.words))[:200]}: no answer in time")
        piece = os.read(stream, 1 << 20)
        if not piece:
            raise self._lost()
        self._pending += piece

    def _line(self, patience: float) -> bytes:
        deadline = time.monotonic() + patience
        while b"\n" not in self._pending:
            self._more(deadline)
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _exactly(self, size: int, patience: float) -> bytes:
        deadline = time.monotonic() + patience
        while len(self._pending) < size:
            self._more(deadline)
        data, self._pending = self._pending[:size], self._pending[size:]
        return data
