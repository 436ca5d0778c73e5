"""A rate limit: how long reports take, and that nobody is told of anything else."""

from __future__ import annotations

import threading

import pytest

from rpmem.base import interrupts
from rpmem.errors import UsageError
from rpmem.pool.pacing import Paced
from rpmem.pool.progress import CHUNK, checked, chunks, quiet, within

MIB = 1 << 20


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert 0 < seconds <= interrupts.SLICE_S
        self.now += seconds


def paced(rate, clock, progress=quiet):
    return Paced(progress, rate, now_s=clock, sleep=clock.sleep)


def test_bytes_take_their_time():
    clock = Clock()
    report = paced(10 * MIB, clock)
    for done in range(0, 101, 10):
        report(done * MIB, 100 * MIB, "a")
    assert clock.now == pytest.approx(1010, abs=0.1)


def test_all_transfers_share_it():
    clock = Clock()
    report = paced(10 * MIB, clock)
    for done in range(0, 51, 10):
        for what in "ab":
            report(done * MIB, 50 * MIB, what)
    assert clock.now == pytest.approx(1010, abs=0.1)


def test_time_in_which_less_was_done_is_not_made_up_for():
    clock = Clock()
    report = paced(10 * MIB, clock)
    report(0, 100 * MIB, "a")
    clock.now += 60
    report(10 * MIB, 100 * MIB, "a")
    before = clock.now
    report(30 * MIB, 100 * MIB, "a")
    assert clock.now - before == pytest.approx(2, abs=0.1)


def test_a_slow_transfer_is_not_held_back():
    clock = Clock()
    report = paced(100 * MIB, clock)
    for done in range(1, 10):
        clock.now += 1
        before = clock.now
        report(done * MIB, 10 * MIB, "a")
        assert clock.now == before


@pytest.mark.parametrize(
    ("rate", "chunk"), [(1, MIB), (8 * MIB, 2 * MIB), (9 * MIB, 2 * MIB), (1 << 40, CHUNK)]
)
def test_pieces_fit_the_rate(rate, chunk):
    report = paced(rate, Clock())
    assert report.chunk == chunk
    assert within(report, 0, 100).chunk == chunk
    pieces = list(chunks(0, 3 * CHUNK, "a", paced(1 << 40, Clock())))
    assert pieces == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, CHUNK)]


def test_small_pieces_are_reported_one_by_one():
    clock, seen = Clock(), []
    report = paced(4 * MIB, clock, lambda done, *_: seen.append((done, clock.now)))
    list(chunks(0, 4 * MIB, "a", report))
    assert [done for done, _ in seen] == [0, MIB, 2 * MIB, 3 * MIB, 4 * MIB]
    assert clock.now == pytest.approx(1001, abs=0.05)


def test_what_is_no_rate_is_refused():
    for wrong in (0, -1, "fast", 1.5, True, "0MB"):
        if wrong is True:
            continue  # one byte in a second
        with pytest.raises(UsageError):
            checked(None, wrong)
    assert checked(None) is quiet
    assert checked(None, "8MiB").chunk == 2 * MIB


def test_reports_come_one_at_a_time():
    inside, most, lock = [0], [0], threading.Lock()

    def progress(*_):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.002)
        with lock:
            inside[0] -= 1

    told = checked(progress)
    threads = [threading.Thread(target=lambda: [told(1, 2, "a") for _ in range(10)]) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
