"""What a copy has missed is known: it is sent just that when it is back, and equal then."""

from __future__ import annotations

import os
import random
import signal

import pytest

import rpmem
from rpmem.errors import ReplicaLost
from tests.support import rebooted_rpmemd
from tests.support.behind import FEW, LENGTH, PAGE, Place, Sent, need_digests
from tests.support.pools import PoolNode, kill

need_digests()

MODES = ["off", "digest", "kernel"]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def sent(monkeypatch):
    """Return what is sent from now on, or since it was cleared."""
    return Sent(monkeypatch)


@pytest.fixture
def compared(monkeypatch):
    """Return the ranges that digests are asked of."""
    found = []
    digests = rpmem.Replica.digests

    def asked(replica, what, *rest, **more):
        found.append(tuple(what))
        return digests(replica, what, *rest, **more)

    monkeypatch.setattr(rpmem.Replica, "digests", asked)
    return found


def bump(pool, *places):
    """Store one byte in each of these places, and persist it by name."""
    array = pool["a"]
    for at in places:
        array[at] ^= 1
        pool.persist(array[at : at + 1])


# --- within one session -----------------------------------------------------------------------


def test_a_copy_that_left_is_sent_what_was_persisted_meanwhile(place, sent, compared):
    chance = random.Random(1)
    places = [chance.randrange(LENGTH) for _ in range(50)]
    with rpmem.Pool.open(place.local, place.replica) as pool:
        bump(pool, 17)
        pool.detach(0)
        bump(pool, *places)
        sent.clear()
        pool.attach(place.replica)
        assert sent.pages == {place.page(at) for at in places} | {5}  # the superblock
        assert compared == []
        bump(pool, 18)
    place.check()


