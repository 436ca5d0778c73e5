"""Failing storage, case by case, in a process that has loaded the shim.

`Runner` starts that process and hands it cases; `quick` and `whole` select them. To run all of
them, with the figures in build/storage.json::

    python -m tests.support.storage_runner [--operations A,B] [--from N] [--seconds S] [--figures F]

continues where the last run stopped, unless ``--from`` is given. Two processes, each with separate
operations and figures, can share the work.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rpmem.base.handles import Closing
from tests.support.failing import SIDES, Control, build, environment_of, errors_of
from tests.support.storage_case import Case, Verdict
from tests.support.storage_cases import Bench
from tests.support.storage_operations import OPERATIONS, REPLICATED

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "build" / "storage.json"
#: More descriptors than any operation opens, and those without which Python itself does not start.
_MANY = 120
_FEWEST = {"initiator": 1, "target": 3}
_LATE = ("close", "flock")
#: What operations import when they begin.
_IMPORTED = (
    "rpmem.pool.pool",
    "rpmem.fabric.libfabric.fabric",
    "rpmem.fabric.shared.door",
    "rpmem.launch.local",
    "sysconfig",
)


class Runner(Closing):
    """The process with the shim, and the tmpfs directory in which it works.

    Parameters
    ----------
    fresh : bool
        Whether the process that acts imports all that it needs, as one with few descriptors should;
        otherwise it has been imported, which is quicker.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="rpmem-storage-", dir="/dev/shm")
        directory = Path(self._directory.name)
        control = directory / "control"
        Control(control)  # the shim looks for it when a process starts
        added = environment_of(build(directory), control, directory / "under", directory / "medium")
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        added["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.support.storage_runner", "--serve", str(directory)]
            + ["--fresh"] * fresh,
            env=os.environ | added,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, case: Case) -> Verdict:
        """Run one case."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the runner ended with status {self._process.wait()}")
        fields = json.loads(line)
        return Verdict(**{**fields, "case": case})

    def close(self) -> None:
        """End the process that acts."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._directory.cleanup()


def serve(directory: Path, *, fresh: bool) -> None:
    """Run the cases that stdin names."""
    if not fresh:
        for name in _IMPORTED:
            with suppress(ImportError):  # as for a user: what uses it will say so
                importlib.import_module(name)
    bench = Bench(directory, Control(Path(os.environ["FAILING_CALLS"])))
    for line in sys.stdin:
        case = Case(**json.loads(line))
        try:
            verdict = bench.run(case)
        except Exception:
            # Of the checks themselves: no case that was looked at.
            verdict = Verdict(case, "unknown", wrong=[traceback.format_exc()])
        print(json.dumps(verdict.as_json()), flush=True)


# --- which cases ------------------------------------------------------------------------------


def until_it_passes(runner: Runner, first: Case) -> Iterator[Verdict]:
    """Fail call after call of one kind until there is none left to fail."""
    number = first.number
    while True:
        case = Case(**{**asdict(first), "number": number})
        verdict = runner.run(case)
        yield verdict
        if not verdict.failed:
            return
        number += 1


def calls_of(runner: Runner, operation: str, layout: str) -> tuple[Verdict, list[Case]]:
    """Run an operation in peace; return that, and a case for every call it makes."""
    calm = runner.run(Case(operation, layout))
    found = [
        Case(operation, layout, side, kind, number, error)
        for side, kinds in calm.calls.items()
        for kind, count in sorted(kinds.items())
        for number in range(1, count + 1)
        for error in errors_of(kind)
    ]
    return calm, found


def quick(seed: int) -> list[Case]:
    """Return a case of every kind of call on either side, and a flush of most operations."""
    choose = random.Random(seed)
    cases = []
    for kind in (
        "open",
        "write",
        "fsync",
        "msync",
        "fallocate",
        "flock",
        "mmap",
        "close",
        "statfs",
    ):
        number, error = choose.randint(1, 3), choose.choice(errors_of(kind))
        cases.append(Case("create", "parts", "initiator", kind, number, error))
        cases.append(Case("create", "pair", "target", kind, 1, error))
    # Of the pool set file, once the parts are there.
    cases += [Case("create", "parts", "initiator", kind, 5, errors_of(kind)[0]) for kind in _LATE]
    for kind in ("link", "unlink", "read", "munmap", "mmap-anonymous", "chmod"):
        name = choose.choice(["create", "open", "remove"])
        number = choose.randint(1, 2)
        cases.append(Case(name, "plain", "initiator", kind, number, errors_of(kind)[0]))
    for name in ("open", "new-array", "delete-array", "close-flushed"):
        cases += [Case(name, "plain", "initiator", "msync", n, errno.EIO) for n in (1, 3)]
    for name in ("attach-new", "close", "restore", "detach"):
        side = choose.choice(list(SIDES))
        cases.append(Case(name, "pair", side, "msync", 1, errno.EIO))
    return cases


