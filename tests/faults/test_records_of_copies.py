"""Records of copies at a real rpmemd: replaced, refused, cut off; and what lies below the floor.

An honest initiator goes by way of `Replica`, a hostile one sends what it likes.
"""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import sys
import threading

import pytest

import rpmem
from rpmem.base.pool_format import HEADER_SIZE, POOL_FLOOR, RECORD_OFFSET, RECORD_SIZE
from rpmem.base.values import replace
from rpmem.control.messages import EPOCHS, FEATURES, LEFT, MAX_RECORD_SIZE, STAGING
from rpmem.epochs import change, codec
from rpmem.epochs.record import CopyRecord, Epoch, Mark, Stamp
from rpmem.errors import (
    AttributesRefused,
    ClosedError,
    DeadlineExceeded,
    EpochRefused,
    FlushFailed,
    MalformedMessage,
    RangeError,
    ReplicaLost,
    RpmemError,
    UnexpectedMessage,
    UsageError,
)
from rpmem.files.attributes import MAJOR, SIGNATURE
from rpmem.wire.messages import MESSAGE_FETCH
from tests.support import faulty_rpmemd, hanging_rpmemd, hostile_rpmemd, unregistering_rpmemd
from tests.support.fabrics import needs_libfabric
from tests.support.media import wait_unlocked
from tests.support.preload import shim
from tests.support.processes import wait_gone
from tests.support.raw_session import BAD_RANGE, DONE, RawSession, update
from tests.support.targets import ATTRIBUTES, Node

SIZE = 2 << 20
POOL, COPY, WRITER = b"pool of the test", b"c" * 16, b"w" * 16
OURS = replace(ATTRIBUTES, signature=SIGNATURE, major=MAJOR, poolset_uuid=POOL)


def an_epoch(number: int, *, past: tuple[int, ...] = (), identity: int | None = None) -> Epoch:
    name = (identity or number).to_bytes(16, "big")
    history = tuple(Stamp(each, each.to_bytes(16, "big")) for each in past)
    return Epoch(number, name, (WRITER, COPY), (WRITER, COPY), 2, history)


FIRST, SECOND = an_epoch(1), an_epoch(2, past=(1,))
STRANGE = an_epoch(9, identity=99)
RECORD = CopyRecord(COPY, FIRST, Mark.BEGUN)
OFFERED = replace(RECORD, prepared=SECOND)
DISCARDED = CopyRecord(COPY, STRANGE, Mark.JOINING)


def packed(record: CopyRecord) -> bytes:
    return codec.pack(record, 1, pool_id=POOL)


@pytest.fixture
def node(tmp_path):
    return Node.local(tmp_path / "there")


def create(node, **more):
    return node.create(bytearray(SIZE), attributes=OURS, **more)


def reopened(node):
    """Return record and damage as the next session finds them."""
    with node.open(bytearray(SIZE)) as replica:
        return replica.record, replica.record_damage


def on_disk(node):
    wait_unlocked(node.directory / "a.set")
    return node.image()[RECORD_OFFSET:POOL_FLOOR]


# --- honest -----------------------------------------------------------------------------------


def power_cut(replica):
    """Kill the daemon: on the shadow medium, what was not flushed is gone with it."""
    os.kill(replica.peer.pid, 9)
    wait_gone(replica.peer.pid)
    with contextlib.suppress(RpmemError):
        replica.close()


def kept_through_a_power_cut(node, breakage=0):
    """On a medium that keeps only what was flushed, and a daemon that is killed."""
    with create(node, command=faulty_rpmemd.command(breakage=breakage)) as replica:
        assert replica.keeps_records
        assert (replica.record, replica.record_damage) == (None, None)
        for record in (RECORD, OFFERED, change.begun(OFFERED)):
            replica.set_record(record)
            assert replica.record == record
            image = node.image()[RECORD_OFFSET:POOL_FLOOR]
            found = codec.read(image, pool_id=POOL)
            if found is None or found.record != record:
                return False
        power_cut(replica)
    return reopened(node) == (change.begun(OFFERED), None)


def test_a_record_is_durable_when_the_call_returns(node):
    assert kept_through_a_power_cut(node)


