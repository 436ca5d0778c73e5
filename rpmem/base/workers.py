"""Threads that carry out jobs for another thread, which a signal may stop at any step.

A thread costs more to start than most jobs take. So one that has carried out a job waits for the
next one, for a moment: a program that goes on to other things has no thread of ours, and whatever a
thread inherits when it starts (affinity, priority, signal mask) is never old. While it waits it
sleeps, and keeps nothing of a job alive.

Handing over is one step, a signal comes before it or after it: either a thread that waits is given
the job, or one is started. What a signal makes go wrong before that, a job that nobody begins, is
the handing thread's to notice: it calls `start`. Nobody begins a job twice (`Job.claim`).
"""

from __future__ import annotations

import _thread
import os
import threading
from abc import abstractmethod
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, Protocol

#: Most seconds between two looks at whether a job that is done was wanted.
LOOK_S: Final = 0.05
_FIRST_LOOK_S: Final = 0.001
#: Seconds that a thread waits for another job.
IDLE_S: Final = 0.5

_NAME: Final = "rpmem call"


class Job(Protocol):
    """What a thread carries out; each method but `claim` is called at most once."""

    cancelled: bool
    """The one who asked for it wants it no more."""
    taken: bool
    """The one who asked for it has what came of it. This or the other comes true at last."""

    @abstractmethod
    def claim(self) -> bool:
        """Return True to the first who calls this: it has to carry the job out, or forget it."""

    @abstractmethod
    def carry_out(self) -> None:
        """Do it, and raise nothing."""

    @abstractmethod
    def announce(self) -> None:
        """Let the one who asked for it go on: it was carried out."""

    @abstractmethod
    def see_off(self) -> None:
        """Undo it unless it was taken, and raise nothing."""

    @abstractmethod
    def refuse(self) -> None:
        """Say that there is no thread to be had."""


class _Worker:
    """A thread, from its first job to its end."""

    def __init__(self, job: Job) -> None:
        self._inbox: SimpleQueue[Job] = SimpleQueue()
        self._inbox.put(job)
        self._offered = False  # since the last job

    def run(self) -> None:
        """Carry out jobs until there are none for a while."""
        job = self._received(None)
        while job is not None:
            following = self._do(job) if job.claim() else None
            job = None  # of a thread that waits, nothing may keep a pool or a view alive
            job, following = following or self._next(), None

    def _do(self, job: Job) -> Job | None:
        """Carry out a job and see it off; return the next one, if it came meanwhile."""
        job.carry_out()
        if not job.cancelled:
            self._offer()
        job.announce()
        following, look_s = None, _FIRST_LOOK_S
        while not (job.taken or job.cancelled):
            if following is not None:
                start(following)  # from a signal's handler, and this one is not settled yet
            following = self._received(look_s)
            look_s = min(look_s * 2, LOOK_S)
        if not job.taken:
            self._withdraw()  # undoing may take long
            if following is not None:
                start(following)
                following = None
        job.see_off()
        return following

    def _next(self) -> Job | None:
        """Wait for another job; None when this thread is needed no more."""
        self._offer()
        if not self._offered:
            return None  # another one waits
        # Even if it is not among those that wait: then a job is on its way.
        job = self._received(IDLE_S)
        if job is None:
            self._withdraw()
        return job

    def _received(self, seconds: float | None) -> Job | None:
        try:
            job = self._inbox.get(timeout=seconds)
        except Empty:
            return None
        self._offered = False
        return job

    def _offer(self) -> None:
        # Once only: one that has been taken may have no job in it yet, and a second one would be
        # left behind.
        if not _idle and not self._offered:
            self._offered = True
            _idle.append(self._inbox)

    def _withdraw(self) -> None:
        self._offered = False
        # It is not there if it was taken for a job that did not come: a signal did.
        with suppress(ValueError):
            _idle.remove(self._inbox)


#: Where the threads that wait look for a job: one at most, but for a moment.
_idle: list[SimpleQueue[Job]] = []
# A forked child has none of the threads.
os.register_at_fork(after_in_child=_idle.clear)


def hand_over(job: Job) -> None:
    """Let a thread carry out a job, one that waits or a new one."""
    inbox = None
    with suppress(IndexError):
        inbox = _idle.pop()
    if inbox is None:
        start(job)
    else:
        inbox.put(job)


def start(job: Job) -> None:
    """Start a thread for a job, unless another one has begun it by then."""
    try:
        # Starting this one is a single step. It is short-lived, and starts a `threading.Thread`.
        _thread.start_new_thread(_begin, (job,))
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise  # by the handler of a signal
        _refuse(job)


def _begin(job: Job) -> None:
    try:
        threading.Thread(target=_Worker(job).run, name=_NAME, daemon=True).start()
    except RuntimeError:
        _refuse(job)


def _refuse(job: Job) -> None:
    if job.claim():
        job.refuse()
