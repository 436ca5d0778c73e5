"""Checks after a case: files, locks, marks, durable bytes, and whether the pool opens again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from rpmem.epochs.record import Mark
from rpmem.errors import RpmemError, StaleReplica
from rpmem.pool.superblock import SLOTS_OFFSET
from tests.support.failing import SIDES, Control
from tests.support.media import HEADER_SIZE, PoolImage, parts_of
from tests.support.storage_case import Case, Verdict
from tests.support.storage_operations import (
    ONE,
    Operation,
    World,
    kind_of,
)

_SYNCS = frozenset({"fsync", "msync"})
#: What a crash leaves on purpose: the next open finishes it.
_NOTE = ".rpmem-redo"


# --- what it left -----------------------------------------------------------------------------

#: What the log says of a replica that is not marked as complete when a pool is closed.
_LEFT_OUT = ("not durable there", "not marked as complete", "will be compared when it is opened")


def take_report(verdict: Verdict, report: dict[str, Any], control: Control, case: Case) -> None:
    if "crashed" in report:
        verdict.outcome = "crashed"
        verdict.wrong.append(report["crashed"])
        return
    verdict.outcome = report["outcome"]
    verdict.said = report.get("said", "")
    verdict.wrong += report["wrong"]
    calls = control.calls if case.descriptors < 0 else []  # those would be an earlier case's
    verdict.failed = next((call.path for call in calls if call.failed), "")
    if not case.number:
        for side in SIDES:
            verdict.calls[side] = dict(Counter(c.kind for c in calls if c.side == side))
    if verdict.failed and verdict.outcome == "passed" and case.kind in _SYNCS:
        # A pool that was restored is there, and the first persist says that its replica is not:
        # nothing was promised of the replica before. Closing promises nothing that a persist has
        # not: a replica that is lost then is not marked as complete, as is looked at below, and the
        # log says which. The command says the same of its closing.
        on_target = case.side == "target"
        logged = any(saying in line for line in report["logged"] for saying in _LEFT_OUT)
        told = {
            "restore": on_target and "refused" in report.get("persist-again", ""),
            # It is given up instead of leaving in order.
            "detach": on_target,
            "close": on_target and logged,
            "close-flushed": on_target and logged,
            "close-stored": on_target and logged,
            "cli-create": "not marked as complete" in verdict.said,
            "cli-open": "not marked as complete" in verdict.said,
            "cli-sync": "not marked as complete" in verdict.said,
        }.get(case.operation, False)
        if told:
            report["acknowledged"] = None
        else:
            verdict.wrong.append("it returned as if the failed flush had succeeded")


def names_of(world: World) -> dict[str, list[str]]:
    return {
        str(directory.relative_to(world.under)): sorted(os.listdir(directory))
        for directory in (world.here, world.there)
    }


def left_behind(
    verdict: Verdict,
    world: World,
    operation: Operation,
    report: dict[str, Any],
    before: dict[str, list[str]],
) -> None:
    now = names_of(world)
    failed = report["outcome"] != "passed"
    for place, names in now.items():
        hidden = [each for each in names if each.startswith(".") or "rpmem-" in each]
        # What could not be removed, or was not: carried out again, and removed, at the next open.
        if operation.low and (failed or verdict.failed.endswith(_NOTE)):
            hidden = [each for each in hidden if not each.endswith(_NOTE)]
        if hidden:
            verdict.wrong.append(f"left in {place}: {hidden}")
        new = sorted(each for each in set(names) - set(before[place]) if "rpmem-" not in each)
        if operation.name == "attach-new" and report.get("replicas"):
            new = []
        gone = sorted(set(before[place]) - set(names))
        if new and (failed or not operation.makes_files):
            verdict.wrong.append(f"left in {place}: {new}")
        if gone and not operation.takes_files:
            verdict.wrong.append(f"gone from {place}: {gone}")
    for directory in (world.here, world.there):
        back = world.durable.come_back(directory)
        back = {each for each in back if not each.endswith(_NOTE)}
        if failed:
            back -= set(before[str(directory.relative_to(world.under))])
        if back:
            verdict.wrong.append(f"names that a power cut brings back: {sorted(back)}")
    if not failed and operation.makes_files:
        for directory in (world.here, world.there):
            lacking = set(os.listdir(directory)) - world.durable.names(directory)
            lacking -= set(before[str(directory.relative_to(world.under))])
            if lacking:
                verdict.wrong.append(f"names that are not durable: {sorted(lacking)}")


def files_of(world: World) -> list[Path]:
    return sorted(path for path in world.under.rglob("*") if path.is_file())


def _is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def wait_unlocked(world: World, seconds: float = 5.0) -> list[str]:
    """Wait for rpmemd to end; return what is still locked."""
    deadline = time.monotonic() + seconds
    while True:
        locked = [path.name for path in files_of(world) if _is_locked(path)]
        if not locked or time.monotonic() > deadline:
            return locked
        time.sleep(0.002)


def locks(verdict: Verdict, world: World, *_: Any) -> None:
    locked = wait_unlocked(world)
    if locked:
        verdict.wrong.append(f"still locked: {locked}")


# --- whether what the copies say is true ------------------------------------------------------


@dataclass
class _Copy:
    name: str
    live: bytes
    durable: bytes
    now: PoolImage | None
    kept: PoolImage | None


def _image(pool_set: Path, read: Callable[[Path], bytes]) -> bytes | None:
    try:
        parts = parts_of(pool_set)
        pieces = [read(part) for part in parts]
    except (RpmemError, OSError):
        return None
    return b"".join(piece[HEADER_SIZE:] if index else piece for index, piece in enumerate(pieces))


def _parsed(image: bytes) -> PoolImage | None:
    with contextlib.suppress(RpmemError):
        return PoolImage.parse(image)
    return None


def _copies(world: World) -> list[_Copy]:
    found = []
    for name, path in (("local", world.local), ("replica", world.there / "a.set")):
        live = _image(path, Path.read_bytes)
        durable = _image(path, world.durable.read)
        if live is not None and durable is not None:
            found.append(_Copy(name, live, durable, _parsed(live), _parsed(durable)))
    return found


def _pages(one: bytes, other: bytes, begin: int) -> int:
    differing = np.frombuffer(one[begin:], np.uint8) != np.frombuffer(other[begin:], np.uint8)
    return int(np.add.reduceat(differing, np.arange(0, differing.size, 4096)).astype(bool).sum())


def _values(image: PoolImage) -> dict[str, set[int]]:
    return {name: kind_of(words) for name, words in image.arrays().items()}


def _allowed(
    found: dict[str, set[int]], operation: Operation, report: dict[str, Any]
) -> str | None:
    """Return what is wrong with what the arrays hold; None when nothing is."""
    before, after = operation.before, operation.after
    if report.get("acknowledged") is not None:
        before = after = report["acknowledged"]
    later: dict[str, int] = report.get("later") or {}
    for name in (before or {}).keys() & (after or {}).keys():
        if name not in found:
            return f"array {name} is gone"
    for name, values in found.items():
        possible = {each[name] for each in (before, after) if each is not None and name in each}
        if report.get("unprepared") and before is not None:
            possible |= set(ONE.values())
        if not possible:
            return f"array {name} has come back"
        if name in later:
            possible = {later[name]}
        if not values <= possible:
            return f"array {name} holds {sorted(values)}, not {sorted(possible)}"
    return None


def truth(
    verdict: Verdict,
    world: World,
    operation: Operation,
    report: dict[str, Any],
    _: Any,
    *,
    settled: bool = False,
) -> None:
    if operation.low:
        _headers_agree(verdict, world)
        return
    copies = _copies(world)
    for copy in copies:
        if copy.now is not None and copy.now.record.mark is Mark.CLEAN:
            # The mark itself may be lost: the copy is taken for an unclean one then.
            pages = _pages(copy.live, copy.durable, SLOTS_OFFSET)
            if pages:
                verdict.wrong.append(
                    f"the {copy.name} copy is marked clean, and {pages} pages are not durable"
                )
        if settled or copy.kept is None or copy.kept.record.mark is Mark.JOINING:
            continue
        if copy.name == "replica" and _is_apart(verdict):
            continue
        problem = _allowed(_values(copy.kept), operation, report)
        if problem:
            verdict.wrong.append(f"durable on the {copy.name} copy: {problem}")
    if len(copies) == 2 and copies[0].kept is not None and copies[1].kept is not None:
        one, two = copies[0].kept.record, copies[1].kept.record
        if one.epoch == two.epoch and one.mark is two.mark is Mark.CLEAN:
            pages = _pages(copies[0].durable, copies[1].durable, SLOTS_OFFSET)
            if pages:
                verdict.wrong.append(f"both copies are marked equal, and {pages} pages differ")


#: Operations in which the replica is known to lack something.
_REPLICA_APART = frozenset({"open-behind", "attach", "detach"})


def _is_apart(verdict: Verdict) -> bool:
    """Whether the replica need not have what the local copy has."""
    if verdict.case.operation in ("attach-missed", "cli-sync"):
        return verdict.outcome != "passed"
    return verdict.case.operation in _REPLICA_APART


def _headers_agree(verdict: Verdict, world: World) -> None:
    from rpmem.files.header import Header

    pieces = [world.durable.read(part)[:HEADER_SIZE] for part in parts_of(world.there / "a.set")]
    majors = {Header.unpack(piece).attributes.major for piece in pieces}
    if len(majors) > 1 and not list(world.there.glob("*rpmem-redo")):
        verdict.wrong.append(f"the headers of the parts differ: {majors}")


# --- the next time ----------------------------------------------------------------------------


def look(world: World, operation: Operation, report: dict[str, Any]) -> dict[str, Any]:
    """Open the pool with storage that works, look at it, use it, close it."""
    wrong: list[str] = []
    try:
        gone = operation.before is None or operation.after is None
        if operation.again is not None:
            operation.again(world)
            left = [n for n in os.listdir(world.here) if operation.after is None]
            if left:
                wrong.append(f"it cannot be removed: {left} are left")
            if operation.after is not None:
                return {"wrong": wrong}
        if gone and report["outcome"] != "passed":
            world.write_set(world.local)
            with world.create() as pool:
                world.fill(pool, 7)
            return {"wrong": wrong}
        if operation.after is None:
            return {"wrong": wrong}
        with _opened_again(world, operation, report) as pool:
            found = {name: kind_of(pool[name]) for name in pool.names()}
            problem = _allowed(found, operation, report)
            if problem:
                wrong.append(f"the next open: {problem}")
            wrong += [
                f"the next open: array {name} is another one on the replica"
                for name in (pool.names() if pool.replicas else ())
                if not np.array_equal(pool.read(pool[name]), pool[name])
            ]
            world.fill(pool, 7)
    except (RpmemError, BufferError) as error:
        wrong.append(f"the next open raises {type(error).__name__}: {error}")
    return {"wrong": wrong}


def _opened_again(world: World, operation: Operation, report: dict[str, Any]) -> rpmem.Pool:
    """Open the pool as its user would after what was said."""
    if operation.name == "attach-new" and not report.get("replicas"):
        pool = world.open([])
        pool.attach(world.replicas[0], create=True, parts=world.layout.replica_parts)
        return pool
    if operation.name == "restore" and not any(part.exists() for part in parts_of_local(world)):
        return _restored(world)
    try:
        return world.open()
    except StaleReplica:
        # The local medium had refused: its copy was left behind by the others, on purpose.
        if "refused" not in report.get("close", "") + report.get("said", ""):
            raise
    for part in parts_of_local(world):
        part.rename(world.root / f"away-{part.name}")
    return _restored(world)


def _restored(world: World) -> rpmem.Pool:
    first, *lost = world.replicas
    return rpmem.Pool.restore(world.local, first, lost=lost, **world.session)


def parts_of_local(world: World) -> list[Path]:
    """Return the files of the local copy, whether they are there or not."""
    return parts_of(world.local) if world.layout.parts else [world.local]


def cut_power(world: World, kept: Path) -> None:
    """Leave in every file what was durable."""
    for path in files_of(world):
        relative = path.relative_to(world.under)
        path.write_bytes((kept / "durable" / relative).read_bytes())
    world.durable.take(world.under)


def keep(world: World, kept: Path) -> None:
    shutil.copytree(world.under, kept / "live")
    shutil.copytree(world.under, kept / "durable")
    for path in files_of(world):
        target = kept / "durable" / path.relative_to(world.under)
        target.write_bytes(world.durable.read(path))


def copy_back(kept: Path, world: World) -> None:
    shutil.copytree(kept / "live", world.under)
