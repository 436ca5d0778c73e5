"""Signals in the middle of a call: where they take effect and how the call is undone.

The handler of a signal may raise between any two steps of the main thread: after a file was made
and before that is recorded. So a call that makes, joins or ends something (`guarded`) runs in
another thread (`rpmem.base.workers`), where no handler runs. The main thread only waits for it; an
exception raised there reaches the work as `Interrupted`, at the points where the work waits
(`check`). From then on its waits are short, so a target that hangs does not hold up the undoing.

Calls that only wait, such as ``persist``, stay in the calling thread and look for signals now and
then.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from rpmem.base import workers

#: Most seconds between two checks for an interrupt.
SLICE_S: Final = workers.LOOK_S
#: Seconds for a target to undo what was made there.
UNDO_S: Final = 2.0
#: Seconds for it to end a session, or a change of records, if nothing has to be undone.
FAREWELL_S: Final = 0.1
# For what remains to be done here after giving up the target: reap processes, unmap memory.
_LAST_STEPS_S: Final = 1.0

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
        self.discard = discard
        self._context = contextvars.copy_context()
        self._claim = _thread.allocate_lock()
        self._discarded = _thread.allocate_lock()
        self.done.acquire()
        self._discarded.acquire()

    def claim(self) -> bool:
        """Return True to the first who calls this."""
        return self._claim.acquire(blocking=False)

    @property
    def begun(self) -> bool:
        """Whether a thread carries it out, or did."""
        return self._claim.locked()

    def refuse(self) -> None:
        """Let the main thread do the work itself."""
        self.refused = True
        self.over = True
        self.done.release()

    def carry_out(self) -> None:
        """Do the work."""
        _local.call = self
        _unfinished.add(self)
        try:
            self.result = self._context.run(self._work)
        except BaseException as error:
            self.error = error
        # A pool referenced by the work must not outlive its last user.
        del self._work, self._context
        self.over = True

    def announce(self) -> None:
        """Let the main thread go on."""
        self.done.release()

    def see_off(self) -> None:
        """Undo work that was complete, unless its result was taken."""
        if not self.taken:
            self._run_discard()
            self.error = None  # its traceback refers to a pool
        _unfinished.discard(self)
        _local.call = None

    def _run_discard(self) -> None:
        result, self.result = self.result, None
        try:
            if self.discard is not None and result is not None:
                with undoing():
                    self.discard(result)
        except BaseException as error:
            self.left.append(str(error))
        self._discarded.release()

    def cancel(self, interrupt: BaseException) -> None:
        """Undo the work and wait for that; `cancelled` is already set.

        Another signal may end this anywhere: the work only looks at `cancelled`.
        """
        self.patience()
        if self.claim():
            return  # it has not begun and never will
        for breaker in list(self.breakers):
            _in_thread(breaker)
        # The caller may have taken the lock just as the signal came.
        finished = self.over or self._got(self.done)
        if finished and self.error is None and not self.refused:
            # It ended at the same moment, and its result will never be seen.
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
        """Whether the time for finishing something is over."""
        self.patience()
        return bool(self._cancelled_at) and time.monotonic() - self._cancelled_at > FAREWELL_S

    def patience(self) -> float | None:
        """Return the longest that a wait may take now, in seconds; None for no limit."""
        if not self.cancelled:
            return None
        if not self._cancelled_at:
            self._cancelled_at = time.monotonic()
        return max(self._cancelled_at + self._undo_s - time.monotonic(), 0.0)

    def wait_until_over(self) -> None:
        """Wait until the undoing ends, unless it takes too long."""
        patience = self.patience()
        if patience is None:
            return
        # The target is given up after that time, and its process still has to be ended.
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
        If it ends with an exception, `Interrupted` included, it undoes what it has done.
    discard : callable, optional
        Undoes everything, given the result of a `work` that had ended when the signal came.
    undo_s : float
        Seconds until a target that does not answer is given up.

    Returns
    -------
    object
        The result of `work`. Its exceptions are passed on.

    Notes
    -----
    The exception of a signal handler is raised here, once everything is undone. Its notes name what
    could not be undone. A second signal ends the waiting, not the undoing.
    """
    if _thread.get_ident() != threading.main_thread().ident:
        return work()  # handlers run in the main thread only
    call = _Call(work, discard, undo_s)
    try:
        workers.hand_over(call)
        # In slices: a signal just before the system call does not end it.
        while not call.done.acquire(True, SLICE_S):
            if not call.begun:
                workers.start(call)  # the thread that has it is busy, or gone
    except BaseException as interrupt:
        call.cancelled = True
        call.cancel(interrupt)
        raise
    # No call from here to the return, so no handler runs and the result is not lost.
    call.taken = True
    call.discard = None
    if call.refused:
        return work()  # no thread can be started
    if call.error is None:
        # The thread may take a moment to let go and must not keep a view of memory alive meanwhile.
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
        work()  # no thread can be started


def check() -> None:
    """Raise `Interrupted` if the call this thread works for was interrupted, unless undoing."""
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
    """Return how long a wait may take: `seconds`, or less after an interrupt."""
    call = _local.call
    limits = [seconds, None if call is None else call.patience()]
    if _local.end is not None:
        limits.append(max(_local.end - time.monotonic(), 0.0))
    return min((limit for limit in limits if limit is not None), default=None)


def wait_for(condition: threading.Condition, met: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition whose lock is held, less long after an interrupt; False if late."""
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
    """Return how long a wait may ignore interrupts; None if none can come."""
    return None if _local.call is None else SLICE_S


@contextlib.contextmanager
def undoing(at_most_s: float | None = None) -> Iterator[None]:
    """Undo or end something: the block is not interrupted, only its waits are cut short.

    Parameters
    ----------
    at_most_s : float, optional
        Seconds that its waits may take in total, interrupted or not.
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
    """Do something short that is better finished than given up: an interrupt waits a moment.

    After that moment the block is interrupted nevertheless.
    """
    _local.finishing += 1
    try:
        yield
    finally:
        _local.finishing -= 1


@contextlib.contextmanager
def broken_by(breaker: Callable[[], object]) -> Iterator[None]:
    """On an interrupt, call `breaker` from another thread, to end a wait inside other code."""
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
    """Record something that could not be undone, for the exception that the caller gets."""
    call = _local.call
    if call is not None:
        call.left.append(what)


def shared(work: Callable[..., _T]) -> Callable[..., _T]:
    """Return `work` so that a helper thread can do it on behalf of this thread's call."""
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
    # A program interrupted twice may end, and the undoing with it.
    for call in list(_unfinished):
        call.wait_until_over()


# In a forked child nobody will end them.
os.register_at_fork(after_in_child=_unfinished.clear)
