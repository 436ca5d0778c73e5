"""`rpmem.base.workers`: one thread for the calls of the main thread, which is kept for a moment."""

from __future__ import annotations

import contextvars
import functools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from rpmem.base import interrupts, workers

LONG_S = 30.0


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    # Under cron and the like SIGINT is ignored, and nothing would be raised.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _none_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test begins and ends without threads of this kind, and none ends by itself meanwhile."""
    wait_until(lambda: not ours())
    monkeypatch.setattr(workers, "IDLE_S", LONG_S)
    yield
    monkeypatch.undo()
    monkeypatch.setattr(workers, "IDLE_S", 0.0)
    interrupts.guarded(lambda: None)
    while workers._idle:  # two of them, if both offered themselves at the same moment
        interrupts.guarded(lambda: None)
        time.sleep(0.001)
    wait_until(lambda: not ours())


def ours() -> list[threading.Thread]:
    """Return the threads that do what `guarded` is given."""
    return [each for each in threading.enumerate() if each.name == "rpmem call"]


def wait_until(true: Callable[[], object]) -> None:
    """Fail when it does not come true."""
    end = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def who() -> int:
    """Work that says which thread does it."""
    return threading.get_ident()


class Thing:
    """Something that can be gone."""


# --- which thread ------------------------------------------------------------------------------


def test_calls_in_a_row_are_done_by_one_thread():
    idents = {interrupts.guarded(who) for _ in range(50)}
    assert len(idents) == 1
    assert idents != {threading.get_ident()}
    assert len(ours()) == 1


def test_it_ends_when_there_is_nothing_to_do_and_another_one_comes(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(workers, "IDLE_S", 0.05)
    interrupts.guarded(who)
    (first,) = ours()
    first.join(LONG_S)
    assert not first.is_alive()
    assert not workers._idle
    assert interrupts.guarded(lambda: 7) == 7


def test_it_sleeps_while_it_waits():
    interrupts.guarded(who)
    (thread,) = ours()
    wait_until(lambda: not interrupts._unfinished)

    def switches() -> int:
        with open(f"/proc/self/task/{thread.native_id}/status") as status:
            lines = dict(line.split(":\t", 1) for line in status)
        return int(lines["voluntary_ctxt_switches"])

    before = switches()
    time.sleep(5 * workers.LOOK_S)
    assert switches() - before <= 1


def test_a_call_within_a_call_is_done_where_that_is():
    assert interrupts.guarded(lambda: interrupts.guarded(who) == who())


def test_other_threads_get_none():
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(interrupts.guarded(who) == who()))
    thread.start()
    thread.join()
    assert found == [True]
    assert not ours()


