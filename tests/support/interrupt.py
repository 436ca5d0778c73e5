"""Signals at random moments of a call, many times, and a check of what is left afterwards.

One process runs all rounds of one call, and one of its threads sends the signal: SIGINT and
SIGTERM, with handlers that raise, in turn::

    python -P -m tests.support.interrupt CALL[,CALL...] DIRECTORY SEED ROUNDS [FIRST]
        [--launcher openssh|paramiko]

The results are printed as JSON, one line per call; the first failure ends it. FIRST is the first
round, to continue a run that was stopped. With a launcher, the target is reached through the sshd
of the tests: the one already running, or a new one.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rpmem
from tests.support.lateness import Delay, Summary, Watch
from tests.support.processes import serving_at
from tests.support.sshd import NODE, PID_FILE, Sshd
from tests.support.threads import in_use

SIZE = 4 << 20
WORDS = 64
CALLS = ("create", "open", "persist", "attach", "restore", "close")
_SETTLE = 20.0
# Every so many rounds the pool is opened and both copies are compared.
_LOOK_INTO = 8
_FEW = 10


class Left(AssertionError):
    """Something is there that should not be, or the other way round."""


class Range:
    """The files, and what is checked after every shot.

    Parameters
    ----------
    directory : Path
        Empty; on a tmpfs, so that no system call takes long.
    launcher : str, optional
        What starts rpmemd, over ssh; by default it is a child.
    """

    def __init__(self, directory: Path, launcher: str | None = None) -> None:
        self.here, self.there = directory / "here", directory / "there"
        self.here.mkdir()
        self.there.mkdir()
        self.local = self.here / "pool"
        self.target = f"local:{self.there}"
        self.session: dict[str, Any] = {}
        self.servers: list[int] = []
        if launcher is not None:
            pid_file = Path(os.environ["RPMEM_SSH"]).with_name(PID_FILE)
            self.servers.append(int(pid_file.read_text()))
            self.target = NODE
            command = f"rpmemd --poolset-dir {shlex.quote(str(self.there))}"
            self.session = {"launcher": launcher, "command": command}
        self.spec = f"{self.target} a.set"
        self._children: set[int] = set()
        self.value = 0
        self.pool: rpmem.Pool | None = None
        self._descriptors = self._threads = 1 << 30

    def files(self) -> list[str]:
        """Return the names of all files on both sides."""
        return sorted(path.name for place in (self.here, self.there) for path in place.iterdir())

    def take_stock(self) -> None:
        """Note what there is while nothing is open."""
        gc.collect()
        self._children = _children()
        self._descriptors = len(os.listdir("/proc/self/fd"))
        self._threads = in_use()

    def check_gone(self) -> None:
        """Raise `Left` when descriptors, threads or children are left, or a lock."""
        if children := _children() - self._children:
            raise Left(f"children: {children}")
        end = time.monotonic() + _SETTLE
        while len(names := os.listdir("/proc/self/fd")) > self._descriptors:
            if time.monotonic() > end:
                raise Left(f"not {self._descriptors} descriptors: {[_name(fd) for fd in names]}")
            time.sleep(0.001)
        while in_use() > self._threads:
            if time.monotonic() > end:
                raise Left(f"threads: {threading.enumerate()}")
            time.sleep(0.001)
        # Over ssh it is nobody's child, and has to end by itself.
        while self.session and (serving := serving_at(self.there)):
            if time.monotonic() > end:
                raise Left(f"still at the target: {serving}")
            time.sleep(0.005)

    def check_files(self, wanted: list[str]) -> None:
        """Raise `Left` unless exactly these files are there."""
        if self.files() != wanted:
            raise Left(f"files: {self.files()}, not {wanted}")

    def clear(self) -> None:
        """Remove all files."""
        for place in (self.here, self.there):
            for path in place.iterdir():
                path.unlink()

    def make(self) -> None:
        """Make the pool with its replica, closed, and an array in it."""
        self.value += 1
        with self.create() as pool:
            pool.array("x", WORDS, "u8")[:] = self.value
            pool.persist(pool["x"])

    def create(self) -> rpmem.Pool:
        """Make the pool."""
        return rpmem.Pool.create(self.local, SIZE, [self.spec], parts=1, **self.session)

    def open(self) -> rpmem.Pool:
        """Open the pool with its replica."""
        return rpmem.Pool.open(self.local, [self.spec], **self.session)

    def check_pool(self) -> None:
        """Open and close the pool; both copies have what was acknowledged."""
        with self.open() as pool:
            if "x" not in pool:
                return
            if int(pool["x"][0]) < self.value or (pool.read(pool["x"]) != pool["x"]).any():
                raise Left(f"{pool['x'][0]} where {self.value} was acknowledged")


# --- the calls: what to do before, what is fired at, what has to be true afterwards ------------

ALL = ["a.set", "a.set.part0", "pool"]


class Call:
    """One kind of call under fire; the methods are for one round."""

    #: Whether the pool and its replica are there, closed, after every round.
    paired = False

    def __init__(self, files: Range) -> None:
        self.files = files

    def begin(self) -> None:
        """Make ready, once."""

    def before(self) -> None:
        """Make ready for a round."""

    def fire_at(self) -> Any:
        """Do what is interrupted."""
        raise NotImplementedError

    def after(self, result: Any) -> None:
        """Check; `result` is None when the call was interrupted."""
        raise NotImplementedError


class Create(Call):
    """`Pool.create`: all or nothing."""

    def fire_at(self) -> Any:
        return self.files.create()

    def after(self, result: Any) -> None:
        if result is not None:
            self.files.check_files(ALL)
            result.close()
            self.files.check_gone()
            self.files.clear()
            return
        self.files.check_gone()
        self.files.check_files([])


class Open(Call):
    """`Pool.open`: open, or as it was."""

    paired = True

    def begin(self) -> None:
        self.files.make()

    def fire_at(self) -> Any:
        return self.files.open()

    def after(self, result: Any) -> None:
        if result is not None:
            result.close()
        self.files.check_gone()
        self.files.check_files(ALL)


class Attach(Call):
    """`Pool.attach` with `create`: attached, or nothing there."""

    def begin(self) -> None:
        with rpmem.Pool.create(self.files.local, SIZE) as pool:
            pool.array("x", WORDS, "u8")

    def before(self) -> None:
        self.files.pool = rpmem.Pool.open(self.files.local, [], **self.files.session)

    def fire_at(self) -> Any:
        assert self.files.pool is not None
        return self.files.pool.attach(self.files.spec, create=True, parts=1)

    def after(self, result: Any) -> None:
        pool, self.files.pool = self.files.pool, None
        assert pool is not None
        if len(pool.replicas) != (result is not None):
            raise Left(f"replicas: {pool.replicas}")
        if result is None:
            self.files.check_files(["pool"])
        pool.persist(pool["x"])
        pool.close()
        self.files.check_gone()
        if result is not None:
            rpmem.remove(self.files.target, "a.set", pool_set=True, **self.files.session)
        self.files.check_files(["pool"])


class Restore(Call):
    """`Pool.restore`: a new copy, or none."""

    paired = True

    def begin(self) -> None:
        self.files.make()

    def before(self) -> None:
        self.files.local.unlink(missing_ok=True)

    def fire_at(self) -> Any:
        return rpmem.Pool.restore(self.files.local, self.files.spec, **self.files.session)

    def after(self, result: Any) -> None:
        if result is not None:
            result.close()
            self.files.check_gone()
        else:
            self.files.check_gone()
            self.files.check_files(ALL[:-1])


class Close(Call):
    """`Pool.close`: closed, and all of it let go; or not begun."""

    paired = True

    def begin(self) -> None:
        self.files.make()

    def before(self) -> None:
        self.files.pool = pool = self.files.open()
        if int(pool["x"][0]) < self.files.value:
            raise Left(f"{pool['x'][0]} where {self.files.value} was acknowledged")
        self.files.value += 1
        pool["x"][:] = self.files.value
        pool.persist(pool["x"])

    def fire_at(self) -> Any:
        assert self.files.pool is not None
        self.files.pool.close()
        return True

    def after(self, result: Any) -> None:
        pool, self.files.pool = self.files.pool, None
        assert pool is not None
        if not pool.closed:
            if result:
                raise Left("the pool is open")
            pool.close()
        del pool
        self.files.check_gone()


class Persist(Call):
    """`Pool.persist`, thousands of times: the pool can be used afterwards."""

    def begin(self) -> None:
        self.files.make()
        self.files.pool = self.files.open()

    def fire_at(self) -> Any:
        pool, files = self.files.pool, self.files
        assert pool is not None
        words = pool["x"]
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            wanted = files.value + 1
            words[:] = wanted
            pool.persist(words)
            files.value = wanted
        return True

    def after(self, result: Any) -> None:
        pool, files = self.files.pool, self.files
        assert pool is not None
        there = int(pool.read(pool["x"])[0])
        if there < files.value:
            raise Left(f"{there} at the target, where {files.value} was acknowledged")
        # No late answer counts for this one.
        files.value += 2
        pool["x"][:] = files.value
        pool.persist(pool["x"])
        if (pool.read(pool["x"]) != files.value).any():
            raise Left("a call was acknowledged by an answer that was not its own")


_CALLS: dict[str, type[Call]] = {
    "create": Create,
    "open": Open,
    "persist": Persist,
    "attach": Attach,
    "restore": Restore,
    "close": Close,
}


# --- shooting ----------------------------------------------------------------------------------


def shoot(call: Call, number: int, delay_s: float) -> tuple[Any, Delay | None]:
    """Make the call, and send the signal after a while.

    Returns
    -------
    result : object
        None when the call was interrupted.
    delay : Delay or None
        From the signal to the exception; None when the call was over before.
    """
    watch = Watch(number, delay_s, call.files.servers)
    result = None
    try:
        watch.start()
        result = call.fire_at()
        while True:
            time.sleep(1)
    except (KeyboardInterrupt, SystemExit):
        watch.effect()
    delay = watch.join()
    return result, None if result is not None else delay


def run(
    name: str,
    directory: Path,
    seed: int,
    rounds: int,
    first: int = 0,
    launcher: str | None = None,
) -> Summary:
    """Do the rounds of one call."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _raise_exit)
    files = Range(directory, launcher)
    summary = Summary(name)
    call = _CALLS[name](files)
    with files.create():
        pass  # imports, and whatever else is opened once
    files.clear()
    files.take_stock()
    call.begin()
    took = [_undisturbed(call) for _ in range(3 if rounds > _FEW else 1)]
    summary.took_ms = min(took) * 1e3
    for number in range(first, first + rounds):
        moment = random.Random(seed << 20 | number)
        call.before()
        result, delay = shoot(
            call,
            (signal.SIGINT, signal.SIGTERM)[number % 2],
            moment.random() * statistics.median(took) * 1.1,
        )
        try:
            call.after(result)
            if number % _LOOK_INTO == 0 and call.paired and files.local.exists():
                files.check_pool()
        except (Left, rpmem.RpmemError) as error:
            raise Left(f"{name}, seed {seed}, round {number}: {error}") from error
        summary.rounds += 1
        if delay is not None:
            summary.add(number, delay)
    if files.pool is not None:
        files.pool.close()
    return summary


