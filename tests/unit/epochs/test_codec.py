"""The record as it lies in a copy: what a crash leaves, and what rot leaves, can be told apart."""

from __future__ import annotations

import random

import pytest

from rpmem.base.pool_format import RECORD_SIZE
from rpmem.base.values import replace
from rpmem.epochs import change, codec
from rpmem.epochs.record import (
    MOST_HISTORY,
    MOST_MEMBERS,
    MOST_PARTED,
    CopyRecord,
    Epoch,
    Mark,
    Parting,
    Stamp,
)
from rpmem.errors import CatalogueCorrupt

POOL = b"pool of the test"
WORDS = 8


def named(number: int) -> bytes:
    return number.to_bytes(16, "big")


def an_epoch(number: int = 3, *, copies: int = 2) -> Epoch:
    members = tuple(named(1000 + each) for each in range(copies))
    history = tuple(Stamp(each, named(each)) for each in range(number - 1, 0, -1))
    return Epoch(number, named(number), members, members, copies, history)


def a_record(number: int = 3) -> CopyRecord:
    epoch = an_epoch(number)
    return CopyRecord(epoch.members[0], epoch, Mark.BEGUN)


def largest() -> CopyRecord:
    members = tuple(named(1000 + each) for each in range(MOST_MEMBERS))
    history = tuple(Stamp(each, named(each)) for each in range(200, 200 - MOST_HISTORY, -1))
    parted = tuple(Parting(named(2000 + n), history[n], True, 2**40) for n in range(MOST_PARTED))
    epoch = Epoch(201, named(201), members, members, MOST_MEMBERS, history, parted)
    return CopyRecord(members[0], epoch, Mark.CLEAN, replace(epoch, number=202))


def written(record: CopyRecord, sequence: int = 1, area: bytes | None = None) -> bytearray:
    there = bytearray(RECORD_SIZE) if area is None else bytearray(area)
    for offset, data in codec.changes(record, sequence, pool_id=POOL):
        there[offset : offset + len(data)] = data
    return there


def read(area: bytes) -> codec.Found | None:
    return codec.read(bytes(area), pool_id=POOL, where="here")


@pytest.mark.parametrize(
    "record",
    [
        a_record(),
        largest(),
        change.joining(None, named(5), an_epoch()),
        change.prepared(a_record(), an_epoch(7)),
        replace(a_record(), mark=Mark.LEFT),
    ],
    ids=["plain", "largest", "joining", "prepared", "left"],
)
def test_there_and_back(record):
    assert read(written(record)) == codec.Found(record, 1, True)


def test_nothing_is_no_record():
    assert read(bytes(RECORD_SIZE)) is None


def test_a_record_of_another_pool_is_not_believed():
    with pytest.raises(CatalogueCorrupt, match="neither slot"):
        codec.read(bytes(written(a_record())), pool_id=named(1))


def test_a_crash_leaves_the_old_record_or_the_new_one():
    """After each of the steps, with what the last one stored torn at 8 bytes."""
    old, new = a_record(), change.prepared(a_record(), an_epoch(4))
    chance = random.Random(1)
    seen = set()
    for begun in range(4):
        for turn in range(200):
            share = (0.0, 1.0, 0.5, 0.9)[turn % 4]
            area = written(old)
            for number, (offset, data) in enumerate(codec.changes(new, 2, pool_id=POOL)):
                if number > begun:
                    break
                for at in range(0, len(data), WORDS):
                    if number < begun or chance.random() < share:
                        piece = data[at : at + WORDS]
                        area[offset + at : offset + at + len(piece)] = piece
            found = read(area)
            assert found is not None
            assert found.record in (old, new)
            assert found.settled or begun > 0 or area != written(old)
            if begun == 3:
                assert found.record == new
            # Whoever opens it makes what was found whole, and all is settled.
            for offset, data in codec.settling(*found[:2], pool_id=POOL):
                area[offset : offset + len(data)] = data
            assert read(area) == codec.Found(found.record, found.sequence, True)
            seen.add((begun, found.record == new, found.settled))
    assert {(1, False, False), (1, True, False), (2, True, False), (3, True, True)} <= seen


