"""Holding threads up between two of their steps, and what they found wrong."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LONG_S = 120.0


class Gate:
    """Lets threads work, except while they are held up.

    Attributes
    ----------
    trouble : list of str
        What ended a thread.
    """

    def __init__(self) -> None:
        self.trouble: list[str] = []
        self._changed = threading.Condition()
        self._closed = False
        self._over = False
        self._working = 0
        self._threads: list[threading.Thread] = []

    def start(self, name: str, step: Callable[[], None]) -> None:
        """Repeat a step in a thread until the end."""
        self._working += 1
        thread = threading.Thread(target=self._run, args=(step,), name=name)
        self._threads.append(thread)
        thread.start()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Hold all threads up; they are between two steps now."""
        with self._changed:
            self._closed = True
            if not self._changed.wait_for(lambda: self._working == 0, _LONG_S):
                raise TimeoutError("a thread does not come to the end of its step")
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()

    def end(self) -> None:
        """Let the threads end, and wait for that."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self, step: Callable[[], None]) -> None:
        try:
            while not self._over:
                if self._closed:
                    self._wait()
                else:
                    step()
        except BaseException:
            self.trouble.append(f"{threading.current_thread().name}: {traceback.format_exc()}")
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            self._working -= 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._closed or self._over)
            self._working += 1
