"""Pools with replicas on media that record: what is durable where, in which order, and what when
one of them refuses.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import rpmem
from rpmem import Replica
from rpmem.base.pool_format import POOL_FLOOR, RECORD_OFFSET
from rpmem.errors import (
    CatalogueCorrupt,
    DeadlineExceeded,
    FlushFailed,
    RangeError,
    ReplicaLost,
    RpmemError,
    SplitBrain,
    StaleReplica,
)
from rpmem.pool import resync
from rpmem.pool.absent import Absent
from rpmem.pool.superblock import SLOTS_OFFSET
from tests.support import faulty_rpmemd
from tests.support.lowtier import await_failure
from tests.support.media import image_of, record_in, state_of, state_of_record
from tests.support.processes import stop
from tests.support.recorded import Event, Recorded

SIZE = 4 << 20
MIB = 1 << 20
PAGE = 4096


class Node:
    """A target on the shadow medium: its files have what it flushed, and nothing else."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.spec = f"local:{directory} pool.set"

    def image(self) -> bytes:
        """Return the replica as it lies in the files now."""
        return image_of(self.directory / "pool.set")

    def state(self) -> tuple[int, str]:
        """Return its epoch's number and its mark as they lie in the files now."""
        return state_of(self.image())


def session(**more):
    return {"command": faulty_rpmemd.command(), "timeout": 30.0, **more}


def opened(local, *nodes, **more):
    return rpmem.Pool.open(local, [node.spec for node in nodes], **session(**more))


def restored(local, node, **more):
    return rpmem.Pool.restore(local, node.spec, **session(**more))


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path / "node1")


@pytest.fixture
def other(tmp_path):
    return Node(tmp_path / "node2")


@pytest.fixture
def local(tmp_path):
    return tmp_path / "local"


@pytest.fixture(params=["page", "pmem"])
def medium(request):
    with Recorded(request.param).installed() as recorded:
        yield recorded


@pytest.fixture
def page():
    with Recorded("page").installed() as recorded:
        yield recorded


def make(local, *nodes, size=SIZE, **more):
    specs = [node.spec for node in nodes]
    return rpmem.Pool.create(local, size, replicas=specs, parts=1, **session(**more))


def span_of(pool, view) -> tuple[int, int]:
    return view.ctypes.data - pool._region.address, view.nbytes


def everywhere(pool, local, nodes, view) -> bool:
    """Whether a view's bytes are durable on every copy."""
    offset, length = span_of(pool, view)
    return all(
        image[offset : offset + length] == view.tobytes()
        for image in [local.read_bytes(), *(node.image() for node in nodes)]
    )


def leave(pool) -> None:
    """End a pool though views of it may be alive."""
    with pool:
        pass


def kill(replica: Replica) -> RpmemError:
    os.kill(replica.peer.pid, signal.SIGKILL)
    return await_failure(replica)


def refuse_data(pool, view):
    """Return what lets a medium refuse flushes that touch a view, with EIO."""
    begin, length = span_of(pool, view)

    def refuses(event: Event) -> int:
        touched = event.offset < begin + length and begin < event.offset + event.length
        return errno.EIO if touched else 0

    return refuses


# --- what is durable here, where there are replicas ------------------------------------------


CALLS = {
    "persist": lambda pool, a: pool.persist(a),
    "relaxed": lambda pool, a: pool.persist(a, relaxed=True),
    "deep_persist": lambda pool, a: pool.deep_persist(a),
    "flush and drain": lambda pool, a: (pool.flush(a), pool.drain()),
    "flushes in any order": lambda pool, a: (
        pool.flush(a[500:]),
        pool.flush(a[:200]),
        pool.flush(a[200:500]),
        pool.drain(),
    ),
    "persist_many": lambda pool, a: pool.persist_many([a[:300], a[300:700], a[700:]]),
    "persist_many, descending": lambda pool, a: pool.persist_many([a[700:], a[300:700], a[:300]]),
    "persist_many, the largest in the middle": lambda pool, a: pool.persist_many(
        [a[10:20], a[20:], a[:10]]
    ),
    "everything": lambda pool, a: pool.persist(),
}


