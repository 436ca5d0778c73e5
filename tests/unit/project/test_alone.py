"""Tests that run alone: no other test runs meanwhile, or keeps them waiting forever."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.alone import Turns

ROOT = Path(__file__).resolve().parents[3]

# Says on its output what happens, and goes on when it is told so.
PROGRAM = """
import sys
from pathlib import Path
from tests.support.alone import Turns
room, door, kind = sys.argv[1:]
turns = Turns(Path(room), Path(door))
print("comes", flush=True)
with turns.taken(alone=kind == "alone"):
    print("in", flush=True)
    sys.stdin.readline()
print("out", flush=True)
"""


class Other:
    """A process that takes its turn."""

    def __init__(self, directory, kind):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, directory / "room", directory / "door", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.hear() == "comes"

    def hear(self):
        return self.process.stdout.readline().strip()

    def waits(self):
        """Tell whether the kernel keeps it at a lock; if not, it says something instead."""
        while not select.select([self.process.stdout], [], [], 0.0)[0]:
            for line in Path("/proc/locks").read_text().splitlines():
                fields = line.split()
                if fields[1] == "->" and fields[5] == str(self.process.pid):
                    return True
        return False

    def go_on(self):
        self.process.communicate("\n", timeout=20)


@pytest.fixture
def come(tmp_path):
    came = []

    def make(kind):
        came.append(Other(tmp_path, kind))
        return came[-1]

    yield make
    for other in came:
        other.process.kill()
        other.process.communicate()


def test_others_share(come):
    first, second = come("shared"), come("shared")
    assert first.hear() == second.hear() == "in"


@pytest.mark.parametrize(("kind", "later"), [("alone", "shared"), ("shared", "alone")])
def test_alone_means_alone(come, kind, later):
    first = come(kind)
    assert first.hear() == "in"
    second = come(later)
    assert second.waits()
    first.go_on()
    assert second.hear() == "in"


def test_who_waits_to_be_alone_is_next(come):
    first = come("shared")
    assert first.hear() == "in"
    lonely = come("alone")
    assert lonely.waits()
    third = come("shared")
    assert third.waits()
    first.go_on()
    assert lonely.hear() == "in"
    lonely.go_on()
    assert third.hear() == "in"


def test_a_child_does_not_keep_the_room(tmp_path, come):
    turns = Turns(tmp_path / "room", tmp_path / "door")
    ends, tells = os.pipe()
    with turns.taken(alone=True):
        if not (child := os.fork()):
            os.close(tells)
            os.read(ends, 1)
            os._exit(0)
    other = come("alone")
    assert other.hear() == "in"
    os.close(tells)
    os.close(ends)
    os.waitpid(child, 0)
    turns.close()
