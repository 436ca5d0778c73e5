"""Signals at random moments of the calls that make, join and end, and of those that only wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import rpmem
from rpmem.epochs.record import Mark
from tests.support import hanging_rpmemd, interrupt, seeds
from tests.support.lateness import Watch
from tests.support.processes import stop, wait_gone
from tests.support.without import is_built

SIZE = 4 << 20
#: Seconds in which a signal takes effect.
SOON = 0.2
#: What a busy machine adds: a process that runs has to be scheduled a few times.
BUSY = 0.6


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    # Under cron and the like SIGINT is ignored, and nothing would be raised.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_after(seconds: float) -> list[float]:
    """Send SIGINT to this process; the list gets the time at which that was."""
    sent: list[float] = []

    def fire() -> None:
        time.sleep(seconds)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=fire).start()
    return sent


def forever(pool: rpmem.Pool) -> None:
    """Send the whole pool, again and again."""
    while True:
        pool.persist(relaxed=True)


# --- random moments ---


@pytest.mark.alone
@pytest.mark.parametrize("call", interrupt.CALLS)
def test_random_moments(call: str, tmpfs: Path):
    figures = interrupt.in_process(call, tmpfs, seed=1, rounds=50)[call]
    assert figures["rounds"] == 50
    assert figures["interrupted"] >= 10
    assert figures["median_ms"] < SOON * 1e3
    # The machine may keep a thread from a core for longer; that is counted by itself.
    assert figures["late_by_us"] == 0, figures


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("call", interrupt.CALLS)
def test_many_random_moments(call: str, tmpfs: Path, record_property: Callable[[str, int], None]):
    figures = interrupt.in_process(call, tmpfs, seed=seeds.first(2), rounds=1000)[call]
    for name in ("rounds", "interrupted", "late", "late_by_us"):
        record_property(f"{call} {name}", figures[name])
    assert figures["rounds"] == 1000
    assert figures["late_by_us"] == 0, figures


# --- targets that hang ---


def test_persist_while_the_target_hangs(tmpfs: Path):
    with rpmem.Pool.create(tmpfs / "p", SIZE, f"local:{tmpfs} a.set", parts=1) as pool:
        words, others = pool.array("x", 10), pool.array("y", 10)
        peer = pool.replicas[0].peer
        assert peer is not None
        stop(peer.pid)
        words[:] = 1
        sent = interrupt_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.persist(words)
        assert time.monotonic() - sent[0] < SOON + BUSY
        pool.flush(others)
        sent = interrupt_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.drain()
        assert time.monotonic() - sent[0] < SOON + BUSY
        # What the first call left under way may not be overtaken.
        sent = interrupt_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.flush(words)
        assert time.monotonic() - sent[0] < SOON + BUSY
        os.kill(peer.pid, signal.SIGCONT)
        # The answers that come late are not taken for those of other calls.
        for value in range(2, 100):
            words[:] = value
            pool.persist(words)
            assert (pool.read(words) == value).all()
        del words, others


def test_copies_are_equal_after_an_interrupt(tmpfs: Path):
    spec = f"local:{tmpfs} a.set"
    with rpmem.Pool.create(tmpfs / "p", SIZE, spec, parts=1, nlanes=1) as pool:
        words = pool.array("x", 1000)
        peer = pool.replicas[0].peer
        assert peer is not None
        stop(peer.pid)
        # One call takes the only lane, so the other sends nothing at all.
        other = threading.Thread(target=lambda: pool.persist((SIZE // 2, 8)))
        other.start()
        while pool._copies.core.calls == 0:
            time.sleep(0.001)
        words[:] = 7
        interrupt_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.persist(words)
        os.kill(peer.pid, signal.SIGCONT)
        other.join()
        del words
    # Both were marked as complete, so both have to have it.
    with rpmem.Pool.open(tmpfs / "p", spec) as pool:
        assert (pool.read(pool["x"]) == pool["x"]).all()


def test_read_while_the_target_hangs(tmpfs: Path):
    spec = f"local:{tmpfs} a.set"
    with rpmem.Pool.create(tmpfs / "p", SIZE, spec, parts=1) as pool:
        words = pool.array("x", 10)
        peer = pool.replicas[0].peer
        assert peer is not None
        stop(peer.pid)
        sent = interrupt_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.read(words)
        assert time.monotonic() - sent[0] < SOON + BUSY
        # What it asked for may still come, so nothing else is asked for over there.
        with pytest.raises(rpmem.ReplicaLost, match="a read was interrupted"):
            pool.persist(words)
        os.kill(peer.pid, signal.SIGCONT)
        pool.detach(0)
        pool.attach(spec)
        pool.persist(words)
        del words


@pytest.mark.alone
def test_a_large_persist_is_interrupted_although_it_moves(tmpfs: Path):
    size = 256 << 20
    memory = np.zeros(size, np.uint8)
    with rpmem.Pool.create(memory, None, f"local:{tmpfs} a.set", parts=1) as pool:
        pool.persist()  # so that the target has its pages: the kernel clears new ones first
        watch = Watch(signal.SIGINT, 0.02).start()
        with pytest.raises(KeyboardInterrupt):
            forever(pool)
        watch.effect()
        delay = watch.join()
        assert delay.own_s < SOON + BUSY, delay
        pool.persist((SIZE, 8))


def test_array_while_the_target_hangs(tmpfs: Path):
    spec = f"local:{tmpfs} a.set"
    with rpmem.Pool.create(tmpfs / "p", SIZE, spec, parts=1) as pool:
        peer = pool.replicas[0].peer
        assert peer is not None
        stop(peer.pid)
        sent = interrupt_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.array("x", 10)
        assert time.monotonic() - sent[0] < SOON + BUSY
        # It may have the array or not, so it does not count as equal from here on.
        with pytest.raises(rpmem.ReplicaLost, match="interrupted"):
            pool.persist((SIZE // 2, 8))
        os.kill(peer.pid, signal.SIGCONT)
    with rpmem.Pool.open(tmpfs / "p", spec) as pool:
        assert pool.names() in ([], ["x"])
        pool.array("x", 10)


def test_close_while_the_target_hangs(tmpfs: Path):
    spec = f"local:{tmpfs} a.set"
    pool = rpmem.Pool.create(tmpfs / "p", SIZE, spec, parts=1)
    peer = pool.replicas[0].peer
    assert peer is not None
    stop(peer.pid)
    sent = interrupt_after(0.2)
    with pytest.raises(KeyboardInterrupt):
        pool.close()
    assert time.monotonic() - sent[0] < SOON + BUSY
    assert pool.closed
    rpmem.Pool.open(tmpfs / "p", spec).close()


@pytest.mark.parametrize("point", [each for each in hanging_rpmemd.POINTS if each != "attributes"])
def test_create_while_the_target_hangs(point: str, tmpfs: Path):
    here, there = tmpfs / "here", tmpfs / "there"
    here.mkdir()
    there.mkdir()
    sent = interrupt_after(1.0)
    with pytest.raises(KeyboardInterrupt) as caught:
        rpmem.Pool.create(
            here / "p", SIZE, f"local:{there} a.set", parts=1,
            command=hanging_rpmemd.command(point),
        ).close()  # fmt: skip
    took = time.monotonic() - sent[0]
    assert took < 2.0 + SOON + BUSY
    if point == "close":
        return  # that is the end of a pool, which is made by then
    assert os.listdir(here) == []
    notes = " ".join(getattr(caught.value, "__notes__", []))
    # Where something may be left over there, it is named.
    assert (f"local:{there}: a.set" in notes) >= bool(os.listdir(there))
    if point in ("start", "hello"):
        assert took < SOON + BUSY
        assert not notes


def test_open_while_the_target_hangs_over_its_digests(tmpfs: Path):
    (tmpfs / "there").mkdir()
    here, spec = tmpfs / "p", f"local:{tmpfs}/there a.set"
    rpmem.Pool.create(here, SIZE, spec, parts=1).close()
    rpmem.Pool.open(here, []).close()
    if not is_built("rpmem.memory.changes.unit_digests"):
        pytest.skip("copies cannot be compared here")
    sent = interrupt_after(1.0)
    with pytest.raises(KeyboardInterrupt):
        # What is discarded is compared, whatever is known of it.
        rpmem.Pool.open(here, spec, discard=spec, command=hanging_rpmemd.command("digests"))
    assert time.monotonic() - sent[0] < 2.0 + SOON + BUSY
    rpmem.Pool.open(here, spec).close()


def test_second_interrupt_does_not_spoil_the_undoing(tmpfs: Path):
    here, there = tmpfs / "here", tmpfs / "there"
    here.mkdir()
    there.mkdir()
    interrupt_after(1.0)
    interrupt_after(1.3)
    with pytest.raises(KeyboardInterrupt):
        rpmem.Pool.create(
            here / "p", SIZE, f"local:{there} a.set", parts=1,
            command=hanging_rpmemd.command("create"),
        )  # fmt: skip
    end = time.monotonic() + 20
    while os.listdir(here) and time.monotonic() < end:
        time.sleep(0.01)
    assert os.listdir(here) == []
    rpmem.Pool.create(here / "p", SIZE, f"local:{there} a.set", parts=1).close()


# --- a signal that nobody handles ---

_WRITER = """
import sys
import rpmem

