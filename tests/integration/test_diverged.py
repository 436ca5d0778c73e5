"""Copies that went separate ways, each pair in another manner: refused, left as they are, settled.

Every refusal has to leave all files as they are, and to name what can be done; doing that has to
lead to copies that are equal, and whoever still holds the other branch has to be refused.
"""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import rpmem
from rpmem.errors import (
    CatalogueCorrupt,
    DeadlineExceeded,
    PoolSetBusy,
    ReplicaLost,
    RpmemError,
    SplitBrain,
    StaleReplica,
)
from tests.support.media import parts_of, wait_unlocked
from tests.support.pools import OWN, PoolNode, fill, kill, local_bytes
from tests.support.processes import stop
from tests.support.seeds import first

SIZE = 2 << 20


class Places:
    """Two targets, and a place for each local copy."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.one, self.two = PoolNode(root / "one"), PoolNode(root / "two")
        self.here, self.elsewhere = root / "here.pool", root / "elsewhere.pool"

    def create(self, *nodes: PoolNode) -> rpmem.Pool:
        """Make a pool with one array, which is 1 everywhere."""
        specs = [node.spec() for node in nodes]
        pool = rpmem.Pool.create(self.here, SIZE, specs, parts=1)
        fill(pool)
        return pool

    def files(self) -> dict[Path, bytes]:
        """Return all files, as they are."""
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    @contextmanager
    def refused(self, kind: type[RpmemError], *said: str):
        """Expect an error that says all that, and that nothing has changed."""
        before = self.files()
        with pytest.raises(kind) as caught:
            yield
        assert type(caught.value) is kind
        text = str(caught.value)
        for each in said:
            assert each in text, text
        after = self.files()
        assert after.keys() == before.keys()
        assert [path for path in after if after[path] != before[path]] == []

    def values(self, path: Path, *nodes: PoolNode) -> dict[str, float]:
        """Open a copy with replicas that have to equal it; return what its arrays hold."""
        with rpmem.Pool.open(path, [node.spec() for node in nodes]) as pool:
            found = {name: float(pool[name][0, 0]) for name in pool.names()}
            for name in pool.names():
                assert (pool[name] == found[name]).all()
                for index in range(len(nodes)):
                    assert (pool.read(pool[name], replica=index) == found[name]).all()
        for node in nodes:
            assert node.contents()[: SIZE - OWN] == local_bytes(path, SIZE)
        return found


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path)


def use(path, *nodes, name, value=1.0, **how):
    """Open a copy, make an array durable in it, and close it."""
    with rpmem.Pool.open(path, [node.spec() for node in nodes], **how) as pool:
        fill(pool, name, value)


def restored(path, node, *lost, name):
    """Restore from a replica, and go on."""
    with rpmem.Pool.restore(path, node.spec(), lost=[each.spec() for each in lost]) as pool:
        fill(pool, name)


# --- partitions ----------------------------------------------------------------------------------


def test_a_partition_in_which_both_sides_went_on_and_that_heals(places):
    with rpmem.Pool.create(
        places.here, SIZE, [places.one.spec(), places.two.spec()], parts=1, timeout=1
    ) as pool:
        array = fill(pool)
        cut_off = pool.replicas[1].peer.pid
        stop(cut_off)
        try:
            array[:] = 2
            with pytest.raises(DeadlineExceeded):
                pool.persist(array)
            with places.refused(PoolSetBusy):
                rpmem.Pool.restore(places.elsewhere, places.two.spec())
            os.kill(cut_off, signal.SIGCONT)
            pool.detach(1)
        finally:
            # If it is still there.
            with suppress(ProcessLookupError):
                os.kill(cut_off, signal.SIGCONT)
        wait_unlocked(places.two.directory / "pool.set")
        # The other side goes on at the same time.
        with rpmem.Pool.restore(
            places.elsewhere, places.two.spec(), lost=places.one.spec()
        ) as other:
            fill(other, "there")
            pool.persist(array)
            fill(pool, "here")
        with places.refused(
            SplitBrain,
            "separate ways after epoch 1 (",
            f"{places.here} gave up the other (",
            f"{places.two.spec()} gave up {places.here} (",
            f"discard=['{places.two.spec()}']",
            "Pool.restore",
        ):
            pool.attach(places.two.spec())
        assert len(pool.replicas) == 1
        fill(pool, "more")
    with places.refused(SplitBrain, f"{places.elsewhere} gave up the other"):
        rpmem.Pool.open(places.elsewhere, [places.two.spec(), places.one.spec()])
    # The hint: the side that has more is kept.
    with rpmem.Pool.open(places.here, places.one.spec()) as pool:
        pool.attach(places.two.spec(), discard=True)
    assert places.values(places.here, places.one, places.two) == {"a": 2, "here": 1, "more": 1}
    with places.refused(SplitBrain):
        rpmem.Pool.open(places.elsewhere, places.two.spec())


def test_a_session_that_was_killed_while_both_sides_went_on(places):
    with places.create(places.one) as pool:
        kill(pool.replicas[0])
        with pytest.raises(ReplicaLost):
            pool.persist(pool["a"])
        restored(places.elsewhere, places.one, name="there")
        pool.detach(0)
        fill(pool, "here")
    with places.refused(SplitBrain, "gave up", places.one.spec()):
        rpmem.Pool.open(places.here, places.one.spec())
    # The other way to settle it: what only the local copy has is given up.
    places.here.rename(places.root / "moved away")
    with rpmem.Pool.restore(places.here, places.one.spec()) as pool:
        assert pool.names() == ["a", "there"]
    with places.refused(StaleReplica, "has epoch", places.one.spec()):
        rpmem.Pool.open(places.elsewhere, places.one.spec())
    assert places.values(places.here, places.one) == {"a": 1, "there": 1}


# --- old copies ----------------------------------------------------------------------------------


def test_an_old_copy_that_was_opened_once_alone(places):
    places.create(places.one).close()
    places.here.rename(places.elsewhere)
    restored(places.here, places.one, name="new")
    with places.refused(StaleReplica, "Pool.restore", f"discard=['{places.one.spec()}']"):
        rpmem.Pool.open(places.elsewhere, places.one.spec())
    use(places.elsewhere, name="old")
    with places.refused(SplitBrain, f"{places.elsewhere} gave up the other"):
        rpmem.Pool.open(places.elsewhere, places.one.spec())
    assert places.values(places.here, places.one) == {"a": 1, "new": 1}
    use(places.elsewhere, places.one, name="old", discard=places.one.spec())
    assert places.values(places.elsewhere, places.one) == {"a": 1, "old": 1}
    with places.refused(SplitBrain):
        rpmem.Pool.open(places.here, places.one.spec())


def test_a_replica_that_was_opened_once_by_itself(places):
    places.create(places.one, places.two).close()
    use(places.one.directory / "pool.set", name="there")
    use(places.here, places.two, name="here")
    with places.refused(SplitBrain, places.one.spec()):
        rpmem.Pool.open(places.here, [places.two.spec(), places.one.spec()])
    use(places.here, places.two, places.one, name="last", discard=places.one.spec())
    assert places.values(places.here, places.one, places.two) == {"a": 1, "here": 1, "last": 1}


def test_two_replicas_of_different_age_after_a_disk_was_lost(places):
    with places.create(places.one, places.two) as pool:
        pool.detach(1)
        fill(pool, "newer")
    places.here.unlink()
    # The older one is taken, and used: it lacks what the newer one has.
    restored(places.here, places.two, places.one, name="wrong")
    with places.refused(SplitBrain, "went on to epoch", places.one.spec()):
        rpmem.Pool.open(places.here, [places.two.spec(), places.one.spec()])
    with rpmem.Pool.open(places.here, places.two.spec()) as pool, places.refused(SplitBrain):
        pool.attach(places.one.spec())
    places.here.unlink()
    with rpmem.Pool.restore(places.here, places.one.spec()) as pool:
        assert pool.names() == ["a", "newer"]
        with places.refused(SplitBrain, places.two.spec()):
            pool.attach(places.two.spec())
        pool.attach(places.two.spec(), discard=True)
    assert places.values(places.here, places.one, places.two) == {"a": 1, "newer": 1}


# --- snapshots -----------------------------------------------------------------------------------


def test_a_snapshot_of_the_local_copy_that_is_put_back(places):
    places.create(places.one).close()
    snapshot = places.here.read_bytes()
    use(places.here, places.one, name="newer")
    places.here.write_bytes(snapshot)
    with places.refused(StaleReplica, "has epoch 2", "only 1", "Pool.restore"):
        rpmem.Pool.open(places.here, places.one.spec())
    places.here.unlink()
    rpmem.Pool.restore(places.here, places.one.spec()).close()
    assert places.values(places.here, places.one) == {"a": 1, "newer": 1}


def test_a_snapshot_of_a_replica_that_is_put_back(places):
    """It is behind, and is sent everything."""
    places.create(places.one, places.two).close()
    snapshot = places.two.directory.with_name("snapshot")
    shutil.copytree(places.two.directory, snapshot)
    use(places.here, places.one, places.two, name="newer")
    for path in snapshot.iterdir():
        shutil.copy(path, places.two.directory)
    assert places.values(places.here, places.one, places.two) == {"a": 1, "newer": 1}


def test_a_snapshot_from_within_an_epoch_that_was_closed_is_noticed(places):
    """The replica was closed in the epoch in which the local copy seems to be in use."""
    with places.create(places.one) as pool:
        snapshot = places.here.read_bytes()
        fill(pool, "newer")
    places.here.write_bytes(snapshot)
    with places.refused(
        StaleReplica, "was closed in epoch 1 (", f"discard=['{places.one.spec()}']", "Pool.restore"
    ):
        rpmem.Pool.open(places.here, places.one.spec())
    places.here.unlink()
    rpmem.Pool.restore(places.here, places.one.spec()).close()
    assert places.values(places.here, places.one) == {"a": 1, "newer": 1}


def test_a_snapshot_of_a_replica_from_within_an_epoch_is_sent_everything(places):
    with places.create(places.one) as pool:
        (part,) = parts_of(places.one.directory / "pool.set")
        snapshot = part.read_bytes()
        fill(pool, "newer")
    part.write_bytes(snapshot)
    assert places.values(places.here, places.one) == {"a": 1, "newer": 1}


def test_what_nobody_can_notice(places):
    """A snapshot from within the very epoch in which the writer died looks like a copy of then."""
    with places.create(places.one) as pool:
        snapshot = places.here.read_bytes()
        fill(pool, "newer")
        there = places.one.image()
    for path, content in ((places.here, snapshot), (parts_of(_set(places.one))[0], there)):
        path.write_bytes(content)
    assert places.values(places.here, places.one) == {"a": 1}


def _set(node: PoolNode) -> Path:
    return node.directory / "pool.set"


# --- several writers -----------------------------------------------------------------------------


def test_two_local_copies_with_a_replica_each(places):
    places.create(places.one, places.two).close()
    shutil.copy(places.here, places.elsewhere)
    use(places.here, places.one, name="here")
    use(places.elsewhere, places.two, name="there")
    for path, own, other in (
        (places.here, places.one, places.two),
        (places.elsewhere, places.two, places.one),
    ):
        with places.refused(SplitBrain, other.spec(), "gave up"):
            rpmem.Pool.open(path, [own.spec(), other.spec()])
        with rpmem.Pool.open(path, own.spec()) as pool, places.refused(SplitBrain):
            pool.attach(other.spec())
    use(places.here, places.one, places.two, name="last", discard=places.two.spec())
    assert places.values(places.here, places.one, places.two) == {"a": 1, "here": 1, "last": 1}
    with places.refused(SplitBrain):
        rpmem.Pool.open(places.elsewhere, places.two.spec())


def test_a_replica_that_was_restored_from_twice_at_two_places(places):
    places.create(places.one).close()
    places.here.unlink()
    restored(places.here, places.one, name="first")
    restored(places.elsewhere, places.one, name="second")
    with places.refused(StaleReplica, places.one.spec()):
        rpmem.Pool.open(places.here, places.one.spec())
    use(places.here, name="third")
    with places.refused(SplitBrain, "gave up", places.one.spec()):
        rpmem.Pool.open(places.here, places.one.spec())
    assert places.values(places.elsewhere, places.one) == {"a": 1, "first": 1, "second": 1}
    places.here.unlink()
    rpmem.Pool.restore(places.here, places.one.spec()).close()
    assert places.values(places.here, places.one) == {"a": 1, "first": 1, "second": 1}


def test_a_detached_replica_that_somebody_else_used(places):
    with places.create(places.one, places.two) as pool:
        pool.detach(1)
        restored(places.elsewhere, places.two, places.one, name="there")
        with places.refused(
            SplitBrain,
            f"{places.here} let go of the other (",
            f"{places.two.spec()} gave up {places.here} (",
        ):
            pool.attach(places.two.spec())
        fill(pool, "here")
        with places.refused(SplitBrain):
            pool.attach(places.two.spec())
        pool.attach(places.two.spec(), discard=True)
    assert places.values(places.here, places.one, places.two) == {"a": 1, "here": 1}
    with places.refused(SplitBrain):
        rpmem.Pool.open(places.elsewhere, places.two.spec())


class KillsWhenSending(logging.Handler):
    """Kills all targets of this process when a replica is about to be overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.killed = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().endswith("sending what differs"):
            for tasks in Path("/proc/self/task").glob("*/children"):
                for pid in tasks.read_text().split():
                    # Only these: the sshd of other tests is a child, too.
                    if b"rpmemd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(int(pid), signal.SIGKILL)
                        self.killed += 1


