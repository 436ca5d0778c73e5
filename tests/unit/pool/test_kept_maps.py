"""Maps of absent copies as they lie in a pool that is closed: found again, or not believed."""

from __future__ import annotations

import numpy as np
import pytest

from rpmem.base.values import replace
from rpmem.epochs.record import MOST_MEMBERS, CopyRecord, Epoch, Mark, Stamp
from rpmem.pool import maps
from rpmem.pool.absent import MOST_MAPS, Absence, Absent
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.catalogue.entries import describe
from rpmem.pool.superblock import LAYOUT_OFFSET, Layout
from tests.unit.pool.test_catalogue import CrashMedium

SIZE = (1 << 20) + 100
PAGE = 4096
POOL_ID = bytes(range(16))
LAYOUT = Layout.plan(SIZE, POOL_ID)
OWN, COPY, OTHER = (bytes([number]) * 16 for number in (1, 2, 3))
EPOCH = Epoch(7, b"e" * 16, (OWN, COPY), (OWN, COPY), 2)
RECORD = CopyRecord(OWN, EPOCH, Mark.CLEAN)
LAST = Stamp(5, b"l" * 16)
BOOT = b"b" * 16
ROOM = [200 * PAGE, 201 * PAGE]


class Medium:
    """A pool's bytes."""

    def __init__(self) -> None:
        self.bytes = bytearray(SIZE)

    def load(self, offset, length):
        return bytes(self.bytes[offset : offset + length])

    def take(self, writes):
        for offset, data in writes:
            self.bytes[offset : offset + len(data)] = data


def away(*pages, **how):
    absent = Absent(SIZE)
    mapped = absent.empty()
    for page in pages:
        mapped.add(page * PAGE, 1)
    return Absence(mapped, LAST, **how)


def kept(absences, *, boots=(), room=ROOM, epoch=EPOCH):
    medium = Medium()
    medium.take(maps.writes(absences.items(), dict(boots), epoch, LAYOUT, room))
    return medium


def read(medium, record=RECORD):
    return maps.read(medium, LAYOUT, record, Absent(SIZE))


def pages(absence):
    return [page for page in range(-(-SIZE // PAGE)) if page * PAGE in absence.pages]


def test_what_was_kept_is_found():
    absences = {COPY: away(3, 5, 256, clean=True), OTHER: away(9, boot=BOOT)}
    found = read(kept(absences, boots={b"m" * 16: BOOT}))
    assert found.boots == {b"m" * 16: BOOT}
    assert found.absences.keys() == {COPY, OTHER}
    for copy, known in absences.items():
        again = found.absences[copy]
        assert (again.last, again.clean, again.boot) == (LAST, known.clean, known.boot)
        # They were stored after the maps were made, so that copies that are away miss them.
        assert pages(again) == sorted([*pages(known), 200, 201])


def test_where_nothing_was_kept_nothing_is_found():
    assert read(Medium()) == ({}, {})
    assert read(kept({})) == ({}, {})


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, mark=Mark.BEGUN),
        replace(RECORD, mark=Mark.LEFT),
        replace(RECORD, mark=Mark.JOINING),
        replace(RECORD, epoch=replace(EPOCH, identity=b"x" * 16)),
        replace(RECORD, epoch=replace(EPOCH, number=8)),
    ],
    ids=["not closed", "left", "mixture", "another epoch", "another number"],
)
def test_maps_count_in_the_epoch_only_in_which_the_copy_was_closed(record):
    assert read(kept({COPY: away(3)}, boots={OTHER: BOOT}), record) == ({}, {})


def test_an_epoch_that_was_only_offered_changes_nothing():
    offered = replace(EPOCH, number=8, identity=b"o" * 16, history=(EPOCH.stamp,))
    assert COPY in read(kept({COPY: away(3)}), replace(RECORD, prepared=offered)).absences


@pytest.mark.parametrize("at", range(0, 300, 7))
def test_a_table_that_is_damaged_is_not_believed(at):
    medium = kept({COPY: away(3), OTHER: away(9)}, boots={b"m" * 16: BOOT})
    medium.bytes[maps.TABLE_OFFSET + at] ^= 4
    assert read(medium) == ({}, {})


def test_another_pool_s_table_is_not_believed():
    medium = kept({COPY: away(3)})
    assert maps.read(medium, Layout.plan(SIZE, bytes(16)), RECORD, Absent(SIZE)) == ({}, {})


@pytest.mark.parametrize("at", [0, 1, 32])
def test_a_map_that_is_damaged_is_not_believed(at):
    medium = kept({COPY: away(3), OTHER: away(9)})
    medium.bytes[ROOM[0] + at] ^= 1
    assert read(medium).absences.keys() == {OTHER}


