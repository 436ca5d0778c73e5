"""docs/recovery.md: each loss of its table is made, and the command that stands there mends it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import rpmem
from rpmem.epochs.record import Mark
from tests.support.media import (
    PoolImage,
    image_of,
    parts_of,
    record_in,
    wait_unlocked,
    write_record,
)
from tests.support.pages import page
from tests.support.pools import OWN

SIZE = 4 << 20
NODES = ("node2", "node3")
ROWS = {
    cells[0]: cells[3]
    for line in page("docs/recovery.md").splitlines()
    if len(cells := [each.strip() for each in line.strip("|").split(" | ")]) == 5
}


class Place:
    """A pool of one array with two replicas."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.here = root / "run.pool"
        for each in NODES:
            (root / each).mkdir()
        with rpmem.Pool.create(self.here, SIZE, self.specs(*NODES), parts=1) as pool:
            pool.array("x", 1000, "u8")[:] = 1
            pool.persist()

    def specs(self, *nodes: str) -> list[str]:
        """Return what names replicas."""
        return [f"local:{self.root / each} run.set" for each in nodes]

    def set_of(self, node: str) -> Path:
        """Return the pool set file of a replica."""
        return self.root / node / "run.set"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the page."""
        words = [
            re.sub(r"^node\d", lambda found: f"local:{self.root / found[0]}", word)
            for word in shlex.split(command)
        ]
        assert words.pop(0) == "rpmem"
        return subprocess.run(
            [sys.executable, "-P", "-m", "rpmem.cli", *words],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def put(self, value: int, *nodes: str, path: Path | None = None) -> None:
        """Use a copy, and close it."""
        with rpmem.Pool.open(path or self.here, self.specs(*nodes)) as pool:
            pool["x"][:] = value
            pool.persist()

    def die(self, value: int, *nodes: str) -> None:
        """Use the pool, and end without closing it."""
        program = os.fork()
        if program == 0:
            pool = rpmem.Pool.open(self.here, self.specs(*nodes))
            pool["x"][:] = value
            pool.persist()
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(program, 0)
        for each in nodes:
            wait_unlocked(self.set_of(each))

    def lose(self) -> None:
        """Lose the local copy."""
        self.here.unlink()

    def check(self, value: int, *nodes: str) -> None:
        """Check that these copies are clean, of one epoch, and the same."""
        here = PoolImage.parse(image_of(self.here))
        assert (here.arrays()["x"] == np.uint64(value)).all()
        for each in nodes:
            there = PoolImage.parse(image_of(self.set_of(each)))
            assert there.record.mark is Mark.CLEAN
            assert there.record.epoch == here.record.epoch
            assert there.image[OWN:SIZE] == here.image[OWN:SIZE]


@pytest.fixture
def place(tmpfs: Path) -> Place:
    """A pool of one array that holds 1 everywhere, closed."""
    return Place(tmpfs)


def died(place: Place) -> int:
    """Make this loss; return what the array has to hold in the end."""
    place.die(2, *NODES)
    return 2


def local_lost(place: Place) -> int:
    """Make this loss."""
    place.die(2, *NODES)
    place.lose()
    return 2


def two_lost(place: Place) -> int:
    """Make this loss."""
    place.put(2, *NODES)
    place.lose()
    shutil.rmtree(place.root / "node3")
    refused = place.run("rpmem restore run.pool node2 run.set")
    assert refused.returncode == rpmem.NotProvenNewest.exit_status
    assert "lost=" in refused.stderr
    return 2


def detached(place: Place) -> int:
    """Make this loss."""
    with rpmem.Pool.open(place.here, place.specs(*NODES)) as pool:
        pool.detach(0)
        pool["x"][:] = 2
        pool.persist()
    return 2


def files_lost(place: Place) -> int:
    """Make this loss."""
    place.put(2, *NODES)
    for path in (place.root / "node2").iterdir():
        path.unlink()
    return 2


def cut_off(place: Place) -> int:
    """Make this loss."""
    place.put(2, "node3")
    record = record_in(image_of(place.set_of("node2")))
    newest = record_in(image_of(place.here))
    assert record is not None
    assert newest is not None
    # As it is while it is overwritten: by another epoch's bytes, some of them.
    joining = type(record)(record.copy, newest.epoch, Mark.JOINING)
    write_record(place.set_of("node2"), joining)
    return 2


def restore_cut_off(place: Place) -> int:
    """Make this loss."""
    place.put(2, *NODES)
    place.lose()
    program = os.fork()
    if program == 0:
        rpmem.Pool.restore(
            place.here,
            place.specs(*NODES),
            progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL),
        )
        os._exit(0)
    assert os.waitpid(program, 0)[1] == signal.SIGKILL
    assert not place.here.exists()
    for each in NODES:
        wait_unlocked(place.set_of(each))
    return 2


def put_back(place: Place) -> int:
    """Make this loss."""
    image = place.here.read_bytes()
    place.put(2, *NODES)
    place.here.write_bytes(image)
    refused = place.run("rpmem sync run.pool node2 run.set node3 run.set")
    assert refused.returncode == rpmem.StaleReplica.exit_status
    place.here.rename(place.root / "aside")
    return 2


def split(place: Place) -> int:
    """Make this loss."""
    place.put(3, path=place.set_of("node2"))
    place.put(2, "node3")
    refused = place.run("rpmem sync run.pool node2 run.set node3 run.set")
    assert refused.returncode == rpmem.SplitBrain.exit_status
    return 2


def flipped(place: Place) -> int:
    """Make this loss."""
    place.put(2, *NODES)
    image = PoolImage.parse(image_of(place.set_of("node2")))
    (part,) = parts_of(place.set_of("node2"))
    with part.open("r+b") as file:
        file.seek(image.catalogue.entries["x"].offset)
        file.write(bytes([3]))
    found = place.run("rpmem verify run.pool node2 run.set node3 run.set")
    assert found.returncode == 1, found.stderr
    assert f"local:{place.root / 'node2'} run.set" in found.stdout.replace("\n", "")
    return 2


def refuses(place: Place) -> int:
    """Make this loss."""
    with rpmem.Pool.open(place.here, place.specs(*NODES)) as pool:
        pool["x"][:] = 2
        pool.persist()
        pool._region.refuse(5)
        with pytest.raises(rpmem.FlushFailed):
            pool.close()
    place.here.rename(place.root / "aside")
    return 2


LOSSES: dict[str, tuple[Callable[[Place], int], tuple[str, ...]]] = {
    "the program died, or its machine; all files are there": (died, NODES),
    "the local copy is lost": (local_lost, NODES),
    "the local copy and node3 are lost": (two_lost, ("node2",)),
    "node2 was detached, and is back": (detached, NODES),
    "node2 has lost its files": (files_lost, NODES),
    "bringing node2 up to date was cut off": (cut_off, NODES),
    "restoring was cut off": (restore_cut_off, NODES),
    "an old image of the local copy was put back": (put_back, NODES),
    "somebody went on with node2 alone, and somebody with the local copy": (split, NODES),
    "a bit has flipped on node2": (flipped, NODES),
    "the local device refuses what is written (`FlushFailed`)": (refuses, NODES),
}


def test_the_page_has_these_rows():
    assert [each for each in ROWS if each not in ("after this", "---")] == list(LOSSES)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_command_mends_it(loss: str, place: Place):
    make, nodes = LOSSES[loss]
    value = make(place)
    (command,) = re.findall(r"`(rpmem [^`]*)`", ROWS[loss])
    assert (command.split()[1] == "restore") is not place.here.exists()
    done = place.run(command + " --json")
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    place.check(value, *nodes)