def test_a_handler_s_call_is_done_while_another_one_is():
    inner: list[int] = []
    done = threading.Event()

    def handler(*_: object) -> None:
        inner.append(interrupts.guarded(who))
        done.set()

    def work() -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert done.wait(LONG_S)
        return who()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        interrupts.guarded(who)  # so that one waits
        outer = interrupts.guarded(work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(inner) == 1
    assert outer != inner[0]


def test_of_two_threads_one_ends_at_once():
    test_a_handler_s_call_is_done_while_another_one_is()
    assert len(workers._idle) == 1
    wait_until(lambda: len(ours()) == 1)


def test_a_thread_that_undoes_is_not_waited_for():
    undone, second = threading.Event(), threading.Event()

    def discard(_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # ends the waiting for this
        assert second.wait(LONG_S)
        undone.set()

    def work() -> object:
        os.kill(os.getpid(), signal.SIGINT)
        call = interrupts._local.call
        assert call is not None
        wait_until(lambda: call.cancelled)
        return Thing()

    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work, discard, undo_s=LONG_S)
    begun = time.monotonic()
    for _ in range(20):
        assert interrupts.guarded(lambda: 7) == 7
    assert time.monotonic() - begun < 10 * workers.LOOK_S
    assert not undone.is_set()
    second.set()
    assert undone.wait(LONG_S)


def test_a_thread_that_hangs_is_not_waited_for():
    go_on = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait(LONG_S)

    interrupts.guarded(who)
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupts.guarded(work)
    assert "still being undone" in caught.value.__notes__[0]
    assert interrupts.guarded(lambda: 7) == 7
    go_on.set()


def test_a_call_that_nobody_begins_gets_a_thread():
    """Its thread was given up: by a signal between two steps, or because it is busy or gone."""
    dead: workers.SimpleQueue[workers.Job] = workers.SimpleQueue()
    workers._idle.append(dead)
    assert interrupts.guarded(lambda: 7) == 7
    assert dead.qsize() == 1


def test_a_thread_that_was_taken_is_not_offered_a_second_time():
    """A second offer outlives the thread, and the next call waits for nobody."""
    wait_until(lambda: not workers._idle)
    worker = workers._Worker(None)
    worker._offer()
    workers._idle.pop()  # somebody has taken it, and is about to hand over a job
    worker._offer()
    assert not workers._idle


def test_a_call_that_was_given_up_is_not_begun():
    done: list[int] = []
    call = interrupts._Call(lambda: done.append(1), None, 1.0)
    call.cancelled = True
    call.cancel(KeyboardInterrupt())
    interrupts.guarded(who)
    workers.hand_over(call)
    workers.start(call)
    wait_until(lambda: len(ours()) == 1)
    assert done == []


def test_the_thread_that_was_handed_one_in_vain_takes_the_next():
    first = interrupts.guarded(who)
    call = interrupts._Call(who, None, 1.0)
    assert call.claim()
    workers.hand_over(call)
    wait_until(lambda: workers._idle)
    assert interrupts.guarded(who) == first


def test_what_was_taken_is_not_undone_however_late_that_is_seen():
    undone: list[int] = []
    call = interrupts._Call(lambda: 7, undone.append, 1.0)
    assert call.claim()
    call.carry_out()
    call.announce()
    call.taken = True
    call.see_off()
    assert undone == []
    assert call.result == 7


# --- what it keeps -----------------------------------------------------------------------------


def test_a_waiting_thread_keeps_nothing_alive():
    used, made = Thing(), Thing()
    variable: contextvars.ContextVar[Thing] = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    context.run(variable.set, Thing())
    gone = [weakref.ref(used), weakref.ref(made), weakref.ref(context[variable])]
    holder = [used, made]

    def work() -> Thing:
        assert len(holder) == 2
        return holder[1]

    def discard(_: object, also: Thing = used) -> None:
        raise AssertionError(also)

    context.run(interrupts.guarded, work, discard)
    holder.clear()
    del used, made, context, work, discard
    assert [each() for each in gone] == [None, None, None]
    assert len(ours()) == 1


def test_nor_does_it_after_an_error():
    used = Thing()
    gone = weakref.ref(used)

    def work(thing: Thing) -> None:
        raise KeyError(id(thing))

    with pytest.raises(KeyError) as caught:
        interrupts.guarded(functools.partial(work, used))
    del used, caught
    assert gone() is None
    assert len(ours()) == 1


def test_nor_after_an_interrupt():
    used = Thing()
    gone = weakref.ref(used)

    def work(thing: Thing) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while thing:
            interrupts.check()
            time.sleep(0.001)

    def discard(_: object, also: Thing = used) -> None:
        raise AssertionError(also)

    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(functools.partial(work, used), discard)
    del used, discard
    wait_until(lambda: gone() is None or not ours())
    assert gone() is None
    assert len(ours()) == 1


def test_each_call_has_its_own_context():
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    for value in range(3):
        variable.set(value)
        assert interrupts.guarded(variable.get) == value
        interrupts.guarded(lambda: variable.set(-1))
        assert variable.get() == value


def test_nothing_of_a_call_is_left_for_the_next():
    assert interrupts.guarded(lambda: interrupts._local.call) is not None
    (inbox,) = workers._idle
    wait_until(lambda: not interrupts._unfinished)
    found: list[object] = []
    job = interrupts._Call(lambda: None, None, 1.0)
    job.carry_out = lambda: found.append(interrupts._local.call)  # type: ignore[method-assign]
    workers.hand_over(job)
    assert job.done.acquire(timeout=LONG_S)
    job.taken = True
    assert found == [None]
    del inbox


# --- processes ---------------------------------------------------------------------------------


def test_a_forked_child_starts_its_own():
    interrupts.guarded(who)
    assert workers._idle
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            waits = bool(workers._idle)
            begun = time.monotonic()
            assert interrupts.guarded(lambda: 7) == 7
            # Not by waiting for one that is not there.
            code = 2 if waits or time.monotonic() - begun > workers.LOOK_S * 0.9 else 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert interrupts.guarded(lambda: 7) == 7


def test_a_forked_child_does_not_wait_for_what_its_parent_undoes():
    go_on = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait(LONG_S)

    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(work)
    assert interrupts._unfinished
    pid = os.fork()
    if pid == 0:
        os._exit(len(interrupts._unfinished))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    go_on.set()


@pytest.mark.parametrize("idle_s", [0.0, 0.02])
def test_the_end_of_the_interpreter_waits_for_none(idle_s: float):
    """Whether the thread waits at that moment, or wakes up just then."""
    program = (
        "import sys, time\n"
        "from rpmem.base import interrupts, workers\n"
        "workers.IDLE_S = float(sys.argv[1]) or 1000.0\n"
        "assert interrupts.guarded(lambda: 7) == 7\n"
        "time.sleep(float(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(idle_s)],
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_thread_that_cannot_be_had_is_not_needed_where_one_waits(monkeypatch: pytest.MonkeyPatch):
    def none(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    interrupts.guarded(who)
    monkeypatch.setattr("rpmem.base.workers._thread.start_new_thread", none)
    monkeypatch.setattr(threading.Thread, "start", none)
    assert interrupts.guarded(who) != who()


def test_what_a_handler_raises_is_not_taken_for_that(monkeypatch: pytest.MonkeyPatch):
    def handler(*_: object, **__: object) -> None:
        raise RuntimeError("a handler of the program")

    done: list[int] = []
    monkeypatch.setattr("rpmem.base.workers._thread.start_new_thread", handler)
    with pytest.raises(RuntimeError, match="handler of the program"):
        interrupts.guarded(lambda: done.append(1))
    assert done == []