def test_deep_is_deep_here_too(medium, local, node):
    """Of one range and of several, whatever the replicas do."""
    for nodes in ([], [node]):
        where = local.with_name(f"local{len(nodes)}")
        with make(where, *nodes) as pool:
            data = pool.array("a", 4 * PAGE, "u1")
            offset, length = span_of(pool, data)
            medium.events.clear()
            pool.deep_persist(data)
            assert Event("deep", offset, length) in medium.events
            medium.events.clear()
            pool.deep_persist(data[::PAGE])
            deep = [event for event in medium.events if event.verb == "deep"]
            assert deep
            assert min(event.offset for event in deep) <= offset
            assert max(event.offset + event.length for event in deep) > offset + 3 * PAGE
            del data


def test_what_a_call_acknowledges_is_durable_on_every_copy(medium, local, node):
    with make(local, node) as pool:
        # Pages apart: no flush of one element covers another.
        a = pool.array("a", (900, 512), "u8")[:, 0]
        offset = span_of(pool, a)[0]
        for number, (name, call) in enumerate(CALLS.items()):
            a[:] = np.arange(1000 * number, 1000 * number + 900)
            medium.events.clear()
            call(pool, a)
            for image in (local.read_bytes(), node.image()):
                found = np.frombuffer(image, "u8", 899 * 512 + 1, offset)[::512]
                np.testing.assert_array_equal(found, a, name)
            if medium.medium == "pmem" and name.startswith(("persist_many", "flush")):
                assert medium.events[-1].verb == "drain"


@pytest.mark.parametrize("call", ["flush", "store"])
def test_the_record_would_show_what_is_not_durable(medium, local, node, call):
    """The control of the test above."""
    with make(local, node) as pool:
        a = pool.array("a", (900, 512), "u8")
        a[:] = 7
        if call == "flush" and medium.medium == "pmem":
            # Of the region alone: the pool's flush has a fence, for a drain by another thread.
            pool._region.flush(*span_of(pool, a))
        offset = span_of(pool, a)[0]
        assert local.read_bytes()[offset : offset + 8] == bytes(8)
        if call == "store":
            assert node.image()[offset : offset + 8] == bytes(8)


def test_the_last_bytes_of_a_pool_are_part_of_everything(medium, local, node):
    with make(local, node, tracking="off") as pool:
        data = np.frombuffer(pool._region, "u1")
        data[-64:] = 5
        pool.persist()
        assert local.read_bytes()[-64:] == node.image()[-64:] == bytes([5]) * 64
        del data


