"""Signals that come in crowds, to the wrong thread, or at the end: nothing leaks, nothing locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import serving_at

ROOT = Path(__file__).resolve().parents[2]
SIZE = 1 << 20

_COMMON = """
import atexit, gc, json, os, random, signal, sys, threading, time
import rpmem
from tests.support.processes import serving_at
from tests.support.traces import Traces
from pathlib import Path

directory, seed = Path(sys.argv[1]), int(sys.argv[2])
spec = f"local:{directory} a.set"
files = ["a.set", "a.set.part0", "p"]
signal.signal(signal.SIGINT, signal.default_int_handler)

class Custom(Exception):
    pass

def create():
    return rpmem.Pool.create(directory / "p", 2 << 20, spec, parts=1, nlanes=2)

def open_again():
    return rpmem.Pool.open(directory / "p", spec, nlanes=2)

def found():
    return sorted(path.name for path in directory.iterdir())

def clear():
    for path in directory.iterdir():
        path.unlink()

create().close()
clear()
"""


def run(tmpfs: Path, program: str, seed: int = 1, rc: int = 0, timeout_s: float = 100.0) -> Any:
    """Run a program in a process of its own; what it printed last, as JSON says it."""
    done = subprocess.run(
        [sys.executable, "-P", "-X", "faulthandler", "-c", _COMMON + program, tmpfs, str(seed)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=timeout_s,
    )
    assert done.returncode == rc, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


_STORM = """
rounds = int(os.environ["ROUNDS"])
chance = random.Random(seed)
storming = False

def handler(_, frame):
    # Python throws away what is raised in a finalizer, and the rest of that with it.
    while frame is not None:
        if frame.f_code.co_name in ("__del__", "_remove", "remove", "_drop_all"):
            return
        frame = frame.f_back
    if storming:
        raise Custom

signal.signal(signal.SIGALRM, handler)
before = Traces.now()
counts = {"done": 0, "raised": 0, "busy": 0}
for number in range(rounds):
    pool = None
    # A storm ends at last: what is raised outside of the calls is the program's own affair.
    every = chance.choice([0.0005, 0.002, 0.005, 0.02, 0.15])
    end = time.monotonic() + chance.choice([0.05, 0.2, 0.4])
    while True:
        try:
            storming = True
            signal.setitimer(signal.ITIMER_REAL, every * (1 + chance.random()), every)
            while time.monotonic() < end:
                try:
                    pool = create() if not (directory / "p").exists() else open_again()
                    counts["done"] += 1
                    pool.close()
                    pool = None
                except Custom:
                    counts["raised"] += 1
                except rpmem.PoolSetError:
                    # What a second signal did not let it wait for is still being undone.
                    counts["busy"] += 1
            storming = False
            break
        except Custom:
            counts["raised"] += 1
            continue
    signal.setitimer(signal.ITIMER_REAL, 0)
    storming = False
    if pool is not None:
        pool.close()
    pool = None
    gc.collect()
    more = before.more()
    assert not more, (number, more)
    # All or nothing, and it opens.
    assert found() in ([], files), (number, found())
    if found():
        open_again().close()
        clear()
    else:
        create().close()
        clear()
    assert not serving_at(directory)
print(json.dumps(counts))
"""


def test_a_storm(tmpfs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ROUNDS", "8")
    counts = run(tmpfs, _STORM)
    assert counts["raised"] > 8


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1200)
def test_many_storms(tmpfs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ROUNDS", "300")
    counts = run(tmpfs, _STORM, seed=2, timeout_s=1100)
    assert counts["raised"] > 300


_WORKER = """
pool = create()
words = pool.array("x", 8, "u8")
over = threading.Event()
trouble, calls = [], []

def work():
    try:
        while not over.is_set():
            words[:] += 1
            pool.persist(words)
            calls.append(1)
        pool.persist(words)
    except BaseException as error:
        trouble.append(repr(error))

thread = threading.Thread(target=work)
thread.start()
interrupts = 0
while interrupts < 50:
    try:
        threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(30)
    except KeyboardInterrupt:
        interrupts += 1
# On a busy machine they may be over before the thread has got on.
deadline = time.monotonic() + 30
while len(calls) <= 10 and not trouble and time.monotonic() < deadline:
    time.sleep(0.001)
over.set()
thread.join()
assert not trouble, trouble
assert len(calls) > 10, len(calls)
there = pool.read(words)
assert (there == words).all(), (there, words)
closing = threading.Thread(target=pool.close)
del words
try:
    closing.start()
    threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGINT)).start()
    time.sleep(30)
except KeyboardInterrupt:
    closing.join()
assert pool.closed
open_again().close()
print(json.dumps(interrupts))
"""


def test_signals_are_the_main_thread_s(tmpfs: Path):
    assert run(tmpfs, _WORKER) == 50


_EXIT = """
signal.signal(signal.SIGALRM, lambda *_: exec("raise Custom"))
pool = create()
peer = pool.replicas[0].peer.pid

def at_exit():
    os.kill(peer, signal.SIGSTOP)
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        pool.close()
    except Custom:
        print(json.dumps(time.monotonic() - begun), flush=True)

atexit.register(at_exit)
"""


def test_a_signal_while_the_interpreter_exits(tmpfs: Path):
    took_s = run(tmpfs, _EXIT)
    assert 0.3 <= took_s < 3.0
    assert not serving_at(tmpfs)


_TWICE = """
pool = create()
peer = pool.replicas[0].peer.pid
signal.signal(signal.SIGALRM, lambda *_: exec("raise Custom"))
os.kill(peer, signal.SIGSTOP)
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.02)
try:
    pool.close()
except Custom:
    signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps(1), flush=True)
"""


def test_signals_in_a_row_and_then_the_end(tmpfs: Path):
    """The second one ends the waiting; the end of the process waits for what is left to do."""
    run(tmpfs, _TWICE)
    assert not serving_at(tmpfs)
