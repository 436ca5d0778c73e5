"""One operation with one failing call, in a child of this process, and all its checks.

The child acts and reports; then everything it left behind is examined: names, locks, durable data,
and the result of the next open, with and without a power cut in between.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.failing import Control
from tests.support.storage_acts import act
from tests.support.storage_case import Case, Verdict
from tests.support.storage_checks import (
    copy_back,
    cut_power,
    keep,
    left_behind,
    locks,
    look,
    names_of,
    take_report,
    truth,
    wait_unlocked,
)
from tests.support.storage_operations import (
    LAYOUTS,
    OPERATIONS,
    Operation,
    World,
)

HANGS = 60.0


def in_child(body: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a function in a forked child; return what it returned, or how it ended."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            os.close(ours)
            report = body()
            os.write(theirs, json.dumps(report).encode())
            status = 0
        except BaseException:
            text = traceback.format_exc()
            os.write(theirs, json.dumps({"crashed": text}).encode())
        finally:
            os._exit(status)
    os.close(theirs)
    text = b""
    deadline = time.monotonic() + HANGS
    while True:
        ready, _, _ = select.select([ours], [], [], max(deadline - time.monotonic(), 0.0))
        if not ready:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(ours)
            return {"crashed": f"it took more than {HANGS:g} s"}
        piece = os.read(ours, 1 << 16)
        if not piece:
            break
        text += piece
    os.close(ours)
    _, status = os.waitpid(pid, 0)
    if not text:
        return {"crashed": f"it ended with status {status}"}
    report: dict[str, Any] = json.loads(text)
    return report


class Bench:
    """Runs cases in a directory of a tmpfs; every beginning is made once and copied.

    Parameters
    ----------
    root : Path
        The directory.
    control : Control
        The page that the shim looks at.
    """

    def __init__(self, root: Path, control: Control) -> None:
        self.root = root
        self.control = control
        self._beginnings: dict[tuple[str, str], Path] = {}

    def run(self, case: Case) -> Verdict:
        """Run one case."""
        operation = OPERATIONS[case.operation]
        world = World(self.root, LAYOUTS[case.layout], self.control)
        self._begin(world, operation)
        if case.descriptors >= 0 and case.side == "target":
            limit = f"ulimit -Sn {2 + case.descriptors}; export FAILING_LIMIT=1"
            world.command = f"{limit}; exec {sys.executable} -P -m rpmemd"
        verdict = Verdict(case)
        before = names_of(world)
        report = in_child(lambda: act(world, operation, case))
        self.control.disarm()
        take_report(verdict, report, self.control, case)
        if not report.get("crashed"):
            for step in (left_behind, locks, truth):
                step(verdict, world, operation, report, before)
            self._next(verdict, world, operation, report)
        return verdict

    def _begin(self, world: World, operation: Operation) -> None:
        """Put the files there that an operation starts from."""
        key = (operation.start.__name__, world.layout.name)
        shutil.rmtree(world.under, ignore_errors=True)
        kept = self._beginnings.get(key)
        if kept is None:
            world.lay_out()
            world.durable.take(world.under)
            report = in_child(lambda: {"made": operation.start(world)})
            if "crashed" in report:
                raise RuntimeError(f"{key}: {report['crashed']}")
            kept = self._beginnings[key] = self.root / f"begin-{len(self._beginnings)}"
            wait_unlocked(world)
            shutil.copytree(world.under, kept)
        else:
            shutil.copytree(kept, world.under)
        world.durable.take(world.under)

    def _next(
        self, verdict: Verdict, world: World, operation: Operation, report: dict[str, Any]
    ) -> None:
        """What a user finds the next time: as the processes left it, and after a power cut."""
        if operation.low:
            return
        kept = self.root / "kept"
        for cut in (False, True):
            if cut:
                shutil.rmtree(world.under)
                copy_back(kept, world)
                cut_power(world, kept)
            else:
                shutil.rmtree(kept, ignore_errors=True)
                keep(world, kept)
            world.command = None
            found = in_child(lambda: look(world, operation, report))
            when = "after a power cut, " if cut else ""
            if "crashed" in found:
                verdict.wrong.append(f"{when}the next open crashed: {found['crashed']}")
                continue
            verdict.wrong += [f"{when}{each}" for each in found["wrong"]]
            if not found["wrong"]:
                again: dict[str, Any] = {"outcome": "passed"}
                following = Verdict(verdict.case)
                locks(following, world, operation, again, {})
                truth(following, world, operation, again, {}, settled=True)
                verdict.wrong += [f"{when}the next time: {each}" for each in following.wrong]
