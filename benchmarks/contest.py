"""Contests: contestants do the same thing in turns, A B C A B C, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks import statistics
from benchmarks.backends import Backend, Opened, reason
from benchmarks.driver import DriverLost, Job
from benchmarks.machine import ForeignLoad, descendants, scheduled
from benchmarks.room import Absent, Room, Setting

#: After a turn, targets poll a little longer; no measurement starts meanwhile.
_GAP = 0.008
_MOST = 4000


@dataclass(frozen=True)
class Contestant:
    """A rival with a job and a setting, and its name in the report."""

    key: str
    backend: str
    job: Job
    setting: Setting = field(default_factory=Setting)


@dataclass(frozen=True)
class Contest:
    """One question: how fast each contestant is at this `x`.

    Attributes
    ----------
    workload, x : str, number
        The plot, and the position on it.
    title : str
        The question, as text.
    contestants : list
        In order of their turns.
    measure : {"latency", "bandwidth", "rate"}
        The result that matters most to a reader.
    rounds, turn : int, float, optional
        Override those of the plan.
    crowded : bool
        There are more pollers than processors, so waiting for one is to be expected.
    """

    workload: str
    x: float
    title: str
    contestants: Sequence[Contestant]
    measure: str = "latency"
    rounds: int | None = None
    turn: float | None = None
    crowded: bool = False


@dataclass(frozen=True)
class Plan:
    """The amount of measuring.

    Attributes
    ----------
    quick : bool
        Fewer sizes.
    rounds : int
        Turns of each contestant.
    turn : float
        Approximate seconds per turn.
    patience : float
        Seconds during which disturbed rounds of a contest are repeated.
    samples : bool
        Keep every sample, not only the order statistics.
    """

    quick: bool
    rounds: int
    turn: float
    patience: float = 5.0
    samples: bool = False


def is_disturbed(entry: dict[str, Any]) -> bool:
    """Return whether the contestant's processes waited to run for a twentieth of a turn."""
    return bool(entry["waited"] > 0.05 * entry["wall"])


class Arena:
    """Opens contestants when they are first needed and holds the contests."""

    def __init__(
        self,
        room: Room,
        plan: Plan,
        backends: dict[str, Backend],
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._room = room
        self._plan = plan
        self._backends = backends
        self._say = say
        self._open: dict[tuple[str, Setting], Opened] = {}
        self.absent = {
            name: why
            for name, backend in backends.items()
            if (why := reason(backend, room)) is not None
        }

    def leave(self) -> None:
        """End all contestants, as after every workload."""
        for opened in self._open.values():
            try:
                opened.close()
            except OSError as error:
                self._say(f"while closing: {error}")
        self._open.clear()

    def _session(self, one: Contestant) -> Opened:
        key = (one.backend, one.setting)
        if key not in self._open:
            self._open[key] = self._backends[one.backend].open(self._room, one.setting)
        return self._open[key]

    def hold(self, contest: Contest) -> dict[str, Any] | None:
        """Hold a contest; return its entry for the JSON, or None if all contestants are absent."""
        rounds = contest.rounds or self._plan.rounds
        turn = contest.turn or self._plan.turn
        ready: list[tuple[Contestant, Opened, Job]] = []
        missing: dict[str, str] = {}
        for one in contest.contestants:
            if one.backend in self.absent or one.backend not in self._backends:
                missing[one.key] = self.absent.get(one.backend, "not asked for")
                continue
            try:
                opened = self._session(one)
                ready.append((one, opened, self._sized(opened, one.job, turn)))
            except (Absent, DriverLost) as error:
                missing[one.key] = str(error)
                self._drop(one, str(error))
        if not ready:
            return None
        results: dict[str, dict[str, Any]] = {}
        everything: dict[str, list[np.ndarray]] = {}
        pids = [pid for _, opened, _ in ready for pid in opened.pids]
        calm = number = 0
        deadline = time.monotonic() + self._plan.patience
        with ForeignLoad(pids) as load:
            # Which rounds are repeated depends only on the scheduler's counters, not on results.
            while calm < rounds and (number < rounds or time.monotonic() < deadline):
                disturbed = False
                # Rotate the starters, as being first should not be an advantage.
                shift = number % len(ready)
                for one, opened, job in (*ready[shift:], *ready[:shift]):
                    if one.key in missing:
                        continue
                    try:
                        entry, samples = self._turn(opened, job)
                    except DriverLost as error:
                        missing[one.key] = str(error)
                        self._drop(one, str(error))
                        continue
                    disturbed |= is_disturbed(entry) and not contest.crowded
                    record = results.setdefault(one.key, self._record(one, opened, job))
                    record["rounds"].append(entry)
                    everything.setdefault(one.key, []).append(samples)
                number += 1
                calm += not disturbed
        for key, record in results.items():
            whole = np.concatenate(everything[key])
            record["all"] = statistics.describe(whole)
            record["quantiles"] = statistics.quantiles(whole)
            if self._plan.samples:
                record["samples"] = [one.tolist() for one in everything[key]]
        return {
            "workload": contest.workload,
            "x": contest.x,
            "title": contest.title,
            "measure": contest.measure,
            "crowded": contest.crowded,
            "load": load.report(),
            "missing": missing,
            "contestants": results,
        }

    def _record(self, one: Contestant, opened: Opened, job: Job) -> dict[str, Any]:
        return {
            "backend": one.backend,
            "job": asdict(job),
            "setting": asdict(one.setting),
            "hello": opened.driver.hello,
            "rounds": [],
        }

    def _drop(self, one: Contestant, why: str) -> None:
        self._say(f"{one.key}: {why}")
        opened = self._open.pop((one.backend, one.setting), None)
        if opened is not None:
            opened.close()

    def _sized(self, opened: Opened, job: Job, turn: float) -> Job:
        """Return the job with as many operations as fit into a turn; this also warms up."""
        if job.count > 1:
            return job
        count = 3
        typical = self._typical(opened, replace(job, count=count, warmup=1))
        while typical * count < turn / 4 and count < _MOST:
            count = min(count * 4, _MOST)
            typical = self._typical(opened, replace(job, count=count))
        wanted = int(np.clip(turn / max(typical, 1e-9), 3, _MOST))
        return replace(job, count=wanted, warmup=max(wanted // 20, 1))

    def _typical(self, opened: Opened, job: Job) -> float:
        """Return seconds per operation: the median, to ignore single interruptions."""
        samples = opened.driver.run(job)
        if job.op == "stream":
            return samples.wall / 1e9 / job.count
        return float(np.median(samples.nanoseconds)) / 1e9

    def _turn(self, opened: Opened, job: Job) -> tuple[dict[str, Any], np.ndarray]:
        time.sleep(_GAP)
        family = descendants(opened.pids)
        ran, waited = scheduled(family)
        samples = opened.driver.run(job)
        ran_after, waited_after = scheduled(family)
        # The time to read the clock: less in C than in Python, and not part of a call.
        clock = np.uint64(opened.driver.hello.get("clock_ns", 0))
        taken = np.maximum(samples.nanoseconds, clock) - clock
        entry = statistics.describe(taken)
        entry |= {
            "wall": samples.wall,
            "bytes": samples.bytes,
            # CPU time of the driver and its target, and how long they waited for a processor
            "processor": samples.processor or ran_after - ran,
            "waited": waited_after - waited,
        }
        return entry, taken
