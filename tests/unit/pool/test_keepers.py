"""Keepers of records: what they take, what is durable when, and what a failure leaves.

Media and lanes are byte arrays here that remember what was made durable, and fail when told to.
"""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from rpmem.base.pool_format import HEADER_SIZE, POOL_FLOOR, RECORD_OFFSET, RECORD_SIZE
from rpmem.epochs import change, codec, opening
from rpmem.epochs.record import CopyRecord, Mark
from rpmem.errors import CatalogueCorrupt, EpochRefused, FlushFailed, ReplicaLost
from rpmem.pool import keepers
from rpmem.pool.keepers import LaneKeeper, LocalKeeper, RemoteKeeper

POOL = b"the pool's id 16"
HERE, THERE = (bytes([each]) * 16 for each in (1, 2))
RECORD = change.first(HERE, opening.first_epoch([HERE, THERE], identity=bytes([9]) * 16))
STRANGE = change.first(HERE, opening.first_epoch([HERE], identity=bytes([8]) * 16))
CLEAN = change.marked(RECORD, Mark.CLEAN)


class Memory:
    """Memory whose bytes get durable when told, until `fails_after` times are over."""

    def __init__(self, image: bytes = bytes(POOL_FLOOR)) -> None:
        self.seen = bytearray(image)
        self.durable = bytearray(image)
        self.refused = 0
        self.fails_after = 1 << 30
        self.stored: list[int] = []

    def load(self, offset, length):
        return bytes(self.seen[offset : offset + length])

    def store(self, offset, data):
        self.seen[offset : offset + len(data)] = data
        self.stored.append(offset)

    def persist(self, offset, length):
        self.fails_after -= 1
        if self.fails_after < 0:
            self.refused = errno.EIO
            raise FlushFailed("no", errno=errno.EIO)
        self.durable[offset : offset + length] = self.seen[offset : offset + length]


def found_in(image) -> codec.Found | None:
    return codec.read(bytes(image[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE]), pool_id=POOL)


def cut_off(record: CopyRecord, sequence: int, stores: int) -> bytes:
    """Return an image in which a change to `record` was cut off."""
    image = bytearray(POOL_FLOOR)
    for before, kept in ((RECORD, 4), (record, stores)):
        pieces = list(codec.changes(before, sequence, pool_id=POOL))[:kept]
        for offset, data in pieces:
            image[RECORD_OFFSET + offset : RECORD_OFFSET + offset + len(data)] = data
        sequence += 1
    return bytes(image)


# --- the local copy ---------------------------------------------------------------------------


@pytest.fixture
def local(monkeypatch):
    monkeypatch.setattr(keepers, "PoolMedium", lambda region: region)
    return lambda memory, **named: LocalKeeper(memory, POOL, "here", **named)


def test_each_change_of_the_local_record_is_durable_and_is_read_again(local):
    memory = Memory()
    keeper = local(memory, uuid=HERE)
    sequences = []
    for record in (RECORD, CLEAN, RECORD):
        keeper.write(record)
        assert keeper.record == record
        found = found_in(memory.durable)
        assert (found.record, found.settled) == (record, True)
        sequences.append(found.sequence)
        assert local(memory).record == record
    first = sequences[0]
    assert sequences == [first, first + 1, first + 2]


def test_only_a_settled_record_with_a_clean_mark_is_clean(local):
    memory = Memory()
    keeper = local(memory, uuid=HERE)
    assert not keeper.clean
    keeper.write(RECORD)
    assert not local(memory).clean
    keeper.write(CLEAN)
    assert local(memory).clean
    half = local(Memory(cut_off(CLEAN, 1, 2)))
    assert half.record == CLEAN
    assert not half.clean


@pytest.mark.parametrize("stores", [1, 2, 3])
@pytest.mark.parametrize("how", ["settle", "write"])
def test_a_local_record_that_was_cut_off_is_made_whole_first(local, how, stores):
    """Whatever comes then: a crash in it leaves a record, too."""
    image = cut_off(CLEAN, 1, stores)
    writes = 3 if how == "settle" else 3 + 4
    for last in range(writes + 1):
        memory = Memory(image)
        keeper = local(memory)
        memory.fails_after = last
        try:
            keeper.settle() if how == "settle" else keeper.write(RECORD)
        except FlushFailed:
            assert last < writes
        else:
            assert last == writes
            assert found_in(memory.durable).settled
        assert found_in(memory.durable).record in (RECORD, CLEAN)


def test_the_local_copy_takes_no_record_that_would_hide_what_it_holds(local):
    memory = Memory()
    keeper = local(memory, uuid=HERE)
    keeper.write(RECORD)
    before = bytes(memory.seen)
    with pytest.raises(EpochRefused):
        keeper.write(STRANGE)
    assert (memory.seen, keeper.record) == (before, RECORD)


