"""The watch on signals distinguishes delays for lack of a core from our own delays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.lateness import Delay, Summary, Watch, covered, times_of_all

_LONG = 0.4


def _watched(work: Callable[[], object]) -> Delay:
    def handler(*_: object) -> None:
        work()
        watch.effect()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        # The signal may come before start() has returned.
        watch = Watch(signal.SIGUSR1, 0.01)
        return watch.start().join_after(10.0)
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def _one_busy_core(others: int) -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        for each in busy:
            each.kill()
            each.wait()


def _sleep_on() -> None:
    time.sleep(_LONG)


def _compute(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_sleep_is_our_own():
    delay = _watched(_sleep_on)
    assert delay.took_s >= _LONG
    assert delay.own_s > 0.2
    assert any("_sleep_on" in line for line in delay.doing)
    summary = Summary("sleep")
    summary.add(1, delay)
    assert (summary.late, summary.late_by_us) == (1, 1)


def test_computing_is_our_own():
    assert _watched(lambda: _compute(_LONG)).own_s > 0.2


@pytest.mark.alone
def test_want_of_a_core_is_not():
    with _one_busy_core(8):
        delay = _watched(lambda: _compute(0.08))
    assert delay.took_s > 0.2
    assert delay.own_s < delay.took_s / 2
    summary = Summary("busy")
    summary.add(1, delay)
    assert (summary.late, summary.late_by_us) == (1, 0)


def test_spans_that_overlap_count_once():
    assert covered([(0, 2), (1, 3), (5, 9)], 0.5, 6) == pytest.approx(3.5)
    assert covered([], 0, 1) == 0


def test_servers_count_that_are_nobody_s_children():
    parent = os.getppid()
    assert (parent, parent) not in times_of_all()
    assert (parent, parent) in times_of_all([parent])