def test_a_copy_that_left_and_missed_nothing_is_sent_nothing(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        sent.clear()
        pool.attach(place.replica)
        assert len(sent.pages) == 1  # the superblock
        assert compared == []
    place.check()


def test_what_was_in_flight_when_a_copy_was_lost_is_sent(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        bump(pool, 1000)
        os.kill(pool.replicas[0].peer.pid, signal.SIGSTOP)
        pid = pool.replicas[0].peer.pid
        pool["a"][3 * PAGE] += 1
        pool.replicas[0].give_up("the test wants it so")
        with pytest.raises(ReplicaLost):
            pool.persist(pool["a"][3 * PAGE : 3 * PAGE + 1])
        os.kill(pid, signal.SIGKILL)
        pool.detach(0)
        place.settle()
        sent.clear()
        pool.attach(place.replica)
        assert place.page(3 * PAGE) in sent.pages
        assert len(sent.pages) <= 1 + FEW
        assert compared == []
    place.check()


def test_what_was_flushed_and_not_drained_when_a_copy_was_lost_is_sent(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool["a"][7 * PAGE] += 1
        pool.flush(pool["a"][7 * PAGE : 7 * PAGE + 1])
        kill(pool.replicas[0])
        pool.detach(0)
        place.settle()
        sent.clear()
        pool.attach(place.replica)
        assert place.page(7 * PAGE) in sent.pages
        assert compared == []
    place.check()


def test_the_pool_s_own_records_are_in_the_map(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        pool.array("b", 10, "u1")[:] = 7
        pool.persist(pool["b"])
        pool.attrs("b")["k"] = 1
        pool.attach(place.replica)
        assert compared == []
    place.check()
    with rpmem.Pool.restore(place.local.with_name("again"), place.replica) as pool:
        assert pool["b"].tolist() == [7] * 10
        assert pool.attrs("b")["k"] == 1


@pytest.mark.parametrize("tracking", MODES)
def test_calls_without_a_range(place, sent, compared, tracking):
    try:
        pool = rpmem.Pool.open(place.local, place.replica, tracking=tracking)
    except rpmem.errors.RpmemError as error:
        pytest.skip(str(error))
    with pool:
        pool.persist()
        pool.detach(0)
        places = [5, 80_000, LENGTH - 1]
        array = pool["a"]
        array[places] += 1
        pool.persist()
        array[5] -= 1
        pool.persist()
        sent.clear()
        pool.attach(place.replica)
        if tracking != "off":
            assert sent.pages >= {place.page(at) for at in places}
            assert len(sent.pages) <= len(places) + FEW
            assert compared == []
        del array
    place.check()


def test_of_what_was_named_and_not_stored_to_only_what_differs_is_sent(place, sent, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        pool["a"][12_345] += 1
        pool.persist(pool["a"])
        sent.clear()
        pool.attach(place.replica)
        assert place.page(12_345) in sent.pages
        assert len(sent.pages) <= 1 + FEW
        assert compared
    place.check()


def test_what_is_persisted_while_two_copies_are_away(place, tmp_path, sent, compared):
    other = PoolNode(tmp_path / "other")
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.attach(other.spec(), create=True, parts=1)
        compared.clear()
        pool.detach(0)
        bump(pool, 5 * PAGE)
        pool.detach(0)
        bump(pool, 9 * PAGE)
        sent.clear()
        pool.attach(other.spec())
        assert place.page(9 * PAGE) in sent.pages
        assert place.page(5 * PAGE) not in sent.pages
        bump(pool, 11 * PAGE)
        sent.clear()
        pool.attach(place.replica)
        assert {place.page(at * PAGE) for at in (5, 9, 11)} <= sent.pages
        assert len(sent.pages) <= 3 + FEW
        assert compared == []
    place.check()


# --- doubt ------------------------------------------------------------------------------------


def test_a_copy_that_comes_back_in_another_epoch_is_compared(place, sent, compared):
    """Somebody else took it up meanwhile, and its map says nothing about that."""
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        elsewhere = place.local.with_name("elsewhere")
        with rpmem.Pool.restore(elsewhere, place.replica) as other:
            other["a"][50_000] += 1
            other.persist(other["a"][50_000:50_001])
        place.settle()
        compared.clear()
        pool.attach(place.replica, discard=True)
        assert compared
    place.check()


def test_a_copy_whose_name_is_given_to_be_discarded_is_compared(place, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        place.settle()
        flip(place, 40 * PAGE)
        pool.attach(place.replica, discard=True)
        assert compared
    place.check()


def flip(place, at):
    """Change a byte in the replica's file."""
    with place.file() as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_copy_that_joined_in_part_is_compared(place, monkeypatch, compared):
    with rpmem.Pool.open(place.local, place.replica) as pool:
        pool.detach(0)
        bump(pool, 5 * PAGE)

        def failing(*_, **__):
            raise ReplicaLost("in the middle")

        with monkeypatch.context() as patch:
            patch.setattr(rpmem.Replica, "persist_many", failing)
            with pytest.raises(ReplicaLost):
                pool.attach(place.replica)
        place.settle()
        pool.attach(place.replica)
        assert compared
    place.check()


@pytest.mark.parametrize(
    ("before", "after", "medium", "trusted"),
    [
        (1, 1, "volatile", True),
        (1, 2, "volatile", False),
        (0, 0, "volatile", False),
        (1, 0, "volatile", False),
        (0, 1, "volatile", False),
        (1, 1, "unknown", True),
        (1, 2, "unknown", False),
        (1, 2, "page", True),
        (0, 0, "page", True),
    ],
)
def test_what_was_in_memory_does_not_outlive_its_machine(
    place, compared, before, after, medium, trusted
):
    how = {"command": rebooted_rpmemd.command(before, medium)}
    with rpmem.Pool.open(place.local, place.replica, **how) as pool:
        assert (pool.replicas[0].level == "persistent") == (medium == "page")
        pool.detach(0)
        place.settle()
        bump(pool, 5 * PAGE)
        if not trusted:
            flip(place, 40 * PAGE)
        pool._copies._options = rpmem.session.options.SessionOptions(
            command=rebooted_rpmemd.command(after, medium)
        )
        pool.attach(place.replica)
        assert (compared == []) == trusted
    place.check()
