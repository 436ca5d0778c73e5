"""`rpmem.base.interrupts`: a call is done or undone, whenever a signal comes."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from rpmem.base import interrupts, workers


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    # Under cron and the like SIGINT is ignored, and nothing would be raised.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_after(seconds: float) -> threading.Timer:
    """Send SIGINT to this process."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def nap(seconds: float) -> None:
    """Work that looks for an interrupt now and then."""
    interrupts.check()
    time.sleep(seconds)


def test_result_and_error_pass():
    assert interrupts.guarded(lambda: 7) == 7
    with pytest.raises(KeyError, match="there"):
        interrupts.guarded(lambda: {}["there"])


def test_a_result_lives_no_longer_than_its_caller_wants():
    """An array that was dropped can be deleted at once: the thread that made it lets go first."""

    class View:
        pass

    views = (weakref.ref(interrupts.guarded(View)) for _ in range(500))
    assert [view for view in (each() for each in views) if view is not None] == []


def test_work_is_not_in_the_main_thread_but_has_its_context():
    names = interrupts.guarded(lambda: threading.current_thread().name)
    assert names == "rpmem call"


def test_other_threads_do_their_work_themselves():
    found: list[str] = []
    thread = threading.Thread(
        target=lambda: found.append(interrupts.guarded(lambda: threading.current_thread().name)),
        name="mine",
    )
    thread.start()
    thread.join()
    assert found == ["mine"]


def test_interrupt_reaches_the_work_and_waits_for_the_undoing():
    undone = threading.Event()

    def work() -> None:
        try:
            while True:
                nap(0.001)
        except interrupts.Interrupted:
            time.sleep(0.05)
            undone.set()
            raise

    timer = interrupt_after(0.05)
    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work)
    assert undone.is_set()
    timer.join()


def test_notes_name_what_is_left():
    def work() -> None:
        try:
            while True:
                nap(0.001)
        finally:
            interrupts.left_behind("node2: a.set")

    timer = interrupt_after(0.05)
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupts.guarded(work)
    assert caught.value.__notes__ == ["rpmem: left behind: node2: a.set"]
    timer.join()


def test_undoing_is_not_interrupted_and_its_waits_are_short():
    waits: list[float] = []

    def work() -> None:
        try:
            while True:
                nap(0.001)
        except interrupts.Interrupted:
            with interrupts.undoing():
                begun = time.monotonic()
                condition = threading.Condition()
                with condition:
                    assert not interrupts.wait_for(condition, lambda: False, 30.0)
                waits.append(time.monotonic() - begun)
            raise

    timer = interrupt_after(0.05)
    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work, undo_s=0.2)
    assert 0.1 <= waits[0] < 5
    timer.join()


def test_what_is_soon_over_is_finished_first():
    finished = threading.Event()

    def work() -> None:
        with interrupts.finishing():
            interrupted = threading.Event()
            with interrupts.broken_by(interrupted.set):
                assert interrupted.wait(30)
            interrupts.check()
            finished.set()
        interrupts.check()

    timer = interrupt_after(0.05)
    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work)
    assert finished.is_set()
    timer.join()


def test_but_not_for_long():
    begun = time.monotonic()

    def work() -> None:
        with interrupts.finishing():
            while time.monotonic() < begun + 30:
                nap(0.001)

    timer = interrupt_after(0.01)
    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work)
    assert time.monotonic() < begun + 20
    timer.join()


def test_helpers_work_for_the_same_call():
    ends: list[BaseException] = []

    def help_out() -> None:
        try:
            while True:
                nap(0.001)
        except interrupts.Interrupted as error:
            ends.append(error)

    def work() -> None:
        threads = [threading.Thread(target=interrupts.shared(help_out)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        interrupts.check()

    timer = interrupt_after(0.05)
    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work)
    assert len(ends) == 2
    timer.join()


def test_handler_that_raises_something_else():
    def handler(*_: object) -> None:
        raise SystemExit(3)

    before = signal.signal(signal.SIGTERM, handler)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(SystemExit):
            interrupts.guarded(forever)
    finally:
        signal.signal(signal.SIGTERM, before)
        timer.join()


def forever() -> None:
    """Wait until interrupted."""
    while True:
        nap(0.001)


def test_second_signal_ends_the_waiting_and_not_the_undoing():
    undone, second = threading.Event(), threading.Event()

    def work() -> None:
        try:
            forever()
        except interrupts.Interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            second.wait(30)
            undone.set()
            raise

    timer = interrupt_after(0.05)
    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work, undo_s=30)
    assert not undone.is_set()
    second.set()
    assert undone.wait(30)
    timer.join()


def test_result_that_comes_after_the_second_signal_is_discarded():
    discarded, second = threading.Event(), threading.Event()

    def work() -> str:
        with interrupts.undoing():
            interrupted = threading.Event()
            with interrupts.broken_by(interrupted.set):
                assert interrupted.wait(30)
            os.kill(os.getpid(), signal.SIGINT)
            assert second.wait(30)
        return "something"

    timer = interrupt_after(0.05)
    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work, lambda _: discarded.set(), undo_s=30)
    second.set()
    assert discarded.wait(30)
    timer.join()


def test_a_thread_that_cannot_be_had(monkeypatch):
    def none(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(workers, "_idle", [])
    monkeypatch.setattr("rpmem.base.workers._thread.start_new_thread", none)
    assert interrupts.guarded(lambda: threading.current_thread()) is threading.main_thread()
    monkeypatch.undo()
    monkeypatch.setattr(workers, "_idle", [])
    monkeypatch.setattr(threading.Thread, "start", none)
    assert interrupts.guarded(lambda: 7) == 7


def rounds(count: int, seed: int) -> tuple[int, int]:
    """Make and unmake things under fire; return how often one was had and how often not."""
    moment = random.Random(seed)
    made: set[int] = set()
    had = interrupted = 0

    def work(number: int) -> int:
        made.add(number)
        try:
            for _ in range(10):
                nap(0.0001)
            return number
        except BaseException:
            made.discard(number)
            raise

    for number in range(count):
        stop = threading.Event()
        at = moment.random() * 0.003

        def fire(at: float = at, stop: threading.Event = stop) -> None:
            time.sleep(at)
            os.kill(os.getpid(), signal.SIGINT)
            stop.set()

        thread = threading.Thread(target=fire)
        result = None
        try:
            thread.start()
            result = interrupts.guarded(lambda number=number: work(number), made.discard)
            while True:
                stop.wait(1)
        except KeyboardInterrupt:
            pass
        thread.join()
        # What the caller has is made, and nothing else.
        assert made == ({result} if result is not None else set()), number
        had += result is not None
        interrupted += result is None
        made.clear()
    return had, interrupted


def test_done_or_undone_at_any_moment():
    had, interrupted = rounds(200, seed=5)
    assert had
    assert interrupted


@pytest.mark.slow
def test_done_or_undone_at_many_moments():
    assert sum(rounds(20_000, seed=6)) == 20_000


def test_the_bound_of_an_undoing_ends_with_it():
    with interrupts.undoing(60.0):
        with interrupts.undoing(5.0):
            assert interrupts.limited(None) <= 5.0
        assert 5.0 < interrupts.limited(None) <= 60.0
    assert interrupts.limited(None) is None


def test_what_breaks_off_a_call_does_so_only_while_it_is_asked_to():
    def work():
        call = interrupts._local.call
        with interrupts.broken_by(print):
            within = list(call.breakers)
        return within, list(call.breakers)

    assert interrupts.guarded(work) == ([print], [])