def test_a_daemon_that_answers_before_it_flushes_is_noticed(node):
    assert not kept_through_a_power_cut(node, faulty_rpmemd.SKIP_RECORD_FLUSH)


def test_a_copy_leaves_and_is_found_like_that(node):
    with create(node) as replica:
        replica.set_record(OFFERED)
        replica.leave()
        assert replica.record == replace(OFFERED, mark=Mark.LEFT)
    assert reopened(node) == (replace(OFFERED, mark=Mark.LEFT), None)


def test_a_refusal_changes_nothing_and_the_replica_goes_on(node):
    with create(node) as replica:
        replica.set_record(RECORD)
        wrong = (
            (replace(RECORD, copy=WRITER), "another copy"),
            (replace(RECORD, epoch=SECOND), "was not prepared here"),
            (DISCARDED, "is not in the history of"),
            (replace(RECORD, prepared=STRANGE), "is not in the history of"),
        )
        for record, words in wrong:
            with pytest.raises(EpochRefused, match=words) as caught:
                replica.set_record(record)
            assert caught.value.where == node.target
            assert caught.value.hint
            assert replica.record == RECORD
        replica.persist(POOL_FLOOR, 100)
        replica.set_record(OFFERED)
        with pytest.raises(EpochRefused, match="not taken back"):
            replica.set_record(RECORD)
    assert reopened(node) == (OFFERED, None)


def test_a_person_may_discard_a_copy(node):
    with create(node) as replica:
        replica.set_record(OFFERED)
        with pytest.raises(EpochRefused):
            replica.set_record(DISCARDED)
        replica.set_record(DISCARDED, discard=True)
        with pytest.raises(EpochRefused, match="mixture"):
            replica.leave()
        with pytest.raises(EpochRefused, match="mixture"):
            replica.set_record(replace(DISCARDED, mark=Mark.CLEAN), discard=True)
    assert reopened(node) == (DISCARDED, None)


def test_a_copy_without_a_record_does_not_leave(node):
    with create(node) as replica:
        with pytest.raises(EpochRefused, match="no record"):
            replica.leave()
        assert replica.record is None
        assert replica.record_damage is None


def write_part(node, offset, data):
    wait_unlocked(node.directory / "a.set")
    with open(node.directory / "a.set.part0", "r+b") as part:
        part.seek(offset)
        part.write(data)


def test_damage_is_no_error_of_open_and_only_a_discard_ends_it(node):
    with create(node) as replica:
        replica.set_record(RECORD)
    write_part(node, RECORD_OFFSET + 100, b"rot")
    before = on_disk(node)
    with node.open(bytearray(SIZE)) as replica:
        assert replica.record is None
        assert "damaged" in replica.record_damage
        for record in (RECORD, OFFERED, DISCARDED):
            with pytest.raises(EpochRefused, match="damaged"):
                replica.set_record(record)
        with pytest.raises(EpochRefused):
            replica.leave()
        assert "damaged" in replica.record_damage
        assert node.image()[RECORD_OFFSET:POOL_FLOOR] == before
        replica.set_record(DISCARDED, discard=True)
        assert (replica.record, replica.record_damage) == (DISCARDED, None)
    assert reopened(node) == (DISCARDED, None)


def test_a_record_that_was_cut_off_is_whole_before_ready(node):
    """The stores of a change, cut off after each of them; the daemon is killed after Ready."""
    for done, expected in ((1, RECORD), (2, OFFERED), (3, OFFERED)):
        with create(node, name=f"{done}.set") as replica:
            replica.set_record(RECORD)
        wait_unlocked(node.directory / f"{done}.set")
        part = node.directory / f"{done}.set.part0"
        with open(part, "r+b") as file:
            for offset, data in list(codec.changes(OFFERED, 2, pool_id=POOL))[:done]:
                file.seek(RECORD_OFFSET + offset)
                file.write(data)
        with node.open(bytearray(SIZE), f"{done}.set", command=faulty_rpmemd.command()) as replica:
            assert (replica.record, replica.record_damage) == (expected, None)
            power_cut(replica)
        found = codec.read(part.read_bytes()[RECORD_OFFSET:POOL_FLOOR], pool_id=POOL)
        assert found.settled
        assert found.record == expected
        assert found.sequence == (1 if done == 1 else 2)