@pytest.mark.parametrize("last", range(4))
def test_a_medium_that_refuses_a_record_keeps_the_one_before_and_gets_no_other(local, last):
    """Memory may still be written back: it holds what is claimed."""
    memory = Memory()
    keeper = local(memory, uuid=HERE)
    keeper.write(RECORD)
    before = bytes(memory.seen)
    memory.fails_after = last
    with pytest.raises(FlushFailed):
        keeper.write(CLEAN)
    assert keeper.record == RECORD
    assert bytes(memory.seen) == before
    stored = len(memory.stored)
    memory.fails_after = 1 << 30
    with pytest.raises(FlushFailed, match="takes no record any more"):
        keeper.write(CLEAN)
    assert len(memory.stored) == stored


def test_a_local_copy_without_a_record_is_no_copy(local):
    with pytest.raises(CatalogueCorrupt, match="no record"):
        local(Memory())


# --- replicas ---------------------------------------------------------------------------------


class FakeReplica(SimpleNamespace):
    """A replica whose memory lanes write to, and which fails when told to."""

    def __init__(self, image: bytes = bytes(POOL_FLOOR)) -> None:
        super().__init__(
            target="there", pool_set="pool.set", group=None, pool_size=POOL_FLOOR, failure=None,
            memory=Memory(image), given_up=None, error=None, record=RECORD,
        )  # fmt: skip

    def read(self, buffer, offset):
        buffer[:] = self.memory.load(offset, len(buffer))

    def on_failure(self, error):
        self.failure = error

    def give_up(self, why):
        self.given_up = why

    def set_record(self, record, *, discard=False):
        if self.error is not None:
            raise self.error
        self.record = record


@pytest.fixture
def lanes(monkeypatch):
    """Return what makes a keeper over lanes, of words that land in the replica's memory."""
    replicas = []

    class Lanes:
        def __init__(self, region, groups, *, local, floor, size, timeout_s):
            assert (local, floor) == (False, HEADER_SIZE)
            self.memory = replicas[-1].memory

        def put(self, offset, word):
            assert len(word) == 8
            self.memory.store(offset, word)
            self.memory.persist(offset, 8)

        def close(self):
            pass

    monkeypatch.setattr(keepers, "Replicator", Lanes)

    def make(replica):
        replicas.append(replica)
        return LaneKeeper(replica, None, POOL, HERE, timeout_s=1.0)

    return make


def test_each_change_over_lanes_is_read_again(lanes):
    replica = FakeReplica()
    keeper = lanes(replica)
    assert keeper.record is None
    for sequence, record in enumerate((RECORD, CLEAN, RECORD), 1):
        keeper.write(record)
        assert keeper.record == record
        assert found_in(replica.memory.durable) == (record, sequence, True)


def test_any_record_arrives_whole_over_lanes(lanes):
    """Whatever rest its length leaves."""
    members = [bytes([each]) * 16 for each in range(1, 10)]
    for count in range(1, 9):
        epoch = opening.first_epoch(members[:count], identity=bytes(16))
        replica = FakeReplica()
        lanes(replica).write(change.first(members[0], epoch), discard=True)
        assert found_in(replica.memory.durable).record.epoch == epoch


@pytest.mark.parametrize("stores", [1, 2, 3])
def test_a_record_that_was_cut_off_is_made_whole_over_lanes(lanes, stores):
    replica = FakeReplica(cut_off(CLEAN, 1, stores))
    keeper = lanes(replica)
    assert keeper.record == (RECORD if stores == 1 else CLEAN)
    assert found_in(replica.memory.durable).settled


def test_no_record_over_lanes_hides_what_is_there(lanes):
    replica = FakeReplica()
    keeper = lanes(replica)
    keeper.write(RECORD)
    with pytest.raises(EpochRefused, match="was not prepared here"):
        keeper.write(STRANGE)
    assert (keeper.record, replica.failure) == (RECORD, None)


def test_over_a_damaged_record_nothing_is_written_unless_the_copy_is_named(lanes):
    replica = FakeReplica()
    lanes(replica).write(RECORD)
    replica.memory.store(RECORD_OFFSET + codec.SLOT_OFFSETS[1] + 40, b"\xff")
    keeper = lanes(replica)
    assert keeper.record is None
    assert "slots differ" in keeper.damage
    with pytest.raises(EpochRefused, match="damaged"):
        keeper.write(RECORD)
    keeper.write(RECORD, discard=True)
    assert (keeper.record, keeper.damage) == (RECORD, None)


@pytest.mark.parametrize("error", [ReplicaLost("cut"), KeyboardInterrupt()])
def test_a_replica_whose_record_could_not_be_written_is_lost(error):
    replica = FakeReplica()
    replica.error = error
    with pytest.raises(type(error)):
        RemoteKeeper(replica, HERE).write(CLEAN)
    lost = isinstance(error, ReplicaLost)
    assert replica.failure is (error if lost else None)
    assert (replica.given_up is None) == lost
