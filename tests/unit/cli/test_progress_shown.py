"""How far a transfer has come, for people: nothing at first, then a bar, or lines of the log."""

from __future__ import annotations

import logging
import threading

import pytest

from rpmem.cli import progress
from rpmem.cli.progress import PATIENCE_S, Shown

MIB = 1 << 20


class Clock:
    """A clock that stands where it was put."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Bars:
    """What rich is asked to show."""

    def __init__(self):
        self.calls = []

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def add_task(self, what, *, total):
        self.calls.append((what, total))
        return what

    def update(self, task, *, completed):
        self.calls.append((task, completed))


@pytest.fixture
def bars(monkeypatch):
    made = Bars()
    monkeypatch.setattr(progress, "_bars", lambda: made)
    return made


def test_what_is_quick_shows_nothing(bars, caplog):
    caplog.set_level(logging.INFO)
    for terminal in (True, False):
        clock = Clock()
        with Shown(clock, terminal=terminal) as shown:
            for done in range(10):
                shown(done, 10, "a")
                clock.now += PATIENCE_S / 10
    assert bars.calls == []
    assert caplog.messages == []


def test_a_bar_for_each_transfer_that_takes_its_time(bars):
    clock = Clock()
    with Shown(clock, terminal=True) as shown:
        shown(0, 10, "a")
        clock.now += PATIENCE_S
        shown(5, 10, "a")
        shown(0, 20, "b")
        shown(10, 10, "a")
        clock.now += PATIENCE_S
        shown(20, 20, "b")
    assert bars.calls == ["start", ("a", 10), ("a", 5), ("a", 10), ("b", 20), ("b", 20), "stop"]


def test_a_bar_is_taken_away_when_the_call_fails(bars):
    clock = Clock()
    shown = Shown(clock, terminal=True)

    def transfer():
        with shown:
            shown(0, 10, "a")
            clock.now += PATIENCE_S
            shown(1, 10, "a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer()
    assert bars.calls[-1] == "stop"
    # The interrupted call may have another word to say.
    threading.Thread(target=shown, args=(2, 10, "a")).start()
    shown(3, 10, "a")
    assert bars.calls[-1] == "stop"


def test_lines_of_the_log_elsewhere(bars, caplog):
    caplog.set_level(logging.INFO, logger="rpmem")
    clock = Clock()
    with Shown(clock, terminal=False) as shown:
        for second in range(7):
            shown(second * MIB, 10 * MIB, "a")
            clock.now += 1
    assert caplog.messages == [f"a: {done} MiB of 10 MiB" for done in (2, 4, 6)]
    assert bars.calls == []


def test_the_real_bar_can_be_drawn(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal then
    clock = Clock()
    with Shown(clock, terminal=True) as shown:
        shown(0, 10, "[red]a")
        clock.now += PATIENCE_S
        shown(5, 10, "[red]a")
    assert "[red]a" in capsys.readouterr().err
