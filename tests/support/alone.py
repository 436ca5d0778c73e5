"""Tests marked `alone` measure time or count resources: no other test runs meanwhile.

If a run is spread over several processes, its tests take turns by two file locks, which each
process opens separately. The second lock guards the first: a test that waits to be alone holds it,
so that the others cannot go on sharing the first forever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

MARK = "alone"


class Turns:
    """The two locks of a run, as one process sees them.

    They are record locks, which a forked child neither has nor lets go of.

    Parameters
    ----------
    room, door : Path
        Files; made where they are missing.
    """

    def __init__(self, room: Path, door: Path) -> None:
        self._room = os.open(room, os.O_RDWR | os.O_CREAT, 0o600)
        self._door = os.open(door, os.O_RDWR | os.O_CREAT, 0o600)

    @contextlib.contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        """Hold the room: with others, or alone."""
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        fcntl.lockf(self._door, kind)
        try:
            fcntl.lockf(self._room, kind)
        finally:
            fcntl.lockf(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.lockf(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files."""
        os.close(self._room)
        os.close(self._door)


class TakesTurns:
    """The plugin of a process that runs a share of the tests."""

    def __init__(self, run: str) -> None:
        directory = Path(tempfile.gettempdir())
        self.files = [directory / f"rpmem-tests-{run}.{name}" for name in ("room", "door")]
        self.turns = Turns(*self.files)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Wait for the turn of a test, before its time counts."""
        with self.turns.taken(alone=item.get_closest_marker(MARK) is not None):
            return (yield)

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind; who is last, or not, is the same to the others."""
        self.turns.close()
        for file in self.files:
            file.unlink(missing_ok=True)


def configure(config: pytest.Config) -> None:
    """Take turns where there is somebody to take turns with."""
    run = getattr(config, "workerinput", {}).get("testrunuid")
    if run is not None:
        config.pluginmanager.register(TakesTurns(run))


def arrange(items: list[pytest.Item]) -> None:
    """Put the tests that run alone last and together: the others have then mostly ended."""
    for item in items:
        if item.get_closest_marker(MARK):
            item.add_marker(pytest.mark.xdist_group(MARK))
    items.sort(key=lambda item: item.get_closest_marker(MARK) is not None)