def few_descriptors(runner: Runner, operation: str, layout: str, side: str) -> Iterator[Verdict]:
    """Allow one descriptor more each time until the operation passes."""
    for number in range(_FEWEST[side], _MANY):
        verdict = runner.run(Case(operation, layout, side, descriptors=number))
        yield verdict
        if verdict.outcome == "passed":
            return
    raise RuntimeError(f"{operation} {layout} needs more than {_MANY} descriptors")


def table(verdicts: list[Verdict]) -> str:
    """Return how many calls failed: for each kind and side, and for each operation."""
    failed = [each for each in verdicts if each.failed]
    kinds = sorted({each.case.kind for each in failed})
    lines = [f"{'':24}" + "".join(f"{kind[:9]:>10}" for kind in kinds)]
    for names in (
        [(side,) for side in SIDES],
        sorted({(e.case.side, e.case.operation) for e in failed}),
    ):
        for name in names:
            count = Counter(
                each.case.kind
                for each in failed
                if (each.case.side, each.case.operation)[: len(name)] == name
            )
            lines.append(f"{' '.join(name):24}" + "".join(f"{count[kind]:10}" for kind in kinds))
    return "\n".join(lines)


# --- all of them ------------------------------------------------------------------------------


def whole(
    names: list[str],
    begin: int,
    seconds: float,
    save: Callable[[dict[str, Any]], None] = lambda figures: None,
) -> dict[str, Any]:
    """Run every case from number `begin` on; return the figures, and save them on the way."""
    deadline = time.monotonic() + seconds
    verdicts: list[Verdict] = []
    done = begin
    with Runner() as runner, Runner(fresh=True) as fresh:
        for number, run in enumerate(_all(runner, fresh, names)):
            if number < begin:
                continue
            if time.monotonic() > deadline:
                break
            found = run()
            verdicts += found
            done = number + 1
            for each in found:
                for wrong in each.wrong:
                    print(f"{each.case} {each.failed}: {each.outcome}: {wrong}", flush=True)
            save(_figures(verdicts, begin, done))
        else:
            done = 0
    return _figures(verdicts, begin, done)


def _figures(verdicts: list[Verdict], begin: int, done: int) -> dict[str, Any]:
    wrong = [f"{each.case}: {line}" for each in verdicts for line in each.wrong]
    failed = [each for each in verdicts if each.failed]
    count = Counter(f"{e.case.side} {e.case.operation} {e.case.kind}" for e in failed)
    return {
        "begin": begin,
        "next": done,
        "cases": len(verdicts),
        "failed calls": len(failed),
        "failed": dict(sorted(count.items())),
        "descriptors": sum(each.case.descriptors >= 0 for each in verdicts),
        "wrong": wrong,
        "table": table(verdicts),
    }


def _all(runner: Runner, fresh: Runner, names: list[str]) -> Iterator[Any]:
    """Yield functions that run the cases of one operation on one layout."""
    for name in names:
        for layout in OPERATIONS[name].layouts:

            def every(name: str = name, layout: str = layout.name) -> list[Verdict]:
                calm, cases = calls_of(runner, name, layout)
                return [calm, *map(runner.run, cases)]

            yield every
            for side in SIDES if layout in REPLICATED else ("initiator",):

                def few(
                    name: str = name, layout: str = layout.name, side: str = side
                ) -> list[Verdict]:
                    return list(few_descriptors(fresh, name, layout, side))

                yield few


def run_whole(
    operations: str = ",".join(OPERATIONS),
    begin: int | None = None,
    seconds: float = 5400.0,
    path: Path = FIGURES,
) -> list[str]:
    """Run every case, from where the last run stopped; write the figures, return what is wrong."""
    if begin is None:
        begin = 0
        with suppress(OSError, ValueError, KeyError):
            begin = int(json.loads(path.read_text())["next"])
    begun = time.monotonic()

    def save(figures: dict[str, Any]) -> None:
        figures["seconds"] = round(time.monotonic() - begun, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1) + "\n")

    figures = whole(operations.split(","), begin, seconds, save)
    save(figures)
    print(figures["table"])
    print(f"{figures['failed calls']} calls failed, {len(figures['wrong'])} things are wrong")
    wrong: list[str] = figures["wrong"]
    return wrong


def main() -> int:
    """Serve, or run everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--from", dest="begin", type=int)
    parser.add_argument("--seconds", type=float, default=5400.0)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve, fresh=given.fresh)
        return 0
    return 1 if run_whole(given.operations, given.begin, given.seconds, given.figures) else 0


if __name__ == "__main__":
    sys.exit(main())
