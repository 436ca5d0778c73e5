"""Signals over a real ssh session, with both launchers."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rpmem
from rpmem.base.interrupts import UNDO_S
from tests.support import interrupt, seeds
from tests.support.hanging_rpmemd import command as hanging
from tests.support.lateness import SOON, Delay, Watch
from tests.support.processes import serving_at, stop
from tests.support.sshd import NODE, ROOT, Sshd
from tests.support.traces import Traces

SIZE = 4 << 20
CALLS = ("create", "open", "attach", "restore", "close")
LAUNCHERS = ("openssh", "paramiko")
# Reaping and unmapping, after a target was given up.
_LAST_STEPS_S = 0.3


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> str:
    """Each of them, where it is there."""
    if request.param == "paramiko":
        pytest.importorskip("paramiko")
    return str(request.param)


def interrupted(
    work: Callable[[], Any], moment: float | Callable[[], object], sshd: Sshd
) -> tuple[Delay, KeyboardInterrupt]:
    """Do something that does not end by itself, and send SIGINT; return what came of that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watch = Watch(signal.SIGINT, moment, [int(sshd.pid_file.read_text())])
    try:
        watch.start()
        with pytest.raises(KeyboardInterrupt) as caught:
            work()
        watch.effect()
    finally:
        signal.signal(signal.SIGINT, before)
    return watch.join(), caught.value


def session_of(launcher: str, directory: Path) -> dict[str, Any]:
    """Return the options of a session that is served in a directory."""
    return {
        "launcher": launcher,
        "command": f"rpmemd --poolset-dir {shlex.quote(str(directory))}",
    }


def notes_of(error: BaseException) -> str:
    """Return what the exception says besides."""
    return " ".join(getattr(error, "__notes__", []))


# --- random moments ---


def late_by_us(figures: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rounds that ended late, and not for want of a core."""
    return [
        {"call": call, **late}
        for call, each in figures.items()
        for late in each["late_ones"]
        if late["own_s"] > SOON
    ]


@pytest.mark.alone
def test_random_moments(sshd: Sshd, launcher: str, tmpfs: Path):
    figures = interrupt.in_process(CALLS, tmpfs, seed=1, rounds=2, launcher=launcher)
    assert sum(each["interrupted"] for each in figures.values()) >= 3
    assert not late_by_us(figures)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(3600)
def test_many_random_moments(
    sshd: Sshd, launcher: str, tmpfs: Path, record_property: Callable[[str, int], None]
):
    seed = seeds.first(2)
    figures = interrupt.in_process(CALLS, tmpfs, seed=seed, rounds=100, launcher=launcher)
    for call, each in figures.items():
        for name in ("rounds", "interrupted", "late", "late_by_us"):
            record_property(f"{launcher} {call} {name}", each[name])
    assert all(each["rounds"] == 100 for each in figures.values())
    assert not late_by_us(figures)


# --- targets that hang ---


class Stopper:
    """Stops what serves a directory as soon as there is a part in it.

    Parameters
    ----------
    directory : Path
        At the target.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stopped: list[int] = []

    def __call__(self) -> None:
        """Wait for that."""
        while not list(self._directory.glob("*.part0")):
            time.sleep(0.0005)
        for process in serving_at(self._directory):
            if b"rpmemd\0" in Path(f"/proc/{process}/cmdline").read_bytes():
                stop(process)
                self._stopped.append(process)

    def go_on(self) -> None:
        """Let it, and wait until it has ended."""
        for process in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        end = time.monotonic() + 20
        while serving_at(self._directory):
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("launcher", ["local", *LAUNCHERS])
def test_a_target_that_is_stopped_is_given_up(sshd: Sshd, launcher: str, tmpfs: Path):
    here, there = tmpfs / "here", tmpfs / "there"
    here.mkdir()
    there.mkdir()
    target, session = NODE, session_of(launcher, there)
    if launcher == "local":
        target, session = f"local:{there}", {}
    before = Traces.now()
    stopper = Stopper(there)
    delay, error = interrupted(
        # Many lanes, so that it is stopped before it is done.
        lambda: rpmem.Pool.create(
            here / "p", SIZE, f"{target} a.set", parts=1, nlanes=200, **session
        ),
        stopper,
        sshd,
    )
    assert delay.own_s < UNDO_S + SOON + _LAST_STEPS_S, delay
    assert f"{target}: a.set" in notes_of(error)
    assert os.listdir(here) == []
    assert not before.more()
    stopper.go_on()


@pytest.mark.parametrize("point", ["hello", "lanes"])
def test_a_target_that_hangs(sshd: Sshd, launcher: str, point: str, tmpfs: Path):
    here, there = tmpfs / "here", tmpfs / "there"
    here.mkdir()
    there.mkdir()
    before = Traces.now()
    session = session_of(launcher, there)
    session["command"] = f"cd {shlex.quote(str(ROOT))} && {hanging(point)} --poolset-dir {there}"

    def hangs() -> None:
        if point == "lanes":
            while not list(there.glob("*.part0")):
                time.sleep(0.001)
        time.sleep(0.5)

    delay, error = interrupted(
        lambda: rpmem.Pool.create(here / "p", SIZE, f"{NODE} a.set", parts=1, **session),
        hangs,
        sshd,
    )
    assert delay.own_s < (UNDO_S if point == "lanes" else 0.0) + SOON + _LAST_STEPS_S, delay
    assert os.listdir(here) == []
    assert not before.more()
    assert (f"{NODE}: a.set" in notes_of(error)) >= bool(os.listdir(there))


def test_close_while_the_target_is_stopped(sshd: Sshd, launcher: str, tmpfs: Path):
    session = session_of(launcher, tmpfs)
    before = Traces.now()
    pool = rpmem.Pool.create(tmpfs / "p", SIZE, f"{NODE} a.set", parts=1, **session)
    peer = pool.replicas[0].peer
    assert peer is not None
    stop(peer.pid)
    try:
        delay, _ = interrupted(pool.close, 0.3, sshd)
    finally:
        os.kill(peer.pid, signal.SIGCONT)
    assert delay.own_s < SOON + _LAST_STEPS_S, delay
    assert pool.closed
    del pool
    assert not before.more()


def test_ssh_that_asks_its_configuration_for_long(
    sshd: Sshd, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
):
    (sshd.directory / "slow").mkdir(exist_ok=True)
    slow = sshd.client("slow/ssh", more='Match exec "sleep 30"\n  Compression yes')
    monkeypatch.setenv("RPMEM_SSH", str(slow))
    before = Traces.now()
    delay, _ = interrupted(
        lambda: rpmem.Pool.create(
            tmpfs / "p", SIZE, f"{NODE} a.set", parts=1, launcher="openssh",
            command=f"{sys.executable} -c pass",
        ),
        1.0,
        sshd,
    )  # fmt: skip
    assert delay.own_s < SOON, delay
    assert os.listdir(tmpfs) == []
    assert not before.more()