def test_two_lanes_at_once(medium, local, node, other):
    with make(local, node, other, nlanes=2) as pool:
        arrays = [pool.array(f"a{number}", (40, 512), "u8") for number in range(2)]
        together = threading.Barrier(2)
        problems = []

        def work(a, value):
            try:
                for row in range(40):
                    together.wait(30)
                    a[row] = value + row
                    pool.persist(a[row])
                    if not everywhere(pool, local, [node, other], a[row]):
                        problems.append((value, row))
            except BaseException as error:
                problems.append(error)
                together.abort()

        threads = [
            threading.Thread(target=work, args=(a, 1000 * number))
            for number, a in enumerate(arrays, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems


# --- records ---------------------------------------------------------------------------------


def steps_of(image: bytes) -> tuple[int, int, str]:
    """Number of the epoch and of the one that is prepared, if any; and the mark."""
    record = record_in(image)
    assert record is not None
    prepared = 0 if record.prepared is None else record.prepared.number
    return record.epoch.number, prepared, record.mark.name


def is_record(event: Event) -> bool:
    return event.verb != "drain" and RECORD_OFFSET <= event.offset < POOL_FLOOR


def test_every_record_is_durable_here_before_the_replicas_have_it(medium, local, node, other):
    """A crash in between leaves replicas behind, not ahead; all are offered what begins."""
    seen: list[tuple[tuple[int, int, str], ...]] = []
    nodes = [node]
    pool = make(local, node)

    def watch(event: Event) -> None:
        if is_record(event):
            seen.append(tuple(steps_of(each) for each in (local.read_bytes(), *images(nodes))))

    def records():
        found, seen[:] = list(dict.fromkeys(seen)), []
        for mine, *theirs in found:
            assert all(each[:2] <= mine[:2] for each in theirs)
        return found

    medium.watch = watch
    assert state_of(local.read_bytes()) == node.state() == (1, "BEGUN")
    pool.attach(f"{other.spec}", create=True, parts=1)
    begun = records()
    assert begun[0] == ((1, 0, "BEGUN"), (1, 0, "BEGUN"))
    assert ((1, 2, "BEGUN"), (1, 2, "BEGUN")) in begun
    assert state_of(local.read_bytes()) == node.state() == other.state() == (2, "BEGUN")
    pool.detach(1)
    begun = records()
    assert begun[0] == ((2, 0, "BEGUN"), (2, 0, "BEGUN"))
    assert ((2, 3, "BEGUN"), (2, 3, "BEGUN")) in begun
    assert state_of(local.read_bytes()) == node.state() == (3, "BEGUN")
    assert other.state() == (2, "LEFT")
    pool.close()
    assert {theirs for _, theirs in records()} == {(3, 0, "BEGUN")}
    assert state_of(local.read_bytes()) == node.state() == (3, "CLEAN")


def images(nodes) -> list[bytes]:
    return [node.image() for node in nodes]


@pytest.mark.parametrize("what", ["attach", "detach", "close"])
def test_a_record_that_is_not_taken_here_is_not_sent(page, local, node, other, what):
    pool = make(local, node)
    page.refuses = lambda event: errno.EIO if is_record(event) else 0
    calls = {
        "attach": lambda: pool.attach(other.spec, create=True, parts=1),
        "detach": lambda: pool.detach(0),
        "close": pool.close,
    }
    with pytest.raises(FlushFailed):
        calls[what]()
    assert state_of(local.read_bytes()) == (1, "BEGUN")
    if what == "attach":
        assert list(other.directory.iterdir()) == []
    if what != "close":
        assert node.state() == (1, "LEFT" if what == "detach" else "BEGUN")
        with pytest.raises(FlushFailed):
            pool.close()
    assert state_of(local.read_bytes()) == (1, "BEGUN")
    assert pool.closed


def test_what_was_flushed_and_not_drained_is_there_after_close(medium, local, node, other):
    pool = make(local, node, other)
    a = pool.array("a", 4096, "u8")
    a[:] = np.arange(4096)
    offset, length = span_of(pool, a)
    content = a.tobytes()
    pool.flush(a)
    del a
    pool.close()
    for image in (local.read_bytes(), node.image(), other.image()):
        assert state_of(image)[1] == "CLEAN"
        assert image[offset : offset + length] == content


@pytest.mark.parametrize("change", ["attach", "detach"])
def test_a_drain_reaches_the_lanes_that_the_new_set_has_not(medium, local, node, other, change):
    pool = make(local, node, *([other] if change == "detach" else []), nlanes=4)
    a = pool.array("a", 64, "u8")
    a[:] = 9
    pool._copies.core.flush(a, lane=3)
    pool._copies._options = dataclasses.replace(pool._copies._options, nlanes=1)
    if change == "attach":
        pool.attach(other.spec, create=True, parts=1)
        assert pool.lanes == 1
    else:
        pool.detach(1)
    pool.drain()
    assert everywhere(pool, local, [node], a)
    del a
    pool.close()


# --- resync ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("known", "calls"), [(False, 4), (True, 2)])
def test_a_replica_that_is_overwritten_says_so_until_it_is_whole(
    page, local, node, monkeypatch, known, calls
):
    """By what is known of what it has missed, or after both sides were compared."""
    if not known:
        monkeypatch.setattr(Absent, "find", lambda *_, **__: None)
    make(local, node).close()
    with opened(local) as pool:
        pool.array("a", 100)[:] = 3
        pool.persist()
    during = []

    def spied(call):
        def spy(*arguments, **keywords):
            during.append(node.state())
            return call(*arguments, **keywords)

        return spy

    for name in ("persist", "persist_many", "digests"):
        monkeypatch.setattr(Replica, name, spied(getattr(Replica, name)))
    with opened(local, node) as pool:
        # It stays in the running epoch of the local copy until it is whole.
        assert set(during) == {(2, "JOINING")}
        assert len(during) >= calls
        assert node.state() == (3, "BEGUN")
        np.testing.assert_array_equal(pool.read(pool["a"]), 3)


def test_pools_of_several_pieces_are_sent_and_restored_whole(tmp_path, local, node, other):
    """One call sends 16 MiB."""
    size = 37 * MIB
    rows = (30, MIB)
    with make(local, size=size) as pool:
        a = pool.array("a", rows, "u1")
        a[:] = np.arange(1, 31, dtype="u1")[:, None]
        pool.persist(a)
        pool.attach(node.spec, create=True, parts=1)
        assert everywhere(pool, local, [node], a)
        a[::7] = 77
        pool.persist(a)
        content = a.copy()
        del a
    with restored(tmp_path / "again", node) as pool:
        np.testing.assert_array_equal(pool["a"], content)
        assert (tmp_path / "again").read_bytes()[POOL_FLOOR:] == node.image()[POOL_FLOOR:]
    with opened(local, node, discard=[node.spec]) as pool:
        pool["a"][:] = 5
        pool.persist(pool["a"])
    with opened(local) as pool:
        pool["a"][-1] = 6
        pool.persist(pool["a"])
    with opened(local, node) as pool:
        assert everywhere(pool, local, [node], pool["a"])


def test_a_restored_pool_is_durable_before_it_has_a_name(
    medium, tmp_path, local, node, monkeypatch
):
    with make(local, node) as pool:
        a = pool.array("a", PAGE, "u1")
        a[:] = 7
        pool.persist(a)
        offset, length = span_of(pool, a)
        del a
    named = []
    link = os.link

    def watched(hidden, path):
        named.append(Path(hidden).read_bytes()[offset : offset + length])
        link(hidden, path)

    monkeypatch.setattr(os, "link", watched)
    restored(tmp_path / "again", node).close()
    assert named == [b"\x07" * length]


def test_the_copies_that_are_left_are_marked_when_one_is_lost(page, local, node, other):
    with make(local, node, other) as pool:
        a = pool.array("a", PAGE, "u1")
        a[:] = 7
        pool.flush(a)
        lost = pool.replicas[1]
        os.kill(lost.peer.pid, signal.SIGKILL)
        await_failure(lost)
        offset, length = span_of(pool, a)
        del a
    assert node.state() == state_of(image_of(local))
    assert node.state()[1] == "CLEAN"
    assert other.state()[1] == "BEGUN"
    for image in (node.image(), image_of(local)):
        assert image[offset : offset + length] == b"\x07" * length


def test_a_failed_attach_leaves_nothing_of_what_it_created(page, local, node, other, monkeypatch):
    pool = make(local, node)

    def failing(*arguments, **keywords):
        raise ReplicaLost("it broke on the way")

    monkeypatch.setattr(resync, "push", failing)
    with pytest.raises(ReplicaLost, match="on the way"):
        pool.attach(other.spec, create=True, parts=1)
    assert list(other.directory.iterdir()) == []
    a = pool.array("a", 10)
    a[:] = 1
    pool.persist(a)
    assert everywhere(pool, local, [node], a)
    del a
    pool.close()
    assert node.state() == state_of(local.read_bytes())


# --- replicas that are lost ------------------------------------------------------------------


def test_a_drain_on_a_dead_target_raises_though_nothing_waits_for_it(page, local, node):
    with make(local, node) as pool:
        kill(pool.replicas[0])
        for _ in range(2):
            with pytest.raises(ReplicaLost):
                pool.drain()


def test_the_failure_of_a_replica_keeps_no_array_alive(page, local, node):
    pool = make(local, node, timeout=1.0)
    array = pool.array("mine", 10)
    stopped = pool.replicas[0].peer.pid
    stop(stopped)

    def work(mine):
        pool.persist(mine)

    with pytest.raises(DeadlineExceeded):
        work(array)
    del array
    assert pool.replicas[0].failure.__traceback__ is None
    pool.close()
    os.kill(stopped, signal.SIGKILL)


def test_a_drain_finishes_on_the_replicas_that_are_left(medium, local, node, other):
    with make(local, node, other) as pool:
        a = pool.array("a", 64, "u8")
        a[:] = 4
        pool.flush(a)
        kill(pool.replicas[0])
        with pytest.raises(ReplicaLost):
            pool.drain()
        assert everywhere(pool, local, [other], a)


# --- a local medium that refuses -------------------------------------------------------------


def test_a_local_failure_comes_before_a_lost_replica(page, local, node):
    """Who reads that a replica was lost relies on the local copy."""
    pool = make(local, node)
    a = pool.array("a", 10)
    pool.persist(a)
    kill(pool.replicas[0])
    page.refuses = refuse_data(pool, a)
    for call in (pool.persist, pool.deep_persist, pool.flush):
        with pytest.raises(FlushFailed) as caught:
            call(a)
        assert caught.value.where == str(local)
        assert isinstance(caught.value.__cause__, ReplicaLost)
    with pytest.raises(FlushFailed):
        pool.drain()
    with pytest.raises(FlushFailed):
        leave(pool)


def spoil(pool, recorded, view) -> None:
    """Let the medium refuse a view once, and be well afterwards."""
    recorded.refuses = refuse_data(pool, view)
    with pytest.raises(FlushFailed) as caught:
        pool.persist(view)
    assert caught.value.errno == errno.EIO
    recorded.refuses = None


def test_nothing_is_acknowledged_after_a_refusal(page, local, node):
    pool = make(local, node)
    a, b = pool.array("a", 512, "u8"), pool.array("b", 512, "u8")
    a[:] = 1
    spoil(pool, page, a)
    calls = {
        "persist": (a,),
        "persist_many": ([a, b],),
        "deep_persist": (b,),
        "flush": (b,),
        "drain": (),
        "array": ("c", 3),
        "pull": (b,),
        "detach": (0,),
    }
    for name, arguments in calls.items():
        with pytest.raises(FlushFailed):
            getattr(pool, name)(*arguments)
    with pytest.raises(FlushFailed):
        leave(pool)
    assert pool.closed


@pytest.mark.parametrize("unmark", ["close", "leave the block"])
def test_a_copy_that_was_refused_is_behind_its_replicas(tmp_path, page, local, node, other, unmark):
    with make(local, node, other) as pool:
        a = pool.array("a", 512, "u8")
        a[:] = 1
        pool.persist(a)
    pool = opened(local, node, other)
    a = pool["a"]
    a[:] = 2
    spoil(pool, page, a)
    del a
    with pytest.raises(FlushFailed, match="not marked as complete") as caught:
        pool.close() if unmark == "close" else leave(pool)
    assert node.spec in caught.value.hint
    assert "restore" in caught.value.hint
    assert pool.closed
    assert state_of(local.read_bytes()) == (2, "BEGUN")
    ahead = node.state()
    assert ahead == other.state()
    # They may differ in what was not acknowledged; and what memory holds is not to be believed.
    assert ahead == (3, "BEGUN")
    # Neither with them nor after a time without them does it pass for their equal.
    for _ in range(3):
        with pytest.raises((StaleReplica, SplitBrain)):
            opened(local, node)
        opened(local).close()
    with restored(tmp_path / "again", node, lost=[other.spec]) as pool:
        np.testing.assert_array_equal(pool["a"], 2)


def test_a_replica_that_is_lost_does_not_go_ahead(page, local, node, other):
    pool = make(local, node, other)
    a = pool.array("a", 512, "u8")
    spoil(pool, page, a)
    kill(pool.replicas[0])
    del a
    with pytest.raises(FlushFailed) as caught:
        pool.close()
    assert node.state() == (1, "BEGUN")
    assert other.state()[1] == "CLEAN"
    assert other.spec in caught.value.hint
    assert node.spec not in caught.value.hint


def test_a_refused_copy_without_replicas_stays_open(page, local):
    pool = make(local)
    a = pool.array("a", 512, "u8")
    spoil(pool, page, a)
    del a
    with pytest.raises(FlushFailed, match="not marked as complete"):
        pool.close()
    assert state_of(local.read_bytes()) == (1, "BEGUN")
    with opened(local) as pool:
        assert state_of_record(pool.record) == (2, "BEGUN")


def test_a_drain_that_fails_at_the_end_keeps_the_copy_from_being_marked(local, node):
    with Recorded("pmem").installed() as recorded:
        pool = make(local, node)
        a = pool.array("a", 512, "u8")
        a[:] = 3
        pool.flush(a)
        recorded.refuses = lambda event: errno.EIO if event.verb == "drain" else 0
        del a
        with pytest.raises(FlushFailed, match="not marked as complete"):
            pool.close()
        assert state_of(local.read_bytes()) == (1, "BEGUN")
        assert node.state() == (2, "CLEAN")


def test_a_replica_whose_last_drain_fails_is_not_marked(page, local, node, other):
    pool = make(local, node, other)
    a = pool.array("a", 512, "u8")
    a[:] = 3
    pool.flush(a)
    kill(pool.replicas[0])
    del a
    pool.close()
    assert node.state() == (1, "BEGUN")
    assert other.state() == state_of(local.read_bytes()) == (1, "CLEAN")


# --- pull ------------------------------------------------------------------------------------


def differ(pool, replica: int, view, value) -> None:
    """Let one replica hold other bytes, as another writer would have left them."""
    saved = view.copy()
    view[:] = value
    pool._copies._make([pool.replicas[replica]]).persist(view)
    pool._copies.core = pool._copies._make(pool.replicas)
    view[:] = saved
    pool._region.persist(*span_of(pool, view))


@pytest.mark.parametrize("everything", [False, True])
def test_a_pull_is_durable_on_every_copy(medium, local, node, other, everything):
    with make(local, node, other) as pool:
        a = pool.array("a", (5, 1000), "u8")
        a[:] = 1
        pool.persist(a)
        differ(pool, 0, a[2:4], 8)
        assert pool.read(a, replica=0)[2, 0] == 8
        assert pool.read(a, replica=1)[2, 0] == 1
        medium.events.clear()
        pool.pull(None if everything else a[2:4], replica=0)
        assert a[:, 0].tolist() == [1, 1, 8, 8, 1]
        assert everywhere(pool, local, [node, other], a)
        for replica in range(2):
            np.testing.assert_array_equal(pool.read(a, replica=replica), a)


def test_a_pull_that_fails_in_between_says_so_and_leaves_equal_copies(page, local, node, other):
    pool = make(local, node, other)
    a = pool.array("a", (2, 1000), "u8")
    a[:] = 1
    pool.persist(a)
    differ(pool, 0, a, 8)
    kill(pool.replicas[1])
    with pytest.raises(ReplicaLost):
        pool.pull(a, replica=0)
    pool.detach(1)
    pool.pull(a, replica=0)
    assert everywhere(pool, local, [node], a)
    assert (a == 8).all()
    page.refuses = refuse_data(pool, a)
    with pytest.raises(FlushFailed):
        pool.pull(a, replica=0)
    with pytest.raises(FlushFailed):
        leave(pool)


@pytest.mark.parametrize(
    "where",
    [(0, 64), (RECORD_OFFSET, 8), (POOL_FLOOR, 8), (SIZE - 8, 16), (SLOTS_OFFSET, 64), (32768, 8)],
)
def test_a_pull_leaves_the_pool_s_own_records_alone(page, local, node, where):
    with make(local, node) as pool:
        before = bytes(memoryview(pool._region)[:40960])
        with pytest.raises(RangeError):
            pool.pull(where)
        assert bytes(memoryview(pool._region)[:40960]) == before


# --- damage ----------------------------------------------------------------------------------


def test_damage_to_a_closed_copy_is_not_sent_and_a_replica_of_it_not_restored(
    tmp_path, local, node, other
):
    with make(local, node, other) as pool:
        pool.array("a", 100)[:] = 1
        pool.persist()
    slot = SLOTS_OFFSET + 108
    for path in (local, node.directory / "pool.set.part0"):
        with open(path, "r+b") as file:
            file.seek(slot)
            (byte,) = file.read(1)
            file.seek(slot)
            file.write(bytes([byte ^ 4]))
    before = other.image()
    for readonly in (False, True):
        with pytest.raises(CatalogueCorrupt, match=str(local)):
            rpmem.Pool.open(local, None if readonly else [other.spec], readonly=readonly)
    assert other.image() == before
    with pytest.raises(CatalogueCorrupt, match=node.spec):
        restored(tmp_path / "again", node, lost=[other.spec])
    assert not (tmp_path / "again").exists()
    with restored(tmp_path / "again", other, lost=[node.spec]) as pool:
        np.testing.assert_array_equal(pool["a"], 1)