pool = rpmem.Pool.create(sys.argv[1], 4 << 20, sys.argv[2], parts=1)
counter = pool.array("counter", 1, "u8")
other = pool.array("other", 1, "u8")
print(pool.replicas[0].peer.pid, flush=True)
while True:
    counter += 1
    pool.persist(counter)
    print(counter[0], flush=True)
"""


def test_sigterm_by_default_is_a_crash(tmpfs: Path):
    """Whatever was acknowledged is there, nothing counts as closed, and the target lets go."""
    where, target = str(tmpfs / "pool"), f"local:{tmpfs} pool.set"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, where, target], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        daemon = int(writer.stdout.readline())
        while int(writer.stdout.readline()) < 500:
            pass
        writer.send_signal(signal.SIGTERM)
        acknowledged = [int(line) for line in writer.stdout if line.endswith("\n")]
        assert writer.wait(10) == -signal.SIGTERM
    wait_gone(daemon)
    last = max(acknowledged, default=500)
    with rpmem.Pool.open(where, readonly=True) as looked:
        assert looked.record.mark is Mark.BEGUN
        assert last <= looked["counter"][0] <= last + 1
        offset = looked.entry("other").offset
    # Stored and never persisted, as far as anybody knows.
    with open(where, "r+b") as file:
        file.seek(offset)
        file.write(b"\x07" * 8)
    with rpmem.Pool.open(where, target) as pool:
        counter = pool["counter"]
        assert last <= counter[0] <= last + 1
        for name in pool.names():
            assert pool.read(pool[name])[0] == pool[name][0]
        del counter
