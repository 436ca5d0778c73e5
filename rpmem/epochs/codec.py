"""The record as it lies in a copy: one word and two slots that are equal whenever the word says so.

::

    0       word: settled or not, and the sequence of the record; 8 bytes, old or new after a crash
    64      slot 0
    8192    slot 1

A change makes the word say "changing", writes slot 0, then slot 1, and makes the word say
"settled", each of them durable before the next. So where a crash came in between, the word says
so, and the newest slot that has a good checksum counts: slot 0 unless it is torn, and slot 1 then
holds what was there before. Where the word says that the record is settled, both slots are whole
and equal; anything else is damage, and nothing is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from rpmem.base.hashes import blake2b
from rpmem.epochs.record import (
    IDENTITY_SIZE,
    MOST_HISTORY,
    MOST_MEMBERS,
    MOST_PARTED,
    UUID_SIZE,
    CopyRecord,
    Epoch,
    Mark,
    Parting,
    Stamp,
)
from rpmem.errors import CatalogueCorrupt, UsageError

WORD_SIZE: Final = 8
#: Offsets within the record, and the size of a slot.
SLOT_OFFSETS: Final = (64, 8192)
SLOT_SIZE: Final = 8128
#: The word has room for this sequence, and for the one of a change after it.
LARGEST_SEQUENCE: Final = (1 << 46) - 2

_MAGIC: Final = b"RPMEMEP2"
_SETTLED: Final = 1
_CHANGING: Final = 2
_DIGEST_SIZE: Final = 32
_HEAD: Final = struct.Struct("<8sQI4x")
_COPY: Final = struct.Struct("<16sBB6x")
_EPOCH: Final = struct.Struct("<Q16sBBBBB3x")
_STAMP: Final = struct.Struct("<Q16s")
_PARTING: Final = struct.Struct("<16sQ16sB7xQ")
_LARGEST: Final = (
    _HEAD.size
    + _COPY.size
    + 2
    * (
        _EPOCH.size
        + MOST_MEMBERS * (UUID_SIZE + 1)
        + MOST_HISTORY * _STAMP.size
        + MOST_PARTED * _PARTING.size
    )
    + _DIGEST_SIZE
)
assert _LARGEST <= SLOT_SIZE


class Found(NamedTuple):
    """A record as it was read.

    Parameters
    ----------
    record : CopyRecord
    sequence : int
        Counted up by each change.
    settled : bool
        No change was cut off: both slots hold it.
    """

    record: CopyRecord
    sequence: int
    settled: bool


def pack_word(sequence: int, *, settled: bool) -> bytes:
    """Return the word: 46 bits of sequence, 2 of state, 16 of checksum."""
    state = _SETTLED if settled else _CHANGING
    body = struct.pack("<Q", sequence << 2 | state)[:6]
    return body + _check(body)


def pack(record: CopyRecord, sequence: int, *, pool_id: bytes) -> bytes:
    """Return what is written into each slot."""
    body = b"".join(_pack_record(record))
    head = _HEAD.pack(_MAGIC, sequence, len(body))
    return head + body + _digest(head + body, pool_id)


def unpack(image: bytes, *, pool_id: bytes) -> tuple[CopyRecord, int] | None:
    """Return record and sequence of a slot; None where its checksum is not good."""
    if len(image) < _HEAD.size:
        return None
    magic, sequence, length = _HEAD.unpack_from(image)
    end = _HEAD.size + length
    if magic != _MAGIC or end + _DIGEST_SIZE > len(image):
        return None
    if _digest(image[:end], pool_id) != image[end : end + _DIGEST_SIZE]:
        return None
    try:
        if sequence > LARGEST_SEQUENCE:
            raise ValueError(f"its sequence is {sequence}")
        return _Reader(image[_HEAD.size : end]).record(), sequence
    except (struct.error, ValueError, UsageError) as error:
        raise CatalogueCorrupt(
            f"a copy's record has a good checksum but makes no sense: {error}",
            hint="It was written by another version of rpmem, or by something else",
        ) from error


def read(area: bytes, *, pool_id: bytes, where: str | None = None) -> Found | None:
    """Read the record of a copy.

    Parameters
    ----------
    area : bytes
        `RECORD_SIZE` bytes.
    pool_id : bytes
        The pool it has to belong to.
    where : str, optional
        What errors name.

    Returns
    -------
    Found or None
        None where nothing was ever written.

    Raises
    ------
    CatalogueCorrupt
        The record is damaged.
    """
    if not any(area):
        return None
    slots = [unpack(area[at : at + SLOT_SIZE], pool_id=pool_id) for at in SLOT_OFFSETS]
    newest = slots[0] or slots[1]
    if newest is None:
        raise _damaged("neither slot has a good checksum", where)
    record, sequence = newest
    word = area[:WORD_SIZE]
    if word == pack_word(sequence, settled=True):
        if slots[0] != slots[1]:
            raise _damaged("its slots differ although no change was cut off", where)
        return Found(record, sequence, True)
    # A change that was cut off counts up by one: it says so before it touches a slot.
    if word not in (pack_word(sequence, settled=False), pack_word(sequence + 1, settled=False)):
        raise _damaged("its word does not belong to its slots", where)
    if None not in slots and slots[1] is not None and sequence - slots[1][1] not in (0, 1):
        raise _damaged("its slots are not of two changes that follow each other", where)
    return Found(record, sequence, False)


def sequence_over(area: bytes, *, pool_id: bytes) -> int:
    """Return the sequence of the first record over one that is damaged.

    It is so far above those in the slots that a crash in the middle of that change leaves damage,
    and never a record of before the damage.
    """
    highest = 0
    for at in SLOT_OFFSETS:
        try:
            found = unpack(area[at : at + SLOT_SIZE], pool_id=pool_id)
        except CatalogueCorrupt:
            continue
        if found is not None:
            highest = max(highest, found[1])
    return min(highest + 2, LARGEST_SEQUENCE)


def _damaged(how: str, where: str | None) -> CatalogueCorrupt:
    return CatalogueCorrupt(
        f"the record of this copy is damaged: {how}",
        where=where,
        hint="Move this copy away and restore the pool from another one",
    )


def changes(record: CopyRecord, sequence: int, *, pool_id: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what to store where, each of which has to be durable before the next.

    Parameters
    ----------
    record : CopyRecord
        The new one.
    sequence : int
        Its sequence: one above that of the record that was found; 1 for the first.
    pool_id : bytes
        The pool that it belongs to.

    Yields
    ------
    (int, bytes)
        An offset within the record's area, and what to store there.
    """
    image = pack(record, sequence, pool_id=pool_id)
    yield 0, pack_word(sequence, settled=False)
    for offset in SLOT_OFFSETS:
        yield offset, image
    yield 0, pack_word(sequence, settled=True)


