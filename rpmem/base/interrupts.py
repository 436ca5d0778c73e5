"""Signals in the middle of a call: where they take effect, and what is done about them.

The handler of a signal may raise between any two steps of the main thread: after a file was made
and before anybody has noted that. So a call that makes, joins or ends something (`guarded`) is
carried out by a thread of its own, where no handler runs. The main thread only waits for it, and
what is raised there reaches the work as `Interrupted`, at the points where that waits (`check`).
From then on its waits are short, so that a target that hangs does not hold up the undoing.

Calls that only wait, such as ``persist``, stay in the thread they were made in and look for
signals now and then.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

#: Seconds between two looks for an interrupt, at most.
SLICE_S: Final = 0.05
#: Seconds that a target gets to undo what was made there.
UNDO_S: Final = 2.0
#: Seconds that it gets to end a session, or a change of records, where nothing has to be undone.
FAREWELL_S: Final = 0.1
# What is left to do here when the target has been given up: processes are reaped, memory unmapped.
_LAST_STEPS_S: Final = 1.0
_SHORTEST_NAP_S: Final = 0.0001

_T = TypeVar("_T")


class Interrupted(BaseException):
    """The call that this thread works for was interrupted; its caller gets another exception."""


class _Local(threading.local):
    call: _Call[Any] | None = None
    undoing = 0
    finishing = 0
    end: float | None = None


_local = _Local()
_unfinished: set[_Call[Any]] = set()


class _Call(Generic[_T]):
    """One call of the main thread."""

    def __init__(
        self, work: Callable[[], _T], discard: Callable[[_T], object] | None, undo_s: float
    ) -> None:
        self.cancelled = False
        self.refused = False
        self.over = False
        self.taken = False
        self.result: _T | None = None
        self.error: BaseException | None = None
        self.done = _thread.allocate_lock()
        self.left: list[str] = []
        self.breakers: list[Callable[[], object]] = []
        self._undo_s = undo_s
        self._cancelled_at = 0.0
        self._work = work
        self._discard = discard
        self._context = contextvars.copy_context()
        self._claim = _thread.allocate_lock()
        self._discarded = _thread.allocate_lock()
        self.done.acquire()
        self._discarded.acquire()

    def begin(self) -> None:
        """Start the thread; runs in one that is no `threading.Thread` and soon over.

        Starting that one is a single step, which a signal comes before or after.
        """
        if not self._claim.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._run, name="rpmem call", daemon=True).start()
        except RuntimeError:
            self.refused = True
            self.over = True
            self.done.release()

    def _run(self) -> None:
        _local.call = self
        _unfinished.add(self)
        try:
            self.result = self._context.run(self._work)
        except BaseException as error:
            self.error = error
        # A pool that is in there must not outlive its last user.
        del self._work
        self.over = True
        self.done.release()
        # However many signals come, and whenever: one of the two is said in the main thread.
        nap = _SHORTEST_NAP_S
        while not (self.taken or self.cancelled):
            self._claim.acquire(timeout=nap)  # nobody gives it back: a sleep
            nap = min(nap * 2, SLICE_S)
        if not self.taken:
            self._run_discard()
        _unfinished.discard(self)

    def _run_discard(self) -> None:
        """Undo what was complete already."""
        result, self.result = self.result, None
        try:
            if self._discard is not None and result is not None:
                with undoing():
                    self._discard(result)
        except BaseException as error:
            self.left.append(str(error))
        self._discarded.release()

    def cancel(self, interrupt: BaseException) -> None:
        """Have the work undone and wait for that; `cancelled` is set already.

        Another signal may end this anywhere: the work looks at `cancelled` only.
        """
        self.patience()
        if self._claim.acquire(blocking=False):
            return  # it has not begun, and will not
        for breaker in list(self.breakers):
            _in_thread(breaker)
        # The caller may have got the lock, and the signal just then.
        finished = self.over or self._got(self.done)
        if finished and self.error is None and not self.refused:
            # It was over at the same moment, and nobody will ever see the result.
            finished = self._got(self._discarded)
        if not finished:
            self.left.append("an operation that is still being undone")
        if self.left:
            interrupt.add_note("rpmem: left behind: " + "; ".join(self.left))

    def _got(self, lock: _thread.LockType) -> bool:
        end = time.monotonic() + self._undo_s + _LAST_STEPS_S
        while time.monotonic() < end:
            if lock.acquire(timeout=SLICE_S):
                return True
        return False

    @property
    def late(self) -> bool:
        """Whether the moment is over that something may be finished in."""
        self.patience()
        return bool(self._cancelled_at) and time.monotonic() - self._cancelled_at > FAREWELL_S

    def patience(self) -> float | None:
        """Return the seconds that a wait may take at most now, None for no limit."""
        if not self.cancelled:
            return None
        if not self._cancelled_at:
            self._cancelled_at = time.monotonic()
        return max(self._cancelled_at + self._undo_s - time.monotonic(), 0.0)

    def wait_until_over(self) -> None:
        """Wait for the end of the undoing, as far as it has one."""
        patience = self.patience()
        if patience is None:
            return
        # A target is given up when that is over, and its process has still to be ended.
        if self.over or self.done.acquire(timeout=patience + _LAST_STEPS_S):
            self._discarded.acquire(timeout=self._undo_s + _LAST_STEPS_S)


def guarded(
    work: Callable[[], _T],
    discard: Callable[[_T], object] | None = None,
    *,
    undo_s: float = FAREWELL_S,
) -> _T:
    """Carry out `work` so that a signal leaves it done or undone.

    Parameters
    ----------
    work : callable
        Undoes what it has done when it ends with an exception, `Interrupted` included.
    discard : callable, optional
        Undoes the whole, given the result of a `work` that was over at the moment of the signal.
    undo_s : float
        Seconds until a target that does not answer is given up.

    Returns
    -------
    object
        What `work` returns; what it raises is raised.

    Notes
    -----
    What the handler of a signal raises is raised here, once all is undone. Notes of the exception
    name what could not be. A second signal ends the waiting, not the undoing.
    """
    if _thread.get_ident() != threading.main_thread().ident:
        return work()  # handlers run in the main thread only
    call = _Call(work, discard, undo_s)
    try:
        _thread.start_new_thread(call.begin, ())
        # In slices: a signal just before the system call does not end it.
        while not call.done.acquire(True, SLICE_S):
            pass
    except RuntimeError:
        return work()  # no thread is to be had
    except BaseException as interrupt:
        call.cancelled = True
        call.cancel(interrupt)
        raise
    # No call from here to the return: so no handler runs, and the result is not lost.
    call.taken = True
    if call.refused:
        return work()
    if call.error is None:
        # The thread may take a moment to end, and must not keep a view of memory alive for it.
        result, call.result = call.result, None
        return result  # type: ignore[return-value]
    try:
        raise call.error
    finally:
        # A traceback that refers to itself would keep memory mapped, and files locked.
        call.error = None
        del call


def _in_thread(work: Callable[[], object]) -> None:
    try:
        threading.Thread(target=work, name="rpmem call", daemon=True).start()
    except RuntimeError:
        work()  # no thread is to be had


def check() -> None:
    """Raise `Interrupted` when the call that this thread works for was; not while undoing."""
    call = _local.call
    if call is None or not call.cancelled or _local.undoing:
        return
    if _local.finishing and not call.late:
        return
    raise Interrupted


def interrupted() -> bool:
    """Whether the call that this thread works for was interrupted."""
    return _local.call is not None and _local.call.cancelled


def limited(seconds: float | None) -> float | None:
    """Return how long a wait may take: as long as it says, or less after an interrupt."""
    call = _local.call
    limits = [seconds, None if call is None else call.patience()]
    if _local.end is not None:
        limits.append(max(_local.end - time.monotonic(), 0.0))
    return min((limit for limit in limits if limit is not None), default=None)


def wait_for(condition: threading.Condition, met: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition, whose lock is held, but not beyond an interrupt; False when late."""
    end = time.monotonic() + seconds
    while not met():
        check()
        left = limited(end - time.monotonic())
        assert left is not None
        if left <= 0:
            return False
        condition.wait(min(left, SLICE_S))
    return True