def _undisturbed(call: Call) -> float:
    call.before()
    begun = time.monotonic()
    result = call.fire_at()
    took = time.monotonic() - begun
    call.after(result)
    return took


def _raise_exit(*_: object) -> None:
    raise SystemExit(143)


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _name(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return "gone"


def in_process(
    calls: str | Sequence[str],
    directory: Path,
    seed: int,
    rounds: int,
    *,
    launcher: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Do the rounds in a process of their own; return the figures, or raise what it says."""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [
            sys.executable, "-P", "-X", "faulthandler", "-m", "tests.support.interrupt",
            calls if isinstance(calls, str) else ",".join(calls),
            str(directory), str(seed), str(rounds),
            *(["--launcher", launcher] if launcher else []),
        ],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    if done.returncode:
        raise Left(done.stderr[-6000:])
    figures = map(json.loads, done.stdout.splitlines())
    return {each["call"]: each for each in figures}


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls")
    parser.add_argument("directory", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("--launcher")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if given.launcher and "RPMEM_SSH" not in os.environ:
            place = given.directory / "sshd"
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            server = stack.enter_context(Sshd(place))
            server.install_rpmemd()
            os.environ.update(RPMEM_SSH=str(server.ssh), HOME=str(server.home))
        for name in given.calls.split(","):
            place = given.directory / name
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            place.mkdir()
            summary = run(name, place, given.seed, given.rounds, given.first, given.launcher)
            print(json.dumps(summary.sum_up()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