def settling(record: CopyRecord, sequence: int, *, pool_id: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what makes a record whole again whose change was cut off.

    Parameters
    ----------
    record : CopyRecord
        As it was found.
    sequence : int
        As it was found: a slot that is more than one change behind the other is damage.
    pool_id : bytes
        The pool that it belongs to.

    Yields
    ------
    (int, bytes)
        As from `changes`.
    """
    image = pack(record, sequence, pool_id=pool_id)
    for offset in SLOT_OFFSETS:
        yield offset, image
    yield 0, pack_word(sequence, settled=True)


def _check(body: bytes) -> bytes:
    return blake2b(body, digest_size=2, person=_MAGIC).digest()


def _digest(data: bytes, pool_id: bytes) -> bytes:
    # Keyed with the pool's id: a record that another pool left in the same bytes is not valid.
    return blake2b(data, digest_size=_DIGEST_SIZE, key=pool_id).digest()


def _pack_record(record: CopyRecord) -> Iterator[bytes]:
    yield _COPY.pack(record.copy, record.mark, record.prepared is not None)
    yield from _pack_epoch(record.epoch)
    if record.prepared is not None:
        yield from _pack_epoch(record.prepared)


def _pack_epoch(epoch: Epoch) -> Iterator[bytes]:
    yield _EPOCH.pack(
        epoch.number,
        epoch.identity,
        epoch.quorum,
        len(epoch.members),
        len(epoch.in_sync),
        len(epoch.history),
        len(epoch.common),
    )
    yield from epoch.members
    yield bytes(epoch.members.index(each) for each in epoch.in_sync)
    for stamp in epoch.history:
        yield _STAMP.pack(*stamp)
    for parting in epoch.common:
        yield _PARTING.pack(parting.copy, *parting.last, parting.given_up, parting.when_s)


class _Reader:
    """Takes a packed record apart."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def record(self) -> CopyRecord:
        copy, mark, has_prepared = self._take(_COPY)
        epoch = self._epoch()
        prepared = self._epoch() if has_prepared else None
        if self._at != len(self._data):
            raise ValueError("something follows it")
        return CopyRecord(copy, epoch, Mark(mark), prepared)

    def _epoch(self) -> Epoch:
        number, identity, quorum, members, in_sync, history, common = self._take(_EPOCH)
        uuids = tuple(self._bytes(UUID_SIZE) for _ in range(members))
        indexes = self._bytes(in_sync)
        if any(index >= members for index in indexes):
            raise ValueError("the in-sync set names no member")
        stamps = tuple(Stamp(*self._take(_STAMP)) for _ in range(history))
        parted = tuple(self._parting() for _ in range(common))
        synced = tuple(uuids[index] for index in indexes)
        return Epoch(number, identity, uuids, synced, quorum, stamps, parted)

    def _parting(self) -> Parting:
        copy, number, identity, given_up, when_s = self._take(_PARTING)
        return Parting(copy, Stamp(number, identity), bool(given_up), when_s)

    def _take(self, form: struct.Struct) -> tuple:  # type: ignore[type-arg]
        return form.unpack(self._bytes(form.size))

    def _bytes(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise ValueError("it ends too early")
        self._at += count
        return found


assert IDENTITY_SIZE == UUID_SIZE == 16