def slice_s() -> float | None:
    """Return how long a wait may be deaf: None where no interrupt can come."""
    return None if _local.call is None else SLICE_S


@contextlib.contextmanager
def undoing(at_most_s: float | None = None) -> Iterator[None]:
    """Undo, or end: what is done in here is not interrupted, only its waits are cut short.

    Parameters
    ----------
    at_most_s : float, optional
        Seconds that its waits may take together, interrupted or not.
    """
    before = _local.end
    _local.undoing += 1
    if at_most_s is not None:
        _local.end = time.monotonic() + at_most_s
    try:
        yield
    finally:
        _local.undoing -= 1
        _local.end = before


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Do something that is soon over, and better done than given up: an interrupt waits a moment.

    When the moment is over, what is done in here is interrupted nevertheless.
    """
    _local.finishing += 1
    try:
        yield
    finally:
        _local.finishing -= 1


@contextlib.contextmanager
def broken_by(breaker: Callable[[], object]) -> Iterator[None]:
    """Have `breaker` called, from another thread, at an interrupt: it ends a wait of others."""
    call = _local.call
    if call is None:
        yield
        return
    call.breakers.append(breaker)
    try:
        check()
        yield
    finally:
        call.breakers.remove(breaker)


def left_behind(what: str) -> None:
    """Note something that could not be undone, for the exception that the caller gets."""
    call = _local.call
    if call is not None:
        call.left.append(what)


def shared(work: Callable[..., _T]) -> Callable[..., _T]:
    """Return `work` as a helper thread can do it for the call that this thread works for."""
    call = _local.call

    def for_the_call(*arguments: Any, **keywords: Any) -> _T:
        _local.call = call
        try:
            check()
            return work(*arguments, **keywords)
        finally:
            _local.call = None

    return for_the_call


@atexit.register
def _finish() -> None:
    # Who was interrupted twice may end the process, and with it the undoing.
    for call in list(_unfinished):
        call.wait_until_over()