def test_a_new_pool_in_old_files_begins_without_a_record(node):
    (node.directory / "a.set").write_text(f"PMEMPOOLSET\n{SIZE} {node.directory / 'old'}\n")
    old = bytearray(os.urandom(SIZE))
    old[:HEADER_SIZE] = bytes(HEADER_SIZE)
    (node.directory / "old").write_bytes(old)
    with create(node) as replica:
        assert not replica.zeroed
        assert (replica.record, replica.record_damage) == (None, None)
        assert node.image()[RECORD_OFFSET:POOL_FLOOR] == bytes(RECORD_SIZE)
        assert node.image()[POOL_FLOOR:] == old[POOL_FLOOR:]
        replica.set_record(RECORD)
    assert reopened(node) == (RECORD, None)


def test_threads_set_records_one_after_the_other(node):
    with create(node) as replica:
        replica.set_record(RECORD)
        failed = []

        def work():
            for _ in range(20):
                try:
                    replica.set_record(RECORD)
                except BaseException as error:
                    failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
    assert codec.read(on_disk(node), pool_id=POOL) == codec.Found(RECORD, 81, True)


def test_what_the_record_is_keyed_with_does_not_change(node):
    with create(node) as replica:
        # Without a record they may.
        other = replace(OURS, poolset_uuid=b"another pool 16b")
        replica.set_attributes(other)
        replica.set_attributes(OURS)
        replica.set_record(RECORD)
        for wrong in (other, replace(OURS, signature=b"OTHER"), replace(OURS, major=MAJOR + 1)):
            with pytest.raises(AttributesRefused, match="do not change"):
                replica.set_attributes(wrong)
        replica.set_attributes(replace(OURS, user_flags=b"f" * 16))
        replica.set_record(OFFERED)
    with node.open(bytearray(SIZE)) as replica:
        assert replica.record == OFFERED
        assert replica.attributes.user_flags == b"f" * 16


@pytest.mark.parametrize(
    "attributes", [ATTRIBUTES, replace(OURS, major=1), None], ids=["other", "format 1", "none"]
)
def test_pools_that_rpmem_did_not_lay_out_have_no_record(node, attributes):
    with node.create(bytearray(SIZE), attributes=attributes) as replica:
        assert replica.keeps_records
        assert replica.floor == (0 if attributes is None else HEADER_SIZE)
        with pytest.raises(UsageError, match="keeps no record"):
            replica.set_record(RECORD)
        with pytest.raises(UsageError, match="keeps no record"):
            replica.leave()
    with RawSession(node.directory, create=False, size=SIZE, features=FEATURES) as session:
        assert (session.ready.record, session.ready.damage) == (None, None)
        for _ in range(2):
            with pytest.raises(EpochRefused, match="did not lay it out"):
                session.channel.set_epoch(packed(RECORD), discard=True)
            with pytest.raises(EpochRefused, match="did not lay it out"):
                session.channel.leave()


def test_a_replica_that_is_closed_or_lost_takes_no_record(node):
    replica = create(node)
    replica.set_record(RECORD)
    replica.close()
    for call in (lambda: replica.set_record(RECORD), replica.leave):
        with pytest.raises(ClosedError):
            call()
    with contextlib.suppress(ReplicaLost), node.open(bytearray(SIZE)) as replica:
        os.kill(replica.peer.pid, 9)
        wait_gone(replica.peer.pid)
        for call in (lambda: replica.set_record(OFFERED), replica.leave):
            with pytest.raises(ReplicaLost):
                call()
    assert reopened(node) == (RECORD, None)


def test_nothing_is_claimed_after_an_answer_that_did_not_come(node):
    replica = create(node, command=hanging_rpmemd.command("record"), timeout=1.0)
    with pytest.raises(DeadlineExceeded):
        replica.set_record(RECORD)
    assert replica.record is None
    assert "not known" in replica.record_damage
    with contextlib.suppress(RpmemError):
        replica.close()