def crashes(settle, turns: int) -> int:
    """Cut changes, and what makes them whole again, off anywhere, over and over."""
    chance = random.Random(5)
    records = [a_record(), change.prepared(a_record(), an_epoch(4)), largest()]
    area, durable, cut = written(records[0]), records[0], 0
    for _ in range(turns):
        found = read(area)
        assert found is not None
        if found.settled:
            wanted = chance.choice(records)
            steps = list(codec.changes(wanted, found.sequence + 1, pool_id=POOL))
        else:
            wanted = found.record
            steps = list(settle(found.record, found.sequence, pool_id=POOL))
        done = chance.randrange(len(steps) + 1)
        for number, (offset, data) in enumerate(steps[: done + 1]):
            for at in range(0, len(data), WORDS):
                if number < done or chance.random() < 0.5:
                    piece = data[at : at + WORDS]
                    area[offset + at : offset + at + len(piece)] = piece
        cut += done < len(steps)
        after = read(area)
        assert after is not None
        assert after.record in (found.record, wanted)
        if done == len(steps):
            assert after.record == wanted
            assert after.settled
        durable = after.record
    assert durable in records
    return cut


def test_crash_after_crash_leaves_a_record_that_is_read():
    assert crashes(codec.settling, 5000) > 1000
    # One more change instead of that would leave slots that are two changes apart.
    with pytest.raises(CatalogueCorrupt, match="is damaged"):
        crashes(
            lambda *found, pool_id: codec.changes(found[0], found[1] + 1, pool_id=pool_id), 5000
        )


def test_rot_in_a_settled_record_is_seen():
    """Whatever bit: the record is read as it was, or damage is reported; never another."""
    whole = written(a_record())
    used = len(codec.pack(a_record(), 1, pool_id=POOL))
    refused = 0
    for begin, length in ((0, codec.WORD_SIZE), *((at, used) for at in codec.SLOT_OFFSETS)):
        for byte in range(begin, begin + length):
            for bit in range(8):
                rotten = bytearray(whole)
                rotten[byte] ^= 1 << bit
                try:
                    found = read(rotten)
                except CatalogueCorrupt:
                    refused += 1
                else:
                    assert found == codec.Found(a_record(), 1, True)
    assert refused == 8 * (codec.WORD_SIZE + 2 * used)


def test_older_slots_are_not_taken_for_a_crash():
    """Slot 0 rotted long after slot 1 was written by an older change: there is no such crash."""
    area = written(a_record(), 5)
    stale = written(a_record(), 2)
    begin = codec.SLOT_OFFSETS[1]
    area[begin : begin + codec.SLOT_SIZE] = stale[begin : begin + codec.SLOT_SIZE]
    area[: codec.WORD_SIZE] = codec.pack_word(5, settled=False)
    with pytest.raises(CatalogueCorrupt, match="is damaged"):
        read(area)


def test_garbage_with_a_good_checksum_is_refused():
    good = codec.pack(a_record(), 1, pool_id=POOL)
    body = bytearray(good[: -codec._DIGEST_SIZE])
    body[codec._HEAD.size + 16] = 9  # no such mark
    image = bytes(body) + codec._digest(bytes(body), POOL)
    with pytest.raises(CatalogueCorrupt, match="makes no sense"):
        codec.unpack(image, pool_id=POOL)


@pytest.mark.parametrize("more", [b"\0", bytes(16)])
def test_nothing_follows_a_record(more):
    good = codec.pack(a_record(), 1, pool_id=POOL)
    body = good[codec._HEAD.size : -codec._DIGEST_SIZE] + more
    image = codec._HEAD.pack(codec._MAGIC, 1, len(body)) + body
    with pytest.raises(CatalogueCorrupt, match="something follows it"):
        codec.unpack(image + codec._digest(image, POOL), pool_id=POOL)
