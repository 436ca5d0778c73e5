"""Which copies are away, and when it is believed what they have missed."""

from __future__ import annotations

import pytest

from rpmem.base.values import replace
from rpmem.epochs.record import CopyRecord, Epoch, Mark, Parting, Stamp
from rpmem.pool.absent import MOST_MAPS, Absence, Absent

SIZE = 1 << 20
PAGE = 4096
OWN, COPY, OTHER = (bytes([number]) * 16 for number in (1, 2, 3))
EPOCH = Epoch(5, b"e" * 16, (OWN, COPY), (OWN, COPY), 2)
LATER = Epoch(6, b"f" * 16, (OWN,), (OWN,), 1, (EPOCH.stamp,))
BOOT = b"b" * 16


def of(mark, epoch=EPOCH, prepared=None, copy=COPY):
    return CopyRecord(copy, epoch, mark, prepared)


def away(**how):
    absent = Absent(SIZE)
    pages = absent.empty()
    absent.part(COPY, Absence(pages, EPOCH.stamp, **how))
    return absent, pages


def find(absent, record, *, keeps=True, boot=None):
    return absent.find(record, keeps=keeps, boot=boot)


@pytest.mark.parametrize("mark", [Mark.BEGUN, Mark.LEFT, Mark.CLEAN])
def test_a_copy_comes_back_with_the_record_with_which_it_went(mark):
    absent, pages = away()
    assert find(absent, of(mark)) is pages


@pytest.mark.parametrize(
    "record",
    [
        of(Mark.JOINING),
        of(Mark.BEGUN, replace(EPOCH, identity=b"x" * 16)),
        of(Mark.BEGUN, replace(EPOCH, number=4)),
        of(Mark.CLEAN, prepared=LATER),
        of(Mark.BEGUN, copy=OWN),
        of(Mark.BEGUN, replace(EPOCH, in_sync=(OWN,), quorum=1)),
    ],
    ids=["mixture", "other epoch", "other number", "offered another", "other copy", "not in sync"],
)
def test_a_copy_that_is_not_what_went_away(record):
    assert find(away()[0], record) is None


def test_what_was_closed_has_to_say_so():
    absent, pages = away(clean=True)
    assert find(absent, of(Mark.CLEAN)) is pages
    assert find(absent, of(Mark.BEGUN)) is None
    assert find(absent, of(Mark.LEFT)) is None


@pytest.mark.parametrize("before", [None, BOOT])
@pytest.mark.parametrize("now", [None, BOOT, b"c" * 16])
@pytest.mark.parametrize("keeps", [False, True])
def test_what_was_in_memory_only_needs_the_same_boot(before, now, keeps):
    absent, _ = away(boot=before)
    trusted = keeps or before == now == BOOT
    assert (find(absent, of(Mark.BEGUN), keeps=keeps, boot=now) is not None) == trusted


def test_members_that_do_not_come_along_have_missed_nothing_yet():
    absent = Absent(SIZE)
    absent.part_closed(of(Mark.CLEAN, copy=OWN), [OWN])
    assert [(copy, each.clean, each.last) for copy, each in absent] == [(COPY, True, EPOCH.stamp)]


@pytest.mark.parametrize("mark", [Mark.BEGUN, Mark.LEFT, Mark.JOINING])
def test_nothing_is_known_where_our_copy_was_not_closed(mark):
    absent = Absent(SIZE)
    absent.part_closed(of(mark, copy=OWN), [OWN])
    assert len(absent) == 0


def test_a_map_that_there_is_goes_on():
    absent, pages = away()
    pages.add(PAGE, 1)
    absent.part_closed(of(Mark.CLEAN, copy=OWN), [OWN])
    assert absent.maps == [pages]


def test_what_no_call_made_durable_is_marked_for_all():
    absent, pages = away()
    more = absent.empty()
    absent.part(OTHER, Absence(more, EPOCH.stamp))
    absent.missed([(PAGE, 1), (5 * PAGE - 1, 2)])
    for each in (pages, more):
        assert [page for page in range(SIZE // PAGE) if page * PAGE in each] == [1, 4, 5]


def test_copies_that_the_epoch_does_not_remember_are_forgotten():
    absent, _ = away()
    absent.keep_to(replace(LATER, common=(Parting(COPY, EPOCH.stamp, False, 0),)))
    assert len(absent) == 1
    absent.keep_to(LATER)
    assert len(absent) == 0


def test_there_are_no_more_maps_than_copies_that_are_remembered():
    absent = Absent(SIZE)
    for number in range(3 * MOST_MAPS):
        absent.part(bytes([number]) * 16, Absence(absent.empty(), Stamp(1, bytes(16))))
    newest = range(2 * MOST_MAPS, 3 * MOST_MAPS)
    assert [copy[0] for copy, _ in absent] == list(newest)
    assert len(absent.maps) == MOST_MAPS