def test_a_discarding_that_was_cut_off(places, caplog):
    places.create(places.one).close()
    use(places.here, name="here")
    restored(places.elsewhere, places.one, name="there")
    with places.refused(SplitBrain):
        rpmem.Pool.open(places.here, places.one.spec())
    log = logging.getLogger("rpmem")
    handler = KillsWhenSending()
    log.addHandler(handler)
    caplog.set_level(logging.INFO, "rpmem")
    try:
        with pytest.raises(ReplicaLost):
            rpmem.Pool.open(places.here, places.one.spec(), discard=places.one.spec())
    finally:
        log.removeHandler(handler)
    assert handler.killed
    wait_unlocked(_set(places.one))
    assert places.one.state()[1] == "JOINING"
    with places.refused(StaleReplica, "it is a mixture", places.one.spec()):
        rpmem.Pool.restore(places.root / "third.pool", places.one.spec())
    with places.refused(SplitBrain, places.one.spec()):
        rpmem.Pool.open(places.elsewhere, places.one.spec())
    # It goes on where it was cut off, and nobody has to be named again.
    assert places.values(places.here, places.one) == {"a": 1, "here": 1}


def test_three_ways(places):
    places.create(places.one, places.two).close()
    use(places.here, name="here")
    use(_set(places.one), name="one")
    use(_set(places.two), name="two")
    both = [places.one.spec(), places.two.spec()]
    with places.refused(SplitBrain, places.one.spec()):
        rpmem.Pool.open(places.here, both)
    with places.refused(SplitBrain, places.two.spec()):
        rpmem.Pool.open(places.here, both, discard=places.one.spec())
    rpmem.Pool.open(places.here, both, discard=both).close()
    assert places.values(places.here, places.one, places.two) == {"a": 1, "here": 1}


