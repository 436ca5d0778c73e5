"""Faults, and other threads, between the steps of an open, an attach, a detach and a restore."""

from __future__ import annotations

import threading

import pytest

import rpmem
from rpmem.base import interrupts
from rpmem.base.pool_format import POOL_FLOOR, RECORD_OFFSET
from rpmem.epochs import codec
from rpmem.epochs.record import Mark
from rpmem.errors import (
    CatalogueCorrupt,
    FlushFailed,
    PoolSetExists,
    ReplicaLost,
    StaleReplica,
    UsageError,
)
from rpmem.pool import restoring
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.copies import Copies
from rpmem.pool.keepers import LocalKeeper
from rpmem.session.replica import Replica
from tests.support.media import parts_of, record_in, write_record
from tests.support.pools import SIZE, PoolNode, fill


@pytest.fixture
def node(tmp_path):
    return PoolNode(tmp_path / "node1")


@pytest.fixture
def local(tmp_path):
    return tmp_path / "local"


def test_nothing_is_pulled_from_a_replica_with_other_arrays(local, node, monkeypatch):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        array = fill(pool)
        with monkeypatch.context() as patch:
            patch.setattr(pool._arrays._catalogue._medium, "_replicate", None)
            pool.array("only here", 10)
        array[0] = 9
        with pytest.raises(StaleReplica, match="catalogue"):
            pool.pull()
        assert (array[0] == 9).all()
        pool.pull(array)
        assert (array == 1).all()


def test_two_threads_that_detach_one_replica(local, node, monkeypatch):
    """One of them does, and the other is told that there is no such replica."""
    outcomes = []
    both, looked, find = threading.Barrier(2), threading.local(), Copies.find

    def find_together(copies, replica):
        found = find(copies, replica)
        if not hasattr(looked, "once"):
            looked.once = True
            both.wait(10)
        return found

    monkeypatch.setattr(Copies, "find", find_together)

    def detach(pool, replica):
        try:
            pool.detach(replica)
        except UsageError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("done")

    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        threads = [threading.Thread(target=detach, args=(pool, pool.replicas[0])) for _ in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes, key=len)[0] == "done"
    assert "the pool has no replica" in sorted(outcomes, key=len)[1]


@pytest.mark.parametrize("error", [ReplicaLost("cut"), KeyboardInterrupt()])
def test_a_creation_interrupted_at_the_last_step_leaves_nothing(local, node, monkeypatch, error):
    def broken(medium, layout, **_):
        raise error

    monkeypatch.setattr(Catalogue, "format", broken)
    with pytest.raises(type(error)):
        rpmem.Pool.create(local, SIZE, node.spec(), parts=1)
    monkeypatch.undo()
    assert not local.exists()
    assert [name for name in node.files() if not name.endswith(".set")] == []
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1):
        pass


@pytest.mark.parametrize("error", [ReplicaLost("cut"), interrupts.Interrupted()])
@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("created", [True, False])
def test_an_attach_cut_off_at_any_record_is_undone(
    local, node, monkeypatch, created, nth, carried_out, error
):
    """What it created goes; what was there before stays, and the pool goes on without it."""
    set_record = Replica.set_record
    parts = 1 if created else 0
    calls = []

    def cut_off(self, record, *, discard=False):
        calls.append(record)
        if len(calls) != nth or carried_out:
            set_record(self, record, discard=discard)
        if len(calls) == nth:
            raise error

    with rpmem.Pool.create(local, SIZE, [] if created else node.spec(), parts=1) as pool:
        if not created:
            pool.detach(0)
        before = node.files()
        monkeypatch.setattr(Replica, "set_record", cut_off)
        with pytest.raises(type(error)):
            pool.attach(node.spec(), create=created, parts=parts)
        assert len(calls) == nth
        monkeypatch.undo()
        assert node.files() == before
        assert list(pool.replicas) == []
        # What was offered is not taken back: a newer epoch has taken its place.
        assert pool.record.prepared is None
        if nth > 1:
            assert calls[-1].newest.stamp in pool.history
            assert calls[-1].newest.stamp != pool.epoch.stamp
        array = pool.array("a", 10, "u8")
        array[:] = 7
        pool.persist(array)
        del array
        # Nothing is in the way of another.
        pool.attach(node.spec(), create=created, parts=parts)
        assert (pool.read(pool["a"]) == 7).all()


def test_somebody_else_takes_the_name_during_restore(tmp_path, local, node, monkeypatch):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    new = tmp_path / "new"
    read = restoring._read

    def slow(*arguments):
        found = read(*arguments)
        new.write_text("mine")
        return found

    monkeypatch.setattr(restoring, "_read", slow)
    with pytest.raises(PoolSetExists):
        rpmem.Pool.restore(new, node.spec())
    assert new.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["local", "new"]


