"""The record that rpmemd keeps of its copy: what is taken, what a crash leaves, what rot leaves."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from rpmem.base.pool_format import POOL_FLOOR, RECORD_OFFSET, RECORD_SIZE
from rpmem.base.values import replace
from rpmem.epochs import change, codec
from rpmem.epochs.record import CopyRecord, Epoch, Mark, Stamp
from rpmem.errors import CatalogueCorrupt, EpochRefused, FlushFailed, UsageError
from rpmem.files.attributes import PoolAttributes
from rpmem.files.poolfiles import PoolFiles
from rpmem.files.poolset import Part, PoolSet
from rpmem.memory.region import Region
from rpmemd import records
from rpmemd.records import Records
from tests.support.recorded import Recorded

POOL = b"pool of the test"
HERE, THERE = b"h" * 16, b"t" * 16
SIZE = 2 << 20


def an_epoch(number: int, *, past: tuple[int, ...] = (), identity: int | None = None) -> Epoch:
    name = (identity or number).to_bytes(16, "big")
    history = tuple(Stamp(each, each.to_bytes(16, "big")) for each in past)
    return Epoch(number, name, (HERE, THERE), (HERE, THERE), 2, history)


FIRST = an_epoch(1)
SECOND = an_epoch(2, past=(1,))
THIRD = an_epoch(3, past=(2, 1))
STRANGE = an_epoch(4, identity=99)


def a_record(epoch: Epoch = FIRST, mark: Mark = Mark.BEGUN, prepared: Epoch | None = None):
    return CopyRecord(HERE, epoch, mark, prepared)


def packed(record: CopyRecord, *, pool_id: bytes = POOL, sequence: int = 1) -> bytes:
    return codec.pack(record, sequence, pool_id=pool_id)


def area(region: Region) -> bytes:
    with memoryview(region) as view:
        return bytes(view[RECORD_OFFSET:POOL_FLOOR])


def put(region: Region, offset: int, data: bytes) -> None:
    region.write(RECORD_OFFSET + offset, data)


@pytest.fixture
def region():
    return Region.anonymous(SIZE)


def holding(region: Region, record: CopyRecord | None) -> Records:
    """Return the keeper of a copy that holds a record, however it came to it."""
    if record is not None:
        for offset, data in codec.changes(record, 7, pool_id=POOL):
            put(region, offset, data)
    return Records.read(region, POOL)


# --- what is read -----------------------------------------------------------------------------


def test_a_new_copy_has_no_record(region):
    kept = Records.read(region, POOL)
    assert kept.record is None
    assert kept.damage is None
    assert kept.image is None
    assert not records.has_any(region)


def test_what_was_set_is_read_again(region):
    kept = Records.read(region, POOL)
    for count, record in enumerate((a_record(), a_record(prepared=SECOND), a_record(SECOND)), 1):
        kept.set(packed(record, sequence=4711), discard=False)
        found = codec.read(area(region), pool_id=POOL)
        assert found == codec.Found(record, count, True)
        again = Records.read(region, POOL)
        assert (again.record, again.damage) == (record, None)
        assert codec.unpack(again.image, pool_id=POOL) == (record, count)
    assert records.has_any(region)


def test_nothing_but_the_record_is_written(region):
    with memoryview(region) as view:
        view[:] = b"\xee" * SIZE
        view[RECORD_OFFSET:POOL_FLOOR] = bytes(RECORD_SIZE)
    kept = Records.read(region, POOL)
    kept.set(packed(a_record()), discard=False)
    with memoryview(region) as view:
        assert bytes(view[:RECORD_OFFSET]) == b"\xee" * RECORD_OFFSET
        assert bytes(view[POOL_FLOOR:]) == b"\xee" * (SIZE - POOL_FLOOR)


def damages(region: Region) -> None:
    put(region, codec.SLOT_OFFSETS[1] + 30, b"rot")


def test_a_damaged_record_is_not_believed(region):
    holding(region, a_record())
    damages(region)
    before = area(region)
    kept = Records.read(region, POOL)
    assert kept.record is None
    assert "damaged" in kept.damage
    assert kept.image is None
    assert area(region) == before, "what is damaged is left for a person to look at"


def test_a_record_of_another_pool_is_damage(region):
    holding(region, a_record())
    kept = Records.read(region, b"another pool 16b")
    assert kept.record is None
    assert kept.damage is not None


def test_a_copy_whose_lanes_wrote_anything_is_read_all_the_same(region):
    """One-sided writes reach the record: an initiator can put there what it likes."""
    for sequence in (0, codec.LARGEST_SEQUENCE + 1, (1 << 62) - 1, (1 << 64) - 1):
        image = packed(a_record(), sequence=sequence)
        word = codec.pack_word(sequence & (1 << 46) - 1, settled=True)
        for at in codec.SLOT_OFFSETS:
            put(region, at, image)
        put(region, 0, word)
        kept = Records.read(region, POOL)
        assert (kept.record is None) == (sequence > codec.LARGEST_SEQUENCE)
        assert (kept.damage is None) == (sequence <= codec.LARGEST_SEQUENCE)
        kept.set(packed(a_record(SECOND, Mark.JOINING)), discard=True)
        assert Records.read(region, POOL).record == a_record(SECOND, Mark.JOINING)


# --- what is taken: the table of docs/protocol.md ---------------------------------------------


class Row(NamedTuple):
    """One line: what is held, what is wanted, and whether it is taken without and with discard."""

    held: CopyRecord | str | None
    wanted: CopyRecord
    taken: bool
    discarded: bool


JOINING = a_record(FIRST, Mark.JOINING)
OFFERED = a_record(prepared=SECOND)
ROWS = {
    "none, anything": Row(None, a_record(THIRD, Mark.CLEAN, None), True, True),
    "damaged, anything": Row("damaged", a_record(), False, True),
    "any, of another copy": Row(a_record(), replace(a_record(), copy=THERE), False, False),
    "any, joining a later one": Row(a_record(), a_record(THIRD, Mark.JOINING), True, True),
    "any, the held one joining": Row(a_record(), JOINING, True, True),
    "any, the held one again": Row(a_record(), a_record(), True, True),
    "any, joining another one": Row(a_record(), a_record(STRANGE, Mark.JOINING), False, True),
    "any, joining an earlier one": Row(
        a_record(SECOND), a_record(FIRST, Mark.JOINING), False, True
    ),
    "an epoch, one prepared here": Row(OFFERED, a_record(SECOND), True, True),
    "an epoch, one that was not": Row(a_record(), a_record(SECOND), False, False),
    "a prepared one, none": Row(OFFERED, a_record(), False, False),
    "any, a prepared one with its past": Row(a_record(), OFFERED, True, True),
    "offered, a newer one with its past": Row(OFFERED, a_record(prepared=THIRD), True, True),
    "any, a prepared one without": Row(a_record(), a_record(prepared=STRANGE), False, False),
    "offered, one that lacks the offer": Row(
        OFFERED, a_record(prepared=an_epoch(3, past=(1,), identity=98)), False, False
    ),
    "joining, the same epoch clean": Row(JOINING, a_record(FIRST, Mark.CLEAN), False, False),
    "joining, the same epoch begun": Row(JOINING, a_record(FIRST), False, False),
    "joining, a new epoch": Row(replace(JOINING, prepared=SECOND), a_record(SECOND), True, True),
}


@pytest.mark.parametrize("discard", [False, True], ids=["", "discard"])
@pytest.mark.parametrize("name", ROWS)
def test_the_table_of_refusals(region, name, discard):
    row = ROWS[name]
    kept = holding(region, a_record() if row.held == "damaged" else row.held)
    if row.held == "damaged":
        damages(region)
        kept = Records.read(region, POOL)
    before, record, damage = area(region), kept.record, kept.damage
    if row.discarded if discard else row.taken:
        kept.set(packed(row.wanted), discard=discard)
        assert (kept.record, kept.damage) == (row.wanted, None)
        assert Records.read(region, POOL).record == row.wanted
        return
    with pytest.raises(EpochRefused) as caught:
        kept.set(packed(row.wanted), discard=discard)
    assert caught.value.hint
    assert (kept.record, kept.damage) == (record, damage)
    assert area(region) == before


NO_RECORDS = {
    "of another pool": packed(a_record(), pool_id=b"another pool 16b"),
    "cut short": packed(a_record())[:-1],
    "one byte": b"R",
    "a bit flipped": bytes([*packed(a_record())[:40], packed(a_record())[40] ^ 1])
    + packed(a_record())[41:],
    "zeros": bytes(codec.SLOT_SIZE),
    "of a sequence that no word holds": packed(a_record(), sequence=1 << 50),
}


@pytest.mark.parametrize("discard", [False, True], ids=["", "discard"])
@pytest.mark.parametrize("name", NO_RECORDS)
def test_what_is_no_record_of_this_pool_is_not_taken(region, name, discard):
    kept = holding(region, a_record())
    before = area(region)
    with pytest.raises(EpochRefused):
        kept.set(NO_RECORDS[name], discard=discard)
    assert kept.record == a_record()
    assert area(region) == before


@pytest.mark.parametrize("mark", [Mark.BEGUN, Mark.CLEAN, Mark.LEFT], ids=lambda mark: mark.name)
def test_a_copy_leaves(region, mark):
    kept = holding(region, a_record(mark=mark, prepared=SECOND))
    kept.leave()
    assert kept.record == a_record(mark=Mark.LEFT, prepared=SECOND)
    assert Records.read(region, POOL).record == kept.record


def test_a_copy_that_is_none_does_not_leave(region):
    for held, words in ((None, "no record"), (JOINING, "mixture")):
        kept = holding(region, held)
        before = area(region)
        with pytest.raises(EpochRefused, match=words):
            kept.leave()
        assert area(region) == before
    damages(region)
    with pytest.raises(EpochRefused, match="damaged"):
        Records.read(region, POOL).leave()


def test_a_new_pool_begins_without_a_record_whatever_its_files_held(region):
    holding(region, a_record())
    records.clear(region)
    assert not records.has_any(region)
    assert Records.read(region, POOL).damage is None


# --- what a crash leaves ----------------------------------------------------------------------


@contextmanager
def pool_on(medium: Recorded, path):
    """Yield the files of a pool on a medium that keeps only what was made durable."""
    pool_set = PoolSet(parts=[Part(SIZE, str(path))], source="a.set")
    with medium.installed():
        made = PoolFiles.open(pool_set) if path.exists() else None
        pool = made or PoolFiles.create(
            pool_set, pool_size=SIZE, attributes=PoolAttributes(b"RPMEMPY1", 2, poolset_uuid=POOL)
        )
        try:
            yield pool
        finally:
            pool.close()


@pytest.mark.parametrize("kind", ["page", "pmem"])
@pytest.mark.parametrize("done", range(5))
def test_a_crash_between_two_stores_leaves_the_old_record_or_the_new_one(tmp_path, kind, done):
    """Only the first `done` of the four stores have become durable."""
    path = tmp_path / "part"
    old, new = a_record(), a_record(prepared=SECOND)
    medium = Recorded(kind)
    with pool_on(medium, path) as pool:
        Records.read(pool.region, POOL).set(packed(old), discard=False)
    medium = Recorded(kind)
    flushed = []

    def refuses(event):
        if event.verb == "drain":
            return 0
        flushed.append((event.offset, event.length))
        return errno.EIO if len(flushed) > done else 0

    with pool_on(medium, path) as pool:
        kept = Records.read(pool.region, POOL)
        assert kept.record == old
        medium.refuses = refuses
        if done == 4:
            kept.set(packed(new), discard=False)
        else:
            with pytest.raises(FlushFailed):
                kept.set(packed(new), discard=False)
            check_broken(kept)
    image = packed(new, sequence=2)
    places = [(0, 8), *((at, len(image)) for at in codec.SLOT_OFFSETS), (0, 8)]
    assert flushed == [(RECORD_OFFSET + at, length) for at, length in places[: done + 1]][:4]
    medium = Recorded(kind)
    with pool_on(medium, path) as pool:
        found = codec.read(area(pool.region), pool_id=POOL)
        expected = new if done >= 2 else old
        assert found == codec.Found(expected, 2 if done >= 2 else 1, done in (0, 4))
        medium.events.clear()
        kept = Records.read(pool.region, POOL)
        assert (kept.record, kept.damage) == (expected, None)
        # What was cut off is written once more, durably, before anybody hears of it.
        assert bool(medium.named("persist", "flush")) == (not found.settled)
    with pool_on(Recorded(kind), path) as pool:
        found = codec.read(area(pool.region), pool_id=POOL)
        assert found.settled
        assert found.record == expected


def check_broken(kept: Records) -> None:
    """Nothing is claimed after a refusal, and nothing is taken."""
    assert kept.record is None
    assert kept.image is None
    assert "refused" in kept.damage
    for wanted in (a_record(), a_record(prepared=SECOND), a_record(SECOND, Mark.JOINING)):
        for discard in (False, True):
            with pytest.raises(FlushFailed):
                kept.set(packed(wanted), discard=discard)
    with pytest.raises(FlushFailed):
        kept.leave()
    assert kept.record is None


@pytest.mark.parametrize("kind", ["page", "pmem"])
def test_a_medium_that_refused_data_refuses_records(tmp_path, kind):
    """The lanes and the record share the medium: what it refused first ends both."""
    medium = Recorded(kind)
    with pool_on(medium, tmp_path / "part") as pool:
        kept = Records.read(pool.region, POOL)
        kept.set(packed(a_record()), discard=False)
        before = area(pool.region)
        medium.refuses = lambda event: errno.ENOSPC
        with pytest.raises(FlushFailed):
            pool.region.persist(1 << 20, 64)
        medium.refuses = None
        with pytest.raises(FlushFailed) as caught:
            kept.set(packed(a_record(prepared=SECOND)), discard=False)
        assert caught.value.errno == errno.ENOSPC
        assert kept.record == a_record()
        assert area(pool.region) == before


@pytest.mark.parametrize("done", range(4))
def test_a_crash_while_damage_is_overwritten_never_brings_back_what_was_before(region, done):
    """Slot 0 rots; a record is set with discard, and cut off: damage stays damage."""
    for sequence in (1, 2, 7):
        for offset, data in codec.changes(a_record(), sequence, pool_id=POOL):
            put(region, offset, data)
        put(region, codec.SLOT_OFFSETS[0] + 30, b"rot")
        wanted = a_record(STRANGE, Mark.JOINING)
        first = codec.sequence_over(area(region), pool_id=POOL)
        for offset, data in list(codec.changes(wanted, first, pool_id=POOL))[:done]:
            put(region, offset, data)
        kept = Records.read(region, POOL)
        assert kept.record in (None, wanted)
        assert (kept.record == wanted) == (done == 3)
        assert (kept.damage is None) == (done == 3)


def test_a_medium_that_cannot_be_written_keeps_its_record(tmp_path, region):
    """A region to be looked at only: read, and never settled or replaced."""
    holding(region, a_record())
    looked = Region.from_buffer(bytes(memoryview(region)), writable=False)
    kept = Records.read(looked, POOL)
    assert kept.record == a_record()
    with pytest.raises(UsageError):
        kept.set(packed(a_record(prepared=SECOND)), discard=False)


def test_a_record_that_makes_no_sense_is_refused_by_the_codec():
    with pytest.raises(CatalogueCorrupt, match="sequence"):
        codec.unpack(packed(a_record(), sequence=1 << 60), pool_id=POOL)
    assert change.refusal(None, a_record(), discard=False) is None
