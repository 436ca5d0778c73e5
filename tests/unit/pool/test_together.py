"""Jobs at the same time: all are done, or the first failure ends the others soon."""

from __future__ import annotations

import threading

import pytest

from rpmem.pool.progress import CHUNK, quiet
from rpmem.pool.together import Together


def test_all_are_done_at_the_same_time():
    barrier, done = threading.Barrier(3, timeout=30), []
    together = Together(quiet)

    def job(number):
        barrier.wait()
        done.append(number)

    together.run([lambda number=number: job(number) for number in range(3)])
    assert sorted(done) == [0, 1, 2]
    assert together.chunk == CHUNK
    together.run([])


def test_one_is_done_by_the_caller():
    done = []
    Together(quiet).run([lambda: done.append(threading.get_ident())])
    assert done == [threading.get_ident()]


@pytest.mark.parametrize("first", [0, 1])
def test_a_failure_ends_the_others(first):
    seen, failed = [], threading.Event()
    together = Together(lambda *report: seen.append(report))

    def fail():
        failed.set()
        raise ValueError("mine")

    def work():
        failed.wait(30)
        for done in range(1000):
            threading.Event().wait(0.01)
            together(done, 1000, "work")

    jobs = [fail, work]
    with pytest.raises(ValueError, match="mine"):
        together.run([jobs[first], jobs[1 - first]])
    assert len(seen) < 900


def test_what_a_report_raises_is_raised():
    def stop(*_):
        raise KeyError("stop")

    together = Together(stop)
    with pytest.raises(KeyError, match="stop"):
        together.run([lambda: together(0, 1, "a"), lambda: None])
