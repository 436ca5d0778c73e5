"""How a process spent the time between a signal and its effect: waiting, computing or sleeping.

The kernel counts for every thread how long it ran and how long it was ready but had no core
(``/proc/PID/task/TID/schedstat``). The time that the threads of this process, of the servers that
it is told of and of their descendants waited for cores is due to a busy machine; the rest is ours.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

#: Seconds in which a signal has to take effect.
SOON = 0.2
# Seconds between two looks at the threads: those that have ended are not counted any more.
_LOOK = 0.02
_FRAMES = 12

#: (process, thread): nanoseconds that it ran, and that it waited for a core.
Times = dict[tuple[int, int], tuple[int, int]]


@dataclass
class Delay:
    """The time from a signal to its effect.

    Parameters
    ----------
    took_s : float
        All of it.
    queued_s : float
        In which at least one thread that took part is known to have waited for a core.
    ran_s : float
        What those threads ran, together.
    doing : list of str
        What every thread did when the signal was late.
    """

    took_s: float
    queued_s: float
    ran_s: float
    doing: list[str] = field(default_factory=list)

    @property
    def own_s(self) -> float:
        """What is not for want of a core."""
        return max(self.took_s - self.queued_s, 0.0)


@dataclass
class Summary:
    """What a run did.

    Parameters
    ----------
    call : str
        What was interrupted.
    rounds, interrupted : int
        Signals sent, and those that came before the call was over.
    took_ms : float
        The call itself, undisturbed.
    median_ms, most_ms : float
        From the signal to the exception.
    most_own_ms : float
        The same without what was for want of a core.
    late, late_by_us : int
        Exceptions that came more than 0.2 s after their signal, and of those the ones that did so
        not for want of a core.
    late_ones : list of dict
        Each of them: its round, what it waited for, and what every thread did at 0.2 s.
    """

    call: str
    rounds: int = 0
    interrupted: int = 0
    took_ms: float = 0.0
    median_ms: float = 0.0
    most_ms: float = 0.0
    most_own_ms: float = 0.0
    late: int = 0
    late_by_us: int = 0
    late_ones: list[dict[str, Any]] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)

    def add(self, number: int, delay: Delay) -> None:
        """Note that the signal of a round interrupted its call."""
        self.interrupted += 1
        self.delays.append(delay)
        if delay.took_s > SOON:
            self.late += 1
            self.late_by_us += delay.own_s > SOON
            self.late_ones.append({"round": number, "own_s": delay.own_s, **asdict(delay)})

    def sum_up(self) -> dict[str, Any]:
        """Return the figures."""
        if self.delays:
            self.median_ms = statistics.median(each.took_s for each in self.delays) * 1e3
            self.most_ms = max(each.took_s for each in self.delays) * 1e3
            self.most_own_ms = max(each.own_s for each in self.delays) * 1e3
        figures = asdict(self)
        del figures["delays"]
        return figures


class Watch:
    """Looks on from the moment of a signal to that of its effect.

    Parameters
    ----------
    number : int
        The signal.
    moment : float or callable
        When to send it: in so many seconds, or when this returns.
    servers : iterable of int
        Processes that take part and descend from somebody else.
    """

    def __init__(
        self, number: int, moment: float | Callable[[], object], servers: Iterable[int] = ()
    ) -> None:
        self._number = number
        self._moment = moment
        self._servers = list(servers)
        self._over = threading.Event()
        self._sent = self._ended = 0.0
        self._ran_s = 0.0
        self._queued: list[tuple[float, float]] = []
        self._doing: list[str] = []
        self._thread = threading.Thread(target=self._run, name="watch")

    def start(self) -> Self:
        """Begin to wait for the moment."""
        self._thread.start()
        return self

    def effect(self) -> None:
        """Take notice that the signal had its effect."""
        self._ended = time.monotonic()
        self._over.set()

    def join_after(self, seconds: float) -> Delay:
        """Wait for the effect, and return what was seen."""
        if not self._over.wait(seconds):
            raise TimeoutError("the signal had no effect")
        return self.join()

    def join(self) -> Delay:
        """Return what was seen."""
        self._over.set()
        self._thread.join()
        queued = covered(self._queued, self._sent, self._ended)
        return Delay(self._ended - self._sent, queued, self._ran_s, self._doing)

    def _run(self) -> None:
        if callable(self._moment):
            self._moment()
        else:
            time.sleep(self._moment)
        before = times_of_all(self._servers)
        self._sent = time.monotonic()
        os.kill(os.getpid(), self._number)
        while True:
            over = self._over.wait(_LOOK)
            before = self._look(before)
            if over:
                return
            if not self._doing and time.monotonic() - self._sent > SOON:
                self._doing = doings(self._servers)

    def _look(self, before: Times) -> Times:
        after, now = times_of_all(self._servers), time.monotonic()
        for thread, (ran, queued) in after.items():
            ran_then, queued_then = before.get(thread, (0, 0))
            self._ran_s += (ran - ran_then) * 1e-9
            # It is counted once the thread has its core, so it was over just now.
            if queued > queued_then:
                self._queued.append((now - (queued - queued_then) * 1e-9, now))
        return after


def covered(spans: list[tuple[float, float]], begin: float, end: float) -> float:
    """Return how much of the time from `begin` to `end` lies in at least one of the spans."""
    total, reached = 0.0, begin
    for first, last in sorted(spans):
        first, last = max(first, reached), min(last, end)
        if last > first:
            total += last - first
            reached = last
    return total


def times_of_all(servers: Iterable[int] = ()) -> Times:
    """Return the times of all threads of these and this process and of all descendants, if seen."""
    found: Times = {}
    processes = [os.getpid(), *servers]
    while processes:
        process = processes.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{process}/task"):
                task = f"/proc/{process}/task/{thread}"
                with contextlib.suppress(OSError, ValueError):
                    ran, queued, _ = map(int, Path(f"{task}/schedstat").read_text().split())
                    found[process, int(thread)] = ran, queued
                    processes += map(int, Path(f"{task}/children").read_text().split())
    return found


def doings(servers: Iterable[int] = ()) -> list[str]:
    """Say what every thread of this process, and each process below it or a server, does now."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            stack = traceback.extract_stack(frame)[-_FRAMES:]
            where = " > ".join(f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in stack)
            found.append(f"{names.get(ident, 'thread')}: {where}")
    for process, thread in times_of_all(servers):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{process}/task/{thread}/stat").read_text()
            command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ")
            state = stat.rpartition(")")[2].split()[0]
            where = f"{state} {_line(process, thread, 'wchan')} {_line(process, thread, 'syscall')}"
            found.append(f"{process}/{thread} {command.decode()[:60]}: {where}")
    return found


def _line(process: int, thread: int, name: str) -> str:
    try:
        return Path(f"/proc/{process}/task/{thread}/{name}").read_text().strip().split(" ")[0]
    except OSError:
        return "-"
