"""Power cuts: pull the plug while a workload persists, boot again, look what is there."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.rdma.bench import guest
from tests.rdma.bench.report import BenchError, say, step
from tests.rdma.records import SLOTS

_LIMIT = 180.0
# Records that are acknowledged before the plug is pulled.
_FEWEST, _MOST = 20, 400
# Numbers that one turn has for itself: more than a guest can write in its time.
_APART = 1000 * SLOTS


@dataclass(frozen=True)
class Case:
    """One way to make records durable.

    Attributes
    ----------
    name : str
    place : str
        Where the target keeps its pool.
    options : str
        Of tests.rdma.workload.
    loses : bool
        It is a target that skips its flushes: the cut has to find that out.
    """

    name: str
    place: str
    options: str
    loses: bool = False


#: A disk loses what nobody synced. An emulated NVDIMM has no caches that could lose anything:
#: there only the way of the data and the file system are put to the test.
CASES = (
    Case("tcp to a disk", "disk", "--provider tcp"),
    Case("verbs to a disk", "disk", "--provider verbs"),
    Case("verbs of libfabric to a disk", "disk", "--provider ofi-verbs"),
    Case("tcp to files on DAX", "fsdax", "--provider tcp"),
    Case("RDMA FLUSH to device DAX", "devdax", "--provider verbs --step flush"),
    Case("read-after-write to device DAX", "devdax", "--provider verbs --step read-after-write"),
    Case("a target that skips its msync", "disk", "--provider tcp --breakage 1", loses=True),
)


@dataclass
class _Promise:
    """What the console said."""

    highest: dict[int, int] = field(default_factory=dict)
    last: int = 0
    state: list[list[int]] | None = None
    served: str = ""
    lines: list[str] = field(default_factory=list)

    def hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "acknowledged":
            self.last = int(rest)
            self.highest[self.last % SLOTS] = self.last
        elif word == "state":
            self.state = json.loads(rest)
        elif word == "serving":
            self.served = rest
        else:
            self.lines.append(line)


def run(
    machine: guest.Machine, cuts: int, seed: int, hosts: int, cases: Sequence[Case] = CASES
) -> bool:
    """Cut every case so many times; tell whether each did what it should.

    Parameters
    ----------
    machine : Machine
    cuts : int
    seed : int
        Of the moments of the cuts.
    hosts : int
        See guest.run.
    cases : sequence of Case
        Some of CASES, where others are cut on a machine beside this one.
    """
    choose = random.Random(seed)
    machine = replace(machine, work=machine.work / f"cuts-{CASES.index(cases[0])}")
    jobs = [(case, turn) for case in cases for turn in range(cuts)]
    caught = dict.fromkeys(cases, 0)
    with step(f"{len(jobs)} power cuts (seed {seed})"):
        before: tuple[Case, dict[int, int]] | None = None
        # Each boot looks at what the one before left, and the last does nothing else.
        for number, job in enumerate([*jobs, None]):
            promise = _boot(machine, number, job, before, choose, hosts)
            if before is not None:
                caught[before[0]] += _judge(before[0], promise, before[1])
            if job is not None:
                say(f"cut {number + 1}: {job[0].name} ({promise.served}), record {promise.last}")
                before = job[0], promise.highest
    shutil.rmtree(machine.work, ignore_errors=True)
    for case in cases:
        what = "was caught" if case.loses else "lost what it had acknowledged"
        say(f"{case.name}: {what} in {caught[case]} of {cuts} cuts")
    return all(
        caught[case] >= cuts * 9 // 10 if case.loses else caught[case] == 0 for case in cases
    )


def _boot(
    machine: guest.Machine,
    number: int,
    job: tuple[Case, int] | None,
    before: tuple[Case, dict[int, int]] | None,
    choose: random.Random,
    hosts: int,
) -> _Promise:
    promise = _Promise()
    command = "exec python3 -P -m tests.rdma.workload"
    if before is not None:
        command += f" --look {before[0].place}/{CASES.index(before[0])}"
    stop = 0
    if job is not None:
        case, turn = job
        # No number twice: what a guest wrote after the last line that came out is older.
        first = turn * _APART + SLOTS
        stop = first + choose.randint(_FEWEST, _MOST)
        command += f" --pool {case.place}/{CASES.index(case)} --first {first} {case.options}"
        command += "" if turn else " --new"
    outcome = guest.run(
        machine,
        command,
        output=promise.hear,
        limit=_LIMIT,
        cut_on=f"acknowledged {stop}" if job is not None else "looked",
        hosts=hosts,
    )
    if not outcome.cut:
        said = " / ".join(promise.lines[-3:])
        raise BenchError(f"the workload ended before the plug was pulled: {said}")
    return promise


def _judge(case: Case, promise: _Promise, highest: dict[int, int]) -> bool:
    """Tell whether something is missing that was acknowledged before the last cut."""
    problems = _missing(promise.state, highest)
    if problems and not case.loses:
        say(f"lost: {case.name}: {'; '.join(problems[:3])} ({len(problems)} in all)")
    return bool(problems)


def _missing(state: list[list[int]] | None, highest: dict[int, int]) -> list[str]:
    """Return what was acknowledged and is not there."""
    if state is None:
        return ["the pool's file is not there"]
    return [
        f"slot {slot} holds {state[slot][0]}, and {number} was acknowledged"
        for slot, number in highest.items()
        if state[slot][0] < number
    ]