# --- floors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "floor"), [(OURS, POOL_FLOOR), (ATTRIBUTES, HEADER_SIZE)], ids=["ours", "other"]
)
def test_messages_end_at_the_floor(tmp_path, attributes, floor):
    for first, length, status in (
        (floor, 8, DONE),
        (floor - 1, 1, BAD_RANGE),
        (floor - 8, 8, BAD_RANGE),
        (floor - 4, 8, BAD_RANGE),
        (RECORD_OFFSET - 16, 8, BAD_RANGE),
        (0, floor + 8, BAD_RANGE),
    ):
        directory = tmp_path / f"{first}-{length}"
        directory.mkdir()
        with RawSession(directory, size=SIZE, attributes=attributes) as session:
            reply = session.exchange(session.lane(), update(1, [(first, length)], b"x" * length))
            assert reply.status == status, first


@needs_libfabric
@pytest.mark.parametrize(
    ("attributes", "first"), [(OURS, POOL_FLOOR), (ATTRIBUTES, 0)], ids=["ours", "other"]
)
def test_what_a_copy_keeps_for_itself_is_not_fetched(tmp_path, attributes, first):
    for at, status in ((first, DONE), (first - 8, BAD_RANGE), (first - 1, BAD_RANGE)):
        if at < 0:
            continue
        directory = tmp_path / str(at)
        directory.mkdir()
        with RawSession(
            directory,
            size=SIZE,
            attributes=attributes,
            features=(STAGING,),
            command=unregistering_rpmemd.command(SIZE),
            provider="tcp",
        ) as session:
            assert session.ready.staging
            message = update(1, [(at, 64)], kind=MESSAGE_FETCH)
            assert session.exchange(session.lane(), message).status == status


@pytest.mark.parametrize("staged", [False, pytest.param(True, marks=needs_libfabric)])
def test_a_replica_neither_writes_nor_reads_below_the_floor(node, staged):
    options = {}
    if staged:
        options = {"command": unregistering_rpmemd.command(SIZE), "provider": "tcp"}
    memory = bytearray(os.urandom(SIZE))
    with node.create(memory, attributes=OURS, **options) as replica:
        assert replica.staged == staged
        assert replica.floor == POOL_FLOOR
        for offset in (0, HEADER_SIZE, POOL_FLOOR - 1):
            with pytest.raises(RangeError):
                replica.persist(offset, 8)
            with pytest.raises(RangeError, match="keeps for itself"):
                replica.read(bytearray(8), offset)
        replica.persist(POOL_FLOOR, SIZE - POOL_FLOOR)
        there = bytearray(SIZE - POOL_FLOOR)
        replica.read(there, POOL_FLOOR)
        assert there == memory[POOL_FLOOR:]
        assert node.image()[RECORD_OFFSET:POOL_FLOOR] == bytes(RECORD_SIZE)


# --- hostile initiators -----------------------------------------------------------------------


def hostile(directory, **more):
    options = {"size": SIZE, "attributes": OURS, "features": FEATURES, **more}
    return RawSession(directory, **options)


def test_records_made_up_are_refused_and_the_session_goes_on(tmp_path):
    chance = random.Random(12)
    whole = packed(RECORD)
    create(Node.local(tmp_path)).close()
    with hostile(tmp_path, create=False) as session:
        session.channel.set_epoch(whole, discard=False)
        for number in range(150):
            made_up = bytearray(whole)
            for _ in range(chance.choice((1, 1, 3, 20))):
                made_up[chance.randrange(len(made_up))] ^= 1 << chance.randrange(8)
            wrong = chance.choice(
                (
                    bytes(made_up) if made_up != whole else b"R",
                    whole[: chance.randrange(1, len(whole))],
                    chance.randbytes(chance.randrange(1, MAX_RECORD_SIZE + 1)),
                    codec.pack(RECORD, 1, pool_id=b"another pool 16b"),
                    codec.pack(RECORD, 1 << 63, pool_id=POOL),
                )
            )
            with pytest.raises(EpochRefused):
                session.channel.set_epoch(wrong, discard=bool(number % 2))
        # What follows a record in its slot does not count.
        session.channel.set_epoch(whole + b"more", discard=False)
        assert session.alive
    node = Node.local(tmp_path)
    assert codec.read(on_disk(node), pool_id=POOL) == codec.Found(RECORD, 2, True)


