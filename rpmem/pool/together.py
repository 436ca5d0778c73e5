"""Bringing several copies up to date at the same time, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from rpmem.base import interrupts
from rpmem.pool.progress import Progress, chunk_of


class _Overtaken(BaseException):
    """Another job has failed, so this one is of no use."""


class Together:
    """Does jobs at the same time; when one fails, the others end with their next report.

    Parameters
    ----------
    progress : callable
        Takes the reports of all jobs.

    Attributes
    ----------
    chunk : int
        Bytes that are to be done between two reports.
    """

    def __init__(self, progress: Progress) -> None:
        self.chunk = chunk_of(progress)
        self._progress = progress
        self._over = False

    def __call__(self, done_bytes: int, total_bytes: int, what: str) -> None:
        """Take a report of one of the jobs."""
        if self._over:
            raise _Overtaken
        self._progress(done_bytes, total_bytes, what)

    def run(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Return when all jobs are done; raise what the first that failed has raised."""
        if len(jobs) < 2:
            for job in jobs:
                job()
            return
        with ThreadPoolExecutor(len(jobs), thread_name_prefix="rpmem-joining") as pool:
            futures = [pool.submit(interrupts.shared(self._do), job) for job in jobs]
        errors = [future.exception() for future in futures]
        failed = [error for error in errors if error is not None]
        for error in failed:
            if not isinstance(error, _Overtaken):
                raise error

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException:
            self._over = True
            raise
