"""A signal that raises an exception in the main thread soon, as a user's handler does."""

from __future__ import annotations

import signal
from typing import NoReturn


class Alarm(Exception):
    """A signal has come."""


class alarm:  # noqa: N801
    """Raise `Alarm` in the main thread soon."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGALRM, self._raise)
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    @staticmethod
    def _raise(*_: object) -> NoReturn:
        raise Alarm
