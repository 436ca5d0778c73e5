"""What a pool reports while it sends or reads all of itself, and what a report may raise."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import rpmem
from rpmem.errors import UsageError
from rpmem.pool import progress
from rpmem.pool.superblock import POOL_FLOOR, SLOTS_OFFSET

SIZE = 4 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Pieces so small that there are many."""
    monkeypatch.setattr(progress, "CHUNK", 1 << 20)
    monkeypatch.setattr("rpmem.pool.readback.PIECE", 1 << 20)


@pytest.fixture
def local(tmp_path):
    return tmp_path / "p"


@pytest.fixture
def replica(tmp_path):
    (tmp_path / "sets").mkdir()
    return f"local:{tmp_path}/sets a.set"


@pytest.fixture
def behind(local, replica):
    """A pool whose replica lacks something."""
    with rpmem.Pool.create(local, SIZE, replica, parts=1) as pool:
        pool.persist(pool.array("a", 10))
    pool = rpmem.Pool.open(local, [])
    pool["a"][:] = 7
    pool.persist(pool["a"])
    # As if the process had died: nothing is known of what the replica lacks.
    pool._copies.drop()
    pool._tracking.close()
    return replica


class Reports(list):
    """All reports, each of which has to be possible."""

    def __call__(self, done, total, what):
        self.append((done, total, what))

    def check(self, total, word):
        assert [done for done, _, _ in self] == [*range(0, total, 1 << 20), total]
        assert {each for _, each, _ in self} == {total}
        assert all(word in what for _, _, what in self)


class Stop(BaseException):
    """What no program of rpmem's raises itself."""


def stopping(at):
    def report(done, total, what):
        if done >= at:
            raise Stop(what)

    return report


def test_an_open_that_brings_a_replica_up_to_date(local, behind):
    reports = Reports()
    rpmem.Pool.open(local, behind, progress=reports).close()
    reports.check(SIZE - SLOTS_OFFSET, f"{behind}: comparing, and sending what differs")
    again = Reports()
    rpmem.Pool.open(local, behind, progress=again).close()
    assert again == []


def test_an_attach(local, replica):
    reports = Reports()
    with rpmem.Pool.create(local, SIZE) as pool:
        pool.attach(replica, create=True, parts=1, progress=reports)
    reports.check(SIZE - SLOTS_OFFSET, "a.set: comparing, and sending what differs")


def test_a_restore(local, replica):
    rpmem.Pool.create(local, SIZE, replica, parts=1).close()
    local.unlink()
    reports = Reports()
    rpmem.Pool.restore(local, replica, progress=reports).close()
    total = SIZE - POOL_FLOOR
    done = [each for each, _, _ in reports]
    assert done == sorted(done)
    assert (done[0], done[-1], len(done)) == (0, total, -(-total // (1 << 20)) + 1)
    assert {each for _, each, _ in reports} == {total}
    assert all("a.set: reading" in what for _, _, what in reports)


@pytest.mark.parametrize("at", [0, 1 << 20, SIZE - SLOTS_OFFSET])
@pytest.mark.parametrize("kind", ["main thread", "another thread"])
def test_what_a_report_raises_undoes_an_open(local, behind, at, kind):
    before = local.read_bytes()
    caught = []

    def attempt():
        try:
            rpmem.Pool.open(local, behind, progress=stopping(at))
        except Stop as stop:
            caught.append(stop)

    if kind == "main thread":
        attempt()
    else:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert local.read_bytes() == before
    with rpmem.Pool.open(local, behind) as pool:
        assert (pool.read(pool["a"]) == 7).all()


@pytest.mark.parametrize("at", [0, 1 << 20, SIZE - SLOTS_OFFSET])
def test_what_a_report_raises_undoes_an_attach(local, replica, tmp_path, at):
    with rpmem.Pool.create(local, SIZE) as pool:
        with pytest.raises(Stop):
            pool.attach(replica, create=True, parts=1, progress=stopping(at))
        assert pool.replicas == []
        assert list((tmp_path / "sets").iterdir()) == []
        pool.persist(pool.array("a", 3))
        pool.attach(replica, create=True, parts=1)
        assert np.array_equal(pool.read(pool["a"]), pool["a"])


@pytest.mark.parametrize("at", [0, 1 << 20, SIZE - POOL_FLOOR])
def test_what_a_report_raises_undoes_a_restore(local, replica, tmp_path, at):
    rpmem.Pool.create(local, SIZE, replica, parts=1).close()
    local.unlink()
    with pytest.raises(Stop):
        rpmem.Pool.restore(local, replica, progress=stopping(at))
    assert [path.name for path in tmp_path.iterdir()] == ["sets"]
    rpmem.Pool.restore(local, replica).close()


def test_what_cannot_be_called_is_refused(local, replica):
    with rpmem.Pool.create(local, SIZE) as pool:
        for call in (
            lambda: rpmem.Pool.open(local, progress=5),
            lambda: rpmem.Pool.restore(local, replica, progress="bar"),
            lambda: pool.attach(replica, progress=[]),
        ):
            with pytest.raises(UsageError, match="cannot be called"):
                call()


def test_a_copy_that_is_sent_what_it_has_missed(local, replica):
    reports = Reports()
    with rpmem.Pool.create(local, SIZE, replica, parts=1) as pool:
        array = pool.array("a", 3 << 20, "u1")
        pool.detach(0)
        pool.persist(array[: 2 << 20])
        pool.persist(array[(5 << 19) :: 8192])
        pool.attach(replica, progress=reports)
        del array
    done = [each for each, _, _ in reports]
    assert done == sorted(done)
    assert done[0] == 0
    assert {total for _, total, _ in reports} == {done[-1]}
    assert done[-1] >= (2 << 20) + 64 * 4096
    assert all("a.set: sending what it has missed" in what for _, _, what in reports)
    assert len(reports) >= 4


def test_ranges_come_some_at_a_time():
    lengths = [1, 1 << 19, 1 << 19, (1 << 20) + 5, 7, 8]
    ranges = np.array([(4096 * at, each) for at, each in enumerate(lengths)], dtype=np.uint64)
    reports = Reports()
    found = list(progress.parts(ranges, "it", reports))
    assert np.array_equal(np.concatenate(found), ranges)
    assert [each[:, 1].tolist() for each in found] == [
        [1, 1 << 19],
        [1 << 19],
        [(1 << 20) + 5],
        [7, 8],
    ]
    assert [done for done, _, _ in reports] == np.cumsum(
        [(1 << 19) + 1, 1 << 19, (1 << 20) + 5, 15]
    ).tolist()
    assert list(progress.parts(ranges[:0], "it", reports)) == []
