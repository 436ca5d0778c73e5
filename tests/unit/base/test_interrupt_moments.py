"""A signal at every moment of a guarded call, and a second one at every moment after that.

Handlers run where the interpreter looks for signals: after a call, at the begin of a function, and
where a loop begins anew. A trace function raises there, in one place after the other.
"""

from __future__ import annotations

import dis
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from rpmem.base import interrupts, workers
from tests.unit.base.test_workers import ours, wait_until

_FILES = {interrupts.__file__, workers.__file__}
#: A call has fewer moments than that.
_MANY = 500


@pytest.fixture(autouse=True)
def _idle_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_S", 0.02)


class Signal(Exception):
    """What the handler raises."""


def _raise() -> None:
    raise Signal("a signal")


class Signals:
    """Runs a handler at chosen moments of what the main thread does in the two modules.

    Parameters
    ----------
    moments : sequence of int
        The first is counted from the begin, each of the others from the one before.
    handler : callable
        The handler; by default it raises.
    """

    def __init__(self, *moments: int, handler: Callable[[], object] = _raise) -> None:
        self._left = list(moments)
        self._handler = handler
        self._count = 0
        self._before: dict[FrameType, str] = {}
        self.where: list[str] = []

    def __enter__(self) -> Signals:
        original = self._original = interrupts._Call.cancel

        def cancel(call: Any, interrupt: BaseException) -> None:
            # What a trace function raises ends the tracing.
            sys._getframe(1).f_trace = self._trace
            sys.settrace(self._trace)
            original(call, interrupt)

        interrupts._Call.cancel = cancel  # type: ignore[method-assign]
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        interrupts._Call.cancel = self._original  # type: ignore[method-assign]

    @property
    def raised(self) -> bool:
        """Whether each moment came."""
        return not self._left

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in _FILES or not self._left:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event != "opcode":
            return self._trace
        before = self._before.get(frame, "")
        self._before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if before.startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
            self._count += 1
            if self._count > self._left[0]:
                self._left.pop(0)
                self._count = 0
                self.where.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
                self._handler()
        return self._trace


class World:
    """Something that a call makes, and that must not be there after an interrupt."""

    def __init__(self, takes_s: float) -> None:
        self._takes_s = takes_s
        self.made: list[int] = []
        self.running = 0
        self.offered_while_undone = False

    def work(self) -> int:
        """Make it, or undo what was done."""
        self.running += 1
        try:
            end = time.monotonic() + self._takes_s
            self.made.append(7)
            try:
                while time.monotonic() < end:
                    interrupts.check()
                    time.sleep(0.0002)
            except BaseException:
                self.made.pop()
                raise
            return 7
        finally:
            self.running -= 1

    def discard(self, result: int) -> None:
        """Undo it."""
        worker: Any = threading.current_thread()
        self.offered_while_undone |= worker._target.__self__._inbox in workers._idle
        self.made.remove(result)


def one_call(moments: tuple[int, ...], takes_s: float) -> tuple[bool, bool, list[str]]:
    """Make a call under fire and check what is left.

    Returns
    -------
    raised, had, where
        Whether each moment came, whether there was a result, and where they were.
    """
    world = World(takes_s)
    signals = Signals(*moments)
    result = None
    try:
        with signals:
            result = interrupts.guarded(world.work, world.discard, undo_s=0.2)
    except Signal:
        pass
    where = f"{moments}: {signals.where}"
    if len(moments) > 1:
        # The second one ends the waiting, not the undoing.
        wait_until(lambda: not interrupts._unfinished)
    assert world.made == ([] if result is None else [7]), where
    assert not world.running, where
    # A thread that undoes is not one that waits for work.
    assert not world.offered_while_undone, where
    # Whatever was lost: the next call is done, and at once unless a thread has to be missed first.
    assert interrupts.guarded(lambda: 8) == 8
    assert world.made == ([] if result is None else [7]), where
    return signals.raised, result is not None, signals.where


def moments() -> Iterator[int]:
    """Return one moment after the other, for ever."""
    return iter(range(_MANY))


@pytest.mark.parametrize("takes_s", [0.0, 0.003, 0.07])
@pytest.mark.parametrize("waits", [True, False])
def test_a_signal_at_every_moment(takes_s: float, waits: bool):
    places = set()
    for moment in moments():
        if not waits:
            wait_until(lambda: not ours())
            workers._idle.clear()
        else:
            interrupts.guarded(lambda: None)
        raised, had, where = one_call((moment,), takes_s)
        places.update(each.split(":")[0] for each in where)
        if not raised:
            assert had
            break
    assert {"guarded", "hand_over", "__init__"} <= places
    assert ("start" in places) or waits
    wait_until(lambda: not ours())


@pytest.mark.parametrize("takes_s", [0.0, 0.003])
def test_and_a_second_one_at_every_moment_after_it(takes_s: float):
    places = set()
    for first in moments():
        for second in moments():
            raised, had, where = one_call((first, second), takes_s)
            places.update(each.split(":")[0] for each in where[1:])
            if not raised:
                break
        if not where:
            assert had
            break
    assert {"cancel", "patience", "claim"} <= places
    wait_until(lambda: not ours())


def test_a_call_of_a_handler_at_every_moment():
    for moment in moments():
        interrupts.guarded(lambda: None)
        inner: list[int] = []
        signals = Signals(
            moment, handler=lambda inner=inner: inner.append(interrupts.guarded(lambda: 9))
        )
        with signals:
            assert interrupts.guarded(lambda: 7) == 7
        assert inner == ([9] if signals.raised else []), signals.where
        if not signals.raised:
            break
    assert moment > 10


def test_a_handler_that_raises_what_a_thread_would():
    """It is no reason to do the work in this thread, or twice."""

    def handler() -> None:
        raise RuntimeError("a signal")

    for moment in moments():
        interrupts.guarded(lambda: None)
        done: list[int] = []
        signals = Signals(moment, handler=handler)
        try:
            with signals:
                interrupts.guarded(lambda done=done: done.append(threading.get_ident()))
            interrupted = False
        except RuntimeError:
            interrupted = True
        assert interrupted == signals.raised
        assert len(done) <= 1
        assert threading.get_ident() not in done
        if not interrupted:
            break


def test_the_moments_are_those_of_a_call():
    """Otherwise nothing above would be tried."""
    signals = Signals(_MANY)
    with signals:
        interrupts.guarded(lambda: None)
    assert 10 < signals._count < _MANY