def test_requests_without_the_feature_end_the_session(tmp_path):
    for feature, kind in ((EPOCHS, b"\x00\x06"), (LEFT, b"\x00\x07")):
        directory = tmp_path / feature
        directory.mkdir()
        others = tuple(each for each in FEATURES if each != feature)
        with create(Node.local(directory)) as replica:
            replica.set_record(RECORD)
        with hostile(directory, features=others, create=False) as session:
            assert (session.ready.record is None) == (feature == EPOCHS)
            request = b"RPMf" + kind + bytes(2) + b"\x00\x00\x00\x03\x00\x00\x00\x0f"
            session.transport.send(request + b'{"record":"00"}', 10.0)
            error = session.failure()
            assert isinstance(error, UnexpectedMessage)
            assert f"needs the feature {feature}" in str(error)


def test_a_record_written_by_one_sided_operations_does_not_hide_what_was_read(tmp_path):
    """A lane's WRITE reaches the whole pool; what the daemon holds was read before."""
    create(Node.local(tmp_path)).close()
    with hostile(tmp_path, create=False) as session:
        session.channel.set_epoch(packed(RECORD), discard=False)
        lane = session.lane()
        session.write(lane, bytes(64), RECORD_OFFSET)
        # A READ behind the WRITE shows that it has arrived.
        assert session.read(lane, RECORD_OFFSET, 64) == bytes(64)
        with pytest.raises(EpochRefused):
            session.channel.set_epoch(packed(DISCARDED), discard=False)
        session.channel.set_epoch(packed(OFFERED), discard=False)
    assert codec.read(on_disk(Node.local(tmp_path)), pool_id=POOL).record == OFFERED


def test_records_that_a_target_makes_up_are_not_believed(tmp_path):
    for made_up in (
        {"record": "00" * 100, "attributes": OURS.pack().hex()},
        {"record": packed(RECORD).hex()},
        {"record": packed(RECORD).hex(), "attributes": ATTRIBUTES.pack().hex()},
        {
            "record": codec.pack(RECORD, 1, pool_id=b"another pool 16b").hex(),
            "attributes": OURS.pack().hex(),
        },
        {
            "record": codec.pack(RECORD, 1 << 60, pool_id=POOL).hex(),
            "attributes": OURS.pack().hex(),
        },
        {"record": packed(RECORD).hex(), "damage": "torn", "attributes": OURS.pack().hex()},
    ):
        with pytest.raises(MalformedMessage, match="record"):
            rpmem.open(
                f"local:{tmp_path}",
                "a.set",
                bytearray(SIZE),
                timeout=20.0,
                command=hostile_rpmemd.command(raw=made_up),
            )


def test_damage_is_made_printable(tmp_path):
    with pytest.raises(RpmemError) as caught:
        rpmem.open(
            f"local:{tmp_path}",
            "a.set",
            bytearray(SIZE),
            timeout=20.0,
            command=hostile_rpmemd.command(raw={"damage": "\x1b[2J" * 200}),
        )
    assert str(caught.value).isprintable()


# --- storage that fails -----------------------------------------------------------------------

#: The word's first byte is the letter on which the shim fails: sequence 17, settled.
FAILS_AT = 17


def test_a_disk_that_fails_leaves_nothing_claimed(node):
    assert codec.pack_word(FAILS_AT, settled=True)[:1] == b"E"
    command = shlex.join(
        ["env", f"LD_PRELOAD={shim('refusing_msync')}", sys.executable, "-P", "-m", "rpmemd"]
    )
    with create(node, command=command) as replica:
        if replica.medium != "page":
            pytest.skip(f"a flush of a {replica.medium} medium is no msync")
        for _ in range(FAILS_AT - 1):
            replica.set_record(RECORD)
        with pytest.raises(FlushFailed):
            replica.set_record(RECORD)
        assert replica.record is None
        assert "not known" in replica.record_damage
        # The disk would take it now: what it dropped before, it would never tell.
        for call in (
            lambda: replica.set_record(RECORD),
            lambda: replica.set_record(DISCARDED, discard=True),
            replica.leave,
        ):
            with pytest.raises(FlushFailed):
                call()
        with pytest.raises(FlushFailed):
            replica.persist(POOL_FLOOR, 8)
    record, damage = reopened(node)
    assert record in (None, RECORD)
    assert (record is None) == (damage is not None)