def test_a_map_that_lies_nowhere_is_not_believed():
    for room in ([SIZE], [SIZE - 8], [0], [LAYOUT.data_start - PAGE]):
        medium = Medium()
        for offset, data in maps.writes({COPY: away(3)}.items(), {}, EPOCH, LAYOUT, room):
            medium.bytes[offset : offset + len(data)] = data[: max(0, SIZE - offset)]
        assert read(medium).absences == {}


def test_maps_without_room_are_left_out():
    found = read(kept({COPY: away(3), OTHER: away(9)}, room=ROOM[:1]))
    assert found.absences.keys() == {COPY}
    assert read(kept({COPY: away(3)}, boots={OTHER: BOOT}, room=[])) == ({}, {OTHER: BOOT})


def test_there_is_room_for_all_that_can_be():
    absences = {bytes([number]) * 16: away(number) for number in range(MOST_MAPS)}
    boots = {bytes([100 + number]) * 16: BOOT for number in range(MOST_MEMBERS - 1)}
    room = [(100 + number) * PAGE for number in range(MOST_MAPS)]
    writes = maps.writes(absences.items(), boots, EPOCH, LAYOUT, room)
    assert maps.TABLE_OFFSET + len(writes[-1][1]) <= LAYOUT.slot_offset(0)
    medium = Medium()
    medium.take(writes)
    found = read(medium)
    assert found.absences.keys() == absences.keys()
    assert found.boots == boots


def test_the_table_leaves_the_superblock_as_it_is():
    medium = Medium()
    medium.take([(LAYOUT_OFFSET, LAYOUT.pack())])
    medium.take(maps.writes({COPY: away(3)}.items(), {}, EPOCH, LAYOUT, ROOM))
    assert Layout.unpack(medium.load(LAYOUT_OFFSET, 512)[: len(LAYOUT.pack())]) == LAYOUT


def test_a_map_takes_a_bit_for_each_page():
    layout = Layout.plan(1 << 30, POOL_ID)
    assert maps.length_for(layout) == (1 << 30) // 32768
    assert maps.length_for(LAYOUT) == PAGE
    assert len(Absent(1 << 30).empty().content()) == (1 << 30) // 32768


# --- the room that they lie in ----------------------------------------------------------------


def catalogue_of(medium, *lengths, zeroed=True):
    layout = Layout.plan(len(medium.seen), POOL_ID)
    catalogue = Catalogue.format(medium, layout, zeroed=zeroed)
    for number, length in enumerate(lengths):
        catalogue.create_all([(str(number), length, describe((length,), "C", "|u1"))])
    return catalogue


def taken(catalogue):
    spans = [(entry.offset, entry.end) for entry in catalogue.entries.values()]
    return spans + catalogue.spans


def test_maps_lie_in_free_room_below_the_mark():
    medium = CrashMedium(60 * PAGE)
    catalogue = catalogue_of(medium, 5 * PAGE, 100)
    before = catalogue.free
    found = catalogue.spare_room(PAGE, 3)
    assert len(set(found)) == 3
    assert catalogue.free == before
    assert catalogue.mark >= max(found) + PAGE
    for offset in found:
        assert offset % PAGE == 0
        assert all(offset + PAGE <= begin or end <= offset for begin, end in taken(catalogue))
    assert catalogue.spare_room(PAGE, 3) == found
    # The mark is durable everywhere, so what is stored there is never taken for zeros.
    for image in (medium.durable, medium.remote):
        again = Catalogue.read(CopyOf(image), Layout.plan(len(image), POOL_ID))
        assert again.mark == catalogue.mark


def test_below_the_mark_nothing_is_changed_for_them():
    medium = CrashMedium(60 * PAGE)
    catalogue = catalogue_of(medium, 5 * PAGE, zeroed=False)
    before = medium.durable.copy()
    assert len(catalogue.spare_room(PAGE, 2)) == 2
    assert np.array_equal(medium.durable, before)


def test_where_there_is_no_room_there_are_fewer():
    medium = CrashMedium(60 * PAGE)
    catalogue = catalogue_of(medium)
    catalogue.create_all([("0", catalogue._free.largest - 2 * PAGE, describe((1,), "C", "|u1"))])
    found = catalogue.spare_room(PAGE, 40)
    assert 0 < len(found) < 40
    assert catalogue.spare_room(1 << 20, 1) == []
    assert catalogue.spare_room(PAGE, 0) == []


class CopyOf:
    """Reads an image."""

    def __init__(self, image):
        self._image = image

    def load(self, offset, length):
        return self._image[offset : offset + length].tobytes()