def test_a_half_sent_replica_is_not_taken_for_whole(tmp_path, local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    record = record_in(node.image())
    write_record(node.directory / "pool.set", record.replaced(mark=Mark.JOINING))
    before = node.image()
    with pytest.raises(StaleReplica, match="mixture"):
        rpmem.Pool.restore(tmp_path / "new", node.spec())
    assert not (tmp_path / "new").exists()
    assert node.image() == before
    with rpmem.Pool.open(local, node.spec()):
        pass
    with rpmem.Pool.restore(tmp_path / "new", node.spec()) as pool:
        assert pool.names() == ["a"]


def test_a_replica_that_another_initiator_uses_is_not_restored_from(
    tmp_path, local, node, monkeypatch
):
    """It is looked at before there is room for it, and read over a second session."""
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    examine = restoring._examine

    def meanwhile(*arguments):
        found = examine(*arguments)
        record = record_in(node.image())
        write_record(node.directory / "pool.set", record.replaced(mark=Mark.BEGUN))
        return found

    monkeypatch.setattr(restoring, "_examine", meanwhile)
    with pytest.raises(StaleReplica, match="changed while it was being read"):
        rpmem.Pool.restore(tmp_path / "new", node.spec())
    assert not (tmp_path / "new").exists()


def test_a_replica_whose_record_is_damaged_is_overwritten_if_it_is_named(local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    (part,) = parts_of(node.directory / "pool.set")
    with part.open("r+b") as file:
        file.seek(RECORD_OFFSET + codec.SLOT_OFFSETS[1] + 40)
        file.write(b"\xff" * 8)
    before = node.image()
    with pytest.raises(CatalogueCorrupt, match="the record of the copy is damaged") as caught:
        rpmem.Pool.open(local, node.spec())
    assert "discard=" in caught.value.hint
    assert node.image() == before
    with rpmem.Pool.open(local, node.spec(), discard=[node.spec()]) as pool:
        assert (pool.read(pool["a"]) == 1).all()
    with rpmem.Pool.open(local, node.spec()):
        pass


def test_a_restored_copy_has_no_name_before_its_epoch_has_begun(tmp_path, local, node, monkeypatch):
    """Until then it is a mixture for whoever finds it after a crash."""
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    begin, named = restoring._begin, []

    def looking(*arguments):
        begin(*arguments)
        named.append((tmp_path / "new").exists())

    monkeypatch.setattr(restoring, "_begin", looking)
    with rpmem.Pool.restore(tmp_path / "new", node.spec()):
        assert named == [False]
        assert (tmp_path / "new").exists()


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_pool_whose_replica_is_lost_once_it_is_read_back_is_restored(
    tmp_path, local, node, monkeypatch, nth, carried_out
):
    """It may be the only copy by now; the first persist tells of the loss."""
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    set_record, calls = Replica.set_record, []

    def cut_off(self, record, *, discard=False):
        calls.append(record)
        if len(calls) != nth or carried_out:
            set_record(self, record, discard=discard)
        if len(calls) == nth:
            raise ReplicaLost("cut")

    with monkeypatch.context() as patch:
        patch.setattr(Replica, "set_record", cut_off)
        pool = rpmem.Pool.restore(tmp_path / "new", node.spec())
    with pool:
        assert len(pool.replicas) == 1
        assert calls[nth - 1].newest.stamp in pool.history
        with pytest.raises(ReplicaLost):
            pool.persist(pool["a"])
        pool.detach(0)
        pool.persist(pool["a"])
    with rpmem.Pool.open(tmp_path / "new", node.spec()) as pool:
        assert (pool.read(pool["a"]) == 1).all()


def test_a_restore_whose_record_is_refused_here_leaves_nothing(tmp_path, local, node, monkeypatch):
    """Only the loss of the replica lets it go on alone."""
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        fill(pool)
    write, calls = LocalKeeper.write, []

    def refusing(self, record, *, discard=False):
        calls.append(record)
        if len(calls) == 2:
            raise FlushFailed("no")
        write(self, record, discard=discard)

    monkeypatch.setattr(LocalKeeper, "write", refusing)
    with pytest.raises(FlushFailed):
        rpmem.Pool.restore(tmp_path / "new", node.spec())
    assert len(calls) == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [FlushFailed("no"), KeyboardInterrupt()])
def test_a_replica_that_may_have_half_a_record_of_the_pool_is_lost(local, node, monkeypatch, error):
    """Where a call raises by itself, it has told what is lost; where it is interrupted, nothing."""

    def broken(self, verb, *_, **__):
        raise error

    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(Copies, "call", broken)
            with pytest.raises(type(error)):
                pool._copies.replicate(POOL_FLOOR, 8)
        lost = isinstance(error, KeyboardInterrupt)
        assert (pool.replicas[0].failure is not None) == lost


def test_no_epoch_is_offered_beside_a_replica_that_is_lost(tmp_path, local, node):
    other = PoolNode(tmp_path / "node2")
    with rpmem.Pool.create(local, SIZE, [node.spec(), other.spec()], parts=1) as pool:
        pool.replicas[1].give_up("somebody cut the wire")
        before = pool.record
        with pytest.raises(ReplicaLost, match="somebody cut the wire"):
            pool.detach(0)
        assert len(pool.replicas) == 1
        assert pool.record == before
        pool.detach(0)
        assert pool.replicas == []
        assert pool.record.epoch.members == (pool.record.copy,)
        assert {each.given_up for each in pool.epoch.common} == {False, True}


def test_what_an_interrupted_call_left_is_sent_before_copies_count_as_equal(local, node):
    with rpmem.Pool.create(local, SIZE, node.spec(), parts=1) as pool:
        array = fill(pool)
        array[0] = 9
        at = pool.entry("a").offset
        wanted = array[:1].tobytes()
        pool._copies._unsettled.append((at, len(wanted)))
        del array
    assert record_in(node.image()).mark is Mark.CLEAN
    assert node.image()[at : at + len(wanted)] == wanted
