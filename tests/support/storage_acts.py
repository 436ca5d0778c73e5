"""The child in which a call fails: it acts, continues as a user would, and reports; controls."""

from __future__ import annotations

import gc
import logging
import os
import resource
import stat
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rpmem
from rpmem.base.pool_format import RECORD_OFFSET
from rpmem.epochs import change
from rpmem.epochs.kept import Pieces
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.errors import LaunchError, RpmemError
from rpmem.pool.assembly import Assembly
from rpmem.pool.copies import Copies
from rpmem.pool.keepers import LocalKeeper
from tests.support.compiled import compiled
from tests.support.failing import BOTH, SIDES
from tests.support.storage_case import Case
from tests.support.storage_operations import (
    CommandFailed,
    Operation,
    World,
    kind_of,
)
from tests.support.threads import in_use

SWALLOWS = "ignores errors of flushes"
FORGETS = "forgets what was refused"


def _mark_whatever_happened() -> None:
    def mark(self: Copies, *_: object) -> None:
        for keeper in self.members.everyone:
            record = keeper.record
            assert record is not None
            keeper.write(change.marked(record, Mark.CLEAN))

    def write(self: LocalKeeper, record: CopyRecord, *, discard: bool = False) -> None:
        self._kept.put(record)

    def store(self: LocalKeeper, pieces: Pieces) -> None:
        for offset, data in pieces:
            self._medium.store(RECORD_OFFSET + offset, data)

    Copies._mark = mark  # type: ignore[method-assign]
    LocalKeeper.write = write  # type: ignore[method-assign]
    LocalKeeper._store = store  # type: ignore[method-assign]


def _leave_names_to_luck() -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            fsync(descriptor)

    os.fsync = files_only  # type: ignore[assignment]


def _leave_files() -> None:
    Assembly.undo = lambda self, *, remove: self.copy.close()  # type: ignore[method-assign]


def _raise_plainly() -> None:
    def raw(error: OSError, *_: Any, **__: Any) -> OSError:
        return error

    for name, module in list(sys.modules.items()):
        if name.startswith("rpmem") and hasattr(module, "from_oserror"):
            module.from_oserror = raw


#: What is said where all was done but closing the pool.
CLOSING = ("not marked as complete", "cannot be closed", "cannot be unlocked")

BROKEN: dict[str, Callable[[], None]] = {
    "marks whatever happened": _mark_whatever_happened,
    "leaves names to luck": _leave_names_to_luck,
    "leaves files": _leave_files,
    "raises plain errors": _raise_plainly,
}


# --- the child that acts ----------------------------------------------------------------------


def _traces() -> tuple[set[str], int, list[str]]:
    gc.collect()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    open_files = {f"{each} -> {_link(each)}" for each in os.listdir("/proc/self/fd") if _link(each)}
    return open_files, in_use(), children


def _link(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def act(world: World, operation: Operation, case: Case) -> dict[str, Any]:
    hooked = compiled("_hooked_media") if case.broken == FORGETS else None
    before = _traces()
    if case.broken in BROKEN:
        BROKEN[case.broken]()
    report: dict[str, Any] = {"outcome": "passed", "wrong": [], "acknowledged": None}
    wrong: list[str] = report["wrong"]
    report["logged"] = _logged()
    try:
        held = operation.prepare(world)
    except RpmemError as error:
        if case.descriptors < 0:
            raise
        # The target of this case has too few descriptors to begin with.
        report["unprepared"] = True
        _take_error(report, error)
        _compare_traces(before, wrong)
        return report
    made: Any = None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    side = SIDES[case.side] if case.number else BOTH
    try:
        if case.descriptors >= 0:
            made = _with_few_descriptors(world, operation, case, held, limit)
        else:
            with world.control.armed(
                side, case.number, case.error, case.kind, swallow=case.broken == SWALLOWS
            ):
                made = operation.act(world, held)
        report["acknowledged"] = operation.after
    except CommandFailed as error:
        report["outcome"], report["said"] = "CommandFailed", str(error)
        if any(words in str(error) for words in CLOSING):
            # What was to be done is done; closing found the medium out.
            report["outcome"], report["acknowledged"] = "passed", operation.after
        if "Traceback" in str(error) or "should not have happened" in str(error):
            wrong.append(f"the command says: {error}")
        if "rpmem: [Errno" in str(error):
            wrong.append(f"the command gives no place and no remedy: {error}")
    except RpmemError as error:
        _take_error(report, error)
    except BaseException as error:
        report["outcome"] = type(error).__name__
        report["said"] = str(error)
        wrong.append("no RpmemError: " + "".join(traceback.format_exception(error)[-3:]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    pool = made if made is not None else held
    if isinstance(pool, rpmem.Pool):
        if hooked is not None:
            hooked.forget_refusal(pool._region)
        _go_on(world, operation, pool, report)
    elif pool is not None:
        pool.close()
    del pool, made, held
    _compare_traces(before, wrong)
    return report


def _logged() -> list[str]:
    """Return a list to which all is added that rpmem logs from now on."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger("rpmem")
    logger.setLevel(logging.INFO)
    logger.addHandler(Kept())
    return lines


def _with_few_descriptors(
    world: World, operation: Operation, case: Case, held: Any, limit: tuple[int, int]
) -> Any:
    if case.side == "initiator":
        used = max(int(each) for each in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + case.descriptors, limit[1]))
    return operation.act(world, held)


def _take_error(report: dict[str, Any], error: RpmemError) -> None:
    report["outcome"], report["said"] = type(error).__name__, str(error)
    report["errno"] = error.errno
    # What started no rpmemd names the machine in its first words; what rpmemd said about a removal
    # ends with the remedy.
    missing = [] if error.where or isinstance(error, LaunchError) else ["place"]
    if not error.hint and not str(error).endswith((".", ")")):
        missing.append("hint")
    if missing:
        report["wrong"].append(f"the error has no {' and no '.join(missing)}: {error}")
    _forget(error)


def _go_on(world: World, operation: Operation, pool: rpmem.Pool, report: dict[str, Any]) -> None:
    """Use an open pool as somebody would who has seen the error, and close it."""
    report["replicas"] = len(pool.replicas)
    try:
        failed = report["outcome"] != "passed" or operation.name == "restore"
        if failed and not pool.closed and "a" in pool and operation.after is not None:
            value = _persist_again(world, pool)
            if report["acknowledged"] is None and len(value) == 1:
                report["later"] = {"a": value.pop()}
    except RpmemError as error:
        report["persist-again"] = f"{type(error).__name__}: {error}"
        _forget(error)
    try:
        pool.close()
    except RpmemError as error:
        report["close"] = f"{type(error).__name__}: {error}"
        _forget(error)


def _persist_again(world: World, pool: rpmem.Pool) -> set[int]:
    words = world.array(pool)
    pool.persist(words)
    return kind_of(words)


def _forget(error: BaseException | None) -> None:
    """Drop the frames of an error, and the views and pools in them."""
    while error is not None:
        cause = error.__cause__ or error.__context__
        error.__traceback__ = error.__context__ = error.__cause__ = None
        error = cause


def _compare_traces(before: tuple[set[str], int, list[str]], wrong: list[str]) -> None:
    deadline = time.monotonic() + 3.0
    while True:
        now = _traces()
        files = now[0] - before[0]
        children = set(now[2]) - set(before[2])
        if not files and not children and now[1] <= before[1]:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    if files:
        wrong.append(f"descriptors stay open: {', '.join(sorted(files))}")
    if children:
        wrong.append(f"{len(children)} children are left")
    if now[1] > before[1]:
        wrong.append(f"{now[1] - before[1]} threads are left")