# --- records that rot ----------------------------------------------------------------------------


def flipped(path: Path, offset: int, bit: int) -> None:
    """Flip one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


#: Offsets in a copy: the word, its checksum, each slot's head, its epoch, its checksum.
ROT = (4096, 4103, 4096 + 64, 4096 + 64 + 30, 4096 + 64 + 100, 4096 + 8192, 4096 + 8192 + 60)


@pytest.mark.parametrize("offset", ROT)
def test_rot_in_the_record_of_a_closed_local_copy(places, offset):
    places.create(places.one).close()
    flipped(places.here, offset, 3)
    for replicas in ([], [places.one.spec()]):
        with places.refused(CatalogueCorrupt, str(places.here), "record", "restore"):
            rpmem.Pool.open(places.here, replicas)
    places.here.unlink()
    rpmem.Pool.restore(places.here, places.one.spec()).close()
    assert places.values(places.here, places.one) == {"a": 1}


@pytest.mark.parametrize("offset", ROT)
def test_rot_in_the_record_of_a_closed_replica(places, offset):
    places.create(places.one, places.two).close()
    (part,) = parts_of(_set(places.two))
    flipped(part, offset, 3)
    with places.refused(
        CatalogueCorrupt, places.two.spec(), "record", f"discard=['{places.two.spec()}']"
    ):
        rpmem.Pool.open(places.here, [places.one.spec(), places.two.spec()])
    with places.refused(CatalogueCorrupt, places.two.spec(), "restore from another replica"):
        rpmem.Pool.restore(places.elsewhere, places.two.spec())
    with rpmem.Pool.open(places.here, places.one.spec()) as pool:
        with places.refused(CatalogueCorrupt, places.two.spec()):
            pool.attach(places.two.spec())
        pool.attach(places.two.spec(), discard=True)
        fill(pool, "more")
    assert places.values(places.here, places.one, places.two) == {"a": 1, "more": 1}


@pytest.mark.parametrize("offset", ROT[::3])
def test_rot_in_the_record_of_a_local_copy_whose_writer_died(places, offset):
    """Nothing was cut off in the record itself: it counts no less than that of a closed one."""
    with places.create(places.one):
        image, there = places.here.read_bytes(), places.one.image()
    places.here.write_bytes(image)
    parts_of(_set(places.one))[0].write_bytes(there)
    flipped(places.here, offset, 5)
    with places.refused(CatalogueCorrupt, str(places.here), "record", "restore"):
        rpmem.Pool.open(places.here, places.one.spec())
    places.here.unlink()
    rpmem.Pool.restore(places.here, places.one.spec()).close()
    assert places.values(places.here, places.one) == {"a": 1}


@pytest.mark.parametrize("offset", ROT[::3])
def test_rot_in_the_record_of_a_replica_whose_writer_died(places, offset):
    with places.create(places.one):
        image, there = places.here.read_bytes(), places.one.image()
    places.here.write_bytes(image)
    (part,) = parts_of(_set(places.one))
    part.write_bytes(there)
    flipped(part, offset, 5)
    with places.refused(CatalogueCorrupt, places.one.spec(), "record", "discard=["):
        rpmem.Pool.open(places.here, places.one.spec())
    with places.refused(CatalogueCorrupt, places.one.spec()):
        rpmem.Pool.restore(places.elsewhere, places.one.spec())
    use(places.here, places.one, name="more", discard=places.one.spec())
    assert places.values(places.here, places.one) == {"a": 1, "more": 1}


def test_no_bit_of_a_settled_record_can_flip_unnoticed(places):
    """Of both copies, one after the other; beyond the record's own bytes lies padding."""
    places.create(places.one).close()
    (part,) = parts_of(_set(places.one))
    used = len(part.read_bytes()[4096 + 64 : 4096 + 8192].rstrip(b"\0"))
    dice = random.Random(first(5))
    for path, where in ((places.here, str(places.here)), (part, places.one.spec())):
        for begin, length in ((0, 8), (64, used), (8192, used)):
            for offset in dice.sample(range(length), min(length, 8)):
                bit = dice.randrange(8)
                flipped(path, 4096 + begin + offset, bit)
                with pytest.raises(CatalogueCorrupt, match=re.escape(where)):
                    rpmem.Pool.open(places.here, places.one.spec())
                flipped(path, 4096 + begin + offset, bit)
    assert places.values(places.here, places.one) == {"a": 1}
